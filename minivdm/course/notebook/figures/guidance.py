"""Drawings of lesson 07: what guidance samples, on a line and in a plane where everything is known."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core import samplers
from minivdm.core.guidance import classifier_free
from minivdm.course.notebook.figures.samplers import even_quantiles, lesson_schedule
from minivdm.course.notebook.style import colors, figure
from minivdm.exact import GaussianMixture, Law

WANTED = torch.tensor([[1.0, 1.0, 0.0, 0.0]])  # of the plane's four clouds, the two of the class asked for
LEFT = torch.tensor([[1.0, 0.0]])  # of the line's two bumps


@functools.cache
def line_pair() -> GaussianMixture:
    """Two overlapping bumps on the line, a class each."""
    return GaussianMixture(torch.ones(2), torch.tensor([[-0.6], [0.6]]), 0.5)


@functools.cache
def plane_classes() -> GaussianMixture:
    """Four round clouds in the plane: the first two are one class, the other two another."""
    means = torch.tensor([[-0.15, 0.8], [-1.1, -0.5], [0.75, 0.55], [0.25, -0.9]])
    return GaussianMixture(torch.ones(4), means, 0.25)


@functools.cache
def plane_mislabelled() -> GaussianMixture:
    """What training finds for the wanted class of the plane if every fifth label is wrong."""
    world = plane_classes()
    return GaussianMixture(torch.tensor([0.4, 0.4, 0.1, 0.1]), world.means, 0.25)


@functools.cache
def plane_widened(std: float) -> GaussianMixture:
    """The plane's clouds as a model of too little capacity sees them: in place, but wider than the true 0.25."""
    return GaussianMixture(torch.ones(4), plane_classes().means, std)


def tilted_log_density(world: GaussianMixture, labels: Tensor, weight: float, x: Tensor) -> Tensor:
    """(1 + w) log p(x | c) - w log p(x), (b,): the tilted density, without its normalising constant."""
    return (1 + weight) * world.log_prob(x, labels=labels) - weight * world.log_prob(x)


def tilted_on_line(weight: float, x: Tensor) -> Tensor:
    """The tilted density of the left bump on an even grid x (n,), normalised by the trapezoidal rule."""
    density = tilted_log_density(line_pair(), LEFT, weight, x[:, None]).exp()
    return density / torch.trapezoid(density, x)


def moments(x: Tensor, density: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of a density on a grid."""
    mean = torch.trapezoid(density * x, x)
    return mean.item(), torch.trapezoid(density * (x - mean) ** 2, x).sqrt().item()


def guided(
    world: GaussianMixture,
    labels: Tensor,
    weight: float,
    interval: tuple[float, float] = (-math.inf, math.inf),
    conditional: GaussianMixture | None = None,
) -> Any:
    """Classifier-free guidance between exact denoisers; `conditional` replaces the exact one of the labels."""
    schedule = lesson_schedule()
    plain = world.denoiser(schedule)
    asked = plain.given(labels) if conditional is None else conditional.denoiser(schedule)
    return classifier_free(asked, plain, weight, interval)


@functools.lru_cache(maxsize=64)
def line_samples(weight: float, n: int = 400, steps: int = 24) -> Tensor:
    """Where the guided flow carries n evenly spread noises, (n, 1)."""
    step = samplers.DPMSolverPlusPlus2M()
    return samplers.sample(guided(line_pair(), LEFT, weight), even_quantiles(n), steps, step=step)


def plane_noise(n: int, seed: int = 0) -> Tensor:
    """Standard normal points (n, 2), float64."""
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@functools.lru_cache(maxsize=64)
def plane_samples(
    weight: float,
    n: int = 500,
    steps: int = 30,
    interval: tuple[float, float] = (-math.inf, math.inf),
    mislabelled: bool = False,
) -> Tensor:
    """Guided samples (n, 2) of the wanted class."""
    other = plane_mislabelled() if mislabelled else None
    return samplers.sample(guided(plane_classes(), WANTED, weight, interval, other), plane_noise(n), steps)


def fidelity(x: Tensor) -> float:
    """Mean p(c | x) of samples in the plane, by the exact classifier."""
    return plane_classes().responsibilities(x)[:, :2].sum(1).mean().item()


def spread(x: Tensor) -> float:
    """Root of the total variance of samples (n, d)."""
    return torch.cov(x.T).trace().sqrt().item()


def std_within(x: Tensor) -> float:
    """Standard deviation per coordinate of samples (n, 2) about the mean of those nearest to the same wanted cloud."""
    nearest = torch.cdist(x, plane_classes().means[:2]).argmin(dim=1)
    clouds = [x[nearest == k] for k in range(2)]
    squares = torch.cat([cloud - cloud.mean(0) for cloud in clouds if len(cloud)]).square()
    return squares.mean().sqrt().item()


def wanted_law() -> Law:
    """Mean and covariance of the class asked for, exactly."""
    means = plane_classes().means[:2]
    within = plane_classes().covariances[:2].mean(0)
    return Law(means.mean(0), within + torch.cov(means.T, correction=0))


def _shade(ax: Axes, density: Tensor, grid: Tensor) -> None:
    levels = (density.max() * torch.tensor([0.02, 0.1, 0.3, 0.6, 1.0])).tolist()
    ax.contourf(grid, grid, density, levels=levels, cmap="Blues")


def draw_plane(ax: Axes, weight: float, points: Tensor, title: str) -> None:
    """Samples over the tilted density (shaded); circles mark the clouds, dashed those of the other class."""
    world = plane_classes()
    grid = torch.linspace(-2.2, 2.2, 110, dtype=torch.float64)
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    density = tilted_log_density(world, WANTED, weight, torch.stack([x.flatten(), y.flatten()], 1)).exp()
    _shade(ax, density.reshape(x.shape), grid)
    turn = torch.linspace(0, 2 * math.pi, 60)
    for k, mean in enumerate(world.means):
        ax.plot(
            mean[0] + 0.5 * turn.cos(),
            mean[1] + 0.5 * turn.sin(),
            linewidth=0.9,
            color=colors.exact if k < 2 else colors.noise,
            linestyle="-" if k < 2 else "--",
        )
    ax.plot(points[:, 0], points[:, 1], ".", color=colors.eps, markersize=2.5, alpha=0.7)
    ax.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", title=title)
    ax.grid(False)


def draw_line(ax: Axes, weight: float, title: str) -> None:
    """Histogram of guided samples on the line, with the conditional and the tilted density."""
    x = torch.linspace(-3.2, 1.8, 501, dtype=torch.float64)
    ax.hist(
        line_samples(weight)[:, 0].numpy(),
        bins=torch.linspace(-3.2, 1.8, 61).tolist(),
        density=True,
        color=colors.eps,
        alpha=0.45,
        label="guided samples",
    )
    ax.plot(x, tilted_on_line(0.0, x), color=colors.noise, linestyle="--", linewidth=1.3, label="$p(x|c)$")
    ax.plot(x, tilted_on_line(weight, x), color=colors.exact, linewidth=1.5, label="tilted")
    ax.set(xlim=(-3.2, 1.8), ylim=(0, 2.6), xlabel="$x$", ylabel="density", title=title)


def draw_guidance(weight: float, guide_from: float = -12.0) -> Figure:
    """The slider: the line and the plane at one weight. guide_from: no guidance below this log-SNR."""
    fig, (left, right) = figure(1, 2, width=6.7, height=3.5)
    draw_line(left, weight, f"w = {weight:g}, on the line")
    left.legend(loc="upper right")
    interval = (guide_from if guide_from > -12 else -math.inf, math.inf)
    points = plane_samples(weight, 250, 20, interval)
    draw_plane(right, weight, points, f"$p(c|x)$ = {fidelity(points):.3f}, spread {spread(points):.2f}")
    return fig


def draw_lines_of(weights: Sequence[float]) -> Figure:
    """The line at several weights, side by side."""
    fig, axes = figure(1, len(weights), width=8.2, height=2.9, sharey=True, squeeze=False)
    for ax, weight in zip(axes[0], weights, strict=True):
        draw_line(ax, weight, f"w = {weight:g}")
    axes[0, -1].legend(loc="upper right")
    return fig


def draw_planes_of(clouds: Mapping[str, tuple[float, Tensor]]) -> Figure:
    """Panels of the plane. clouds: title -> (weight whose tilted density is shaded, points)."""
    fig, axes = figure(1, len(clouds), width=8.2, height=8.2 / len(clouds) + 0.4, sharey=True, squeeze=False)
    for ax, (title, (weight, points)) in zip(axes[0], clouds.items(), strict=True):
        draw_plane(ax, weight, points, title)
    return fig


def draw_tradeoff(weights: Sequence[float], rows: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Fidelity, spread and distance over w, a panel each. rows: per model, one mapping a weight with these keys."""
    keys = list(next(iter(rows.values()))[0])
    fig, axes = figure(1, len(keys), width=8.2, height=3.1)
    for ax, key in zip(axes, keys, strict=True):
        for (name, found), color in zip(rows.items(), (colors.data, colors.eps), strict=False):
            ax.plot(weights, [row[key] for row in found], "o-", color=color, label=name)
        ax.set(xlabel="weight $w$", title=key)
    axes[-1].legend(loc="upper left")
    return fig


def draw_excess(clips: Mapping[str, Tensor], every: int = 2) -> Figure:
    """Frames of clips (1, f, h, w): grey within [-1, 1], red above and blue below, with the scale."""
    shown = {name: clip[0, ::every] for name, clip in clips.items()}
    columns = max(len(frames) for frames in shown.values())
    fig, axes = figure(len(shown), columns, width=8.2, height=1.15 * len(shown) + 0.9, squeeze=False)
    norm = BoundaryNorm([-2.0, -1.5, -1.25, -1.05, *torch.linspace(-1, 1, 17).tolist(), 1.05, 1.25, 1.5, 2.0], 24)
    blues, greys, reds = (colormaps[name] for name in ("Blues", "gray", "Reds"))
    below, above = [blues(x) for x in (0.9, 0.7, 0.5)], [reds(x) for x in (0.5, 0.7, 0.9)]
    inside = ListedColormap([*below, greys(0.0), *(greys(i / 15) for i in range(16)), greys(1.0), *above])
    scale = inside.with_extremes(under=blues(1.0), over=reds(1.0))
    for row, (name, frames) in zip(axes, shown.items(), strict=True):
        for ax, frame in zip(row, frames, strict=True):
            drawn = ax.imshow(frame.numpy(), cmap=scale, norm=norm)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        row[0].set_title(name)
    ticks = [-2, -1, 0, 1, 2]
    fig.colorbar(drawn, ax=axes, orientation="horizontal", label="value", ticks=ticks, aspect=60, extend="both")
    return fig


def draw_values(clips: Mapping[str, Tensor]) -> Figure:
    """Histograms of all values, one line a title, on a logarithmic axis; the range of the data is shaded."""
    fig, ax = figure(width=7.0, height=3.2)
    ax.axvspan(-1, 1, color="#EEEEEE")
    for name, video in clips.items():
        values = video.flatten().numpy()
        ax.hist(values, bins=torch.linspace(-3, 3, 121).tolist(), histtype="step", linewidth=1.6, label=name)
    ax.set(yscale="log", xlim=(-3, 3), xlabel="value of a pixel", ylabel="how many", title="Values, unclipped")
    ax.legend(loc="upper right")
    return fig
