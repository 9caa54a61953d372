"""Checks of assignment 02: the log-SNR, transitions and posteriors, and schedules that end where they should."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule, gaussian
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, ordered_pair, uniform, video

COSINE, LINEAR, SUB_VP, VE = CosineSchedule(), LinearSchedule(), SubVPSchedule(), VESchedule(0.05, 6.0)


# ---- alpha and sigma from the log-SNR --------------------------------------------------------------------------


def _scale_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    yield Case("float64, lambda between -5 and 5", (uniform(g, -5, 5, 6),))
    yield Case("float32, lambda between -2 and 2", (uniform(g, -2, 2, 2, 3).float(),))
    yield Case("lambda = 0", (torch.tensor(0.0, dtype=torch.float64),))
    for end in (80.0, -80.0):
        yield Case(
            f"lambda = {end:g} (result 2: the logarithms of what you return)",
            (torch.tensor([end], dtype=torch.float64),),
        )
    yield Case("float32, lambda = 40 and -40", (torch.tensor([40.0, -40.0]),))


def _scales(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    logsigmoid = torch.nn.functional.logsigmoid
    return (logsigmoid(log_snr) / 2).exp(), (logsigmoid(-log_snr) / 2).exp()


def _with_logarithms(answer: Callable[..., Any], log_snr: Tensor) -> Any:
    """(what the answer returns, logarithms of both): in the latter all digits of the smaller scale count."""
    found = answer(log_snr)
    if not isinstance(found, (tuple, list)):
        return found
    if not all(isinstance(part, Tensor) for part in found):
        return found, ()
    return found, tuple(part.detach().clamp(min=1e-30).log() for part in found)


alpha_sigma = Check(
    "alpha_sigma",
    _scales,
    _scale_cases,
    [
        Wrong(
            lambda lam: (torch.sigmoid(lam), torch.sigmoid(-lam)),
            "these are α² and σ²; the scales themselves were asked for.",
        ),
        Wrong(
            lambda lam: (torch.sigmoid(-lam).sqrt(), torch.sigmoid(lam).sqrt()),
            "you have α and σ exchanged: a large λ means much signal.",
        ),
        Wrong(
            lambda lam: (torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()),
            "you took λ for log(α/σ); it is a ratio of powers, with squares.",
        ),
        Wrong(
            lambda lam: ((lam / 2).exp(), torch.ones_like(lam)),
            "the ratio of your scales is right, but the process is variance preserving: both move.",
        ),
        Wrong(
            lambda lam: (torch.sigmoid(lam).sqrt(), (1 - torch.sigmoid(lam)).sqrt()),
            "your σ is computed from α by a difference from 1, which has no digits left where α is close to 1.",
        ),
        Wrong(
            lambda lam: ((1 - torch.sigmoid(-lam)).sqrt(), torch.sigmoid(-lam).sqrt()),
            "your α is computed from σ by a difference from 1, which has no digits left where σ is close to 1.",
        ),
        Wrong(
            lambda lam: (torch.sigmoid(lam).sqrt(), 1 - torch.sigmoid(lam).sqrt()),
            "your scales add up to 1; their squares should.",
        ),
    ],
    probe=_with_logarithms,
)


# ---- q(z_t | z_s) ----------------------------------------------------------------------------------------------


def _transition_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    yield Case("cosine", (t, s, COSINE))
    yield Case("times of three clips, sub-VP", (uniform(g, 0.5, 0.9, 3), uniform(g, 0.1, 0.4, 3), SUB_VP))
    yield Case("variance exploding", (t, s, VE))
    yield Case("from s = 0, VP linear", (t, 0.0, LINEAR))
    yield Case("to t = 1, cosine", (1.0, s, COSINE))
    yield Case("neighbours, VP linear", (t + 1e-3, t, LINEAR))


def _steps(find: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """find: (alpha_s, sigma_s, alpha_t, sigma_t, k) -> (scale, variance)."""

    def answer(t: Any, s: Any, schedule: Schedule) -> tuple[Tensor, Tensor]:
        a, b = schedule.alpha(s), schedule.alpha(t)
        return find(a, schedule.sigma(s), b, schedule.sigma(t), b / a)

    return answer


transition = Check(
    "transition",
    lambda t, s, schedule: tuple(gaussian.transition(s, t, schedule)),
    _transition_cases,
    [
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, 1 - k**2)),
            "1 − k² is right where variance is preserved, as in DDPM; (2.6) holds for every process.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, st**2 - ss**2)),
            "the noise that was there at s has been scaled by k since: subtract k² σ_s².",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, (st - k * ss) ** 2)),
            "you subtract standard deviations; of independent noises it is the variances that add.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, (st**2 - k**2 * ss**2).sqrt())),
            "your second result is the standard deviation; the variance was asked for.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (1 / k, st**2 - k**2 * ss**2)),
            "your scale is upside down: from s to t the signal fades.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, st**2 - k * ss**2)),
            "old noise is scaled as the signal is; what does scaling by k do to a variance?",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, ss**2 - k**2 * ss**2 * ss**2 / st**2)),
            "you take a share of σ_s²; the fresh noise is a share of the noise at t.",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (k, ss**2 - st**2 / k**2)),
            "your variance is negative: did you swap s and t?",
        ),
        Wrong(
            _steps(lambda a, ss, b, st, k: (b, st**2)),
            "this is q(z_t | x), which starts from a clean clip; z_s is not clean.",
        ),
    ],
)


# ---- lambda on a straight line, with pen -----------------------------------------------------------------------


def _log_linear_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, from 15 to -15", (uniform(g, 0.3, 0.9, 6).to(dtype), 15.0, -15.0))
    yield Case("from 6 to -20", (uniform(g, 0.0, 1.0, 2, 3), 6.0, -20.0))
    yield Case("t = 0", (torch.tensor(0.0, dtype=torch.float64), 5.0, -9.0))
    yield Case("t = 1", (torch.tensor(1.0, dtype=torch.float64), 5.0, -9.0))
    yield Case("t = 0, lambda = 40", (torch.tensor(0.0, dtype=torch.float64), 40.0, -40.0))


def _straight(find: Callable[..., tuple[Tensor, Tensor]], forwards: bool = True) -> Callable[..., tuple[Tensor, ...]]:
    """find: (alpha², sigma², slope of lambda) -> (f, g²); forwards: from the clean end to the noisy one."""

    def answer(t: Tensor, high: float, low: float) -> tuple[Tensor, ...]:
        first, last = (high, low) if forwards else (low, high)
        log_snr = first * (1 - t) + last * t
        signal, noise = torch.sigmoid(log_snr), torch.sigmoid(-log_snr)
        f, square = find(signal, noise, low - high)
        return signal.sqrt(), noise.sqrt(), f, square.sqrt()

    return answer


_log_linear = _straight(lambda signal, noise, slope: (noise * slope / 2, -noise * slope))


def _by_difference(t: Tensor, high: Any, low: Any) -> Any:
    alpha, _, f, g = _log_linear(t, high, low)
    return alpha, (1 - alpha**2).sqrt(), f, g


log_linear_schedule = Check(
    "log_linear_schedule",
    _log_linear,
    _log_linear_cases,
    [
        Wrong(
            _straight(lambda signal, noise, slope: (noise * slope / 2, -noise * slope), forwards=False),
            "your schedule starts with noise and ends clean; t = 0 is the clean end, where λ is largest.",
        ),
        Wrong(
            _by_difference,
            "you compute σ as √(1 − α²), which has no digits left where λ is large: use λ itself, as in 02.1.",
        ),
        Wrong(
            _straight(lambda signal, noise, slope: (-noise * slope / 2, -noise * slope)),
            "your f is positive, but the signal fades: which sign does dλ/dt have?",
        ),
        Wrong(
            _straight(lambda signal, noise, slope: (noise * slope, -noise * slope)),
            "your f is the slope of log α²; (1.11) asks for that of log α.",
        ),
        Wrong(
            _straight(lambda signal, noise, slope: (signal * slope / 2, -noise * slope)),
            "the derivative of log sigmoid(λ) is not sigmoid(λ): differentiate −log(1 + e^−λ).",
        ),
        Wrong(
            _straight(lambda signal, noise, slope: (noise * slope / 2, (noise * slope) ** 2)),
            "your last result is g²; g itself was asked for.",
        ),
        Wrong(
            _straight(lambda signal, noise, slope: (-noise / 2, noise)),
            "you differentiate by λ where (1.11) and (1.12) differentiate by t: how fast does λ move?",
        ),
        Wrong(
            _straight(lambda signal, noise, slope: (noise * slope / 2, -noise.sqrt() * slope)),
            "in (1.12) the slope of λ is multiplied by a variance; you took a standard deviation.",
        ),
    ],
)


# ---- q(z_s | z_t, x), with pen ---------------------------------------------------------------------------------


def _of(schedule: Schedule, *times: float) -> list[Tensor]:
    return [scale for t in times for scale in (schedule.alpha(t), schedule.sigma(t))]


def _posterior_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g, 0.1, 0.9)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, clips of 3 frames", (video(g, dtype=dtype), video(g, dtype=dtype), *_of(COSINE, t, s))
        )
    yield Case("points of a plane, variance exploding", (video(g, 6, 2), video(g, 6, 2), *_of(VE, t, s)))
    yield Case("one frame, sub-VP", (video(g, 1, 1, 1, 4, 4), video(g, 1, 1, 1, 4, 4), *_of(SUB_VP, t, s)))
    yield Case("to the clean end, sigma_s = 0", (video(g), video(g), *_of(LINEAR, t, 0.0)))
    nothing = [torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0)]
    yield Case("from pure noise, alpha_t = 0", (video(g), video(g), *nothing, *_of(COSINE, t)))


def _posterior(z: Tensor, x: Tensor, alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> Any:
    ratio = alpha_t / alpha_s
    kept = (ratio * sigma_s / sigma_t) ** 2
    return ratio * sigma_s**2 / sigma_t**2 * z + (1 - kept) * alpha_s * x, (1 - kept) * sigma_s**2


def _bayes(find: Callable[..., Any]) -> Callable[..., Any]:
    """find: (z, x, alpha_s, var_s, alpha_t, var_t, covariance) -> (mean, variance)."""
    return lambda z, x, at, st, as_, ss: find(z, x, as_, ss**2, at, st**2, at / as_ * ss**2)


posterior = Check(
    "posterior",
    _posterior,
    _posterior_cases,
    [
        Wrong(
            lambda *a: (_posterior(*a)[0], _posterior(*a)[1].sqrt()),
            "your second result is the standard deviation; the variance was asked for.",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + c / vt * (z - at * x), vt - c**2 / vs)),
            "your variance is that of q(z_t | z_s); here z_t is known, and what is left is a part of σ_s².",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + c / vt * z, vs - c**2 / vt)),
            "you correct the mean by all of z_t; only what z_t has beyond its own mean is news.",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + c / vt * (z - x), vs - c**2 / vt)),
            "the mean of z_t given x is not x: its signal has faded.",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + vs / vt * (z - at * x), vs - vs**2 / vt)),
            "your covariance is σ_s²; between s and t that noise has been scaled along with the signal.",
        ),
        Wrong(
            _bayes(lambda z, x, as_, vs, at, vt, c: (as_ * x + c / vt.sqrt() * (z - at * x), vs - c**2 / vt.sqrt())),
            "you divide by σ_t; conditioning divides a covariance by a variance.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: (
                (at * ss / (as_ * st)) ** 2 * (as_ / at) * z + (1 - (at * ss / (as_ * st)) ** 2) * as_ * x,
                (1 - (at * ss / (as_ * st)) ** 2) * ss**2,
            ),
            "right wherever z_t holds some signal; at alpha_t = 0 you divide by 0. Does the weight of z_t need it?",
        ),
    ],
)


# ---- zero terminal SNR -----------------------------------------------------------------------------------------


def _chain_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype, n in ((torch.float64, 12), (torch.float32, 8)):
        yield Case(f"{name_of(dtype)}, {n} steps", (uniform(g, 0.02, 0.3, n).sort().values.to(dtype),))
    yield Case("two steps", (uniform(g, 0.1, 0.6, 2),))
    yield Case("1000 steps, beta from 0.00085 to 0.012", (torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64),))
    yield Case(
        "a chain that ends without signal already",
        (torch.cat([uniform(g, 0.05, 0.4, 6), torch.ones(1, dtype=torch.float64)]),),
    )


def _stretched(a: Tensor) -> Tensor:
    return (a - a[-1]) * a[0] / (a[0] - a[-1])


def _betas(a: Tensor, power: float = 2) -> Tensor:
    """beta of each step from alpha at the end of each step."""
    before = torch.cat([torch.ones_like(a[:1]), a[:-1]])
    return 1 - (a / before) ** power


def _alphas(betas: Tensor) -> Tensor:
    return torch.exp(torch.log1p(-betas).cumsum(0) / 2)


rescaled_betas = Check(
    "rescaled_betas",
    lambda betas: _betas(_stretched(_alphas(betas))),
    _chain_cases,
    [
        Wrong(
            lambda betas: _betas(_stretched(_alphas(betas) ** 2), 1),
            "you stretched α², not α; squares bend the line, so all the values in between differ.",
        ),
        Wrong(
            lambda betas: _betas(_alphas(betas) - _alphas(betas)[-1]),
            "your α ends at 0 but no longer starts where it did: stretch after you shift.",
        ),
        Wrong(
            lambda betas: torch.cat([betas[:-1], torch.ones_like(betas[:1])]),
            "you changed the last step alone: the signal falls off a cliff there, and the others keep their α.",
        ),
        Wrong(
            lambda betas: _betas(_stretched(_alphas(betas)), 1),
            "a step's scale is the root of what it keeps of the variance; in going back to β you forgot the square.",
        ),
        Wrong(
            lambda betas: _betas(_stretched(torch.cat([torch.ones_like(betas[:1]), _alphas(betas)]))[1:]),
            "you keep α = 1 from before the first step and move α after it; here α after the first step stays.",
        ),
        Wrong(lambda betas: _stretched(_alphas(betas)), "these are the new α; the new β of the chain were asked for."),
        Wrong(
            lambda betas: 1 - _stretched((1 - betas).sqrt()) ** 2,
            "you treat one step's scale as if it were α, which is the product of the scales of all steps so far.",
        ),
    ],
)


# ---- the density of lambda, with pen ---------------------------------------------------------------------------


def _density_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, 64 pixels a side, cut at -3 and 2",
            (uniform(g, -3.5, 0.0, 8).to(dtype), -3.0, 2.0, 64, 32),
        )
    yield Case("the base size, cut at -20 and 20", (uniform(g, -8, 8, 2, 4), -20.0, 20.0, 32, 32))
    yield Case(
        "beyond both ends, 128 pixels a side",
        (torch.linspace(-20, 20, 17, dtype=torch.float64) + 0.1 * uniform(g, -1, 1), -6.0, 7.0, 128, 32),
    )
    yield Case("a small frame", (uniform(g, -2.0, 4.0, 5), -2.0, 4.0, 16, 24))
    yield Case("exactly at both ends", (torch.tensor([-2.0, 4.0], dtype=torch.float64), -2.0, 4.0, 32, 32))


def _density(log_snr: Tensor, log_snr_min: float, log_snr_max: float, size: int, base: int) -> Tensor:
    schedule = CosineSchedule.for_size(size, base, log_snr_min, log_snr_max)
    t = schedule.time(log_snr).clamp(0, 1)
    unshifted = log_snr.double() - schedule.shift
    inside = (log_snr_min <= unshifted) & (unshifted <= log_snr_max)
    return torch.where(inside, -1 / schedule._slope(t), 0.0).to(log_snr.dtype)


def _bell(
    shift: Callable[[float], float] = lambda ratio: 2 * math.log(ratio),
    factor: float = 1.0,
    whole: bool = False,
    cut: bool = True,
    unmoved: bool = False,
) -> Callable[..., Tensor]:
    """The density with something changed.

    shift: of base / size; whole: angles from 0 to pi / 2; cut: 0 outside; unmoved: of the range before the shift.
    """

    def answer(log_snr: Tensor, low: float, high: float, size: int, base: int) -> Tensor:
        span = math.pi / 2 if whole else math.atan(math.exp(-low / 2)) - math.atan(math.exp(-high / 2))
        u = log_snr - shift(base / size)
        density = factor / (4 * span * torch.cosh(u / 2))
        where = log_snr if unmoved else u
        return torch.where((low <= where) & (where <= high), density, 0.0) if cut else density

    return answer


cosine_density = Check(
    "cosine_density",
    _density,
    _density_cases,
    [
        Wrong(
            _bell(whole=True),
            "your angle runs from 0 to π/2; the truncated schedule spends all its time on a part of that.",
        ),
        Wrong(_bell(cut=False), "λ never leaves the truncated range, so its density is 0 outside; yours goes on."),
        Wrong(
            _bell(lambda ratio: -2 * math.log(ratio)),
            "your shift has the wrong sign: larger frames need more noise, a lower λ at every t.",
        ),
        Wrong(
            _bell(math.log),
            "your shift is half of what it should be: averaging d × d pixels divides the noise's variance by d².",
        ),
        Wrong(
            _bell(lambda ratio: 0.0),
            "your density does not depend on the frame size; by (2.18) all of λ moves, and the range of λ with it.",
        ),
        Wrong(
            _bell(factor=2.0),
            "your density is twice too large: it should integrate to 1. Did you differentiate the exponent λ/2?",
        ),
        Wrong(
            _bell(unmoved=True),
            "your bell is right, but cut at the ends before the shift: the range of λ moves along with it.",
        ),
    ],
)
