"""Clips as rows of frames: the picture that every reader can see, with or without a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from minivdm.course.notebook.clips import as_frames, clip_titles, observed_frames
from minivdm.course.notebook.picture import DOTS, Picture, encode
from minivdm.course.notebook.style import colors

GAP, BORDER, MARGIN = 6, 4, 8
"""Stored pixels between frames, around observed frames, and around the whole strip."""

FULL = 1660
"""Stored pixels of a full row, about the width of a notebook's text at two dots a pixel."""


def filmstrip(
    videos: Any,
    titles: str | Sequence[str] | None = None,
    observed: Any = None,
    every: int = 1,
    *,
    size: int = 110,
    clip: bool = False,
    numbers: bool = True,
) -> Picture:
    """Lay clips out as rows of frames; what the last line of a cell returns is shown.

    Args:
        videos: (b, c, f, h, w) in [-1, 1], or a sequence of clips (c, f, h, w), which may differ in frames
            and size.
        titles: one per clip, written above its row.
        observed: frames to mark with a coloured border: indices for all clips, a bool mask (f,) or (b, f), or
            one sequence of indices per clip.
        every: show each ``every``-th frame only.
        size: displayed CSS pixels that a frame may be wide; smaller ones make room for more strips beside.
        clip: cut values outside [-1, 1] off instead of refusing them, to show a noisy latent.
        numbers: write frame numbers (from 0) under the last row.

    Raises:
        VideoShapeError, VideoRangeError: see ``clips.as_frames``.
    """
    if every < 1:
        raise ValueError(f"expected every >= 1, got {every}")
    clips = as_frames(videos, clip)
    marks = observed_frames(observed, clips)
    names = clip_titles(titles, len(clips))
    longest = max(len(frames) for frames in clips)
    shown = list(range(0, longest, every))
    height = max(frames.shape[1] for frames in clips)
    width = max(frames.shape[2] for frames in clips)
    scale = max(1, min((FULL - 2 * MARGIN + GAP) // len(shown) - GAP, DOTS * size) // width)
    cell_h, cell_w = height * scale, width * scale
    title_h = 34 if any(names) else 0
    foot = 28 if numbers else 0
    row_h = title_h + cell_h + GAP + 4
    total_w = 2 * MARGIN + len(shown) * (cell_w + GAP) - GAP
    if any(names):
        total_w = max(total_w, 2 * MARGIN + max(int(font(22).getlength(name)) for name in names))
    canvas = Image.new("RGB", (total_w, 2 * MARGIN + len(clips) * row_h + foot), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (frames, marked, name) in enumerate(zip(clips, marks, names, strict=True)):
        top = MARGIN + row * row_h
        draw.text((MARGIN, top + 2), name, font=font(22), fill="#222222")
        top += title_h
        for column, index in enumerate(shown):
            if index >= len(frames):
                break
            left = MARGIN + column * (cell_w + GAP)
            if index in marked:
                box = (left - BORDER, top - BORDER, left + cell_w + BORDER - 1, top + cell_h + BORDER - 1)
                draw.rectangle(box, fill=colors.observed)
            tile = to_image(frames[index]).resize((cell_w, cell_h), Image.Resampling.NEAREST)
            canvas.paste(tile, (left, top))
    if numbers:
        size = 18 if cell_w >= 28 else 12
        for column, index in enumerate(shown):
            place = (MARGIN + column * (cell_w + GAP) + cell_w // 2, MARGIN + len(clips) * row_h - 2)
            draw.text(place, str(index), font=font(size), fill="#777777", anchor="ma")
    few = canvas.quantize(256) if canvas.getcolors(256) else canvas
    return Picture(encode(few), describe(clips, marks, names), min(total_w // DOTS, FULL // DOTS))


def to_image(frame: NDArray[np.uint8]) -> Image.Image:
    """One 8-bit frame (h, w, c) as a grey or colour picture."""
    return Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)


def describe(clips: Sequence[NDArray[np.uint8]], marks: Sequence[set[int]], names: Sequence[str]) -> str:
    """The same in words: for text-only readers and screen readers."""
    frames = sorted({len(one) for one in clips})
    text = f"{len(clips)} clip{'s' if len(clips) > 1 else ''} of {' or '.join(map(str, frames))} frames"
    if any(names):
        text += ": " + "; ".join(name for name in names if name)
    if any(marks):
        counts = sorted({len(mark) for mark in marks})
        text += f" ({' or '.join(map(str, counts))} frames observed)"
    return text


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The lettering of strips and stills."""
    # Matplotlib carries DejaVu Sans, which knows the Greek letters and hats of the notation.
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
