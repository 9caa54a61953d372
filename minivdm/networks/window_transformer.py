"""The window transformer of Gupta et al. 2023, "Photorealistic video generation with diffusion models" (W.A.L.T).

Attention over all tokens of a clip costs their number squared. Here blocks take turns (their section 3.2): in a
*spatial* window tokens of one frame meet, in a *spatio-temporal* window those of all frames within a part of the
places. What a token looks at also depends on how far apart two tokens are: a bias for each offset, learned per head.

A still is a clip of one frame. In a spatio-temporal window each of its tokens sees itself alone (an identity mask), but
the projections act: so stills train every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.guards import BadArgument, check_types, floating, whole
from minivdm.networks.layers import zero
from minivdm.networks.text_encoder import Text, TextEncoder, read_sentences
from minivdm.networks.tokens import to_patches, token_mask
from minivdm.networks.transformer import Transformer
from minivdm.networks.transformer_blocks import Attention, TransformerBlock


def into_windows(x: Tensor, window: Sequence[int]) -> Tensor:
    """Grid (b, f, h, w, c) -> the tokens of each window, (b * windows, tokens of a window, c)."""
    wf, wh, ww = window
    pattern = "b (f wf) (h wh) (w ww) c -> (b f h w) (wf wh ww) c"
    return rearrange(x, pattern, wf=wf, wh=wh, ww=ww)


def out_of_windows(x: Tensor, window: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Inverse of `into_windows`, for a grid of f x h x w tokens."""
    (wf, wh, ww), (f, h, w) = window, grid
    pattern = "(b f h w) (wf wh ww) c -> b (f wf) (h wh) (w ww) c"
    return rearrange(x, pattern, f=f // wf, h=h // wh, w=w // ww, wf=wf, wh=wh, ww=ww)


def same_window(grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """(n, n) bool, n tokens of the grid in order: the mask with which full attention is attention in windows."""
    index = torch.arange(grid[0] * grid[1] * grid[2]).reshape(1, *grid, 1)
    members = into_windows(index, window)[..., 0]  # windows tokens
    number = torch.empty(index.numel(), dtype=torch.long)
    number[members.flatten()] = torch.arange(len(members)).repeat_interleave(members.shape[1])
    return number[:, None] == number[None]


class RelativeBias(nn.Module):
    """A learned number for each head and each offset of two tokens of a window (Liu et al. 2021, "Swin", eq 4)."""

    def __init__(self, window: Sequence[int], heads: int) -> None:
        super().__init__()
        self.window = tuple(window)
        self.embedding = nn.Parameter(torch.zeros(heads, *(2 * side - 1 for side in window)))

    def forward(self, sides: Sequence[int]) -> Tensor:
        """(heads, t, t) for the tokens of a window of these sides, none of them larger than the table's."""
        axes = torch.meshgrid(*(torch.arange(n, device=self.embedding.device) for n in sides), indexing="ij")
        place = torch.stack([axis.flatten() for axis in axes])  # 3 t
        offset = place[:, :, None] - place[:, None]  # 3 t t
        frame, row, column = (offset[k] + self.window[k] - 1 for k in range(3))
        return self.embedding[:, frame, row, column]


class WindowBlock(TransformerBlock):
    """A block whose tokens meet in windows of the grid; it may read a sentence as well.

    window: frames, rows, columns; all frames where `all_frames`, of which `window[0]` is then the most.
    """

    def __init__(self, width: int, head_channels: int, window: Sequence[int], all_frames: bool, context: int) -> None:
        super().__init__(width, head_channels)
        self.window, self.all_frames = tuple(window), all_frames
        self.bias = RelativeBias(window, width // head_channels)
        self.text = Attention(width, head_channels, context) if context else None
        if self.text is not None:
            zero(self.text.out)

    def mix(self, x: Tensor, mask: Tensor | None, *more: Any) -> Tensor:
        """x: b n c. mask: (b or 1, f, f), which frame may look at which; a frame that sees itself alone is a still.

        more: frames, rows and columns of the grid of tokens; sentences, or None.
        """
        grid, text = more
        window = (grid[0] if self.all_frames else 1, *self.window[1:])
        tokens = into_windows(x.unflatten(1, grid), window)
        seen = self._seen(mask, window, len(x), len(tokens), x.device) if self.all_frames else None
        mixed = self.attention(tokens, seen, self.bias(window))
        if self.text is not None and text is not None:
            mixed = mixed + self._read(tokens, text, len(x))
        return out_of_windows(mixed, window, grid).flatten(1, 3)

    def _seen(self, mask: Tensor | None, window: Sequence[int], b: int, n: int, device: torch.device) -> Tensor | None:
        """Which tokens of a window may meet, (1 or n, t, t); None for all."""
        f = window[0]
        if mask is None and f > 1:
            return None
        rows = torch.ones(1, 1, 1, dtype=torch.bool, device=device) if mask is None else mask
        seen = token_mask(rows, window)
        still = (rows.sum(-1) == 1).repeat_interleave(window[1] * window[2], 1)  # 1 or b, t
        own = torch.eye(seen.shape[-1], dtype=torch.bool, device=device)
        seen = torch.where(still[..., None], own, seen)
        return seen if len(seen) == 1 else seen.repeat_interleave(n // b, 0)

    def _read(self, tokens: Tensor, text: Text, b: int) -> Tensor:
        """What the tokens of a window take from words, with their own keys and values beside them."""
        assert self.text is not None
        each = len(tokens) // b
        words = text.words.repeat_interleave(each, 0)
        there = text.mask.repeat_interleave(each, 0)[:, None].expand(-1, tokens.shape[1], -1)
        own = torch.ones(*there.shape[:2], tokens.shape[1], dtype=torch.bool, device=tokens.device)
        answer = self.text(tokens, torch.cat((own, there), 2), None, words)
        return text.given.to(answer.dtype).repeat_interleave(each)[:, None, None] * answer


class WindowTransformer(Transformer):
    """W.A.L.T's denoiser: a Transformer whose blocks take turns between spatial and spatio-temporal windows.

    Args:
        spatial: rows and columns of a window within one frame.
        temporal: most frames, and rows and columns, of a window over all frames.
        text: words of the vocabulary that it reads, in spatial blocks (as in their joint training); 0 for none.
        low_channels: channels of a low-resolution clip that it takes as `low`, at its own size; 0 for none.
        others: those of `Transformer`; AdaLN-LoRA by default.
    """

    zero_is_absent = ("labels", "estimate", "known", "text")

    def __init__(
        self, channels: int = 8, width: int = 192, depth: int = 6, patch: Sequence[int] = (1, 1, 1),
        spatial: Sequence[int] = (8, 8), temporal: Sequence[int] = (5, 4, 4), text: int = 0, low_channels: int = 0,
        modulation: str = "lora", **others: Any,
    ) -> None:  # fmt: skip
        for name, value, count in (("spatial", spatial, 2), ("temporal", temporal, 3)):
            if not isinstance(value, Sequence) or len(value) != count:
                raise BadArgument(f"{name}: expected {count} counts, got {value!r}")
            for side in value:
                whole(name, side)
        whole("text", text, least=0)
        whole("low_channels", low_channels, least=0)
        self._windows, self._context = ((1, *spatial), tuple(temporal)), others.get("embedding", 192) if text else 0
        super().__init__(channels, width, depth, patch, modulation=modulation, **others)
        self.config |= dict(spatial=list(spatial), temporal=list(temporal), text=text, low_channels=low_channels)
        e = self.config["embedding"]
        self.text_encoder = TextEncoder(text, e) if text else None
        self.text_mean = zero(nn.Linear(e, e, bias=False)) if text else None
        values = low_channels * self.stem.in_features // channels
        self.stem_low = nn.Linear(values, width, bias=False) if low_channels else None
        self.low_level_embedding = zero(nn.Linear(e, e)) if low_channels else None

    def block(self, index: int) -> nn.Module:
        window, turn = self._windows[index % 2], index % 2 == 1
        width, head = self.config["width"], self.config["head_channels"]
        return WindowBlock(width, head, window, turn, 0 if turn else self._context)

    def forward(
        self,
        z: Tensor,
        log_snr: Tensor,
        labels: Tensor | None = None,
        frame_mask: Tensor | None = None,
        estimate: Tensor | None = None,
        known: Tensor | None = None,
        text: Tensor | None = None,
        low: Tensor | None = None,
        low_log_snr: Tensor | None = None,
    ) -> Tensor:
        """Run the network. As for `Transformer`, and

        text: tokens (b, n) of a sentence for each clip. low: (b, low_channels, f, h, w), a clip of lower resolution
        brought to z's grid, with noise of log-SNR `low_log_snr` (b,) on it.
        """
        if (low is None) != (low_log_snr is None) or (low is not None and self.stem_low is None):
            raise BadArgument("low, low_log_snr: expected both, for a network built with low_channels, or none of them")
        x = self.enter(z, estimate, known)
        b, grid = len(x), tuple(x.shape[1:4])
        self.check_grid(grid)
        emb = self.embed(log_snr, labels, b)
        if low is not None and low_log_snr is not None and self.stem_low is not None:
            wanted = (b, self.config["low_channels"], *z.shape[2:])
            if tuple(low.shape) != wanted:
                raise BadArgument(f"low: expected shape {wanted}, got {tuple(low.shape)}")
            x = x + self.stem_low(to_patches(low.to(x.dtype), self.patch))
            assert self.low_level_embedding is not None
            emb = emb + self.low_level_embedding(self.embed(floating("low_log_snr", low_log_snr), None, b))
        context = self.read(text, b)
        if context is not None and self.text_mean is not None:
            emb = emb + self.text_mean(context.mean)
        x = x + self.positions(self.places(grid, frame_mask, b, z.device), grid)
        rows = frame_mask if frame_mask is None or frame_mask.ndim == 3 else frame_mask[None]
        return self.leave(self.run(x.flatten(1, 3), emb[:, None], rows, grid, context), grid)

    def check_grid(self, grid: Sequence[int]) -> None:
        """BadArgument where windows do not divide the grid of tokens, or it has too many frames."""
        for name, window in (("spatial", self._windows[0]), ("temporal", self._windows[1])):
            if grid[1] % window[1] or grid[2] % window[2]:
                got = f"{grid[1]}x{grid[2]}"
                raise BadArgument(f"z: expected rows and columns of tokens that {name} windows "
                                  f"{window[1]}x{window[2]} divide, got {got}")  # fmt: skip
        if grid[0] > self._windows[1][0]:
            raise BadArgument(f"z: expected at most {self._windows[1][0]} frames of tokens, got {grid[0]}")

    def read(self, text: Tensor | None, batch: int) -> Text | None:
        """The sentences as the blocks read them."""
        return read_sentences(self.text_encoder, text, batch)


check_types(globals())
