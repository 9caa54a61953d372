r"""Lesson 03: score fields, where a learned one is wrong, and samples of Langevin dynamics.

Every drawing is a pure function of its arguments; a score is a function of points (b, 2)
like the package's; a learned one is asked in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core.schedules import CosineSchedule
from minivdm.course.notebook.style import colors, figure
from minivdm.exact.worlds import GaussianMixture

Score = Callable[[Tensor], Tensor]
WIDTH = 4.0  # of the window, from its middle


def world() -> GaussianMixture:
    """Three round heaps of unequal weight, far apart: ten standard deviations or so."""
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[-2.0, 0.0], [2.0, 1.5], [1.5, -2.0]], dtype=torch.float64)
    return GaussianMixture(weights, means, 0.4)


def empirical(points: Tensor, sigma: float) -> GaussianMixture:
    """The noisy density of a data set of these points (n, 2) alone: a bell of width sigma on each."""
    return GaussianMixture(torch.ones(len(points)), points, sigma)


def lattice(n: int, width: float = WIDTH) -> Tensor:
    """n x n points over the window, (n * n, 2), float64; the first coordinate varies fastest."""
    line = torch.linspace(-width, width, n, dtype=torch.float64)
    return torch.cartesian_prod(line, line).flip(1)


def error_by_density(score: Score, sigma: float, groups: int = 8, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Relative error of a score on the window's points, grouped by density, densest first.

    Returns the groups' mean log q (groups,), and rms |s - exact| over rms |exact| (groups,).
    """
    z = lattice(60)
    log_q = world().log_prob(z, alpha, sigma)
    exact = world().score(z, alpha, sigma)
    wrong, right = (score(z.float()).double() - exact).square().sum(1), exact.square().sum(1)
    order = log_q.argsort(descending=True)
    size = len(order) // groups
    parts = order[: size * groups].reshape(groups, size)
    return log_q[parts].mean(1), (wrong[parts].mean(1) / right[parts].mean(1)).sqrt()


def shares(points: Tensor) -> Tensor:
    """The fraction of the points (n, 2) that is nearest to each component's mean, (3,)."""
    nearest = torch.cdist(points.double(), world().means).argmin(dim=1)
    return torch.bincount(nearest, minlength=3) / len(points)


def uniform_fit() -> float:
    """The c that makes s(z) = c z best for the uniform density on [0, 1] by implicit score matching: -3."""
    return -1 / (1 / 3)  # E[c^2 z^2 / 2 + c] is smallest at c = -1 / E z^2


# ---- drawings ----------------------------------------------------------------------------------------------


def _density(axes: Axes, log_q: Callable[[Tensor], Tensor], n: int = 70) -> None:
    log_q_grid = log_q(lattice(n)).reshape(n, n)
    line = torch.linspace(-WIDTH, WIDTH, n)
    levels = torch.linspace(-8, 0, 9) + float(log_q_grid.max())
    axes.contourf(line, line, log_q_grid.clamp(min=float(levels[0])), levels=levels.tolist(), cmap="Blues", alpha=0.6)
    axes.set(xlim=(-WIDTH, WIDTH), ylim=(-WIDTH, WIDTH), aspect="equal", xticks=[], yticks=[])


def _arrows(axes: Axes, score: Score, color: str, n: int = 15, longest: float = 0.5) -> None:
    z = lattice(n, WIDTH * 0.94)
    s = score(z).double()
    size = s.norm(dim=1, keepdim=True)
    s = s / size * longest * torch.tanh(size / size.median())  # long arrows are shortened, not redirected
    axes.quiver(z[:, 0], z[:, 1], s[:, 0], s[:, 1], color=color, angles="xy", scale_units="xy", scale=1, width=0.004)


def draw_field(t: float = 0.3) -> Figure:
    """Density and exact score of the noisy mixture at diffusion time t of the cosine schedule."""
    schedule, mixture = CosineSchedule(), world()
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    fig, ax = figure(width=3.5, height=3.6)
    _density(ax, lambda z: mixture.log_prob(z, alpha, sigma))
    _arrows(ax, lambda z: mixture.score(z, alpha, sigma), colors.exact)
    ax.set_title(f"t = {t:.2f}:  α = {alpha:.2f}, σ = {sigma:.2f}")
    return fig


def draw_learned(score: Score, sigma: float) -> Figure:
    """The exact and a learned field, and the learned one's error over density."""
    mixture = world()
    fig, (left, middle, right) = figure(1, 3, width=10.0, height=3.3, width_ratios=[1, 1, 1.15])
    for ax, field, color, title in (
        (left, lambda z: mixture.score(z, 1.0, sigma), colors.exact, "exact"),
        (middle, lambda z: score(z.float()), colors.learned, "learned"),
    ):
        _density(ax, lambda z: mixture.log_prob(z, 1.0, sigma))
        _arrows(ax, field, color)
        ax.set_title(title)
    log_q, error = error_by_density(score, sigma)
    right.semilogy(log_q, error, "o-", color=colors.learned)
    right.set(xlabel=r"$\log q(z)$ of the region", title="relative error of the score")
    return fig


def draw_memory(n: int = 30, sigma: float = 0.2, seed: int = 0) -> Figure:
    """What denoising score matching tends to with n data points: the score of bells on the points."""
    mixture = world()
    points, _ = mixture.sample(n, torch.Generator().manual_seed(seed))
    fitted = empirical(points, sigma)
    fig, ax = figure(width=3.5, height=3.6)
    _density(ax, fitted.log_prob, n=60)
    _arrows(ax, fitted.score, colors.learned)
    ax.plot(points[:, 0], points[:, 1], ".", color=colors.eps, ms=4)
    z = mixture.sample(500, torch.Generator().manual_seed(seed + 1))[0]
    z = z + sigma * torch.randn(z.shape, generator=torch.Generator().manual_seed(seed + 2), dtype=torch.float64)
    wrong = (fitted.score(z) - mixture.score(z, 1.0, sigma)).square().sum(1).mean()
    wrong = wrong / mixture.score(z, 1.0, sigma).square().sum(1).mean()
    ax.set_title(f"{n} points: error {100 * math.sqrt(float(wrong)):.0f} %")
    return fig


def draw_samples(panels: Mapping[str, Tensor]) -> Figure:
    """Scatters of points (n, 2), each titled with its name and the share of each heap."""
    fig, axes = figure(1, len(panels), width=3.1 * len(panels), height=3.4, squeeze=False)
    for ax, (name, points) in zip(axes[0], panels.items(), strict=True):
        _density(ax, world().log_prob)
        shown = points[:600]
        ax.plot(shown[:, 0], shown[:, 1], ".", color=colors.eps, ms=2, alpha=0.7)
        parts = shares(points)
        ax.set_title(name)
        for mean, part in zip(world().means.tolist(), parts.tolist(), strict=True):
            ax.text(mean[0], mean[1] + 1.25, f"{100 * part:.0f} %", ha="center", fontsize=11)
    return fig


def draw_errors(sizes: Sequence[int], errors: Mapping[str, Sequence[float]]) -> Figure:
    """Relative errors over the number of data points, both logarithmic, a curve per noise level."""
    fig, ax = figure(width=5.6, height=3.2)
    for name, values in errors.items():
        ax.loglog(sizes, values, "o-", label=name)
    ax.set(xlabel="data points", title="relative error of the best possible fit")
    ax.legend()
    return fig


def draw_boundary() -> Figure:
    """The uniform density on [0, 1], its score 0, and what implicit score matching fits to it."""
    fig, ax = figure(width=5.0, height=2.7)
    z = torch.linspace(0, 1, 50)
    ax.plot([-0.3, 0, 0, 1, 1, 1.3], [0, 0, 1, 1, 0, 0], color=colors.data, label="density")
    ax.plot(z, 0 * z, color=colors.exact, ls="--", label="true score")
    ax.plot(z, uniform_fit() * z, color=colors.learned, label="fitted score")
    ax.set(xlabel="$z$", title="a density with edges")
    ax.legend(loc="lower left")
    return fig
