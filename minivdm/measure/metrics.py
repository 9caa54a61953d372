"""What is measured of one clip at a time: distances to a known target, and what the digit reader sees in it.

All take videos (b, c, f, h, w) in [-1, 1], c = 1 where digits are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from minivdm import guards
from minivdm.measure.readers import DigitReader, load_reader

WINDOW = 5  # frames whose logits `keeps_identity` averages
ABSENT = -4.0  # logit of a class that is not there, whatever covers it: crossing digits rarely fall below -3


def pixels(name: str, videos: Tensor) -> Tensor:
    """Finite floating-point videos (b, c, f, h, w) that may be in [-1, 1]; bytes and NaN are refused by name.

    A sample may overshoot, and a damaged video hold noise; what is told from both is pixels in 0 .. 255.
    """
    guards.finite(name, guards.video(name, videos))
    if videos.device.type == "cpu" and not (high := float(videos.detach().abs().max())) < 20:
        raise guards.BadArgument(f"{name}: expected videos in [-1, 1], got values up to {high:.4g}")
    return videos


def pixels_pair(prediction: Tensor, target: Tensor) -> None:
    """Two sets of videos of one shape, each as `pixels` has it."""
    pixels("prediction", prediction)
    pixels("target", target)
    if prediction.shape != target.shape:
        shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        raise guards.BadArgument(f"prediction, target: expected videos of equal shape, got {shapes}")


# Distances to a known target. Pixels are compared in [0, 1], as all of the literature does.


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per pixel of every frame, (b, f), pixels in [0, 1].

    The tables of the Moving-MNIST literature list its *sum* over the frame: multiply by h * w (4096 at
    64x64).
    """
    pixels_pair(prediction, target)
    return ((prediction - target) / 2).square().mean((1, 3, 4))


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error per pixel of every frame, (b, f), pixels in [0, 1]; times h * w for the tables' sum."""
    pixels_pair(prediction, target)
    return ((prediction - target) / 2).abs().mean((1, 3, 4))


def psnr(prediction: Tensor, target: Tensor, of: Literal["frame", "clip"] = "frame") -> Tensor:
    """Peak signal-to-noise ratio in dB, -10 log10 of the squared error with pixels in [0, 1]; infinite if
    equal.

    Args:
        of: "frame" gives (b, f), whose mean is the average PSNR that most papers print; "clip" gives (b,),
            the PSNR of the clip's mean squared error, which is never larger than that average (Jensen).
    """
    guards.one_of("of", of, ("frame", "clip"))
    error = squared_error(prediction, target)
    return -10 * (error.mean(1) if of == "clip" else error).log10()


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of every frame, (b, f), at most 1 (Wang, Bovik, Sheikh & Simoncelli 2004, eq 13).

    Their setting: Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, pixels in [0, 1]; averaged
    over the places where the window lies inside the frame.
    """
    pixels_pair(prediction, target)
    b, c, f, h, w = prediction.shape
    if min(h, w) < 11:
        raise guards.BadArgument(f"prediction: expected frames of at least 11x11 pixels, got {h}x{w}")
    tap = torch.exp(-(torch.arange(-5.0, 6.0, device=prediction.device) ** 2) / (2 * 1.5**2))
    wide = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    prediction, target, tap = prediction.to(wide), target.to(wide), (tap / tap.sum()).to(wide)

    def local_mean(frames: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(frames, tap.view(1, 1, 11, 1)), tap.view(1, 1, 1, 11))

    x = (prediction.transpose(1, 2).reshape(-1, 1, h, w) + 1) / 2
    y = (target.transpose(1, 2).reshape(-1, 1, h, w) + 1) / 2
    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x = local_mean(x * x) - mean_x**2
    variance_y = local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    return (luminance * structure).view(b, f, -1).mean(-1)


# What the digit reader sees.


@dataclass
class Reading:
    """What the reader finds in videos.

    Attributes:
        logits: (b, f, 10), of each class being in each frame.
        presence: (b, f), logit of any legible digit being in the frame.
        clip: (b, 10) bool, the classes found in the clip: logits averaged over its frames are positive.
        frames: (b, f, 10) bool, the classes found in each frame by itself.
    """

    logits: Tensor
    presence: Tensor

    @property
    def clip(self) -> Tensor:
        return self.logits.mean(1) > 0

    @property
    def frames(self) -> Tensor:
        return self.logits > 0


@torch.no_grad()
def read(videos: Tensor, reader: DigitReader | None = None) -> Reading:
    """Read the digits of videos (b, 1, f, h, w) whose sides are 32 or a multiple of it (then averaged down to 32)."""
    pixels("videos", videos)
    b, c, f, h, w = videos.shape
    if c != 1 or h != w or h % 32:
        raise guards.BadArgument(f"videos: expected (b, 1, f, h, h) with h a multiple of 32, got {tuple(videos.shape)}")
    reader = load_reader(videos.device) if reader is None else reader
    frames = functional.avg_pool2d(videos.transpose(1, 2).reshape(b * f, 1, h, w).float(), h // 32)
    logits = torch.cat([reader(part) for part in frames.split(1024)]).view(b, f, 11)
    return Reading(logits=logits[..., :10], presence=logits[..., 10])


def asked_for(labels: Tensor, videos: Tensor) -> Tensor:
    """Labels (b, 10) of zeros and ones as bool on the videos' device. Raises BadArgument for anything else."""
    if not isinstance(labels, Tensor) or labels.shape != (videos.shape[0], 10):
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise guards.BadArgument(f"labels: expected {(videos.shape[0], 10)}, got {got}")
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise guards.BadArgument("labels: expected zeros and ones, got other values")
    return labels.to(videos.device).bool()


def _reading(videos: Tensor, reading: Reading | None) -> Reading:
    """The reading at hand, if it can be of these videos, or a new one."""
    if reading is None:
        return read(videos)
    pixels("videos", videos)
    if reading.presence.shape != (videos.shape[0], videos.shape[2]):
        wanted = f"{videos.shape[0]} videos of {videos.shape[2]} frames"
        raise guards.BadArgument(f"reading: expected one of {wanted}, got one of {tuple(reading.presence.shape)}")
    return reading


def legible(videos: Tensor, labels: Tensor, reading: Reading | None = None) -> Tensor:
    """Whether each clip shows the digits asked for, (b,) bool: the clip's reading is exactly the requested
    set.

    Args:
        labels: (b, 10) multi-hot. A missing digit, a digit too many and no digit at all all count as not
            legible.
        reading: of these videos, here and below, where it is at hand; by default `read(videos)`.
    """
    reading = _reading(videos, reading)
    return (reading.clip == asked_for(labels, videos)).all(-1)


def legibility(videos: Tensor, labels: Tensor, reading: Reading | None = None) -> float:
    """Share of the clips that are `legible`."""
    return legible(videos, labels, reading).float().mean().item()


def keeps_identity(videos: Tensor, reading: Reading | None = None) -> Tensor:
    """Whether each clip shows the same digits all along, (b,) bool.

    No part of the clip may contradict the clip's own reading: there is a digit in it, and in every window of `WINDOW`
    frames the classes with the largest mean logits are those of the whole clip (as many of them as it has), none of
    them clearly absent. A window, not a frame, because two digits that cross cannot be told apart while they overlap.
    """
    reading = _reading(videos, reading)
    found = reading.clip
    window = min(WINDOW, videos.shape[2])
    local = reading.logits.unfold(1, window, 1).mean(-1)  # (b, windows, 10)
    rank = local.argsort(-1, descending=True).argsort(-1)
    first = (rank < found.sum(-1)[:, None, None]) == found[:, None]  # (b, windows, 10)
    absent = found[:, None] & (local < ABSENT)
    return (first & ~absent).all(-1).all(-1) & found.any(-1)


def identity(videos: Tensor, reading: Reading | None = None) -> float:
    """Share of the clips that keep their identity (`keeps_identity`)."""
    return keeps_identity(videos, reading).float().mean().item()


def same_in_every_frame(videos: Tensor, labels: Tensor | None = None, reading: Reading | None = None) -> Tensor:
    """Whether every single frame is read as the same digits, (b,) bool; no frame is excused, none is averaged.

    In each frame the n classes with the largest logits are taken, n being the number of digits of the clip; they have
    to be the clip's own, and a digit has to be there at all. Stricter than `keeps_identity`, and meant for clips of
    one digit: two that cross cannot be told apart in the frames in which they overlap.

    Args:
        videos: (b, 1, f, h, h).
        labels: (b, 10) multi-hot, what the clip has to show; by default what the clip as a whole is read as.
    """
    reading = _reading(videos, reading)
    wanted = reading.clip if labels is None else asked_for(labels, videos)
    rank = reading.logits.argsort(-1, descending=True).argsort(-1)  # b f 10
    first = (rank < wanted.sum(-1)[:, None, None]) == wanted[:, None]
    return first.all(-1).all(-1) & wanted.any(-1)


guards.check_types(globals())
