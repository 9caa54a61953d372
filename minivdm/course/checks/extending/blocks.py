"""Checks of exercises 10.1 and 10.8: whether blocks show, and what each is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, uniform, video
from minivdm.tasks import autoregressive

Block = tuple[list[int], list[int]]  # the frames observed, and those made


# ---- seams ---------------------------------------------------------------------------------------------------


def _seam_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, clips of 6 frames, a seam", (video(g, 2, 1, 6, 4, 4, dtype=dtype), [3]))
    loud = torch.tensor([0.2, 2.0], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    yield Case("a quiet and a loud clip, two seams, the later one first", (loud * video(g, 2, 2, 7, 3, 3), [5, 2]))
    yield Case("one clip, a seam at each end", (video(g, 1, 1, 5, 2, 2), [1, 4]))
    yield Case("a seam that is named twice", (video(g, 2, 1, 6, 2, 2), [4, 2, 4]))


def _seam(videos: Tensor, seams: list[int]) -> Tensor:
    change = [(videos[:, :, k] - videos[:, :, k - 1]).square().mean() for k in range(1, videos.shape[2])]
    others = [value for k, value in enumerate(change, 1) if k not in seams]
    return torch.stack([change[k - 1] for k in sorted(set(seams))]).mean() / torch.stack(others).mean()


def _scored(score: Callable[[Tensor, Tensor], Tensor], shift: int = 0, power: int = 2) -> Callable[..., Tensor]:
    """score: (changes (b, f - 1), which of them are seams (f - 1,)) -> the ratio."""

    def answer(videos: Tensor, seams: list[int]) -> Tensor:
        change = videos.diff(dim=2).abs().pow(power).mean(dim=(1, 3, 4))
        at = torch.zeros(change.shape[1], dtype=torch.bool)
        at[[min(seam - 1 + shift, len(at) - 1) for seam in seams]] = True
        return score(change, at)

    return answer


def _ratio(change: Tensor, at: Tensor) -> Tensor:
    return change[:, at].mean() / change[:, ~at].mean()


def _named_twice(videos: Tensor, seams: list[int]) -> Tensor:
    change = videos.diff(dim=2).square().mean(dim=(0, 1, 3, 4))
    others = [k - 1 for k in range(1, videos.shape[2]) if k not in seams]
    return change[[seam - 1 for seam in seams]].mean() / change[others].mean()


seam_score = Check(
    "seam_score",
    _seam,
    _seam_cases,
    [
        Wrong(
            _scored(_ratio, shift=1),
            "you look one frame too late: the jump leads from the last old frame into the one named.",
        ),
        Wrong(
            _scored(lambda change, at: change[:, at].mean() / change.mean()),
            "your denominator contains the seams themselves; compare with the other frames only.",
        ),
        Wrong(_scored(_ratio, power=1), "you average the sizes of the changes, not their squares."),
        Wrong(_scored(lambda change, at: 1 / _ratio(change, at)), "your ratio is upside down: a bad seam scores high."),
        Wrong(
            _scored(lambda change, at: (change[:, at].mean(1) / change[:, ~at].mean(1)).mean()),
            "you average ratios of clips; asked is one ratio, of two means over all clips.",
        ),
        Wrong(
            _scored(lambda change, at: change[:, at].sum() / change[:, ~at].sum()),
            "you compare sums. There are fewer seams than other frames, so both have to be means.",
        ),
        Wrong(
            _named_twice,
            "a seam that is named twice counts twice in your mean: `seams` says where seams are, not how often.",
        ),
    ],
)


# ---- order of blocks -----------------------------------------------------------------------------------------


def _block_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    n, extra, overlap = (int(uniform(g, *bounds)) for bounds in ((9, 16), (20, 40), (2, 8)))
    for numbers in ((16, 64, 16, 8), (10, 37, 16, 12), (n, n + extra, 16, overlap), (3, 10, 4, 0)):
        yield Case("the last {} of {} frames exist, window {}, overlap {}".format(*numbers), numbers)
    yield Case("fewer exist than the overlap", (2, 20, 8, 4))
    yield Case("the whole video fits into the window", (3, 6, 8, 2))


def _mirrored(block: Block, frames: int) -> Block:
    observed, new = ([frames - 1 - i for i in reversed(part)] for part in block)
    return observed, new


def _before(known: int, frames: int, window: int, overlap: int) -> list[Block]:
    """The blocks that go forwards, seen in a mirror."""
    return [_mirrored(block, frames) for block in autoregressive(range(known), frames, window, overlap)]


def _walk(begin: Callable[..., int], end: Callable[..., int] | None = None) -> Callable[..., list[Block]]:
    """In the mirror: begin: (there, frames, window, overlap) -> first frame of a block; end: one after its last."""

    def answer(known: int, frames: int, window: int, overlap: int) -> list[Block]:
        blocks: list[Block] = []
        while known < frames and len(blocks) < 99:
            start = begin(known, frames, window, overlap)
            stop = min(start + window, frames) if end is None else end(start, known, frames, window, overlap)
            blocks.append(_mirrored((list(range(start, known)), list(range(known, stop))), frames))
            known = stop
        return blocks

    return answer


blocks_before = Check(
    "blocks_before",
    _before,
    _block_cases,
    [
        Wrong(
            lambda *numbers: list(autoregressive(range(numbers[0]), *numbers[1:])),
            "you make the frames *after* the first ones; here the last ones exist, and those before them are wanted.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: max(0, k - o)),
            "your last block is not full: where few frames are missing, it can observe more than the overlap.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: max(0, k - o), lambda start, k, f, n, o: start + n),
            "your last block runs beyond the beginning of the video, to negative frames.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: min(max(0, k - o), max(0, f - n)), lambda start, k, f, n, o: min(k + n, f)),
            "your blocks hold `window` new frames and the overlap besides: the network holds `window` in all.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: min(max(0, k - n + o), max(0, f - n))),
            "you make `overlap` new frames and observe the rest: it is the other way round.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: min(max(0, k - o - 1), max(0, f - n))),
            "your blocks observe one frame more than the overlap.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: min(k, max(0, f - n)) if o else k),
            "your blocks do not observe the frames after them, so that the next block knows nothing of the last.",
        ),
        Wrong(
            lambda *numbers: _before(*numbers)[::-1],
            "your blocks are in the order of time; they are made in the other one, beginning beside what exists.",
        ),
        Wrong(
            lambda *numbers: [(observed[::-1], new[::-1]) for observed, new in _before(*numbers)],
            "the frames within your blocks fall; a network is shown them in the order of time.",
        ),
    ],
)
