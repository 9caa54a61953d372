"""Moving-MNIST: handwritten digits that drift over a dark canvas and bounce off its walls.

The data set of Srivastava, Mansimov & Salakhutdinov, "Unsupervised Learning of Video Representations using
LSTMs" (2015), and its stochastic relative from Denton & Fergus, "Stochastic Video Generation with a Learned
Prior" (2018), made on the fly from real MNIST digits, on any device.

A clip is a pure function of (seed, split, index). Two things make that true on every machine: random numbers
come from a counter-based hash of integers (no generator has a state to carry along), and motion is computed
in whole steps of 1/65536 pixel, because integer sums, unlike float ones, have no last bit that could differ.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from minivdm import guards
from minivdm.data.dataset import ClipDataset, checked_indices
from minivdm.data.files import Digits, load_digits
from minivdm.guards import BadArgument, one_of, real, whole

SUBPIXEL = 1 << 16  # positions and velocities are integers, in units of 1/65536 pixel
DIRECTIONS = 1 << 12  # equally spaced directions of motion

# Streams of random numbers of one clip. Every digit has a block of its own, and in it every frame, so that a
# clip with fewer frames is the beginning of the longer one.
COUNT, FIRST_DIGIT, STREAMS_PER_DIGIT = 0, 1, 1 << 20
WHICH, START, VELOCITY, BOUNCE = 0, 1, 3, 5

LARGEST_SEED = 2**61 - 1  # a key is four times the seed and a little more, in 64 bits


@dataclass
class Clips:
    """A batch of clips and the truth about them.

    Attributes:
        video: (b, 1, f, h, w) float32 in [-1, 1].
        labels: (b, 10) float32, 1 where a digit of that class is in the clip (multi-hot).
        digits: (b, n) int64, the class of each digit, -1 where a clip has fewer than n.
        positions: (b, n, f, 2) float32, (y, x) of the digit's top-left corner in pixels; the digit is drawn
            at the floor of it. NaN where there is no digit.
        velocities: (b, n, f, 2) float32, (y, x) in pixels per frame with which the digit leaves the frame,
            that is after the bounce if it bounces there. NaN where there is no digit.
    """

    video: Tensor
    labels: Tensor
    digits: Tensor
    positions: Tensor
    velocities: Tensor

    def __len__(self) -> int:
        return self.video.shape[0]


class MovingMNIST(ClipDataset):
    """Clips of moving digits, drawn by index.

    Args:
        size: height and width of the canvas in pixels, or (canvas, digit). 64 is the canonical canvas, with 28-pixel
            digits; for other sizes alone the digit is scaled along (14 pixels, the mean of 2x2, at size 32).
        frames: frames per clip.
        digits: how many digits a clip has, or (lo, hi), both included, drawn per clip. Two digits of a clip
            may be of the same class; `labels` then has a single 1.
        speed: pixels per frame. Canonically 0.1 of the free range, 3.6 at size 64 and 1.8 at 32, in a
            uniformly drawn direction. In stochastic motion the largest speed along one axis, 4 at size 64 and
            2 at 32.
        motion: "deterministic" (clamped to the wall, the velocity's component reversed) or "stochastic" (a
            new velocity at each bounce: components are multiples of speed/4 from -speed to speed, and away
            from the wall that was hit).
        split: "train" or "test", which pool the digits are from (4,500 and 500 that ship).
        seed: another seed, other clips.
        device: where clips are made and returned.
        digit_source: None for the digits that ship; "mnist" or "fashion-mnist" to fetch all of them; a folder
            with their IDX files; or `Digits`. The pool's size matters to what a clip shows, its motion is the
            same.

    Raises:
        ValueError: a digit that does not fit its canvas, or any argument outside its range.
    """

    recordable = True

    def __init__(
        self,
        size: int | tuple[int, int] = 32,
        frames: int = 16,
        digits: int | tuple[int, int] = 1,
        speed: float | None = None,
        motion: str = "deterministic",
        split: str = "train",
        seed: int = 0,
        device: str | torch.device = "cpu",
        *,
        digit_source: Digits | str | Path | None = None,
    ) -> None:
        size, digit_size = self._sizes(size)
        frames = whole("frames", frames, 1, STREAMS_PER_DIGIT // 2 - BOUNCE)
        low, high = self._counts(digits)
        one_of("motion", motion, ("deterministic", "stochastic"))
        if speed is None:
            speed = 0.1 * (size - digit_size) if motion == "deterministic" else size / 16
        real("speed", speed, 0, size)
        whole("seed", seed, 0, LARGEST_SEED)
        where = guards.device("device", device)
        one_of("split", split, ("train", "test"))
        if digit_source is None:
            patches, classes = _shipped(split, digit_size)
        else:
            patches, classes = _pool(load_digits(digit_source, split), digit_size)

        self.size, self.frames, self.digit_size = size, frames, digit_size
        self.digits_range, self.speed, self.motion = (low, high), float(speed), motion
        self.split, self.seed, self.device = split, seed, where
        self._patches = patches.to(self.device)  # (pool, d*d) in [-1, 1]
        self._classes = classes.to(self.device)  # (pool,) int64
        self._velocities = _velocity_table(motion, self.speed).to(self.device)

    @staticmethod
    def _sizes(size: int | tuple[int, int]) -> tuple[int, int]:
        canvas, *digit = size if isinstance(size, (tuple, list)) else (size,)
        canvas = whole("size", canvas, 1, 4096)
        if len(digit) > 1:
            raise BadArgument(f"size: expected that of the canvas or (canvas, digit), got {size!r}")
        return canvas, whole("size: digit", digit[0], 1, canvas) if digit else max(1, round(canvas * 28 / 64))

    @staticmethod
    def _counts(digits: int | tuple[int, int]) -> tuple[int, int]:
        pair = digits if isinstance(digits, (tuple, list)) else (digits, digits)
        if len(pair) != 2:
            raise BadArgument(f"digits: expected a count or (lo, hi), got {digits!r}")
        high = whole("digits", pair[1], 1, 100)
        return whole("digits", pair[0], 0, high), high

    def clips(self, indices: Tensor | Sequence[int]) -> Clips:
        """The clips of these indices, (b,) integers from 0; a clip depends on its own index alone."""
        return self._make(indices, self.frames, domain=0)

    def images(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Independent single frames, for joint training: video (b, 1, 1, h, w) and labels (b, 10).

        Image i is not a frame of clip i: their random numbers have nothing in common.
        """
        images = self._make(indices, 1, domain=1)
        return images.video, images.labels

    def _make(self, indices: Tensor | Sequence[int], frames: int, domain: int) -> Clips:
        # Looked at only where they can be read without waiting for an accelerator; nothing below waits either.
        index = checked_indices(indices).to(self.device, non_blocking=True)
        key = torch.full((1,), 4 * self.seed + 2 * domain + (self.split == "test"), device=self.device)
        key = _mix(_mix(key) + index)  # (b,), the clip's own numbers

        low, high = self.digits_range
        slot = torch.arange(high, device=self.device)
        present = slot < low + _below(high - low + 1, key[:, None], COUNT)  # (b, n)
        stream = FIRST_DIGIT + STREAMS_PER_DIGIT * slot  # (n,)
        which = _below(len(self._classes), key[:, None], stream + WHICH)  # (b, n)
        digits = torch.where(present, self._classes[which], -1)
        labels = functional.one_hot(digits + 1, 11).amax(1)[:, 1:].float()  # (b, 10)

        positions, velocities = self._move(key[:, None, None], stream[:, None], frames)  # (b, n, f, 2) int64
        patches = self._patches[which].masked_fill_(~present[..., None], -1.0)
        video = self._draw(patches, positions // SUBPIXEL)
        nowhere = ~present[:, :, None, None]
        return Clips(
            video=video,
            labels=labels,
            digits=digits,
            positions=(positions.float() / SUBPIXEL).masked_fill(nowhere, math.nan),
            velocities=(velocities.float() / SUBPIXEL).masked_fill(nowhere, math.nan),
        )

    def _move(self, key: Tensor, stream: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Positions and velocities, (b, n, f, 2) int64 in subpixels; key (b, 1, 1), stream (n, 1)."""
        free = (self.size - self.digit_size) * SUBPIXEL
        axis = torch.arange(2, device=self.device)
        position = _below(free + 1, key, stream + START + axis)  # (b, n, 2)
        velocity = self._velocities[_below(len(self._velocities), key[..., 0], stream[:, 0] + VELOCITY)]
        positions, velocities = [position], [velocity]
        for frame in range(1, frames):
            position = position + velocity
            low, high = position <= 0, position >= free
            position = position.clamp(0, free)
            if self.motion == "stochastic":
                velocity = self._redrawn(velocity, low | high, key, stream + BOUNCE + 2 * frame + axis)
            # Away from the wall that was hit, whatever the sign was: flipping it would turn a digit that
            # starts on a wall into the wall.
            velocity = torch.where(low, velocity.abs(), torch.where(high, -velocity.abs(), velocity))
            positions.append(position)
            velocities.append(velocity)
        return torch.stack(positions, 2), torch.stack(velocities, 2)

    def _redrawn(self, velocity: Tensor, hit: Tensor, key: Tensor, stream: Tensor) -> Tensor:
        """A fresh velocity for digits that hit a wall: 1..4 quarters of the speed across, -4..4 along."""
        quarter = round(self.speed * SUBPIXEL / 4)
        across, along = 1 + _below(4, key, stream), _below(9, key, stream) - 4
        fresh = quarter * torch.where(hit, across, along)
        return torch.where(hit.any(-1, keepdim=True), fresh, velocity)

    def _draw(self, patches: Tensor, corners: Tensor) -> Tensor:
        """Video (b, 1, f, h, w) of patches (b, n, d*d) at corners (b, n, f, 2), maximum on overlap."""
        b, n, f, _ = corners.shape
        row = torch.arange(self.digit_size, device=self.device)
        offset = (row[:, None] * self.size + row).flatten()  # (d*d,) of a patch's pixels in the flat canvas
        canvas = torch.full((b, f, self.size * self.size), -1.0, device=self.device)
        for i in range(n):
            y, x = corners[:, i].unbind(-1)  # (b, f)
            pixels = (y * self.size + x)[..., None] + offset  # (b, f, d*d)
            patch = patches[:, i, None].expand(-1, f, -1)
            if i > 0:
                patch = torch.maximum(patch, canvas.gather(-1, pixels))
            canvas.scatter_(-1, pixels, patch)
        return canvas.view(b, 1, f, self.size, self.size)


def _pool(digits: Digits, size: int) -> tuple[Tensor, Tensor]:
    """Digits at a size, (pool, size*size) in [-1, 1], and their classes (pool,)."""
    # 127.5 is exact in float32, so that 0 and 255 become -1 and 1 exactly.
    return _resized(digits.images, size).flatten(1).float().div_(127.5).sub_(1), digits.labels


@functools.lru_cache(maxsize=8)
def _shipped(split: str, size: int) -> tuple[Tensor, Tensor]:
    """`_pool` of the digits that ship. Kept, as every source of clips wants them; nobody writes into them."""
    return _pool(load_digits(None, split), size)


@functools.lru_cache(maxsize=8)
def _velocity_table(motion: str, speed: float) -> Tensor:
    """All starting velocities, (k, 2) int64 subpixels per frame: directions, or SVG's grid of 9x9."""
    if motion == "deterministic":
        angles = [2 * math.pi * k / DIRECTIONS for k in range(DIRECTIONS)]
        table = [(speed * math.sin(a), speed * math.cos(a)) for a in angles]
    else:
        steps = [speed * k / 4 for k in range(-4, 5)]
        table = [(y, x) for y in steps for x in steps]
    return torch.tensor([[round(y * SUBPIXEL), round(x * SUBPIXEL)] for y, x in table])


def _mix(z: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele, Lea & Flood 2014) on int64, where products wrap."""
    z = z - 0x61C8864680B583EB  # adds 0x9E3779B97F4A7C15 modulo 2^64
    z = (z ^ _shift(z, 30)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    z = (z ^ _shift(z, 27)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; `>>` of an int64 copies the sign bit, which has to be masked away."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _below(bound: int, key: Tensor, stream: Tensor | int) -> Tensor:
    """Uniform integers 0..bound-1 for every (key, stream), from 32 bits; biased by less than bound / 2^32."""
    if not isinstance(stream, Tensor):
        stream = torch.full((), stream, device=key.device)
    bits = _shift(_mix(key + _mix(stream)), 32)
    return (bits * bound) >> 32


def _resized(images: Tensor, size: int) -> Tensor:
    """Digits (k, h, w) uint8 at another size: the mean of blocks where they fit, else smoothed bilinear."""
    height = images.shape[-1]
    if size == height:
        return images
    if height % size == 0:
        step = height // size
        blocks = images.long().reshape(-1, size, step, size, step)
        return ((blocks.sum((2, 4)) + step * step // 2) // (step * step)).to(torch.uint8)
    resized = functional.interpolate(images[:, None].float(), (size, size), mode="bilinear", antialias=True)
    return resized[:, 0].round().clamp(0, 255).to(torch.uint8)
