"""Drawings of lesson 09: rate, averaging and optimizers, and the closed forms that they are held against."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.course.notebook.style import colors, figure
from minivdm.training import muon
from minivdm.training.recipe import Recipe

# ---- rate and averaging ------------------------------------------------------------------------------------


def lr_schedule(warmup: int, end: float, clips: int = 80_000) -> Figure:
    """Learning rate as a share of its peak over `clips` clips."""
    config = Recipe(lr=1.0, warmup=warmup, lr_end=end, clips=clips)
    at = np.linspace(0, clips, 500)
    fig, axes = figure(width=5.0, height=2.8)
    axes.plot(at, [config.lr_at(int(c)) for c in at])
    axes.set(xlabel="clips", ylabel="share of the peak rate", ylim=(-0.03, 1.05), title="Warm-up and decay")
    return fig


def half_life(decay: float) -> float:
    """Steps after which an average with this decay has forgotten half of what it knew."""
    return math.log(0.5) / math.log(decay)


def descent(
    lr: float,
    decay: float,
    steps: int,
    walks: int = 1,
    curvature: float = 1.0,
    noise: float = 1.0,
    start: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Noisy gradient descent on curvature * theta^2 / 2: theta and its moving average, each (walks, steps)."""
    theta, mean, path, averaged = torch.full((walks,), start).double(), torch.full((walks,), start).double(), [], []
    for xi in torch.randn(steps, walks, generator=generator, dtype=torch.float64):
        theta = theta - lr * (curvature * theta + noise * xi)
        mean = torch.lerp(mean, theta, 1 - decay)
        path.append(theta)
        averaged.append(mean)
    return torch.stack(path, 1), torch.stack(averaged, 1)


def spread_of_weights(lr: float, curvature: float = 1.0, noise: float = 1.0) -> float:
    """Standard deviation of `descent` in the long run: sqrt(lr noise^2 / (curvature (2 - lr curvature)))."""
    return math.sqrt(lr * noise**2 / (curvature * (2 - lr * curvature)))


def spread_of_average(lr: float, decay: float, curvature: float = 1.0, noise: float = 1.0) -> float:
    """The same for the average: V (1 - beta) / (1 + beta) (1 + beta rho) / (1 - beta rho), under the root."""
    rho = 1 - lr * curvature
    shrink = (1 - decay) / (1 + decay) * (1 + decay * rho) / (1 - decay * rho)
    return spread_of_weights(lr, curvature, noise) * math.sqrt(shrink)


def weight_of_start(steps: int, decay: float) -> float:
    """Share of the initial weights in the average after so many steps, with the loop's rising decay."""
    return math.exp(sum(math.log(min(decay, (1 + k) / (10 + k))) for k in range(1, steps + 1)))


def averaging(lr: float, half_life_steps: int, steps: int = 600, flat: float = 0.02) -> Figure:
    """Noisy descents from 8 in a direction of curvature 1 and one of `flat`, their averages, and ± 2 standard
    deviations of both in the long run. The gradient's noise has the curvature for its variance."""
    decay = 0.5 ** (1 / half_life_steps)
    fig, axes = figure(1, 2, width=8.4, height=2.6, sharey=True)
    for here, curvature, name in zip(axes, (1.0, flat), ("Steep", "Flat"), strict=True):
        noise = math.sqrt(curvature)
        path, mean = descent(lr, decay, steps, 1, curvature, noise, 8.0, torch.Generator().manual_seed(0))
        stds = spread_of_weights(lr, curvature, noise), spread_of_average(lr, decay, curvature, noise)
        here.plot(path[0], color=colors.noise, linewidth=1, label=f"weight: std {stds[0]:.2f} (band: ± 2)")
        here.plot(mean[0], color=colors.learned, label=f"average: std {stds[1]:.2f} (band: ± 2)")
        for std, color in zip(stds, (colors.noise, colors.learned), strict=True):
            here.axhspan(-2 * std, 2 * std, color=color, alpha=0.18, linewidth=0)
        here.set(xlabel="step", ylim=(-3, 8.5), title=f"{name} direction, $h = {curvature:g}$")
        here.legend()
    axes[0].set(ylabel="distance from the optimum")
    return fig


# ---- Muon --------------------------------------------------------------------------------------------------


def quintic(singular: Tensor, steps: int = 5) -> Tensor:
    """What the iteration of Muon makes of singular values at most 1: the scalar polynomial, `steps` times."""
    a, b, c = muon.QUINTIC
    for _ in range(steps):
        singular = a * singular + b * singular**3 + c * singular**5
    return singular


def singular_values(gradient: Tensor) -> Figure:
    """Singular values of a gradient (rows, cols) before and after Muon; on the right the polynomial iterated."""
    before = torch.linalg.svdvals(gradient.double())
    after = torch.linalg.svdvals(muon.newton_schulz(gradient[None])[0].double())
    fig, (left, right) = figure(1, 2, width=8.4, height=3.0)
    left.semilogy(before / before[0], "o-", markersize=3, color=colors.noise, label="gradient (largest = 1)")
    left.semilogy(after, "o-", markersize=3, color=colors.learned, label="Muon's update")
    left.set(xlabel="index", ylabel="singular value", title="One layer's gradient", ylim=(1e-4, 3))
    left.legend()
    x = torch.linspace(0, 1, 600).double()
    for steps in (1, 2, 3, 5):
        right.plot(x, quintic(x, steps), color=_viridis(0.1 + 0.16 * steps), linewidth=1.5, label=str(steps))
    right.set(xlabel="singular value", title="The polynomial, iterated", ylim=(0, 1.35))
    right.legend(title="steps", loc="lower right", ncols=2)
    return fig


# ---- the measured tricks -----------------------------------------------------------------------------------


def final_errors(results: Mapping[str, Any], name: str, weights: str = "ema", log_snr: float = 0.0) -> np.ndarray:
    """Held-out error of x at the end of a variant's runs, (seeds,)."""
    column = results["held_out"]["log_snr"].index(log_snr)
    return np.array([run["curve"][-1][weights][column] for run in results["variants"][name]["runs"]])


def tricks(results: Mapping[str, Any], log_snr: float = 0.0) -> Figure:
    """Error of each variant over the base's, a dot per seed; the band is the base's own range."""
    base = final_errors(results, "base", log_snr=log_snr)
    names = [name for name in results["variants"] if not name.startswith(("base", "muon", "adamw"))]
    fig, axes = figure(width=7.2, height=0.5 * len(names) + 1.6)
    rows = {"raw weights instead of the average": final_errors(results, "base", "raw", log_snr)}
    rows |= {name: final_errors(results, name, log_snr=log_snr) for name in names}
    axes.axvspan(
        base.min() / base.mean(),
        base.max() / base.mean(),
        color=colors.observed,
        alpha=0.3,
        linewidth=0,
        label="the base recipe's own seeds",
    )
    for row, errors in enumerate(rows.values()):
        axes.plot(errors / base.mean(), np.full(len(errors), row), "o", color=colors.data, alpha=0.75)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set(
        xlabel=f"error of $\\hat x$ at $\\lambda = {log_snr:g}$, base recipe = 1", title="One thing changed at a time"
    )
    axes.legend(loc="upper right", fontsize=10)
    return fig


def optimizers(results: Mapping[str, Any], log_snr: float = 0.0) -> Figure:
    """Error over learning rate for both optimizers, and raw against averaged weights along the way."""
    fig, (left, right) = figure(1, 2, width=9.0, height=3.4)
    for name, color in (("muon", colors.learned), ("adamw", colors.data)):
        found = {
            float(key.split()[1]): final_errors(results, key, log_snr=log_snr)
            for key in results["variants"]
            if key.startswith(name + " ")
        }
        if results["base"]["optimizer"] == name:
            found[results["base"]["lr"]] = final_errors(results, "base", log_snr=log_snr)
        rates = sorted(found)
        left.plot(
            rates, [found[lr].mean() for lr in rates], color=color, label={"muon": "Muon", "adamw": "AdamW"}[name]
        )
        for lr in rates:
            left.plot([lr] * len(found[lr]), found[lr], "o", color=color, markersize=3.5)
    left.set(
        xscale="log",
        xlabel="learning rate",
        ylabel=rf"error of $\hat x$, $\lambda = {log_snr:g}$",
        title="Rate and optimizer",
    )
    left.minorticks_off()
    ticks = sorted({float(rate) for line in left.lines for rate in line.get_xdata()})
    left.set_xticks(ticks, [f"{rate:g}" for rate in ticks])
    left.legend()
    for name, style, words in (("base", "-", "decaying rate"), ("no decay", "--", "constant rate")):
        for weights, color in (("raw", colors.noise), ("ema", colors.learned)):
            label = f"{'average' if weights == 'ema' else 'raw'}, {words}"
            _mean_curve(right, results, name, weights, log_snr, color=color, linestyle=style, label=label)
    right.set(xlabel="clips", title="Raw and averaged weights", ylim=(0, None))
    right.legend(fontsize=9)
    return fig


def _mean_curve(axes: Axes, results: Mapping[str, Any], name: str, weights: str, log_snr: float, **look: Any) -> None:
    column = results["held_out"]["log_snr"].index(log_snr)
    runs = results["variants"][name]["runs"]
    clips = [row["clips"] for row in runs[0]["curve"]]
    values = np.array([[row[weights][column] for row in run["curve"]] for run in runs])
    axes.plot(clips, values.mean(0), **look)


def read_results(path: str | Path) -> dict[str, Any]:
    """What benchmarks/training_tricks.py wrote. Raises FileNotFoundError."""
    return json.loads(Path(path).read_text())


def _viridis(share: float) -> tuple[float, float, float, float]:
    return mpl.colormaps["viridis"](share)
