r"""Lesson 05: x, eps and v as vectors, what an error of one is to the others, weights, and trained networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch
from torch import Tensor

from minivdm.core import CosineSchedule, Denoise, diffuse, loss_weight, preconditioning
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
    made, axes = figure(width=6.5, height=3.9)
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
    axes.set(xlim=(-1.6, 1.95), ylim=(-0.6, 1.45), aspect="equal")
    of_x, of_eps = (f"{radius:.2f}" if radius < 100 else f"{radius:.1e}" for radius in radii)
    axes.set_title(f"{NAMES[target]} off by up to {error:.2f}: $\\hat x$ by {of_x}, $\\hat\\epsilon$ by {of_eps}")
    axes.set_axis_off()
    return made


def _arrow(axes: Axes, tip: tuple[float, float], shade: str, name: str) -> None:
    look = {"arrowstyle": "-|>", "color": shade, "lw": 2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", tip, (0, 0), arrowprops=look)
    label: dict[str, Any] = {"color": shade, "fontsize": 17, "ha": "center", "va": "center"}
    axes.text(1.2 * tip[0], 1.2 * tip[1], name, bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1}, **label)


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
    """Samples (n, 2) in panels, over the data's own in grey; those beyond `reach` are counted in the title."""
    data, _ = world().sample(600, torch.Generator().manual_seed(1))
    rows = math.ceil(len(points) / 3)
    made, axes = figure(rows, 3, width=7.8, height=2.8 * rows, squeeze=False)
    for place in axes.flat[len(points) :]:
        place.set_axis_off()
    for place, (name, z) in zip(axes.flat, points.items(), strict=False):
        outside = int((z.abs() > reach).any(dim=1).sum())
        place.plot(*data.T, ".", color=colors.noise, markersize=2, alpha=0.4, label="data")
        place.plot(*z[:600].double().T, ".", color=SHADES.get(name, colors.learned), markersize=2, label="samples")
        place.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        place.set_title(f"{NAMES.get(name, name)}\n{outside} of {len(z)} outside", fontsize=11)
    axes.flat[0].legend(loc="center", fontsize=9, markerscale=4, handletextpad=0.1)
    return made


def blocks() -> Figure:
    """EDM's preconditioning as a diagram: two ways from z to x_hat, and the noise level that steers them."""
    made, axes = figure(width=7.6, height=3.2)
    axes.set(xlim=(0, 10), ylim=(0, 4.2))
    axes.set_axis_off()
    boxes: dict[str, tuple[float, float, float, str, str]] = {
        "in": (2.0, 2.0, 1.3, r"$\times\,c_{\mathrm{in}}$", "white"),
        "F": (4.2, 2.0, 1.9, "network $F$", "#FCE9C4"),
        "out": (7.0, 2.0, 1.4, r"$\times\,c_{\mathrm{out}}$", "white"),
        "skip": (4.5, 3.5, 1.4, r"$\times\,c_{\mathrm{skip}}$", "white"),
        "noise": (4.2, 0.5, 1.9, r"$c_{\mathrm{noise}}=\frac{1}{4}\ln\frac{\sigma}{\alpha}$", "white"),
    }
    for left, middle, width, text, shade in boxes.values():
        box = FancyBboxPatch((left, middle - 0.35), width, 0.7, boxstyle="round,pad=0.05", fc=shade, ec="#555555")
        axes.add_patch(box)
        axes.text(left + width / 2, middle, text, ha="center", va="center", fontsize=13)
    look = {"arrowstyle": "-|>", "color": "#555555", "lw": 1.5, "shrinkA": 0, "shrinkB": 0}
    ways: list[tuple[tuple[float, float], tuple[float, float]]]
    ways = [((0.5, 2), (1.95, 2)), ((3.35, 2), (4.15, 2)), ((6.15, 2), (6.95, 2)), ((8.45, 2), (9.0, 2))]
    ways += [
        ((1.1, 3.5), (4.45, 3.5)),
        ((9.15, 3.5), (9.15, 2.17)),
        ((5.15, 0.9), (5.15, 1.6)),
        ((2.0, 0.5), (4.15, 0.5)),
    ]
    for start, end in ways:
        axes.annotate("", end, start, arrowprops=look)
    axes.plot([1.1, 1.1], [2, 3.5], color="#555555", lw=1.5)
    axes.plot([5.95, 9.15], [3.5, 3.5], color="#555555", lw=1.5)
    axes.annotate("", (9.85, 2), (9.3, 2), arrowprops=look)
    axes.add_patch(Circle((9.15, 2), 0.15, fc="white", ec="#555555"))
    axes.text(9.15, 2, "+", ha="center", va="center", fontsize=13)
    for x, y, text in ((0.3, 2.0, "$z$"), (9.98, 2.25, r"$\hat x$"), (1.85, 0.5, r"noise level $\lambda$")):
        axes.text(x, y, text, ha="right" if "level" in text else "center", va="center", fontsize=14)
    return made
