"""In which order the blocks of a long video are made: iterators of (observed, new) frame indices.

A network holds `window` frames at once. An order says, block by block, which frames it is shown and which it has
to make; both are indices into the whole video. It is a function (known, frames, window) -> iterator of blocks,
where `known` are the indices that are there already; bind its options with functools.partial.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence

from minivdm.guards import BadArgument, check_types, whole

ObservedAndNew = tuple[list[int], list[int]]
Order = Callable[[Sequence[int], int, int], Iterable[ObservedAndNew]]


class NoNewFrames(BadArgument):
    """A request in which every frame is known already."""


class TooManyObserved(BadArgument):
    """More observed frames than the model holds, or so many that no room is left for a new one."""


class BadOrder(BadArgument):
    """Blocks that cannot be made one after the other, or that leave frames out."""


def autoregressive(
    known: Sequence[int], frames: int, window: int, overlap: int | None = None
) -> Iterator[ObservedAndNew]:
    """One window after the other, from what is known forwards, then backwards (VDM section 3.1).

    A block is `window` neighbouring frames; it begins with `overlap` frames of what is there already, by default
    half of them, and the last one with as many more as make it full. Frames known in the middle of it, as in
    interpolation, are observed as well.
    """
    there = _known(known, frames, window)
    overlap = window // 2 if overlap is None else overlap
    if not 0 <= overlap < window:
        raise TooManyObserved(f"overlap: expected 0 to {window - 1} of the {window} frames of a block, got {overlap}")
    while missing := [frame for frame in range(frames) if frame not in there]:
        after = [frame for frame in missing if frame - 1 in there] or ([0] if not there else [])
        if after:  # forwards
            start = min(max(0, after[0] - overlap), max(0, frames - window))
        else:  # all that is missing lies before the first known frame
            start = max(0, min(there) + overlap - window)
        block = range(start, min(start + window, frames))
        new = [frame for frame in block if frame not in there]
        yield [frame for frame in block if frame in there], new
        there.update(new)


def hierarchical(
    known: Sequence[int], frames: int, window: int, overlap: int | None = None
) -> Iterator[ObservedAndNew]:
    """Coarse to fine: first every S-th frame of the whole video, then those between, then those between these.

    S is the smallest power of two at which one block spans the video. A block of stride S shows the network frames
    S apart: ask it of a model that knows of strides (`extend`'s `denoise_at`), or take the jumps for fast motion.
    Compare Harvey et al. 2022, "Flexible diffusion modeling of long videos".
    """
    there = _known(known, frames, window)
    stride = 1
    while (frames - 1) // stride + 1 > window:
        stride *= 2
    offset = min(there, default=0)
    while stride:
        chosen = range(offset % stride, frames, stride)
        inside = [i for i, frame in enumerate(chosen) if frame in there]
        for observed, new in autoregressive(inside, len(chosen), window, overlap):
            yield [chosen[i] for i in observed], [chosen[i] for i in new]
            there.update(chosen[i] for i in new)
        stride //= 2


def plan(
    order: Order | Iterable[ObservedAndNew], known: Sequence[int], frames: int, window: int
) -> list[ObservedAndNew]:
    """All blocks of an order, checked. order: a function as above, or the blocks themselves.

    Raises NoNewFrames, TooManyObserved, and BadOrder where a block observes a frame that is not there yet, makes one
    that is, names one outside the video or makes none, or where frames are left out at the end.
    """
    there = _known(known, frames, window)
    if not callable(order) and (
        isinstance(order, str) or not isinstance(order, Iterable) or getattr(order, "ndim", 1) == 0
    ):
        raise BadOrder(f"order: expected a function or pairs of frame indices (observed, new), got {order!r}")
    if len(known) >= frames:
        raise NoNewFrames(f"expected more frames than the {len(known)} known ones, got {frames}: nothing to make")
    blocks: list[ObservedAndNew] = []
    for pair in order(known, frames, window) if callable(order) else order:
        number = len(blocks) + 1
        try:
            observed, new = (list(map(operator.index, indices)) for indices in pair)
        except (TypeError, ValueError):
            raise BadOrder(
                f"block {number}: expected two lists of frame indices (observed, new), got {pair!r}"
            ) from None
        if not new:
            raise NoNewFrames(f"block {number}: expected at least one new frame, got none")
        if len(observed) + len(new) > window:
            got = f"{len(observed)} observed and {len(new)} new"
            raise TooManyObserved(f"block {number}: expected at most the {window} frames that a model holds, got {got}")
        if not set(observed) <= there:
            raise BadOrder(f"block {number}: observes frames {sorted(set(observed) - there)}, which are not there yet")
        if there & set(new) or len(set(new)) < len(new) or len(set(observed)) < len(observed):
            raise BadOrder(f"block {number}: expected frames that are new, each once, got {new}")
        if not all(0 <= frame < frames for frame in new):
            raise BadOrder(f"block {number}: expected frames out of 0 to {frames - 1}, got {new}")
        there |= set(new)
        blocks.append((observed, new))
    if len(there) < frames:
        raise BadOrder(f"the blocks leave out frames {sorted(set(range(frames)) - there)}")
    return blocks


def _known(known: Sequence[int], frames: int, window: int) -> set[int]:
    """The known frames as a set; BadOrder unless they are different frames of the video."""
    whole("frames", frames)
    whole("window", window)
    if any(not 0 <= frame < frames for frame in known) or len(set(known)) != len(known):
        raise BadOrder(f"known: expected different frames out of 0 to {frames - 1}, got {list(known)}")
    return set(known)


check_types(globals())
