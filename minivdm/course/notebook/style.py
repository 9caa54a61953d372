"""The one figure style: readable sizes, colours that colour-blind readers can tell apart, named by role."""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib as mpl
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure


class Colors(NamedTuple):
    """Colours by what they stand for; the palette is Okabe & Ito's (2008), for all kinds of colour vision."""

    data: str = "#0072B2"
    noise: str = "#8C8C8C"
    x: str = "#0072B2"
    eps: str = "#D55E00"
    v: str = "#009E73"
    z: str = "#CC79A7"
    exact: str = "#000000"
    learned: str = "#E69F00"
    observed: str = "#56B4E9"


colors = Colors()

STYLE: dict[str, Any] = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]),
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
    "mathtext.fontset": "cm",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def use_style() -> None:
    """Make the course's style matplotlib's default in this process; ``figure`` does so itself."""
    for name, value in STYLE.items():
        mpl.rcParams[name] = value  # type: ignore[index]


def figure(
    rows: int = 1, columns: int = 1, *, width: float = 7.2, height: float | None = None, **subplots: Any
) -> tuple[Figure, Any]:
    """A figure in the course's style and its axes.

    Args:
        rows, columns: grid of axes.
        width, height: inches; without a height the axes become about 3 wide to 2 high.
        subplots: passed on to ``Figure.subplots`` (``sharex``, ``sharey``, ``width_ratios``, ``squeeze``…).

    Returns:
        The figure (end the cell with ``nb.show(fig)``) and one ``Axes``, or an array of them.
    """
    use_style()
    if height is None:
        height = min(rows * max(width / columns * 0.62, 1.6) + 0.3, 9.0)
    # Not made by pyplot: nothing keeps it alive, and no cell shows it twice.
    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(rows, columns, **subplots)


def image(axes: Axes, frame: Any, title: str = "", *, low: float = -1.0, high: float = 1.0) -> None:
    """Draw one grey frame (h, w) or (1, h, w), black at ``low`` and white at ``high``, without ticks."""
    pixels = torch.as_tensor(frame).detach().cpu().float()
    if pixels.ndim == 3 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim != 2:
        raise ValueError(f"expected one frame (h, w) or (1, h, w), got {tuple(pixels.shape)}")
    axes.imshow(pixels.numpy(), cmap="gray", vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[], title=title)
    axes.grid(False)
