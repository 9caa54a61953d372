"""Videos as files: filmstrips (PNG), animations (GIF, WebP, MP4); and files that are written whole or not at all."""

from __future__ import annotations

import io
import reprlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from minivdm import guards
from minivdm.data.atomic import write_atomic
from minivdm.data.sheets import (
    BORDER,
    MARK,
    PictureError,
    check_room,
    filmstrip,
    frames_of,
    marked_frames,
    pages,
    panel_pages,
    strips,
    whole_number,
)

__all__ = [
    "ENDINGS",
    "PictureError",
    "check",
    "filmstrip",
    "save",
    "save_comparison",
]

ENDINGS = (".gif", ".png", ".webp", ".mp4")
WRAP = 16  # frames of a filmstrip before it goes on in the next row
MAX_ZOOM = 64


def check(
    path: str | Path, fps: float = 8.0, zoom: int = 1, *, replace: bool = True, shape: Sequence[int] | None = None
) -> str:
    """The ending of a picture's file name; raises PictureError for what `save` cannot do, FileExistsError.

    Args:
        path: NAME.gif, NAME.png, NAME.webp or NAME.mp4.
        fps: frames per second, 0.1 to 50.
        zoom: 1 to 64.
        replace: whether a file that is there may be replaced.
        shape: (rows, columns, h, w) of the frames in one picture, to refuse one that is too large before the work.
    """
    path = guards.path("path", path)
    kind = path.suffix.lower()
    if not isinstance(replace, bool):
        raise PictureError(f"replace: expected True or False, got {reprlib.repr(replace)}")
    if kind not in ENDINGS:
        raise PictureError(f"expected a file name ending in {', '.join(ENDINGS[:-1])} or .mp4, got {str(path)!r}")
    # A GIF counts in hundredths of a second, and viewers slow down what is faster than two of them.
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0.1 <= fps <= 50:
        raise PictureError(f"fps: expected 0.1 to 50 frames per second, got {fps!r}")
    whole_number("zoom", zoom, 1, MAX_ZOOM)
    if shape is not None:
        if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) != 4:
            raise PictureError(f"shape: expected (rows, columns, h, w), got {reprlib.repr(shape)}")
        for side in shape:
            whole_number("shape", side)
        check_room(shape, zoom)
    if kind == ".mp4":
        _av()
    if path.is_dir():
        raise PictureError(f"expected the name of a file, got the folder {path}")
    if not replace and (path.exists() or path.is_symlink()):
        raise FileExistsError(f"{path} is there already; give another name, or --force (in Python: replace=True)")
    return kind


def save(
    videos: Tensor,
    path: str | Path,
    fps: float = 8.0,
    zoom: int = 2,
    columns: int | None = None,
    *,
    known: Sequence[int] = (),
    replace: bool = True,
) -> Path:
    """Write videos: .png is a filmstrip, .gif, .webp and .mp4 an animation of all clips side by side.

    A GIF counts in hundredths of a second: the pauses differ by one of them where `fps` needs it, so that the whole
    has the right length. MP4 needs PyAV (`pip install minivdm[data]`) and loses detail, the others lose none of grey
    videos; a GIF has 256 colours a frame.

    Args:
        videos: (b, c, f, h, w) in [-1, 1], c = 1 or 3.
        path: where to; the ending says the format.
        fps: frames per second of the animation, 0.1 to 50.
        zoom: side of a video's pixel in the picture.
        columns: clips side by side before a new row begins, by default 8; in a filmstrip frames, by default 16.
        known: indices of frames that get a coloured border: those that were given.
        replace: whether a file that is there may be replaced.

    Returns:
        The path.

    Raises:
        PictureError: for what is no video, NaN, bytes, and options out of range. FileExistsError: see `replace`.
    """
    clips = frames_of(videos)
    b, f, h, w = clips.shape[:4]
    if columns is not None:
        whole_number("columns", columns)
    kind = check(path, fps, zoom, replace=replace)
    if kind == ".png":
        wrap = min(columns or WRAP, f)
        check_room((b * -(-f // wrap), wrap, h, w), zoom)
        return _write(Path(path), _png(filmstrip(videos, zoom=zoom, wrap=wrap, known=known)), replace)
    wide = min(columns or 8, b)
    check_room((-(-b // wide), wide, h, w), zoom)
    return _write(Path(path), _animation(pages(clips, wide, zoom, known), kind, fps), replace)


def save_comparison(
    panels: Mapping[str, Tensor],
    path: str | Path,
    fps: float = 8.0,
    zoom: int = 2,
    *,
    known: Mapping[str, Sequence[int]] | None = None,
    replace: bool = True,
) -> Path:
    """Write several videos of the same clips beside each other, each under its name.

    An animation has a row per clip and a column per panel; a filmstrip has a line per panel, clip by clip, and goes on
    below after 16 frames.

    Args:
        panels: name -> videos (b, c, f, h, w), all of one shape.
        known: name -> indices of frames with a coloured border, those that were given.
        path, fps, zoom, replace: as for `save`.

    Raises:
        PictureError, FileExistsError: as for `save`.
    """
    if not isinstance(panels, Mapping) or not panels:
        raise PictureError(f"panels: expected videos by name, got {reprlib.repr(panels)}")
    for name, video in panels.items():
        if not isinstance(video, Tensor) or video.ndim != 5:
            raise PictureError(f"panels: expected videos (b, c, f, h, w), got {reprlib.repr(video)} as {name}")
    shapes = {name: tuple(video.shape) for name, video in panels.items()}
    if len(set(shapes.values())) != 1:
        raise PictureError(f"panels: expected videos of one shape, got {shapes}")
    kind = check(path, fps, zoom, replace=replace)
    (b, _, f, h, w), n = next(iter(shapes.values())), len(panels)
    if not isinstance(known, Mapping | None):
        raise PictureError(f"known: expected panels and their frames, got {reprlib.repr(known)}")
    marks = {name: marked_frames(indices, f) for name, indices in (known or {}).items()}
    if kind == ".png":
        check_room((b * n * -(-f // WRAP), min(f, WRAP), h + 7, w), zoom)
        return _write(Path(path), _png(strips(panels, zoom, min(WRAP, f), marks)), replace)
    check_room((b, n, h + 7, w), zoom)
    return _write(Path(path), _animation(panel_pages(panels, zoom, marks), kind, fps), replace)


# ---- formats -----------------------------------------------------------------------------------------------------


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _animation(images: list[Image.Image], kind: str, fps: float) -> bytes:
    buffer = io.BytesIO()
    if kind == ".mp4":
        return _mp4(images, fps)
    unit = 10 if kind == ".gif" else 1  # milliseconds of the format's clock
    ticks = [round((k + 1) * 1000 / fps / unit) - round(k * 1000 / fps / unit) for k in range(len(images))]
    pauses = [tick * unit for tick in ticks]
    if kind == ".gif":
        images = [_palette(image) for image in _distinct(images)]
        images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=pauses, loop=0)
    else:
        images = _distinct(images)
        images[0].save(
            buffer, "WEBP", save_all=True, append_images=images[1:], duration=pauses, loop=0, lossless=True, quality=50
        )
    return buffer.getvalue()


def _distinct(images: list[Image.Image]) -> list[Image.Image]:
    """Pillow merges neighbours that are equal, and a tool that counts frames is misled. A corner pixel of the line
    around everything, one grey level apart, keeps each frame."""
    found = [images[0]]
    for image in images[1:]:
        if image.tobytes() == found[-1].tobytes():
            image = image.copy()
            grey = BORDER + 1 if image.getpixel((0, 0)) in (BORDER, (BORDER,) * 3) else BORDER
            image.putpixel((0, 0), grey if image.mode == "L" else (grey,) * 3)
        found.append(image)
    return found


def _palette(image: Image.Image) -> Image.Image:
    """A picture with at most 256 colours. Greys with coloured borders stay exact, but that 1 becomes 0."""
    if image.mode == "L":
        return image
    pixels = np.asarray(image)
    marked = (pixels == MARK).all(-1)
    grey = pixels[..., 0]
    if not (marked | (pixels == grey[..., None]).all(-1)).all():
        return image.quantize(256, dither=Image.Dither.NONE)
    index = np.where(marked, 1, np.where(grey == 1, 0, grey)).astype(np.uint8)
    made = Image.fromarray(index, "P")
    colours = [[level] * 3 for level in range(256)]
    colours[1] = list(MARK)
    made.putpalette([value for colour in colours for value in colour])
    return made


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise PictureError("MP4 needs PyAV, which is not installed: pip install 'minivdm[data]'") from error
    return av


def _mp4(images: list[Image.Image], fps: float) -> bytes:
    """H.264 in 4:2:0, which every browser plays; its sides are even, so a line of grey is added where needed."""
    av = _av()
    width, height = (side + side % 2 for side in images[0].size)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "12", "threads": "1"}
        for image in images:
            even = Image.new("RGB", (width, height), (BORDER,) * 3)
            even.paste(image)
            container.mux(stream.encode(av.VideoFrame.from_image(even)))
        container.mux(stream.encode())
    return buffer.getvalue()


def _write(path: Path, data: bytes, replace: bool) -> Path:
    write_atomic(path, data, replace=replace)
    return path
