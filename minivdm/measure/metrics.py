"""What is measured of videos: distances to a known target, legibility, identity over time, straightness of
motion.

All take videos (b, 1, f, h, w) in [-1, 1]. The reading of digits is a small network's (`DigitReader`), whose
weights ship; `benchmarks/train_digit_reader.py` made them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

WINDOW = 5  # frames whose logits `keeps_identity` averages
ABSENT = -4.0  # logit of a class that is not there, whatever covers it: crossing digits rarely fall below -3
CENTRE = 6.25  # from a digit's true corner, at size 32: the mean centre of mass, 6.75, less half a pixel of rounding
Module = TypeVar("Module", bound=nn.Module)
READER = Path(__file__).parents[1] / "weights" / "digit-reader-32.safetensors"


class DigitReader(nn.Module):
    """Which digits are in a frame? A small convolutional network, the same wherever a digit is on the canvas.

    Called with frames (n, 1, 32, 32) in [-1, 1]; returns logits (n, 11): for each class whether a digit of it
    is there, and last whether there is any legible digit at all.
    """

    def __init__(self) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

        self.body = nn.Sequential(
            *convolution(1, 16),
            nn.MaxPool2d(2),
            *convolution(16, 32),
            *convolution(32, 32),
            nn.MaxPool2d(2),
            *convolution(32, 64),
            *convolution(64, 96),
        )
        self.head = nn.Conv2d(96, 11, 1)

    def forward(self, frames: Tensor) -> Tensor:
        evidence = self.head(self.body(frames))  # n 11 8 8
        return evidence.flatten(2).logsumexp(-1)  # a smooth maximum: one place with the digit is enough


def load_shipped(weights: Path, network: Callable[[], Module], maker: str, device: str | torch.device) -> Module:
    """A network in eval mode with the weights of a file, checked against the SHA-256 in the card beside it.

    network: makes it untrained. maker: the script that makes the weights, for the message.

    Raises:
        FileNotFoundError: no weights.
        ValueError: the file is truncated or changed.
    """
    if not weights.is_file():
        raise FileNotFoundError(f"{weights}: expected the weights that ship; {maker} makes them")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    expected = json.loads(weights.with_suffix(".json").read_text())["sha256"]
    if found != expected:
        raise ValueError(f"{weights}: expected SHA-256 {expected}, found {found}: truncated or changed")
    with torch.device("meta"):  # no first weights, and so no draw from the global generator
        made = network()
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
    made.load_state_dict(state, assign=True)
    return made.to(device).eval().requires_grad_(False)


@functools.cache
def load_reader(device: str | torch.device = "cpu") -> DigitReader:
    """The shipped reader in eval mode. Raises as `load_shipped` does."""
    return load_shipped(READER, DigitReader, "benchmarks/train_digit_reader.py", device)


# Distances to a known target. Pixels are compared in [0, 1], as all of the literature does.


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per pixel of every frame, (b, f), pixels in [0, 1].

    The tables of the Moving-MNIST literature list its *sum* over the frame: multiply by h * w (4096 at
    64x64).
    """
    _check_pair(prediction, target)
    return ((prediction - target) / 2).square().mean((1, 3, 4))


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error per pixel of every frame, (b, f), pixels in [0, 1]; times h * w for the tables' sum."""
    _check_pair(prediction, target)
    return ((prediction - target) / 2).abs().mean((1, 3, 4))


def psnr(prediction: Tensor, target: Tensor, of: str = "frame") -> Tensor:
    """Peak signal-to-noise ratio in dB, -10 log10 of the squared error with pixels in [0, 1]; infinite if
    equal.

    Args:
        of: "frame" gives (b, f), whose mean is the average PSNR that most papers print; "clip" gives (b,),
            the PSNR of the clip's mean squared error, which is never larger than that average (Jensen).
    """
    if of not in ("frame", "clip"):
        raise ValueError(f"of: expected 'frame' or 'clip', got {of!r}")
    error = squared_error(prediction, target)
    return -10 * (error.mean(1) if of == "clip" else error).log10()


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of every frame, (b, f), at most 1 (Wang, Bovik, Sheikh & Simoncelli 2004, eq 13).

    Their setting: Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, pixels in [0, 1]; averaged
    over the places where the window lies inside the frame.
    """
    _check_pair(prediction, target)
    b, c, f, h, w = prediction.shape
    if min(h, w) < 11:
        raise ValueError(f"ssim: expected frames of at least 11x11 pixels, got {h}x{w}")
    tap = torch.exp(-(torch.arange(-5.0, 6.0, device=prediction.device) ** 2) / (2 * 1.5**2))
    tap = (tap / tap.sum()).to(prediction.dtype)

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
    _check_videos(videos)
    b, c, f, h, w = videos.shape
    if c != 1 or h != w or h % 32:
        raise ValueError(f"read: expected (b, 1, f, h, h) with h a multiple of 32, got {tuple(videos.shape)}")
    reader = load_reader(videos.device) if reader is None else reader
    frames = functional.avg_pool2d(videos.transpose(1, 2).reshape(b * f, 1, h, w).float(), h // 32)
    logits = torch.cat([reader(part) for part in frames.split(1024)]).view(b, f, 11)
    return Reading(logits=logits[..., :10], presence=logits[..., 10])


def legible(videos: Tensor, labels: Tensor) -> Tensor:
    """Whether each clip shows the digits asked for, (b,) bool: the clip's reading is exactly the requested
    set.

    Args:
        labels: (b, 10) multi-hot. A missing digit, a digit too many and no digit at all all count as not
            legible.
    """
    if labels.shape != (videos.shape[0], 10):
        raise ValueError(f"labels: expected {(videos.shape[0], 10)}, got {tuple(labels.shape)}")
    return (read(videos).clip == labels.to(videos.device).bool()).all(-1)


def legibility(videos: Tensor, labels: Tensor) -> float:
    """Share of the clips that are `legible`."""
    return legible(videos, labels).float().mean().item()


def keeps_identity(videos: Tensor) -> Tensor:
    """Whether each clip shows the same digits all along, (b,) bool.

    No part of the clip may contradict the clip's own reading: there is a digit in it, and in every window of `WINDOW`
    frames the classes with the largest mean logits are those of the whole clip (as many of them as it has), none of
    them clearly absent. A window, not a frame, because two digits that cross cannot be told apart while they overlap.
    """
    reading = read(videos)
    found = reading.clip
    window = min(WINDOW, videos.shape[2])
    local = reading.logits.unfold(1, window, 1).mean(-1)  # (b, windows, 10)
    rank = local.argsort(-1, descending=True).argsort(-1)
    first = (rank < found.sum(-1)[:, None, None]) == found[:, None]  # (b, windows, 10)
    absent = found[:, None] & (local < ABSENT)
    return (first & ~absent).all(-1).all(-1) & found.any(-1)


def identity(videos: Tensor) -> float:
    """Share of the clips that keep their identity (`keeps_identity`)."""
    return keeps_identity(videos).float().mean().item()


# How straight one digit moves.


@dataclass
class Track:
    """The straight-line-with-bounce motion that fits a clip of one digit best.

    Attributes:
        observed: (b, f, 2) centre of the ink, (y, x) in pixels; NaN in frames without ink.
        fitted: (b, f, 2) the same of the best fitting motion.
        velocity: (b, 2) pixels per frame at the first frame.
        deviation: (b,) root mean square distance of the two, in pixels; infinite if some frame has no ink.
    """

    observed: Tensor
    fitted: Tensor
    velocity: Tensor
    deviation: Tensor


def fit_track(videos: Tensor) -> Track:
    """Fit position, velocity and bounces to the ink's centre of every clip (b, 1, f, h, h), by least squares.

    Both axes bounce independently of each other, so each is fitted alone: all starts and velocities on a
    grid, then a finer grid around the best. MNIST digits are centred on their centre of mass, so that the
    centre of the ink may go from half a digit (7/32 of the canvas) to as much before the far wall; the fit
    may shift these walls by a pixel.
    """
    _check_videos(videos)
    b, _, f, h, w = videos.shape
    if h != w:
        raise ValueError(f"fit_track: expected square frames, got {tuple(videos.shape)}")
    ink = ((videos[:, 0].double() + 1) / 2 - 0.2).clamp(min=0)  # a faint background is not the digit
    total = ink.sum((-2, -1))
    pixel = torch.arange(h, device=videos.device, dtype=torch.float64)
    y = (ink.sum(-1) * pixel).sum(-1) / total  # b f
    x = (ink.sum(-2) * pixel).sum(-1) / total
    observed = torch.stack([y, x], -1).where(total[..., None] > 1, torch.nan)

    tracks = observed.transpose(1, 2).reshape(2 * b, f).nan_to_num(h / 2)
    fitted, velocity = _fit_axis(tracks, h)
    fitted = fitted.view(b, 2, f).transpose(1, 2)
    deviation = (fitted - observed).square().sum(-1).mean(-1).sqrt().nan_to_num(torch.inf)
    return Track(observed, fitted, velocity.view(b, 2), deviation)


def track_deviation(videos: Tensor) -> Tensor:
    """How far each clip of one digit is from straight-line-with-bounce motion, (b,) in pixels (see `Track`).

    Digits drawn at whole pixels leave sqrt(2/12) = 0.41 pixels of rounding. Ask it of legible clips only:
    grey noise, whose ink has its centre in the middle of the canvas all the time, does not move at all.
    """
    return fit_track(videos).deviation


def _fit_axis(tracks: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Best bouncing motion for tracks (n, f): the fitted tracks (n, f) and their velocities (n,)."""
    scale, frames = size / 32, tracks.shape[1]
    start = torch.linspace(0, 18 * scale, 37, dtype=torch.float64, device=tracks.device)
    velocity = torch.linspace(-4 * scale, 4 * scale, 161, dtype=torch.float64, device=tracks.device)
    start, velocity = (grid.reshape(-1) for grid in torch.meshgrid(start, velocity, indexing="ij"))
    for step in (0.5 * scale, None):  # a grid for all tracks, then a finer one around each track's best
        paths = _bouncing(start, velocity, 18 * scale, frames) + CENTRE * scale  # (k, f) or (n, k, f)
        gap = tracks.mean(-1, keepdim=True) - paths.mean(-1)  # (n, k)
        shift = gap.clamp(-scale, scale)
        if paths.ndim == 2:
            error = torch.cdist(tracks, paths).square()
        else:
            error = (tracks[:, None] - paths).square().sum(-1)
        best = (error + frames * (shift - 2 * gap) * shift).argmin(-1, keepdim=True)  # (n, 1)
        shift = shift.gather(1, best)
        if step is not None:
            around = torch.linspace(-1, 1, 21, dtype=torch.float64, device=tracks.device)
            dy, dv = (grid.reshape(-1) for grid in torch.meshgrid(around, around, indexing="ij"))
            start = (start[best] + step * dy).clamp(0, 18 * scale)  # (n, k)
            velocity = velocity[best] + 0.1 * step * dv
    fitted = paths.gather(1, best[..., None].expand(-1, -1, frames))[:, 0] + shift
    return fitted, velocity.gather(1, best)[:, 0]


def _bouncing(start: Tensor, velocity: Tensor, free: float, frames: int) -> Tensor:
    """Paths (..., f) within [0, free] of starts and velocities (...): clamped to the wall, then reversed."""
    path = [start]
    for _ in range(1, frames):
        ahead = path[-1] + velocity
        velocity = torch.where(ahead <= 0, velocity.abs(), torch.where(ahead >= free, -velocity.abs(), velocity))
        path.append(ahead.clamp(0, free))
    return torch.stack(path, -1)


def _check_videos(videos: Tensor) -> None:
    if videos.ndim != 5:
        raise ValueError(f"expected videos (b, c, f, h, w), got shape {tuple(videos.shape)}")
    if not videos.is_floating_point():
        raise ValueError(f"expected floating-point videos in [-1, 1], got {videos.dtype}; pixels become x / 127.5 - 1")
    # A sample may overshoot, and a damaged video hold noise; what is told from both is 8-bit pixels.
    if videos.numel() and not (high := float(videos.abs().max())) < 20:
        raise ValueError(f"expected videos in [-1, 1], got values up to {high:.4g}")


def _check_pair(prediction: Tensor, target: Tensor) -> None:
    _check_videos(prediction)
    if prediction.shape != target.shape:
        raise ValueError(f"expected videos of equal shape, got {tuple(prediction.shape)}, {tuple(target.shape)}")
