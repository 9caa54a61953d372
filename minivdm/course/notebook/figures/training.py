"""Drawings of lesson 09: what a training writes down, by noise level, and what its times are worth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from minivdm.core.schedules import CosineSchedule, Schedule
from minivdm.course.notebook.style import colors, figure
from minivdm.training import monitor, pretrained
from minivdm.training.recipe import Recipe

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
    config: Recipe,
    bins: Sequence[int] = (0, 2, 4, 6, 9),
    title: str = "The training of the shipped weights, mean over five rows of its log",
) -> Figure:
    """The training loss and its parts by noise level, phases of the curriculum shaded; below it the rate."""
    train = curves["train"]
    fig, (top, low) = figure(2, 1, width=8.2, height=5.4, sharex=True, height_ratios=[3, 1])
    names = ["< −8", *(f"{a:g} … {b:g}" for a, b in zip(monitor.EDGES, monitor.EDGES[1:], strict=False)), "> 8"]
    for color, k in zip((colors.x, colors.observed, colors.v, colors.learned, colors.eps), bins, strict=False):
        top.plot(train["clips"], _smooth(train["loss_by_log_snr"][:, k]), linewidth=1.4, color=color,
                 label=rf"$\lambda$: {names[k]}")  # fmt: skip
    top.plot(train["clips"], _smooth(train["loss"]), color=colors.exact, linewidth=2.4, label="all of them")
    low.plot(train["clips"], train["lr"], color=colors.exact)
    start = 0
    for k, phase in enumerate(config.phases()):
        for axes in (top, low):
            axes.axvspan(start, min(phase.until, config.clips), color="#56B4E9", alpha=0.05 + 0.07 * k, linewidth=0)
        if min(phase.until, train["clips"][-1]) - start > train["clips"][-1] / 12:  # room for a label
            top.text(start + train["clips"][-1] / 150, 2.6, f"{phase.frames} frames", va="top", fontsize=10)
        start = phase.until
    top.set(yscale="log", ylim=(0.012, 3), ylabel=r"loss, mean of $(v-\hat v)^2$", title=title)
    top.legend(ncols=3, fontsize=10, loc="upper right", bbox_to_anchor=(1, 0.93))
    low.set(xlabel="clips", ylabel="learning rate", ylim=(0, None), xlim=(0, float(train["clips"][-1])))
    return fig


def error_by_stage(clips: np.ndarray, log_snr: np.ndarray, v_error: np.ndarray) -> Figure:
    """Held-out error of v over a training, the last stage = 1; clips (n,), log_snr (m,), v_error (n, m)."""
    fig, axes = figure(width=7.2, height=3.5)
    palette = (colors.x, colors.observed, colors.v, colors.learned, colors.eps, colors.z)
    for k, level in enumerate(log_snr):
        axes.plot(clips[1:], v_error[1:, k] / v_error[-1, k], "o-", color=palette[k % len(palette)],
                  label=rf"$\lambda = {level:g}$")  # fmt: skip
    axes.axhline(1, color=colors.exact, linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="clips seen", ylabel="error of $v$, at the end = 1",
             title="Held-out clips, averaged weights")  # fmt: skip
    axes.minorticks_off()
    ticks = [1, 1.5, 2, 3, 5, 10, 20]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    apart = [c for c, after in zip(clips[1:], [*clips[2:], np.inf], strict=True) if after > 1.8 * c]
    axes.set_xticks(apart, [f"{int(c):,}" for c in apart])
    axes.legend(ncols=2, fontsize=10)
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


# ---- helpers -------------------------------------------------------------------------------------------


def _smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    """Mean over the last `width` rows; NaN (nothing fell into a bin) is left out."""
    padded = np.concatenate([np.full(width - 1, np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    counts = np.isfinite(windows).sum(1)
    return np.divide(np.nansum(windows, 1), counts, out=np.full(len(values), np.nan), where=counts > 0)
