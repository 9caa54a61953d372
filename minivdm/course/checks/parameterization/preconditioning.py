"""Check of exercise 05.5: the coefficients of EDM."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm.core import denoiser
from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, uniform
from minivdm.course.checks.parameterization.levels import numbers


def _edm_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        levels = (uniform(g, 0.2, 1.5, 5).to(dtype) for _ in range(2))
        yield Case(f"{name_of(dtype)}, five levels, sigma_d = 0.5", (*levels, 0.5))
    yield Case("variance exploding, sigma_d = 2", (torch.ones(3, dtype=torch.float64), uniform(g, 0.1, 20, 3), 2.0))
    yield Case("no signal left, alpha = 0", (*numbers(0.0, 1.0), 0.7))


def _edm(alpha: Tensor, sigma: Tensor, std: float) -> tuple[Tensor, ...]:
    return tuple(denoiser.preconditioning("edm", alpha, sigma, std))


def _but(find: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """find: (skip, out, scale, alpha, sigma, s) -> three coefficients."""
    return lambda alpha, sigma, std: find(*_edm(alpha, sigma, std), alpha, sigma, std)


edm_coefficients = Check(
    "edm_coefficients",
    _edm,
    _edm_cases,
    [
        Wrong(lambda a, o, s: _edm(a, o, s**0.5), "the variance of the data is σ_d²; you use σ_d for it."),
        Wrong(
            _but(lambda skip, out, scale, a, o, s: (skip, out, scale**2)),
            "your c_in divides by the variance of z; its standard deviation is to become 1.",
        ),
        Wrong(
            _but(lambda skip, out, scale, a, o, s: (skip, out * scale, scale)),
            "your c_out divides by the variance of z, and not by its root.",
        ),
        Wrong(
            _but(lambda skip, out, scale, a, o, s: (skip, out * scale, scale**2)),
            "your c_out and c_in divide by the variance of z; both lack a root.",
        ),
        Wrong(
            lambda alpha, sigma, std: _edm(torch.ones_like(alpha), sigma, std),
            "these are the coefficients of Karras' table 1, for alpha = 1; here the signal has scale alpha.",
        ),
        Wrong(
            _but(lambda skip, out, scale, a, o, s: (skip, out**2, scale)),
            "your c_out is a variance; what multiplies F is its root.",
        ),
        Wrong(
            _but(lambda skip, out, scale, a, o, s: (s**2 / (s**2 + o**2), o * s * (s**2 + o**2) ** -0.5, scale)),
            "this is Karras' table 1, for which alpha is 1; (5.13) holds for every alpha.",
        ),
        Wrong(
            _but(lambda skip, out, scale, a, o, s: (s**2 * scale**2, out, scale)),
            "your c_skip lacks the scale of the signal: for α = 1 it is right, as in the paper.",
        ),
        Wrong(
            _but(lambda skip, out, scale, a, o, s: (skip, out, 1 / (a * s + o))),
            "variances of independent parts add up, standard deviations do not: look at Var(z) again.",
        ),
    ],
)
