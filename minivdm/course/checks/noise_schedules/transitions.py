"""Checks of exercises 02.2 and 02.4: to a noisier level, and back to a cleaner one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule, gaussian
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, ordered_pair, uniform, video

COSINE, LINEAR, SUB_VP, VE = CosineSchedule(), LinearSchedule(), SubVPSchedule(), VESchedule(0.05, 6.0)


# ---- q(z_t | z_s) ----------------------------------------------------------------------------------------------


def _transition_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    yield Case("cosine", (t, s, COSINE))
    yield Case("times of three clips, sub-VP", (uniform(g, 0.5, 0.9, 3), uniform(g, 0.1, 0.4, 3), SUB_VP))
    yield Case("variance exploding", (t, s, VE))
    yield Case("from s = 0, VP linear", (t, 0.0, LINEAR))
    yield Case("to t = 1, cosine", (1.0, s, COSINE))
    yield Case("neighbours, VP linear", (t + 1e-3, t, LINEAR))


def _steps(find: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """find: (alpha_s, sigma_s, alpha_t, sigma_t, k) -> (scale, variance)."""

    def answer(t: Any, s: Any, schedule: Schedule) -> tuple[Tensor, Tensor]:
        a, b = schedule.alpha(s), schedule.alpha(t)
        return find(a, schedule.sigma(s), b, schedule.sigma(t), b / a)

    return answer


transition = Check(
    "transition",
    lambda t, s, schedule: tuple(gaussian.transition(s, t, schedule)),
    _transition_cases,
    [
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, 1 - k**2)),
            "1 − k² is right where variance is preserved, as in DDPM; (2.9) holds for every process.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, st**2 - ss**2)),
            "the noise that was there at s has been scaled by k since: subtract k² σ_s².",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, (st - k * ss) ** 2)),
            "you subtract standard deviations; of independent noises it is the variances that add.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, (st**2 - k**2 * ss**2).sqrt())),
            "your second result is the standard deviation; the variance was asked for.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (1 / k, st**2 - k**2 * ss**2)),
            "your scale is upside down: from s to t the signal fades.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, st**2 - k * ss**2)),
            "old noise is scaled as the signal is; what does scaling by k do to a variance?",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, ss**2 - k**2 * ss**2 * ss**2 / st**2)),
            "you take a share of σ_s²; the fresh noise is a share of the noise at t.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, ss**2 - st**2 / k**2)),
            "your variance is negative: did you swap s and t?",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (b, st**2)),
            "this is q(z_t | x), which starts from a clean clip; z_s is not clean.",
        ),
    ],
)


# ---- q(z_s | z_t, x), with pen ---------------------------------------------------------------------------------


def _of(schedule: Schedule, *times: float) -> list[Tensor]:
    return [scale for t in times for scale in (schedule.alpha(t), schedule.sigma(t))]


def _posterior_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g, 0.1, 0.9)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, clips of 3 frames", (video(g, dtype=dtype), video(g, dtype=dtype), *_of(COSINE, t, s))
        )
    yield Case("points of a plane, variance exploding", (video(g, 6, 2), video(g, 6, 2), *_of(VE, t, s)))
    yield Case("one frame, sub-VP", (video(g, 1, 1, 1, 4, 4), video(g, 1, 1, 1, 4, 4), *_of(SUB_VP, t, s)))
    yield Case("to the clean end, sigma_s = 0", (video(g), video(g), *_of(LINEAR, t, 0.0)))
    nothing = [torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0)]
    yield Case("from pure noise, alpha_t = 0", (video(g), video(g), *nothing, *_of(COSINE, t)))


def _posterior(z: Tensor, x: Tensor, alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> Any:
    ratio = alpha_t / alpha_s
    kept = (ratio * sigma_s / sigma_t) ** 2
    return ratio * sigma_s**2 / sigma_t**2 * z + (1 - kept) * alpha_s * x, (1 - kept) * sigma_s**2


def _bayes(find: Callable[..., Any]) -> Callable[..., Any]:
    """find: (z, x, alpha_s, var_s, alpha_t, var_t, covariance) -> (mean, variance)."""
    return lambda z, x, at, st, as_, ss: find(z, x, as_, ss**2, at, st**2, at / as_ * ss**2)


posterior = Check(
    "posterior",
    _posterior,
    _posterior_cases,
    [
        Wrong(
            lambda *a: (_posterior(*a)[0], _posterior(*a)[1].sqrt()),
            "your second result is the standard deviation; the variance was asked for.",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + c / vt * (z - at * x), vt - c**2 / vs)),
            "your variance is that of q(z_t | z_s); here z_t is known, and what is left is a part of σ_s².",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + c / vt * z, vs - c**2 / vt)),
            "you correct the mean by all of z_t; only what z_t has beyond its own mean is news.",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + c / vt * (z - x), vs - c**2 / vt)),
            "the mean of z_t given x is not x: its signal has faded.",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + vs / vt * (z - at * x), vs - vs**2 / vt)),
            "your covariance is σ_s²; between s and t that noise has been scaled along with the signal.",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + c / vt.sqrt() * (z - at * x), vs - c**2 / vt.sqrt())),
            "you divide by σ_t; conditioning divides a covariance by a variance.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: (
                (at * ss / (as_ * st)) ** 2 * (as_ / at) * z + (1 - (at * ss / (as_ * st)) ** 2) * as_ * x,
                (1 - (at * ss / (as_ * st)) ** 2) * ss**2,
            ),
            "right wherever z_t holds some signal; at alpha_t = 0 you divide by 0. Does the weight of z_t need it?",
        ),
    ],
)
