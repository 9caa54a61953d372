"""Checks of exercises 14.3 to 14.5: all stages one after the other, their thresholds, layers that start as nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, uniform, video

# ---- thresholding from a floor -------------------------------------------------------------------------------


def _threshold_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, three clips, floor -1", (2 * video(g, 3, 1, 2, 5, 5, dtype=dtype), -1.0, 0.9))
    yield Case("floor 0", (3 * video(g, 2, 1, 2, 5, 4), 0.0, 0.8))
    dim = torch.stack([video(g, 1, 2, 4, 4).tanh() * 0.3 - 0.4, 4 * video(g, 1, 2, 4, 4)])
    yield Case("a dim clip beside a bright one", (dim, -1.0, 0.95))
    yield Case("in range", (video(g, 2, 1, 1, 4, 4).tanh(), -1.0, 1.0))


def _threshold(
    x_hat: Tensor,
    floor: float,
    quantile: float,
    slip: str = "",
) -> Tensor:
    span = 1.0 if slip == "span" else 1 - floor
    height = (x_hat - floor) / span
    if slip != "below":
        height = height.clamp(min=0)
    if slip == "zero":
        height, floor, span = x_hat, 0.0, 1.0
    measured = height.abs() if slip == "zero" else height
    rows = measured.flatten(1)
    m = torch.quantile(rows.flatten()[None] if slip == "batch" else rows, quantile, dim=1)
    if slip == "most":
        m = rows.amax(1)
    if slip != "stretch":
        m = m.clamp(min=1)
    m = m.reshape(-1, *[1] * (x_hat.ndim - 1))
    kept = height if slip == "unclipped" else height.clamp(max=m)
    if slip == "zero":
        kept = height.clamp(-m, m)
    if slip == "undivided":
        return floor + span * kept
    return floor + span * kept / m


def _thresholded(slip: str) -> Callable[..., Tensor]:
    return functools.partial(_threshold, slip=slip)


threshold = Check(
    "threshold",
    _threshold,
    _threshold_cases,
    [
        Wrong(
            _thresholded("zero"), "you divide x_hat itself: a background at the floor becomes grey. Measure heights."
        ),
        Wrong(_thresholded("batch"), "your m is that of all clips together; each clip has one of its own."),
        Wrong(_thresholded("stretch"), "your m can be below 1: a dim clip would be stretched."),
        Wrong(_thresholded("unclipped"), "you divide by m without clipping at m."),
        Wrong(_thresholded("undivided"), "you clip at m and do not divide by it: the result is not in range."),
        Wrong(_thresholded("below"), "values below the floor stay there; their height is 0."),
        Wrong(_thresholded("span"), "a height of 1 is at the top: divide by 1 - floor."),
        Wrong(_thresholded("most"), "your m is the largest height; asked is a quantile."),
    ],
)


# ---- a convolution over time ---------------------------------------------------------------------------------


def _pseudo_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        yield Case(
            f"{name_of(dtype)}, five frames", (video(g, 2, 5, 3, 2, 4, dtype=dtype), video(g, 3, 3, 3, dtype=dtype))
        )
    yield Case("one frame", (video(g, 2, 1, 4, 2, 2), video(g, 4, 4, 3)))
    zero = torch.zeros(2, 2, 3, dtype=torch.float64)
    yield Case("a kernel of zeros", (video(g, 1, 4, 2, 3, 3), zero))


def _pseudo(s: Tensor, kernel: Tensor, slip: str = "") -> Tensor:
    if slip == "channels":
        kernel = kernel.transpose(0, 1)
    if slip == "reversed":
        kernel = kernel.flip(2)
    padded = F.pad(s, (0, 0, 0, 0, 0, 0, 1, 1))
    if slip == "circular":
        padded = torch.cat([s[:, -1:], s, s[:, :1]], 1)
    if slip == "replicate":
        padded = torch.cat([s[:, :1], s, s[:, -1:]], 1)
    if slip == "causal":
        padded = F.pad(s, (0, 0, 0, 0, 0, 0, 2, 0))
    f = s.shape[1]
    parts = [torch.einsum("oi,bfihw->bfohw", kernel[:, :, k], padded[:, k : k + f]) for k in range(3)]
    mixed = parts[0] + parts[1] + parts[2]
    return mixed if slip == "alone" else s + mixed


def _slipped(slip: str) -> Callable[..., Tensor]:
    return functools.partial(_pseudo, slip=slip)


pseudo_3d = Check(
    "pseudo_3d",
    _pseudo,
    _pseudo_cases,
    [
        Wrong(_slipped("alone"), "with a kernel of zeros you return zeros: the frame itself is missing."),
        Wrong(_slipped("reversed"), "your kernel runs backwards in time: kernel[..., 0] belongs to the frame before."),
        Wrong(_slipped("circular"), "your first frame sees the last one; beyond the ends there is nothing."),
        Wrong(_slipped("replicate"), "you repeat the end frames; beyond the ends there is nothing, which is 0."),
        Wrong(_slipped("causal"), "your kernel looks back alone; its middle belongs to the frame itself."),
        Wrong(_slipped("channels"), "inputs and outputs are exchanged: kernel is (out, in, 3)."),
    ],
)


# ---- a whole cascade -----------------------------------------------------------------------------------------


class _Grow:
    """A clip at another size: frames and pixels repeated, and tilted a little, so that order counts."""

    def __init__(self, every: int, space: int) -> None:
        self.every, self.space = every, space

    def __call__(self, clip: Tensor) -> Tensor:
        longer = clip.repeat_interleave(self.every, 2)
        large = longer.repeat_interleave(self.space, 3).repeat_interleave(self.space, 4)
        return large.square() * large.sign() + 0.1


class _Make:
    """A stage of sorts: it overshoots, and answers differently to each level."""

    def __init__(self, gain: float, first: Tensor | None = None) -> None:
        self.gain, self.first = gain, first

    def __call__(self, given: Tensor | None, level: Tensor | None) -> Tensor:
        if self.first is not None:
            return self.first.clone()
        assert given is not None
        told = 0.5 if level is None else level.reshape(-1, *[1] * (given.ndim - 1)).to(given) / 8
        return self.gain * given + told


def _run_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    level = float(uniform(g, 0.5, 3))
    for dtype in FLOATS:
        first = 2 * video(g, 2, 1, 2, 2, 2, dtype=dtype)
        stages = [(None, _Make(1.0, first)), (_Grow(2, 1), _Make(1.7)), (_Grow(1, 2), _Make(-1.3))]
        noises = [None, video(g, 2, 1, 4, 2, 2, dtype=dtype), video(g, 2, 1, 4, 4, 4, dtype=dtype)]
        yield Case(f"{name_of(dtype)}, three stages, log-SNR {level:.2f}", (stages, noises, level))
        yield Case(f"{name_of(dtype)}, three stages, without augmentation", (stages, noises, None))
    yield Case("a base alone", ([(None, _Make(1.0, video(g, 1, 1, 2, 2, 2)))], [None], level))


def _run(
    stages: Sequence[Any],
    noises: Sequence[Any],
    log_snr: float | None,
    slip: str = "",
) -> Any:
    made = [stages[0][1](None, None)]
    for k in range(1, len(stages)):
        grow, make = stages[k]
        low = made[k - 1]
        given = grow(low if slip in ("unclamped", "late clamp") else low.clamp(-1, 1))
        level = None
        if log_snr is not None:
            level = torch.full((len(given),), log_snr, dtype=given.dtype)
            alpha, sigma = math.sqrt(1 / (1 + math.exp(-log_snr))), math.sqrt(1 / (1 + math.exp(log_snr)))
            if slip != "not noised":
                given = alpha * given + sigma * noises[k]
        elif slip == "always":
            given = (given + noises[k]) / math.sqrt(2)
        if slip == "late clamp":
            given = given.clamp(-1, 1)
        made.append(make(given, None if slip == "not told" else level))
        if slip == "clamped results":
            made[k] = made[k].clamp(-1, 1)
    return made[-1] if slip == "last" else made


def _ran(slip: str) -> Callable[..., Any]:
    return functools.partial(_run, slip=slip)


run_cascade = Check(
    "run_cascade",
    _run,
    _run_cases,
    [
        Wrong(_ran("unclamped"), "a stage overshoots: clamp its clip to [-1, 1] before the next one sees it."),
        Wrong(_ran("late clamp"), "you clamp after noising, which cuts the noise: clamp the clip itself."),
        Wrong(_ran("not noised"), "you tell the level and do not noise the clip."),
        Wrong(_ran("not told"), "you noise the clip and do not tell the level."),
        Wrong(_ran("always"), "without a level (None) the clip goes on as it is."),
        Wrong(_ran("clamped results"), "you return clamped clips; returned is what each stage made."),
        Wrong(_ran("last"), "asked are the clips of all stages, as a list."),
    ],
)
