"""A still picture that a notebook shows, stores as PNG and describes in words."""

from __future__ import annotations

import base64
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

DOTS = 2
"""Stored pixels per displayed pixel: sharp on dense screens."""

INCH = 96
"""Displayed CSS pixels per inch of a figure, so that its 11-point text is as large as the page's."""


@dataclass(frozen=True)
class Picture:
    """A PNG with a description.

    Attributes:
        png: the encoded bytes.
        alt: what it shows, in words; also what a text-only reader sees.
        width: displayed width in CSS pixels.
    """

    png: bytes
    alt: str
    width: int

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}
        return data, {"image/png": {"width": self.width, "alt": self.alt}}

    def __repr__(self) -> str:
        return f"Picture({self.alt})"

    def to_pil(self) -> Image.Image:
        """The decoded picture."""
        return Image.open(io.BytesIO(self.png))

    def save(self, path: str | Path) -> None:
        """Write the PNG."""
        Path(path).write_bytes(self.png)


def encode(picture: Image.Image) -> bytes:
    """PNG bytes, the same for the same picture."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def render(figure: Figure, alt: str = "", dpi: float = 150) -> Picture:
    """Draw a figure once, close it, and return the picture (``dpi`` stored pixels per inch)."""
    if not isinstance(figure, Figure):
        raise TypeError(f"expected a matplotlib Figure, got {type(figure).__name__}")
    buffer = io.BytesIO()
    # No Software entry: the bytes must not change with the library's version alone.
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)
    with Image.open(buffer) as drawn:
        picture = drawn.convert("RGB")
    width = round(picture.width * INCH / dpi)
    if not alt:
        titles = [axes.get_title("left") or axes.get_title() for axes in figure.axes]
        alt = "figure: " + "; ".join(filter(None, titles)) if any(titles) else "figure"
    return Picture(encode(picture), alt, width)


def show(*things: Any, alt: str = "") -> None:
    """Display figures, filmstrips, players: anything, without leaving a repr behind. Figures are closed."""
    for thing in things:
        display(render(thing, alt) if isinstance(thing, Figure) else thing)
