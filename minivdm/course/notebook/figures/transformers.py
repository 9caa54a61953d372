"""Drawings of lesson 17: who looks at whom, how far a token sees, what attention costs, and the small races."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from minivdm.course.notebook.style import colors, figure
from minivdm.networks.window_transformer import WindowTransformer
from minivdm.systems import dit

#: Student's t of 97.5 % for 1 to 4 degrees of freedom.
STUDENT = (math.nan, 12.71, 4.30, 3.18, 2.78)


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
    fig, axes = figure(1, len(masks), width=2.6 * len(masks), height=2.9)
    for one, (name, mask) in zip(list(axes) if len(masks) > 1 else [axes], masks.items(), strict=True):
        one.imshow(mask.numpy(), cmap="Blues", vmin=0, vmax=1.3, interpolation="nearest")
        one.set(title=f"{name}\n{int(mask.sum()) / len(mask):.3g} a token", xticks=[], yticks=[])
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


def races(path: Path) -> dict[str, Any]:
    """What `benchmarks/transformers.py races` wrote. Raises FileNotFoundError."""
    return json.loads(path.read_text(encoding="utf-8"))["races"]


def paired(arms: Mapping[str, Sequence[Mapping[str, Any]]], one: str, two: str) -> tuple[float, float, int]:
    """Loss of one arm less that of another, on the same clips and noise: mean over seeds, half of its 95 % interval by
    Student's t (NaN for one seed), and the number of seeds."""

    def best(row: Mapping[str, Any]) -> float:
        return fmean(row.get("loss with estimate", row["loss"]))

    gaps = [best(a) - best(b) for a, b in zip(arms[one], arms[two], strict=False)]
    n = len(gaps)
    half = STUDENT[n - 1] * stdev(gaps) / n**0.5 if n > 1 else math.nan
    return fmean(gaps), half, n
