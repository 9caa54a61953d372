"""What every network here is built with: a normalisation that is at home in half precision, and quiet branches."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm that computes in float32 where its input is in half precision, and answers in its input's dtype.

    Mean and variance of thousands of values want more than bfloat16's 8 bits; and PyTorch's CPU kernel for bfloat16
    in channels_last is about six times slower than the one for float32. The state dict is nn.GroupNorm's.
    """

    def forward(self, x: Tensor) -> Tensor:  # n c ...
        if x.dtype not in (torch.bfloat16, torch.float16):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.float(), self.bias.float()
            return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def waves(values: Tensor, width: int, highest: float = 4.0, range_: float = 64.0) -> Tensor:
    """Sines and cosines (b, width) of values (b,), the frequencies from `highest` down to highest / range_.

    The defaults are for a log-SNR, which spans about [-20, 20]: periods from 2 pi * 1/4 to 2 pi * 16 resolve it finely
    and cover it once.
    """
    frequency = highest * range_ ** -torch.linspace(0, 1, width // 2, device=values.device)
    angle = values.float()[:, None] * frequency
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def zero(layer: Layer) -> Layer:
    """Start a residual branch at zero, so that the untrained network is the identity path only."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
