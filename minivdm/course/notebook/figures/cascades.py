"""Lesson 14: what a wrong base stage does to a cascade where everything is known, weights in turn, measured stages."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core import Denoise, Denoiser, Guided, classifier_free, dynamically_thresholded, samplers
from minivdm.course.notebook.figures.text_to_video import SCHEDULE, compass_world, meaning
from minivdm.course.notebook.style import colors, figure
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.exact import GaussianVideo, Law
from minivdm.exact.gaussian_cascade import GaussianCascade, block_means
from minivdm.systems import imagen_video
from minivdm.systems.imagen_video import shrunk

RESULTS = Path(__file__).parents[4] / "benchmarks" / "results"


def clips(count: int = 4) -> tuple[Tensor, Tensor]:
    """Test clips of one digit (count, 1, 16, 32, 32), and their labels."""
    made = MovingMNIST(split="test", speed=0.9).clips(torch.arange(count))
    return made.video, made.labels


def ladder(x: Tensor) -> dict[str, Tensor]:
    """What each stage has to make of a clip (b, 1, 16, 32, 32): its own smaller selves."""
    return {"base": shrunk(x, 2, 2), "TSR": shrunk(x, 1, 2), "SSR": x}


def side_by_side(x: Tensor) -> list[Tensor]:
    """The ladder's clips at one size, (1, 16, 32, 32) each: pixels and frames repeated, so that they can be played."""
    return [
        small[0].repeat_interleave(16 // small.shape[2], 1).repeat_interleave(32 // small.shape[3], 2)
        .repeat_interleave(32 // small.shape[4], 3)
        for small in ladder(x).values()
    ]  # fmt: skip


# ---- the exact cascade


@functools.cache
def exact(correlation: float = 0.9) -> GaussianCascade:
    """The second stage over sixteen frames of one pixel, told the means of pairs. correlation: that it believes in."""
    return GaussianCascade(GaussianVideo(16, correlation), block_means(16))


@functools.cache
def bases() -> dict[str, Law]:
    """What a first stage may make: the truth, too much of everything, white noise of variance 0.1 on top."""
    low = exact().low
    noise = 0.1 * torch.eye(len(low.covariance), dtype=torch.float64)
    return {
        "exact": low,
        "variance x 1.2": Law(low.mean, 1.2 * low.covariance),
        "white noise 0.1": Law(low.mean, low.covariance + noise),
    }


def distance(base: Law, level: float, correlation: float = 0.9) -> float:
    """W2 between the data and what the cascade makes of this base. correlation: that the second stage believes in."""
    return exact().video.wasserstein(exact(correlation).made(base, level))


def draw_cascade(level: float = 1.6, correlation: float = 0.9) -> Figure:
    """Distance from the data over the log-SNR of the condition, for three bases, with a mark at one level."""
    levels = torch.linspace(12, -4, 41).tolist()
    made, axes = figure(width=6.6, height=3.4)
    palette = (colors.exact, colors.v, colors.eps)
    for (name, base), color in zip(bases().items(), palette, strict=True):
        here = distance(base, level, correlation)
        axes.plot(levels, [distance(base, s, correlation) for s in levels], color=color, label=f"{name}: {here:.3f}")
        axes.plot([level], [here], "o", color=color)
    axes.axvline(level, color=colors.noise, lw=1)
    axes.set(xlabel="log-SNR of the small clip: clean (left), noised (right)", ylabel="$W_2$ to the data")
    axes.set(xlim=(12, -4), ylim=(-0.02, 1.1), title=f"the second stage believes in a correlation of {correlation:g}")
    axes.legend(title="base", loc="upper left")
    return made


# ---- guidance


def saturated(denoiser: Denoiser, z: Tensor, t: float, labels: Tensor, weight: float) -> dict[str, Tensor]:
    """A guided estimate, and what two ways of thresholding make of it."""
    guided = classifier_free(denoiser.given(labels), denoiser.given(None), weight)
    with torch.no_grad():
        x_hat = guided(z, t)
        once = Guided(lambda z, t: x_hat, denoiser.schedule)
        return {
            "as it is": x_hat,
            "thresholded": dynamically_thresholded(once)(z, t),
            "thresholded from -1": imagen_video.thresholded_from(once)(z, t),
        }


def points_of(how: str, steps: int = 64, count: int = 1200, strong: float = 15.0, weak: float = 1.0) -> Tensor:
    """Points (count, 2) for the sentence "up and right" among eight directions, guided in one of the ways:
    "constant w" for any number w, or "in turn"."""
    denoise = compass_world().denoiser(SCHEDULE)
    told, free = denoise.given(meaning(1)), denoise.given(None)
    guided: Denoise
    if how == "in turn":
        times = samplers.uniform_in_t(steps, SCHEDULE)
        guided = imagen_video.oscillating(told, free, times, (strong, weak))
    else:
        guided = classifier_free(told, free, float(how.removeprefix("constant ")))
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return samplers.sample(guided, noise, steps)


def off(points: Tensor) -> tuple[float, float]:
    """Of `points_of`: how far their mean is from where the sentence points, and their spread over the true one."""
    world = compass_world()
    true = math.sqrt(float(world.covariances[1].trace()) / 2)
    return float((points.mean(0) - world.means[1]).norm()), float(points.var(0).mean().sqrt()) / true


def draw_turns(sets: Mapping[str, Tensor]) -> Figure:
    """Sets of points beside each other, over the eight directions."""
    made, axes = figure(1, len(sets), width=7.8, height=2.5, sharex=True, sharey=True)
    for one, (name, points) in zip(axes, sets.items(), strict=True):
        one.plot(*points[:500].T, ".", color=colors.data, markersize=2, alpha=0.5)
        one.plot(*compass_world().means.T, "x", color=colors.exact)
        one.set(title=name, xlim=(-1.6, 3), ylim=(-1.6, 3), aspect="equal")
    return made


# ---- trained stages


def kept(name: str) -> dict[str, Any] | None:
    """What benchmarks/train_NAME.py measured, or None where that is not kept."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def lines(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """A table of figures with their 95 % intervals; shares in per cent."""
    width = max(map(len, rows), default=0)
    said = [f"{'':{width}s}  " + "  ".join(f"{column:>22s}" for column in columns)]
    for name, row in rows.items():
        cells = []
        for column in columns:
            value = row.get(column)
            cells.append(f"{'':22s}" if value is None else f"{_figure(value):>22s}")
        said.append(f"{name:{width}s}  " + "  ".join(cells))
    return said


def _figure(value: float | Sequence[float]) -> str:
    if isinstance(value, (int, float)):
        return f"{value:.2f}"
    middle, low, high = value
    size = abs(middle)
    digits = 1 if size >= 10 else 2 if size >= 0.1 else 4 if 0 < size < 0.01 else 3
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def sweep(rows: Mapping[str, Mapping[str, Any]], source: str, column: str) -> dict[float, list[float]]:
    """A figure with its interval for each level at which small clips were given: log-SNR -> (value, low, high).

    source: what the names of the rows begin with, such as "made" in "made, log-SNR 4".
    """
    start = f"{source}, log-SNR "
    return {
        float(k.removeprefix(start)): row[column] for k, row in rows.items() if k.startswith(start) and column in row
    }


def draw_sweep(rows: Mapping[str, Mapping[str, Any]], column: str, sources: Sequence[str] = ("made", "true")) -> Figure:
    """A measured figure over the log-SNR of the condition, for small clips of several sources; without augmentation
    as a dashed level with its interval."""
    made, axes = figure(1, len(sources), width=2.0 + 2.8 * len(sources), height=3.0, sharey=True)
    for one, source in zip(axes if len(sources) > 1 else [axes], sources, strict=True):
        points = sweep(rows, source, column)
        levels = sorted(points, reverse=True)
        value, low, high = (torch.tensor([points[level][k] for level in levels]) for k in range(3))
        ends = torch.stack([value - low, high - value]).clamp(min=0)
        one.errorbar(levels, value, ends, fmt="o-", color=colors.data, capsize=3, label="with augmentation")
        plain = rows.get(f"{source}, no augmentation", {})
        if column in plain:
            one.axhline(plain[column][0], color=colors.eps, ls="--", label="without")
            one.axhspan(*plain[column][1:], color=colors.eps, alpha=0.15, lw=0)
        one.set(xlabel="log-SNR of the small clip", title=f"small clips: {source}", xlim=(6.5, -2.5))
    (axes[0] if len(sources) > 1 else axes).legend(fontsize=8)
    made.supylabel(column)
    return made
