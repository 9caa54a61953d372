"""Checks of exercises 07.7 and 07.9: what guided samplers make of two Gaussians."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, guidance, samplers
from minivdm.course.checks.harness import Case, Check, Wrong, generator, uniform
from minivdm.exact import GaussianVideo, Propagation

COSINE, LINEAR = CosineSchedule(-12.0, 12.0), LinearSchedule()


def _flow_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    a, b, w = float(uniform(g, 0.2, 0.5)), float(uniform(g, 0.8, 1.5)), float(uniform(g, 1.2, 3.0))
    yield Case("noise not much larger than the data", (w, a, b, 1.5))
    yield Case("weight 0", (0.0, a, b, 2.0))
    yield Case("weight -1", (-1.0, a, b, 2.0))
    yield Case("sigma_max = 80", (w, a, b, 80.0))
    yield Case("many weights at once", (torch.linspace(0, 3, 5, dtype=torch.float64), a, b, 3.0))


def _flow(w: Any, a: float, b: float, sigma_max: float) -> Any:
    log_v = 2 * math.log(sigma_max) + (1 + w) * math.log(a / (a + sigma_max**2)) - w * math.log(b / (b + sigma_max**2))
    return log_v.exp() if isinstance(log_v, Tensor) else math.exp(log_v)


flow_variance = Check(
    "flow_variance",
    _flow,
    _flow_cases,
    [
        Wrong(
            lambda w, a, b, m: a ** (1 + w) * b**-w + 0 * w,
            "yours is (7.9) for S_a and S_b alike at t = 1. Here they differ there: keep them.",
        ),
        Wrong(
            lambda w, a, b, m: (a / (a + m**2)) ** (1 + w) * (b / (b + m**2)) ** -w,
            "the factor is right, but of what? The flow starts from noise, whose variance is not 1 here.",
        ),
        Wrong(
            lambda w, a, b, m: m**2 * (a / (a + m**2)) ** ((1 + w) / 2) * (b / (b + m**2)) ** (-w / 2),
            "you multiply the variance by the factor that scales z; a variance is scaled by its square.",
        ),
        Wrong(
            lambda w, a, b, m: m**2 * (b / (b + m**2)) ** (1 + w) * (a / (a + m**2)) ** -w,
            "you have a and b exchanged: a is the variance of the class, whose score has weight 1 + w.",
        ),
        Wrong(
            lambda w, a, b, m: m**2 * (a / (a + m**2)) ** (1 + w) * (b / (b + m**2)) ** w,
            "the unconditional score is subtracted: its exponent has the other sign.",
        ),
        Wrong(
            lambda w, a, b, m: 1 / ((1 + w) / a - w / b),
            "that is the variance of the tilted density, which the guided flow does not sample.",
        ),
    ],
)


def _chain_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    a, b, w = float(uniform(g, 0.2, 0.4)), float(uniform(g, 0.8, 1.3)), float(uniform(g, 1.0, 2.0))
    middle = torch.linspace(0.7, 0.3, 4, dtype=torch.float64)
    yield Case("three steps in the middle", (w, a, b, middle, COSINE))
    yield Case("one step", (w, a, b, torch.tensor([0.8, 0.5]).double(), COSINE))
    yield Case("weight 0, from t = 1, linear schedule", (0.0, a, b, torch.linspace(1, 0.1, 9).double(), LINEAR))
    yield Case("weight 3, from t = 1", (3.0, 0.25, 1.0, torch.linspace(1, 0, 13, dtype=torch.float64)[:-1], COSINE))


def _chain(w: float, a: float, b: float, times: Tensor, schedule: Schedule) -> Tensor:
    narrow, wide = (GaussianVideo(1, covariance=torch.tensor([[v]], dtype=torch.float64)) for v in (a, b))
    asked, plain = narrow.denoiser(schedule), wide.denoiser(schedule)
    guided = guidance.Guided(lambda z, t: (1 + w) * asked(z, t) - w * plain(z, t), schedule)
    walk = Propagation(wide, schedule, lambda _: guided)
    law = walk.start(1.0)
    for t, s in zip(times[:-1], times[1:], strict=True):
        law = walk.step(law, lambda d, z, t=t, s=s: samplers.ancestral_law(d, z, t, s))  # type: ignore[misc]
    return law.covariance[0, 0]


def _stepped(step: Callable[..., Tensor], gain: Callable[..., Tensor] | None = None) -> Callable[..., Tensor]:
    """step: (v, k, r, alphas and sigmas of t and s) -> v at s, for an estimate k z."""

    def answer(w: float, a: float, b: float, times: Tensor, schedule: Schedule) -> Tensor:
        v = torch.tensor(1.0, dtype=torch.float64)
        for t, s in zip(times[:-1], times[1:], strict=True):
            at, st, as_, ss = schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)
            k_a, k_b = (x / (at**2 * x + st**2) for x in (a, b))
            k = at * ((1 + w) * k_a - w * k_b) if gain is None else gain(w, at, k_a, k_b)
            v = step(v, k, (schedule.log_snr(t) - schedule.log_snr(s)).exp(), at, st, as_, ss)
        return v

    return answer


def _ancestral(v: Tensor, k: Tensor, r: Tensor, at: Tensor, st: Tensor, as_: Tensor, ss: Tensor) -> Tensor:
    return (r * as_ / at + (1 - r) * as_ * k) ** 2 * v + (1 - r) * ss**2


ancestral_variance = Check(
    "ancestral_variance",
    _chain,
    _chain_cases,
    [
        Wrong(
            _stepped(lambda v, k, r, at, st, as_, ss: (r * as_ / at + (1 - r) * as_ * k) ** 2 * v),
            "you follow the mean of each step alone: the fresh noise of a step adds its own variance.",
        ),
        Wrong(
            _stepped(lambda v, k, r, at, st, as_, ss: (r * as_ / at + (1 - r) * as_ * k) ** 2 * v + (1 - r) * st**2),
            "the noise you add is that of the transition from s to t; the posterior's is smaller.",
        ),
        Wrong(
            _stepped(lambda v, k, r, at, st, as_, ss: (r * as_ / at + (1 - r) * as_ * k) * v + (1 - r) * ss**2),
            "a step multiplies z by a number, and the variance of z by its square: you forgot the square.",
        ),
        Wrong(
            _stepped(lambda v, k, r, at, st, as_, ss: (as_ * k + ss * (1 - at * k) / st) ** 2 * v),
            "that is the variance under DDIM: an ancestral step has another mean, and adds noise.",
        ),
        Wrong(
            _stepped(_ancestral, lambda w, at, k_a, k_b: (1 + w) * k_a - w * k_b),
            "your estimate lacks a factor alpha_t: E[x|z] of a Gaussian of variance a is alpha_t a z / S_a.",
        ),
        Wrong(
            _stepped(_ancestral, lambda w, at, k_a, k_b: at * k_a),
            "you sample the class without guidance: w does not enter your estimate.",
        ),
    ],
)
