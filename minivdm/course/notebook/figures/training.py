"""Drawings of lesson 09, and the small closed forms that its training loop is held against."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core.schedules import CosineSchedule, Schedule
from minivdm.course.notebook.style import colors, figure
from minivdm.training import monitor, muon, pretrained
from minivdm.training.configs import TrainConfig

ERRORS = ["v", "x", "eps"]
Curves = Mapping[str, Mapping[str, np.ndarray]]

# ---- what the shipped training wrote down ------------------------------------------------------------------


@functools.cache
def shipped(name: str = "moving-mnist-32") -> Curves:
    """Metrics of the training of shipped weights, as `monitor.read_metrics` has them."""
    return monitor.read_metrics(pretrained.FOLDER / f"{name}.metrics.jsonl")


def levels() -> np.ndarray:
    """A log-SNR for each bin of the metrics, (bins,): its middle, or one beyond the edge for the open ones."""
    edges = np.array(monitor.EDGES)
    return np.concatenate([[edges[0] - 1], (edges[1:] + edges[:-1]) / 2, [edges[-1] + 1]])


def share_of_bins(schedule: Schedule) -> np.ndarray:
    """Share of uniformly drawn times whose log-SNR falls into each bin of the metrics, (bins,); sums to 1."""
    edges = schedule.time(torch.tensor(monitor.EDGES, dtype=torch.float64)).numpy()
    below = np.concatenate([[1.0], edges, [0.0]])  # t falls as log-SNR rises
    return below[:-1] - below[1:]


def loss_at(train: Mapping[str, np.ndarray], clips: float, spread: float = 1.25) -> np.ndarray:
    """Loss by bin, (bins,), averaged over the log from clips / spread to clips * spread; NaN where nothing fell."""
    near = (train["clips"] >= clips / spread) & (train["clips"] <= clips * spread)
    if not near.any():
        near = np.arange(len(train["clips"])) == np.abs(train["clips"] - clips).argmin()
    counts, losses = train["count_by_log_snr"][near], train["loss_by_log_snr"][near]
    total = counts.sum(0)
    return np.divide(np.nansum(losses * counts, 0), total, out=np.full(len(total), np.nan), where=total > 0)


def share_of_v(log_snr: np.ndarray, error: str) -> np.ndarray:
    """What turns an error of v into one of x (sigma^2) or eps (alpha^2), where variance is preserved."""
    if error not in ERRORS:
        raise ValueError(f"expected an error out of {ERRORS}, got {error!r}")
    sign = {"v": 0.0, "x": 1.0, "eps": -1.0}[error]
    return np.ones_like(log_snr) if error == "v" else 1 / (1 + np.exp(sign * log_snr))


def loss_by_log_snr(clips: int, error: str = "v", curves: Curves | None = None) -> Figure:
    """Loss by log-SNR around `clips` clips, before a grey line of what it is at the end."""
    train = (curves or shipped())["train"]
    where, last = levels(), float(train["clips"][-1])
    fig, axes = figure(width=5.6, height=3.4)
    factor = share_of_v(where, error)
    axes.plot(where, factor * loss_at(train, last), color=colors.noise, label=f"at the end ({last:,.0f} clips)")
    axes.plot(where, factor * loss_at(train, clips), "o-", color=colors.learned, label=f"around {clips:,} clips")
    names = {"v": r"v", "x": r"x", "eps": r"\epsilon"}
    axes.set(
        xlabel=r"log-SNR $\lambda$",
        ylabel=rf"mean of $({names[error]} - \hat {names[error]})^2$",
        yscale="log",
        title="Loss by noise level",
        ylim=(1e-5, 3) if error != "v" else (0.01, 1.5),
    )
    axes.legend()
    return fig


def loss_over_clips(
    curves: Curves,
    config: TrainConfig,
    bins: Sequence[int] = (0, 2, 4, 6, 8),
    title: str = "The training of the shipped weights",
) -> Figure:
    """The training loss and its parts by noise level, phases of the curriculum shaded; below it the rate."""
    train = curves["train"]
    fig, (top, low) = figure(2, 1, width=7.2, height=4.8, sharex=True, height_ratios=[3, 1])
    names = ["< −8", *(f"{a:g} … {b:g}" for a, b in zip(monitor.EDGES, monitor.EDGES[1:], strict=False)), "> 8"]
    for shade, k in zip(np.linspace(0.1, 0.85, len(bins)), bins, strict=True):
        top.plot(
            train["clips"],
            _smooth(train["loss_by_log_snr"][:, k]),
            linewidth=1.3,
            color=_viridis(shade),
            label=rf"$\lambda$: {names[k]}",
        )
    top.plot(train["clips"], _smooth(train["loss"]), color=colors.exact, label="all")
    low.plot(train["clips"], train["lr"], color=colors.exact)
    start = 0
    for k, phase in enumerate(config.phases()):
        for axes in (top, low):
            axes.axvspan(start, min(phase.until, config.clips), color="#56B4E9", alpha=0.05 + 0.07 * k, linewidth=0)
        if start < train["clips"][-1]:
            top.text(start + train["clips"][-1] / 150, 1.6, f"{phase.frames} frames", va="top", fontsize=10)
        start = phase.until
    top.set(yscale="log", ylim=(0.015, 1.8), ylabel="loss", title=title)
    top.legend(ncols=3, fontsize=9, loc="upper right", bbox_to_anchor=(1, 0.92))
    low.set(xlabel="clips", ylabel="learning rate", ylim=(0, None), xlim=(0, float(train["clips"][-1])))
    return fig


def error_by_stage(clips: np.ndarray, log_snr: np.ndarray, v_error: np.ndarray) -> Figure:
    """Held-out error of v over the stages of a training; clips (n,), log_snr (m,), v_error (n, m)."""
    fig, axes = figure(width=6.0, height=3.2)
    for k, level in enumerate(log_snr):
        axes.plot(
            clips[1:],
            v_error[1:, k],
            "o-",
            color=_viridis(0.1 + 0.75 * k / max(1, len(log_snr) - 1)),
            label=rf"$\lambda = {level:g}$",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="clips seen",
        ylabel=r"mean of $(v - \hat v)^2$",
        title="Held-out clips, averaged weights",
        ylim=(0.015, 1.1),
    )
    axes.minorticks_off()
    axes.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"])
    axes.legend(ncols=2)
    return fig


# ---- times -------------------------------------------------------------------------------------------------


def loss_of_time(train: Mapping[str, np.ndarray], schedule: Schedule) -> Callable[[np.ndarray], np.ndarray]:
    """The loss as a function of t, interpolated in log-SNR between the bins of the last tenth of a training."""
    values = loss_at(train, float(train["clips"][-1]), 1 / 0.9)

    def loss(t: np.ndarray) -> np.ndarray:
        where = schedule.log_snr(torch.as_tensor(t, dtype=torch.float64)).numpy()
        return np.interp(where, levels(), values)

    return loss


def spread_of_mean(loss: Callable[[np.ndarray], np.ndarray], n: int, fine: int = 40_000) -> tuple[float, float]:
    """Standard deviation of the mean of `loss` over n times, independent and stratified, by quadrature."""
    t = (np.arange(fine // n * n) + 0.5) / (fine // n * n)
    values = loss(t).reshape(n, -1)  # one row per stratum
    return float(values.std() / n**0.5), float(np.sqrt(values.var(1).mean() / n))


def stratified(n: int, curves: Curves | None = None, schedule: Schedule | None = None) -> Figure:
    """One draw of n times either way on the loss as a function of t, and the law of the batch's mean."""
    schedule = schedule or CosineSchedule()
    loss = loss_of_time((curves or shipped())["train"], schedule)
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 400)
    fig, (left, right) = figure(1, 2, width=8.4, height=3.0)
    left.plot(t, loss(t), color=colors.exact)
    for k in range(n + 1):
        left.axvline(k / n, color="#DDDDDD", linewidth=0.8)
    draws = {"independent": rng.random((4000, n)), "stratified": (np.arange(n) + rng.random((4000, n))) / n}
    stds = dict(zip(draws, spread_of_mean(loss, n), strict=True))
    top = float(loss(t).max())
    for k, (name, times) in enumerate(draws.items()):
        color = (colors.noise, colors.v)[k]
        left.plot(times[0], np.full(n, -0.06 * top * (k + 1)), "|", markersize=11, color=color, markeredgewidth=2)
        means = loss(times).mean(1)
        right.hist(
            means,
            60,
            range=(0, float(3 * loss(t).mean())),
            density=True,
            alpha=0.6,
            color=color,
            label=f"{name}: std {stds[name]:.4f}",
        )
    left.set(xlabel="$t$", ylabel="loss at $t$", title=f"{n} times, both ways", ylim=(-0.2 * top, None))
    right.set(xlabel="mean over the batch's times", yticks=[], title="What a step sees")
    right.legend()
    return fig


# ---- rate and averaging ------------------------------------------------------------------------------------


def lr_schedule(warmup: int, end: float, clips: int = 80_000) -> Figure:
    """Learning rate as a share of its peak over `clips` clips."""
    config = TrainConfig(lr=1.0, warmup=warmup, lr_end=end, clips=clips)
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
    """Standard deviation at which `descent` stays: sqrt(lr noise^2 / (curvature (2 - lr curvature)))."""
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
    deviations of where both come to rest. The gradient's noise has the curvature for its variance."""
    decay = 0.5 ** (1 / half_life_steps)
    fig, axes = figure(1, 2, width=8.4, height=3.0, sharey=True)
    for here, curvature, name in zip(axes, (1.0, flat), ("Steep", "Flat"), strict=True):
        noise = math.sqrt(curvature)
        path, mean = descent(lr, decay, steps, 1, curvature, noise, 8.0, torch.Generator().manual_seed(0))
        stds = spread_of_weights(lr, curvature, noise), spread_of_average(lr, decay, curvature, noise)
        here.plot(path[0], color=colors.noise, linewidth=1, label=f"weight: ± {stds[0]:.2f} at rest")
        here.plot(mean[0], color=colors.learned, label=f"average: ± {stds[1]:.2f} at rest")
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
    axes.axvspan(base.min() / base.mean(), base.max() / base.mean(), color=colors.observed, alpha=0.3, linewidth=0)
    for row, errors in enumerate(rows.values()):
        axes.plot(errors / base.mean(), np.full(len(errors), row), "o", color=colors.data, alpha=0.75)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set(
        xlabel=f"error of $\\hat x$ at $\\lambda = {log_snr:g}$, base recipe = 1", title="One thing changed at a time"
    )
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
    import json

    return json.loads(Path(path).read_text())


# ---- helpers -----------------------------------------------------------------------------------------------


def _smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    """Mean over the last `width` rows; NaN (nothing fell into a bin) is left out."""
    padded = np.concatenate([np.full(width - 1, np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    counts = np.isfinite(windows).sum(1)
    return np.divide(np.nansum(windows, 1), counts, out=np.full(len(values), np.nan), where=counts > 0)


def _viridis(share: float) -> tuple[float, float, float, float]:
    import matplotlib as mpl

    return mpl.colormaps["viridis"](share)
