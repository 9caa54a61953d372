"""Drawings of lesson 12: which metric notices a damage done to clips on purpose."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from minivdm.course.notebook.figures.corruptions import CORRUPTIONS, real_clips
from minivdm.course.notebook.style import colors, figure, image
from minivdm.data.files import load_digits
from minivdm.measure import frechet, metrics, seams, tracks

# ---- metrics -------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def reference(count: int = 192) -> Tensor:
    """Real clips that the sets are compared with, and that nothing else uses."""
    return real_clips(10_000, count).video


@functools.lru_cache(maxsize=1)
def reference_features() -> tuple[Tensor, Tensor]:
    """Features of all frames (n, 64) and of all clips (n, 64) of `reference`."""
    return frechet.features(reference())[0].flatten(0, 1), frechet.clip_features(reference())


def without_target(videos: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of a set of clips that need no target video."""
    frames, clips = reference_features()
    reading = metrics.read(videos)  # once, for the four columns that rest on it
    return {
        "frame distance": frechet.frechet(frechet.features(videos)[0].flatten(0, 1), frames),
        "clip distance": frechet.frechet(frechet.clip_features(videos), clips),
        "reader score": frechet.reader_score(videos, reading),
        "legibility": metrics.legibility(videos, labels, reading),
        "identity": metrics.identity(videos, reading),
        "every frame": float(metrics.same_in_every_frame(videos, labels, reading).float().mean()),
        "rigidity": float(tracks.rigidity(videos).mean()),
        "track deviation": float(tracks.track_deviation(videos).clamp(max=9).mean()),
        "consistency": float(seams.feature_consistency(videos).mean()),
        "seam": float(seams.block_seam(videos, [videos.shape[2] // 2]).clamp(max=9).mean()),
    }


def with_target(videos: Tensor, target: Tensor) -> dict[str, float]:
    """Metrics that compare each clip with its own target; PSNR at most 99 dB."""
    return {
        "PSNR": float(metrics.psnr(videos, target, of="clip").clamp(max=99).mean()),
        "SSIM": float(metrics.ssim(videos, target).mean()),
    }


@functools.lru_cache(maxsize=256)
def measured(corruption: str, strength: float, count: int = 64) -> dict[str, float]:
    """All metrics of corrupted test clips. corruption: one of CORRUPTIONS."""
    clips = real_clips(0, count)
    videos = CORRUPTIONS[corruption](clips, strength)
    return with_target(videos, clips.video) | without_target(videos, clips.labels)


@functools.lru_cache(maxsize=64)
def per_clip(corruption: str, strength: float, count: int = 32) -> dict[str, float]:
    """The metrics that are means over clips, of corrupted test clips; quick, as no set is compared with another."""
    clips = real_clips(0, count)
    videos = CORRUPTIONS[corruption](clips, strength)
    reading = metrics.read(videos)
    return {
        "PSNR": float(metrics.psnr(videos, clips.video, of="clip").clamp(max=99).mean()),
        "identity": metrics.identity(videos, reading),
        "every frame": float(metrics.same_in_every_frame(videos, clips.labels, reading).float().mean()),
        "rigidity": float(tracks.rigidity(videos).mean()),
        "track deviation": float(tracks.track_deviation(videos).clamp(max=9).mean()),
        "consistency": float(seams.feature_consistency(videos).mean()),
    }


@functools.lru_cache(maxsize=2)
def spread_of_real(sets: int = 4, count: int = 64) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each metric without target over disjoint sets of real clips."""
    found = [
        without_target(real_clips(k * count, count).video, real_clips(k * count, count).labels) for k in range(sets)
    ]
    values = {name: torch.tensor([row[name] for row in found]) for name in found[0]}
    return {name: (float(v.mean()), float(v.std())) for name, v in values.items()}


def alarmed(name: str, value: float) -> bool:
    """Whether a metric gives a damage away.

    Distances: 1.5 times that of real sets. PSNR below 35 dB, SSIM below 0.95. Others: 4 standard deviations away.
    """
    return severity(name, value) > 1


def severity(name: str, value: float) -> float:
    """How far a metric is from that of real clips, in units of what raises its alarm (`alarmed`)."""
    if name in ("PSNR", "SSIM"):
        alarm = {"PSNR": 35.0, "SSIM": 0.95}[name]
        return (99.0 - value) / (99.0 - alarm) if name == "PSNR" else (1 - value) / (1 - alarm)
    mean, std = spread_of_real()[name]
    if name.endswith("distance"):
        return (value - mean) / (0.5 * mean)
    return abs(value - mean) / (4 * max(std, 0.01))


# ---- closed forms --------------------------------------------------------------------------------------------------


def bias_of_frechet(d: int, n: int, m: int) -> float:
    """Expected Fréchet distance of n and m draws of one white Gaussian in d dimensions, to first order in 1/n, 1/m."""
    return (1 / n + 1 / m) * d * (d + 5) / 4


def white_distances(d: int, counts: Sequence[int], repeats: int = 4) -> list[float]:
    """Mean measured Fréchet distance of two sets of n draws of one white Gaussian, for each n."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for n in counts:
        pairs = torch.randn(repeats, 2, n, d, generator=generator, dtype=torch.float64)
        found.append(sum(frechet.frechet(*pair) for pair in pairs) / repeats)
    return found


def extrapolated(counts: Sequence[int], distances: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of a straight line through the distances over 1/n: the distance at n = infinity first."""
    x = torch.tensor([1 / n for n in counts], dtype=torch.float64)
    y = torch.tensor(distances, dtype=torch.float64)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return float(y.mean() - slope * x.mean()), float(slope)


def standard_error(share: float, n: int) -> float:
    """Of a share found in n independent clips."""
    return math.sqrt(share * (1 - share) / n)


# ---- copies -------------------------------------------------------------------------------------------------------


def digits_of(split: str) -> Tensor:
    """The digits of a split as clips of 32x32 show them, (n, 14, 14), ink in [0, 1]."""
    pixels = load_digits(None, split).images.float() / 255
    return functional.avg_pool2d(pixels[:, None], 2)[:, 0]


def nearest_digit(frames: Tensor, digits: Tensor) -> tuple[Tensor, Tensor]:
    """How far each frame is from the nearest of some digits, wherever it is and however bright, and which that is.

    frames: (b, 1, h, w) in [-1, 1]. digits: (n, d, d), ink in [0, 1]. Returns (b,), 0 for a copy and 1 for nothing in
    common, and (b,), the digits' numbers.
    """
    ink = (frames + 1) / 2
    sizes = digits.flatten(1).norm(dim=1).clamp(min=1e-6)
    agreement = functional.conv2d(ink, digits[:, None]).flatten(2).amax(-1) / sizes  # b n
    best, which = (agreement / ink.flatten(1).norm(dim=1, keepdim=True).clamp(min=1e-6)).max(1)
    return 1 - best.square(), which


def placed(digits: Tensor, size: int = 32) -> Tensor:
    """Digits (n, d, d) as a clip of one frame each, (1, n, size, size) in [-1, 1], in the middle."""
    side = (size - digits.shape[-1]) // 2
    return functional.pad(digits, (side,) * 4)[None] * 2 - 1


# ---- figures -------------------------------------------------------------------------------------------------------


def draw_corruption(corruption: str, strength: float) -> Figure:
    """The slider: a clip as it is and corrupted, and what the metrics say of 16 such clips."""
    fig, axes = figure(2, 6, width=8.0, height=2.9, height_ratios=(1, 1))
    clips = real_clips(0, 8)
    one = 1 if corruption == "mode collapse" else 0
    videos = CORRUPTIONS[corruption](clips, strength)
    for ax, frame in zip(axes.T, range(0, 16, 3), strict=True):
        image(ax[0], clips.video[one, 0, frame], f"frame {frame}")
        image(ax[1], videos[one, 0, frame].clamp(-1, 1))
    found = measured(corruption, strength, 16)
    axes[0, 0].set_ylabel("real")
    axes[1, 0].set_ylabel("damaged")
    shown = [
        f"{name} {found[name]:.{digits}f}"
        for name, digits in (("PSNR", 1), ("SSIM", 2), ("frame distance", 1), ("clip distance", 1))
    ]
    more = [f"{name} {found[name]:.2f}" for name in ("identity", "every frame", "rigidity", "track deviation")]
    fig.suptitle("16 clips:   " + "   ".join(shown) + "\n" + "   ".join(more), fontsize=11, x=0.02, ha="left")
    return fig


def draw_table(table: Mapping[str, Mapping[str, float]], real: Mapping[str, float]) -> Figure:
    """Metrics (columns) of each corruption (rows); shaded where the metric gives it away. real: the first row."""
    names = list(real)
    rows = {"real clips": dict(real), **{name: dict(found) for name, found in table.items()}}
    fig, ax = figure(width=9.4, height=0.42 * len(rows) + 1.3)
    for i, found in enumerate(rows.values()):
        for j, name in enumerate(names):
            value = found[name]
            if i and alarmed(name, value):
                ax.fill(
                    [j - 0.48, j + 0.48, j + 0.48, j - 0.48],
                    [i - 0.46, i - 0.46, i + 0.46, i + 0.46],
                    color=colors.learned,
                    alpha=0.55,
                    linewidth=0,
                )
            text = f"{value:.0e}".replace("+0", "") if value >= 1e4 else f"{value:.{1 if value >= 10 else 2}f}"
            text = "same" if name == "PSNR" and value > 98 else text
            ax.text(j, i, text, ha="center", va="center", fontsize=10)
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names], fontsize=8.5)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    return fig


def draw_strengths(
    names: Sequence[str] = ("blur", "noise", "shuffled", "swapped identity", "redrawn strokes"),
) -> Figure:
    """How loudly each metric answers to a damage of growing strength: 1 is its alarm; values above 3 are drawn at 3."""
    strengths = (0.0, 0.125, 0.25, 0.5, 1.0)
    fig, axes = figure(1, len(names), width=9.6, height=3.0, sharey=True)
    palette = (colors.exact, colors.data, colors.eps, colors.learned, colors.v, colors.noise)
    for ax, name in zip(axes, names, strict=True):
        undamaged = per_clip(names[0], 0.0)  # strength 0 leaves every clip as it is
        found = [undamaged, *(per_clip(name, strength) for strength in strengths[1:])]
        for metric, color in zip(found[0], palette, strict=True):
            ax.plot(strengths, [min(3.0, severity(metric, f[metric])) for f in found], "o-", color=color, label=metric)
        ax.axhline(1.0, color="0.5", linewidth=1, linestyle=":")
        ax.set(title=name, xlabel="strength", ylim=(-0.1, 3.15))
    axes[0].set_ylabel("distance from real clips\n(1: alarm)")
    axes[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return fig


def draw_bias(
    d: int, counts: Sequence[int], white: Sequence[float], real_counts: Sequence[int], real: Sequence[float]
) -> Figure:
    """Fréchet distances over 1/n: draws of one white Gaussian with the formula, and real clips with their line."""
    fig, (left, right) = figure(1, 2, width=7.6, height=2.9)
    fine = torch.linspace(0, 1 / min(counts), 30)
    left.plot([1 / n for n in counts], white, "o", color=colors.data, label="measured")
    left.plot(fine, 2 * fine * d * (d + 5) / 4, color=colors.exact, label="(12.8)")
    left.set(
        title=f"two sets of one white Gaussian, d = {d}",
        xlabel="1/k, of k draws on either side",
        ylabel="Fréchet distance",
    )
    left.legend()
    intercept, slope = extrapolated(real_counts[-2:], real[-2:])  # few clips bend the curve
    fine = torch.linspace(0, 1 / min(real_counts), 30)
    right.plot([1 / n for n in real_counts], real, "o", color=colors.eps, label="measured")
    right.plot(
        fine,
        intercept + slope * fine,
        color=colors.exact,
        linewidth=1,
        linestyle="--",
        label="line through the largest",
    )
    right.legend()
    right.set(
        title="two sets of real clips", xlabel="1/k, of k clips on either side", ylim=(min(0.0, 1.3 * intercept), None)
    )
    return fig
