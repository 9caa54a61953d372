"""Clips of a measurement, kept in parts: a row that was interrupted goes on, and one of more clips takes over the rest.

Part k of a row is the same whatever the number of clips is, as its noise and labels depend on the seed and its place
alone. Pixels are kept as a GIF has them, in 256 values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import devices
import numpy as np
import torch
from torch import Tensor

PART = 64

#: (the first clip's number) -> clips (part, c, f, h, w) in [-1, 1] and the seconds that they took
Make = Callable[[int], tuple[Tensor, float]]


def part(device: torch.device) -> int:
    """Clips that are kept together."""
    return max(PART, devices.batch(device))


def clips(folder: Path, name: str, count: int, size: int, make: Make) -> tuple[Tensor, float]:
    """`count` clips of a row in [-1, 1], and the seconds that one took; only parts of `size` that are missing are made.

    name: of the row and of all that its clips depend on.
    """
    parts, seconds = [], []
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    for start in range(0, count, size):
        file = folder / f"{slug}-{start:05d}-{size}.npz"
        if not file.exists():
            videos, spent = make(start)
            file.parent.mkdir(parents=True, exist_ok=True)
            half = file.with_suffix(".tmp.npz")
            np.savez_compressed(half, videos=as_bytes(videos), seconds=spent)
            half.replace(file)
        with np.load(file) as loaded:
            parts.append(torch.from_numpy(loaded["videos"]).float() / 127.5 - 1)
            seconds.append(float(loaded["seconds"]))
    return torch.cat(parts)[:count], sum(seconds) / (size * len(parts))


def batches(start: int, seed: int, device: torch.device) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Labels (n, 10), each digit in turn, and the generator of all draws, for each batch of the part that begins
    with clip `start`."""
    size = devices.batch(device)
    for first in range(start, start + part(device), size):
        labels = torch.eye(10)[torch.arange(first, first + size) % 10].to(device)
        yield labels, torch.Generator().manual_seed(seed + first)


def as_bytes(videos: Tensor) -> np.ndarray:
    """Pixels 0 to 255."""
    return ((videos.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
