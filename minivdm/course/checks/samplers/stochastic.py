"""Checks of exercises 06.2, 06.5 and 06.7: steps that draw noise, ancestral, Langevin, and any amount of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minivdm.core import Schedule, SubVPSchedule, gaussian
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, ordered_pair, uniform
from minivdm.course.checks.samplers.levels import COSINE, LINEAR, scales_at, three_videos

# ---- ancestral -----------------------------------------------------------------------------------------------


def _ancestral_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, gamma = 0", (*three_videos(g, dtype=dtype), t, s, COSINE, 0.0))
    z, x, noise = three_videos(g, 4, 1, 1, 3, 3)
    yield Case("one frame, gamma = 1", (z, x, noise, t, s, COSINE, 1.0))
    yield Case("gamma = 0.3, linear schedule", (z, x, noise, t, s, LINEAR, 0.3))
    yield Case("from t = 1, gamma = 0.5", (z, x, noise, 1.0, t, COSINE, 0.5))
    yield Case("to s = 0, gamma = 1", (z, x, noise, t, 0.0, COSINE, 1.0))


def _ancestral(
    z: Tensor,
    x_hat: Tensor,
    noise: Tensor,
    t: float,
    s: float,
    schedule: Schedule,
    gamma: float,
    std: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    mean, small = gaussian.posterior(z, x_hat, s, t, schedule)
    large = gaussian.transition(s, t, schedule).variance
    scale = (small ** (1 - gamma) * large**gamma).sqrt() if std is None else std(small, large)
    return mean + gaussian.expand(scale, z) * noise


def _mixed(mix: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    return lambda z, x, e, t, s, schedule, gamma: _ancestral(
        z, x, e, t, s, schedule, gamma, lambda small, large: mix(small, large, gamma)
    )


ancestral_step = Check(
    "ancestral_step",
    _ancestral,
    _ancestral_cases,
    [
        Wrong(
            _mixed(lambda small, large, g: small ** (1 - g) * large**g),
            "you multiply the noise by a variance; its root, the standard deviation, belongs there.",
        ),
        Wrong(
            _mixed(lambda small, large, g: (small**g * large ** (1 - g)).sqrt()),
            "gamma = 0 should give the posterior's variance, the smaller one; you have the two exchanged.",
        ),
        Wrong(
            _mixed(lambda small, large, g: ((1 - g) * small + g * large).sqrt()),
            "gamma interpolates the logarithms of the variances (a geometric mean), not the variances.",
        ),
        Wrong(
            _mixed(lambda small, large, g: large.sqrt()),
            "your variance is σ²_{t|s} whatever gamma is; VDM eq 4 also needs σ̃² of the posterior.",
        ),
        Wrong(
            _mixed(lambda small, large, g: torch.zeros_like(small)),
            "you return the mean alone: a step without its noise loses variance at every level.",
        ),
        Wrong(
            lambda z, x, e, t, s, schedule, gamma: schedule.alpha(s) * x + schedule.sigma(s) * e,
            "you noise x_hat anew to level s; the mean of the posterior also keeps a share of z_t.",
        ),
        Wrong(
            lambda z, x, e, t, s, schedule, gamma: _ancestral(z, x, e if s > 0 else 0 * e, t, s, schedule, gamma),
            "you leave the noise of the last step out, as DDPM's code does; (6.8) has it at s = 0 too, and with "
            "gamma = 1 it is not small.",
        ),
        Wrong(
            lambda z, eps, e, t, s, schedule, gamma: _ancestral(
                z, (z - schedule.sigma(t) * eps) / schedule.alpha(t), e, t, s, schedule, gamma
            ),
            "you take x_hat for eps_hat: here the denoiser's answer is the clean clip.",
        ),
    ],
)


# ---- Langevin ------------------------------------------------------------------------------------------------


def _langevin_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t, delta = uniform(g, 0.2, 0.8).item(), uniform(g, 0.05, 0.3).item()
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, clips of 3 frames", (*three_videos(g, dtype=dtype), *scales_at(COSINE, t), delta)
        )
    yield Case("one frame, at t = 1", (*three_videos(g, 1, 1, 1, 3, 3), *scales_at(COSINE, 1.0), 0.1))
    scales = torch.tensor([1.0, 2.5], dtype=torch.float64)
    yield Case("points of a plane, variance exploding", (*three_videos(g, 6, 2), *scales, delta))


def _langevin(z: Tensor, x_hat: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, delta: float) -> Tensor:
    score = gaussian.score_from_x(z, x_hat, alpha, sigma)
    length = delta * sigma**2
    return z + length / 2 * score + length.sqrt() * noise


def _pulled(pull: Callable[..., Any], spread: Callable[..., Any]) -> Callable[..., Tensor]:
    """z - pull(sigma, delta) eps_hat + spread(sigma, delta) noise."""
    return lambda z, x, e, a, s, d: z - pull(s, d) * (z - a * x) / s + spread(s, d) * e


langevin_step = Check(
    "langevin_step",
    _langevin,
    _langevin_cases,
    [
        Wrong(
            _pulled(lambda s, d: -d * s / 2, lambda s, d: d**0.5 * s),
            "your step walks away from likely places: the score is minus eps_hat over sigma.",
        ),
        Wrong(
            _pulled(lambda s, d: d * s, lambda s, d: d**0.5 * s),
            "your pull is twice too strong: the drift that keeps q_s is half of the score.",
        ),
        Wrong(
            _pulled(lambda s, d: d * s / 2, lambda s, d: d * s),
            "a Brownian motion spreads with the root of the step's length: is your noise scaled by delta?",
        ),
        Wrong(
            _pulled(lambda s, d: d * s / 2, lambda s, d: 0.0),
            "your step adds no noise: then it climbs to the peaks of the density instead of sampling it.",
        ),
        Wrong(
            lambda z, x, e, a, s, d: z - d / 2 * (z - a * x) / s**2 + d**0.5 * e,
            "your step has length delta; here it is delta sigma², shorter where there is less noise.",
        ),
    ],
)


# ---- any amount of noise -------------------------------------------------------------------------------------


def _any_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g, 0.2, 0.8)
    kappa = uniform(g, 0.3, 0.7).item()
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, kappa = {kappa:.2f}", (*three_videos(g, dtype=dtype), t, s, LINEAR, kappa))
    yield Case("one frame, kappa = 0", (*three_videos(g, 1, 1, 1, 3, 3), t, s, COSINE, 0.0))
    yield Case("points, kappa = 1, from t = 1", (*three_videos(g, 6, 2), 1.0, t, LINEAR, 1.0))
    yield Case("points, kappa = 1.5, sub-variance-preserving", (*three_videos(g, 6, 2), t, s, SubVPSchedule(), 1.5))


@dataclass(frozen=True)
class _Slip:
    """What a student may get wrong about the step; by default nothing."""

    pull: Callable[[float], float] = lambda kappa: (1 + kappa**2) / 2
    spread: Callable[[float, float], float] = lambda kappa, length: kappa * length**0.5
    drift: float = 1.0
    power: int = 2


NO_SLIP = _Slip()


def _any(
    z: Tensor,
    x_hat: Tensor,
    noise: Tensor,
    t: float,
    s: float,
    schedule: Schedule,
    kappa: float,
    *,
    slip: _Slip = NO_SLIP,
) -> Tensor:
    """z + drift * (t - s) * (-f z) + (t - s) pull g² score + spread g noise, by default as in (6.5)."""
    length = t - s
    f, g = schedule.drift(t), schedule.diffusion(t)
    score = (schedule.alpha(t) * x_hat - z) / schedule.sigma(t) ** slip.power
    moved = z - slip.drift * length * f * z + length * slip.pull(kappa) * g**2 * score
    return moved + slip.spread(kappa, length) * g * noise


def _but(**changes: Any) -> Callable[..., Tensor]:
    return lambda *given: _any(*given, slip=_Slip(**changes))


any_noise_step = Check(
    "any_noise_step",
    _any,
    _any_cases,
    [
        Wrong(
            _but(pull=lambda kappa: 1.0),
            "your pull along the score is that of the reverse SDE, whatever kappa is: less noise needs less pull.",
        ),
        Wrong(
            _but(pull=lambda kappa: (1 + kappa) / 2), "rho enters the drift of (6.5) as a square, and so does kappa."
        ),
        Wrong(
            _but(pull=lambda kappa: -(1 + kappa**2) / 2, drift=-1.0),
            "the sign of your drift is that of a step forwards in time; dt is s − t here, a negative number.",
        ),
        Wrong(
            _but(spread=lambda kappa, length: kappa * length),
            "your noise grows with the length of the step; a Brownian motion spreads with its root.",
        ),
        Wrong(
            _but(spread=lambda kappa, length: length**0.5),
            "your noise is that of the reverse SDE, whatever kappa is: rho is kappa times g.",
        ),
        Wrong(_but(power=1), "you took −eps_hat for the score; that is divided by sigma once more."),
    ],
)
