"""The cells of the factorized 3D U-Net (VDM section 3 and figure 1): what happens at one resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minivdm.guards import check_types
from minivdm.networks.attention import SpatialAttention, TemporalAttention
from minivdm.networks.layers import GroupNorm, zero
from minivdm.networks.text_encoder import CrossAttention, Text


class Modulated(nn.Module):
    """GroupNorm, then a scale and shift read from the embedding of noise level and condition, then SiLU."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.norm = GroupNorm(8, width)
        self.scale_shift = nn.Linear(embedding, 2 * width)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # x (b f) c h w, emb (b f) e
        scale, shift = self.scale_shift(emb)[:, :, None, None].chunk(2, dim=1)
        return F.silu(torch.addcmul(shift, self.norm(x), 1 + scale))


class ResidualBlock(nn.Module):
    """Two 1x3x3 convolutions around a residual; noise level and condition enter between them."""

    def __init__(self, width_in: int, width: int, embedding: int):
        super().__init__()
        self.norm1 = GroupNorm(8, width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.modulated = Modulated(width, embedding)
        self.conv2 = zero(nn.Conv2d(width, width, 3, padding=1))
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # x (b f) c h w, emb (b f) e
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(self.modulated(h, emb))


class Block(nn.Module):
    """One cell of figure 1: residual 1x3x3 convolutions, spatial attention, temporal attention.

    context: width of the text's features, to which places attend after they attended to each other; 0 without text.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        embedding: int,
        head_channels: int,
        spatial: bool,
        temporal: bool,
        context: int = 0,
    ):
        super().__init__()
        self.residual = ResidualBlock(width_in, width, embedding)
        self.spatial = SpatialAttention(width, head_channels) if spatial else None
        self.temporal = TemporalAttention(width, head_channels) if temporal else None
        self.text = CrossAttention(width, context, head_channels) if spatial and context else None

    def forward(self, x: Tensor, emb: Tensor, frames: int, mask: Tensor | None, context: Text | None = None) -> Tensor:
        transformed = torch._C._are_functorch_transforms_active()  # torch.func cannot compute again
        if not self.training and torch.is_grad_enabled() and x.requires_grad and not transformed:
            # Reconstruction guidance differentiates a sampling step with respect to z. Computing each cell again on
            # the way back keeps that at about twice the memory of a plain step, instead of nine times.
            return checkpoint(
                self.compute, x, emb, frames, mask, context, use_reentrant=False, preserve_rng_state=False
            )
        return self.compute(x, emb, frames, mask, context)

    def compute(self, x: Tensor, emb: Tensor, frames: int, mask: Tensor | None, context: Text | None) -> Tensor:
        # x (b f) c h w; emb (b f) e; mask (b or 1) f f
        x = self.residual(x, emb)
        if self.spatial is not None:
            x = self.spatial(x)
        if self.text is not None and context is not None:
            x = self.text(x, context)
        if self.temporal is not None:
            x = self.temporal(x, frames, mask)
        return x


check_types(globals())
