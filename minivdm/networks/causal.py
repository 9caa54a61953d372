"""Layers that are causal in time: what they say of a frame depends on it and on earlier ones, never on later ones.

The convolutions of Yu et al. 2023, "Language model beats diffusion: tokenizer is key" (MAGVIT-v2), section 3.2.
Causality has to hold in every layer. Convolutions are padded before and not after; a stride of 2 keeps frames
0, 2, 4, ...; growing makes two frames of one and drops the first of all; and the norm is over the channels of one
place, as the statistics of a group norm would carry later frames into the first. Then a still is a clip of one frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Root-mean-square norm over the channels of each place by itself: no place learns of another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:  # b c f h w
        scale = (x.float().square().mean(1, keepdim=True) + 1e-6).rsqrt()
        return x * scale.to(x.dtype) * self.weight[:, None, None, None].to(x.dtype)


class CausalConv3d(nn.Conv3d):
    """A convolution whose answer at a frame depends on that frame and earlier ones; zeros stand before the first.

    stride: (time, space). Of f frames 1 + (f - 1) // stride remain: those at 0, stride, 2 stride, ...
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> None:
        (k, side), (by, step) = kernel, stride
        super().__init__(inputs, outputs, (k, side, side), (by, step, step), (0, side // 2, side // 2))
        self.before = k - 1

    def forward(self, x: Tensor) -> Tensor:  # b c f h w
        return super().forward(F.pad(x, (0, 0, 0, 0, self.before, 0)) if self.before else x)


class CausalBlock(nn.Module):
    """x + convolution(silu(norm(convolution(silu(norm x))))), the second convolution zero at first."""

    def __init__(self, channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.conv1 = CausalConv3d(channels, channels, kernel)
        self.conv2 = CausalConv3d(channels, channels, kernel)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Grow(nn.Module):
    """f frames -> 1 + (f - 1) * factor, and places to squares: more channels, dealt out over time and space."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], factor: tuple[int, int]) -> None:
        super().__init__()
        self.factor = factor
        self.conv = CausalConv3d(inputs, outputs * factor[0] * factor[1] ** 2, kernel)

    def forward(self, x: Tensor) -> Tensor:
        t, s = self.factor
        x = rearrange(self.conv(x), "b (c t y x) f h w -> b c (f t) (h y) (w x)", t=t, y=s, x=s)
        return x[:, :, t - 1 :]  # latent 0 is one frame, every other one `t` frames
