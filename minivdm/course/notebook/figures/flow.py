r"""Lesson 05, flow matching: exact paths of the flow, where times fall, and the names of one noise level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core import CosineSchedule, Denoise, FlowSchedule, Schedule, ddim_step, heun_step, sample
from minivdm.course.notebook.style import colors, figure
from minivdm.exact import GaussianMixture

SCHEDULES: dict[str, Schedule] = {"flow line": FlowSchedule(), "cosine": CosineSchedule()}


def world() -> GaussianMixture:
    """The lesson's data: eight round blobs of standard deviation 0.1 on the unit circle."""
    return GaussianMixture.ring()


# ---- paths -------------------------------------------------------------------------------------------------


@torch.no_grad()
def walk(denoise: Denoise, noise: Tensor, steps: int, step=heun_step) -> Tensor:
    """Every z on the way from `noise` (b, d) at t = 1 to t = 0, (steps + 1, b, d)."""
    kept = [noise]
    sample(denoise, noise, steps, step=step, callback=lambda z, t: kept.append(z))
    return torch.stack(kept)


def bend(path: Tensor) -> Tensor:
    """Length over distance of each path of (steps + 1, b, d), (b,): 1 where it is straight."""
    length = path.diff(dim=0).norm(dim=2).sum(0)
    return length / (path[-1] - path[0]).norm(dim=1)


@lru_cache
def exact_paths(schedule: str, n: int = 24, steps: int = 80) -> Tensor:
    """(steps + 1, n, 2): the exact flow of the world from n draws of noise, the same for every schedule."""
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return walk(world().denoiser(SCHEDULES[schedule]), noise, steps)


@lru_cache
def few_steps(path: str, steps: int) -> Tensor:
    """The walk from the starts of `exact_paths` in so many DDIM steps with the exact denoiser, (steps + 1, n, 2)."""
    return walk(world().denoiser(SCHEDULES[path]), exact_paths(path)[0], steps, step=ddim_step)


def ends_off(path: str, steps: int) -> float:
    """Root mean square distance of the ends of `few_steps` from those of `exact_paths`."""
    return (few_steps(path, steps)[-1] - exact_paths(path)[-1]).square().sum(1).mean().sqrt().item()


def chords(steps: int = 4, path: str = "flow line") -> Figure:
    """Exact paths of 24 draws of noise, and the chords of a walk in that many DDIM steps with the exact denoiser."""
    exact, coarse = exact_paths(path), few_steps(path, steps)
    made, axes = figure(width=4.4, height=4.7)
    data, _ = world().sample(400, torch.Generator().manual_seed(1))
    axes.plot(*data.T, ".", color=colors.observed, markersize=2, alpha=0.5)
    axes.plot(coarse[..., 0], coarse[..., 1], color=colors.learned, linewidth=1, marker=".", markersize=4)
    axes.plot(exact[..., 0], exact[..., 1], color=colors.exact, linewidth=0.8)
    axes.plot(*exact[0].T, "o", color=colors.noise, markersize=4)
    axes.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    axes.set_title(f"{path}, {steps} step{'s' if steps > 1 else ''}: ends off by {ends_off(path, steps):.2f}")
    return made


# ---- times -------------------------------------------------------------------------------------------------


def normal_density(log_snr: Tensor, mean: float, std: float) -> Tensor:
    """The density of N(mean, std^2)."""
    return torch.exp(-(((log_snr - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))


def densities(log_snr: Tensor, m: float = 0.0, b: float = 1.0) -> dict[str, Tensor]:
    """p(lambda) of four ways to draw training times; m, b: mean and standard deviation of logit t."""
    return {
        "cosine, uniform t": 1 / (2 * math.pi * torch.cosh(log_snr / 2)),
        "flow line, uniform t": 1 / (8 * torch.cosh(log_snr / 4) ** 2),
        "flow line, logit-normal t": normal_density(log_snr, -2 * m, 2 * b),
        "EDM": normal_density(log_snr, 2.4, 2.4),
    }


def times(m: float = 0.0, b: float = 1.0) -> Figure:
    """Where four recipes look, on the axis of the log-SNR."""
    log_snr = torch.linspace(-14, 14, 281, dtype=torch.float64)
    made, axes = figure(width=6.9, height=3.2)
    shades = (colors.v, colors.eps, colors.data, colors.exact)
    for (name, density), shade in zip(densities(log_snr, m, b).items(), shades, strict=True):
        axes.plot(log_snr, density, color=shade, label=name)
    axes.set(xlabel="log-SNR $\\lambda$", ylim=(0, None), title="density of training levels, $p(\\lambda)$")
    axes.legend(fontsize=9)
    return made


# ---- one noise level, many names ---------------------------------------------------------------------------


class Names(NamedTuple):
    """One log-SNR in the letters of others, all float64 of its shape.

    alpha_bar: DDPM's. step: the nearest of DDPM's 1000, with its linear beta. sigma: EDM's, of z / alpha. flow_time: t
    of the line alpha = 1 - t. angle: of v. cosine_time: this course's t.
    """

    alpha_bar: Tensor
    step: Tensor
    sigma: Tensor
    flow_time: Tensor
    angle: Tensor
    cosine_time: Tensor


def names(log_snr: Tensor) -> Names:
    """What others call this noise level."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # Ho et al. 2020, section 4
    ladder = torch.cumprod(1 - beta, dim=0).logit()  # log-SNR after each step
    step = (log_snr[..., None] - ladder).abs().argmin(-1) + 1
    sigma = torch.exp(-log_snr / 2)
    return Names(log_snr.sigmoid(), step, sigma, sigma / (1 + sigma), torch.atan(sigma), CosineSchedule().time(log_snr))


# ---- results -----------------------------------------------------------------------------------------------


def straightened(paths: Mapping[str, Tensor]) -> Figure:
    """Paths (steps + 1, b, 2) side by side, each titled with its name and the median of length over distance."""
    made, axes = figure(1, len(paths), width=3.9 * len(paths), height=4.2, squeeze=False)
    for place, (name, path) in zip(axes[0], paths.items(), strict=True):
        place.plot(path[..., 0], path[..., 1], color=colors.learned, linewidth=0.9)
        place.plot(*path[0].T, "o", color=colors.noise, markersize=3)
        place.plot(*path[-1].T, "o", color=colors.data, markersize=3)
        place.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
        place.set_title(f"{name}\nlength over distance {bend(path).median():.2f}", fontsize=11)
    return made
