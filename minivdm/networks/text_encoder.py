"""Text for a network: a small transformer over the tokens of a sentence, and the layer through which it is read.

A picture reads a text by cross-attention (Rombach et al. 2022, "High-resolution image synthesis with latent diffusion
models", section 3.3): queries come from the places of the picture, keys and values from the words. Imagen (Saharia et
al. 2022, section 2.5) adds the words' mean to the embedding of the noise level as well; `UNet3D` does both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivdm.guards import BadArgument, BadType, check_types, whole
from minivdm.networks.attention import attend
from minivdm.networks.layers import GroupNorm, zero


class Text(NamedTuple):
    """Sentences as a network sees them.

    words: (b, n, e), features of each word in its sentence. mean: (b, e), 0 for an empty sentence. mask: (b, n) bool,
    True where there is a word. given: (b,) 1.0 where there is a sentence at all, else 0.0.
    """

    words: Tensor
    mean: Tensor
    mask: Tensor
    given: Tensor


class TextEncoder(nn.Module):
    """Tokens (b, n) -> features of each word: a transformer whose layers add to what they are given (pre-norm).

    Args:
        vocabulary: number of words; tokens are 1 to `vocabulary`, and 0 after the last word.
        width: features per word, a multiple of `head_channels`.
        layers: each is attention over the sentence, then a perceptron on each word.
        head_channels: features per attention head.
        length: most words of a sentence.

    Raises:
        BadArgument: counts out of range, or a width that does not fit the heads.
    """

    def __init__(
        self, vocabulary: int, width: int = 128, layers: int = 2, head_channels: int = 32, length: int = 32
    ) -> None:
        super().__init__()
        for name, value in dict(vocabulary=vocabulary, width=width, length=length).items():
            whole(name, value)
        whole("layers", layers, least=0)
        head_channels = min(whole("head_channels", head_channels), width)
        if width % head_channels:
            raise BadArgument(f"width: expected a multiple of head_channels={head_channels}, got {width}")
        self.vocabulary, self.length = vocabulary, length
        self.word_embedding = nn.Embedding(vocabulary + 1, width)
        self.position_embedding = nn.Embedding(length, width)
        for table in (self.word_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=0.5)
        self.layers = nn.ModuleList(TextLayer(width, head_channels) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Text:
        """Read sentences. tokens: (b, n), whole numbers in any real dtype, n at most `length`."""
        tokens = self.check(tokens)
        mask = tokens > 0  # b n
        # A softmax wants one key at least: an empty sentence looks at its first place, and is left out in the end.
        seen = mask.clone()
        seen[:, 0] = True
        x = self.word_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, seen)
        x = self.norm(x)
        share = mask / mask.sum(1, keepdim=True).clamp(min=1)  # b n
        return Text(x, (x * share[..., None].to(x.dtype)).sum(1), mask, mask.any(1).to(x.dtype))

    def check(self, tokens: Tensor) -> Tensor:
        """Tokens as int64. Values on an accelerator are not looked at, as one would have to wait for them."""
        if not isinstance(tokens, Tensor) or tokens.is_complex() or tokens.dtype == torch.bool:
            raise BadType(f"text: expected a tensor of tokens, got {getattr(tokens, 'dtype', type(tokens).__name__)}")
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.length:
            raise BadArgument(f"text: expected shape (b, 1 to {self.length} words), got {tuple(tokens.shape)}")
        if tokens.device.type == "cpu" and tokens.numel():
            low, high = float(tokens.min()), float(tokens.max())
            if not (low >= 0 and high <= self.vocabulary):
                raise BadArgument(f"text: expected tokens 0 to {self.vocabulary}, got {low:g} to {high:g}")
        return tokens.round().long() if tokens.is_floating_point() else tokens.long()


def read_sentences(encoder: TextEncoder | None, text: Tensor | None, batch: int) -> Text | None:
    """What a network's encoder makes of the sentences of its clips, tokens (batch, length); None where there are none.

    Raises BadArgument for sentences that no encoder is there for, or that are not one for each clip.
    """
    if text is None:
        return None
    if encoder is None:
        raise BadArgument("text: expected none for a network built with text=0, got some")
    if not isinstance(text, Tensor) or text.ndim != 2 or len(text) != batch:
        raise BadArgument(f"text: expected tokens ({batch}, length), got {getattr(text, 'shape', text)}")
    read: Text = encoder(text)
    return read


class TextLayer(nn.Module):
    """x + attention(norm x), then x + perceptron(norm x) (Vaswani et al. 2017, with the norms first)."""

    def __init__(self, width: int, head_channels: int) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # x b n e; mask b n
        q, k, v = rearrange(
            self.qkv(self.norm1(x)), "b n (three heads d) -> three b heads n d", three=3, d=self.head_channels
        )
        keys = mask[:, None, None].expand(-1, 1, x.shape[1], -1)  # b 1 n n
        x = x + self.out(rearrange(attend(q, k, v, keys), "b heads n d -> b n (heads d)"))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class CrossAttention(nn.Module):
    """Places look at words: softmax(Q K^T / sqrt(d)) V with Q from the picture, K and V from the text.

    Its output starts at zero, so that a network which was trained without text goes on as it was.

    Args:
        width: channels of the picture, a multiple of `head_channels`.
        context: features of each word.
        head_channels: channels per head.
    """

    def __init__(self, width: int, context: int, head_channels: int) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.norm = GroupNorm(8, width)
        self.q = nn.Conv2d(width, width, 1)
        self.kv = nn.Linear(context, 2 * width)
        self.out = zero(nn.Conv2d(width, width, 1))

    def queries_keys_values(self, x: Tensor, text: Text) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries (b heads places d), keys and values (b heads n d), and which keys there are (b 1 places n).

        The places of all frames of a clip, f h w, ask together: they ask the same sentence.
        """
        b, d = len(text.words), self.head_channels
        q = rearrange(self.q(self.norm(x)), "(b f) (heads d) h w -> b heads (f h w) d", b=b, d=d)
        k, v = rearrange(self.kv(text.words), "b n (two heads d) -> two b heads n d", two=2, d=d)
        seen = text.mask.clone()
        seen[:, 0] = True  # of an empty sentence, whose answer is left out
        return q, k, v, seen[:, None, None].expand(-1, 1, q.shape[2], -1)

    def forward(self, x: Tensor, text: Text) -> Tensor:  # x (b f) c h w
        b, (height, width) = len(text.words), x.shape[2:]
        q, k, v, seen = self.queries_keys_values(x, text)
        mixed = rearrange(attend(q, k, v, seen), "b heads (f h w) d -> (b f) (heads d) h w", h=height, w=width)
        answer = self.out(mixed)
        given = text.given.to(answer.dtype).repeat_interleave(len(x) // b)[:, None, None, None]
        return x + given * answer

    @torch.no_grad()
    def weights(self, x: Tensor, text: Text) -> Tensor:
        """Which place looks at which word, (b, f, h, w, heads, n); rows sum to 1 over the words."""
        height, width = x.shape[2:]
        q, k, _, seen = self.queries_keys_values(x, text)
        logits = (q @ k.mT * self.head_channels**-0.5).masked_fill(~seen, -torch.inf)
        return rearrange(logits.softmax(-1), "b heads (f h w) n -> b f h w heads n", h=height, w=width)


check_types(globals())
