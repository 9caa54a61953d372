r"""Lesson 03: score fields, where a learned one is wrong, and samples of Langevin dynamics.

Every drawing is a pure function of its arguments; a score is a function of points (b, 2)
like the package's; a learned one is asked in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core.schedules import CosineSchedule
from minivdm.course.notebook.style import colors, figure
from minivdm.exact import GaussianMixture

Score = Callable[[Tensor], Tensor]
WIDTH = 4.0  # of the window, from its middle


def world() -> GaussianMixture:
    """Three round clusters of unequal weight, far apart: ten standard deviations or so."""
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[-2.0, 0.0], [2.0, 1.5], [1.5, -2.0]], dtype=torch.float64)
    return GaussianMixture(weights, means, 0.4)


def empirical(points: Tensor, sigma: float) -> GaussianMixture:
    """The noisy density of a data set of these points (n, 2) alone: a Gaussian of width sigma on each."""
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


class Zeros(NamedTuple):
    """Places where a score vanishes, (n, 2) each: peaks, passes and minima of log q."""

    peaks: Tensor
    passes: Tensor
    minima: Tensor


def zeros(alpha: float = 1.0, sigma: float = 0.0) -> Zeros:
    """All places in the window where the exact score of the noisy world vanishes, by Newton from a lattice.

    They are sorted by the eigenvalues of the Hessian of log q: both negative, mixed, both positive.
    """
    mixture, z = world(), lattice(25)
    for _ in range(40):
        score, hessian = _score_and_hessian(mixture, z, alpha, sigma)
        step = torch.linalg.solve(hessian, score[..., None])[..., 0]
        z = z - step * (0.25 / step.norm(dim=1, keepdim=True)).clamp(max=1)  # no longer than 0.25
    found = torch.zeros(0, 2, dtype=torch.float64)
    still = _score_and_hessian(mixture, z, alpha, sigma)[0].norm(dim=1) < 1e-8
    for point in z[still & (z.abs() < WIDTH).all(dim=1)]:
        if not bool((torch.linalg.norm(found - point, dim=1) < 1e-4).any()):
            found = torch.cat([found, point[None]])
    positive = (torch.linalg.eigvalsh(_score_and_hessian(mixture, found, alpha, sigma)[1]) > 0).sum(1)
    return Zeros(*(found[positive == count] for count in range(3)))


def _score_and_hessian(mixture: GaussianMixture, z: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    """(n, 2) and (n, 2, 2) at points z (n, 2)."""
    z = z.detach().requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_prob(z, alpha, sigma).sum(), z, create_graph=True)
    rows = [torch.autograd.grad(score[:, i].sum(), z, retain_graph=True)[0] for i in range(2)]
    return score.detach(), torch.stack(rows, dim=1).detach()


def relative_error(score: Score, sigma: float, n: int = 3000, seed: int = 0) -> float:
    """rms |s - exact| over rms |exact|, on n points of the world with noise sigma (float32 in, as networks want it)."""
    generator = torch.Generator().manual_seed(seed)
    x, _ = world().sample(n, generator)
    z = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    exact = world().score(z, 1.0, sigma)
    return float(((score(z.float()).double() - exact).square().sum() / exact.square().sum()).sqrt())


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


def _arrows(axes: Axes, score: Score, color: str, n: int = 15, longest: float = 0.5, typical: float = 0.0) -> None:
    """Arrows whose length is `longest` tanh(size / typical): compressed, not turned. typical: by default the median."""
    z = lattice(n, WIDTH * 0.94)
    s = score(z).double()
    size = s.norm(dim=1, keepdim=True)
    s = s / size * longest * torch.tanh(size / (typical or float(size.median())))
    axes.quiver(z[:, 0], z[:, 1], s[:, 0], s[:, 1], color=color, angles="xy", scale_units="xy", scale=1, width=0.004)


def draw_question(n: int = 400) -> Figure:
    """Left what is given, samples; right what is wanted, the score, and three walkers that follow it with noise."""
    mixture = world()
    fig, (left, right) = figure(1, 2, width=7.6, height=3.9)
    points, _ = mixture.sample(n, torch.Generator().manual_seed(0))
    left.plot(points[:, 0], points[:, 1], ".", color=colors.data, ms=3)
    asked = lattice(4, 3.2)
    left.plot(asked[:, 0], asked[:, 1], ls="", marker="$?$", ms=9, color=colors.eps)
    left.set(xlim=(-WIDTH, WIDTH), ylim=(-WIDTH, WIDTH), aspect="equal", xticks=[], yticks=[])
    left.set_title("given: samples. Which way is uphill?")
    _density(right, lambda z: mixture.log_prob(z, 1.0, 0.5))
    _arrows(right, lambda z: mixture.score(z, 1.0, 0.5), colors.exact)
    generator = torch.Generator().manual_seed(3)
    z = torch.tensor([[-3.5, 3.5], [3.6, -0.3], [-0.6, -3.6]], dtype=torch.float64)
    path = [z]
    for _ in range(300):
        z = z + 0.01 * mixture.score(z, 1.0, 0.5) + 0.02**0.5 * torch.randn(3, 2, generator=generator).double()
        path.append(z)
    for walker in torch.stack(path, dim=1):
        right.plot(walker[:, 0], walker[:, 1], color=colors.learned, lw=1.2)
        right.plot(*walker[0], "o", color=colors.learned, ms=6)
    right.set_title("wanted: the arrows, for walkers to follow")
    return fig


def draw_field(t: float = 0.3) -> Figure:
    """Density and exact score of the noisy mixture at time t of the cosine schedule, and the score's zeros."""
    schedule, mixture = CosineSchedule(), world()
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    fig, ax = figure(width=3.6, height=4.1)
    _density(ax, lambda z: mixture.log_prob(z, alpha, sigma))
    _arrows(ax, lambda z: mixture.score(z, alpha, sigma), colors.exact)
    found = zeros(alpha, sigma)
    looks = (("^", colors.eps), ("X", colors.v), ("o", colors.z))
    for (name, points), (marker, shade) in zip(found._asdict().items(), looks, strict=True):
        label = f"{name}: {len(points)}"
        ax.plot(points[:, 0], points[:, 1], ls="", marker=marker, color=shade, ms=9, mec="white", label=label)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, fontsize=9, handletextpad=0.1, columnspacing=0.8)
    ax.set_title(f"t = {t:.2f}:  α = {alpha:.2f}, σ = {sigma:.2f}")
    return fig


def draw_learned(score: Score, sigma: float) -> Figure:
    """The exact and a learned field on one scale, a map of the learned one's error, and that error over density."""
    mixture = world()
    fig, axes = figure(2, 2, width=7.6, height=7.2)
    (left, middle), (place, right) = axes

    def truth(z: Tensor) -> Tensor:
        return mixture.score(z, 1.0, sigma)

    def learned(z: Tensor) -> Tensor:
        return score(z.float())

    typical = float(mixture.score(lattice(15, WIDTH * 0.94), 1.0, sigma).norm(dim=1).median())
    for ax, field, color, title in (
        (left, truth, colors.exact, "exact"),
        (middle, learned, colors.learned, "learned (arrows on the same scale)"),
    ):
        _density(ax, lambda z: mixture.log_prob(z, 1.0, sigma))
        _arrows(ax, field, color, typical=typical)
        ax.set_title(title)
    n = 80
    z, line = lattice(n), torch.linspace(-WIDTH, WIDTH, n)
    exact = truth(z)
    error = (learned(z).double() - exact).norm(dim=1) / exact.norm(dim=1)
    log_error = error.log10().clamp(-2, 0.5).reshape(n, n)
    drawn = place.pcolormesh(line, line, log_error, cmap="magma", vmin=-2, vmax=0.5, shading="nearest", rasterized=True)
    points = mixture.sample(300, torch.Generator().manual_seed(1))[0]
    points = points + sigma * torch.randn(points.shape, generator=torch.Generator().manual_seed(2))
    place.plot(points[:, 0], points[:, 1], ".", color="white", ms=2)
    place.set(xlim=(-WIDTH, WIDTH), ylim=(-WIDTH, WIDTH), aspect="equal", xticks=[], yticks=[])
    place.grid(False)
    place.set_title("|learned − exact| / |exact|")
    bar = fig.colorbar(drawn, ax=place, ticks=[-2, -1, 0])
    bar.ax.set_yticklabels(["1 %", "10 %", "100 %"])
    log_q, rough = error_by_density(score, sigma)
    right.plot(log_q, 100 * rough, "o-", color=colors.learned)
    right.set(xlabel=r"$\log q(z)$ of an eighth of the window", ylabel="relative error, %", ylim=(0, None))
    right.set_title("error over density")
    return fig


def draw_levels(errors: Mapping[str, Sequence[float]], sigmas: Tensor, rungs: Mapping[str, Tensor]) -> Figure:
    """Relative error over the noise level, a curve per network. rungs: name -> the levels it was trained at."""
    fig, ax = figure(width=7.2, height=3.6)
    levels = sigmas.tolist()
    for (name, values), shade in zip(errors.items(), (colors.eps, colors.data, colors.exact), strict=False):
        ax.semilogx(levels, [100 * value for value in values], color=shade, label=name)
        if name in rungs:
            at = (
                (rungs[name][:, None].double() - sigmas).abs().argmin(dim=1).tolist()
            )  # the nearest of the levels drawn
            ax.plot([levels[i] for i in at], [100 * values[i] for i in at], "o", color=shade)
    ax.set(xlabel="noise level σ", ylabel="relative error, %", ylim=(0, None))
    ax.set_title("error of the learned score between the levels it was trained at (dots)")
    ax.legend()
    return fig


def draw_memory(n: int = 30, sigma: float = 0.2, seed: int = 0) -> Figure:
    """What denoising score matching tends to with n data points: the score of Gaussians on the points."""
    mixture = world()
    points, _ = mixture.sample(n, torch.Generator().manual_seed(seed))
    fitted = empirical(points, sigma)
    fig, ax = figure(width=3.6, height=3.8)
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
    """Scatters of points (n, 2), each titled with its name and the share of each cluster."""
    fig, axes = figure(1, len(panels), width=2.6 * len(panels), height=3.0, squeeze=False)
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
    ax.set(xlabel="data points", ylabel="relative error (1 = 100 %)", title="error of the best possible fit")
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
