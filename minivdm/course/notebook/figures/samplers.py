"""Drawings of lesson 06: samplers on a mixture on the line, whose flow is known exactly, and on the plane."""

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
from minivdm.exact.worlds import GaussianMixture

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
    """The noise of lesson 06."""
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


def walk(sampler: str, steps: int, eta: float, noise: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Times (steps + 1,) and the places (steps + 1, b, 1) that a sampler visits on the line."""
    schedule = lesson_schedule()
    visited = [noise]
    samplers.sample(
        line_world().denoiser(schedule),
        noise,
        steps,
        step=make_step(sampler, eta),
        callback=lambda z, t: visited.append(z),
        generator=torch.Generator().manual_seed(seed),
    )
    return samplers.uniform_in_t(steps, schedule), torch.stack(visited)


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


def draw_two_ways() -> Figure:
    """The same marginals by paths with noise (reverse SDE) and without (probability flow)."""
    fig, axes = figure(1, 2, width=8.2, height=3.3, sharey=True)
    for ax, sampler, steps in ((axes[0], "ancestral", 250), (axes[1], "Heun", 80)):
        flow_axes(ax, "with noise: the reverse SDE" if sampler == "ancestral" else "without: the probability flow")
        times, paths = walk(sampler, steps, 0.0, even_quantiles(9))
        ax.plot(times, paths[..., 0].numpy(), linewidth=1.2, color=colors.eps, alpha=0.9)
    axes[1].set_ylabel("")
    return fig


def draw_rotation(t: float, s: float) -> Figure:
    """DDIM as a turn, Euler in t as a straight line: both in the plane of x_hat and eps_hat."""
    schedule = lesson_schedule()
    start, end = float(schedule.angle(t)), float(schedule.angle(s))
    turn = end - start
    fig, ax = figure(width=4.8, height=4.0)
    arc = torch.linspace(0, math.pi / 2, 100)
    ax.plot(arc.cos(), arc.sin(), color=colors.noise, linewidth=1)
    z, v = (math.cos(start), math.sin(start)), (-math.sin(start), math.cos(start))
    for place, name, color in ((z, "$z_t$", colors.z), ((math.cos(end), math.sin(end)), "$z_s$ (DDIM)", colors.x)):
        ax.annotate("", place, (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2})
        ax.text(place[0] + 0.03, place[1] + (0.04 if color == colors.z else -0.04), name, color=color)
    straight = (z[0] + turn * v[0], z[1] + turn * v[1])
    ax.annotate("", straight, z, arrowprops={"arrowstyle": "-|>", "color": colors.v, "lw": 2})
    ax.text(straight[0] + 0.03, straight[1] + 0.03, r"along $\hat v$ (Euler)", color=colors.v)
    ax.set(
        xlim=(0, 1.4),
        ylim=(0, 1.15),
        xlabel=r"share of $\hat x$",
        ylabel=r"share of $\hat\epsilon$",
        aspect="equal",
        title="One DDIM step is a turn",
    )
    return fig


def draw_orders(errors: Mapping[str, Sequence[float]], steps: Sequence[int], calls: Mapping[str, int]) -> Figure:
    """Error over denoiser calls. errors: per sampler one for each of `steps`; calls: per sampler, calls a step."""
    fig, ax = figure(width=6.4, height=3.6)
    palette = [colors.noise, colors.x, colors.v, colors.eps]
    for (name, found), color in zip(errors.items(), palette, strict=False):
        ax.loglog([n * calls[name] for n in steps], found, "o-", color=color, label=name)
    first = max(max(found) for found in errors.values())
    reference = torch.tensor([steps[0], steps[-1]], dtype=torch.float64)
    for order in (1, 2):
        ax.loglog(reference, first * (reference / steps[0]) ** -order, ":", color="#555555", linewidth=1)
        ax.text(float(reference[1]) * 1.05, first * (steps[-1] / steps[0]) ** -order, f"slope {order}", va="center")
    ax.set(xlabel="denoiser calls", ylabel="error of the flow map", title="Error against the exact flow")
    ax.legend()
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


def compact(fig: Figure, alt: str = "", colours: int = 96) -> Picture:
    """The figure as a picture of few colours: a third of the bytes where a plane is shaded."""
    drawn = render(fig, alt)
    few = drawn.to_pil().convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    return Picture(encode(few), drawn.alt, drawn.width)


def draw_clouds(clouds: Mapping[str, Tensor], limit: float = 2.2) -> Figure:
    """Points (n, 2) over the density of the plane's mixture, one panel a name."""
    world = plane_world()
    fig, axes = figure(1, len(clouds), width=8.2, height=8.2 / len(clouds) + 0.4, sharey=True, squeeze=False)
    grid = torch.linspace(-limit, limit, 120, dtype=torch.float64)
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    density = world.log_prob(torch.stack([x.flatten(), y.flatten()], dim=1)).exp().reshape(x.shape)
    for ax, (name, points) in zip(axes[0], clouds.items(), strict=True):
        ax.contourf(x, y, density, levels=[0.02, 0.08, 0.2, 0.4, 0.8, 2.0], cmap="Blues")
        ax.plot(points[:, 0], points[:, 1], ".", color=colors.eps, markersize=2.5, alpha=0.6)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=name)
        ax.grid(False)
    return fig
