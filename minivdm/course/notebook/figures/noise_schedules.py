r"""Lesson 02: log-SNR on clips, the posterior as a product of two bells, frame size, terminal SNR.

Every drawing is a pure function of its arguments. A level of noise is given by its log-SNR lambda, in the
variance-preserving process: alpha^2 = sigmoid(lambda), sigma^2 = sigmoid(-lambda).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core.gaussian import posterior, transition
from minivdm.core.schedules import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule
from minivdm.course.notebook.picture import Picture
from minivdm.course.notebook.strips import filmstrip
from minivdm.course.notebook.style import colors, figure, image
from minivdm.data.moving_mnist import MovingMNIST


def schedules() -> dict[str, Schedule]:
    """The four of the lesson, by name."""
    return {
        "cosine": CosineSchedule(),
        "VP linear": LinearSchedule(),
        "sub-VP": SubVPSchedule(),
        "VE": VESchedule(0.01, 50.0),
    }


def scales(log_snr: float) -> tuple[float, float]:
    """alpha and sigma of the variance-preserving process at a log-SNR."""
    return math.sqrt(1 / (1 + math.exp(-log_snr))), math.sqrt(1 / (1 + math.exp(log_snr)))


@lru_cache(maxsize=8)
def clip(index: int = 0, size: int = 32) -> Tensor:
    """A clip of two digits, (1, 1, 16, size, size)."""
    return MovingMNIST(size=size, digits=2, split="test").clips([index]).video


def noisy_clip(log_snr: float, index: int = 0, size: int = 32, seed: int = 0) -> Tensor:
    """The clip at that log-SNR, always with the same noise."""
    x = clip(index, size)
    alpha, sigma = scales(log_snr)
    return alpha * x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


class Bells(NamedTuple):
    """Density of z_s before z_t is seen, q(z_t | z_s) as a function of z_s, and their normalised product, (n,)."""

    z: Tensor
    prior: Tensor
    likelihood: Tensor
    product: Tensor


def bells(z_t: float, x: float, s: float, t: float, schedule: Schedule, points: int = 4001) -> Bells:
    """Bayes' rule by brute force on a grid: no completing of squares."""
    scale, variance = transition(s, t, schedule)
    mean, spread = schedule.alpha(s) * x, schedule.sigma(s)
    z = torch.linspace(float(mean - 10 * spread), float(mean + 10 * spread), points, dtype=torch.float64)
    prior = _normal(z, mean, spread**2)
    likelihood = _normal(torch.full_like(z, z_t), scale * z, variance)
    product = prior * likelihood
    return Bells(z, prior, likelihood, product / torch.trapezoid(product, z))


def _normal(z: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    variance = torch.as_tensor(variance, dtype=torch.float64)
    return torch.exp(-((z - mean) ** 2) / (2 * variance)) / (2 * math.pi * variance).sqrt()


class Brightness(NamedTuple):
    """Variance of a mean brightness: E[m | z] explains `explained` of it, `left` stays open. float."""

    explained: float
    left: float


def brightness_variance(log_snr: float, pixels: int, start: str = "noise") -> Brightness:
    """Variance of the brightness m ~ N(0, 1) that sampling x = m 1 from q(x | z_1) gives.

    start: "noise" draws z_1 from N(0, I), as samplers do; "marginal" from the true q(z_1), which gives 1.
    """
    if start not in ("noise", "marginal"):
        raise ValueError(f"expected start 'noise' or 'marginal', got {start!r}")
    alpha, sigma = scales(log_snr)
    rest = sigma**2 / pixels  # variance of the mean of the noise
    total = alpha**2 + rest
    drawn = total if start == "marginal" else 1 / pixels
    return Brightness(alpha**2 * drawn / total**2, rest / total)


def sample_brightness(log_snr: float, pixels: int, n: int, seed: int = 0) -> Tensor:
    """n draws of m: pure noise z (n, pixels), then m from its exact posterior given z; float64."""
    generator = torch.Generator().manual_seed(seed)
    alpha, sigma = scales(log_snr)
    z = torch.randn(n, pixels, generator=generator)
    total = alpha**2 + sigma**2 / pixels
    mean = alpha * z.double().mean(1) / total
    return mean + math.sqrt(sigma**2 / pixels / total) * torch.randn(n, generator=generator, dtype=torch.float64)


# ---- drawings ----------------------------------------------------------------------------------------------

_COLORS = {"cosine": colors.z, "VP linear": colors.data, "sub-VP": colors.v, "VE": colors.eps}


def draw_log_snr(which: Mapping[str, Schedule] | None = None) -> Figure:
    """lambda over t, and the density over lambda that uniform t amounts to."""
    fig, (left, right) = figure(1, 2, width=8.8, height=3.2)
    t = torch.linspace(0.002, 0.998, 400, dtype=torch.float64)
    for name, schedule in (which or schedules()).items():
        log_snr = schedule.log_snr(t)
        color = _COLORS.get(name)
        left.plot(t, log_snr, color=color, label=name)
        density = -1 / torch.gradient(log_snr, spacing=(t,))[0]
        right.plot(log_snr, density, color=color, label=name)
    left.set(xlabel="$t$", ylabel=r"$\lambda_t$", title="log-SNR over time", ylim=(-15, 15))
    right.set(xlabel=r"$\lambda$", title=r"density of $\lambda$ for uniform $t$", xlim=(-15, 15), ylim=(0, 0.2))
    left.legend()
    return fig


def draw_clip(log_snr: float = 0.0, index: int = 0) -> Picture:
    """A clip, and the same clip at a log-SNR."""
    noisy = noisy_clip(log_snr, index)[0]
    alpha, sigma = scales(log_snr)
    title = f"λ = {log_snr:g}:  α = {alpha:.3f}, σ = {sigma:.3f}"
    return filmstrip([clip(index)[0], noisy], titles=["x", title], every=5, clip=True, size=84)


def draw_posterior(t: float = 0.6, s: float = 0.4, z_t: float = -0.2, x: float = 1.0) -> Figure:
    """The two bells, their product on a grid, and the closed-form posterior over it."""
    schedule = CosineSchedule()
    s = min(s, t - 0.01)
    drawn = bells(z_t, x, s, t, schedule)
    point = torch.tensor([z_t], dtype=torch.float64)
    mean, variance = posterior(point, torch.full_like(point, x), s, t, schedule)
    fig, ax = figure(width=6.0, height=3.1)
    wide = torch.linspace(-3.2, 4.2, 400, dtype=torch.float64)
    scale, noise = transition(s, t, schedule)
    ax.plot(drawn.z, drawn.prior, color=colors.data, label=r"$q(z_s\,|\,x)$")
    likelihood = _normal(wide, z_t / scale, noise / scale**2)  # as a density of z_s
    ax.plot(wide, likelihood, color=colors.eps, label=r"$q(z_t\,|\,z_s)$, scaled")
    ax.fill_between(drawn.z, drawn.product, color=colors.z, alpha=0.3, label="product, on a grid")
    ax.plot(
        drawn.z,
        _normal(drawn.z, mean, variance),
        "--",
        color=colors.exact,
        lw=1.5,
        label=r"$\mathcal{N}(\tilde\mu,\tilde\sigma^2)$",
    )
    ax.set(xlabel="$z_s$", xlim=(-3.2, 4.2), title=f"s = {s:.2f}, t = {t:.2f}")
    ax.legend(loc="upper right")
    return fig


def draw_sizes(log_snr: float = -1.0, index: int = 0, frame: int = 4) -> Figure:
    """One frame at 32 and 64 pixels with equal and with shifted log-SNR; noisy above, pooled to 16 below."""
    settings = ((32, 0.0, "32 px"), (64, 0.0, "64 px, same $\\lambda$"), (64, -2 * math.log(2), "64 px, shifted"))
    fig, axes = figure(2, 3, width=6.6, height=4.7)
    for column, (size, shift, title) in enumerate(settings):
        noisy = noisy_clip(log_snr + shift, index, size)[0, :, frame]
        pooled = torch.nn.functional.avg_pool2d(noisy, size // 16)
        image(axes[0, column], noisy, f"{title}: {log_snr + shift:.1f}")
        image(axes[1, column], pooled / scales(log_snr + shift)[0], "pooled to 16")
    return fig


def draw_brightness(levels: tuple[float, ...] = (-20.0, -5.4), pixels: int = 1024, n: int = 4000) -> Figure:
    """Brightness of samples that start from pure noise, for terminal log-SNRs, against the data's."""
    fig, axes = figure(1, len(levels), width=7.6, height=2.9, sharey=True, squeeze=False)
    grid = torch.linspace(-3.5, 3.5, 200, dtype=torch.float64)
    for ax, level in zip(axes[0], levels, strict=True):
        drawn = sample_brightness(level, pixels, n)
        ax.hist(drawn.numpy(), bins=50, range=(-3.5, 3.5), density=True, color=colors.eps, alpha=0.5, label="sampled")
        ax.plot(grid, _normal(grid, 0.0, 1.0), color=colors.data, label="data")
        ax.plot(
            grid,
            _normal(grid, 0.0, sum(brightness_variance(level, pixels))),
            "--",
            color=colors.exact,
            lw=1.5,
            label="predicted",
        )
        ax.set(xlabel="brightness $m$", title=f"terminal $\\lambda_1$ = {level:g}")
    axes[0, 0].legend()
    return fig
