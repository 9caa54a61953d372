"""Checks of exercises 09.3 to 09.5: how far a step goes, and the average over steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

# ---- learning rate -------------------------------------------------------------------------------------------


def _rate_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    warmup, total = int(uniform(g, 800, 1200)), int(uniform(g, 9_000, 11_000))
    recipe = (2e-3, warmup, total, 0.02)
    yield Case("the very first clip", (0, *recipe))
    yield Case("halfway through the warm-up", (warmup // 2, *recipe))
    yield Case("the warm-up is over", (warmup, *recipe))
    yield Case("in the middle", (int(uniform(g, 0.3, 0.7) * total), *recipe))
    yield Case("the last clip", (total, *recipe))
    yield Case("longer than planned", (total + 500, *recipe))
    yield Case("without warm-up, down to zero", (total // 3, 1e-2, 0, total, 0.0))


def _rate(clips: int, peak: float, warmup: int, total: int, floor: float) -> float:
    if clips < warmup:
        return peak * (clips + 1) / warmup
    rest = max(0.0, 1 - (clips - warmup) / (total - warmup))
    return peak * (floor + (1 - floor) * math.sin(math.pi / 2 * rest) ** 2)  # sin² of half the angle


def _decayed(
    shape: Callable[[float], float],
    ramp: Callable[[int, int], float] = lambda n, w: (n + 1) / w,
    done: Callable[[int, int, int], float] | None = None,
) -> Callable[..., float]:
    """peak * shape(share of the decay that is done, floor), after the ramp."""

    def answer(clips: int, peak: float, warmup: int, total: int, floor: float) -> float:
        if clips < warmup:
            return peak * ramp(clips, warmup)
        share = min(1.0, (clips - warmup) / (total - warmup)) if done is None else done(clips, warmup, total)
        return peak * (floor + (1 - floor) * shape(share))

    return answer


def _half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


learning_rate = Check(
    "learning_rate",
    _rate,
    _rate_cases,
    [
        Wrong(
            _decayed(_half_cosine, ramp=lambda n, w: n / w),
            "your first step has the rate 0, and learns nothing: count the clip that is about to be seen.",
        ),
        Wrong(
            _decayed(_half_cosine, ramp=lambda n, w: (n + 1) // w),
            "your warm-up divides integers, //, which gives 0 until its last clip.",
        ),
        Wrong(
            lambda clips, peak, warmup, total, floor: (
                _rate(clips, peak, warmup, total, 0.0) * (1 - floor / peak) + (floor if clips >= warmup else 0.0)
            ),
            "you take `floor` for a rate; it is a share of the peak.",
        ),
        Wrong(
            _decayed(_half_cosine, done=lambda n, w, t: min(1.0, n / t)),
            "your cosine begins at clip 0; it begins where the warm-up ends.",
        ),
        Wrong(
            _decayed(_half_cosine, done=lambda n, w, t: (n - w) / (t - w)),
            "beyond the planned end your rate rises again with the cosine.",
        ),
        Wrong(
            _decayed(lambda share: math.cos(math.pi / 2 * share)),
            "this is a quarter of a cosine; (9.10) is half of one, flat at both ends.",
        ),
        Wrong(_decayed(lambda share: 1 - share), "your decay is a straight line."),
        Wrong(
            lambda clips, peak, warmup, total, floor: _rate(clips, peak, warmup, total, 0.0),
            "your rate falls to zero; it should end at the share `floor` of its peak.",
        ),
        Wrong(
            lambda clips, peak, warmup, total, floor: max(_rate(clips, peak, warmup, total, 0.0), peak * floor),
            "you cut the curve off at the floor; (9.10) squeezes the whole cosine between peak and floor.",
        ),
    ],
)


# ---- clipping the gradient -----------------------------------------------------------------------------------


def _gradient_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, three weights, too long",
            ([3 * video(g, 4, 3, dtype=dtype), video(g, 4, dtype=dtype), video(g, 2, 2, 3, dtype=dtype)], 1.0),
        )
    small = [0.05 * video(g, 4, 3), 0.05 * video(g, 4)]
    yield Case("short enough", (small, 10.0))
    yield Case("one weight, limit 0.3", ([video(g, 5)], 0.3))
    yield Case("all zero", ([torch.zeros(3, dtype=torch.float64)], 1.0))


def _clipped(gradients: list[Tensor], limit: float) -> list[Tensor]:
    """Without a division where nothing is to be done."""
    norm = torch.cat([part.flatten() for part in gradients]).square().sum().sqrt()
    return [part * (limit / norm) if norm > limit else part.clone() for part in gradients]


def _scaled(find: Callable[[Tensor, float], Any]) -> Callable[..., list[Tensor]]:
    """Every gradient times find(all values together, limit)."""
    return lambda gradients, limit: [
        part * find(torch.cat([other.flatten() for other in gradients]), limit) for part in gradients
    ]


clip_gradients = Check(
    "clip_gradients",
    _clipped,
    _gradient_cases,
    [
        Wrong(
            lambda gradients, limit: [_clipped([part], limit)[0] for part in gradients],
            "you clip each weight's gradient by itself, which changes the direction of the step; the norm is that of "
            "all of them together.",
        ),
        Wrong(
            lambda gradients, limit: [part.clamp(-limit, limit) for part in gradients],
            "you clip the values; then large components shrink and small ones do not, and the direction changes.",
        ),
        Wrong(
            _scaled(lambda all_, limit: limit / all_.norm().clamp(min=1e-30)),
            "you lengthen short gradients as well: the limit is an upper one.",
        ),
        Wrong(
            _scaled(lambda all_, limit: min(1.0, float(limit / all_.square().sum().clamp(min=1e-30)))),
            "you divide by the squared norm; take its root.",
        ),
        Wrong(
            _scaled(lambda all_, limit: min(1.0, float(limit / all_.abs().sum().clamp(min=1e-30)))),
            "your norm is the sum of sizes; the root of the sum of squares is meant.",
        ),
        Wrong(
            lambda gradients, limit: [
                part / (norm := sum(other.square().sum() for other in gradients).sqrt()) * norm.clamp(max=limit)
                for part in gradients
            ],
            "where all gradients are zero you divide by zero.",
        ),
    ],
    new=True,
)


# ---- averaging the weights -----------------------------------------------------------------------------------


def _average_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, two weights, half-life of 20 steps",
            (
                [video(g, 3, 2, dtype=dtype), video(g, 4, dtype=dtype)],
                [video(g, 3, 2, dtype=dtype), video(g, 4, dtype=dtype)],
                20.0,
            ),
        )
    yield Case("half-life of one step", ([video(g, 5)], [video(g, 5)], 1.0))
    yield Case("half-life of 700 steps", ([video(g, 2, 2)], [video(g, 2, 2)], 700.0))


def _averaged(decay: Callable[[float], float]) -> Callable[..., list[Tensor]]:
    return lambda average, weights, half_life: [
        decay(half_life) * m + (1 - decay(half_life)) * w for m, w in zip(average, weights, strict=True)
    ]


ema_update = Check(
    "ema_update",
    _averaged(lambda h: 0.5 ** (1 / h)),
    _average_cases,
    [
        Wrong(
            _averaged(lambda h: 1 - 0.5 ** (1 / h)),
            "decay and its complement are exchanged: one step should change an average over many steps a little.",
        ),
        Wrong(
            _averaged(lambda h: 1 - 1 / h),
            "this decay is right for a *mean* life of so many steps: after a half-life a half is left, not 1/e.",
        ),
        Wrong(
            _averaged(lambda h: math.exp(-1 / h)),
            "after so many steps your average has kept 1/e of the old value, and not a half.",
        ),
        Wrong(_averaged(lambda h: 0.5**h), "your decay falls with the half-life; a longer one forgets more slowly."),
        Wrong(
            lambda average, weights, half_life: [
                0.5 ** (1 / half_life) * m + w for m, w in zip(average, weights, strict=True)
            ],
            "your two shares do not add up to one: the average would grow without bound.",
        ),
        Wrong(
            lambda average, weights, half_life: [(m + w) / 2 for m, w in zip(average, weights, strict=True)],
            "this is the plain mean of both, whatever the half-life.",
        ),
    ],
    new=True,
)
