"""The picture of lesson 08 that holds everything: the whole U-Net with its shapes, its skips and its embedding."""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from minivdm.course.notebook.style import colors, figure
from minivdm.networks.unet3d import UNet3D

#: What a cell is made of, in the order in which a clip passes: name in the network, colour, words.
PARTS = [
    ("residual", colors.noise, "residual block: two 1×3×3 convolutions"),
    ("spatial", colors.observed, "attention over space"),
    ("temporal", colors.eps, "attention over time"),
]
PLAIN = "#D9D9D9"
LEVEL = 2.05
HIGH = 0.84


class Stop(NamedTuple):
    """A station on the way through the network.

    kind: "stem", "cell", "shrink", "grow" or "head". level: resolution, 0 the finest. arrives, leaves: channels.
    joined: channels that a skip adds on arrival. cell: the network's module, for a cell.
    """

    kind: str
    level: int
    arrives: int
    leaves: int
    joined: int = 0
    cell: Any = None


def route(network: UNet3D) -> tuple[list[Stop], list[tuple[int, int]]]:
    """The stations in order, and the skips as pairs (index that sends, index that receives)."""
    config: dict[str, Any] = network.config
    widths = [config["width"] * m for m in config["multipliers"]]
    down: Any = network.down
    up: Any = network.up
    pixels = config["channels"] * config["patch"] ** 2
    stops, kept, skips, current = [Stop("stem", 0, pixels, widths[0])], [0], [], widths[0]
    for level, part in enumerate(down):
        for cell in part["cells"]:
            stops.append(Stop("cell", level, current, widths[level], cell=cell))
            current = widths[level]
            kept.append(len(stops) - 1)
        if "shrink" in part:
            stops.append(Stop("shrink", level + 1, current, current))
            kept.append(len(stops) - 1)
    for cell in network.middle:
        stops.append(Stop("cell", len(widths) - 1, current, current, cell=cell))
    for place, part in enumerate(up):
        level = len(widths) - 1 - place
        for cell in part["cells"]:
            sender = kept.pop()
            stops.append(Stop("cell", level, current, widths[level], stops[sender].leaves, cell))
            current = widths[level]
            skips.append((sender, len(stops) - 1))
        if "grow" in part:
            stops.append(Stop("grow", level, current, widths[level - 1]))
            current = widths[level - 1]
    return [*stops, Stop("head", 0, current, pixels)], skips


def draw_network(network: UNet3D, size: int = 32, frames: int = 16) -> Figure:
    """The whole U-Net for clips of `frames` frames of size x size: stations, channels, sides, and every skip."""
    config: dict[str, Any] = network.config
    stops, skips = route(network)
    levels = len(config["multipliers"])
    across = [1.0 if stop.kind == "cell" else 0.62 for stop in stops]
    left = [sum(across[:i]) + 0.34 * i for i in range(len(stops))]
    total = left[-1] + across[-1]
    fig, ax = figure(width=8.3, height=0.9 + 1.42 * levels + 0.75)
    for stop, x, wide in zip(stops, left, across, strict=True):
        _station(ax, stop, x, wide)
    for i, (here, there) in enumerate(zip(stops, stops[1:], strict=False)):
        start = (left[i] + across[i], -LEVEL * here.level)
        if here.kind == "grow":  # it ends a level higher
            start = (left[i] + across[i] / 2, -LEVEL * here.level + HIGH / 2)
        end = (left[i + 1], -LEVEL * there.level)
        if there.kind == "shrink":
            end = (left[i + 1] + across[i + 1] / 2, -LEVEL * there.level + HIGH / 2)
        _arrow(ax, start, end, "#333333", 1.1)
    for rank, (sender, receiver) in enumerate(sorted(skips, key=lambda pair: -pair[0])):
        level = stops[sender].level
        mine = [pair for pair in sorted(skips, key=lambda pair: -pair[0]) if stops[pair[0]].level == level]
        top = -LEVEL * level + HIGH / 2 + 0.42 + 0.24 * mine.index((sender, receiver))
        away, back = left[sender] + across[sender] * 0.5, left[receiver] + 0.16
        base = -LEVEL * level + HIGH / 2
        ax.plot([away, away, back], [base, top, top], color=colors.v, linewidth=1.1, zorder=1 + rank * 0.01)
        _arrow(ax, (back, top), (back, base), colors.v, 1.1)
    _margins(ax, config, size, frames, total)
    ax.set(xlim=(-3.3, total + 2.5), ylim=(-LEVEL * (levels - 1) - 2.1, 1.75))
    ax.axis("off")
    return fig


def _station(ax: Axes, stop: Stop, x: float, wide: float) -> None:
    bottom = -LEVEL * stop.level - HIGH / 2
    if stop.kind == "cell":
        third = HIGH / 3
        for row, (name, color, _) in enumerate(PARTS):
            there = getattr(stop.cell, name) is not None
            box = Rectangle((x, bottom + HIGH - third * (row + 1)), wide, third, facecolor=color if there else "white",
                            edgecolor="#555555", linewidth=0.7)  # fmt: skip
            ax.add_patch(box)
    else:
        ax.add_patch(Rectangle((x, bottom), wide, HIGH, facecolor=PLAIN, edgecolor="#555555", linewidth=0.7))
        words = {"stem": "stem", "head": "head", "shrink": "↓2", "grow": "↑2"}[stop.kind]
        turned = 90 if stop.kind in ("stem", "head") else 0
        ax.text(x + wide / 2, bottom + HIGH / 2, words, ha="center", va="center", fontsize=10, rotation=turned)
    arrives = f"{stop.arrives}\n+{stop.joined}" if stop.joined else f"{stop.arrives}"
    ax.text(x + wide / 2, bottom - 0.08, f"{arrives}\n→ {stop.leaves}", ha="center", va="top", fontsize=8.5,
            linespacing=1.0)  # fmt: skip


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str, wide: float) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, color=color, linewidth=wide,
                                 shrinkA=0, shrinkB=0, zorder=3))  # fmt: skip


def _margins(ax: Axes, config: dict[str, Any], size: int, frames: int, total: float) -> None:
    """Input and output, the shape of each level, the embedding, and the legend."""
    patch, channels = config["patch"], config["channels"]
    for x, name in ((-2.15, "clip $z$"), (total + 1.05, "output")):
        for k in range(3):  # a clip is a stack of frames
            ax.add_patch(Rectangle((x + 0.09 * k, -0.42 + 0.09 * k), 0.85, 0.85, facecolor="white",
                                   edgecolor="#555555", linewidth=0.8, zorder=3 - k))  # fmt: skip
        ax.text(x + 0.5, 0.78, name, ha="center", fontsize=10)
        ax.text(x + 0.5, -0.5, f"{frames} frames\n{channels}×{size}×{size}", ha="center", va="top", fontsize=8.5)
    _arrow(ax, (-1.12, 0), (0, 0), "#333333", 1.1)
    _arrow(ax, (total, 0), (total + 1.05, 0), "#333333", 1.1)
    for level, m in enumerate(config["multipliers"]):
        side = size // patch // 2**level
        y = -LEVEL * level if level else 1.35
        text = f"level {level}: {config['width'] * m} channels, {side}×{side} places"
        text = text if level == 0 else text.replace(": ", ":\n").replace(", ", ",\n")
        ax.text(-3.2, y, text, va="center", fontsize=10, weight="bold", color="#333333")
    ax.text(-0.52, 0.1, f"fold\n{patch}×{patch}", ha="center", va="bottom", fontsize=8.5)
    ax.text(total + 0.52, 0.1, "un-\nfold", ha="center", va="bottom", fontsize=8.5)
    low = -LEVEL * (len(config["multipliers"]) - 1) - 1.35
    ax.text(-3.2, low, f"λ, labels → embedding: {config['embedding']} numbers per frame, into every residual block",
            fontsize=10, va="center")  # fmt: skip
    legend = [*((color, words) for _, color, words in PARTS), (colors.v, "skip: concatenated on arrival")]
    for k, (color, words) in enumerate(legend):
        x, y = -3.2 + (total + 5.2) * 0.5 * (k % 2), low - 0.32 - 0.32 * (k // 2)
        ax.add_patch(Rectangle((x, y - 0.09), 0.45, 0.18, facecolor=color, edgecolor="#555555", linewidth=0.6))
        ax.text(x + 0.6, y, words, fontsize=10, va="center")
