"""Videos as files, with Pillow alone: filmstrips (PNG) and animations (GIF)."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from minivdm.training.checkpoints import write_atomic

BORDER = 96  # grey of the lines between frames, in 0..255


class PictureError(ValueError):
    """A video or file name from which no picture can be made."""


def _bytes(videos: torch.Tensor) -> torch.Tensor:
    """(b c f h w) in [-1, 1] -> uint8 (b f h w), or (b f h w 3) for colour."""
    if videos.ndim != 5 or videos.shape[1] not in (1, 3):
        raise PictureError(f"expected videos (b, c, f, h, w) with 1 or 3 channels, got shape {tuple(videos.shape)}")
    grey = ((videos.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return grey[:, 0] if videos.shape[1] == 1 else grey.permute(0, 2, 3, 4, 1)


def filmstrip(videos: torch.Tensor, every: int = 1, zoom: int = 1) -> Image.Image:
    """One row per video, one column per (every n-th) frame. videos (b, c, f, h, w) in [-1, 1]."""
    rows = [list(row[::every]) for row in _bytes(videos)]
    return _sheet(rows, zoom)


def check(path: str | Path, fps: float = 8.0, zoom: int = 1) -> str:
    """The ending of a picture's file name, .gif or .png. Raises PictureError for what `save` cannot do."""
    kind = Path(path).suffix.lower()
    if kind not in (".gif", ".png"):
        raise PictureError(f"expected a file name ending in .gif or .png, got {str(path)!r}")
    if not 0.1 <= fps <= 50:  # a GIF counts in hundredths of a second, and viewers slow down what is faster than 2
        raise PictureError(f"fps: expected 0.1 to 50 frames per second, got {fps}")
    if zoom < 1:
        raise PictureError(f"zoom: expected an integer >= 1, got {zoom}")
    return kind


def save(videos: torch.Tensor, path: str | Path, fps: float = 8.0, zoom: int = 2, columns: int | None = None) -> Path:
    """Write videos (b, c, f, h, w) to `path`: .png = filmstrip, .gif = animation of all clips side by side.

    fps: frames per second of the animation. zoom: side of a video's pixel in the picture. columns: clips side by side
    before a new row begins, by default 8. Raises PictureError.
    """
    path = Path(path)
    buffer = io.BytesIO()
    if check(path, fps, zoom) == ".png":
        filmstrip(videos, zoom=zoom).save(buffer, "PNG")
    else:
        clips = _bytes(videos)  # (b f h w)
        wide = columns or min(len(clips), 8)
        pages = [
            _sheet([list(frame[i : i + wide]) for i in range(0, len(frame), wide)], zoom)
            for frame in clips.transpose(0, 1)
        ]
        pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=round(1000 / fps), loop=0)
    write_atomic(path, buffer.getvalue())
    return path


def _sheet(rows: list[list[torch.Tensor]], zoom: int) -> Image.Image:
    """Tiles (h, w[, 3]) laid out in rows with a one-pixel line between them."""
    first = rows[0][0]
    height, width = first.shape[0] * zoom + 1, first.shape[1] * zoom + 1
    sheet = Image.new(
        "L" if first.ndim == 2 else "RGB",
        (max(map(len, rows)) * width + 1, len(rows) * height + 1),
        BORDER if first.ndim == 2 else (BORDER,) * 3,
    )
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            image = Image.fromarray(tile.contiguous().numpy())
            if zoom != 1:
                image = image.resize((width - 1, height - 1), Image.Resampling.NEAREST)
            sheet.paste(image, (j * width + 1, i * height + 1))
    return sheet
