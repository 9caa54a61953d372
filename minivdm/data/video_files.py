"""Videos of one's own, from .npy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class VideoFileError(ValueError):
    """A file that is damaged, or holds something else than videos."""


def load(path: str | Path) -> Tensor:
    """Videos (b, c, f, h, w) float32 in [-1, 1] from an .npy file.

    The file holds bytes, (f, h, w), (b, f, h, w) or (b, c, f, h, w), black being 0 and white 255; or floating-point
    values in [-1, 1] of these shapes. Raises FileNotFoundError or VideoFileError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an .npy file of videos, found nothing")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise VideoFileError(f"{path}: truncated, or not an .npy file ({error})") from error
    if not isinstance(array, np.ndarray) or array.ndim not in (3, 4, 5) or 0 in array.shape:
        got = array.shape if isinstance(array, np.ndarray) else "an archive"
        raise VideoFileError(f"{path}: expected an array (f, h, w), (b, f, h, w) or (b, c, f, h, w), got {got}")
    if array.dtype == np.uint8:
        video = torch.from_numpy(array).float().div_(127.5).sub_(1)
    elif np.issubdtype(array.dtype, np.floating):
        video = torch.from_numpy(array.astype(np.float32))
        if not (video.isfinite().all() and video.min() >= -1 and video.max() <= 1):
            span = f"{float(video.min()):.3g} to {float(video.max()):.3g}"
            raise VideoFileError(f"{path}: expected floating-point values in [-1, 1], got {span}")
    else:
        raise VideoFileError(f"{path}: expected bytes or floating-point values, got {array.dtype}")
    if array.ndim == 3:
        return video[None, None]
    return video[:, None] if array.ndim == 4 else video
