"""Lesson 13: captions, guidance away from a sentence, intervals of shares, cosines of clips and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core import CosineSchedule, Denoiser, classifier_free, samplers
from minivdm.course.notebook.style import colors, figure
from minivdm.data.captioned_mnist import CaptionedClips, CaptionedMNIST, held_out
from minivdm.data.captions import COMPASS, DIGITS, words
from minivdm.exact import GaussianMixture
from minivdm.measure.obedience import wilson
from minivdm.networks.text_encoder import CrossAttention, Text

SCHEDULE = CosineSchedule(-12, 12)


def captioned(count: int, split: str = "test", seed: int = 0) -> CaptionedClips:
    """The first clips of a split, with their captions."""
    return CaptionedMNIST(split=split, seed=seed).clips(torch.arange(count))


def combinations(clips: CaptionedClips) -> Tensor:
    """How many clips show each digit and direction, (10, 8)."""
    table = torch.zeros(10, 8, dtype=torch.long)
    for caption in clips.captions:
        if caption.digit is not None and caption.direction is not None:
            table[caption.digit, caption.direction] += 1
    return table


def draw_combinations(table: Tensor) -> Figure:
    """Counts by digit and direction, with crosses where a combination is held out."""
    made, axes = figure(width=6.6, height=3.6)
    picture = axes.imshow(table.numpy(), cmap="Blues", aspect="auto")
    crosses = [(place, digit) for digit in range(10) for place in range(8) if held_out(digit, place)]
    axes.plot(*zip(*crosses, strict=True), "x", color=colors.eps, markersize=8)
    axes.set_xticks(range(8), [name.replace(" and ", "\n") for name in COMPASS])
    axes.set_yticks(range(10), DIGITS)
    axes.set(title="clips of the training split; crosses: combinations held out")
    axes.grid(False)
    made.colorbar(picture, ax=axes, label="clips")
    return made


# ---- guidance away from a sentence, where everything is known


def compass_world(spread: float = 0.25) -> GaussianMixture:
    """Eight directions as points on a circle, in the order of `captions.COMPASS`: a world that sentences talk about."""
    return GaussianMixture.ring(8, 1.0, spread)


def meaning(*directions: int) -> Tensor:
    """A sentence that leaves some directions open: (1, 8), 1 for each of them."""
    return torch.zeros(1, 8).index_fill_(1, torch.tensor(directions), 1.0)


def tilted_score(
    world: GaussianMixture, z: Tensor, t: float, wanted: Tensor, negative: Tensor | None, weight: float
) -> Tensor:
    """grad log [q(z | wanted)^(1 + w) q(z | negative)^(-w)], (b, 2): what guidance (13.4) follows, written out."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    towards = world.score(z, alpha, sigma, wanted)
    return (1 + weight) * towards - weight * world.score(z, alpha, sigma, negative)


def guided_points(
    wanted: Tensor,
    negative: Tensor | None,
    weight: float,
    until: float = math.inf,
    count: int = 1500,
    steps: int = 64,
    seed: int = 0,
) -> Tensor:
    """Points (count, 2) that the exact denoiser makes, guided to one sentence and away from another.

    until: the log-SNR up to which it is guided at all.
    """
    denoise = compass_world().denoiser(SCHEDULE)
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    guided = classifier_free(denoise.given(wanted), denoise.given(negative), weight, (-math.inf, until))
    return samplers.sample(guided, noise, steps)


def shares(points: Tensor) -> Tensor:
    """Which share of points lies nearest to each direction, (8,)."""
    nearest = torch.cdist(points, compass_world().means).argmin(1)
    return torch.bincount(nearest, minlength=8) / len(points)


def draw_points(sets: dict[str, Tensor]) -> Figure:
    """Sets of points beside each other, over the eight directions."""
    made, axes = figure(1, len(sets), width=7.8, height=2.4, sharex=True, sharey=True)
    means = compass_world().means
    for one, (name, points) in zip(axes, sets.items(), strict=True):
        one.plot(*points[:600].T, ".", color=colors.data, markersize=2, alpha=0.5)
        one.plot(*means.T, "x", color=colors.exact)
        one.set(title=name, xlim=(-2, 4), ylim=(-2.5, 2.5), aspect="equal")
    return made


# ---- intervals


def draw_intervals(
    counts: Sequence[int] = (8, 16, 32, 64, 128, 256, 512), rates: Sequence[float] = (1.0, 0.85)
) -> Figure:
    """Wilson's interval over the number of clips, for some observed shares."""
    made, axes = figure(width=6.4, height=3.0)
    for rate, shade in zip(rates, (colors.data, colors.eps), strict=False):
        found = [wilson(round(rate * n), n) for n in counts]
        axes.fill_between(counts, [s.low for s in found], [s.high for s in found], color=shade, alpha=0.2)
        axes.plot(counts, [s.rate for s in found], "o-", color=shade, label=f"{rate:.0%} observed")
    axes.set(xscale="log", xlabel="clips", ylabel="share", title="95 % interval (13.5)")
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    axes.legend(loc="lower right")
    return made


# ---- cosines and attention


def draw_matrix(values: Tensor, fits: Tensor, title: str = "cosine of clip (row) and sentence (column)") -> Figure:
    """Cosines of clips and sentences, with dots where a sentence is true of a clip."""
    made, axes = figure(width=5.2, height=4.2)
    picture = axes.imshow(values.numpy(), cmap="viridis")
    rows, columns = fits.nonzero(as_tuple=True)
    axes.plot(columns, rows, ".", color=colors.eps, markersize=4)
    axes.set(title=title, xlabel="sentence", ylabel="clip")
    axes.grid(False)
    made.colorbar(picture, ax=axes)
    return made


@torch.no_grad()
def word_maps(denoiser: Denoiser, z: Tensor, t: float, row: Tensor) -> tuple[list[str], Tensor]:
    """How much each place of each frame looks at each word, averaged over layers and heads, at the finest such layer's
    size.

    Args:
        denoiser: one whose network reads text.
        z: one noisy clip (1, c, f, h, w).
        t: its time.
        row: tokens (1, n).

    Returns:
        The words, and weights (f, h', w', words) that sum to 1 over the words.
    """
    seen: list[Tensor] = []

    def note(layer: CrossAttention, inputs: tuple[Tensor, Text]) -> None:
        seen.append(layer.weights(*inputs).mean(4)[0])  # f h w n

    layers = [module for module in denoiser.network.modules() if isinstance(module, CrossAttention)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        denoiser(z, t, text=row)
    finally:
        for hook in hooks:
            hook.remove()
    finest = max(one.shape[1] for one in seen)
    maps = torch.stack([one for one in seen if one.shape[1] == finest]).mean(0)
    found = words(row[0])
    return found, maps[..., : len(found)]
