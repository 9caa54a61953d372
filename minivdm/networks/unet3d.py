"""The factorized 3D U-Net of Ho et al. 2022, "Video Diffusion Models" (VDM), section 3 and figure 1.

Space and time are handled by different layers. Every convolution is 1x3x3, so it sees one frame at a time;
spatial attention treats the frames as batch; temporal attention, which follows it, treats the pixels as batch
and is the only place where frames meet. One ``frame_mask`` that reaches every temporal layer therefore
decides completely which frames exchange information. That is what lets independent images ride along with a
clip in training (VDM sections 3 and 4.3.1).

Memory layout. From the stem to the head the activations stay ``(b f) c h w`` in channels_last, that is
``b f h w c`` in memory. A 1x3x3 convolution is then an ordinary 2D convolution on merged frames, and both
attentions reach their tokens by viewing the same memory.

The network knows nothing of diffusion: it maps a noisy clip and a log-SNR to a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from minivdm.guards import BadArgument, BadType, check_types, floating, video
from minivdm.networks.attention import joint_frame_mask  # noqa: F401
from minivdm.networks.blocks import Block, Modulated, ResidualBlock  # noqa: F401
from minivdm.networks.layers import GroupNorm, waves, zero
from minivdm.networks.low_resolution import LowResolution, embed_low
from minivdm.networks.text_encoder import Text, TextEncoder, read_sentences
from minivdm.networks.unet3d_config import UNet3DConfig


class UNet3D(nn.Module):
    """Factorized 3D U-Net (VDM section 3): (noisy clip, log-SNR, labels) -> clip of the same shape.

    Args:
        channels, width, multipliers, patch, labels: as in `UNet3DConfig`.
        more: the further fields of `UNet3DConfig`: `blocks`, `middle`, which resolutions have attention, and which
            conditions beside labels the network takes.

    Raises:
        BadArgument: a ValueError that names the argument, for counts out of range and for widths or lengths that do
            not fit together.
    """

    #: Conditions whose absence is the same as zeros: they have no bias, or a sample without text leaves it out.
    zero_is_absent = ("labels", "estimate", "text")

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        patch: int = 2,
        labels: int = 10,
        **more: Any,
    ):
        super().__init__()
        c = UNet3DConfig(channels, width, multipliers, patch, labels, **more)
        self.config, widths, embedding = c.as_dict(), c.widths, c.embedding

        def block(width_in: int, width_out: int, level: int) -> Block:
            context = embedding if c.text else 0
            return Block(width_in, width_out, embedding, c.head_channels, c.spatial[level], c.temporal[level], context)

        self.noise_embedding = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.label_embedding = nn.Linear(labels, embedding, bias=False) if labels else None
        self.text_encoder = self.text_mean = self.text_time = None
        if c.text:
            self.text_encoder = TextEncoder(c.text, embedding, c.text_layers).requires_grad_(not c.text_frozen)
            self.text_mean = zero(nn.Linear(embedding, embedding, bias=False))
            self.text_time = zero(nn.Linear(embedding, embedding, bias=False))
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.stem_estimate = None
        if c.self_conditioning:  # zero at first: weights trained without an estimate go on as they were
            self.stem_estimate = zero(nn.Conv2d(channels * patch**2, widths[0], 3, padding=1, bias=False))

        self.low = LowResolution(c.low, widths[0], patch, embedding) if c.low else None

        self.down = nn.ModuleList()
        skips, current = [widths[0]], widths[0]
        for level, w in enumerate(widths):
            cells = nn.ModuleList()
            for _ in range(c.blocks):
                cells.append(block(current, w, level))
                current = w
                skips.append(w)
            shrink = nn.Conv2d(w, w, 3, stride=2, padding=1) if level + 1 < len(widths) else None
            if shrink is not None:
                skips.append(w)
            self.down.append(nn.ModuleDict({"cells": cells} | ({"shrink": shrink} if shrink is not None else {})))

        last = len(widths) - 1
        self.middle = nn.ModuleList(block(current, current, last) for _ in range(c.middle))

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            w = widths[level]
            cells = nn.ModuleList()
            for _ in range(c.blocks + 1):
                cells.append(block(current + skips.pop(), w, level))
                current = w
            grow = None
            if level > 0:
                # Narrow before growing: the same convolution after it would cost four times as much.
                current = widths[level - 1]
                grow = nn.Conv2d(w, current, 1)
            self.up.append(nn.ModuleDict({"cells": cells} | ({"grow": grow} if grow is not None else {})))

        self.head_norm = GroupNorm(8, widths[0])
        self.head = zero(nn.Conv2d(widths[0], channels * patch**2, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def read(self, text: Tensor | None, batch: int) -> Text | None:
        """What the text encoder makes of the sentences; None where there are none."""
        return read_sentences(self.text_encoder, text, batch)

    def embed(
        self,
        log_snr: Tensor,
        labels: Tensor | None,
        batch: int,
        frames: int,
        text: Text | None = None,
        more: Tensor | None = None,
    ) -> Tensor:
        """Embedding of noise level, labels and the mean of the text for each frame, shape ((b f), e)."""
        width, dtype = self.config["embedding"], self.stem.weight.dtype
        emb = self.noise_embedding(waves(log_snr.expand(batch), width).to(dtype))
        emb = repeat(emb if more is None else emb + more, "b e -> b f e", f=frames)
        if text is not None and self.text_mean is not None and self.text_time is not None:
            # "To the right" means another place in each frame: the mean of the words, times the frame's number.
            wave = waves(torch.arange(frames, device=emb.device), width, highest=0.5).to(dtype)  # f e
            mean = text.mean[:, None]  # b 1 e
            emb = emb + self.text_mean(mean) + self.text_time(mean * wave)
        if labels is not None:
            n = self.config["labels"]
            if self.label_embedding is None:
                raise BadArgument("labels: expected none for a network built with labels=0, got some")
            if not isinstance(labels, Tensor) or labels.is_complex():
                raise BadType(f"labels: expected a tensor of real numbers, got {type(labels).__name__}")
            if labels.ndim == 2:
                labels = repeat(labels, "b n -> b f n", f=frames)
            if labels.shape != (batch, frames, n):
                wanted = f"({batch}, {n}) or ({batch}, {frames}, {n})"
                raise BadArgument(f"labels: expected shape {wanted}, got {tuple(labels.shape)}")
            # No bias: the all-zero vector, "nothing said", is the unconditional model of classifier-free guidance.
            emb = emb + self.label_embedding(labels.to(dtype))
        return F.silu(rearrange(emb, "b f e -> (b f) e"))

    def check(self, z: Tensor, log_snr: Tensor, frame_mask: Tensor | None) -> Tensor | None:
        """Name what is wrong with the input; return the mask with a batch axis."""
        video("z", z, channels=self.config["channels"])
        b, _, f, h, w = z.shape
        step = self.config["patch"] * 2 ** (len(self.config["multipliers"]) - 1)
        if h % step or w % step:
            raise BadArgument(f"z: expected height and width that are multiples of {step}, got {h}x{w}")
        if floating("log_snr", log_snr).ndim > 1 or log_snr.numel() not in (1, b):
            raise BadArgument(f"log_snr: expected a scalar or shape ({b},), got {tuple(log_snr.shape)}")
        if frame_mask is None:
            return None
        if not isinstance(frame_mask, Tensor) or frame_mask.dtype != torch.bool:
            raise BadType(f"frame_mask: expected a tensor of bool, got {getattr(frame_mask, 'dtype', frame_mask)!r}")
        if tuple(frame_mask.shape) not in ((f, f), (b, f, f)):
            got = f"{frame_mask.dtype} of shape {tuple(frame_mask.shape)}"
            raise BadArgument(f"frame_mask: expected bool of shape ({f}, {f}) or ({b}, {f}, {f}), got {got}")
        return frame_mask if frame_mask.ndim == 3 else frame_mask[None]

    def enter(self, z: Tensor, estimate: Tensor | None, low: Tensor | None = None) -> Tensor:
        """The activations of the finest level, (b f) c h w in channels_last, of the clip, an estimate and `low`."""

        def folded(clip: Tensor) -> Tensor:
            frames = rearrange(clip.to(self.stem.weight.dtype), "b c f h w -> (b f) c h w")
            return F.pixel_unshuffle(frames, self.config["patch"]).contiguous(memory_format=torch.channels_last)

        x = self.stem(folded(z))
        if self.low is not None and low is not None:
            x = x + self.low.stem(folded(low))
        if estimate is None:
            return x
        if self.stem_estimate is None:
            raise BadArgument("estimate: expected none for a network built with self_conditioning=False, got one")
        if estimate.shape != z.shape:
            raise BadArgument(f"estimate: expected the clip's shape {tuple(z.shape)}, got {tuple(estimate.shape)}")
        return x + self.stem_estimate(folded(estimate))

    def forward(
        self,
        z: Tensor,
        log_snr: Tensor,
        labels: Tensor | None = None,
        frame_mask: Tensor | None = None,
        estimate: Tensor | None = None,
        text: Tensor | None = None,
        low: Tensor | None = None,
        low_log_snr: Tensor | None = None,
        rate: Tensor | None = None,
    ) -> Tensor:
        """Run the network.

        Args:
            z: noisy clip, shape (b, c, f, h, w); any f, h and w multiples of patch * 2^(levels - 1).
            log_snr: lambda of z, scalar or shape (b,).
            labels: (b, n) or one row per frame (b, f, n); an all-zero row, or None, is the unconditional model.
            frame_mask: bool, (f, f) or (b, f, f); True where frame i may look at frame j. Every row needs a True.
            estimate: an earlier estimate of x, like z, for a network built with self_conditioning; None for none.
            text: tokens (b, length) of a sentence for each clip; an all-zero row, or None, is no sentence.
            low: (b, n, f, h, w), the clip of another stage at z's size, for a network built with low=n.
            low_log_snr, rate: (b,), the log-SNR of `low`, and the frame rate of the clip, for such a network.

        Returns:
            Shape (b, c, f, h, w), the prediction target (x, eps or v) is the caller's business.
        """
        mask = self.check(z, log_snr, frame_mask)
        b, _, frames = z.shape[:3]
        context = self.read(text, b)
        more = embed_low(self.low, low, low_log_snr, rate, z)  # b e
        emb = self.embed(log_snr, labels, b, frames, context, more)  # (b f) e
        x = self.enter(z, estimate, low)
        skips = [x]
        for level in self.down:
            for cell in level["cells"]:
                x = cell(x, emb, frames, mask, context)
                skips.append(x)
            if "shrink" in level:
                x = level["shrink"](x)
                skips.append(x)
        for cell in self.middle:
            x = cell(x, emb, frames, mask, context)
        for level in self.up:
            for cell in level["cells"]:
                x = cell(torch.cat((x, skips.pop()), dim=1), emb, frames, mask, context)
            if "grow" in level:
                x = F.interpolate(level["grow"](x), scale_factor=2, mode="nearest")
        x = self.head(F.silu(self.head_norm(x)))
        return rearrange(F.pixel_shuffle(x, self.config["patch"]), "(b f) c h w -> b c f h w", b=b)


check_types(globals())
