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


Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def zero(layer: Layer) -> Layer:
    """Start a residual branch at zero, so that the untrained network is the identity path only."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
