"""Videos of one's own, file by file: GIF, WebP, MP4 and its relatives, folders of pictures, .npy arrays.

GIF, WebP and pictures are read by Pillow, MP4 and its relatives by PyAV (`pip install minivdm[data]`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError
from torch import Tensor

from minivdm import guards
from minivdm.guards import BadFile, whole

ANIMATIONS = (".gif", ".webp", ".apng")
MOVIES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
ARRAYS = (".npy",)
GREY_TOLERANCE = 8  # compression tints a grey video by so many of 255 levels

Pixels = NDArray[np.uint8]


class VideoFileError(BadFile):
    """A file that is damaged, or holds something else than videos."""


def is_video(path: Path) -> bool:
    """Whether a path is a video by its name: a file of a known ending, or a folder that holds pictures."""
    if path.is_dir():
        return any(child.suffix.lower() in PICTURES for child in path.iterdir())
    return path.suffix.lower() in (*ANIMATIONS, *MOVIES, *ARRAYS)


def load(path: str | Path, size: int | None = None, channels: int | None = None) -> Tensor:
    """Videos (b, c, f, h, w) float32 in [-1, 1] from a file or a folder of pictures.

    Args:
        path: an .npy file, with bytes (black 0, white 255) or floating-point values in [-1, 1] of the shape (f, h, w),
            (b, f, h, w), (b, c, f, h, w), or with the channels last; or any other video, which is one clip.
        size: side of the square to which the middle of a frame is resized; None leaves frames as they are.
        channels: 1 for grey, 3 for colour; None leaves them as they are.

    Raises:
        FileNotFoundError: nothing is there.
        VideoFileError: truncated, of another kind, or of a shape or range that cannot be meant.
    """
    path = guards.path("path", path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a file of videos or a folder of pictures, found nothing")
    if path.suffix.lower() in ARRAYS:
        video = _from_array(path)
        if size is None and channels is None:
            return video
        clips = [read(path, size, channels, video=one) for one in _bytes(video)]
        array = np.stack(clips)
    else:
        array = read(path, size, channels)[None]
    return torch.from_numpy(array).permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1).contiguous()


def read(path: str | Path, size: int | None = None, channels: int | None = None, video: Pixels | None = None) -> Pixels:
    """One video as bytes (f, h, w, c).

    size, channels: as for `load`. video: frames (f, h, w, c) that were read already.

    Raises:
        VideoFileError: naming the file.
    """
    path = guards.path("path", path)
    if size is not None:
        whole("size", size, 1, 4096)
    if channels is not None and whole("channels", channels, 1, 3) == 2:
        raise guards.BadArgument("channels: expected 1, 3 or None, got 2")
    found: list[Pixels] = []
    try:
        for image in frames(path) if video is None else map(_image, video):
            wanted = channels or (3 if found and found[0].shape[-1] == 3 or not is_grey(image) else 1)
            if size is not None:
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                image = image.convert("L" if wanted == 1 else "RGB").crop((left, top, left + side, top + side))
                image = image.resize((size, size), Image.Resampling.BILINEAR)  # a mean, where it shrinks
            pixels = np.asarray(image.convert("L" if wanted == 1 else "RGB"))
            found.append(pixels[..., None] if wanted == 1 else pixels)
    except VideoFileError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise VideoFileError(f"{path}: damaged, or not a video ({error})") from error
    if not found:
        raise VideoFileError(f"{path}: expected a video, found no frame in it")
    if len({frame.shape[:2] for frame in found}) > 1:
        sizes = sorted({f"{frame.shape[1]}x{frame.shape[0]}" for frame in found})
        raise VideoFileError(f"{path}: expected frames of one size, got {', '.join(sizes[:4])}")
    if len({frame.shape[2] for frame in found}) > 1:  # grey at first, coloured later
        found = [np.repeat(frame, 3, -1) if frame.shape[2] == 1 else frame for frame in found]
    return np.stack(found)


def frames(path: Path) -> Iterator[Image.Image]:
    """The frames of a video one after the other, as they are stored. Raises VideoFileError and what Pillow raises."""
    kind = path.suffix.lower()
    if path.is_dir():
        pictures = sorted((p for p in path.iterdir() if p.suffix.lower() in PICTURES), key=natural)
        for picture in pictures:
            try:
                with Image.open(picture) as image:
                    image.load()
                    yield _eight_bit(image)
            except (OSError, SyntaxError) as error:
                raise VideoFileError(f"{picture}: damaged, or not a picture ({error})") from error
    elif kind in ARRAYS:
        video = _bytes(_from_array(path))
        if len(video) != 1:
            raise VideoFileError(f"{path}: expected one video, got {len(video)}; `load` reads them all")
        yield from map(_image, video[0])
    elif kind in ANIMATIONS:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield _eight_bit(frame.copy())
    elif kind in MOVIES:
        yield from _movie(path)
    else:
        known = ", ".join((*ANIMATIONS, *MOVIES, *ARRAYS))
        raise VideoFileError(f"{path}: expected a video ({known}) or a folder of pictures, got {kind or 'no ending'}")


def is_grey(image: Image.Image) -> bool:
    """Whether a picture has no colour, but for the tints of compression."""
    if image.mode in ("L", "1", "LA", "I;16", "I", "F"):
        return True
    pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    return int((pixels.max(-1) - pixels.min(-1)).max(initial=0)) <= GREY_TOLERANCE


def natural(path: Path) -> list[Any]:
    """A key by which frame9 comes before frame10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", path.name)]


def _eight_bit(image: Image.Image) -> Image.Image:
    """A picture in mode L or RGB; transparent parts are black, 16-bit greys are scaled."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray(
            (values / (257 if values.max(initial=0) > 255 else 1)).clip(0, 255).round().astype(np.uint8)
        )
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _movie(path: Path) -> Iterator[Image.Image]:
    try:
        import av
    except ModuleNotFoundError as error:
        raise VideoFileError(f"{path}: {path.suffix} needs PyAV: pip install 'minivdm[data]'") from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoFileError(f"{path}: expected a film, found no stream of pictures in it")
            for frame in container.decode(video=0):
                yield frame.to_image()
    except (av.error.FFmpegError, IndexError) as error:
        raise VideoFileError(f"{path}: damaged, or not a film ({error})") from error


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else np.ascontiguousarray(pixels))


def _bytes(video: Tensor) -> Pixels:
    """(b, c, f, h, w) in [-1, 1] -> bytes (b, f, h, w, c)."""
    return ((video + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1).numpy()


def _from_array(path: Path) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an .npy file of videos, found nothing")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # a header may lie about the size: nothing is read yet
    except (ValueError, EOFError, OSError, OverflowError, MemoryError) as error:
        raise VideoFileError(f"{path}: truncated, or not an .npy file ({error})") from error
    if not isinstance(array, np.ndarray) or array.ndim not in (3, 4, 5) or 0 in array.shape:
        got = array.shape if isinstance(array, np.ndarray) else "an archive"
        raise VideoFileError(f"{path}: expected an array (f, h, w), (b, f, h, w) or (b, c, f, h, w), got {got}")
    array = _channels_second(path, array)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.array(array)).float().div_(127.5).sub_(1)
    if not np.issubdtype(array.dtype, np.floating):
        raise VideoFileError(f"{path}: expected bytes or floating-point values, got {array.dtype}")
    video = torch.from_numpy(array.astype(np.float32))
    low, high = float(video.min()), float(video.max())
    if not (video.isfinite().all() and low >= -1 and high <= 1):
        hint = "; bytes as floats become x / 127.5 - 1" if low >= 0 and 2 < high <= 255 else ""
        raise VideoFileError(f"{path}: expected floating-point values in [-1, 1], got {low:.3g} to {high:.3g}{hint}")
    if low >= 0:  # black is -1: in [0, 1] it would be a mid-grey
        raise VideoFileError(
            f"{path}: expected values in [-1, 1] with black at -1, got {low:.3g} to {high:.3g}; "
            f"values in [0, 1] become 2 x - 1"
        )
    return video


def _channels_second(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """(b, c, f, h, w) of any layout that can be told apart."""
    shape = array.shape
    if array.ndim == 3:
        return array[None, None]
    if array.ndim == 4:
        if shape[-1] in (1, 3) and shape[-2] > 3:  # (f, h, w, c)
            return array.transpose(3, 0, 1, 2)[None]
        if shape[0] == 20 and shape[1] != 20 and shape[2:] == (64, 64):
            hint = "frames come first there: array.swapaxes(0, 1); 20 clips go in with five axes (20, 1, f, h, w)"
            raise VideoFileError(f"{path}: this looks like Moving-MNIST's own file (20, n, 64, 64), {shape}; {hint}")
        return array[:, None]
    if shape[1] in (1, 3):
        return array
    for axis in (4, 2):  # (b, f, h, w, c) and (b, f, c, h, w)
        if shape[axis] in (1, 3):
            return np.moveaxis(array, axis, 1)
    raise VideoFileError(f"{path}: expected 1 or 3 channels, as in (b, c, f, h, w), got {shape}")
