"""Drawings of lesson 17: who looks at whom, how far a token sees, what attention costs, and rows that are compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from minivdm.course.notebook.style import colors, figure
from minivdm.networks.autoencoder import Tokenizer
from minivdm.networks.window_transformer import WindowTransformer
from minivdm.systems import dit

#: Student's t of 97.5 % for 1 to 7 degrees of freedom.
STUDENT = (math.nan, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36)


def awake(network: nn.Module, scale: float = 0.1) -> nn.Module:
    """A network whose zeros are gone, so that there is something to see."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    return network.eval()


def reach(network: WindowTransformer, depth: int, grid: Sequence[int], token: Sequence[int]) -> Tensor:
    """Which tokens of the input change one token after `depth` blocks, (f, h, w) bool, found by gradient."""
    f, h, w = grid
    x = torch.randn(1, f * h * w, network.config["width"], generator=torch.Generator().manual_seed(1)).requires_grad_()
    emb = torch.ones(1, 1, network.config["embedding"])
    after = x
    for block, six in list(zip(network.blocks, network.modulation(emb, len(network.blocks)), strict=True))[:depth]:
        after = block(after, six, None, tuple(grid), None)
    place = (token[0] * h + token[1]) * w + token[2]
    (gradient,) = torch.autograd.grad(after[0, place].square().sum(), x)
    return (gradient[0].abs().sum(-1) > 0).view(f, h, w)


def draw_masks(masks: Mapping[str, Tensor]) -> Figure:
    """Masks (n, n) side by side: dark where the token of a row looks at that of a column."""
    fig, axes = figure(1, len(masks), width=3.2 * len(masks), height=3.2)
    for one, (name, mask) in zip(list(axes) if len(masks) > 1 else [axes], masks.items(), strict=True):
        one.imshow(mask.numpy(), cmap="Blues", vmin=0, vmax=1.3, interpolation="nearest")
        one.set(title=f"{name}\neach token looks at {int(mask.sum()) / len(mask):.3g}", xticks=[], yticks=[])
        one.grid(False)
    return fig


def draw_operations(width: int = 192, depth: int = 6, window: int = 72) -> Figure:
    """Multiplications of one call over the number of tokens, with attention over all of them and in windows."""
    network = dit.dit("T", (1, 1, 1), channels=8)
    network.config |= {"width": width, "depth": depth}
    counts = [2**k for k in range(4, 15)]
    fig, axes = figure(width=6.6, height=3.4)
    for name, seen, color in (("all tokens", None, colors.eps), (f"windows of {window}", window, colors.v)):
        axes.loglog(counts, [dit.operations(network, n, seen) / 1e9 for n in counts], "o-", color=color, label=name)
    axes.axvline(6 * width, color=colors.exact, linestyle=":", label=f"n = 6 c = {6 * width}")
    axes.set(xlabel="tokens n", ylabel="billion multiplications", title=f"One call, c = {width}, {depth} blocks")
    axes.legend(fontsize=8)
    return fig


def seen_by_latents(tokenizer: Tokenizer, frames: int = 17, size: int = 16) -> Tensor:
    """Share of each latent frame's gradient that falls on each frame of the clip, (latent frames, frames)."""
    x = torch.randn(1, 1, frames, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    latents = tokenizer.encode(x)
    rows = []
    for k in range(latents.shape[2]):
        (gradient,) = torch.autograd.grad(latents[:, :, k].square().sum(), x, retain_graph=True)
        rows.append(gradient.square().sum((0, 1, 3, 4)))
    found = torch.stack(rows)
    return found / found.sum(1, keepdim=True)


def draw_causality(shares: Tensor) -> Figure:
    """`seen_by_latents` as a picture: a row for each latent frame, a column for each frame; 0 where it is exactly 0."""
    fig, axes = figure(width=6.6, height=2.6)
    shown = axes.imshow(shares.log10().clamp(min=-6).numpy(), cmap="Blues", vmin=-6, vmax=0, aspect="auto")
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            if value == 0:
                axes.text(column, row, "0", ha="center", va="center", fontsize=8, color=colors.exact)
    axes.set(xlabel="frame of the clip", ylabel="latent frame", xticks=range(0, shares.shape[1], 2))
    axes.set(yticks=range(len(shares)), title="Share of a latent frame's gradient, powers of ten")
    axes.grid(False)
    fig.colorbar(shown, ax=axes)
    return fig


def rows(path: Path) -> dict[str, Any]:
    """What `benchmarks/transformers.py train` wrote. Raises FileNotFoundError."""
    found = json.loads(path.read_text(encoding="utf-8"))
    for several in found["arms"].values():
        several.sort(key=lambda row: row["seed"])
    return found


def races(path: Path) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """The rows of `benchmarks/transformer_races.py`, each arm's loss as it would sample, with its own estimate if it
    takes one; and in words what was run. Raises FileNotFoundError."""
    found = json.loads(path.read_text(encoding="utf-8"))
    arms = {
        name: [{"seed": row["seed"], "loss": row.get("loss with estimate", row["loss"])} for row in several]
        for name, several in found["arms"].items()
    }
    return arms, f"{found['command']}: {found['clips']} clips a run, {found['hardware']}"


def clips(path: Path) -> dict[str, Tensor]:
    """Some clips of each arm, (n, 1, f, 32, 32) in [-1, 1], which `benchmarks/transformers.py` left beside its rows."""
    with np.load(path) as kept:
        return {name: torch.from_numpy(kept[name]).float()[:, None] / 127.5 - 1 for name in kept.files}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval by Student's t; NaN for a single value."""
    n = len(values)
    half = STUDENT[min(n - 1, len(STUDENT) - 1)] * stdev(values) / n**0.5 if n > 1 else math.nan
    return fmean(values), half


def paired(arms: Mapping[str, Sequence[Mapping[str, Any]]], one: str, two: str, measure: str) -> tuple[float, float]:
    """A measure of one arm less that of another, seed by seed: `interval` of the differences. A list counts by its
    mean."""
    value = lambda row: fmean(row[measure]) if isinstance(row[measure], list) else row[measure]  # noqa: E731
    others = {row["seed"]: value(row) for row in arms[two]}
    return interval([value(row) - others[row["seed"]] for row in arms[one] if row["seed"] in others])


def gap(mean: float, half: float) -> str:
    """A difference with its interval, in words: three digits where it is small."""
    digits = 3 if abs(mean) < 1 else 2
    return f"{mean:+.{digits}f} " + ("(one seed)" if math.isnan(half) else f"± {half:.{digits}f}")


def draw_rows(arms: Mapping[str, Sequence[Mapping[str, Any]]], base: str, measures: Mapping[str, str]) -> Figure:
    """Every arm's paired difference from the base with its interval, one panel for each measure (name -> label)."""
    names = [name for name in arms if name != base]
    fig, axes = figure(1, len(measures), width=9.0, height=0.42 * len(names) + 1.4)
    panels = list(axes) if len(measures) > 1 else [axes]
    for one, (measure, label) in zip(panels, measures.items(), strict=True):
        for k, name in enumerate(names):
            mean, half = paired(arms, name, base, measure)
            one.errorbar([mean], [k], xerr=[0 if math.isnan(half) else half], fmt="o", color=colors.v, capsize=3)
        one.axvline(0, color=colors.exact, linewidth=1)
        one.set(xlabel=label, yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
        one.set_yticklabels(names if one is panels[0] else [])
    return fig
