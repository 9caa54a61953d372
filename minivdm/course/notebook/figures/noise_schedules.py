r"""Lesson 02: log-SNR on clips, steps between noise levels, frame size, terminal SNR, other people's coordinates.

Every drawing is a pure function of its arguments. A level of noise is given by its log-SNR lambda, in the
variance-preserving process: alpha^2 = sigmoid(lambda), sigma^2 = sigmoid(-lambda).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core import (
    CosineSchedule,
    FlowSchedule,
    LinearSchedule,
    Schedule,
    SubVPSchedule,
    VESchedule,
    posterior,
    transition,
)
from minivdm.course.notebook.picture import Picture
from minivdm.course.notebook.strips import filmstrip
from minivdm.course.notebook.style import colors, figure, image
from minivdm.data import MovingMNIST


def schedules() -> dict[str, Schedule]:
    """The five of the lesson, by name."""
    return {
        "cosine": CosineSchedule(),
        "VP linear": LinearSchedule(),
        "sub-VP": SubVPSchedule(),
        "VE": VESchedule(0.01, 50.0),
        "flow": FlowSchedule(),
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


class GridPosterior(NamedTuple):
    """Density of z_s before z_t is seen, q(z_t | z_s) as a function of z_s, and their normalised product, (n,)."""

    z: Tensor
    prior: Tensor
    likelihood: Tensor
    product: Tensor


def grid_posterior(z_t: float, x: float, s: float, t: float, schedule: Schedule, points: int = 4001) -> GridPosterior:
    """Bayes' rule by brute force on a grid: no completing of squares."""
    scale, variance = transition(s, t, schedule)
    mean, spread = schedule.alpha(s) * x, schedule.sigma(s)
    z = torch.linspace(float(mean - 10 * spread), float(mean + 10 * spread), points, dtype=torch.float64)
    prior = _normal(z, mean, spread**2)
    likelihood = _normal(torch.full_like(z, z_t), scale * z, variance)
    product = prior * likelihood
    return GridPosterior(z, prior, likelihood, product / torch.trapezoid(product, z))


def _normal(z: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    variance = torch.as_tensor(variance, dtype=torch.float64)
    return torch.exp(-((z - mean) ** 2) / (2 * variance)) / (2 * math.pi * variance).sqrt()


class Coordinates(NamedTuple):
    """One noise level in four coordinates: DDPM's alpha-bar, EDM's sigma, flow matching's t, the log-SNR."""

    alpha_bar: float
    sigma_edm: float
    t_flow: float
    log_snr: float


def coordinates(**given: float) -> Coordinates:
    """All four names of the noise level that is given by one of them, as in coordinates(t_flow=0.5).

    Raises:
        ValueError: none, several or another one is given, or not 0 < alpha_bar, t_flow < 1, 0 < sigma_edm.
    """
    if len(given) != 1 or not set(given) <= set(Coordinates._fields):
        raise ValueError(f"expected one of {', '.join(Coordinates._fields)}, got {sorted(given)}")
    ((name, value),) = given.items()
    value = float(value)
    if name in ("alpha_bar", "t_flow") and not 0 < value < 1:
        raise ValueError(f"expected {name} between 0 and 1, got {value}")
    if name == "sigma_edm" and not value > 0:
        raise ValueError(f"expected sigma_edm > 0, got {value}")
    if name == "alpha_bar":
        value = math.log(value) - math.log1p(-value)
    elif name == "sigma_edm":
        value = -2 * math.log(value)
    elif name == "t_flow":
        value = 2 * (math.log1p(-value) - math.log(value))
    ratio = math.exp(-value / 2)  # sigma / alpha
    return Coordinates(1 / (1 + ratio**2), ratio, ratio / (1 + ratio), value)


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

_COLORS = {
    "cosine": colors.z,
    "VP linear": colors.data,
    "sub-VP": colors.v,
    "VE": colors.eps,
    "flow": colors.exact,
}


def draw_log_snr(which: Mapping[str, Schedule] | None = None, window: float = 4.0) -> Figure:
    """lambda over t, and the density over lambda that uniform t amounts to; the band is |lambda| < window."""
    fig, (left, right) = figure(1, 2, width=8.6, height=3.6)
    t = torch.linspace(0.002, 0.998, 400, dtype=torch.float64)
    left.axhspan(-window, window, color=colors.noise, alpha=0.12, lw=0)
    right.axvspan(-window, window, color=colors.noise, alpha=0.12, lw=0)
    for name, schedule in (which or schedules()).items():
        log_snr = schedule.log_snr(t)
        dashes = "--" if name in ("sub-VP", "flow") else "-"
        left.plot(t, log_snr, dashes, color=_COLORS.get(name), label=name)
        density = -1 / torch.gradient(log_snr, spacing=(t,))[0]
        right.plot(log_snr, density, dashes, color=_COLORS.get(name), label=name)
    left.set(xlabel="$t$", ylabel=r"$\lambda_t$", title="log-SNR over time", ylim=(-15, 15))
    right.set(xlabel=r"$\lambda$", title=r"density of $\lambda$ for uniform $t$", xlim=(-15, 15), ylim=(0, 0.2))
    left.legend()
    return fig


def draw_clip(log_snr: float = 0.0, index: int = 0) -> Picture:
    """A clip, and the same clip at a log-SNR."""
    noisy = noisy_clip(log_snr, index)[0]
    alpha, sigma = scales(log_snr)
    title = f"λ = {log_snr:g}:  α = {alpha:.3f}, σ = {sigma:.3f}"
    return filmstrip([clip(index)[0], noisy], titles=["x", title], every=3, clip=True, size=88)


def draw_fan(s: float = 0.3, t: float = 0.7, z_s: float = 1.4, x: float = 1.0) -> Figure:
    """Where z may be from 0 to t given x, and from s on once z_s is seen: bands of two standard deviations."""
    schedule = CosineSchedule()
    t = max(t, s + 0.01)
    fig, ax = figure(width=7.2, height=3.5)
    times = torch.linspace(0, t, 200, dtype=torch.float64)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    _band(ax, times, alpha * x, sigma, colors.data, r"$q(z_t\,|\,x)$: seen from $x$")
    later = torch.linspace(s + 1e-4, t, 200, dtype=torch.float64)
    scale, variance = transition(s, later, schedule)
    _band(ax, later, scale * z_s, variance.sqrt(), colors.eps, r"$q(z_t\,|\,z_s)$: seen from $z_s$")
    ax.plot(0, x, "o", color=colors.data, ms=8)
    ax.plot(s, z_s, "o", color=colors.eps, ms=8)
    ax.annotate("$z_s$", (s, z_s), textcoords="offset points", xytext=(-18, 6))
    ax.annotate("$x$", (0, x), textcoords="offset points", xytext=(-4, 9))
    old = 1 - float(variance[-1] / schedule.sigma(t) ** 2)
    ax.set(xlabel="time", ylabel="$z$", title=f"s = {s:g}, t = {t:g}: {100 * old:.0f} % of the noise at t is old")
    ax.legend(loc="lower left")
    return fig


def draw_bridge(t: float = 0.7, z_t: float = -0.4, x: float = 1.0) -> Figure:
    """q(z_s | z_t, x) for every s below t: a band that is pinned to x at one end and to z_t at the other."""
    schedule = CosineSchedule()
    times = torch.linspace(1e-4, t - 1e-4, 300, dtype=torch.float64)
    z = torch.full_like(times, z_t)
    mean, variance = posterior(z, torch.full_like(times, x), times, torch.full_like(times, t), schedule)
    fig, ax = figure(width=7.2, height=3.5)
    grid = torch.linspace(0, t, 200, dtype=torch.float64)
    _band(ax, grid, schedule.alpha(grid) * x, schedule.sigma(grid), colors.data, r"$q(z_s\,|\,x)$: knows $x$ only")
    _band(ax, times, mean, variance.sqrt(), colors.z, r"$q(z_s\,|\,z_t,x)$: knows both ends")
    ax.plot(0, x, "o", color=colors.data, ms=8)
    ax.plot(t, z_t, "o", color=colors.z, ms=8)
    ax.annotate("$z_t$", (t, z_t), textcoords="offset points", xytext=(6, -4))
    ax.annotate("$x$", (0, x), textcoords="offset points", xytext=(-4, 9))
    ax.set(xlabel="time $s$", ylabel="$z_s$", title=f"Between x = {x:g} and z at t = {t:g}")
    ax.legend(loc="lower left")
    return fig


def _band(ax: Axes, times: Tensor, mean: Tensor, std: Tensor, color: str, label: str) -> None:
    ax.fill_between(times, mean - 2 * std, mean + 2 * std, color=color, alpha=0.2, lw=0)
    ax.plot(times, mean, color=color, label=label + r", mean $\pm$ 2 std")


def draw_posterior(t: float = 0.6, s: float = 0.4, z_t: float = -0.2, x: float = 1.0) -> Figure:
    """The two Gaussians, their product on a grid, and the closed-form posterior over it."""
    schedule = CosineSchedule()
    s = min(s, t - 0.01)
    drawn = grid_posterior(z_t, x, s, t, schedule)
    point = torch.tensor([z_t], dtype=torch.float64)
    mean, variance = posterior(point, torch.full_like(point, x), s, t, schedule)
    fig, ax = figure(width=7.4, height=3.6)
    wide = torch.linspace(-3.2, 4.2, 400, dtype=torch.float64)
    scale, noise = transition(s, t, schedule)
    ax.plot(drawn.z, drawn.prior, color=colors.data, label=r"$q(z_s\,|\,x)$")
    likelihood = _normal(wide, z_t / scale, noise / scale**2)  # as a density of z_s
    ax.plot(wide, likelihood, color=colors.eps, label=r"$q(z_t\,|\,z_s)$ over $z_s$, scaled")
    ax.fill_between(drawn.z, drawn.product, color=colors.z, alpha=0.3, label="their product, on a grid")
    closed = _normal(drawn.z, mean, variance)
    ax.plot(drawn.z, closed, "--", color=colors.exact, lw=1.5, label=r"$\mathcal{N}(\tilde\mu,\tilde\sigma^2)$")
    for place, name, color in ((x, "$x$", colors.data), (z_t, "$z_t$", colors.eps)):
        ax.axvline(place, color=color, lw=1, ls=":")
        ax.annotate(name, (place, 1), xycoords=("data", "axes fraction"), textcoords="offset points", xytext=(3, -14))
    ax.set(xlabel="$z_s$", xlim=(-3.2, 4.2), title=f"s = {s:.2f}, t = {t:.2f}")
    ax.legend(loc="upper right")
    return fig


def draw_sizes(log_snr: float = -1.0, index: int = 0, frame: int = 4, seed: int = 0) -> Figure:
    """One frame at 32 and 64 pixels under *one* noise, at equal and at shifted log-SNR; pooled to 32 below.

    The small frame and its noise are the pooled large ones, the noise scaled to unit variance again. The lower row is
    divided by alpha, so that its signal is the same everywhere.
    """
    large = clip(index, 64)[0, :, frame]
    noise = torch.randn(large.shape, generator=torch.Generator().manual_seed(seed))
    pool = torch.nn.AvgPool2d(2)
    shift = -2 * math.log(2)
    fig, axes = figure(2, 3, width=7.6, height=5.4)
    settings = (
        (pool(large), 2 * pool(noise), log_snr, "32 px"),
        (large, noise, log_snr, "64 px"),
        (large, noise, log_snr + shift, "64 px, shifted"),
    )
    for column, (x, eps, level, title) in enumerate(settings):
        alpha, sigma = scales(level)
        noisy = alpha * x + sigma * eps
        image(axes[0, column], noisy, f"{title}: $\\lambda$ = {level:.1f}", low=-2, high=2)
        small = (noisy if column == 0 else pool(noisy)) / alpha
        below = "the same, / α" if column == 0 else "pooled to 32, / α"
        image(axes[1, column], small, below, low=-4, high=4)
    return fig


def draw_brightness(levels: tuple[float, ...] = (-20.0, -5.4), pixels: int = 1024, n: int = 4000) -> Figure:
    """Brightness of samples that start from pure noise, for terminal log-SNRs, against the data's."""
    fig, axes = figure(1, len(levels), width=8.4, height=3.2, sharey=True, squeeze=False)
    grid = torch.linspace(-3.5, 3.5, 200, dtype=torch.float64)
    for ax, level in zip(axes[0], levels, strict=True):
        drawn = sample_brightness(level, pixels, n)
        ax.hist(drawn.numpy(), bins=50, range=(-3.5, 3.5), density=True, color=colors.eps, alpha=0.5, label="sampled")
        ax.plot(grid, _normal(grid, 0.0, 1.0), color=colors.data, label="data")
        total = sum(brightness_variance(level, pixels))
        ax.plot(grid, _normal(grid, 0.0, total), "--", color=colors.exact, lw=1.5, label="predicted")
        ax.set(xlabel="brightness $m$", title=f"terminal $\\lambda_1$ = {level:g}")
    axes[0, 0].legend()
    return fig
