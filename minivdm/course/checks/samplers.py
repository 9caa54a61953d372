"""Checks of assignment 06: steps from noise to data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, gaussian
from minivdm.course.checks.harness import Case, Check, Wrong, counting, generator, name_of, ordered_pair, uniform, video
from minivdm.course.checks.likelihoods import hutchinson_variances, log_likelihood
from minivdm.course.checks.sampling_loop import sample

__all__ = [
    "ancestral_step",
    "any_noise_step",
    "clipped_ddim_step",
    "ddim_step",
    "hutchinson_variances",
    "karras_step",
    "langevin_step",
    "log_likelihood",
    "sample",
    "single_step",
]

COSINE, LINEAR = CosineSchedule(), LinearSchedule()


# ---- DDIM ----------------------------------------------------------------------------------------------------


def _scales(schedule: Schedule, t: Any) -> tuple[Tensor, Tensor]:
    return schedule.alpha(t), schedule.sigma(t)


def _three(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [video(g, *shape, dtype=dtype) for _ in range(3)]


def _ddim_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in (torch.float64, torch.float32):
        z, x_hat = video(g, dtype=dtype), video(g, dtype=dtype)
        scales = [*_scales(COSINE, t), *_scales(COSINE, s)]
        yield Case(f"{name_of(dtype)}, clips of 3 frames", (z, x_hat, *scales))
    z, x_hat = video(g, 5, 1, 1, 2, 2), video(g, 5, 1, 1, 2, 2)
    yield Case("one frame, from t = 1", (z, x_hat, *_scales(COSINE, 1.0), *_scales(COSINE, t)))
    yield Case("to t = 0", (z, x_hat, *_scales(COSINE, t), *_scales(COSINE, 0.0)))
    yield Case(
        "points of a plane, variance exploding",
        (video(g, 6, 2), video(g, 6, 2), *torch.tensor([1.0, 1.0 + t, 1.0, s], dtype=torch.float64)),
    )


def _ddim(z: Tensor, x_hat: Tensor, alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> Tensor:
    eps_hat = (z - alpha_t * x_hat) / sigma_t
    return alpha_s * x_hat + sigma_s * eps_hat


ddim_step = Check(
    "ddim_step",
    _ddim,
    _ddim_cases,
    [
        Wrong(
            lambda z, x, at, st, as_, ss: at * x + st * (z - as_ * x) / ss,
            "your step ends at t, not at s: did you swap s and t?",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + ss * (z - at * x),
            "your eps_hat is not divided by sigma_t: solve z = alpha_t x_hat + sigma_t eps_hat for it.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + ss * (z - at * x) / st**2,
            "your eps_hat is divided by sigma_t²; that is minus the score. The noise is divided by sigma_t.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x - ss * (z - at * x) / st,
            "the sign of your eps_hat is wrong: what is left of z when the signal alpha_t x_hat is taken away?",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + ss**2 * (z - at * x) / st,
            "you scale the noise by sigma_s²; a standard deviation, sigma_s, belongs there.",
        ),
        Wrong(
            lambda z, eps, at, st, as_, ss: as_ * (z - st * eps) / at + ss * eps,
            "you take x_hat for eps_hat: here the denoiser's answer is the clean clip.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + (1 - as_**2).clamp(min=0).sqrt() * (z - at * x) / st,
            "you wrote √(1 − alpha_s²) for sigma_s; that holds where variance is preserved, and not here always.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + at * ss**2 / (as_ * st**2) * (z - at * x),
            "this is the mean of the posterior, with which an *ancestral* step begins; DDIM keeps all of the noise.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: x + ss * (z - at * x) / st,
            "the signal has scale alpha_s at time s; you left it at scale 1.",
        ),
    ],
)


# ---- ancestral -----------------------------------------------------------------------------------------------


def _ancestral_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, gamma = 0", (*_three(g, dtype=dtype), t, s, COSINE, 0.0))
    z, x, noise = _three(g, 4, 1, 1, 3, 3)
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


# ---- clipping ------------------------------------------------------------------------------------------------


def _clip_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    scales = [*_scales(COSINE, t), *_scales(COSINE, s)]
    for dtype in (torch.float64, torch.float32):
        z, x_hat = video(g, dtype=dtype), 3 * video(g, dtype=dtype)
        yield Case(f"{name_of(dtype)}, values in [-1, 1]", (z, x_hat, -1.0, 1.0, *scales))
    z, x_hat = video(g, 1, 3, 1, 3, 3), 3 * video(g, 1, 3, 1, 3, 3)
    yield Case("one frame, values in [0, 1], to t = 0", (z, x_hat, 0.0, 1.0, *scales[:2], *_scales(COSINE, 0.0)))
    yield Case("nothing to clip", (z, x_hat.tanh(), -1.0, 1.0, *scales))
    z, x_hat = video(g, 6, 2), 3 * video(g, 6, 2)
    yield Case("points of a plane, from t = 1", (z, x_hat, -2.0, 2.0, *_scales(COSINE, 1.0), *scales[2:]))


clipped_ddim_step = Check(
    "clipped_ddim_step",
    lambda z, x, low, high, *scales: _ddim(z, x.clamp(low, high), *scales),
    _clip_cases,
    [
        Wrong(
            lambda z, x, low, high, *scales: _ddim(z, x, *scales) + scales[2] * (x.clamp(low, high) - x),
            "your eps_hat is that of x_hat before it was clipped: they no longer add up to z_t.",
        ),
        Wrong(lambda z, x, low, high, *scales: _ddim(z, x, *scales), "this is DDIM without any clipping."),
        Wrong(
            lambda z, x, low, high, *scales: _ddim(z, x, *scales).clamp(low, high),
            "you clip z_s, which is noisy and may have any value; only the estimate of clean values has a range.",
        ),
        Wrong(
            lambda z, x, low, high, *scales: _ddim(z, x.clamp(-1, 1), *scales),
            "you clip to [-1, 1] whatever low and high are.",
        ),
        Wrong(
            lambda z, x, low, high, *scales: _ddim(z, x.clamp(-high, high), *scales),
            "you clip to [-high, high]; the lower end is `low`.",
        ),
        Wrong(
            lambda z, x, low, high, *scales: (
                _ddim(z, x.clamp(low, high), *scales) + scales[2] * (x - x.clamp(low, high))
            ),
            "your eps_hat belongs to the clipped estimate, but the signal of your z_s is still the old one.",
        ),
    ],
)


# ---- Langevin ------------------------------------------------------------------------------------------------


def _langevin_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t, delta = uniform(g, 0.2, 0.8).item(), uniform(g, 0.05, 0.3).item()
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, clips of 3 frames", (*_three(g, dtype=dtype), *_scales(COSINE, t), delta))
    yield Case("one frame, at t = 1", (*_three(g, 1, 1, 1, 3, 3), *_scales(COSINE, 1.0), 0.1))
    scales = torch.tensor([1.0, 2.5], dtype=torch.float64)
    yield Case("points of a plane, variance exploding", (*_three(g, 6, 2), *scales, delta))


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


# ---- Heun, variance exploding --------------------------------------------------------------------------------


def _karras_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    low, high = ordered_pair(g, 0.3, 3.0)
    c = uniform(g, 0.2, 0.6).item()

    def single(z: Tensor, sigma: float) -> Tensor:  # N(0.1, c), value by value
        return 0.1 + c / (c + sigma**2) * (z - 0.1)

    def coupled(z: Tensor, sigma: float) -> Tensor:
        return torch.tanh(z + 0.5 * z.roll(1, -1)) / (1 + sigma)

    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, clips of 3 frames", (single, high * video(g, dtype=dtype), high, low))
    yield Case("points, values that depend on each other", (coupled, high * video(g, 6, 3), high, low))
    yield Case("one frame, to sigma = 0", (coupled, low * video(g, 1, 1, 1, 3, 3), low, 0.0))


def _slope(denoise: Callable[..., Tensor], z: Tensor, sigma: float) -> Tensor:
    return (z - denoise(z, sigma)) / sigma


def _heun(mean: Callable[..., Tensor], guarded: bool = True) -> Callable[..., Tensor]:
    """Heun with any second half: mean(denoise, z, high, low, slope at z, where Euler lands)."""

    def answer(denoise: Callable[..., Tensor], z: Tensor, high: float, low: float) -> Tensor:
        first = _slope(denoise, z, high)
        end = z + (low - high) * first
        if low == 0:
            return end if guarded else torch.full_like(z, torch.nan)
        return z + (low - high) * mean(denoise, z, high, low, first, end)

    return answer


def _small_number(denoise: Callable[..., Tensor], z: Tensor, high: float, low: float) -> Tensor:
    first = _slope(denoise, z, high)
    end = z + (low - high) * first
    return z + (low - high) * (first + (end - denoise(end, low)) / (low + 1e-8)) / 2


_karras = _heun(lambda denoise, z, high, low, first, end: (first + _slope(denoise, end, low)) / 2)
karras_step = Check(
    "karras_step",
    _karras,
    _karras_cases,
    [
        Wrong(
            _heun(lambda denoise, z, high, low, first, end: first),
            "this is Euler's step, which is DDIM here; Heun looks at the slope where it lands, and averages.",
        ),
        Wrong(
            _heun(lambda denoise, z, high, low, first, end: (first + _slope(denoise, z, low)) / 2),
            "your second slope is taken at the old z; it belongs to the point where Euler's step lands.",
        ),
        Wrong(
            _heun(lambda denoise, z, high, low, first, end: (first + _slope(denoise, end, high)) / 2),
            "your second slope is taken at the old noise level; Euler's step lands at sigma_s.",
        ),
        Wrong(
            _heun(lambda denoise, z, high, low, first, end: _slope(denoise, end, low)),
            "you redo the step with the second slope alone; Heun takes the mean of both.",
        ),
        Wrong(
            _heun(lambda denoise, z, high, low, first, end: (first + _slope(denoise, end, low)) / 2, guarded=False),
            "at sigma_s = 0 the second slope would be 0 / 0: where the step ends at clean data, leave it out.",
        ),
        Wrong(
            _small_number,
            "a small number in the denominator does not save the last step: at sigma_s = 0 its second slope is "
            "meaningless, and Euler's step is the answer.",
        ),
        Wrong(
            _heun(
                lambda denoise, z, high, low, first, end: _slope(
                    denoise, z + (low - high) / 2 * first, (high + low) / 2
                )
            ),
            "this is the midpoint rule, also of order two; Heun looks at the slope where Euler's step lands.",
        ),
        Wrong(
            _heun(lambda denoise, z, high, low, first, end: (end - z) / (low - high) + _slope(denoise, end, low) / 2),
            "you add half a step to where Euler landed; the mean of the two slopes is used from the old z.",
        ),
        Wrong(
            _heun(lambda denoise, z, high, low, first, end: (_slope(denoise, z, high) + _slope(denoise, end, low)) / 2),
            "the value is right, but you call the denoiser more than twice: keep the first slope.",
        ),
        Wrong(
            lambda denoise, z, high, low: 2 * z - _karras(denoise, z, high, low),
            "your step goes towards more noise: sigma changes by sigma_s − sigma_t, a negative number.",
        ),
    ],
    probe=counting,
)


# ---- DPM-Solver++(2S) ----------------------------------------------------------------------------------------


def _single_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g, 0.1, 0.8)
    m = s + (0.3 + 0.4 * uniform(g, 0, 1).item()) * (t - s)

    def coupled(z: Tensor, time: float) -> Tensor:
        return torch.tanh(z + 0.5 * z.roll(1, -1)) / (1 + time)

    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, clips of 3 frames", (coupled, video(g, dtype=dtype), t, m, s, COSINE))
    yield Case("one frame, from t = 1, m close to s", (coupled, video(g, 1, 1, 1, 3, 3), 1.0, s + 0.02, s, COSINE))
    yield Case("points, sub-variance-preserving", (coupled, video(g, 6, 2), t, m, s, SubVPSchedule()))
    yield Case("an estimate that does not change", (lambda z, time: 0 * z + 0.3, video(g, 4, 2), t, m, s, COSINE))


def _exponential(z: Tensor, x: Tensor, t: Any, s: Any, schedule: Schedule, half: float = 0.5) -> Tensor:
    """From t to s with the estimate x throughout."""
    decay = torch.exp(half * (schedule.log_snr(t) - schedule.log_snr(s)))
    return schedule.sigma(s) / schedule.sigma(t) * z + schedule.alpha(s) * (1 - decay) * x


def _share(t: Any, m: Any, s: Any, schedule: Schedule) -> Tensor:
    """How much of the step, in half the log-SNR, lies before m."""
    at_t, at_m, at_s = (schedule.log_snr(u) for u in (t, m, s))
    return (at_m - at_t) / (at_s - at_t)


def _single(
    guess: Callable[..., Tensor] = lambda x, other, r: x + (other - x) / (2 * r),
    second: Callable[..., tuple[Tensor, Any]] = lambda z, there, t, m, s: (there, m),
    share: Callable[..., Any] = _share,
    half: float = 0.5,
) -> Callable[..., Tensor]:
    """guess: of the mean estimate; second: where the denoiser is asked again, (z, place at m, times) -> place, time."""

    def answer(denoise: Callable[..., Tensor], z: Tensor, t: Any, m: Any, s: Any, schedule: Schedule) -> Tensor:
        x = denoise(z, t)
        other = denoise(*second(z, _exponential(z, x, t, m, schedule, half), t, m, s))
        return _exponential(z, guess(x, other, share(t, m, s, schedule)), t, s, schedule, half)

    return answer


def _once(denoise: Callable[..., Tensor], z: Tensor, t: Any, m: Any, s: Any, schedule: Schedule) -> Tensor:
    return _exponential(z, denoise(z, t), t, s, schedule)


single_step = Check(
    "single_step",
    _single(),
    _single_cases,
    [
        Wrong(_once, "this is DDIM from t to s: the estimate at m is not used."),
        Wrong(
            _single(lambda x, other, r: other + 0 * x),
            "you use the estimate at m alone, which is right where m lies in the middle of the step, in half the "
            "log-SNR, and nowhere else.",
        ),
        Wrong(
            _single(lambda x, other, r: x + (other - x) / r),
            "you extrapolate to the end of the step; the mean over the step is wanted, half as far.",
        ),
        Wrong(
            _single(lambda x, other, r: x + r / 2 * (other - x)),
            "your share r is upside down: the closer m lies to t, the more a change of the estimate has to count.",
        ),
        Wrong(
            _single(share=lambda t, m, s, schedule: (t - m) / (t - s)),
            "your share r is measured in t; the line on which you extrapolate is one in half the log-SNR.",
        ),
        Wrong(
            _single(second=lambda z, there, t, m, s: (z, m)),
            "you ask for the second estimate at the old z; it belongs to where DDIM lands at m.",
        ),
        Wrong(
            _single(second=lambda z, there, t, m, s: (there, t)),
            "you ask for the second estimate at time t; DDIM lands at m.",
        ),
        Wrong(
            _single(second=lambda z, there, t, m, s: (there, s)),
            "you ask for the second estimate at time s; you are at m.",
        ),
        Wrong(_single(half=1.0), "you measure the steps in lambda; here h is a difference of half the log-SNR."),
        Wrong(
            _single(half=-0.5),
            "your exponential grows, e^h; the share of the old that is left, e^(-h), gets smaller with the step.",
        ),
        Wrong(
            lambda denoise, z, t, m, s, schedule: _single()(denoise, z, s, m, t, schedule),
            "your times run the other way: t is where z is, and s, the cleaner one, where it goes.",
        ),
        Wrong(
            lambda denoise, z, t, m, s, schedule: _single()(denoise, z, t, m, s, schedule) + 0 * denoise(z, t),
            "the value is right, but you call the denoiser more than twice: keep the first estimate.",
        ),
    ],
    probe=counting,
)


# ---- any amount of noise -------------------------------------------------------------------------------------


def _any_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g, 0.2, 0.8)
    kappa = uniform(g, 0.3, 0.7).item()
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, kappa = {kappa:.2f}", (*_three(g, dtype=dtype), t, s, LINEAR, kappa))
    yield Case("one frame, kappa = 0", (*_three(g, 1, 1, 1, 3, 3), t, s, COSINE, 0.0))
    yield Case("points, kappa = 1, from t = 1", (*_three(g, 6, 2), 1.0, t, LINEAR, 1.0))
    yield Case("points, kappa = 1.5, sub-variance-preserving", (*_three(g, 6, 2), t, s, SubVPSchedule(), 1.5))


def _any(
    z: Tensor,
    x_hat: Tensor,
    noise: Tensor,
    t: float,
    s: float,
    schedule: Schedule,
    kappa: float,
    *,
    pull: float | None = None,
    spread: float | None = None,
    drift: float = 1.0,
    power: int = 2,
) -> Tensor:
    """z + drift * (t - s) * (-f z) + (t - s) pull g² score + spread g noise, by default as in (6.5)."""
    length = t - s
    pull = (1 + kappa**2) / 2 if pull is None else pull
    spread = kappa * length**0.5 if spread is None else spread
    f, g = schedule.drift(t), schedule.diffusion(t)
    score = (schedule.alpha(t) * x_hat - z) / schedule.sigma(t) ** power
    return z - drift * length * f * z + length * pull * g**2 * score + spread * g * noise


any_noise_step = Check(
    "any_noise_step",
    _any,
    _any_cases,
    [
        Wrong(
            lambda *a: _any(*a, pull=1.0),
            "your pull along the score is that of the reverse SDE, whatever kappa is: less noise needs less pull.",
        ),
        Wrong(
            lambda *a: _any(*a, pull=(1 + a[-1]) / 2), "rho enters the drift of (6.5) as a square, and so does kappa."
        ),
        Wrong(
            lambda *a: _any(*a, pull=-(1 + a[-1] ** 2) / 2, drift=-1.0),
            "the sign of your drift is that of a step forwards in time; dt is s − t here, a negative number.",
        ),
        Wrong(
            lambda *a: _any(*a, spread=a[-1] * (a[3] - a[4])),
            "your noise grows with the length of the step; a Brownian motion spreads with its root.",
        ),
        Wrong(
            lambda *a: _any(*a, spread=(a[3] - a[4]) ** 0.5),
            "your noise is that of the reverse SDE, whatever kappa is: rho is kappa times g.",
        ),
        Wrong(lambda *a: _any(*a, power=1), "you took −eps_hat for the score; that is divided by sigma once more."),
    ],
)
