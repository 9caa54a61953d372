"""Checks of exercises 02.1, 02.3 and 02.6: scales from the log-SNR, a schedule of one's own, zero terminal SNR."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform

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
