"""Drawings of lesson 06a: samplers on a mixture on the line, whose flow is known exactly, and on the plane."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from minivdm.core import samplers
from minivdm.core.ode import DPMSolverPlusPlus2M, euler_step, heun_step
from minivdm.core.schedules import CosineSchedule, Schedule
from minivdm.course.notebook.picture import Picture, encode, render
from minivdm.course.notebook.style import colors, figure
from minivdm.exact import GaussianMixture

SAMPLERS = ["DDIM", "Euler", "Heun", "DPM-Solver++(2M)", "ancestral", "reverse SDE"]


@functools.cache
def line_world() -> GaussianMixture:
    """Three narrow, unequal bumps on the line."""
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([[-1.2], [0.3], [1.3]]), 0.15)


@functools.cache
def plane_world() -> GaussianMixture:
    """Three elongated clouds in the plane."""
    means = torch.tensor([[-1.2, -0.4], [0.9, -0.7], [0.3, 1.1]])
    covariances = [[[0.06, 0.03], [0.03, 0.04]], [[0.03, 0.0], [0.0, 0.09]], [[0.08, -0.04], [-0.04, 0.05]]]
    return GaussianMixture(torch.tensor([0.4, 0.35, 0.25]), means, torch.tensor(covariances, dtype=torch.float64))


@functools.cache
def lesson_schedule() -> CosineSchedule:
    """The noise of lessons 06a, 06b and 07."""
    return CosineSchedule(-12.0, 12.0)


def distribution(world: GaussianMixture, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """F_t(z), (b, 1): the share of a noised mixture on the line that lies below z (b, 1)."""
    std = (alpha**2 * world.covariances[:, 0, 0] + sigma**2).sqrt()  # (k,)
    return (world.weights * torch.special.ndtr((z - alpha * world.means[:, 0]) / std)).sum(1, keepdim=True)


def quantile_flow(
    world: GaussianMixture, schedule: Schedule, z: Tensor, t: Tensor | float, s: Tensor | float
) -> Tensor:
    """Where the probability-flow ODE carries z (b, 1) from t to s: the point with F_s = F_t(z), by bisection."""
    wanted = distribution(world, z, schedule.alpha(t), schedule.sigma(t))
    alpha, sigma = schedule.alpha(s), schedule.sigma(s)
    low, high = torch.full_like(z, -12.0), torch.full_like(z, 12.0)
    for _ in range(60):  # 24 / 2^60 is below float64's rounding
        middle = (low + high) / 2
        below = distribution(world, middle, alpha, sigma) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def make_step(sampler: str, eta: float = 0.0) -> Callable[..., Tensor]:
    """A step by the name a reader chooses; `eta` matters to DDIM alone."""
    steps: dict[str, Callable[..., Tensor]] = {
        "DDIM": functools.partial(samplers.ddim_step, eta=eta),
        "Euler": euler_step,
        "Heun": heun_step,
        "DPM-Solver++(2M)": DPMSolverPlusPlus2M(),
        "ancestral": samplers.ancestral_step,
        "reverse SDE": samplers.reverse_sde_step,
    }
    if sampler not in steps:
        raise ValueError(f"expected a sampler out of {SAMPLERS}, got {sampler!r}")
    return steps[sampler]


def even_quantiles(n: int) -> Tensor:
    """n points (n, 1) that stand for N(0, 1): the middles of n equally probable slices."""
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]


def visits(step: Callable[..., Tensor], steps: int, noise: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Times (steps + 1,) and the places (steps + 1, b, 1) that a sampler visits on the line, from `noise` (b, 1)."""
    schedule = lesson_schedule()
    visited = [noise]
    samplers.sample(
        line_world().denoiser(schedule),
        noise,
        steps,
        step=step,
        callback=lambda z, t: visited.append(z),
        generator=_seed(seed),
    )
    return samplers.uniform_in_t(steps, schedule), torch.stack(visited)


def walk(sampler: str, steps: int, eta: float, noise: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`visits` of a sampler by its name."""
    return visits(make_step(sampler, eta), steps, noise, seed)


def ends(step: Callable[..., Tensor], steps: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n random starts on the line (n, 1), and where a sampler takes them."""
    start = torch.randn(n, 1, generator=_seed(1000 + seed), dtype=torch.float64)
    return start, visits(step, steps, start, seed)[1][-1]


@functools.cache
def _backdrop() -> tuple[Tensor, Tensor, Tensor]:
    """The noised density over (t, z) as an image, and the true flow's lines (times, lines)."""
    world, schedule = line_world(), lesson_schedule()
    times = torch.linspace(1, 0, 161, dtype=torch.float64)
    z = torch.linspace(-2.6, 2.6, 200, dtype=torch.float64)[:, None]
    density = torch.stack([world.log_prob(z, schedule.alpha(t), schedule.sigma(t)).exp() for t in times], dim=1)
    lines = torch.stack([quantile_flow(world, schedule, even_quantiles(16), 1.0, t) for t in times])
    return density, times, lines[..., 0]


def flow_axes(axes: Axes, title: str) -> None:
    """Density and true flow over diffusion time, noise at the left and data at the right."""
    density, times, lines = _backdrop()
    z = torch.linspace(-2.6, 2.6, density.shape[0])
    axes.contourf(times, z, density.sqrt(), levels=9, cmap="Blues", vmax=1.6)  # few colours keep the picture small
    axes.plot(times, lines.numpy(), color=colors.exact, linewidth=0.7, alpha=0.55)
    axes.set(xlim=(1, 0), ylim=(-2.6, 2.6), xlabel="diffusion time $t$ (1 is noise)", ylabel="$z$", title=title)
    axes.grid(False)


def draw_flow(sampler: str, steps: int, eta: float) -> Figure:
    """A sampler's paths over the true flow, and the law of what it returns beside the true one."""
    world = line_world()
    fig, (left, right) = figure(1, 2, width=6.7, height=3.3, width_ratios=[2.2, 1])
    calls = 2 * steps - 1 if sampler == "Heun" else steps
    note = f", η = {eta:g}" if sampler == "DDIM" else ""
    flow_axes(left, f"{sampler}{note}: {steps} steps, {calls} calls")
    times, paths = walk(sampler, steps, eta, even_quantiles(16))
    left.plot(times, paths[..., 0].numpy(), color=colors.eps, linewidth=1.3, marker=".", markersize=4, alpha=0.9)

    found = walk(sampler, steps, eta, even_quantiles(1500)[torch.randperm(1500, generator=_seed(1))])[1][-1]
    edges = torch.linspace(-2.0, 2.0, 61)
    right.hist(
        found[:, 0].numpy(),
        bins=edges.tolist(),
        density=True,
        orientation="horizontal",
        color=colors.eps,
        alpha=0.45,
        label="returned",
    )
    x = torch.linspace(-2.0, 2.0, 300, dtype=torch.float64)[:, None]
    right.plot(world.log_prob(x).exp(), x[:, 0], color=colors.exact, linewidth=1.3, label="true")
    right.set(ylim=(-2.6, 2.6), xlim=(0, 2.6), xlabel="density", title=f"$W_1$ = {distance(found):.3f}")
    right.legend(loc="upper right")
    return fig


def _seed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def _true_quantiles(n: int) -> Tensor:
    return quantile_flow(line_world(), lesson_schedule(), even_quantiles(n), 1.0, 0.0)


def distance(found: Tensor) -> float:
    """1-Wasserstein distance from samples (n, 1) to the mixture on the line: mean distance of equal quantiles."""
    return float((found.sort(dim=0).values - _true_quantiles(len(found))).abs().mean())


def draw_paths(steps: Mapping[str, Callable[..., Tensor]], number: int = 250, seed: int = 0) -> Figure:
    """Paths of samplers over the densities that all of them share, a panel each. steps: title -> step."""
    fig, axes = figure(1, len(steps), width=8.2, height=3.3, sharey=True, squeeze=False)
    for ax, (title, step) in zip(axes[0], steps.items(), strict=True):
        flow_axes(ax, title)
        times, paths = visits(step, number, even_quantiles(9), seed)
        ax.plot(times, paths[..., 0].numpy(), linewidth=1.0, color=colors.eps, alpha=0.9)
        ax.set(xlabel="diffusion time $t$", ylabel="$z$" if ax is axes[0, 0] else "")
    return fig


def draw_rotation(t: float, s: float) -> Figure:
    """DDIM as a turn, Euler in the angle as a straight line: both in the plane of (x_hat, eps_hat)'s coefficients."""
    schedule = lesson_schedule()
    start, end = float(schedule.angle(t)), float(schedule.angle(s))
    turn = end - start
    fig, ax = figure(width=6.0, height=4.6)
    arc = torch.linspace(0, math.pi / 2, 100)
    ax.plot(arc.cos(), arc.sin(), color=colors.noise, linewidth=1)
    ax.text(1.02, 0.06, r"all $(\alpha, \sigma)$", color=colors.noise)
    z, v = (math.cos(start), math.sin(start)), (-math.sin(start), math.cos(start))
    turned, straight = (math.cos(end), math.sin(end)), (z[0] + turn * v[0], z[1] + turn * v[1])
    arrow = {"arrowstyle": "-|>", "lw": 2, "shrinkA": 0, "shrinkB": 0}  # so that tips touch what they mean
    for begin, tip, name, color in (
        ((0, 0), z, "$z_t$", colors.z),
        ((0, 0), turned, "$z_s$, turned (DDIM)", colors.x),
        (z, straight, r"straight, along $-\hat v$", colors.v),
    ):
        ax.annotate("", tip, begin, arrowprops=arrow | {"color": color})
        ax.text(tip[0] + 0.03, tip[1] + (0.03 if tip is z else -0.01), name, color=color)
    ax.set(
        xlim=(0, 1.55),
        ylim=(0, 1.15),
        xlabel=r"coefficient of $\hat x$",
        ylabel=r"coefficient of $\hat\epsilon$",
        aspect="equal",
        title=f"One step from t = {t:g} to s = {s:g}",
    )
    return fig


def draw_lines(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    log: str = "",
    exact: float | None = None,
    **labels: Any,
) -> Figure:
    """Named curves over common abscissas. log: "x", "y" or "xy"; exact: a level to mark; labels: for `Axes.set`."""
    fig, ax = figure(width=6.4, height=3.4)
    for name, values in lines.items():
        ax.plot(x, values, "o-", label=name)
    if exact is not None:
        ax.axhline(exact, color=colors.exact, linewidth=1, linestyle="--", label="exact")
    if "x" in log:
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(x), [f"{value:g}" for value in x])
        ax.minorticks_off()
    if "y" in log:
        ax.set_yscale("log")
    ax.set(**labels)
    ax.legend()
    return fig


def compact(fig: Figure, alt: str = "", colours: int = 96, dpi: float = 150) -> Picture:
    """The figure as a picture of few colours: a third of the bytes where a plane is shaded."""
    drawn = render(fig, alt, dpi)
    few = drawn.to_pil().convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    return Picture(encode(few), drawn.alt, drawn.width)


def sharp(draw: Callable[..., Figure], shows: str) -> Callable[..., Picture]:
    """A drawing for `nb.explore` whose stills keep the size of their letters. shows: for the alt text."""

    def picture(**values: Any) -> Picture:
        fig = draw(**values)
        titles = [axes.get_title("left") or axes.get_title() for axes in fig.axes]
        return compact(fig, f"{shows}: " + "; ".join(filter(None, titles)), dpi=192)

    return picture


def draw_clouds(clouds: Mapping[str, Tensor], limit: float = 2.2, cross: Tensor | None = None) -> Figure:
    """Points (n, 2) over the density of the plane's mixture, one panel a name. cross: a place (2,) to mark."""
    world = plane_world()
    fig, axes = figure(1, len(clouds), width=8.2, height=8.2 / len(clouds) + 0.4, sharey=True, squeeze=False)
    grid = torch.linspace(-limit, limit, 120, dtype=torch.float64)
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    density = world.log_prob(torch.stack([x.flatten(), y.flatten()], dim=1)).exp().reshape(x.shape)
    for ax, (name, points) in zip(axes[0], clouds.items(), strict=True):
        ax.contourf(x, y, density, levels=[0.02, 0.08, 0.2, 0.4, 0.8, 2.0], cmap="Blues")
        ax.plot(points[:, 0], points[:, 1], ".", color=colors.eps, markersize=2.5, alpha=0.6)
        if cross is not None:
            ax.plot(*cross.tolist(), "x", color=colors.exact, markersize=9)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=name)
        ax.grid(False)
    return fig
