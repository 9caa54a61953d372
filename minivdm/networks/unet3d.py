"""The factorized 3D U-Net of Ho et al. 2022, "Video Diffusion Models" (VDM), section 3 and figure 1.

Space and time are handled by different layers. Every convolution is 1x3x3, so it sees one frame at a time;
spatial attention treats the frames as batch; temporal attention, which follows it, treats the pixels as batch
and is the only place where frames meet. One ``frame_mask`` that reaches every temporal layer therefore
decides completely which frames exchange information. That is what lets independent images ride along with a
clip in training (VDM section 3.1).

Memory layout. From the stem to the head the activations stay ``(b f) c h w`` in channels_last, that is
``b f h w c`` in memory. A 1x3x3 convolution is then an ordinary 2D convolution on merged frames, and both
attentions reach their tokens by viewing the same memory.

The network knows nothing of diffusion: it maps a noisy clip and a log-SNR to a clip.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# CUDA's fused attention kernels put batch*heads on a grid axis that ends at 65,535. Temporal attention's
# batch is b*h*w, which passes that limit at 64x64 already, so it is fed in pieces.
MAX_ATTENTION_BATCH = 65_535


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention in pieces that every backend accepts.

    Args:
        q, k, v: queries, keys and values, shape (n, heads, tokens, d).
        mask: bool, shape (n or 1, 1, tokens, tokens); True where a query may look at a key.

    Returns:
        Shape (n, heads, tokens, d).
    """
    rows = max(1, MAX_ATTENTION_BATCH // q.shape[1])
    if q.shape[0] <= rows:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    pieces = []
    for start in range(0, q.shape[0], rows):
        part = slice(start, start + rows)
        here = mask if mask is None or mask.shape[0] == 1 else mask[part]
        pieces.append(F.scaled_dot_product_attention(q[part], k[part], v[part], attn_mask=here))
    return torch.cat(pieces)


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
    pairs = dimensions // 2
    exponent = torch.linspace(0, 1, pairs, device=positions.device)
    period = shortest * (longest / shortest) ** exponent
    return positions[:, None].float() * (2 * math.pi / period)[None, :]


def rotate(features: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn feature pairs (j, j + d/2) by their angles; features (n, heads, f, d), cos and sin (f, d/2)."""
    first, second = features.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Modulated(nn.Module):
    """GroupNorm, then a scale and shift read from the embedding of noise level and condition, then SiLU."""

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.scale_shift = nn.Linear(embedding, 2 * width)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # x (b f) c h w, emb (b f) e
        scale, shift = self.scale_shift(emb)[:, :, None, None].chunk(2, dim=1)
        return F.silu(torch.addcmul(shift, self.norm(x), 1 + scale))


class ResidualBlock(nn.Module):
    """Two 1x3x3 convolutions around a residual; noise level and condition enter between them."""

    def __init__(self, width_in: int, width: int, embedding: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.modulated = Modulated(width, embedding)
        self.conv2 = zero(nn.Conv2d(width, width, 3, padding=1))
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # x (b f) c h w, emb (b f) e
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(self.modulated(h, emb))


class SpatialAttention(nn.Module):
    """Attention over the h*w places of one frame; frames are batch.

    Places carry no position embedding: the convolutions around it, whose zero padding marks the border, do.
    """

    def __init__(self, width: int, head_channels: int):
        super().__init__()
        self.head_channels = head_channels
        self.norm = nn.GroupNorm(8, width)
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
        self.norm = nn.GroupNorm(8, width)
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


class Block(nn.Module):
    """One cell of figure 1: residual 1x3x3 convolutions, spatial attention, temporal attention."""

    def __init__(self, width_in: int, width: int, embedding: int, head_channels: int, spatial: bool, temporal: bool):
        super().__init__()
        self.residual = ResidualBlock(width_in, width, embedding)
        self.spatial = SpatialAttention(width, head_channels) if spatial else None
        self.temporal = TemporalAttention(width, head_channels) if temporal else None

    def forward(self, x: Tensor, emb: Tensor, frames: int, mask: Tensor | None) -> Tensor:
        if not self.training and torch.is_grad_enabled() and x.requires_grad:
            # Reconstruction guidance differentiates a sampling step with respect to z. Computing each cell again on
            # the way back keeps that at about twice the memory of a plain step, instead of nine times.
            return checkpoint(self.compute, x, emb, frames, mask, use_reentrant=False, preserve_rng_state=False)
        return self.compute(x, emb, frames, mask)

    def compute(self, x: Tensor, emb: Tensor, frames: int, mask: Tensor | None) -> Tensor:
        x = self.residual(x, emb)
        if self.spatial is not None:
            x = self.spatial(x)
        if self.temporal is not None:
            x = self.temporal(x, frames, mask)
        return x


class UNet3D(nn.Module):
    """Factorized 3D U-Net (VDM section 3): (noisy clip, log-SNR, labels) -> clip of the same shape.

    Args:
        channels: colour channels c of the clip.
        width: channels of the finest level.
        multipliers: channel multipliers M_1 ... M_K, one per resolution.
        patch: side of the squares folded into channels before the first convolution (pixel-unshuffle). With 2,
            a 32x32 frame enters as 16x16 with four times the channels, a quarter of the cost.
        labels: length of the label vector; 0 for a network without condition.
        blocks: cells per resolution on the way down; the way up has one more.
        middle: cells at the coarsest resolution between the two ways.
        spatial, temporal: which resolutions have that attention, finest first.
        head_channels: channels per attention head; every width is a multiple of it and of 8.
        embedding: width of the embedding of noise level and labels.

    Raises:
        ValueError: for widths, patches or lengths that do not fit together.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        patch: int = 2,
        labels: int = 10,
        blocks: int = 1,
        middle: int = 2,
        spatial: Sequence[bool] = (False, True, True),
        temporal: Sequence[bool] = (True, True, True),
        head_channels: int = 32,
        embedding: int = 128,
    ):
        super().__init__()
        self.config = dict(
            channels=channels, width=width, multipliers=list(multipliers), patch=patch, labels=labels, blocks=blocks,
            middle=middle, spatial=list(spatial), temporal=list(temporal), head_channels=head_channels,
            embedding=embedding,
        )  # fmt: skip
        if not len(multipliers) == len(spatial) == len(temporal):
            raise ValueError(
                f"multipliers, spatial and temporal need one entry per resolution, got {len(multipliers)}, "
                f"{len(spatial)} and {len(temporal)} entries"
            )
        widths = [width * m for m in multipliers]
        if bad := [w for w in widths if w % head_channels or w % 8]:
            raise ValueError(f"every width must be a multiple of 8 and of head_channels={head_channels}, got {bad}")
        if head_channels % 4:
            raise ValueError(f"head_channels must be a multiple of 4, got {head_channels}")

        def block(width_in: int, width_out: int, level: int) -> Block:
            return Block(width_in, width_out, embedding, head_channels, spatial[level], temporal[level])

        self.noise_embedding = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.label_embedding = nn.Linear(labels, embedding, bias=False) if labels else None
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)

        self.down = nn.ModuleList()
        skips, current = [widths[0]], widths[0]
        for level, w in enumerate(widths):
            cells = nn.ModuleList()
            for _ in range(blocks):
                cells.append(block(current, w, level))
                current = w
                skips.append(w)
            shrink = nn.Conv2d(w, w, 3, stride=2, padding=1) if level + 1 < len(widths) else None
            if shrink is not None:
                skips.append(w)
            self.down.append(nn.ModuleDict({"cells": cells} | ({"shrink": shrink} if shrink is not None else {})))

        last = len(widths) - 1
        self.middle = nn.ModuleList(block(current, current, last) for _ in range(middle))

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            w = widths[level]
            cells = nn.ModuleList()
            for _ in range(blocks + 1):
                cells.append(block(current + skips.pop(), w, level))
                current = w
            grow = None
            if level > 0:
                # Narrow before growing: the same convolution after it would cost four times as much.
                current = widths[level - 1]
                grow = nn.Conv2d(w, current, 1)
            self.up.append(nn.ModuleDict({"cells": cells} | ({"grow": grow} if grow is not None else {})))

        self.head_norm = nn.GroupNorm(8, widths[0])
        self.head = zero(nn.Conv2d(widths[0], channels * patch**2, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def embed(self, log_snr: Tensor, labels: Tensor | None, batch: int, frames: int) -> Tensor:
        """Embedding of noise level and labels for each frame, shape ((b f), e)."""
        half = self.config["embedding"] // 2
        # log-SNR spans about [-20, 20]; periods from 2 pi * 1/4 to 2 pi * 16 resolve it finely and cover it once.
        frequency = 4.0 * 64.0 ** -torch.linspace(0, 1, half, device=log_snr.device)
        angle = log_snr.float().expand(batch)[:, None] * frequency
        dtype = self.stem.weight.dtype
        emb = self.noise_embedding(torch.cat((angle.sin(), angle.cos()), dim=-1).to(dtype))
        emb = repeat(emb, "b e -> b f e", f=frames)
        if labels is not None:
            if self.label_embedding is None:
                raise ValueError("labels were given to a network built with labels=0")
            if labels.ndim == 2:
                labels = repeat(labels, "b n -> b f n", f=frames)
            if labels.shape != (batch, frames, self.config["labels"]):
                raise ValueError(
                    f"labels must have shape ({batch}, {self.config['labels']}) or ({batch}, {frames}, "
                    f"{self.config['labels']}), got {tuple(labels.shape)}"
                )
            # No bias: the all-zero vector, "nothing said", is the unconditional model of classifier-free guidance.
            emb = emb + self.label_embedding(labels.to(dtype))
        return F.silu(rearrange(emb, "b f e -> (b f) e"))

    def check(self, z: Tensor, log_snr: Tensor, frame_mask: Tensor | None) -> Tensor | None:
        """Name what is wrong with the input; return the mask with a batch axis."""
        if z.ndim != 5 or z.shape[1] != self.config["channels"]:
            raise ValueError(
                f"expected a video (b, c, f, h, w) with c={self.config['channels']}, got shape {tuple(z.shape)}"
            )
        b, _, f, h, w = z.shape
        step = self.config["patch"] * 2 ** (len(self.config["multipliers"]) - 1)
        if h % step or w % step:
            raise ValueError(f"height and width must be multiples of {step}, got {h}x{w}")
        if log_snr.ndim > 1 or log_snr.numel() not in (1, b):
            raise ValueError(f"log_snr must be a scalar or have shape ({b},), got {tuple(log_snr.shape)}")
        if frame_mask is None:
            return None
        if frame_mask.dtype != torch.bool or tuple(frame_mask.shape) not in ((f, f), (b, f, f)):
            raise ValueError(
                f"frame_mask must be bool of shape ({f}, {f}) or ({b}, {f}, {f}), got {frame_mask.dtype} of shape "
                f"{tuple(frame_mask.shape)}"
            )
        return frame_mask if frame_mask.ndim == 3 else frame_mask[None]

    def forward(
        self, z: Tensor, log_snr: Tensor, labels: Tensor | None = None, frame_mask: Tensor | None = None
    ) -> Tensor:
        """Run the network.

        Args:
            z: noisy clip, shape (b, c, f, h, w); any f, h and w multiples of patch * 2^(levels - 1).
            log_snr: lambda of z, scalar or shape (b,).
            labels: (b, n) or one row per frame (b, f, n); an all-zero row, or None, is the unconditional model.
            frame_mask: bool, (f, f) or (b, f, f); True where frame i may look at frame j. Every row needs a True.

        Returns:
            Shape (b, c, f, h, w), the prediction target (x, eps or v) is the caller's business.
        """
        mask = self.check(z, log_snr, frame_mask)
        b, _, frames = z.shape[:3]
        emb = self.embed(log_snr, labels, b, frames)  # (b f) e
        x = rearrange(z, "b c f h w -> (b f) c h w")
        x = F.pixel_unshuffle(x, self.config["patch"]).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        skips = [x]
        for level in self.down:
            for cell in level["cells"]:
                x = cell(x, emb, frames, mask)
                skips.append(x)
            if "shrink" in level:
                x = level["shrink"](x)
                skips.append(x)
        for cell in self.middle:
            x = cell(x, emb, frames, mask)
        for level in self.up:
            for cell in level["cells"]:
                x = cell(torch.cat((x, skips.pop()), dim=1), emb, frames, mask)
            if "grow" in level:
                x = F.interpolate(level["grow"](x), scale_factor=2, mode="nearest")
        x = self.head(F.silu(self.head_norm(x)))
        return rearrange(F.pixel_shuffle(x, self.config["patch"]), "(b f) c h w -> b c f h w", b=b)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """Start a residual branch at zero, so that the untrained network is the identity path only."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def joint_frame_mask(frames: int, images: int, device: torch.device | str = "cpu") -> Tensor:
    """Mask of joint image-video training (VDM section 3.1).

    The first ``frames`` belong to one clip and see each other; each of the ``images`` that follow sees itself alone.

    Returns:
        Bool, shape (frames + images, frames + images); True where row may look at column.
    """
    mask = torch.eye(frames + images, dtype=torch.bool, device=device)
    mask[:frames, :frames] = True
    return mask
