"""Checks of assignment 01: Brownian steps, linear SDEs, and the way between (f, g) and (alpha, sigma)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, ordered_pair, uniform, video

VP, SUB_VP, VE, COSINE = LinearSchedule(), SubVPSchedule(), VESchedule(0.02, 8.0), CosineSchedule()


def _grid(g: torch.Generator, steps: int, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Unequal times from `start` to `end`, (steps + 1,): each step at least a third of the longest."""
    lengths = uniform(g, 0.5, 1.5, steps).cumsum(0)
    return torch.cat([torch.zeros(1, dtype=torch.float64), lengths / lengths[-1]]) * (end - start) + start


# ---- Brownian motion at unequal times --------------------------------------------------------------------------


def _brownian_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, 6 unequal steps, 4 paths", (_grid(g, 6).to(dtype), video(g, 6, 4, dtype=dtype)))
    yield Case("equal steps, one path", (torch.linspace(0, 1, 9, dtype=torch.float64), video(g, 8, 1)))
    yield Case(
        "steps of very different length",
        (torch.tensor([0.0, 1e-4, 0.02, 0.5, 0.51], dtype=torch.float64), video(g, 4, 3)),
    )
    yield Case("one step", (_grid(g, 1, end=0.3), video(g, 1, 5)))


def _path(increments: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(increments[:1]), increments.cumsum(0)])


def _brownian(times: Tensor, noise: Tensor) -> Tensor:
    w = [torch.zeros_like(noise[0])]
    for before, after, eps in zip(times[:-1], times[1:], noise, strict=True):
        w.append(w[-1] + (after - before).sqrt() * eps)
    return torch.stack(w)


brownian_path = Check(
    "brownian_path",
    _brownian,
    _brownian_cases,
    [
        Wrong(
            lambda times, noise: _path(times.diff()[:, None] * noise),
            "your steps are too small: you scale the noise by the length of a step, which is the step's variance.",
        ),
        Wrong(
            lambda times, noise: _path(noise * (times[-1] / len(noise)) ** 0.5),
            "you give every step the same standard deviation, but these times are not equally far apart.",
        ),
        Wrong(
            lambda times, noise: _path(times[1:, None].sqrt() * noise),
            "each of your steps is as large as if it began at time 0: its variance is the time that passes in it.",
        ),
        Wrong(
            lambda times, noise: torch.cat([0 * noise[:1], times.diff().sqrt()[:, None] * noise]),
            "these are the increments, not the path: what is w at the end of the second step?",
        ),
        Wrong(
            lambda times, noise: _path(times.diff().sqrt()[:, None] * noise)[1:],
            "the first row is missing: there is one time more than there are steps, and w starts at 0.",
        ),
        Wrong(
            lambda times, noise: torch.cat([0 * noise[:1], times[1:, None].sqrt() * noise]),
            "each row alone has the right variance, but your rows are independent of each other; a path goes on from "
            "where it is.",
        ),
        Wrong(
            lambda times, noise: torch.cat([0 * noise[:1], (times.diff().sqrt()[:, None] * noise).cumsum(-1)]),
            "you add up over the paths; time runs along the first axis.",
        ),
    ],
)


# ---- one step of Euler-Maruyama --------------------------------------------------------------------------------


def _step_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g, 0.1, 0.8)
    dt = t - s
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, clips of 3 frames, VP", (video(g, dtype=dtype), s, dt, VP, video(g, dtype=dtype))
        )
    yield Case("points of a plane, VE", (video(g, 6, 2), s, dt, VE, video(g, 6, 2)))
    yield Case("one frame, cosine, a short step", (video(g, 1, 1, 1, 4, 4), t, 1e-3, COSINE, video(g, 1, 1, 1, 4, 4)))
    yield Case("sub-VP from t = 0", (video(g), 0.0, dt, SUB_VP, video(g)))


def _euler(z: Tensor, t: float, dt: float, schedule: Schedule, noise: Tensor) -> Tensor:
    mean = z * (1 + dt * float(schedule.drift(t)))
    return mean + float((schedule.diffusion(t) ** 2 * dt).sqrt()) * noise


euler_maruyama_step = Check(
    "euler_maruyama_step",
    _euler,
    _step_cases,
    [
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t) * z * dt + sde.diffusion(t) * dt * eps,
            "your noise is multiplied by dt, so its variance is dt²: what is the variance of a Brownian step?",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t) * z * dt + sde.diffusion(t) * eps,
            "your noise is as large whatever dt is: a Brownian step depends on the time it takes.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z - sde.drift(t) * z * dt + sde.diffusion(t) * dt**0.5 * eps,
            "the sign of your drift is wrong: f carries its own sign, and the equation adds f z dt.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t) * dt + sde.diffusion(t) * dt**0.5 * eps,
            "your drift does not depend on z: f is a rate, and a pixel fades in proportion to what it has.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t + dt) * z * dt + sde.diffusion(t + dt) * dt**0.5 * eps,
            "you read f and g at the end of the step; this scheme, as Itô's sums do, reads them where it begins.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t) * z * dt + sde.diffusion(t) ** 2 * dt**0.5 * eps,
            "you multiply the noise by g²: that is a rate of variance, and noise is scaled by a standard deviation.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: sde.drift(t) * z * dt + sde.diffusion(t) * dt**0.5 * eps,
            "this is dz, the change in the step; return the state after it.",
        ),
    ],
)


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


# ---- the solution, along a path --------------------------------------------------------------------------------


def _solution_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    start, _ = ordered_pair(g, 0.1, 0.9)
    for name, schedule, first, last, paths in (
        ("VP, 4 paths", LinearSchedule(0.1, 8.0), 0.0, 1.0, 4),
        ("sub-VP, from a later time", SUB_VP, start, 0.9, 3),
        ("VE, one path", VE, 0.0, 1.0, 1),
        ("cosine, up to t = 0.9", COSINE, 0.0, 0.9, 2),
    ):
        times = _grid(g, 7, first, last)
        yield Case(name, (video(g, paths), _brownian(times, video(g, 7, paths)), times, schedule))


def _solution(z: Tensor, w: Tensor, times: Tensor, schedule: Schedule) -> Tensor:
    weight = schedule.diffusion(times) / schedule.alpha(times)
    rows = []
    for k, alpha in enumerate(schedule.alpha(times)):
        rows.append(alpha * z / schedule.alpha(times[0]) + alpha * (weight[:k] @ w[: k + 1].diff(dim=0)))
    return torch.stack(rows)


def _variant(sums: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """sums: (alpha, g, dw, z) -> the answer; alpha and g are (n + 1, 1)."""

    def answer(z: Tensor, w: Tensor, times: Tensor, schedule: Schedule) -> Tensor:
        return sums(schedule.alpha(times)[:, None], schedule.diffusion(times)[:, None], w.diff(dim=0), z)

    return answer


def _integral(weight: Tensor, dw: Tensor) -> Tensor:
    return _path(weight[:-1] * dw)


solution_along_a_path = Check(
    "solution_along_a_path",
    _solution,
    _solution_cases,
    [
        Wrong(
            _variant(lambda a, g, dw, z: a * (z / a[0] + _path((g / a)[1:] * dw))),
            "you read g/α at the right end of each step; Itô's sums read it at the left end.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * (z / a[0] + _path(((g / a)[1:] + (g / a)[:-1]) / 2 * dw))),
            "you average g/α over both ends of a step; that is not Itô's convention.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * z / a[0] + _integral(g, dw)),
            "your noise never fades: what arrived early has been scaled by the drift ever since, as the signal has.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * z / a[0] + a * _integral(g, dw)),
            "noise that arrives at τ fades only from τ on; yours fades as if all of it had been there from time 0.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * (z + _integral(g / a, dw))),
            "you scale the start by α_t, but at the first time z has faded already; only what came after counts.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * (z / a[0] + torch.cat([0 * dw[:1], (g / a)[:-1] * dw]))),
            "your integral holds the last step alone; it runs over all steps up to t.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: z / a[0] + _integral(g / a, dw)),
            "this is y = z/α of the derivation; multiply by α at the same time to have z again.",
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
