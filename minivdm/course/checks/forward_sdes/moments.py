"""Checks of exercises 01.4, 01.6 and 01.7, with pen: SDEs of given moments, and moments of given SDEs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

# ---- the straight line, with pen -------------------------------------------------------------------------------


def _line_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, 6 times", (uniform(g, 0.1, 0.9, 6).to(dtype),))
    yield Case("t = 0", (torch.tensor(0.0, dtype=torch.float64),))
    yield Case("close to t = 1", (1 - uniform(g, 1e-4, 1e-2, 2, 2),))


def _line(t: Tensor) -> tuple[Tensor, Tensor]:
    rate = 1 / (1 - t)
    return -rate, (2 * t + 2 * rate * t**2).sqrt()  # 2 sigma sigma' - 2 f sigma^2, not simplified


straight_line_sde = Check(
    "straight_line_sde",
    _line,
    _line_cases,
    [
        Wrong(lambda t: (_line(t)[0], _line(t)[1] ** 2), "your second result is g²; g itself was asked for."),
        Wrong(
            lambda t: (-_line(t)[0], _line(t)[1]),
            "the sign of your f is wrong: the signal fades, so its logarithm falls.",
        ),
        Wrong(
            lambda t: (-torch.ones_like(t), (2 * t + 2 * t**2).sqrt()),
            "your f is the slope of alpha; by (1.11) it is the slope of log alpha.",
        ),
        Wrong(
            lambda t: (_line(t)[0], (2 * t).sqrt()),
            "your g² is the whole growth of σ²; the drift changes σ² as well, and g² makes up for that: see (1.10).",
        ),
        Wrong(
            lambda t: (_line(t)[0], (2 * t - 2 * t**2 / (1 - t)).sqrt()),
            "the drift's part of g² has the wrong sign: here the drift shrinks σ², so more noise has to flow in.",
        ),
        Wrong(
            lambda t: (_line(t)[0], (t / (1 - t)).sqrt()),
            "your g² is half of what it should be: λ is the logarithm of a ratio of powers, α² to σ².",
        ),
        Wrong(
            lambda t: (_line(t)[0], (2 / (t * (1 - t))).sqrt()),
            "your g² is minus the slope of λ alone: what else stands in (1.12)?",
        ),
    ],
)


# ---- all moments, with pen -------------------------------------------------------------------------------------


def _moments(values: Tensor, order: int) -> Tensor:
    """E z^0 ... E z^order of the uniform distribution on `values`."""
    return torch.stack([(values**k).mean() for k in range(order + 1)])


def _moment_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    f, d = -float(uniform(g, 0.3, 1.2)), float(uniform(g, 1.2, 2.0))
    for dtype, order in ((torch.float64, 4), (torch.float32, 3)):
        moments = _moments(uniform(g, -0.8, 1.4, 9), order).to(dtype)
        yield Case(f"{name_of(dtype)}, moments up to {order}", (moments, f, d))
    m, v = 0.5 * float(video(g, 1)), float(uniform(g, 0.3, 0.8))
    gaussian = torch.tensor([1.0, m, m**2 + v, m**3 + 3 * m * v, m**4 + 6 * m**2 * v + 3 * v**2], dtype=torch.float64)
    yield Case("a Gaussian", (gaussian, f, d))
    yield Case("mean and square only", (_moments(video(g, 5), 2), f, d))
    yield Case("no drift", (_moments(uniform(g, -0.8, 1.4, 9), 6), 0.0, d))
    yield Case("no noise, growing", (_moments(uniform(g, -0.8, 1.4, 9), 5), -f, 0.0))


def _rates(moments: Tensor, f: float, g: float) -> Tensor:
    rates = [0 * moments[0], f * moments[1]]
    for k in range(2, len(moments)):
        rates.append(k * f * moments[k] + k * (k - 1) * g**2 * moments[k - 2] / 2)
    return torch.stack(rates)


def _rates_with(
    second: Callable[..., Any], first: Callable[..., Any] = lambda k, m, f: k * f * m
) -> Callable[..., Tensor]:
    """first: (k, m, f) -> drift's part; second: (k, m_k, m_{k-1}, m_{k-2}, g) -> noise's part."""

    def answer(moments: Tensor, f: float, g: float) -> Tensor:
        k = torch.arange(len(moments), dtype=moments.dtype)
        one, two = (torch.cat([0 * moments[:n], moments[:-n]]) for n in (1, 2))
        return first(k, moments, f) + second(k, moments, one, two, g)

    return answer


moment_rates = Check(
    "moment_rates",
    _rates,
    _moment_cases,
    [
        Wrong(
            _rates_with(lambda k, m, one, two, g: 0 * m),
            "this is ordinary calculus: the second derivative of z^k, and with it the noise, is missing; see (1.5).",
        ),
        Wrong(
            _rates_with(lambda k, m, one, two, g: k * (k - 1) * g**2 * two),
            "the noise's part is twice too large: Taylor's second term has a factor.",
        ),
        Wrong(
            _rates_with(lambda k, m, one, two, g: k * (k - 1) / 2 * g * two),
            "your noise enters with g; a squared step (g dw)² has g squared.",
        ),
        Wrong(
            _rates_with(lambda k, m, one, two, g: k**2 / 2 * g**2 * two),
            "the second derivative of z^k does not have the factor k²: differentiate twice, slowly.",
        ),
        Wrong(
            _rates_with(lambda k, m, one, two, g: k * (k - 1) / 2 * g**2 * one),
            "you feed the k-th moment from the one just below it; the second derivative of z^k has another power.",
        ),
        Wrong(
            _rates_with(lambda k, m, one, two, g: k * (k - 1) / 2 * g**2 * m),
            "that would be noise proportional to z; here g is the same for every z, so two powers of z are lost.",
        ),
        Wrong(
            _rates_with(lambda k, m, one, two, g: k * (k - 1) / 2 * g**2 * two, lambda k, m, f: f * m),
            "the drift acts on every one of the k factors of z^k, not on one of them.",
        ),
    ],
)


# ---- sub-VP with a power, with pen -----------------------------------------------------------------------------


def _power_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    p = float(uniform(g, 0.6, 0.9))
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, p = {p:.2f}", (uniform(g, 0.5, 8.0, 6).to(dtype), uniform(g, 0.2, 2.0, 6).to(dtype), p)
        )
    yield Case("p = 1/2 (VP)", (uniform(g, 0.5, 8.0, 2, 3), uniform(g, 0.1, 3.0, 2, 3), 0.5))
    yield Case("p = 1 (sub-VP)", (uniform(g, 0.5, 8.0, 4), uniform(g, 0.1, 3.0, 4), 1.0))
    yield Case("p = 2", (uniform(g, 0.5, 8.0, 4), uniform(g, 0.1, 3.0, 4), 2.0))
    yield Case("t = 0, p = 1", (uniform(g, 0.5, 8.0), torch.tensor(0.0, dtype=torch.float64), 1.0))
    yield Case("t = 0, p = 1/2", (uniform(g, 0.5, 8.0), torch.tensor(0.0, dtype=torch.float64), 0.5))


def _power(beta: Tensor, integral: Tensor, p: float) -> Tensor:
    u = torch.exp(-integral)
    grown = 2 * p * (1 - u) ** (2 * p - 1) * u * beta  # (sigma^2)'
    return (grown + beta * (1 - u) ** (2 * p)).sqrt()


def _powered(square: Callable[[Tensor, float], Tensor], root: bool = True) -> Callable[..., Tensor]:
    """square: (u, p) -> g² / beta."""
    return lambda beta, integral, p: (beta * square(torch.exp(-integral), p)) ** (0.5 if root else 1)


power_diffusion = Check(
    "power_diffusion",
    _power,
    _power_cases,
    [
        Wrong(
            _powered(lambda u, p: (1 - u) ** (2 * p) + 2 * p * u * (1 - u) ** (2 * p - 1), root=False),
            "this is g²; g itself was asked for.",
        ),
        Wrong(
            _powered(lambda u, p: (1 - u) ** p + p * u * (1 - u) ** (p - 1)),
            "you took σ² for (1 − α²)^p; that is σ, and (1.10) is about its square.",
        ),
        Wrong(_powered(lambda u, p: 1 - u**2), "this is the diffusion of sub-VP itself, whatever p is."),
        Wrong(
            _powered(lambda u, p: 2 * p * u * (1 - u) ** (2 * p - 1)),
            "your g² is the growth of σ² alone; the drift removes variance meanwhile, which g² has to replace.",
        ),
        Wrong(
            _powered(lambda u, p: 2 * p * u * (1 - u) ** (2 * p - 1) - (1 - u) ** (2 * p)),
            "the drift's part of g² has the wrong sign: f is negative, it takes variance away.",
        ),
        Wrong(
            _powered(lambda u, p: (1 - u) ** (2 * p) + 2 * p * (1 - u) ** (2 * p - 1)),
            "when you differentiate σ², the inner derivative is that of α²: how fast does α² fall?",
        ),
        Wrong(
            lambda beta, integral, p: _power(beta, integral / 2, p), "you took exp(−½∫β) for α²; by (1.16) that is α."
        ),
    ],
)
