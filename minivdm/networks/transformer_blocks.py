"""What a diffusion transformer is built of: attention with normalised queries and keys, blocks that start as nothing.

Peebles & Xie 2023, "Scalable diffusion models with transformers" (DiT), section 3.2; `transformer` has the whole.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivdm.guards import check_types, one_of
from minivdm.networks.attention import attend
from minivdm.networks.layers import zero


class Attention(nn.Module):
    """Tokens look at tokens: softmax(q k^T / sqrt(d)) v with q and k normalised per head.

    context: width of further tokens to look at, beside one's own; 0 for none. The own keys and values stay.
    """

    def __init__(self, width: int, head_channels: int, context: int = 0) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q, self.norm_k = nn.RMSNorm(head_channels, eps=1e-6), nn.RMSNorm(head_channels, eps=1e-6)
        self.context = nn.Linear(context, 2 * width) if context else None
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, bias: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        # x n t c; mask (n or 1) t s bool; bias heads t t, added to the logits of one's own tokens; context n s' e
        q, k, v = rearrange(self.qkv(x), "n t (three heads d) -> three n heads t d", three=3, d=self.head_channels)
        q, k = self._normal(self.norm_q, q), self._normal(self.norm_k, k)
        if context is not None and self.context is not None:
            kv = rearrange(self.context(context), "n s (two heads d) -> two n heads s d", two=2, d=self.head_channels)
            k, v = torch.cat((k, self._normal(self.norm_k, kv[0])), 2), torch.cat((v, kv[1]), 2)
        q, k = q.to(v.dtype), k.to(v.dtype)
        mask = None if mask is None else mask[:, None]
        if bias is None:
            mixed = attend(q, k, v, mask)
        else:  # a bias that learns sends the fused kernel down its slow path; windows are small
            logits = (q @ k.mT) * self.head_channels**-0.5 + F.pad(bias, (0, k.shape[2] - bias.shape[-1]))
            logits = logits if mask is None else logits.masked_fill(~mask, -math.inf)
            mixed = logits.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
        return self.out(rearrange(mixed, "n heads t d -> n t (heads d)"))

    @staticmethod
    def _normal(norm: nn.RMSNorm, x: Tensor) -> Tensor:
        return norm(x.to(norm.weight.dtype))  # under autocast x comes in half precision


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise each token, then scale and shift it. x: (b, n, c); shift and scale: (b, n or 1, c)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class TransformerBlock(nn.Module):
    """x + gate attention(norm x), then x + gate perceptron(norm x), both norms and both gates set from outside."""

    def __init__(self, width: int, head_channels: int) -> None:
        super().__init__()
        self.attention = Attention(width, head_channels)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def mix(self, x: Tensor, mask: Tensor | None, *more: Any) -> Tensor:
        """What tokens take from each other."""
        return self.attention(x, mask)

    def forward(self, x: Tensor, six: Tensor, mask: Tensor | None = None, *more: Any) -> Tensor:
        # x b n c; six (b, n or 1, 6 c); mask (b or 1) n n
        shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, -1)
        x = x + gate1 * self.mix(modulate(x, shift1, scale1), mask, *more)
        return x + gate2 * self.narrow(F.gelu(self.wide(modulate(x, shift2, scale2))))


class Modulation(nn.Module):
    """Shift, scale and gate of every block, six vectors each, of the embedding of noise level and condition.

    separate: a linear layer for each block, as DiT has it. lora: A_1 = Linear(e) for the first, and A_i = A_1 + W_b^i
    W_a^i e of rank r for the others (Gupta et al. 2023, "W.A.L.T"). shared: A_1 for all. All start at zero.
    """

    def __init__(self, kind: str, depth: int, width: int, embedding: int, rank: int) -> None:
        super().__init__()
        one_of("modulation", kind, ("separate", "lora", "shared"))
        count = depth if kind == "separate" else 1
        self.layers = nn.ModuleList(zero(nn.Linear(embedding, 6 * width)) for _ in range(count))
        others = depth - 1 if kind == "lora" else 0
        self.down = nn.ModuleList(nn.Linear(embedding, rank, bias=False) for _ in range(others))
        self.up = nn.ModuleList(zero(nn.Linear(rank, 6 * width, bias=False)) for _ in range(others))

    def forward(self, emb: Tensor, depth: int) -> list[Tensor]:
        made = [layer(emb) for layer in self.layers]
        if self.down:
            return made + [made[0] + up(down(emb)) for down, up in zip(self.down, self.up, strict=True)]
        return made if len(made) == depth else made * depth


check_types(globals())
