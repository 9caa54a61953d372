"""A transformer over patches of a clip: the diffusion transformer, DiT, of Peebles & Xie 2023, in space and time.

A clip is cut into patches, each a token; tokens get the sum of what they show and where they are; each block lets all
tokens look at each other and then changes each by itself. Noise level and labels enter by *adaLN-Zero* (their section
3.2): they choose scale and shift of each normalisation, and a gate of each branch, which starts at zero. So each block
starts as the identity, and the network's output as zero. Queries and keys are normalised (Dehghani et al. 2023,
"Scaling vision transformers to 22 billion parameters", section 2), which bounds what the softmax sees.

The network knows nothing of diffusion: it maps a noisy clip and a log-SNR to a clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivdm.guards import BadArgument, BadType, check_types, floating, video, whole
from minivdm.networks.layers import waves, zero
from minivdm.networks.tokens import from_patches, sines, to_patches, token_mask, token_places
from minivdm.networks.transformer_blocks import Modulation, TransformerBlock, modulate


@dataclass(frozen=True)
class TransformerConfig:
    """The arguments of `Transformer`, by the same names.

    Args:
        channels: c of the clip, pixels or latents.
        width: features per token, a multiple of `head_channels` and even. depth: number of blocks.
        patch: frames, rows and columns of a patch.
        labels: length of the label vector; 0 for none.
        head_channels: features per attention head.
        embedding: width of the embedding of noise level and labels, even.
        modulation: "separate", "lora" or "shared" (see `Modulation`); rank: of "lora".
        grid: frames, rows and columns of a table of learned positions, in patches; None for sines of any size.
        self_conditioning: whether it takes an `estimate`, its own earlier answer for x.
        frames_known: whether it takes `known`, frames that are given, with a mask (see `Transformer.forward`).

    Raises:
        BadArgument: names the argument, for counts out of range and widths that do not fit together.
    """

    channels: int = 1
    width: int = 192
    depth: int = 6
    patch: Sequence[int] = (1, 2, 2)
    labels: int = 10
    head_channels: int = 32
    embedding: int = 192
    modulation: str = "separate"
    rank: int = 2
    grid: Sequence[int] | None = None
    self_conditioning: bool = False
    frames_known: bool = False

    def __post_init__(self) -> None:
        for name in ("channels", "width", "depth", "head_channels", "rank"):
            whole(name, getattr(self, name))
        whole("labels", self.labels, least=0)
        for name, sides in dict(patch=self.patch, **({} if self.grid is None else {"grid": self.grid})).items():
            if not isinstance(sides, Sequence) or len(sides) != 3:
                raise BadArgument(f"{name}: expected three counts, (frames, rows, columns), got {sides!r}")
            for count in sides:
                whole(name, count)
        if self.width % self.head_channels or self.width % 2 or self.width < 6:
            wanted = f"an even multiple of head_channels={self.head_channels}"
            raise BadArgument(f"width: expected {wanted}, got {self.width}")
        if whole("embedding", self.embedding) % 2:
            raise BadArgument(f"embedding: expected an even number, got {self.embedding}")

    def as_dict(self) -> dict[str, Any]:
        """The arguments as a card has them, in JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


class Transformer(nn.Module):
    """DiT over the patches of a clip: (noisy clip, log-SNR, conditions) -> clip of the same shape.

    Args:
        channels, width, depth, patch, labels: as in `TransformerConfig`.
        more: the further fields of `TransformerConfig`: heads, embedding, modulation, positions, and which conditions
            beside labels it takes.

    Raises:
        BadArgument: names the argument, for counts out of range and widths that do not fit together.
    """

    #: Conditions whose absence is the same as zeros: they enter without a bias.
    zero_is_absent: tuple[str, ...] = ("labels", "estimate", "known")

    def __init__(
        self, channels: int = 1, width: int = 192, depth: int = 6, patch: Sequence[int] = (1, 2, 2), labels: int = 10,
        **more: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        c = TransformerConfig(channels, width, depth, patch, labels, **more)
        self.config, embedding = c.as_dict(), c.embedding
        self.patch, values = tuple(patch), channels * math.prod(patch)
        self.stem = nn.Linear(values, width)
        self.stem_estimate = zero(nn.Linear(values, width, bias=False)) if c.self_conditioning else None
        known = values + math.prod(patch)
        self.stem_known = zero(nn.Linear(known, width, bias=False)) if c.frames_known else None
        self.noise_embedding = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.label_embedding = nn.Linear(labels, embedding, bias=False) if labels else None
        self.time_embedding = self.space_embedding = None
        if c.grid is not None:
            self.time_embedding = nn.Parameter(0.02 * torch.randn(c.grid[0], width))
            self.space_embedding = nn.Parameter(0.02 * torch.randn(c.grid[1], c.grid[2], width))
        self.modulation = Modulation(c.modulation, depth, width, embedding, c.rank)
        self.blocks = nn.ModuleList(self.block(index) for index in range(depth))
        self.head_modulation = zero(nn.Linear(embedding, 2 * width))
        self.head = zero(nn.Linear(width, values))

    def block(self, index: int) -> nn.Module:
        """The block of that number, from 0."""
        return TransformerBlock(self.config["width"], self.config["head_channels"])

    # ---- parts of `forward`, which packing uses one by one

    def embed(self, log_snr: Tensor, labels: Tensor | None, batch: int) -> Tensor:
        """Embedding of noise level and labels, (b, e)."""
        if floating("log_snr", log_snr).ndim > 1 or log_snr.numel() not in (1, batch):
            raise BadArgument(f"log_snr: expected a scalar or shape ({batch},), got {tuple(log_snr.shape)}")
        wave = waves(log_snr.expand(batch), self.config["embedding"])
        emb = self.noise_embedding(wave.to(self.stem.weight.dtype))
        if labels is None:
            return F.silu(emb)
        if self.label_embedding is None:
            raise BadArgument("labels: expected none for a network built with labels=0, got some")
        if labels.shape != (batch, self.config["labels"]):
            raise BadArgument(f"labels: expected ({batch}, {self.config['labels']}), got {tuple(labels.shape)}")
        return F.silu(emb + self.label_embedding(labels.to(emb.dtype)))

    def positions(self, places: Tensor, grid: Sequence[int]) -> Tensor:
        """Features of places (..., 3) in a clip of `grid` patches, (..., width): sines, or rows of the tables.

        A table of space is resized to another height or width, by bilinear interpolation, as W.A.L.T does.
        """
        if self.time_embedding is None or self.space_embedding is None:
            return sines(places, self.config["width"]).to(self.stem.weight.dtype)
        if grid[0] > len(self.time_embedding):
            raise BadArgument(f"z: expected at most {len(self.time_embedding)} patches in time, got {grid[0]}")
        space: Tensor = self.space_embedding
        if tuple(grid[1:]) != space.shape[:2]:
            planes = space.permute(2, 0, 1)[None]
            space = F.interpolate(planes, tuple(grid[1:]), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        frame, row, column = places.long().unbind(-1)
        return self.time_embedding[frame] + space[row, column]

    def enter(self, z: Tensor, estimate: Tensor | None, known: Tensor | None) -> Tensor:
        """Tokens of a clip and of what is told beside it, (b, f', h', w', width)."""
        dtype = self.stem.weight.dtype
        x = self.stem(to_patches(video("z", z, self.config["channels"]).to(dtype), self.patch))
        for name, given in (("estimate", estimate), ("known", known)):
            layer = getattr(self, f"stem_{name}")
            if given is None:
                continue
            if layer is None:
                switch = {"estimate": "self_conditioning", "known": "frames_known"}[name]
                raise BadArgument(f"{name}: expected none for a network built with {switch}=False, got one")
            more = 1 if name == "known" else 0
            wanted = (z.shape[0], z.shape[1] + more, *z.shape[2:])
            if tuple(given.shape) != wanted:
                raise BadArgument(f"{name}: expected shape {wanted}, got {tuple(given.shape)}")
            x = x + layer(to_patches(given.to(dtype), self.patch))
        return x

    def run(self, x: Tensor, emb: Tensor, mask: Tensor | None, *more: Any) -> Tensor:
        """All blocks and the head: tokens (b, n, width), embeddings (b, n or 1, e) -> patches (b, n, values)."""
        for block, six in zip(self.blocks, self.modulation(emb, len(self.blocks)), strict=True):
            x = block(x, six, mask, *more)
        shift, scale = self.head_modulation(emb).chunk(2, -1)
        return self.head(modulate(x, shift, scale))

    def leave(self, made: Tensor, grid: Sequence[int]) -> Tensor:
        """Patches (b, n, values) of a grid of tokens -> the clip."""
        return from_patches(made.unflatten(1, tuple(grid)), self.patch, self.config["channels"])

    def places(self, grid: Sequence[int], frame_mask: Tensor | None, batch: int, device: torch.device) -> Tensor:
        """(frame, row, column) of each token, (1 or b, f', h', w', 3)."""
        return token_places(self.numbers(grid[0], frame_mask, batch, device), grid)

    def numbers(self, frames: int, frame_mask: Tensor | None, batch: int, device: torch.device) -> Tensor:
        """Number of each frame within its own clip, (1 or b, f): how many that it sees come before it.

        A still that rides along, and so sees itself alone, is the first frame of its clip.
        """
        if frame_mask is None:
            return torch.arange(frames, device=device)[None]
        if not isinstance(frame_mask, Tensor) or frame_mask.dtype != torch.bool:
            got = getattr(frame_mask, "dtype", frame_mask)
            raise BadType(f"frame_mask: expected a tensor of bool, got {got!r}")
        if tuple(frame_mask.shape) not in ((frames, frames), (batch, frames, frames)):
            wanted = f"({frames}, {frames}) or ({batch}, {frames}, {frames}), of patches in time"
            raise BadArgument(f"frame_mask: expected bool of shape {wanted}, got {tuple(frame_mask.shape)}")
        rows = frame_mask if frame_mask.ndim == 3 else frame_mask[None]
        return rows.tril(-1).sum(-1)

    def forward(
        self,
        z: Tensor,
        log_snr: Tensor,
        labels: Tensor | None = None,
        frame_mask: Tensor | None = None,
        estimate: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Run the network.

        Args:
            z: noisy clip (b, c, f, h, w), of whole patches.
            log_snr: lambda of z, scalar or (b,).
            labels: (b, n); a row of zeros, or None, is the unconditional model.
            frame_mask: bool (f', f') or (b, f', f') over frames of patches; True where one may look at another.
            estimate: an earlier estimate of x, like z.
            known: (b, c + 1, f, h, w), frames that are given, 0 elsewhere, and a channel that is 1 where they are.
        """
        x = self.enter(z, estimate, known)
        b, grid = len(x), x.shape[1:4]
        x = x + self.positions(self.places(grid, frame_mask, b, z.device), grid)
        mask = None if frame_mask is None else token_mask(frame_mask, grid)
        made = self.run(x.flatten(1, 3), self.embed(log_snr, labels, b)[:, None], mask)
        return self.leave(made, grid)


check_types(globals())
