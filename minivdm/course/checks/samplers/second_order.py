"""Checks of exercises 06.6 and 06.8: steps of second order, Heun where the variance explodes, DPM-Solver++(2S)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import Schedule, SubVPSchedule
from minivdm.course.checks.harness import Case, Check, Wrong, counting, generator, name_of, ordered_pair, uniform, video
from minivdm.course.checks.samplers.levels import COSINE

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
