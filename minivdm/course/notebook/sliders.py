"""Sliders over a pure function, with a still picture for readers without a kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from minivdm.course.notebook.picture import Picture, encode, render
from minivdm.course.notebook.strips import font

Draw = Callable[..., "Figure | Picture"]

SLOW = 0.2
"""Seconds above which a picture follows a slider on release only."""

ROW = 1664
"""Stored pixels that a row of stills may be wide."""


def explore(
    draw: Draw,
    *,
    static: Sequence[Mapping[str, Any]] | None = None,
    start: Mapping[str, Any] | None = None,
    alt: str = "",
    **controls: Any,
) -> None:
    """Show what ``draw`` shows for values that the reader sets, and a row of stills for those who cannot.

    With ``MINIVDM_STATIC=1`` in the environment, as when a lesson is executed to be stored, only the stills
    appear.

    Args:
        draw: a pure function of the named values that returns a Figure or a ``Picture`` within 0.3 s.
        static: values of each still (missing ones as in ``start``); by default the first control at its two
            ends and its start.
        start: initial values; by default the middle of a range, the first choice, False.
        alt: what is seen, in words, for readers who cannot; values and titles of the stills follow it.
        controls: per argument of ``draw``: (low, high) or (low, high, step) for a slider (whole numbers give
            whole numbers), a list of choices, or a bool for a box to tick.

    Raises:
        ValueError, TypeError: a control or a value that does not fit.
    """
    first = {name: _start(name, control) for name, control in controls.items()} | dict(start or {})
    if set(first) != set(controls):
        raise ValueError(f"start names {sorted(set(first) - set(controls))}, which are no controls")
    display(still(draw, _stills(static, first, controls), alt))
    if os.environ.get("MINIVDM_STATIC") == "1":
        display(_Note("Run this cell for the slider: " + ", ".join(controls) + "."))
    else:
        display(live(draw, first, controls))


def still(draw: Draw, settings: Sequence[Mapping[str, Any]], alt: str = "") -> Picture:
    """One picture: what ``draw`` shows at each of the settings, side by side, values written above. alt: as above."""
    changing = [name for name in settings[0] if len({repr(setting[name]) for setting in settings}) > 1]
    drawn = [_picture(draw, setting) for setting in settings]
    tiles = [tile.to_pil().convert("RGB") for tile in drawn]
    # As many in a row as stay readable when they shrink to fit it.
    across = max(1, min(len(tiles), int(1.4 * ROW / max(tile.width for tile in tiles))))
    room = ROW // across - 4
    tiles = [_at_most(tile, room) for tile in tiles]
    captions = [", ".join(f"{name} = {_text(setting[name])}" for name in changing) for setting in settings]
    head = 36 if changing else 0
    rows = [list(range(i, min(i + across, len(tiles)))) for i in range(0, len(tiles), across)]
    heights = [head + max(tiles[i].height for i in row) for row in rows]
    width = max(sum(tiles[i].width + 4 for i in row) for row in rows)
    canvas = Image.new("RGB", (width, sum(heights)), "white")
    pen = ImageDraw.Draw(canvas)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for i in row:
            pen.text((left + 8, top + 6), captions[i], font=font(22), fill="#222222")
            canvas.paste(tiles[i], (left, top + head))
            left += tiles[i].width + 4
        top += height
    titles = [tile.alt.removeprefix("figure").removeprefix(": ") if alt else tile.alt for tile in drawn]
    words = [": ".join(filter(None, pair)) for pair in zip(captions, titles, strict=True)]
    described = "; ".join(filter(None, words))
    described = f"{alt} ({described})" if alt and described else alt or described
    few = canvas.quantize(256) if canvas.getcolors(256) else canvas
    return Picture(encode(few), described, width // 2)


def live(draw: Draw, first: Mapping[str, Any], controls: Mapping[str, Any]) -> Any:
    """The widget: one control per value above one image that follows them. Pictures already seen are kept."""
    import ipywidgets as widgets  # only a live kernel needs it

    began = time.perf_counter()
    opening = _picture(draw, first)
    eager = time.perf_counter() - began < SLOW
    seen = {_key(first): opening}
    screen = widgets.Image(value=opening.png, format="png", layout=widgets.Layout(width=f"{opening.width}px"))
    trouble = widgets.HTML()
    knobs = {name: _knob(name, control, first[name], eager) for name, control in controls.items()}

    def follow(_: Any = None) -> None:
        values = {name: knob.value for name, knob in knobs.items()}
        try:
            if _key(values) not in seen:
                if len(seen) > 200:
                    seen.clear()
                seen[_key(values)] = _picture(draw, values)
            screen.value = seen[_key(values)].png
            trouble.value = ""
        except Exception as error:  # a callback's exception would vanish in the log
            trouble.value = f"<b>{type(error).__name__}</b>: {error}"

    for knob in knobs.values():
        knob.observe(follow, names="value")
    return widgets.VBox([*knobs.values(), trouble, screen])


class _Note:
    """One line of text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/markdown": f"*{self.text}*", "text/plain": self.text}


def _picture(draw: Draw, values: Mapping[str, Any]) -> Picture:
    shown = draw(**values)
    if isinstance(shown, Picture):
        return shown
    if isinstance(shown, Figure):
        return render(shown, dpi=120)
    raise TypeError(f"expected draw to return a Figure or a Picture, got {type(shown).__name__}")


def _at_most(tile: Image.Image, width: int) -> Image.Image:
    if tile.width <= width:
        return tile
    return tile.resize((width, tile.height * width // tile.width), Image.Resampling.LANCZOS)


def _is_range(control: Any) -> bool:
    numbers = isinstance(control, tuple) and all(type(value) in (int, float) for value in control)
    return numbers and len(control) in (2, 3)


def _step(control: tuple[float, ...]) -> float:
    if len(control) == 3:
        return control[2]
    return 1 if all(isinstance(v, int) for v in control) else (control[1] - control[0]) / 50


def _start(name: str, control: Any) -> Any:
    if isinstance(control, bool):
        return control
    if isinstance(control, list) and control:
        return control[0]
    if not _is_range(control):
        raise TypeError(f"{name}: expected (low, high[, step]), a list of choices or a bool, got {control!r}")
    low, high, step = control[0], control[1], _step(control)
    if not (low < high and step > 0):
        raise ValueError(f"{name}: expected low < high and step > 0, got {control}")
    # Rounded: 0.1 + 3 * 0.1 should read 0.4.
    middle = round(low + round((high - low) / 2 / step) * step, 10)
    return int(middle) if all(isinstance(v, int) for v in control) else middle


def _stills(
    static: Sequence[Mapping[str, Any]] | None, first: Mapping[str, Any], controls: Mapping[str, Any]
) -> list[dict[str, Any]]:
    if static is not None:
        unknown = {name for setting in static for name in setting} - set(controls)
        if unknown or not static:
            fault = f"static names {sorted(unknown)}, which are no controls" if unknown else "static is empty"
            raise ValueError(fault)
        return [{**first, **setting} for setting in static]
    if not controls:
        return [{}]
    name, control = next(iter(controls.items()))
    if isinstance(control, bool):
        values: list[Any] = [False, True]
    elif isinstance(control, list):
        values = control[:3]
    else:
        values = [control[0], first[name], control[1]]
    return [{**first, name: value} for value in values]


def _knob(name: str, control: Any, value: Any, eager: bool) -> Any:
    import ipywidgets as widgets

    look = {"description": name, "style": {"description_width": "7em"}}
    if isinstance(control, bool):
        return widgets.Checkbox(value=value, **look)
    if isinstance(control, list):
        return widgets.Dropdown(options=control, value=value, **look)
    whole = all(isinstance(v, int) for v in control)
    slider = widgets.IntSlider if whole else widgets.FloatSlider
    extra = {} if whole else {"readout_format": ".3g"}
    wide = widgets.Layout(width="32em")
    low, high, step = control[0], control[1], _step(control)
    look |= extra | {"layout": wide, "continuous_update": eager}
    return slider(value=value, min=low, max=high, step=step, **look)


def _key(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, repr(value)) for name, value in values.items())


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
