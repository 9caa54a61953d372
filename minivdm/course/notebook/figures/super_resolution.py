"""Drawings of lesson 11, and its closed forms: what a low-resolution observation adds to a denoiser's estimate.

For Gaussian data every conditional estimate here has the form x_hat + K (y - D x_hat), K a matrix: the gain. The
methods differ in K alone, so that they can be compared by formula.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core import samplers
from minivdm.core.guidance import reconstruction
from minivdm.core.observe import Downsample
from minivdm.core.schedules import CosineSchedule, Schedule
from minivdm.core.time_grids import times_of, uniform_in_t
from minivdm.course.notebook.style import colors, figure, image
from minivdm.exact import GaussianVideo, Law
from minivdm.exact.propagate import push

Observe = Callable[[Tensor], Tensor]
LOW = Downsample(space=2, every=2)  # block means of 2 x 2 pixels, every second frame
METHODS = ("no observation", "pseudo-inverse", "eq 8", "ΠGDM", "exact")
SHADES = (colors.noise, colors.z, colors.data, colors.v, colors.exact)


@functools.cache
def lesson_schedule() -> Schedule:
    """Variance-preserving cosine, log-SNR from 12 to -12."""
    return CosineSchedule(-12.0, 12.0)


@functools.lru_cache(maxsize=32)
def small_world(pixel_correlation: float = 0.8, side: int = 4) -> GaussianVideo:
    """Three Gaussian frames of side x side pixels; neighbouring frames have correlation 0.9."""
    return GaussianVideo(3, 0.9, (side, side), pixel_correlation)


def matrix_of(observe: Observe, shape: Sequence[int]) -> Tensor:
    """The matrix (m, d) of a linear observation of videos of shape (c, f, h, w), d = c f h w."""
    d = int(torch.tensor(shape).prod())
    return observe(torch.eye(d, dtype=torch.float64).reshape(d, *shape)).flatten(1).T


def posterior_covariance(world: GaussianVideo, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """Cov[x | z_t], (d, d): sigma^2 S (alpha^2 S + sigma^2 I)^{-1} for data of covariance S. Needs no z."""
    noisy = alpha**2 * world.covariance + sigma**2 * torch.eye(len(world.covariance), dtype=torch.float64)
    return torch.linalg.solve(noisy, sigma**2 * world.covariance)


def gain(
    method: str, covariance: Tensor, operator: Tensor, alpha: Tensor | float, sigma: Tensor | float, weight: float = 1.0
) -> Tensor:
    """K (d, m) of one of METHODS, for Cov[x | z_t] (d, d) and the operator (m, d)."""
    gram = operator @ operator.T
    across = covariance @ operator.T
    if method == "exact":
        return torch.linalg.solve(operator @ across, across.T).T
    if method == "eq 8":
        return weight * alpha**2 / sigma**2 * across
    if method == "ΠGDM":
        return weight * (alpha**2 + sigma**2) / sigma**2 * torch.linalg.solve(gram, across.T).T
    if method == "pseudo-inverse":
        return torch.linalg.solve(gram, operator).T
    if method == "no observation":
        return torch.zeros_like(across)
    raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")


def excess(method: str, world: GaussianVideo, log_snr: float, weight: float = 1.0, observe: Observe = LOW) -> float:
    """Mean squared distance per value of a method's estimate from E[x | z_t, y], over z_t and y."""
    alpha, sigma = _scales(log_snr)
    covariance, operator = posterior_covariance(world, alpha, sigma), matrix_of(observe, world.shape)
    best = gain("exact", covariance, operator, alpha, sigma)
    off = gain(method, covariance, operator, alpha, sigma, weight) - best
    return float((off @ (operator @ covariance @ operator.T) * off).sum() / len(covariance))


def _scales(log_snr: float) -> tuple[Tensor, Tensor]:
    """alpha and sigma of a variance-preserving process at a log-SNR."""
    log_snr_ = torch.tensor(log_snr, dtype=torch.float64)
    return log_snr_.sigmoid().sqrt(), (-log_snr_).sigmoid().sqrt()


def leftover(world: GaussianVideo, log_snr: float, weight: float, observe: Observe = LOW) -> Tensor:
    """Eigenvalues (m,) of I - D K of eq 8: what is left of the residual y - D x_hat after one correction."""
    alpha, sigma = _scales(log_snr)
    operator = matrix_of(observe, world.shape)
    covariance = posterior_covariance(world, alpha, sigma)
    return 1 - torch.linalg.eigvalsh(operator @ gain("eq 8", covariance, operator, alpha, sigma, weight))


def sampled_law(
    world: GaussianVideo,
    y: Tensor,
    weight: float,
    variance: Literal["vdm", "pigdm"] = "vdm",
    steps: int = 64,
    observe: Observe = LOW,
) -> Law:
    """The law of ancestral samples with reconstruction guidance towards y, by exact propagation of its moments."""
    schedule = lesson_schedule()
    guided: Any = reconstruction(world.denoiser(schedule), y, weight, observe, variance)
    times = times_of(uniform_in_t, steps, schedule)
    d = len(world.covariance)
    law = Law(torch.zeros(d, dtype=torch.float64), schedule.prior_std(times[0]) ** 2 * torch.eye(d).double())
    for t, s in zip(times[:-1], times[1:], strict=True):

        def affine(u: Tensor, t: Tensor = t, s: Tensor = s) -> tuple[Tensor, Tensor]:
            z = u.reshape(len(u), *world.shape)
            if s == 0:
                return guided(z, t).flatten(1), torch.zeros(d, dtype=torch.float64)
            after = samplers.ancestral_law(guided, z, t, s)
            return after.mean.flatten(1), after.variance.double().expand(d)

        law = push(law, affine)
    return law


# ---- figures -----------------------------------------------------------------------------------------------------


def draw_written(correlations: Sequence[float] = (0.0, 0.8), log_snr: float = 0.0, side: int = 8) -> Figure:
    """What one block of the first frame that is 1 brighter than expected adds, by the exact gain.

    A row per correlation of neighbouring pixels, a column per frame; the second frame is not observed at all.
    """
    fig, axes = figure(len(correlations), 3, width=5.6, height=1.95 * len(correlations), squeeze=False)
    alpha, sigma = _scales(log_snr)
    for number, (row, correlation) in enumerate(zip(axes, correlations, strict=True)):
        world = small_world(correlation, side)
        operator = matrix_of(LOW, world.shape)
        across = gain("exact", posterior_covariance(world, alpha, sigma), operator, alpha, sigma)
        block = (side // 4) * (side // 2) + side // 4  # of the first frame, near its middle
        written = across[:, block].reshape(world.shape)[0]
        for frame, ax in enumerate(row):
            seen = "seen" if frame % 2 == 0 else "unseen"
            image(ax, written[frame], f"frame {frame}, {seen}" if number == 0 else "", low=-1.2, high=1.2)
        row[0].set_ylabel(f"correlation {correlation:g}")
    return fig


def draw_gains(weight: float, pixel_correlation: float) -> Figure:
    """The slider: how far each estimate is from the exact one, over the log-SNR. weight: of eq 8; ΠGDM has 1."""
    fig, ax = figure(width=6.7, height=3.4)
    world = small_world(pixel_correlation)
    grid = torch.linspace(-10, 10, 41).tolist()
    for method, color in zip(METHODS[:-1], SHADES, strict=False):
        own = weight if method == "eq 8" else 1.0
        found = [excess(method, world, log_snr, own) for log_snr in grid]
        ax.semilogy(grid, found, color=color, label=method)
    ax.set(xlabel=r"log-SNR $\lambda$ (noisy left, clean right)", ylabel="excess squared error", ylim=(1e-8, 1e3))
    ax.set_title(f"w = {weight:g}, pixel correlation {pixel_correlation:g}")
    ax.legend(loc="lower left", ncols=2)
    return fig


def draw_leftover(weights: Sequence[float]) -> Figure:
    """Largest and smallest share of the residual that eq 8 leaves, over the log-SNR."""
    fig, ax = figure(width=6.7, height=3.0)
    grid = torch.linspace(-10, 10, 61).tolist()
    for weight, color in zip(weights, (colors.data, colors.v, colors.eps, colors.z), strict=False):
        left = [leftover(small_world(), log_snr, weight) for log_snr in grid]
        ax.fill_between(grid, [float(e.min()) for e in left], [float(e.max()) for e in left], color=color, alpha=0.3)
        ax.plot(grid, [float(e.min()) for e in left], color=color, label=f"$w_r$ = {weight:g}")
    ax.axhline(-1, color=colors.exact, linestyle="--", linewidth=1)
    ax.set(xlabel=r"log-SNR $\lambda$", ylabel="share of $y-D\\hat x$ left", ylim=(-4.2, 1.2))
    ax.legend(loc="lower left")
    return fig


def draw_distances(distances: Mapping[str, Mapping[float, float]]) -> Figure:
    """2-Wasserstein distance to the exact conditional law over the weight. distances: method -> weight -> value."""
    fig, ax = figure(width=6.0, height=3.0)
    for (name, found), color in zip(distances.items(), (colors.data, colors.v, colors.eps), strict=False):
        ax.plot(list(found), list(found.values()), "o-", color=color, label=name)
    ax.set(xlabel="weight $w_r$", ylabel="$W_2$ to the exact conditional", yscale="log")
    ax.set_xscale("symlog", base=2, linthresh=0.5)
    ax.set_xlim(-0.05, 1.1 * max(max(found) for found in distances.values()))
    ax.legend()
    return fig
