"""Figures at their own size beside a slider: stills are stored at twice the pixels that a page shows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from minivdm.course.notebook.picture import DOTS, INCH, Picture, render


def life_size(draw: Callable[..., Figure], alt: str = "") -> Callable[..., Picture]:
    """The same drawing as a picture for `explore`, whose stills then have the size and the letters of `show`.

    alt: what is seen, in words; without it the titles.
    """

    @functools.wraps(draw)
    def drawn(**values: Any) -> Picture:
        return render(draw(**values), alt, dpi=DOTS * INCH)

    return drawn
