r"""Paths of linear SDEs, for lesson 01: Brownian motion, Euler-Maruyama there and back, and how far it errs.

Everything runs in float64 on the CPU, on paths of shape (steps + 1, paths). The drawings are in `forward_sdes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minivdm.core import Schedule, expand


def seeded(seed: int) -> torch.Generator:
    """A seeded generator on the CPU."""
    return torch.Generator().manual_seed(int(seed))


def brownian(steps: int, paths: int, generator: torch.Generator | None = None) -> Tensor:
    """Brownian paths on [0, 1] at equal steps, (steps + 1, paths): sums of independent N(0, 1 / steps)."""
    increments = torch.randn(steps, paths, generator=generator, dtype=torch.float64) / math.sqrt(steps)
    return torch.cat([torch.zeros(1, paths, dtype=torch.float64), increments.cumsum(0)])


def euler_maruyama(z: Tensor, w: Tensor, schedule: Schedule, times: Tensor) -> Tensor:
    """The SDE dz = f z dt + g dw, stepped along a given Brownian path: z at all times.

    z: (b, ...), the state at times[0]. w: (steps + 1, b, ...), Brownian motion at the `times` (steps + 1,).
    """
    path = [z]
    for k, dt in enumerate(times.diff()):
        f, g = schedule.drift(times[k]), schedule.diffusion(times[k])  # both at the step's left end
        z = z + f * z * dt + g * (w[k + 1] - w[k])
        path.append(z)
    return torch.stack(path)


def simulate(schedule: Schedule, x: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Paths (steps + 1, b, ...) from z_0 = alpha_0 x + sigma_0 eps through all of [0, 1]."""
    x = x.to(torch.float64)
    start = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    w = brownian(steps, x.numel(), generator).reshape(steps + 1, *x.shape)
    zero = torch.zeros(1)
    z = expand(schedule.alpha(zero), x) * x + expand(schedule.sigma(zero), x) * start
    return euler_maruyama(z, w, schedule, torch.linspace(0, 1, steps + 1, dtype=torch.float64))


def reverse(
    z: Tensor,
    times: Tensor,
    schedule: Schedule,
    score: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Euler-Maruyama on dz = (f z - g^2 score) dt + g dw, run from the last of `times` to the first.

    Song et al. 2021, eq 6.

    Args:
        z: (b, ...), float64, the state at times[-1].
        times: (steps + 1,), increasing.
        score: (z, t) -> grad log q_t(z), like z.

    Returns:
        The states at all times, (steps + 1, b, ...), in the order of `times`: the last one is the start.
    """
    path = [z]
    for t, s in zip(times.flip(0)[:-1], times.flip(0)[1:], strict=True):
        f, g = schedule.drift(t), schedule.diffusion(t)
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        z = z - (t - s) * (f * z - g**2 * score(z, t)) + (t - s).sqrt() * g * noise
        path.append(z)
    return torch.stack(path).flip(0)


def two_point_score(schedule: Schedule, x: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The score of q_t where the data are x or -x with equal odds: (alpha E[x | z] - z) / sigma^2.

    Both explanations of z have likelihoods in the ratio exp(2 alpha x z / sigma^2), so E[x | z] = x tanh(alpha x z /
    sigma^2).
    """

    def score(z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        mean = x * torch.tanh(alpha * x * z / sigma**2)  # E[x | z]
        return (alpha * mean - z) / sigma**2

    return score


class Moments(NamedTuple):
    """Mean and variance of a scalar latent at all times, (steps + 1,), float64."""

    mean: Tensor
    variance: Tensor


def euler_moments(schedule: Schedule, steps: int, x: float = 1.0) -> Moments:
    """Mean and variance that Euler-Maruyama has, exactly: its step is linear, so no sampling is needed."""
    dt = 1 / steps
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[:-1]
    kept = (1 + schedule.drift(times) * dt).tolist()
    fresh = (schedule.diffusion(times) ** 2 * dt).tolist()
    mean, variance = [float(schedule.alpha(0.0)) * x], [float(schedule.sigma(0.0)) ** 2]
    for a, b in zip(kept, fresh, strict=True):
        mean.append(a * mean[-1])
        variance.append(a * a * variance[-1] + b)
    return Moments(torch.tensor(mean, dtype=torch.float64), torch.tensor(variance, dtype=torch.float64))


class Errors(NamedTuple):
    """Errors at t = 1 for each number of steps, (n,), float64.

    strong: mean of |z - exact| over paths that share the Brownian motion. weak: |E z - E exact|, in closed form; the
    triangle inequality keeps it below the strong one.
    """

    strong: Tensor
    weak: Tensor


def geometric_errors(
    steps: Sequence[int], mu: float = -1.0, nu: float = 1.0, paths: int = 4000, seed: int = 0
) -> Errors:
    """Euler-Maruyama on dz = mu z dt + nu z dw from z = 1, against exp((mu - nu^2 / 2) t + nu w_t).

    The means are (1 + mu / steps)^steps and e^mu.
    """
    w = brownian(max(steps), paths, seeded(seed))
    exact = torch.exp(mu - nu**2 / 2 + nu * w[-1])
    strong = []
    for n in steps:
        z = torch.ones(paths, dtype=torch.float64)
        for dw in coarse(w, n).diff(dim=0):
            z = z + mu * z / n + nu * z * dw
        strong.append((z - exact).abs().mean())
    weak = [abs((1 + mu / n) ** n - math.exp(mu)) for n in steps]
    return Errors(torch.stack(strong), torch.tensor(weak, dtype=torch.float64))


def linear_errors(steps: Sequence[int], schedule: Schedule, paths: int = 4000, seed: int = 0) -> Errors:
    """Euler-Maruyama on a schedule's SDE from z_0 = 1, against z_1 = alpha_1 (1 + integral of (g / alpha) dw).

    The integral is summed on a grid 16 times finer than the finest of `steps`, so that its own error, which
    is of first order, stays small beside theirs. The means are that of the scheme and alpha_1.
    """
    fine = 16 * max(steps)
    times = torch.linspace(0, 1, fine + 1, dtype=torch.float64)
    w = brownian(fine, paths, seeded(seed))
    middle = (times[1:] + times[:-1]) / 2
    weight = schedule.diffusion(middle) / schedule.alpha(middle)
    one = torch.tensor(1.0, dtype=torch.float64)
    exact = schedule.alpha(one) * (1 + weight @ w.diff(dim=0))
    start = torch.ones(paths, dtype=torch.float64)
    strong = [(euler_maruyama(start, coarse(w, n), schedule, coarse(times, n))[-1] - exact).abs().mean() for n in steps]
    weak = [(euler_moments(schedule, n).mean[-1] - schedule.alpha(one)).abs() for n in steps]
    return Errors(torch.stack(strong), torch.stack(weak))


def order(steps: Sequence[int], errors: Tensor) -> float:
    """The exponent p of error = constant x steps^-p, by least squares in the logarithms."""
    x, y = torch.tensor(steps, dtype=torch.float64).log(), errors.log()
    x = x - x.mean()
    return float(-(x * y).sum() / (x * x).sum())


def coarse(fine: Tensor, steps: int) -> Tensor:
    """A path (n + 1, ...) on every (n / steps)-th of its times, (steps + 1, ...)."""
    stride, rest = divmod(len(fine) - 1, steps)
    if rest:
        raise ValueError(f"expected a number of steps that divides {len(fine) - 1}, got {steps}")
    return fine[::stride]
