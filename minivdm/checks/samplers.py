"""Checks of assignment 06: steps from noise to data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm import gaussian, likelihood, ode, samplers
from minivdm.checks.harness import Case, Check, Wrong, generator, ordered_pair, uniform, video
from minivdm.exact import GaussianMixture, GaussianVideo
from minivdm.schedules import CosineSchedule, LinearSchedule, Schedule

COSINE, LINEAR = CosineSchedule(), LinearSchedule()


# ---- DDIM ----------------------------------------------------------------------------------------------------


def _scales(schedule: Schedule, t: Any) -> tuple[Tensor, Tensor]:
    return schedule.alpha(t), schedule.sigma(t)


def _ddim_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in (torch.float64, torch.float32):
        z, x_hat = video(g, dtype=dtype), video(g, dtype=dtype)
        scales = [*_scales(COSINE, t), *_scales(COSINE, s)]
        yield Case(f"{str(dtype)[6:]}, clips of 3 frames", (z, x_hat, *scales))
    z, x_hat = video(g, 5, 1, 1, 2, 2), video(g, 5, 1, 1, 2, 2)
    yield Case("one frame, from t = 1", (z, x_hat, *_scales(COSINE, 1.0), *_scales(COSINE, t)))
    yield Case("to t = 0", (z, x_hat, *_scales(COSINE, t), *_scales(COSINE, 0.0)))
    yield Case("points of a plane, variance exploding", (video(g, 6, 2), video(g, 6, 2), *map(torch.tensor, (
        1.0, 1.0 + t, 1.0, s))))


def _ddim(z: Tensor, x_hat: Tensor, alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> Tensor:
    eps_hat = (z - alpha_t * x_hat) / sigma_t
    return alpha_s * x_hat + sigma_s * eps_hat


ddim_step = Check(
    "ddim_step",
    _ddim,
    _ddim_cases,
    [
        Wrong(lambda z, x, at, st, as_, ss: at * x + st * (z - as_ * x) / ss,
              "your step ends at t, not at s: did you swap s and t?"),
        Wrong(lambda z, x, at, st, as_, ss: as_ * x + ss * (z - at * x),
              "your eps_hat is not divided by sigma_t: solve z = alpha_t x_hat + sigma_t eps_hat for it."),
        Wrong(lambda z, x, at, st, as_, ss: as_ * x + ss * (z - at * x) / st**2,
              "your eps_hat is divided by sigma_t²; that is minus the score. The noise is divided by sigma_t."),
        Wrong(lambda z, x, at, st, as_, ss: as_ * x - ss * (z - at * x) / st,
              "the sign of your eps_hat is wrong: what is left of z when the signal alpha_t x_hat is taken away?"),
        Wrong(lambda z, x, at, st, as_, ss: as_ * x + ss**2 * (z - at * x) / st,
              "you scale the noise by sigma_s²; a standard deviation, sigma_s, belongs there."),
        Wrong(lambda z, x, at, st, as_, ss: x + ss * (z - at * x) / st,
              "the signal has scale alpha_s at time s; you left it at scale 1."),
    ],
)


# ---- ancestral -----------------------------------------------------------------------------------------------


def _ancestral_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in (torch.float64, torch.float32):
        z, x, noise = (video(g, dtype=dtype) for _ in range(3))
        yield Case(f"{str(dtype)[6:]}, gamma = 0", (z, x, noise, s, t, COSINE, 0.0))
    z, x, noise = (video(g, 4, 1, 1, 3, 3) for _ in range(3))
    yield Case("one frame, gamma = 1", (z, x, noise, s, t, COSINE, 1.0))
    yield Case("gamma = 0.3, linear schedule", (z, x, noise, s, t, LINEAR, 0.3))
    yield Case("from t = 1, gamma = 0.5", (z, x, noise, t, 1.0, COSINE, 0.5))


def _ancestral(z: Tensor, x_hat: Tensor, noise: Tensor, s: float, t: float, schedule: Schedule, gamma: float,
               std: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    mean, small = gaussian.posterior(z, x_hat, s, t, schedule)
    large = gaussian.transition(s, t, schedule).variance
    scale = (small ** (1 - gamma) * large**gamma).sqrt() if std is None else std(small, large)
    return mean + gaussian.expand(scale, z) * noise


def _mixed(mix: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    return lambda z, x, e, s, t, schedule, gamma: _ancestral(
        z, x, e, s, t, schedule, gamma, lambda small, large: mix(small, large, gamma))


ancestral_step = Check(
    "ancestral_step",
    _ancestral,
    _ancestral_cases,
    [
        Wrong(_mixed(lambda small, large, g: small ** (1 - g) * large**g),
              "you multiply the noise by a variance; its root, the standard deviation, belongs there."),
        Wrong(_mixed(lambda small, large, g: (small**g * large ** (1 - g)).sqrt()),
              "gamma = 0 should give the posterior's variance, the smaller one; you have the two exchanged."),
        Wrong(_mixed(lambda small, large, g: ((1 - g) * small + g * large).sqrt()),
              "gamma interpolates the logarithms of the variances (a geometric mean), not the variances."),
        Wrong(_mixed(lambda small, large, g: large.sqrt()),
              "your variance is σ²_{t|s} whatever gamma is; VDM eq 4 also needs σ̃² of the posterior."),
        Wrong(_mixed(lambda small, large, g: torch.zeros_like(small)),
              "you return the mean alone: a step without its noise loses variance at every level."),
        Wrong(lambda z, x, e, s, t, schedule, gamma: gaussian.expand(schedule.alpha(s), z) * x
              + gaussian.expand(schedule.sigma(s), z) * e,
              "you noise x_hat anew to level s. The posterior also keeps part of z_t: its mean is "
              "e^{λt−λs}(αs/αt) z_t + (1 − e^{λt−λs}) αs x_hat."),
    ],
)
