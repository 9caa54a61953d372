"""Damage done to clips on purpose, of any strength: what lesson 12 tries its metrics on.

Each corruption takes clips and a strength from 0 to 1, and returns videos (b, 1, f, h, w); strength 0 changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from minivdm.data.moving_mnist import Clips, MovingMNIST


@functools.lru_cache(maxsize=8)
def real_clips(start: int = 0, count: int = 64, frames: int = 16) -> Clips:
    """Test clips of one digit, size 32, canonical speed, indices from `start`."""
    return MovingMNIST(32, frames, 1, split="test").clips(range(start, start + count))


def blur(clips: Clips, strength: float) -> Tensor:
    """Every frame with a Gaussian of up to 2 pixels."""
    if strength <= 0:
        return clips.video
    width = 2.0 * strength
    tap = torch.exp(-(torch.arange(-6.0, 7.0) ** 2) / (2 * width**2))
    tap = tap / tap.sum()
    b, c, f, h, w = clips.video.shape
    frames = functional.pad(clips.video.reshape(b * c * f, 1, h, w), (6, 6, 6, 6), value=-1.0)
    frames = functional.conv2d(functional.conv2d(frames, tap.view(1, 1, -1, 1)), tap.view(1, 1, 1, -1))
    return frames.reshape(clips.video.shape)


def noise(clips: Clips, strength: float) -> Tensor:
    """Gaussian noise of standard deviation up to 0.5, cut off at black and white."""
    generator = torch.Generator().manual_seed(0)
    return (clips.video + 0.5 * strength * torch.randn(clips.video.shape, generator=generator)).clamp(-1, 1)


def frozen(clips: Clips, strength: float) -> Tensor:
    """The motion stops, earlier and earlier; at strength 1 it never begins."""
    f = clips.video.shape[2]
    stop = round((1 - strength) * (f - 1))
    return clips.video[:, :, [min(i, stop) for i in range(f)]]


def shuffled(clips: Clips, strength: float) -> Tensor:
    """More and more of the frames exchange their places, in the same way in every clip."""
    f = clips.video.shape[2]
    generator = torch.Generator().manual_seed(3)
    chosen = torch.randperm(f, generator=generator)[: round(strength * f)]
    order = torch.arange(f)
    order[chosen] = chosen.roll(max(1, len(chosen) // 3))
    return clips.video[:, :, order]


def swapped(clips: Clips, strength: float) -> Tensor:
    """From some frame on, at strength 1 from the middle, another clip's digit on the same path. Clips of one digit."""
    f, size = clips.video.shape[2:4]
    side = round(size * 28 / 64)
    first = f - round(strength * f / 2)
    video, corner = clips.video.clone(), clips.positions[:, 0].floor().long()  # (b, f, 2)
    for i in range(len(video)):
        other = (i + 1) % len(video)
        for j in range(first, f):
            (y, x), (v, u) = corner[i, j].tolist(), corner[other, j].tolist()
            video[i, :, j] = -1.0
            video[i, :, j, y : y + side, x : x + side] = clips.video[other, :, j, v : v + side, u : u + side]
    return video


def collapsed(clips: Clips, strength: float) -> Tensor:
    """More and more clips are copies of the first: mode collapse."""
    video = clips.video.clone()
    copies = round(strength * (len(video) - 1))
    video[1 : 1 + copies] = video[0]
    return video


def redrawn(clips: Clips, strength: float) -> Tensor:
    """More and more frames show another digit of the same class on the same path. Clips of one digit."""
    size = clips.video.shape[-1]
    side = round(size * 28 / 64)
    pool = real_clips(20_000, 256)
    video, corner = clips.video.clone(), clips.positions[:, 0].floor().long()  # (b, f, 2)
    from_corner = pool.positions[:, 0, 0].floor().long()  # (n, 2), of frame 0
    generator = torch.Generator().manual_seed(0)
    for i in range(len(video)):
        alike = (pool.digits[:, 0] == clips.digits[i, 0]).nonzero()[:, 0]
        for j in range(video.shape[2]):
            chance, which = torch.rand(2, generator=generator).tolist()
            if chance >= strength:
                continue
            other = int(alike[int(which * len(alike))])
            (y, x), (v, u) = corner[i, j].tolist(), from_corner[other].tolist()
            video[i, :, j] = -1.0
            video[i, :, j, y : y + side, x : x + side] = pool.video[other, :, 0, v : v + side, u : u + side]
    return video


CORRUPTIONS: dict[str, Callable[[Clips, float], Tensor]] = {
    "blur": blur, "noise": noise, "frozen": frozen, "shuffled": shuffled, "swapped identity": swapped,
    "redrawn strokes": redrawn, "mode collapse": collapsed,
}  # fmt: skip
