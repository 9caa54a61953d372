"""Attention over the places of a frame, and over the frames at a place; rotary positions in time.

Both layers take and return activations ``(b f) c h w`` in channels_last and add what they found to them. Spatial
attention treats the frames as batch, temporal attention the places: the only layer of a factorized network in which
frames meet (Ho et al. 2022, "Video Diffusion Models" (VDM), section 3).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from minivdm.guards import BadArgument, check_types, floating, real, whole
from minivdm.networks.layers import GroupNorm, zero

# CUDA's fused attention kernels put batch*heads on a grid axis that ends at 65,535. Temporal attention's
# batch is b*h*w, which passes that limit at 64x64 already, so it is fed in pieces.
MAX_ATTENTION_BATCH = 65_535


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention, softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq 1), in pieces that every backend accepts.

    Args:
        q, k, v: queries, keys and values, shape (n, heads, tokens, d).
        mask: bool, shape (n or 1, 1, tokens, tokens); True where a query may look at a key.

    Returns:
        Shape (n, heads, tokens, d).
    """
    fits = floating("q", q).ndim == 4 == k.ndim and k.shape == v.shape and k.dtype == v.dtype == q.dtype
    if not fits or k.shape[:2] != q.shape[:2] or k.shape[3] != q.shape[3]:
        got = ", ".join(f"{part.dtype} {tuple(part.shape)}" for part in (q, k, v))
        raise BadArgument(f"q, k, v: expected shapes (n, heads, tokens, d) and one dtype, got {got}")
    if mask is not None:
        wanted = (q.shape[2], k.shape[2])
        if mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[0] not in (1, len(q)) or mask.shape[2:] != wanted:
            got = f"{mask.dtype} of shape {tuple(mask.shape)}"
            raise BadArgument(f"mask: expected bool of shape (1 or {len(q)}, 1, {wanted[0]}, {wanted[1]}), got {got}")
    if q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16):
        return _written_out(q, k, v, mask)
    rows = max(1, MAX_ATTENTION_BATCH // q.shape[1])
    if q.shape[0] <= rows:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    pieces = []
    for start in range(0, q.shape[0], rows):
        part = slice(start, start + rows)
        here = mask if mask is None or mask.shape[0] == 1 else mask[part]
        pieces.append(F.scaled_dot_product_attention(q[part], k[part], v[part], attn_mask=here))
    return torch.cat(pieces)


def _written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """The same from two matrix products and a softmax in float32.

    For half precision on a CPU, where the fused kernel's backward pass takes some twenty times as long as in float32.
    """
    logits = (q @ k.mT) * q.shape[-1] ** -0.5  # n heads i j
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    return logits.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v


def rotary_angles(positions: Tensor, dimensions: int, shortest: float = 4.0, longest: float = 128.0) -> Tensor:
    """Rotation angle of each pair of features at each frame.

    Pair i turns once every ``period_i`` frames, periods spaced geometrically from ``shortest`` to ``longest``.

    Args:
        positions: frame numbers, shape (f,).
        dimensions: features per head d, even.
        shortest, longest: periods in frames. The shortest is 4 rather than 2 because a pair that turns by half
            a circle per frame cannot tell one frame ahead from one behind.

    Returns:
        Angles in radians, shape (f, d/2).
    """
    if positions.ndim != 1:
        raise BadArgument(f"positions: expected shape (f,), got {tuple(positions.shape)}")
    if whole("dimensions", dimensions, least=2) % 2:
        raise BadArgument(f"dimensions: expected an even number, got {dimensions}")
    if not 0 < real("shortest", shortest) <= real("longest", longest):
        raise BadArgument(f"expected 0 < shortest <= longest, got {shortest} and {longest}")
    pairs = dimensions // 2
    exponent = torch.linspace(0, 1, pairs, device=positions.device)
    period = shortest * (longest / shortest) ** exponent
    return positions[:, None].float() * (2 * math.pi / period)[None, :]


def rotate(features: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn feature pairs (j, j + d/2) by their angles; features (n, heads, f, d), cos and sin (f, d/2)."""
    first, second = features.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class SpatialAttention(nn.Module):
    """Attention over the h*w places of one frame; frames are batch.

    Places carry no position embedding: the convolutions around it, whose zero padding marks the border, do.
    """

    def __init__(self, width: int, head_channels: int):
        super().__init__()
        self.head_channels = head_channels
        self.norm = GroupNorm(8, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = zero(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:  # (b f) c h w
        height = x.shape[2]
        q, k, v = rearrange(
            self.qkv(self.norm(x)), "n (three heads d) h w -> three n heads (h w) d", three=3, d=self.head_channels
        )
        mixed = rearrange(attend(q, k, v), "n heads (h w) d -> n (heads d) h w", h=height)
        return x + self.out(mixed)


class TemporalAttention(nn.Module):
    """Attention over the f frames at one place; places are batch.

    Order enters through relative positions only (VDM section 3, after Shaw et al. 2018): a logit depends on
    the contents of two frames and on their distance i - j, so the layer runs on any number of frames.
    Shaw's learned vectors a_{i-j} would have to be handed to the kernel as a float mask that needs a gradient,
    which sends it down its slow path (four times slower on a CPU). Rotary embedding (Su et al. 2021) is the same idea
    in Fourier form: rotating q_i and k_j by angles proportional to i and j makes q_i . k_j depend on i - j, and with
    the biases of ``qkv`` the logit contains a learned function of the distance alone as well. The kernel stays fused.
    """

    def __init__(self, width: int, head_channels: int):
        super().__init__()
        self.head_channels = head_channels
        self.norm = GroupNorm(8, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = zero(nn.Conv2d(width, width, 1))

    def queries_keys_values(self, x: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, each (b h w) heads f d."""
        q, k, v = rearrange(
            self.qkv(self.norm(x)),
            "(b f) (three heads d) h w -> three (b h w) heads f d",
            three=3, f=frames, d=self.head_channels,
        )  # fmt: skip
        angles = rotary_angles(torch.arange(frames, device=x.device), self.head_channels)
        cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def forward(self, x: Tensor, frames: int, mask: Tensor | None = None) -> Tensor:
        # x (b f) c h w; mask (b or 1) f f
        height, width = x.shape[2:]
        q, k, v = self.queries_keys_values(x, frames)
        if mask is not None:
            places = height * width if mask.shape[0] > 1 else 1
            mask = repeat(mask, "b i j -> (b places) 1 i j", places=places)
        mixed = rearrange(attend(q, k, v, mask), "(b h w) heads f d -> (b f) (heads d) h w", h=height, w=width)
        return x + self.out(mixed)

    @torch.no_grad()
    def weights(self, x: Tensor, frames: int, mask: Tensor | None = None) -> Tensor:
        """The attention weights themselves, for looking at: shape (b, h, w, heads, f, f), rows sum to 1."""
        height, width = x.shape[2:]
        q, k, _ = self.queries_keys_values(x, frames)
        logits = rearrange(q @ k.mT / math.sqrt(self.head_channels), "(b h w) n i j -> b h w n i j", h=height, w=width)
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, None, None], -math.inf)
        return logits.softmax(dim=-1)


def joint_frame_mask(frames: int, images: int, device: torch.device | str = "cpu") -> Tensor:
    """Mask of joint image-video training (VDM sections 3 and 4.3.1).

    The first ``frames`` belong to one clip and see each other; each of the ``images`` that follow sees itself alone.

    Returns:
        Bool, shape (frames + images, frames + images); True where row may look at column.
    """
    whole("frames", frames)
    whole("images", images, least=0)
    mask = torch.eye(frames + images, dtype=torch.bool, device=device)
    mask[:frames, :frames] = True
    return mask


check_types(globals())
