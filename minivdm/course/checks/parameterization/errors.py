"""Checks of exercises 05.3, 05.4 and 05.7: what an error becomes, what it weighs, and what is left of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import gaussian
from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, uniform, video
from minivdm.course.checks.parameterization.levels import COSINE, NAMES, SUB_VP, VE, numbers, scales_at

# ---- what an error becomes ---------------------------------------------------------------------------------------


def _exchange_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t = uniform(g, 0.25, 0.4).item()
    for name in NAMES:
        yield Case(f"error of {name}, sub-VP", (video(g), *scales_at(SUB_VP, t), name))
    for name in ("v", "score"):
        yield Case(
            f"float32, error of {name}, cosine",
            (video(g, 3, 2, dtype=torch.float32), *scales_at(COSINE, t, torch.float32), name),
        )
    yield Case("error of eps, variance exploding", (video(g, 5, 2), *scales_at(VE, 1 - t), "eps"))
    for end in (-20.0, 20.0):
        yield Case(
            f"error of v, one frame, log-SNR {end:g}",
            (video(g, 1, 1, 1, 2, 2), *scales_at(COSINE, COSINE.time(end)), "v"),
        )


def _rates(
    find: Callable[[Tensor, Tensor], dict[str, Any]], follow: Callable[..., Tensor] | None = None
) -> Callable[..., tuple[Tensor, Tensor]]:
    """find: (alpha, sigma) -> rates to x other than the right ones; follow: (error of x, alpha, sigma) -> of eps."""

    def answer(error: Tensor, alpha: Tensor, sigma: Tensor, given: str) -> tuple[Tensor, Tensor]:
        rates: dict[str, Any] = {"x": 1.0, "eps": -sigma / alpha, "v": -sigma / (alpha**2 + sigma**2)}
        x = (rates | {"score": sigma**2 / alpha} | find(alpha, sigma))[given] * error
        return x, -alpha / sigma * x if follow is None else follow(x, alpha, sigma)

    return answer


def _exchange(error: Tensor, alpha: Tensor, sigma: Tensor, given: str) -> tuple[Tensor, Tensor]:
    zero = torch.zeros_like(error)  # conversions are linear: an error converts as a prediction does at z = 0
    if given == "x":
        return error.clone(), gaussian.eps_from_x(zero, error, alpha, sigma)
    if given == "eps":
        return gaussian.x_from_eps(zero, error, alpha, sigma), error.clone()
    to_x, to_eps = (getattr(gaussian, f"{name}_from_{given}") for name in ("x", "eps"))
    return to_x(zero, error, alpha, sigma), to_eps(zero, error, alpha, sigma)


exchange = Check(
    "exchange",
    _exchange,
    _exchange_cases,
    [
        Wrong(
            _rates(lambda a, s: {}, lambda x, a, s: a / s * x),
            "z is held fixed: if its share of x is too large, which sign does the error of its noise have?",
        ),
        Wrong(
            _rates(lambda a, s: {}, lambda x, a, s: -s / a * x),
            "your error of eps is the error of x times an upside-down ratio: a small σ must make it large.",
        ),
        Wrong(
            _rates(lambda a, s: {"v": -s}),
            "your rate of v holds where variance is preserved; here α² + σ² need not be 1.",
        ),
        Wrong(
            _rates(lambda a, s: {"eps": s / a, "v": s / (a**2 + s**2)}),
            "the sizes of your rates are right, but too much noise means too little signal: look at their signs.",
        ),
        Wrong(
            _rates(lambda a, s: {"score": -s / a}),
            "you treat the score as if it were eps; there is a factor σ, and a sign, between the two.",
        ),
        Wrong(
            _rates(lambda a, s: {"eps": -a / s}),
            "your rate from eps to x is upside down: where there is hardly any signal, α is small and x suffers.",
        ),
    ],
)


# ---- min-SNR for each target -------------------------------------------------------------------------------------


def _min_snr_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    cap = uniform(g, 3.0, 8.0).item()
    for target in ("x", "eps", "v"):
        yield Case(
            f"{target}, log-SNR between -4 and 4",
            (torch.cat([uniform(g, -4, 1, 4), uniform(g, 2.5, 4, 3)]), cap, target),
        )
    for target in ("eps", "v"):
        yield Case(f"float32, {target}, gamma = 1", (uniform(g, -2, 2, 2, 3).float(), 1.0, target))
    yield Case("v, one log-SNR of 0", (torch.tensor(0.0, dtype=torch.float64), 0.4, "v"))
    yield Case("v, the ends of VDM's schedule", (torch.tensor([-20.0, 20.0], dtype=torch.float64), 5.0, "v"))
    for target in ("x", "v", "eps"):
        yield Case(
            f"{target}, no signal at all (log-SNR = -inf)",
            (torch.tensor([-math.inf, -1.0, 3.0], dtype=torch.float64), 5.0, target),
        )


def _min_snr(log_snr: Tensor, cap: float, target: str) -> Tensor:
    smaller = log_snr.clamp(max=math.log(cap))  # log of min(SNR, cap)
    if target == "x":
        return smaller.exp()
    if target == "v":
        return (smaller - torch.nn.functional.softplus(log_snr)).exp()
    return torch.where(log_snr <= math.log(cap), 1.0, (math.log(cap) - log_snr).exp()).to(log_snr.dtype)


def _weighed(find: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """find: (SNR, own, cap) -> weight, own being the squared exchange rate 1, SNR or SNR + 1 of the target."""

    def answer(log_snr: Tensor, cap: float, target: str) -> Tensor:
        snr = log_snr.exp()
        return find(snr, {"x": torch.ones_like(snr), "eps": snr, "v": snr + 1}[target], cap)

    return answer


def _safely(capped: Tensor, own: Tensor) -> Tensor:
    """capped / own, 1 where both are 0."""
    return torch.where(own == 0, 1.0, capped / own).to(own.dtype)


min_snr_weight = Check(
    "min_snr_weight",
    _min_snr,
    _min_snr_cases,
    [
        Wrong(
            _weighed(lambda snr, own, cap: snr.clamp(max=cap)),
            "this is the weight on the error of x, whatever the target; the same loss needs another weight on each "
            "target's own error.",
        ),
        Wrong(
            lambda log_snr, cap, target: (
                _safely(log_snr.exp().clamp(max=cap), log_snr.exp())
                if target == "v"
                else _min_snr(log_snr, cap, target)
            ),
            "your weight for v is the one for eps: by (5.8), how many times the error of x is that of v?",
        ),
        Wrong(
            _weighed(lambda snr, own, cap: snr.clamp(max=cap) * own),
            "you multiply where you should divide: a larger error of its own needs a smaller weight for the same loss.",
        ),
        Wrong(
            _weighed(lambda snr, own, cap: _safely(snr.clamp(min=cap), own)),
            "you take the larger of SNR and γ; min-SNR limits the weight at the clean end.",
        ),
        Wrong(
            _weighed(lambda snr, own, cap: snr.clamp(max=cap) / own),
            "right wherever there is some signal; with none, your weight for eps is 0 / 0. Which limit does it have, "
            "and how can you compute it without that division?",
        ),
    ],
)


# ---- what is left to learn, with pen -----------------------------------------------------------------------------


def _best_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t, mean, variance = uniform(g, 0.25, 0.45).item(), uniform(g, -0.9, -0.4).item(), uniform(g, 0.1, 0.5).item()
    for dtype in FLOATS:
        yield Case(
            f"{name_of(dtype)}, mean 0, cosine", (video(g, dtype=dtype), *scales_at(COSINE, t, dtype), 0.0, variance)
        )
    yield Case("a dark clip, cosine", (video(g), *scales_at(COSINE, t), mean, variance))
    yield Case("one frame, sub-VP", (video(g, 1, 1, 1, 3, 3), *scales_at(SUB_VP, t), mean, variance))
    yield Case("variance 4, variance exploding", (video(g, 6, 2), *scales_at(VE, 1 - t), -mean, 4.0))
    yield Case("unit Gaussian data, cosine", (video(g, 6, 2), *scales_at(COSINE, t), 0.0, 1.0))
    yield Case("no signal left, alpha = 0", (video(g, 6, 2), *numbers(0.0, 1.0), mean, variance))
    yield Case("no noise yet, sigma = 0", (mean + video(g, 6, 2), *numbers(1.0, 0.0), mean, variance))


def _best(z: Tensor, alpha: Tensor, sigma: Tensor, mean: float, variance: float) -> tuple[Tensor, Tensor]:
    gain = alpha * variance / (alpha**2 * variance + sigma**2)  # E[x | z] is linear in z
    x, eps = mean + gain * (z - alpha * mean), (1 - alpha * gain) * (z - alpha * mean)
    noise = sigma / (alpha**2 * variance + sigma**2) * (z - alpha * mean) if sigma > 0 else 0 * eps
    v_variance, covariance = alpha**2 + sigma**2 * variance, alpha * sigma * (1 - variance)
    return alpha * noise - sigma * x, v_variance - covariance**2 / (alpha**2 * variance + sigma**2)


def _regressed(find: Callable[..., Any]) -> Callable[..., Any]:
    """find: (z - its mean, mean of v, alpha, sigma, variance, variance of z, slope, loss) -> (v_hat, loss)."""

    def answer(z: Tensor, alpha: Tensor, sigma: Tensor, mean: float, variance: float) -> Any:
        total = alpha**2 * variance + sigma**2
        slope, loss = alpha * sigma * (1 - variance) / total, variance * (alpha**2 + sigma**2) ** 2 / total
        return find(z - alpha * mean, -sigma * mean, alpha, sigma, variance, total, slope, loss)

    return answer


best_v = Check(
    "best_v",
    _best,
    _best_cases,
    [
        Wrong(
            lambda z, a, s, mean, variance: _best(z, a, s, 0.0, variance),
            "your v_hat is right for data of mean 0; both z and v have a mean if x has one.",
        ),
        Wrong(
            _regressed(lambda dz, mv, a, s, c, total, k, loss: (k * dz, loss)),
            "v_hat has to start from the mean of v, which is not 0 if the data's is not.",
        ),
        Wrong(
            _regressed(
                lambda dz, mv, a, s, c, total, k, loss: (
                    mv + a * s * (1 + c) / total * dz,
                    a**2 + s**2 * c - (a * s * (1 + c)) ** 2 / total,
                )
            ),
            "in your covariance of v and z the two terms add up; v has sigma x with a minus.",
        ),
        Wrong(
            lambda z, a, s, mean, variance: _best(z, a, s, mean, variance**2),
            "you take the variance of the data for its standard deviation, and square it.",
        ),
        Wrong(
            _regressed(lambda dz, mv, a, s, c, total, k, loss: (mv + a * s * (1 + c) / total * dz, loss)),
            "the covariance of z and v is α σ (1 − s²): z and v share the data with opposite signs.",
        ),
        Wrong(
            _regressed(lambda dz, mv, a, s, c, total, k, loss: (mv - k * dz, loss)),
            "your slope has the wrong sign: z and v share the noise with one sign, the data with opposite ones.",
        ),
        Wrong(
            _regressed(lambda dz, mv, a, s, c, total, k, loss: (mv + a * s / total * dz, loss)),
            "your slope counts only the noise that z and v share; they share the data as well.",
        ),
        Wrong(
            _regressed(lambda dz, mv, a, s, c, total, k, loss: (mv + k * dz, a**2 + s**2 * c)),
            "your v_hat is right; your loss is the variance of v before z is known.",
        ),
        Wrong(
            _regressed(lambda dz, mv, a, s, c, total, k, loss: (mv + k * dz, c * s**2 / total)),
            "your v_hat is right; your loss is that of x_hat, and an error of v has another size.",
        ),
    ],
)
