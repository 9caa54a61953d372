"""Longer videos, and the frames between others: any length, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.core.denoiser import Denoise, schedule_of
from minivdm.core.observe import BadObservation, Downsample, Frames, Observe
from minivdm.core.samplers import Sampling
from minivdm.guards import BadArgument, BadType, check_types, whole
from minivdm.tasks.orders import NoNewFrames, ObservedAndNew, Order, autoregressive, plan
from minivdm.tasks.restoration import Problem, RestorationFields, RestorationSampling, placed, pose, solve, window_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


class BlockwiseFields(RestorationFields, total=False):
    """Keywords of `extend`, `interpolate` and `super_resolve` besides those in their signatures."""

    steps: int | None
    sampling: Sampling | None
    weight: float
    temporal_weight: float
    denoise_at: Callable[[list[int]], Denoise] | None
    generator: torch.Generator | None
    progress: bool
    callback: Callable[[Tensor, Tensor], object] | None


@dataclass(frozen=True)
class Blockwise:
    """How all blocks of a video are made; of what is in `how`, see RestorationSampling."""

    how: RestorationSampling
    weight: float = 0.0
    temporal_weight: float = 0.0
    denoise_at: Callable[[list[int]], Denoise] | None = None
    generator: torch.Generator | None = None
    progress: bool = False
    callback: Callable[[Tensor, Tensor], object] | None = None

    @classmethod
    def of(cls, named: dict[str, Any]) -> Blockwise:
        """From keywords; BadType for one that is known neither here nor to RestorationSampling."""
        own = {name: named.pop(name) for name in list(named) if name in cls.__dataclass_fields__ and name != "how"}
        if own.get("denoise_at") is not None and not callable(own["denoise_at"]):
            raise BadType(f"denoise_at: expected a function of frame indices, got {own['denoise_at']!r}")
        return cls(RestorationSampling.of(named.pop("sampling", None), **named), **own)


@torch.no_grad()
def extend(
    denoise: Denoise,
    video: Tensor,
    frames: int,
    *,
    at: Sequence[int] | None = None,
    backwards: bool = False,
    order: Order | Iterable[ObservedAndNew] = autoregressive,
    window: int | None = None,
    labels: Tensor | None = None,
    **named: Unpack[BlockwiseFields],
) -> Tensor:
    """A video of `frames` frames (b, c, frames, h, w) that contains `video` (b, c, n, h, w), made block by block.

    Args:
        denoise: a trained Denoiser, an exact or a guided one; with labels it needs `.given`.
        at: where in the result the known frames lie; by default at its beginning, or at its end where `backwards`.
        order: which frames each block observes and makes: `autoregressive`, `hierarchical`, either with an overlap
            bound by functools.partial, or any iterable of (observed, new) indices into the result.
        window: how many frames the network holds; by default as many as it was trained on. Memory depends on it, not
            on `frames`, but for the result itself.
        labels: (b or 1, n_labels) for all frames, or (b or 1, frames, n_labels).
        named: `weight`, `temporal_weight`, `steps`, `step` and all others of `restore`; `denoise_at`, frame indices of
            a block -> the denoiser to sample it with, for models that know which frames they see; `progress`, one bar
            for all blocks; `callback`, as for `samplers.sample`.

    Raises:
        BadObservation, NoNewFrames, TooManyObserved, BadOrder, BadArgument: before anything is sampled.
    """
    options = Blockwise.of(dict(named))
    video = placed(denoise, video)
    n = video.shape[2]
    if whole("frames", frames) <= n:
        raise NoNewFrames(f"frames: expected more than the {n} known ones, got {frames}: nothing to make")
    if at is None:
        at = range(frames - n, frames) if backwards else range(n)
    if len(at) != n:
        raise BadObservation(f"at: expected an index for each of the {n} known frames, got {len(at)}")
    blocks = plan(order, list(at), frames, window_of(denoise, window))
    canvas = video.new_zeros(*video.shape[:2], frames, *video.shape[3:])
    canvas[:, :, list(at)] = video
    return fill(denoise, canvas, blocks, options, labels)


@torch.no_grad()
def interpolate(
    denoise: Denoise,
    video: Tensor,
    between: int,
    *,
    order: Order | Iterable[ObservedAndNew] = autoregressive,
    window: int | None = None,
    labels: Tensor | None = None,
    **named: Unpack[BlockwiseFields],
) -> Tensor:
    """`between` new frames between any two neighbours of video (b, c, n, h, w): n + (n - 1) between frames.

    The known frames are `between` + 1 apart in the time of the model. Further arguments and errors: as for `extend`,
    which joins clips too: `extend(denoise, both, frames, at=[*first, *last])`.
    """
    video = placed(denoise, video)
    if whole("between", between, least=-1) < 1:
        raise NoNewFrames(f"between: expected at least 1 new frame between two known ones, got {between}")
    if video.shape[2] < 2:
        raise BadObservation(f"video: expected at least 2 frames to interpolate between, got {video.shape[2]}")
    frames = video.shape[2] + (video.shape[2] - 1) * between
    at = range(0, frames, between + 1)
    return extend(denoise, video, frames, at=at, order=order, window=window, labels=labels, **named)


def fill(
    denoise: Denoise,
    canvas: Tensor,
    blocks: list[ObservedAndNew],
    options: Blockwise,
    labels: Tensor | None = None,
    low: tuple[Downsample, Tensor] | None = None,
) -> Tensor:
    """Makes the blocks one after the other on a canvas (b, c, frames, h, w) that holds the known frames.

    low: the whole video as it was seen, small, and what made it so.
    """
    b, _, total, _, _ = canvas.shape
    times = options.how.times(schedule_of(denoise))
    if labels is not None and (
        labels.ndim == 0 or labels.shape[0] not in (1, b) or (labels.ndim == 3 and labels.shape[1] != total)
    ):
        wanted = f"({b}, n) or ({b}, {total}, n)"
        raise BadArgument(f"labels: expected {wanted} for {b} videos of {total} frames, got {tuple(labels.shape)}")

    def problem(block: ObservedAndNew) -> tuple[Problem, list[int]]:
        """A block as it stands on the canvas, and its frames."""
        observed, new = sorted(block[0]), block[1]
        indices = sorted([*observed, *new])
        seen: list[tuple[Observe, Tensor]] = []
        if observed:
            seen.append((Frames([indices.index(frame) for frame in observed]), canvas[:, :, observed]))
        if low is not None:
            operator, small = low
            places = [i for i, frame in enumerate(indices) if frame % operator.every == 0]
            if places:
                part = small[:, :, [indices[i] // operator.every for i in places]]
                seen.append((Downsample(operator.space, frames=places), part))
        own = denoise if options.denoise_at is None else options.denoise_at(indices)
        shape = (canvas.shape[1], len(indices), *canvas.shape[3:])
        of_block = labels[:, indices] if labels is not None and labels.ndim == 3 else labels
        return pose(own, seen, shape, options.how, of_block, options.weight, options.temporal_weight), indices

    for block in blocks:  # everything is checked before anything is sampled; frames to be made still stand at 0
        problem(block)
    with tqdm(total=len(blocks) * (len(times) - 1), disable=not options.progress, desc="sampling") as bar:

        def count(z: Tensor, t: Tensor) -> None:
            bar.update()
            if options.callback is not None:
                options.callback(z, t)

        for block in blocks:
            posed, indices = problem(block)
            made = solve(posed, options.generator, count)[:, :, [indices.index(frame) for frame in block[1]]]
            clip = options.how.clip
            canvas[:, :, block[1]] = (made if clip is None else made.clamp(*clip)).to(canvas)
    return canvas


check_types(globals())
