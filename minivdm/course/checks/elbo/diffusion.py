"""Checks of exercises 04.4 to 04.6: the loss over all steps, on any grid and in the limit of infinitely many."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform

# ---- T steps -------------------------------------------------------------------------------------------------


def _grid_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for n, dtype in ((6, torch.float64), (4, torch.float32)):
        times = uniform(g, 0.02, 0.98, n + 1).sort().values
        yield Case(
            f"{name_of(dtype)}, {n} uneven steps",
            (CosineSchedule().log_snr(times).to(dtype), uniform(g, 0.1, 4, n).to(dtype)),
        )
    yield Case("one step", (torch.tensor([6.0, -5.0], dtype=torch.float64), uniform(g, 0.1, 4, 1)))
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    yield Case("8 even steps, variance exploding", (VESchedule().log_snr(times), uniform(g, 0.1, 4, 8)))


def _riemann(find: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """find: (SNR (T + 1,), errors (T,)) -> the sum."""
    return lambda log_snr, errors: find(log_snr.exp(), errors)


diffusion_term = Check(
    "diffusion_term",
    _riemann(lambda snr, e: ((snr[:-1] - snr[1:]) * e).sum() / 2),
    _grid_cases,
    [
        Wrong(
            _riemann(lambda snr, e: ((snr[1:] - snr[:-1]) * e).sum() / 2),
            "your bound is negative: along the grid time grows, and the signal-to-noise ratio falls.",
        ),
        Wrong(_riemann(lambda snr, e: ((snr[:-1] - snr[1:]) * e).sum()), "a factor one half is missing."),
        Wrong(
            _riemann(lambda snr, e: ((snr[:-1] - snr[1:]) * e).mean() / 2),
            "you average over the steps; the bound is the sum of their prices.",
        ),
        Wrong(
            _riemann(lambda snr, e: ((snr[:-1].log() - snr[1:].log()) * e).sum() / 2),
            "your widths are those of the log-SNR axis, where the error of the noise is the height; errors of x "
            "belong to the SNR axis.",
        ),
        Wrong(
            _riemann(lambda snr, e: ((snr[:-1] - snr[1:]) * torch.cat([e[:1], e[:-1]])).sum() / 2),
            "your heights are shifted by one step: the error is measured at the noisy end of its own step.",
        ),
        Wrong(
            _riemann(lambda snr, e: (snr[1:] * e).sum() / 2),
            "you weight with the ratio at the noisy end; a step pays for what it gains.",
        ),
    ],
)


# ---- one Gaussian, with pen ----------------------------------------------------------------------------------


def _gaussian_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        low, high = uniform(g, -6, -1, 3).to(dtype), uniform(g, 1, 6, 3).to(dtype)
        std = round(uniform(g, 0.3, 0.8).item(), 2)
        yield Case(f"{name_of(dtype)}, standard deviation {std}, 12 values", (std, 12, high, low))
    ends = uniform(g, 1, 6), uniform(g, -6, -1)
    yield Case("unit variance, one value", (1.0, 1, *ends))
    yield Case("broad, 5 values", (3.0, 5, *ends))
    yield Case("no way to go", (0.7, 4, ends[0], ends[0].clone()))


def _on_line(find: Callable[[float, Tensor], Tensor], half: float = 0.5) -> Callable[..., Tensor]:
    """d/2 times the difference of find(variance, log_snr) at both ends."""
    return lambda std, d, high, low: d * half * (find(std**2, high) - find(std**2, low))


gaussian_diffusion = Check(
    "gaussian_diffusion",
    _on_line(lambda v, level: torch.log1p(v * level.exp())),
    _gaussian_cases,
    [
        Wrong(
            _on_line(lambda v, level: -torch.log1p(v * level.exp())),
            "the sign is wrong: the integral runs over the SNR from its low end to its high one.",
        ),
        Wrong(_on_line(lambda v, level: torch.log1p(v * level.exp()), half=1.0), "a factor one half is missing."),
        Wrong(
            _on_line(lambda v, level: torch.log1p(v**0.5 * level.exp())),
            "the data's variance s² enters; you have its root.",
        ),
        Wrong(
            _on_line(lambda v, level: torch.log1p(level.exp())),
            "your result does not know the data's variance: with s = 1 it is right.",
        ),
        Wrong(
            _on_line(lambda v, level: torch.log1p(v * level.exp()) / v),
            "look at the numerator of E‖x − x*‖² = d s²/(1 + s² SNR) again: the antiderivative takes it up.",
        ),
        Wrong(
            _on_line(lambda v, level: level),
            "this is d/2 for each unit of λ, the plateau: right only where the noise is far finer than the data.",
        ),
        Wrong(
            lambda std, d, high, low: (torch.log1p(std**2 * high.exp()) - torch.log1p(std**2 * low.exp())) / 2,
            "each of the d values pays; you count one.",
        ),
    ],
)


# ---- weights of the loss -------------------------------------------------------------------------------------


def _uniform_density(t: Tensor) -> Tensor:
    return torch.ones_like(t)


def _rising_density(t: Tensor) -> Tensor:
    return 0.4 + 1.2 * t


def _weight_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    yield Case("cosine schedule, uniform times", (uniform(g, 0.05, 0.95, 6), CosineSchedule(), _uniform_density))
    yield Case(
        "cosine schedule, late times drawn more often", (uniform(g, 0.05, 0.95, 6), CosineSchedule(), _rising_density)
    )
    yield Case(
        "linear schedule, one time, drawn more often when late",
        (uniform(g, 0.2, 0.8), LinearSchedule(), _rising_density),
    )
    yield Case("variance exploding", (uniform(g, 0.1, 0.9, 2, 3), VESchedule(), _uniform_density))
    yield Case("sub-variance-preserving", (uniform(g, 0.1, 0.9, 4), SubVPSchedule(), _uniform_density))


def _elbo(
    t: Tensor,
    schedule: Schedule,
    density: Callable[[Tensor], Tensor],
    *,
    snr: float = 1,
    half: float = 0.5,
    sigma: float = 2,
    share: float = -1,
) -> Tensor:
    """half SNR^snr g^2 / sigma^sigma times the density to a power."""
    ratio = schedule.log_snr(t).exp() ** snr
    return half * ratio * schedule.diffusion(t) ** 2 / schedule.sigma(t) ** sigma * density(t) ** share


def _with(**changes: float) -> Callable[..., Tensor]:
    return lambda t, schedule, density: _elbo(t, schedule, density, **changes)


elbo_weight = Check(
    "elbo_weight",
    _elbo,
    _weight_cases,
    [
        Wrong(_with(share=0), "your weight ignores how often a time is drawn: for uniform times it is right."),
        Wrong(_with(share=1), "times that are drawn more often have to count less, not more."),
        Wrong(_with(snr=0), "this is the weight on the squared error of the noise; that of x is not the same."),
        Wrong(_with(half=1.0), "a factor one half is missing."),
        Wrong(_with(half=-0.5), "your weight is negative: how does the log-SNR change with t?"),
        Wrong(
            _with(sigma=0),
            "g² is not −λ′ but −σ²λ′: divide by σ² where you use the schedule's diffusion for the slope.",
        ),
        Wrong(
            lambda t, schedule, density: schedule.log_snr(t).exp() / 2 / density(t),
            "the slope of λ is missing: how much of the λ axis does a piece of the time axis cover?",
        ),
    ],
)
