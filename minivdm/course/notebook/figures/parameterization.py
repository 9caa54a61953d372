r"""Lesson 05: x, eps and v as vectors, what an error of one is to the others, weights, and trained networks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from minivdm.core import Denoise, loss_weight, preconditioning
from minivdm.core.gaussian import diffuse
from minivdm.core.schedules import CosineSchedule
from minivdm.course.notebook.style import colors, figure
from minivdm.exact import GaussianMixture

SCHEDULE = CosineSchedule()
"""VDM's own: variance preserving, lambda from 20 down to -20."""

NAMES = {
    "x": "$x$",
    "eps": r"$\epsilon$",
    "v": "$v$",
    "score": "score",
    "edm": "EDM",
    "clipped eps": r"$\epsilon$, clipped",
}
SHADES = {
    "x": colors.x,
    "eps": colors.eps,
    "v": colors.v,
    "score": colors.z,
    "edm": colors.learned,
    "clipped eps": colors.eps,
}


def world() -> GaussianMixture:
    """The lesson's data: eight round blobs of standard deviation 0.1 on the unit circle."""
    return GaussianMixture.ring()


# ---- the angle ---------------------------------------------------------------------------------------------


def vectors(phi: float = 0.6, target: str = "v", error: float = 0.12) -> Figure:
    """The plane of x and eps, of equal length and at right angles, with z and v at the angle phi.

    The predicted one may lie anywhere in a disc of radius `error`; dashed circles show where x_hat and eps_hat then
    may lie.
    """
    made, axes = figure(width=4.6, height=4.0)
    z, v = (math.cos(phi), math.sin(phi)), (-math.sin(phi), math.cos(phi))
    tips = {"x": (1.0, 0.0), "eps": (0.0, 1.0), "v": v}
    for name, tip in tips.items():
        _arrow(axes, tip, SHADES[name], NAMES[name])
    _arrow(axes, z, colors.z, "$z$")
    angle = torch.linspace(0, phi, 60)
    axes.plot(0.3 * angle.cos(), 0.3 * angle.sin(), color=colors.noise, linewidth=1)
    axes.text(0.36 * math.cos(phi / 2), 0.36 * math.sin(phi / 2), r"$\phi$", ha="center", va="center")
    log_snr = torch.tensor([-2 * math.log(math.tan(phi))], dtype=torch.float64)
    radii = [factor.item() * error for factor in error_factors(target, log_snr)]
    axes.add_patch(Circle(tips[target], error, color=SHADES[target], alpha=0.3, linewidth=0))
    for name, radius in zip(("x", "eps"), radii, strict=True):
        if name != target:
            axes.add_patch(Circle(tips[name], radius, fill=False, color=SHADES[name], linestyle="--"))
    axes.set(xlim=(-1.35, 1.65), ylim=(-1.0, 1.5), aspect="equal")
    of_x, of_eps = (f"{radius:.2f}" if radius < 100 else f"{radius:.1e}" for radius in radii)
    axes.set_title(f"{NAMES[target]} within {error:.2f}: $\\hat x$ within {of_x}, $\\hat\\epsilon$ within {of_eps}")
    axes.set_axis_off()
    return made


def _arrow(axes: Axes, tip: tuple[float, float], shade: str, name: str) -> None:
    look = {"arrowstyle": "-|>", "color": shade, "lw": 2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", tip, (0, 0), arrowprops=look)
    axes.text(1.22 * tip[0], 1.22 * tip[1], name, color=shade, fontsize=14, ha="center", va="center")


# ---- errors and weights ------------------------------------------------------------------------------------


def error_factors(target: str, log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Error of x_hat, and of eps_hat, per error of `target` in a variance-preserving process; log_snr: (n,)."""
    alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    of_x = preconditioning(target, alpha, sigma).out.abs()
    return of_x, alpha / sigma * of_x


def exchange() -> Figure:
    """What an error of size 1 in each of the four predictions is to x_hat and to eps_hat, by log-SNR."""
    log_snr = torch.linspace(-20, 20, 201, dtype=torch.float64)
    made, (left, right) = figure(1, 2, width=7.6, height=3.0, sharey=True)
    for name, width in (("x", 5), ("eps", 5), ("v", 2), ("score", 2)):  # where two agree, both show
        for axes, factor in zip((left, right), error_factors(name, log_snr), strict=True):
            axes.semilogy(log_snr, factor, color=SHADES[name], label=NAMES[name], linewidth=width)
    left.set(ylim=(1e-5, 1e5), xlabel="log-SNR $\\lambda$", title="error of $\\hat x$ per error of …")
    right.set(xlabel="log-SNR $\\lambda$", title="error of $\\hat\\epsilon$ per error of …")
    left.legend(loc="lower left")
    return made


def weightings(min_snr_gamma: float = 5.0) -> Figure:
    """Six weights on the squared error of x_hat, by log-SNR."""
    log_snr = torch.linspace(-9, 9, 181, dtype=torch.float64)
    t = SCHEDULE.time(log_snr)
    labels = {
        "x": "1  ($x$)",
        "eps": "SNR  ($\\epsilon$)",
        "v": "SNR + 1  ($v$)",
        "truncated_snr": "max(SNR, 1)",
        "min_snr": f"min(SNR, {min_snr_gamma:g})",
    }
    shades = {**SHADES, "truncated_snr": colors.exact, "min_snr": colors.learned}
    made, axes = figure(width=6.4, height=3.4)
    for name, label in labels.items():
        weight = loss_weight(name, t, SCHEDULE, min_snr_gamma=min_snr_gamma)
        style = "--" if name in ("truncated_snr", "min_snr") else "-"
        width = 5 if name in ("x", "eps") else 2
        axes.semilogy(log_snr, weight, style, color=shades[name], label=label, linewidth=width)
    axes.set(ylim=(1e-3, 1e3), xlabel="log-SNR $\\lambda$", ylabel="$w(\\lambda)$")
    axes.set_title(r"weight of $\Vert x-\hat x\Vert^2$")
    axes.legend(loc="upper left", fontsize=9)
    return made


# ---- trained networks --------------------------------------------------------------------------------------


@torch.no_grad()
def distance_from_exact(denoise: Denoise, log_snr: Tensor, samples: int = 1000, seed: int = 0) -> Tensor:
    """Root mean square of x_hat - E[x | z] per value, at each log-SNR, (n,), float64, over points of the world."""
    ring, schedule = world(), denoise.schedule
    exact, generator = ring.denoiser(schedule), torch.Generator().manual_seed(seed)
    x, _ = ring.sample(samples, generator)
    eps = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    found = []
    for t in schedule.time(log_snr).clamp(0, 1):
        z = diffuse(x, t, schedule, eps)
        error = denoise(z.float(), t).double() - exact(z, t)
        found.append(error.square().mean().sqrt())
    return torch.stack(found)


def by_log_snr(log_snr: Tensor, errors: Mapping[str, Tensor]) -> Figure:
    """Distances of trained denoisers from the exact one, in x_hat and in eps_hat. errors: target -> (n,), of x_hat."""
    made, (left, right) = figure(1, 2, width=7.6, height=3.2, sharey=True)
    for name, error in errors.items():
        left.semilogy(log_snr, error, "o-", color=SHADES[name], label=NAMES[name], markersize=3)
        right.semilogy(log_snr, torch.exp(log_snr / 2) * error, "o-", color=SHADES[name], markersize=3)
    left.set(ylim=(1e-4, 1e4), xlabel="log-SNR $\\lambda$", title="error of $\\hat x$")
    right.set(xlabel="log-SNR $\\lambda$", title="error of $\\hat\\epsilon$")
    left.legend(loc="upper right")
    return made


def clouds(points: Mapping[str, Tensor], reach: float = 1.8) -> Figure:
    """Samples (n, 2) side by side, over the data's own; those beyond `reach` are counted in the title."""
    data, _ = world().sample(600, torch.Generator().manual_seed(1))
    made, axes = figure(1, len(points), width=2.1 * len(points), height=2.5, squeeze=False)
    for place, (name, z) in zip(axes[0], points.items(), strict=True):
        outside = (z.abs() > reach).any(dim=1).double().mean().item()
        place.plot(*data.T, ".", color=colors.noise, markersize=2, alpha=0.4)
        place.plot(*z[:600].double().T, ".", color=SHADES.get(name, colors.data), markersize=2)
        place.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
        title = NAMES.get(name, name)
        place.set_title(f"{title}: {outside:.0%} outside" if outside > 0.005 else title, fontsize=11)
        place.grid(False)
    return made
