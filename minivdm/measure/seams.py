"""What several samples, neighbouring frames and the joints between blocks say about a video.

All take videos (b, c, f, h, w) in [-1, 1]. The features are those of `minivdm.measure.readers.ClipEncoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from minivdm import guards
from minivdm.measure.frechet import features
from minivdm.measure.metrics import pixels, psnr
from minivdm.measure.readers import ClipEncoder


def best_of_n(
    samples: Tensor,
    target: Tensor,
    metric: Callable[[Tensor, Tensor], Tensor] = psnr,
    larger_is_better: bool = True,
) -> tuple[Tensor, Tensor]:
    """The best of n samples per clip, as stochastic prediction is judged (Denton & Fergus 2018, "SVG", section 4).

    samples: (n, b, c, f, h, w). target: (b, c, f, h, w). metric: (prediction, target) -> (b,) or (b, f); the best
    sample is the one whose mean over its frames is. Returns that sample's values, (b,) or (b, f), and its index (b,).
    It only ever improves with n: state n (SVG has 100), and never compare across it.
    """
    if samples.ndim != 6 or samples.shape[1:] != target.shape:
        shapes = f"{tuple(samples.shape)} and {tuple(target.shape)}"
        raise guards.BadArgument(f"expected samples (n, b, c, f, h, w) and a target (b, c, f, h, w), got {shapes}")
    if len(samples) == 0:
        raise guards.BadArgument("expected at least one sample, got none")
    values = torch.stack([metric(sample, target) for sample in samples])  # (n, b) or (n, b, f)
    if values.ndim not in (2, 3) or values.shape[1] != target.shape[0]:
        raise guards.BadArgument(f"metric: expected values (b,) or (b, f) of it, got {tuple(values.shape[1:])}")
    means = values.flatten(2).mean(2) if values.ndim > 2 else values
    best = means.argmax(0) if larger_is_better else means.argmin(0)
    return values[best, torch.arange(len(best), device=best.device)], best


def feature_consistency(videos: Tensor, encoder: ClipEncoder | None = None) -> Tensor:
    """Cosine similarity of the features of neighbouring frames, (b, f - 1), at most 1.

    Falls where a frame does not belong to the one before. It rewards a video that stands still with 1: read it
    against that of real clips, not as the more the better.
    """
    frames, _ = features(videos, encoder)  # (b, f, d)
    return torch.cosine_similarity(frames[:, 1:], frames[:, :-1], dim=-1)


def block_seam(
    videos: Tensor,
    seams: Sequence[int],
    of: Literal["features", "pixels"] = "features",
    encoder: ClipEncoder | None = None,
) -> Tensor:
    """Is the jump into a new block larger than elsewhere? Ratio per clip, (b,): about 1 where no seam can be seen.

    The jump at frame k is |y_k - 2 y_{k-1} + y_{k-2}|, what a steady motion would not have: of y the features of
    each frame ("features"), or its pixels ("pixels", for videos of any size and channels). The score is the mean
    jump at the seams, and at the frame after each, which a broken motion shows as well, over the mean jump at all
    other frames.

    seams: indices of the first frame of each new block, each from 2 to f - 2.
    """
    guards.one_of("of", of, ("features", "pixels"))
    pixels("videos", videos)
    f = videos.shape[2]
    if not seams or not all(2 <= seam <= f - 2 for seam in seams):
        raise guards.BadArgument(f"seams: expected frames from 2 to {f - 2}, got {list(seams)}")
    y = features(videos, encoder)[0] if of == "features" else videos.transpose(1, 2).flatten(2).float()
    jump = (y[:, 2:] - 2 * y[:, 1:-1] + y[:, :-2]).norm(dim=-1)  # (b, f - 2), of frames 2 to f - 1
    at = torch.zeros(f - 2, dtype=torch.bool, device=videos.device)
    for seam in seams:
        at[seam - 2 : seam] = True
    if bool(at.all()):
        raise guards.BadArgument(
            f"seams: expected frames without a seam to compare with, got {list(seams)} of {f} frames"
        )
    return jump[:, at].mean(1) / jump[:, ~at].mean(1).clamp(min=1e-12)


guards.check_types(globals())
