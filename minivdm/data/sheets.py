"""Pictures of videos: frames laid out in rows, with lines between them and a coloured frame around what is given."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from minivdm.guards import BadArgument

BORDER = 96  # grey of the lines between frames, in 0..255
MARK = (255, 140, 0)  # orange, around frames that were given
CAPTION = 13  # pixels above a row that has names
#: How large a value may be: an untrained network leaves noise, of 5 at most; pictures of 0 to 255 are larger by far.
LARGEST = 16.0
MAX_PIXELS = 1 << 26  # of one picture

Pixels = NDArray[np.uint8]


class PictureError(BadArgument):
    """A video or file name from which no picture can be made."""


def frames_of(videos: Tensor, name: str = "videos") -> Pixels:
    """Videos (b, c, f, h, w) in [-1, 1] as bytes (b, f, h, w), or (b, f, h, w, 3) for colour.

    What leaves [-1, 1] is cut off. Raises PictureError for another shape, for integers, NaN and values far outside.
    """
    if not isinstance(videos, Tensor):
        raise PictureError(f"{name}: expected a tensor (b, c, f, h, w), got {type(videos).__name__}")
    if videos.ndim != 5 or videos.shape[1] not in (1, 3) or 0 in videos.shape:
        got = f"shape {tuple(videos.shape)}"
        raise PictureError(f"{name}: expected (b, c, f, h, w) with 1 or 3 channels and nothing empty, got {got}")
    if not videos.is_floating_point():
        hint = "; bytes become x / 127.5 - 1" if videos.dtype == torch.uint8 else ""
        raise PictureError(f"{name}: expected floating-point values in [-1, 1], got {videos.dtype}{hint}")
    videos = videos.detach().float().cpu()
    if not videos.isfinite().all():
        raise PictureError(f"{name}: expected finite values in [-1, 1], got NaN or infinity")
    low, high = float(videos.min()), float(videos.max())
    if low < -LARGEST or high > LARGEST:
        hint = "; values of 0 to 255 become x / 127.5 - 1" if high > 64 and low >= 0 else ""
        raise PictureError(f"{name}: expected values in [-1, 1], got {low:.3g} to {high:.3g}{hint}")
    pixels = ((videos.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return (pixels[:, 0] if videos.shape[1] == 1 else pixels.permute(0, 2, 3, 4, 1)).numpy()


def filmstrip(
    videos: Tensor, every: int = 1, zoom: int = 1, wrap: int | None = None, known: Sequence[int] = ()
) -> Image.Image:
    """One row per video, one column per (every n-th) frame.

    Args:
        videos: (b, c, f, h, w) in [-1, 1].
        every: shows each n-th frame alone.
        zoom: side of a video's pixel in the picture.
        wrap: frames in a row before the video goes on in the next one; by default all in one row.
        known: indices of frames that get a coloured border.

    Raises:
        PictureError: for what is no video, and for every, zoom or wrap below 1.
    """
    for name, value in (("every", every), ("zoom", zoom), ("wrap", 1 if wrap is None else wrap)):
        whole_number(name, value)
    clips = frames_of(videos)
    marked = marked_frames(known, clips.shape[1])
    shown = range(0, clips.shape[1], every)
    wide = min(wrap or len(shown), len(shown))
    check_room((len(clips) * -(-len(shown) // wide), wide, *clips.shape[2:4]), zoom)
    rows, marks = [], []
    for clip in clips:
        for start in range(0, len(shown), wrap or len(shown)):
            part = shown[start : start + (wrap or len(shown))]
            rows.append([clip[i] for i in part])
            marks.append([i in marked for i in part])
    return Image.fromarray(sheet(rows, zoom, marks if marked else None))


def strips(panels: Mapping[str, Tensor], zoom: int, wrap: int, known: Mapping[str, set[int]]) -> Image.Image:
    """Several videos of the same clips: of each clip, one line of frames per panel, named, wrapped together."""
    clips = {name: frames_of(video, name) for name, video in panels.items()}
    count, frames = next(iter(clips.values())).shape[:2]
    rows, marks, names = [], [], []
    for i in range(count):
        for start in range(0, frames, wrap):
            for name, pixels in clips.items():
                part = range(start, min(start + wrap, frames))
                rows.append([pixels[i, k] for k in part])
                marks.append([k in known.get(name, ()) for k in part])
                names.append([name])
    return Image.fromarray(sheet(rows, zoom, marks, names))


def pages(clips: Pixels, columns: int, zoom: int, known: Sequence[int] = ()) -> list[Image.Image]:
    """One picture per frame of all clips (b, f, h, w[, 3]), `columns` of them side by side."""
    marked = marked_frames(known, clips.shape[1])
    found = []
    for k in range(clips.shape[1]):
        rows = [[clip[k] for clip in clips[i : i + columns]] for i in range(0, len(clips), columns)]
        marks = [[k in marked] * len(row) for row in rows] if marked else None
        found.append(Image.fromarray(sheet(rows, zoom, marks)))
    return found


def panel_pages(panels: Mapping[str, Tensor], zoom: int, known: Mapping[str, set[int]]) -> list[Image.Image]:
    """One picture per frame: a row per clip, a named column per panel."""
    clips = {name: frames_of(video, name) for name, video in panels.items()}
    count, frames = next(iter(clips.values())).shape[:2]
    found = []
    for k in range(frames):
        rows = [[pixels[i, k] for pixels in clips.values()] for i in range(count)]
        marks = [[k in known.get(name, ()) for name in clips]] * count
        names = [list(clips)] + [[""] for _ in range(count - 1)]
        found.append(Image.fromarray(sheet(rows, zoom, marks, names)))
    return found


def marked_frames(known: Sequence[int], frames: int, name: str = "known") -> set[int]:
    """Indices of frames as a set; negative ones count from the end. Raises PictureError for anything else."""
    try:
        marked = {operator.index(i) for i in known}
    except (TypeError, ValueError, RuntimeError):
        raise PictureError(f"{name}: expected indices of frames, got {reprlib.repr(known)}") from None
    if outside := [i for i in marked if not -frames <= i < frames]:
        raise PictureError(f"{name}: expected frames 0 to {frames - 1}, got {outside}")
    return {i % frames for i in marked}


def sheet(
    rows: Sequence[Sequence[Pixels]],
    zoom: int,
    marks: Sequence[Sequence[bool]] | None = None,
    names: Sequence[Sequence[str]] | None = None,
) -> Pixels:
    """Tiles (h, w[, 3]) laid out in rows with a line between them: (H, W), or (H, W, 3) with colour or marks.

    marks: which tiles get a coloured border. names: words above the tiles of a row; a row of empty words takes no room.
    """
    first = rows[0][0]
    colour = first.ndim == 3 or marks is not None
    line = 1 if marks is None else 3  # room for a border that is seen
    height, width = first.shape[0] * zoom, first.shape[1] * zoom
    above = [CAPTION if names is not None and any(names[i]) else 0 for i in range(len(rows))]
    shape = (
        len(rows) * (height + line) + line + sum(above),
        max(map(len, rows)) * (width + line) + line,
        *((3,) if colour else ()),
    )
    canvas = np.full(shape, BORDER, np.uint8)
    top = line
    for i, row in enumerate(rows):
        top += above[i]
        for j, tile in enumerate(row):
            left = line + j * (width + line)
            if marks is not None and marks[i][j]:
                canvas[top - 2 : top + height + 2, left - 2 : left + width + 2] = MARK
            if colour and tile.ndim == 2:
                tile = np.repeat(tile[..., None], 3, axis=-1)
            canvas[top : top + height, left : left + width] = tile.repeat(zoom, 0).repeat(zoom, 1)
        if above[i] and names is not None:
            for j, name in enumerate(names[i]):
                left = line + j * (width + line)
                room = width if len(names[i]) > 1 else canvas.shape[1] - left
                _write(canvas[top - line - above[i] : top - line, left : left + room], name)
        top += height + line
    return canvas


def _write(place: Pixels, text: str) -> None:
    """Draws a word into a piece of the canvas (h, w[, 3])."""
    image = Image.fromarray(np.ascontiguousarray(place))
    white = 255 if place.ndim == 2 else (255, 255, 255)
    ImageDraw.Draw(image).text((1, 1), text, fill=white, font=ImageFont.load_default())
    place[...] = np.asarray(image)


def whole_number(name: str, value: object, low: int = 1, high: int | None = None) -> None:
    """Raises PictureError unless `value` is an integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        wanted = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
        raise PictureError(f"{name}: expected {wanted}, got {value!r}")


def check_room(shape: Sequence[int], zoom: int, what: str = "zoom") -> None:
    """Raises PictureError where tiles (rows, columns, h, w) at this zoom make more than `MAX_PIXELS` pixels."""
    rows, columns, height, width = shape
    pixels = rows * (height * zoom + 3) * columns * (width * zoom + 3)
    if pixels > MAX_PIXELS:
        got = f"{rows} x {columns} frames of {height}x{width} at zoom {zoom}, {pixels / 1e6:,.0f} million"
        raise PictureError(f"{what}: expected a picture of at most {MAX_PIXELS / 1e6:.0f} million pixels, got {got}")
