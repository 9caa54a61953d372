"""From video tensors to 8-bit frames, with errors that name the likely mistake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

TOLERANCE = 1e-3
"""How far a value may leave [-1, 1] before it is an error: rounding, not overshoot."""


class VideoShapeError(ValueError):
    """The axes are not (b, c, f, h, w)."""


class VideoRangeError(ValueError):
    """The values are not finite numbers in [-1, 1]."""


def as_frames(videos: Any, clip: bool = False) -> list[NDArray[np.uint8]]:
    """Turn videos into 8-bit frames, one array (f, h, w, c) per clip.

    Args:
        videos: tensor or array (b, c, f, h, w), or a sequence of clips (c, f, h, w) or (1, c, f, h, w), which
            may differ in frames and size. Values in [-1, 1]; c is 1 (grey) or 3 (red, green, blue).
        clip: cut values outside [-1, 1] off instead of refusing them; for noisy latents.

    Raises:
        VideoShapeError: wrong number or order of axes.
        VideoRangeError: values outside [-1, 1] (unless ``clip``), not finite, or 8-bit integers.
    """
    if isinstance(videos, (list, tuple)):
        if not videos:
            raise VideoShapeError("expected at least one clip, got an empty list")
        return [_frames(_one_clip(_to_array(v), i), clip) for i, v in enumerate(videos)]
    batch = _to_array(videos)
    if batch.ndim == 4:
        raise VideoShapeError(
            f"expected videos with 5 axes (b, c, f, h, w), got 4: {batch.shape}; "
            "a single clip (c, f, h, w) goes in as video[None] or as [video]"
        )
    if batch.ndim != 5:
        raise VideoShapeError(f"expected videos with 5 axes (b, c, f, h, w), got {batch.ndim}: {batch.shape}")
    if batch.shape[0] == 0:
        raise VideoShapeError(f"expected at least one clip, got an empty batch: {batch.shape}")
    return [_frames(one, clip) for one in batch]


def observed_frames(observed: Any, clips: Sequence[NDArray[np.uint8]]) -> list[set[int]]:
    """Which frames of each clip are observed.

    Args:
        observed: None; frame indices for all clips (negative ones count from the end); a bool mask (f,) or
            (b, f); or one sequence of indices per clip (None or [] for a clip without observed frames).
        clips: what ``as_frames`` returned.
    """
    if observed is None:
        return [set() for _ in clips]
    if isinstance(observed, (torch.Tensor, np.ndarray)):
        mask = _to_array(observed)
        if mask.dtype == np.bool_:
            if mask.ndim not in (1, 2) or (mask.ndim == 2 and mask.shape[0] != len(clips)):
                raise VideoShapeError(f"expected an observed mask (f,) or (b, f), got {mask.shape}")
            rows = np.broadcast_to(mask, (len(clips), mask.shape[-1]))
            for row, frames in zip(rows, clips, strict=True):
                if len(row) != len(frames):
                    raise VideoShapeError(f"expected a mask over {len(frames)} frames, got {len(row)}")
            return [set(np.flatnonzero(row).tolist()) for row in rows]
        observed = mask.tolist()
    entries = list(observed)
    if all(isinstance(entry, (int, np.integer)) and not isinstance(entry, bool) for entry in entries):
        entries = [entries] * len(clips)
    elif len(entries) != len(clips):
        raise VideoShapeError(f"expected observed frames for {len(clips)} clips, got {len(entries)}")
    return [_indices(entry, len(frames)) for entry, frames in zip(entries, clips, strict=True)]


def clip_titles(titles: str | Sequence[str] | None, count: int) -> list[str]:
    """One title per clip; a single string titles a single clip."""
    if titles is None:
        return [""] * count
    titles = [titles] if isinstance(titles, str) else [str(title) for title in titles]
    if len(titles) != count:
        raise ValueError(f"expected {count} titles, one per clip, got {len(titles)}: {titles}")
    return titles


def _indices(entry: Any, frames: int) -> set[int]:
    found = set()
    for index in [] if entry is None else entry:
        if not -frames <= int(index) < frames:
            raise ValueError(f"observed frame {index} is outside a clip of {frames} frames")
        found.add(int(index) % frames)
    return found


def _to_array(value: Any) -> NDArray[Any]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return value.float().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, np.ndarray):
        return value
    raise TypeError(f"expected a tensor or an array, got {type(value).__name__}")


def _one_clip(array: NDArray[Any], index: int) -> NDArray[Any]:
    if array.ndim == 5 and array.shape[0] == 1:
        return array[0]
    if array.ndim != 4:
        raise VideoShapeError(f"clip {index}: expected (c, f, h, w) or (1, c, f, h, w), got {array.shape}")
    return array


def _frames(video: NDArray[Any], clip: bool) -> NDArray[np.uint8]:
    channels, frames, height, width = video.shape
    if channels not in (1, 3):
        hint = _axes_hint(video.shape)
        raise VideoShapeError(f"expected clips (c, f, h, w) with c = 1 or 3, got {video.shape}{hint}")
    if 0 in video.shape:
        raise VideoShapeError(f"expected at least one frame and one pixel, got {video.shape}")
    if not np.issubdtype(video.dtype, np.floating):
        hint = "8-bit pixels become x / 127.5 - 1"
        raise VideoRangeError(f"expected floats in [-1, 1], got {video.dtype}; {hint}")
    if not np.isfinite(video).all():
        raise VideoRangeError("expected finite values in [-1, 1], got NaN or infinity")
    low, high = float(video.min()), float(video.max())
    if not clip and (low < -1 - TOLERANCE or high > 1 + TOLERANCE):
        hint = "8-bit pixels become x / 127.5 - 1" if high > 64 else "a noisy latent is shown with clip=True"
        raise VideoRangeError(f"expected values in [-1, 1], got [{low:.3g}, {high:.3g}]; {hint}")
    pixels = np.rint((np.clip(video, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 3, 0))  # (f, h, w, c)


def _axes_hint(shape: tuple[int, ...]) -> str:
    if shape[1] in (1, 3):
        return ": the channel and frame axes look swapped, as in (b, f, c, h, w); try video.transpose(1, 2)"
    if shape[3] in (1, 3):
        return ": the channels look last, as in (b, f, h, w, c); try video.permute(0, 4, 1, 2, 3)"
    return ""
