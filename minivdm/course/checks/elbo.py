"""Checks of assignment 04: the terms of the variational bound, and what a squared error costs in nats."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.nn import functional

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, ordered_pair, uniform, video
from minivdm.exact import bound


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


# ---- the price of one step -----------------------------------------------------------------------------------


def _price_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    kappa = float(uniform(g, 1.5, 3.0))
    for dtype in (torch.float64, torch.float32):
        s, t = ordered_pair(g)
        levels = (CosineSchedule().log_snr(t).to(dtype), CosineSchedule().log_snr(s).to(dtype))
        clips = video(g, dtype=dtype), video(g, dtype=dtype)
        yield Case(f"{name_of(dtype)}, clips of 3 frames, kappa = 1", (*clips, *levels, 1.0))
        yield Case(f"{name_of(dtype)}, clips of 3 frames, kappa = {kappa:.2f}", (*clips, *levels, kappa))
    s, t = ordered_pair(g)
    levels = (LinearSchedule().log_snr(t), LinearSchedule().log_snr(s))
    yield Case("one clip, one frame, kappa = 0.4", (video(g, 1, 1, 1, 3, 3), video(g, 1, 1, 1, 3, 3), *levels, 0.4))
    x = video(g, 5, 2)
    yield Case("points, guessed right, kappa = 2", (x, x.clone(), *levels, 2.0))
    yield Case("points, a step without gain", (x, video(g, 5, 2), levels[0], levels[0].clone(), 1.0))


def _gain(s: Tensor, t: Tensor) -> Tensor:
    return (s.exp() - t.exp()) / 2


def _misfit(kappa: float, d: int) -> float:
    return d / 2 * (1 / kappa - 1 + math.log(kappa))


def _priced(
    price: Callable[[Tensor, Tensor], Tensor] = _gain,
    reduce: Callable[[Tensor], Tensor] = _sum,
    spread: Callable[[float, int], float] = _misfit,
    power: int = -1,
) -> Callable[..., Tensor]:
    """price: (at s, at t) -> gain; spread: (kappa, d) -> cost of the wrong variance; power: of kappa, on the error."""

    def answer(x: Tensor, x_hat: Tensor, at_t: Tensor, at_s: Tensor, kappa: float) -> Tensor:
        return price(at_s, at_t) * reduce((x - x_hat) ** 2) * kappa**power + spread(kappa, x[0].numel())

    return answer


def _by_hand(x: Tensor, x_hat: Tensor, at_t: Tensor, at_s: Tensor, kappa: float) -> Tensor:
    """By torch's own KL of normal laws, value by value; the variance of the step is 1, the means lie accordingly."""
    away = (x - x_hat).double() * (at_s.double().exp() - at_t.double().exp()).sqrt()
    narrow, wide = (torch.full_like(away, std) for std in (1.0, kappa**0.5))
    return _sum(kl_divergence(Normal(away, narrow), Normal(0 * away, wide))).to(x.dtype)


step_price = Check(
    "step_price",
    _by_hand,
    _price_cases,
    [
        Wrong(
            _priced(lambda s, t: -_gain(s, t)),
            "your price is negative: s is the cleaner end, so its signal-to-noise ratio is the larger one.",
        ),
        Wrong(_priced(lambda s, t: 2 * _gain(s, t)), "a factor one half is missing; where does (4.3) have it?"),
        Wrong(
            _priced(lambda s, t: (s - t) / 2),
            "you take the difference of the log-SNRs; (4.6) has that of the ratios themselves.",
        ),
        Wrong(
            _priced(reduce=lambda e: e.flatten(1).mean(1)),
            "you average over the values; a squared norm is their sum.",
        ),
        Wrong(
            lambda *arguments: _priced()(*arguments).mean(),
            "you average over the samples; one price for each was asked for.",
        ),
        Wrong(
            _priced(reduce=lambda e: _sum(e).sqrt()),
            "you multiply by the distance; the price grows with its square.",
        ),
        Wrong(
            _priced(spread=lambda kappa, d: 0.0, power=0),
            "this is (4.6), for the right variance: kappa does not enter your price.",
        ),
        Wrong(
            _priced(spread=lambda kappa, d: 0.0),
            "you count the distance of the means alone: by (4.3) a wrong variance costs something even if the guess is "
            "right.",
        ),
        Wrong(
            _priced(spread=lambda kappa, d: _misfit(kappa, 1)),
            "each of the d values pays for the wrong variance; you count it once.",
        ),
        Wrong(
            _priced(spread=lambda kappa, d: d / 2 * (kappa - 1 - math.log(kappa))),
            "your two variances are exchanged: in (4.3) the model's variance is the one that is divided by.",
        ),
        Wrong(
            _priced(power=0),
            "your distance of the means is divided by the true variance; (4.3) divides it by the model's.",
        ),
    ],
)


# ---- the two ends --------------------------------------------------------------------------------------------


def _end_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        ends = uniform(g, 4, 9).to(dtype), uniform(g, -6, -2).to(dtype)
        yield Case(f"{name_of(dtype)}, clips of 3 frames", (video(g, dtype=dtype), *ends))
    ends = uniform(g, 4, 9), uniform(g, -2, 0)
    yield Case("points of a plane, much signal left at the end", (video(g, 4, 2), *ends))
    yield Case("a black clip of one frame", (torch.zeros(1, 1, 1, 4, 4, dtype=torch.float64), *ends))


def _ends(x: Tensor, log_snr_0: Tensor, log_snr_1: Tensor) -> tuple[Tensor, Tensor]:
    d = x[0].numel()
    prior = bound.gaussian_kl(torch.sigmoid(log_snr_1).sqrt() * x, torch.sigmoid(-log_snr_1), torch.zeros_like(x), 1.0)
    return prior, d * (1 + math.log(2 * math.pi) - log_snr_0) / 2


def _prior(find: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """find: (|x|^2 (b,), log_snr_1, d) -> prior term."""
    return lambda x, at_0, at_1: (find(_sum(x**2), at_1, x[0].numel()), _ends(x, at_0, at_1)[1])


def _last(find: Callable[[Tensor, int], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """find: (log_snr_0, d) -> reconstruction term."""
    return lambda x, at_0, at_1: (_ends(x, at_0, at_1)[0], find(at_0, x[0].numel()))


def _spread(at_1: Tensor, d: int) -> Tensor:
    return d / 2 * (torch.sigmoid(-at_1) - 1 - functional.logsigmoid(-at_1))


both_ends = Check(
    "both_ends",
    _ends,
    _end_cases,
    [
        Wrong(
            _prior(lambda size, at_1, d: torch.sigmoid(at_1) * size / 2),
            "your prior term only prices the wrong place; the variance σ₁² is not quite 1 either.",
        ),
        Wrong(
            _prior(lambda size, at_1, d: torch.sigmoid(at_1).sqrt() * size / 2 + _spread(at_1, d)),
            "the mean is α₁x, so its squared length has α₁², not α₁.",
        ),
        Wrong(
            _prior(lambda size, at_1, d: torch.sigmoid(at_1) * size / 2 + _spread(at_1, 1)),
            "each of the d values has its share of the wrong spread; you count it once.",
        ),
        Wrong(
            _prior(
                lambda size, at_1, d: (
                    torch.sigmoid(at_1) * size / 2 + _spread(at_1, d) + d / 4 * functional.logsigmoid(-at_1)
                )
            ),
            "you take the logarithm of σ₁; the spread has that of the variance, log σ₁², which is twice as much.",
        ),
        Wrong(
            lambda x, at_0, at_1: (
                torch.sigmoid(at_1) * _sum(x**2) / 2 + _spread(at_1, x.numel()),
                x.numel() * (1 + math.log(2 * math.pi) - at_0) / 2,
            ),
            "your d counts the values of all clips of the batch, x.numel(); each clip has x[0].numel() of them.",
        ),
        Wrong(
            _prior(lambda size, at_1, d: torch.sigmoid(at_1) * size + _spread(at_1, d)),
            "the squared distance of the means counts half.",
        ),
        Wrong(
            _prior(lambda size, at_1, d: at_1.exp() * size / 2 + _spread(at_1, d)),
            "you took e^λ for α²; that is the ratio α²/σ², and α² + σ² = 1.",
        ),
        Wrong(
            _last(lambda at_0, d: d * (1 + math.log(2 * math.pi) + at_0) / 2),
            "the sign of λ₀ is wrong in your reconstruction term: less noise makes a sharper density, and a smaller "
            "price.",
        ),
        Wrong(
            _last(lambda at_0, d: d * (math.log(2 * math.pi) - at_0) / 2),
            "your reconstruction term lacks the exponent of the density: x is not at its centre but a noise away.",
        ),
        Wrong(
            _last(lambda at_0, d: (1 + math.log(2 * math.pi) - at_0) / 2),
            "your reconstruction term is that of a single value; x has d of them.",
        ),
    ],
)


# ---- bits ----------------------------------------------------------------------------------------------------


def _bit_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, 4 clips of 48 values", (uniform(g, -150, 60, 4).to(dtype), 48))
    yield Case("one value", (uniform(g, -2, 2, 1), 1))
    yield Case("one number for all clips, 0 nats", (torch.zeros((), dtype=torch.float64), 16_384))


bits_per_value = Check(
    "bits_per_value",
    lambda nats, d: (nats / d + math.log(127.5)) / math.log(2),
    _bit_cases,
    [
        Wrong(
            lambda nats, d: nats / d / math.log(2),
            "right for a density; asked for is the probability of one of 256 values, a cell of some width in x.",
        ),
        Wrong(
            lambda nats, d: nats / d / math.log(2) - math.log2(127.5),
            "the width of a cell has the wrong sign: the probability of a cell is the density times the width.",
        ),
        Wrong(
            lambda nats, d: nats / d * math.log(2) + math.log2(127.5),
            "to turn nats into bits one divides by log 2: a bit is less than a nat.",
        ),
        Wrong(
            lambda nats, d: nats / math.log(2) + math.log2(127.5),
            "these are the bits of a whole clip with one cell; divide the nats by the number of values.",
        ),
        Wrong(
            lambda nats, d: nats / math.log(2) / (nats.numel() * d) + math.log2(127.5),
            "you divide by the number of values of the whole batch; the nats are those of one clip each.",
        ),
        Wrong(
            lambda nats, d: nats / d / math.log(2) + 8,
            "you take [-1, 1] for an interval of length 1: how far apart are two neighbouring bytes in x?",
        ),
        Wrong(
            lambda nats, d: nats / d / math.log(2) + math.log2(127.5) / d,
            "every value has a cell of its own; you divide the cells by the number of values once more.",
        ),
    ],
)


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


# ---- KL with full covariances --------------------------------------------------------------------------------


def _spd(g: torch.Generator, d: int) -> Tensor:
    root = video(g, d, d) / math.sqrt(d)
    return root @ root.T + 0.3 * torch.eye(d, dtype=torch.float64)


def _kl_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for d, dtype in ((3, torch.float64), (4, torch.float32)):
        parts = (video(g, d), _spd(g, d), video(g, d), _spd(g, d))
        yield Case(f"{name_of(dtype)}, {d} dimensions", tuple(part.to(dtype) for part in parts))
    mean, covariance = video(g, 3), _spd(g, 3)
    yield Case("the same law twice", (mean, covariance, mean.clone(), covariance.clone()))
    yield Case("one dimension", (video(g, 1), _spd(g, 1), video(g, 1), _spd(g, 1)))
    tiny = torch.diag(torch.full((60,), 1e-12, dtype=torch.float64))
    yield Case(
        "60 dimensions, determinants below the smallest number",
        (1e-6 * video(g, 60), tiny, 1e-6 * video(g, 60), 2 * tiny),
    )


def _without_inverses(answer: Callable[..., Any], *laws: Tensor) -> dict[str, Any]:
    """A probe: what the answer returns, and how many inverses it formed on the way."""
    formed = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def inverse(*arguments: Any, **options: Any) -> Any:
            nonlocal formed
            formed += 1
            return function(*arguments, **options)

        return inverse

    places: list[tuple[Any, str]] = [
        (torch.linalg, "inv"),
        (torch.linalg, "pinv"),
        (torch, "inverse"),
        (torch, "cholesky_inverse"),
    ]
    places += [(torch.Tensor, "inverse"), (torch.Tensor, "pinverse"), (torch, "pinverse"), (torch.linalg, "inv_ex")]
    with contextlib.ExitStack() as patches:
        for owner, name in places:
            patches.enter_context(mock.patch.object(owner, name, counted(getattr(owner, name))))
        found = answer(*laws)
    return {"": found, "inverses formed": formed}


def _torch_kl(mean_q: Tensor, cov_q: Tensor, mean_p: Tensor, cov_p: Tensor) -> Tensor:
    return kl_divergence(MultivariateNormal(mean_q, cov_q), MultivariateNormal(mean_p, cov_p))


def _parts(mean_q: Tensor, cov_q: Tensor, mean_p: Tensor, cov_p: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """tr(P^-1 Q), log det P - log det Q, the squared distance of the means in P's metric, d."""
    trace = torch.linalg.solve(cov_p, cov_q).trace()
    logs = torch.logdet(cov_p) - torch.logdet(cov_q)
    away = mean_q - mean_p
    return trace, logs, away @ torch.linalg.solve(cov_p, away), len(away)


def _sum_of(find: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    return lambda *laws: find(*_parts(*laws))


full_kl = Check(
    "full_kl",
    _torch_kl,
    _kl_cases,
    [
        Wrong(
            lambda mean_q, cov_q, mean_p, cov_p: _torch_kl(mean_p, cov_p, mean_q, cov_q),
            "this is KL(p‖q): the two laws are exchanged, and KL is not symmetric.",
        ),
        Wrong(
            _sum_of(lambda trace, logs, away, d: (trace - logs + away - d) / 2),
            "the sign of your determinants is wrong: a p that is broader than q costs more, not less.",
        ),
        Wrong(
            _sum_of(lambda trace, logs, away, d: (trace + logs + away) / 2),
            "KL of a law with itself should be 0; yours is d/2 too large.",
        ),
        Wrong(_sum_of(lambda trace, logs, away, d: trace + logs + away - d), "a factor one half is missing."),
        Wrong(
            lambda mean_q, cov_q, mean_p, cov_p: (
                (
                    _parts(mean_q, cov_q, mean_p, cov_p)[0]
                    + _parts(mean_q, cov_q, mean_p, cov_p)[1]
                    - len(mean_q)
                    + (mean_q - mean_p).square().sum()
                )
                / 2
            ),
            "you measure the distance of the means with a ruler; p's own covariance decides what is far.",
        ),
        Wrong(
            lambda mean_q, cov_q, mean_p, cov_p: (
                (
                    torch.linalg.solve(cov_p, cov_q).trace()
                    + (torch.det(cov_p) / torch.det(cov_q)).log()
                    - len(mean_q)
                    + _parts(mean_q, cov_q, mean_p, cov_p)[2]
                )
                / 2
            ),
            "your determinants underflow in many dimensions: work with their logarithms from the start.",
        ),
        Wrong(
            lambda *laws: _torch_kl(*laws) + 0 * torch.linalg.inv(laws[3])[0, 0],
            "you form an inverse; solve a linear system instead, which costs less and loses fewer digits.",
        ),
    ],
    probe=_without_inverses,
    relative=2e-5,
)
