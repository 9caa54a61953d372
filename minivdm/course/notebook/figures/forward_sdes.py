"""The pictures of lesson 01: noise there and back, Brownian paths, three families, two kinds of error.

Every drawing is a pure function of its arguments; the paths come from `sde_paths`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule
from minivdm.course.notebook.figures import sde_paths as sde
from minivdm.course.notebook.style import colors, figure


def process(name: str, beta_max: float = 20.0) -> Schedule:
    """VP or sub-VP with beta from 0.1 to `beta_max`, or VE from 0.01 to 10.

    Raises:
        ValueError: another name.
    """
    if name == "VE":
        return VESchedule(0.01, 10.0)
    kinds = {"VP": LinearSchedule, "sub-VP": SubVPSchedule}
    if name not in kinds:
        raise ValueError(f"expected VP, sub-VP or VE, got {name!r}")
    return kinds[name](min(0.1, beta_max), beta_max)


def draw_there_and_back(beta_max: float = 8.0, x: float = 1.5, seed: int = 0) -> Figure:
    """Two data points become noise (left); fresh noise becomes data by the reverse SDE (right)."""
    schedule, steps, paths = LinearSchedule(0.1, beta_max), 500, 600
    times = torch.linspace(1e-3, 1, steps + 1, dtype=torch.float64)
    start = torch.tensor([x, -x], dtype=torch.float64).repeat_interleave(paths // 2)
    forward = sde.simulate(schedule, start, steps, sde.seeded(seed))
    noise = torch.randn(paths, generator=sde.seeded(seed + 1), dtype=torch.float64)
    back = sde.reverse(noise, times, schedule, sde.two_point_score(schedule, x), sde.seeded(seed + 2))
    fig, axes = figure(1, 4, width=9.0, height=3.3, width_ratios=[4, 0.8, 4, 0.8], sharey=True)
    blue, orange = colors.data, colors.eps
    for k in range(5):
        for column, color in ((k, blue), (paths // 2 + k, orange)):
            axes[0].plot(times[::2], forward[::2, column], color=color, lw=0.7, alpha=0.8)
    for k in range(10):  # coloured by where they end
        axes[2].plot(1 - times[::2], back[::2, k], color=blue if back[0, k] > 0 else orange, lw=0.7, alpha=0.8)
    for ax, ends in ((axes[1], forward[-1]), (axes[3], back[0])):
        ax.hist(ends.numpy(), bins=48, range=(-3.2, 3.2), density=True, orientation="horizontal", color=colors.noise)
        ax.set(xticks=[], title="ends")
    axes[0].set(xlabel="time $t$, from data to noise", ylabel="$z_t$", ylim=(-3.4, 3.4), title="Forward: known, easy")
    axes[2].set(xlabel="time $t$, from noise to data", title="Backward: what we are after")
    axes[2].set_xticks([0, 0.5, 1], ["1", "0.5", "0"])
    return fig


def draw_brownian(w: Tensor, shown: int = 12) -> Figure:
    """Paths under the curves +-2 sqrt(t), and the running sums of the squared steps of the first path.

    Args:
        w: Brownian paths on [0, 1], (steps + 1, paths); path 0 is the thick one.
        shown: how many of them to draw.
    """
    steps = len(w) - 1
    t = torch.linspace(0, 1, steps + 1)
    fig, (left, right) = figure(1, 2, width=8.6, height=3.3, width_ratios=[1.25, 1])
    stride = max(1, steps // 500)  # finer than this would not show
    left.plot(t[::stride], w[::stride, 1:shown], color=colors.data, lw=0.7, alpha=0.6)
    left.plot(t[::stride], w[::stride, 0], color=colors.eps, lw=1.4, label="path 0")
    for sign in (-2, 2):
        left.plot(
            t, sign * t.sqrt(), color=colors.exact, lw=1.2, ls="--", label=r"$\pm2\sqrt{t}$" if sign > 0 else None
        )
    left.set(xlabel="$t$", ylabel="$w_t$", title=f"{shown} Brownian paths")
    left.legend(loc="upper left")
    for n, color in ((10, colors.v), (100, colors.z), (1000, colors.data)):
        if steps % n == 0:
            total = sde.coarse(w, n).diff(dim=0)[:, 0].square().cumsum(0)
            label = f"{n} steps"
            right.plot(
                torch.linspace(0, 1, n + 1), torch.cat([torch.zeros(1), total]), color=color, lw=1.4, label=label
            )
    right.plot([0, 1], [0, 1], color=colors.exact, lw=1.2, ls="--", label="$t$")
    right.set(xlabel="$t$", ylabel=r"sum of $(\Delta w)^2$ up to $t$", title="Path 0: its squared steps, summed")
    right.legend()
    return fig


def draw_paths(beta_max: float = 20.0, kind: str = "VP", x: float = 1.5, seed: int = 0) -> Figure:
    """Paths of one SDE from two points, the band alpha x +- 2 sigma, and where the paths end."""
    schedule = process(kind, beta_max)
    steps, each = 250, 300
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    start = torch.tensor([x, -x], dtype=torch.float64).repeat_interleave(each)
    z = sde.simulate(schedule, start, steps, sde.seeded(seed))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    fig, (left, right) = figure(1, 2, width=7.4, height=3.6, width_ratios=[3.2, 1], sharey=True)
    ends = torch.linspace(float(z[-1].min()) - 1, float(z[-1].max()) + 1, 200, dtype=torch.float64)
    density = torch.zeros_like(ends)
    for group, (point, color) in enumerate(((x, colors.data), (-x, colors.eps))):
        columns = slice(group * each, group * each + 4)
        left.plot(t[::2], z[::2, columns], color=color, lw=0.6, alpha=0.7)
        band = r"$\alpha_tx\pm2\sigma_t$" if group == 0 else None
        low, high = alpha * point - 2 * sigma, alpha * point + 2 * sigma
        left.fill_between(t, low, high, color=color, alpha=0.15, lw=0, label=band)
        left.plot(t, alpha * point, color=color, lw=2, label=r"mean $\alpha_tx$" if group == 0 else None)
        last = (ends - alpha[-1] * point) / sigma[-1]
        density = density + torch.exp(-(last**2) / 2) / (2 * math.sqrt(2 * math.pi) * sigma[-1])
    right.hist(z[-1].numpy(), bins=30, density=True, orientation="horizontal", color=colors.noise, alpha=0.6)
    right.plot(density, ends, color=colors.exact, lw=1.5, label="exact")
    right.legend(loc="upper right", fontsize=9)
    name = kind if kind == "VE" else f"{kind}, $\\beta_{{\\max}}$ = {beta_max:g}"
    left.set(xlabel="$t$", ylabel="$z_t$", title=f"{name}: $\\alpha_1$ = {float(alpha[-1]):.2g}")
    left.legend(loc="upper left", fontsize=9)
    right.set(title="ends", xticks=[])
    return fig


def draw_orders(steps: Sequence[int], diffusion: sde.Errors, geometric: sde.Errors) -> Figure:
    """Strong and weak errors of the mean against the number of steps, both axes logarithmic, with slopes to compare."""
    fig, axes = figure(1, 2, width=8.6, height=3.5, sharex=True, sharey=True)
    titles = ("diffusion:  $dz=f(t)z\\,dt+g(t)\\,dw$", "noise grows with $z$:  $dz=\\mu z\\,dt+\\nu z\\,dw$")
    n = torch.tensor([float(s) for s in steps])
    for ax, errors, title in zip(axes, (diffusion, geometric), titles, strict=True):
        for name, values, color in (("strong", errors.strong, colors.eps), ("weak", errors.weak, colors.data)):
            ax.loglog(steps, values, "o-", color=color, label=f"{name}: order {sde.order(steps, values):.2f}")
        for power, dashes in ((0.5, ":"), (1.0, "--")):
            line = 2 * errors.strong[0] * (n / n[0]) ** -power
            ax.loglog(steps, line, dashes, color=colors.noise, lw=1.2, label=f"slope of order {power:g}")
        ax.set(xlabel="steps", title=title)
        ax.set_xticks(list(steps), [str(s) for s in steps], minor=False)
        ax.minorticks_off()
        ax.legend(loc="lower left", fontsize=9)
    axes[0].set_ylabel("error at $t=1$")
    return fig


def draw_families(beta_max: float = 20.0) -> Figure:
    """alpha, sigma, and g of VP, sub-VP and VE."""
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    fig, axes = figure(1, 3, width=8.6, height=3.1)
    for kind, color, dashes in (("VP", colors.data, "-"), ("sub-VP", colors.v, "--"), ("VE", colors.eps, "-")):
        schedule = process(kind, beta_max)
        for ax, values in zip(axes, (schedule.alpha(t), schedule.sigma(t), schedule.diffusion(t)), strict=True):
            ax.plot(t, values, dashes, color=color, label=kind)
    for ax, title in zip(
        axes, (r"signal $\alpha_t$", r"noise $\sigma_t$, log scale", "$g(t)$, log scale"), strict=True
    ):
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
    fig, axes = figure(1, 2, width=8.6, height=3.2)
    palette = ((colors.data, "-"), (colors.v, "--"), (colors.eps, "-"), (colors.z, "-"))
    for (name, schedule), (color, dashes) in zip(schedules.items(), palette, strict=False):
        z = simulated[name]
        mean, spread, n = z.mean(1), z.std(1), z.shape[1]
        marks = torch.linspace(0, 1, len(z), dtype=torch.float64)
        axes[0].plot(t, schedule.alpha(t) * x, dashes, color=color, label=name)
        axes[0].errorbar(marks, mean, 2 * spread / n**0.5, fmt="o", color=color, capsize=2)
        axes[1].plot(t, schedule.sigma(t), dashes, color=color)
        axes[1].errorbar(marks, spread, 2 * spread / (2 * n) ** 0.5, fmt="o", color=color, capsize=2)
    axes[0].set(xlabel="$t$", title=r"mean of $z_t$ $\pm$ 2 standard errors; lines: $\alpha_t x$")
    axes[1].set(xlabel="$t$", title=r"standard deviation; lines: $\sigma_t$", yscale="log", ylim=(8e-3, 20))
    axes[0].legend()
    return fig


def draw_last_step(steps: int = 100, log_snr_min: float = -20.0) -> Figure:
    """The variance that Euler-Maruyama has on the cosine schedule, near t = 1, against the exact one."""
    schedule = CosineSchedule(log_snr_min, 20.0)
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    fig, ax = figure(width=6.4, height=3.1)
    shown = slice(-min(steps, 25), None)
    ax.plot(t[shown], schedule.sigma(t)[shown] ** 2, color=colors.exact, label=r"exact, $\sigma_t^2$")
    variance = sde.euler_moments(schedule, steps).variance[shown]
    ax.plot(t[shown], variance, "o-", color=colors.eps, lw=1, label="Euler–Maruyama")
    ax.set(xlabel="$t$", title=f"Variance of $z_t$ in the last of {steps} steps", ylim=(0.9, 2.1))
    ax.legend(loc="upper left")
    return fig
