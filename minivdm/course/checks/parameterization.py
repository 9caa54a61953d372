"""Checks of assignment 05: the names of a prediction, what an error becomes, and what is left to learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, Schedule, SubVPSchedule, VESchedule, denoiser, gaussian
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

COSINE, SUB_VP, VE = CosineSchedule(), SubVPSchedule(), VESchedule(0.05, 6.0)
FLOATS = (torch.float64, torch.float32)
NAMES = ("x", "eps", "v", "score")


def _scales(schedule: Schedule, t: Any, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return schedule.alpha(t).to(dtype), schedule.sigma(t).to(dtype)


def _numbers(*values: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(value, dtype=dtype) for value in values)


# ---- what an error becomes ---------------------------------------------------------------------------------------


def _exchange_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t = uniform(g, 0.25, 0.4).item()
    for name in NAMES:
        yield Case(f"error of {name}, sub-VP", (video(g), *_scales(SUB_VP, t), name))
    for name in ("v", "score"):
        yield Case(
            f"float32, error of {name}, cosine",
            (video(g, 3, 2, dtype=torch.float32), *_scales(COSINE, t, torch.float32), name),
        )
    yield Case("error of eps, variance exploding", (video(g, 5, 2), *_scales(VE, 1 - t), "eps"))
    for end in (-20.0, 20.0):
        yield Case(
            f"error of v, one frame, log-SNR {end:g}",
            (video(g, 1, 1, 1, 2, 2), *_scales(COSINE, COSINE.time(end)), "v"),
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


# ---- twelve conversions ------------------------------------------------------------------------------------------


def _convert_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    times = uniform(g, 0.25, 0.45, 3).tolist()
    pairs = [(a, b) for a in NAMES for b in NAMES if a != b]
    for given, wanted in pairs:
        yield Case(f"from {given} to {wanted}", (video(g), video(g), *_scales(SUB_VP, times[0]), given, wanted))
    yield Case("from v to v", (video(g, 3, 2), video(g, 3, 2), *_scales(SUB_VP, times[1]), "v", "v"))
    yield Case(
        "variance exploding, from v to score",
        (video(g, 1, 3, 1, 2, 2), video(g, 1, 3, 1, 2, 2), *_scales(VE, 1 - times[1]), "v", "score"),
    )
    yield Case(
        "float32, cosine, from score to v",
        (
            video(g, dtype=torch.float32),
            video(g, dtype=torch.float32),
            *_scales(COSINE, times[2], torch.float32),
            "score",
            "v",
        ),
    )


def _convert(prediction: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor, given: str, wanted: str) -> Tensor:
    if given == wanted:
        return prediction.clone()
    return getattr(gaussian, f"{wanted}_from_{given}")(z, prediction, alpha, sigma)


def _hub(
    enter: Callable[..., dict[str, Tensor]] = lambda *_: {}, leave: Callable[..., dict[str, Tensor]] = lambda *_: {}
) -> Callable[..., Tensor]:
    """Through x and eps. enter: (prediction, z, alpha, sigma) -> x by given name; leave: (x, eps, alpha, sigma) -> what
    is returned by wanted name; each where it differs from the right one."""

    def answer(p: Tensor, z: Tensor, a: Tensor, s: Tensor, given: str, wanted: str) -> Tensor:
        x = (
            {"x": p, "eps": (z - s * p) / a, "v": (a * z - s * p) / (a**2 + s**2), "score": (z + s**2 * p) / a}
            | enter(p, z, a, s)
        )[given]
        eps = (z - a * x) / s
        return ({"x": x, "eps": eps, "v": a * eps - s * x, "score": -eps / s} | leave(x, eps, a, s))[wanted]

    return answer


convert = Check(
    "convert",
    _convert,
    _convert_cases,
    [
        Wrong(
            _hub(lambda p, z, a, s: {"v": a * z - s * p}),
            "your way back from v holds where α² + σ² = 1; see step 1 above (5.2) for the factor that is missing.",
        ),
        Wrong(
            _hub(lambda p, z, a, s: {"score": (z - s**2 * p) / a}, lambda x, e, a, s: {"score": e / s}),
            "the sign of your score is wrong: the density rises towards less noise.",
        ),
        Wrong(
            _hub(lambda p, z, a, s: {"score": (z + s * p) / a}, lambda x, e, a, s: {"score": -e}),
            "your score is minus eps; see (5.1) for what it is divided by.",
        ),
        Wrong(
            _hub(lambda p, z, a, s: {"v": (a * z + s * p) / (a**2 + s**2)}, lambda x, e, a, s: {"v": s * x - a * e}),
            "your v points the other way: as the noise is turned up, v adds noise and removes signal.",
        ),
        Wrong(
            _hub(lambda p, z, a, s: {"eps": z - s * p, "score": z + s**2 * p}),
            "what is left of z without its noise is α x, not yet x.",
        ),
        Wrong(
            _hub(leave=lambda x, e, a, s: {"eps": s * e, "v": a * s * e - s * x, "score": -e}),
            "what is left of z without its signal is σ eps, not yet eps.",
        ),
    ],
)


# ---- turning -----------------------------------------------------------------------------------------------------


def _turn_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    low, high = uniform(g, 0.2, 0.5).item(), uniform(g, 0.9, 1.3).item()
    for dtype in FLOATS:
        z, v = video(g, dtype=dtype), video(g, dtype=dtype)
        yield Case(f"{name_of(dtype)}, to a cleaner level", (z, v, *_numbers(high, low, dtype=dtype)))
    yield Case("points of a plane, to a noisier level", (video(g, 6, 2), video(g, 6, 2), *_numbers(low, high)))
    yield Case("one frame, to the clean end", (video(g, 1, 1, 1, 3, 3), video(g, 1, 1, 1, 3, 3), *_numbers(high, 0.0)))
    yield Case("from end to end", (video(g, 2, 3), video(g, 2, 3), *_numbers(0.0, math.pi / 2)))
    yield Case("no turn at all", (video(g, 2, 3), video(g, 2, 3), *_numbers(low, low)))


def _turned(z: Tensor, v: Tensor, phi: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    x, eps = phi.cos() * z - phi.sin() * v, phi.sin() * z + phi.cos() * v
    return other.cos() * x + other.sin() * eps, other.cos() * eps - other.sin() * x


def _by(
    angle: Callable[[Tensor, Tensor], Tensor] = lambda phi, other: other - phi,
    velocity: Callable[..., Tensor] = lambda z, v, c, s: c * v - s * z,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """angle: (phi, other) -> the turn; velocity: (z, v, cos, sin) -> the new v."""

    def answer(z: Tensor, v: Tensor, phi: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        c, s = angle(phi, other).cos(), angle(phi, other).sin()
        return c * z + s * v, velocity(z, v, c, s)

    return answer


turned = Check(
    "turned",
    _turned,
    _turn_cases,
    [
        Wrong(
            _by(lambda phi, other: phi - other),
            "you turn the wrong way: to a noisier level the angle grows, and z moves along v.",
        ),
        Wrong(
            _by(lambda phi, other: other),
            "you turn by the new angle; z is already at the old one, so how far is it still to go?",
        ),
        Wrong(
            _by(velocity=lambda z, v, c, s: v),
            "your z is right, but v turns along with it: (5.5) at the new angle gives another v.",
        ),
        Wrong(
            _by(velocity=lambda z, v, c, s: c * v + s * z),
            "your z is right, but v is turned the wrong way: a turn keeps |z|² + |v|², yours does not.",
        ),
        Wrong(
            _by(velocity=lambda z, v, c, s: c * v - s * (c * z + s * v)),
            "you overwrite z before you compute v: both results are made of the *old* z and v.",
        ),
        Wrong(
            _by(velocity=lambda z, v, c, s: s * z - c * v),
            "your z is right, but your v points the other way; with no turn at all it must stay what it is.",
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


# ---- any velocity, with pen --------------------------------------------------------------------------------------


def _velocity_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t = uniform(g, 0.2, 0.45).item()
    for dtype in FLOATS:
        yield Case(
            f"{name_of(dtype)}, flow matching",
            (video(g, dtype=dtype), video(g, dtype=dtype), *_numbers(1 - t, t, -1.0, 1.0, dtype=dtype)),
        )
    yield Case(
        "flow matching, t = 1, one frame",
        (video(g, 1, 1, 1, 3, 3), video(g, 1, 1, 1, 3, 3), *_numbers(0.0, 1.0, -1.0, 1.0)),
    )
    angle, speed = t * math.pi / 2, math.pi / 2
    yield Case(
        "cosine, time from 0 to 1",
        (
            video(g, 6, 2),
            video(g, 6, 2),
            *_numbers(math.cos(angle), math.sin(angle), -speed * math.sin(angle), speed * math.cos(angle)),
        ),
    )
    yield Case(
        "variance exploding, sigma = 5 t²", (video(g, 4, 3), video(g, 4, 3), *_numbers(1.0, 5 * t**2, 0.0, 10 * t))
    )
    yield Case("alpha = 1 - t², sigma = 2 t", (video(g), video(g), *_numbers(1 - t**2, 2 * t, -2 * t, 2.0)))


def _velocity(z: Tensor, u: Tensor, alpha: Tensor, sigma: Tensor, d_alpha: Tensor, d_sigma: Tensor) -> Any:
    matrix = torch.stack([torch.stack([alpha, sigma]), torch.stack([d_alpha, d_sigma])])
    (a, b), (c, d) = torch.linalg.inv(matrix)
    return a * z + b * u, c * z + d * u, b**-2


def _solved(find: Callable[..., Any]) -> Callable[..., Any]:
    """find: (z, u, alpha, sigma, d_alpha, d_sigma, determinant) -> (x, eps, weight)."""
    return lambda z, u, a, s, da, ds: find(z, u, a, s, da, ds, a * ds - s * da)


from_velocity = Check(
    "from_velocity",
    _velocity,
    _velocity_cases,
    [
        Wrong(
            lambda z, u, a, s, da, ds: (z - s * u, z + a * u, s**-2),
            "this is right for flow matching, where z moves on a straight line; other processes have other slopes.",
        ),
        Wrong(
            lambda z, u, a, s, da, ds: (
                (ds * z - s * u) / (a * ds + s * da),
                (a * u - da * z) / (a * ds + s * da),
                ((a * ds + s * da) / s) ** 2,
            ),
            "the factor that you divide by has a wrong sign inside: multiply your elimination out once more.",
        ),
        Wrong(
            _solved(lambda z, u, a, s, da, ds, w: (ds * z - s * u, a * u - da * z, (w / s) ** 2)),
            "your combinations of z and u remove the other unknown, but leave a factor before x and eps.",
        ),
        Wrong(
            _solved(lambda z, u, a, s, da, ds, w: ((ds * z - s * u) / w, (a * u - da * z) / w, (s / w) ** 2)),
            "your x and eps are right; your weight is upside down: it multiplies the error of x to give that of u.",
        ),
        Wrong(
            _solved(lambda z, u, a, s, da, ds, w: ((ds * z - s * u) / w, (a * u - da * z) / w, w / s)),
            "your x and eps are right; the loss is of squared errors, and your weight is a ratio of plain ones.",
        ),
        Wrong(
            _solved(lambda z, u, a, s, da, ds, w: ((ds * z + s * u) / w, (-a * u - da * z) / w, (w / s) ** 2)),
            "you took u for the velocity towards the data; it is dz/dt, and t grows towards noise.",
        ),
    ],
)


# ---- what is left to learn, with pen -----------------------------------------------------------------------------


def _best_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t, mean, variance = uniform(g, 0.25, 0.45).item(), uniform(g, -0.9, -0.4).item(), uniform(g, 0.1, 0.5).item()
    for dtype in FLOATS:
        yield Case(
            f"{name_of(dtype)}, mean 0, cosine", (video(g, dtype=dtype), *_scales(COSINE, t, dtype), 0.0, variance)
        )
    yield Case("a dark clip, cosine", (video(g), *_scales(COSINE, t), mean, variance))
    yield Case("one frame, sub-VP", (video(g, 1, 1, 1, 3, 3), *_scales(SUB_VP, t), mean, variance))
    yield Case("variance 4, variance exploding", (video(g, 6, 2), *_scales(VE, 1 - t), -mean, 4.0))
    yield Case("unit Gaussian data, cosine", (video(g, 6, 2), *_scales(COSINE, t), 0.0, 1.0))
    yield Case("no signal left, alpha = 0", (video(g, 6, 2), *_numbers(0.0, 1.0), mean, variance))
    yield Case("no noise yet, sigma = 0", (mean + video(g, 6, 2), *_numbers(1.0, 0.0), mean, variance))


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
            "the covariance of z and v is α σ (1 − c): z and v share the data with opposite signs.",
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


# ---- EDM ---------------------------------------------------------------------------------------------------------


def _edm_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        levels = (uniform(g, 0.2, 1.5, 5).to(dtype) for _ in range(2))
        yield Case(f"{name_of(dtype)}, five levels, sigma_d = 0.5", (*levels, 0.5))
    yield Case("variance exploding, sigma_d = 2", (torch.ones(3, dtype=torch.float64), uniform(g, 0.1, 20, 3), 2.0))
    yield Case("no signal left, alpha = 0", (*_numbers(0.0, 1.0), 0.7))


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
