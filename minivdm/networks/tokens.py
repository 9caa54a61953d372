"""Clips as tokens: patches of space and time, where they are, and which of them may look at which."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from minivdm.guards import BadArgument, check_types


def to_patches(clip: Tensor, patch: Sequence[int]) -> Tensor:
    """Clip (b, c, f, h, w) -> its patches as a grid of vectors (b, f', h', w', c * values of a patch)."""
    pt, ph, pw = patch
    b, c, f, h, w = clip.shape
    if f % pt or h % ph or w % pw:
        raise BadArgument(f"clip: expected frames, height, width that are multiples of {pt}x{ph}x{pw}, got {f}x{h}x{w}")
    return rearrange(clip, "b c (f pt) (h ph) (w pw) -> b f h w (c pt ph pw)", pt=pt, ph=ph, pw=pw)


def from_patches(grid: Tensor, patch: Sequence[int], channels: int) -> Tensor:
    """Inverse of `to_patches`."""
    pt, ph, pw = patch
    pattern = "b f h w (c pt ph pw) -> b c (f pt) (h ph) (w pw)"
    return rearrange(grid, pattern, c=channels, pt=pt, ph=ph, pw=pw)


def sines(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of places (..., 3), each (frame, row, column) in patches: (..., width), width even.

    A third of the features for each axis, in pairs; periods from 4 patches, geometrically, to 128. Any place may be
    asked for, between patches too: positions that go on to sizes which were never seen.
    """
    pairs = width // 2
    parts = []
    for axis, count in enumerate((pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)):
        period = 4.0 * 32.0 ** torch.linspace(0, 1, max(count, 1), device=places.device)[:count]
        angle = places[..., axis, None].float() * (2 * math.pi / period)
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, -1)


def token_places(numbers: Tensor, grid: Sequence[int]) -> Tensor:
    """(frame, row, column) of each token of clips whose frames have these numbers (b, f): (b, f, h, w, 3)."""
    b, f, h, w = len(numbers), *grid
    rows, columns = (torch.arange(n, device=numbers.device) for n in (h, w))
    axes = (numbers[:, :, None, None], rows[None, None, :, None], columns[None, None, None])
    return torch.stack([axis.expand(b, f, h, w) for axis in axes], -1)


def token_mask(frame_mask: Tensor, grid: Sequence[int]) -> Tensor:
    """Which token may look at which, (1 or b, n, n), from which frame may look at which."""
    rows = frame_mask if frame_mask.ndim == 3 else frame_mask[None]
    places = grid[1] * grid[2]
    return rows.repeat_interleave(places, 1).repeat_interleave(places, 2)


check_types(globals())
