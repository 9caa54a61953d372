"""Checks of exercises 04.1 to 04.3: the terms of the variational bound, and their unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from minivdm.core import CosineSchedule, LinearSchedule
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
    yield Case("a grey clip of one frame", (torch.zeros(1, 1, 1, 4, 4, dtype=torch.float64), *ends))


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
