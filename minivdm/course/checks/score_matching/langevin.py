"""Checks of exercises 03.1 and 03.7: a Langevin step, and Langevin down a ladder of noise levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, video
from minivdm.course.checks.score_matching.mixtures import mixture_score_of, random_mixture

# ---- a Langevin step -------------------------------------------------------------------------------------------


def _langevin_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, clips of 3 frames", (*(video(g, dtype=dtype) for _ in range(3)), 0.02))
    yield Case("points of a plane, a long step", (*(video(g, 5, 2) for _ in range(3)), 2.5))
    yield Case("one frame, one clip", (*(video(g, 1, 1, 1, 3, 3) for _ in range(3)), 0.3))


langevin_step = Check(
    "langevin_step",
    lambda z, score, noise, a: z + a / 2 * score + math.sqrt(a) * noise,
    _langevin_cases,
    [
        Wrong(
            lambda z, score, noise, a: z + a * score + math.sqrt(a) * noise,
            "your drift is twice too large; what stands before the gradient in (3.2)?",
        ),
        Wrong(
            lambda z, score, noise, a: z + a / 2 * score + a * noise,
            "your noise has standard deviation a; it is the variance of a Brownian increment that equals the time.",
        ),
        Wrong(
            lambda z, score, noise, a: z - a / 2 * score + math.sqrt(a) * noise,
            "you walk away from the data: the score points uphill, and so does the step.",
        ),
        Wrong(
            lambda z, score, noise, a: z + a / 2 * score + math.sqrt(2 * a) * noise,
            "your noise has variance 2a; that belongs to a drift without the one half of (3.2).",
        ),
        Wrong(
            lambda z, score, noise, a: z + a * score + math.sqrt(2 * a) * noise,
            "this is the same walk with time counted otherwise: for a step of (3.2) of length a, put a/2 for your a.",
        ),
        Wrong(
            lambda z, score, noise, a: z + a / 2 * score,
            "without the noise this is gradient ascent, and all points end on the peaks.",
        ),
    ],
)


# ---- annealed Langevin -----------------------------------------------------------------------------------------


def _annealed_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        weights, means, stds = random_mixture(g, 3, 2, dtype)

        def score(z: Tensor, sigma: float, w: Tensor = weights, m: Tensor = means, s: Tensor = stds) -> Tensor:
            return mixture_score_of(z, w, m, (s**2 + sigma**2).sqrt())

        yield Case(
            f"{name_of(dtype)}, 4 levels of 3 steps",
            (score, 3 * video(g, 5, 2, dtype=dtype), video(g, 4, 3, 5, 2, dtype=dtype), 4.0, 0.5, 0.01),
        )
        last = score
    yield Case("two levels of one step", (last, video(g, 3, 2), video(g, 2, 1, 3, 2), 2.0, 0.2, 0.003))
    yield Case(
        "clips, 3 levels of 2 steps",
        (lambda z, sigma: -z / (0.5 + sigma**2), video(g), video(g, 3, 2, 2, 1, 3, 4, 4), 5.0, 1.0, 0.05),
    )


def _annealed(
    score: Callable[[Tensor, float], Tensor],
    z: Tensor,
    noise: Tensor,
    high: float,
    low: float,
    step_size: float,
    *,
    ladder: Any = None,
    power: float = 2,
    drift: float = 0.5,
) -> Tensor:
    n = len(noise)
    geometric = [high * (low / high) ** (i / (n - 1)) for i in range(n)]
    for sigma, draws in zip(geometric if ladder is None else ladder(high, low, n), noise, strict=True):
        a = step_size * (sigma / low) ** power
        for eps in draws:
            z = z + drift * a * score(z, sigma) + math.sqrt(a) * eps
    return z


def _but(**changes: Any) -> Callable[..., Tensor]:
    return lambda *arguments: _annealed(*arguments, **changes)


annealed_langevin = Check(
    "annealed_langevin",
    _annealed,
    _annealed_cases,
    [
        Wrong(
            _but(ladder=lambda high, low, n: [high + (low - high) * i / (n - 1) for i in range(n)]),
            "your levels have equal differences; (3.14) asks for equal ratios.",
        ),
        Wrong(
            _but(ladder=lambda high, low, n: [high * (low / high) ** (i / n) for i in range(n)]),
            "your ladder stops one rung above the smallest level: how many gaps do L levels have?",
        ),
        Wrong(
            _but(ladder=lambda high, low, n: [low * (high / low) ** (i / (n - 1)) for i in range(n)]),
            "you climb from little noise to much; annealing goes the other way.",
        ),
        Wrong(_but(power=1), "your step size grows with σ; it should grow with σ²."),
        Wrong(_but(power=0), "your step size is the same at every level; at a coarse level a step can be longer."),
        Wrong(
            lambda score, z, noise, *rest: _annealed(score, z, noise[:, :1], *rest),
            "you take one step per level; the noise has one draw for each of several.",
        ),
    ],
)
