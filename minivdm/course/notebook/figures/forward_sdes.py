r"""Lesson 01: Brownian motion, paths of linear SDEs, and how far Euler-Maruyama is from them.

Every drawing is a pure function of its arguments. The simulators work in float64 on the CPU, on paths of
shape (steps + 1, paths).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core.gaussian import expand
from minivdm.core.schedules import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule
from minivdm.course.notebook.style import colors, figure


def seeded(seed: int) -> torch.Generator:
    """A seeded generator on the CPU."""
    return torch.Generator().manual_seed(int(seed))


# ---- simulators --------------------------------------------------------------------------------------------


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
    """Errors at t = 1 for each number of steps, (n,), float64."""

    strong: Tensor
    weak: Tensor


def geometric_errors(
    steps: Sequence[int], mu: float = -1.0, nu: float = 1.0, paths: int = 4000, seed: int = 0
) -> Errors:
    """Euler-Maruyama on dz = mu z dt + nu z dw from z = 1, against exp((mu - nu^2 / 2) t + nu w_t).

    strong: mean of |z - exact| over paths that share the Brownian motion. weak: |E z - e^mu|, where E z =
    (1 + mu / steps)^steps is known exactly.
    """
    w = brownian(max(steps), paths, seeded(seed))
    exact = torch.exp(mu - nu**2 / 2 + nu * w[-1])
    strong = []
    for n in steps:
        z = torch.ones(paths, dtype=torch.float64)
        for dw in _coarse(w, n).diff(dim=0):
            z = z + mu * z / n + nu * z * dw
        strong.append((z - exact).abs().mean())
    weak = [abs((1 + mu / n) ** n - math.exp(mu)) for n in steps]
    return Errors(torch.stack(strong), torch.tensor(weak, dtype=torch.float64))


def linear_errors(steps: Sequence[int], schedule: Schedule, paths: int = 4000, seed: int = 0) -> Errors:
    """Euler-Maruyama on a schedule's SDE from z_0 = 1, against z_1 = alpha_1 (1 + integral of (g / alpha) dw).

    The integral is summed on a grid 16 times finer than the finest of `steps`, so that its own error, which
    is of first order, stays small beside theirs. weak: |variance - sigma_1^2|, exact.
    """
    fine = 16 * max(steps)
    times = torch.linspace(0, 1, fine + 1, dtype=torch.float64)
    w = brownian(fine, paths, seeded(seed))
    middle = (times[1:] + times[:-1]) / 2
    weight = schedule.diffusion(middle) / schedule.alpha(middle)
    one = torch.tensor(1.0, dtype=torch.float64)
    exact = schedule.alpha(one) * (1 + weight @ w.diff(dim=0))
    start = torch.ones(paths, dtype=torch.float64)
    strong = [
        (euler_maruyama(start, _coarse(w, n), schedule, _coarse(times, n))[-1] - exact).abs().mean() for n in steps
    ]
    variance = schedule.sigma(one) ** 2
    weak = [(euler_moments(schedule, n).variance[-1] - variance).abs() for n in steps]
    return Errors(torch.stack(strong), torch.stack(weak))


def order(steps: Sequence[int], errors: Tensor) -> float:
    """The exponent p of error = constant x steps^-p, by least squares in the logarithms."""
    x, y = torch.tensor(steps, dtype=torch.float64).log(), errors.log()
    x = x - x.mean()
    return float(-(x * y).sum() / (x * x).sum())


def _coarse(fine: Tensor, steps: int) -> Tensor:
    stride, rest = divmod(len(fine) - 1, steps)
    if rest:
        raise ValueError(f"expected a number of steps that divides {len(fine) - 1}, got {steps}")
    return fine[::stride]


# ---- drawings ----------------------------------------------------------------------------------------------


def draw_brownian(steps: int = 1000, paths: int = 12, seed: int = 0) -> Figure:
    """A few paths under the curves +-2 sqrt(t), and the running sum of one path's squared steps."""
    w = brownian(steps, 400, seeded(seed))
    t = torch.linspace(0, 1, steps + 1)
    fig, (left, right) = figure(1, 2, width=8.8, height=3.0, width_ratios=[1.3, 1])
    stride = max(1, steps // 250)  # finer than this would not show
    left.plot(t[::stride], w[::stride, 1 : 1 + paths], color=colors.data, lw=0.8, alpha=0.7)
    for sign in (-2, 2):
        left.plot(t, sign * t.sqrt(), color=colors.exact, lw=1.2, ls="--")
    left.set(xlabel="$t$", ylabel="$w_t$", title=f"{paths} paths; 95 % lie between the dashes")
    for n in (10, 100, 1000):
        if steps % n == 0:
            total = _coarse(w, n).diff(dim=0)[:, 0].square().cumsum(0)
            right.plot(torch.linspace(0, 1, n + 1), torch.cat([torch.zeros(1), total]), lw=1.4, label=f"{n} steps")
    right.plot([0, 1], [0, 1], color=colors.exact, lw=1.2, ls="--")
    right.set(xlabel="$t$", ylabel=r"$\sum(\Delta w)^2$", title="One path: squared steps, summed")
    right.legend()
    return fig


def process(name: str, beta_max: float = 20.0) -> Schedule:
    """VP or sub-VP with beta from 0.1 to `beta_max`, or VE from 0.01 to 10."""
    if name == "VE":
        return VESchedule(0.01, 10.0)
    kinds = {"VP": LinearSchedule, "sub-VP": SubVPSchedule}
    if name not in kinds:
        raise ValueError(f"expected VP, sub-VP or VE, got {name!r}")
    return kinds[name](min(0.1, beta_max), beta_max)


def draw_paths(beta_max: float = 20.0, kind: str = "VP", x: float = 1.5, seed: int = 0) -> Figure:
    """Paths of one SDE from two points, the band alpha x +- 2 sigma, and where the paths end."""
    schedule = process(kind, beta_max)
    steps, each = 250, 300
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    start = torch.tensor([x, -x], dtype=torch.float64).repeat_interleave(each)
    z = simulate(schedule, start, steps, seeded(seed))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    fig, (left, right) = figure(1, 2, width=6.4, height=3.0, width_ratios=[3.2, 1], sharey=True)
    ends = torch.linspace(float(z[-1].min()) - 1, float(z[-1].max()) + 1, 200, dtype=torch.float64)
    density = torch.zeros_like(ends)
    for group, (point, color) in enumerate(((x, colors.data), (-x, colors.eps))):
        columns = slice(group * each, group * each + 8)
        left.plot(t, z[:, columns], color=color, lw=0.6, alpha=0.7)
        left.fill_between(t, alpha * point - 2 * sigma, alpha * point + 2 * sigma, color=color, alpha=0.15, lw=0)
        left.plot(t, alpha * point, color=color, lw=2)
        last = (ends - alpha[-1] * point) / sigma[-1]
        density = density + torch.exp(-(last**2) / 2) / (2 * math.sqrt(2 * math.pi) * sigma[-1])
    right.hist(z[-1].numpy(), bins=30, density=True, orientation="horizontal", color=colors.noise, alpha=0.6)
    right.plot(density, ends, color=colors.exact, lw=1.5)
    left.set(xlabel="$t$", ylabel="$z_t$", title=f"{kind}: $\\alpha_1$ = {float(alpha[-1]):.2g}")
    right.set(title="ends, $t=1$", xticks=[])
    return fig


def draw_orders(steps: Sequence[int], geometric: Errors, linear: Errors) -> Figure:
    """Strong and weak errors against the number of steps, both axes logarithmic."""
    fig, axes = figure(1, 2, width=8.4, height=3.2, sharex=True)
    titles = ("noise grows with $z$:  $dz=\\mu z\\,dt+\\nu z\\,dw$", "diffusion:  $dz=f(t)z\\,dt+g(t)\\,dw$")
    for ax, errors, title in zip(axes, (geometric, linear), titles, strict=True):
        for name, values, color in (
            ("strong", errors.strong, colors.eps),
            ("weak", errors.weak, colors.data),
        ):
            label = f"{name}: order {order(steps, values):.2f}"
            ax.loglog(steps, values, "o-", color=color, label=label)
        ax.set(xlabel="steps", title=title)
        ax.set_xticks(list(steps), [str(n) for n in steps], minor=False)
        ax.minorticks_off()
        ax.legend()
    axes[0].set_ylabel("error at $t=1$")
    return fig


def draw_families(beta_max: float = 20.0) -> Figure:
    """alpha, sigma, and g of VP, sub-VP and VE."""
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    fig, axes = figure(1, 3, width=9.6, height=2.9)
    for kind, color, dashes in (
        ("VP", colors.data, "-"),
        ("sub-VP", colors.v, "--"),
        ("VE", colors.eps, "-"),
    ):
        schedule = process(kind, beta_max)
        for ax, values in zip(axes, (schedule.alpha(t), schedule.sigma(t), schedule.diffusion(t)), strict=True):
            ax.plot(t, values, dashes, color=color, label=kind)
    for ax, title in zip(axes, (r"signal $\alpha_t$", r"noise $\sigma_t$", "diffusion $g(t)$"), strict=True):
        ax.set(xlabel="$t$", title=title)
    axes[1].set_yscale("log")
    axes[1].set_ylim(1e-3, 20)
    axes[2].set_yscale("log")
    axes[2].set_ylim(1e-2, 60)
    axes[0].legend()
    return fig


def draw_moments(schedules: dict[str, Schedule], simulated: dict[str, Tensor], x: float) -> Figure:
    """Simulated mean and standard deviation (dots, bars of two standard errors) over the closed form (lines)."""
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    fig, axes = figure(1, 2, width=8.4, height=3.0)
    palette = ((colors.data, "-"), (colors.v, "--"), (colors.eps, "-"), (colors.z, "-"))
    for (name, schedule), (color, dashes) in zip(schedules.items(), palette, strict=False):
        z = simulated[name]
        mean, spread, n = z.mean(1), z.std(1), z.shape[1]
        marks = torch.linspace(0, 1, len(z), dtype=torch.float64)
        axes[0].plot(t, schedule.alpha(t) * x, dashes, color=color, label=name)
        axes[0].errorbar(marks, mean, 2 * spread / n**0.5, fmt="o", color=color, capsize=2)
        axes[1].plot(t, schedule.sigma(t), dashes, color=color)
        axes[1].errorbar(marks, spread, 2 * spread / (2 * n) ** 0.5, fmt="o", color=color, capsize=2)
    axes[0].set(xlabel="$t$", title=r"mean of $z_t$ given $x$: line $\alpha_t x$")
    axes[1].set(xlabel="$t$", title=r"standard deviation: line $\sigma_t$", yscale="log", ylim=(8e-3, 20))
    axes[0].legend()
    return fig


def draw_last_step(steps: int = 100, log_snr_min: float = -20.0) -> Figure:
    """The variance that Euler-Maruyama has on the cosine schedule, near t = 1, against the exact one."""
    schedule = CosineSchedule(log_snr_min, 20.0)
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    fig, ax = figure(width=5.4, height=2.9)
    shown = slice(-min(steps, 25), None)
    ax.plot(t[shown], schedule.sigma(t)[shown] ** 2, color=colors.exact, label=r"$\sigma_t^2$")
    ax.plot(
        t[shown],
        euler_moments(schedule, steps).variance[shown],
        "o-",
        color=colors.eps,
        lw=1,
        label="Euler–Maruyama",
    )
    ax.set(xlabel="$t$", title=f"variance of $z_t$, last steps of {steps}", ylim=(0.9, 2.1))
    ax.legend(loc="upper left")
    return fig
