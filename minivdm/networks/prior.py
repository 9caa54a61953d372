"""The prior of Make-A-Video: a network that denoises the embedding of an image, told what a sentence says.

Ramesh et al. 2022, "Hierarchical text-conditional image generation with CLIP latents" (DALL-E 2), section 2.2, whose
diffusion prior Singer et al. 2022, "Make-A-Video", section 3.1, go on from. There it is a transformer over tokens; an
embedding of a hundred numbers needs but a perceptron.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivdm.guards import BadArgument, check_types, floating, whole
from minivdm.networks.layers import waves, zero
from minivdm.networks.text_encoder import TextEncoder, read_sentences


class Layer(nn.Module):
    """x + perceptron(norm x, scaled and shifted by the condition), nothing at first."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.scale_shift = nn.Linear(condition, 2 * width)
        self.wide = nn.Linear(width, 2 * width)
        self.narrow = zero(nn.Linear(2 * width, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # b w, b e
        scale, shift = self.scale_shift(condition).chunk(2, dim=-1)
        return x + self.narrow(F.silu(self.wide(torch.addcmul(shift, self.norm(x), 1 + scale))))


class PriorNetwork(nn.Module):
    """(noisy embedding, log-SNR, sentence) -> embedding, for a `Denoiser` of vectors.

    Args:
        dimensions: of the embedding.
        text: words of the vocabulary.
        width: of the layers. depth: how many. condition: width of the embedding of noise level and sentence.

    Attributes:
        mean, deviation: (dimensions,), of the features whose normalised values are the embedding.
    """

    zero_is_absent = ("text",)

    def __init__(self, dimensions: int = 96, text: int = 1, width: int = 128, depth: int = 2, condition: int = 64):
        super().__init__()
        for name, value in dict(dimensions=dimensions, text=text, width=width, depth=depth).items():
            whole(name, value)
        if whole("condition", condition) % 2:
            raise BadArgument(f"condition: expected an even number, got {condition}")
        self.config: dict[str, Any] = dict(
            dimensions=dimensions, text=text, width=width, depth=depth, condition=condition
        )
        self.noise_embedding = nn.Sequential(
            nn.Linear(condition, condition), nn.SiLU(), nn.Linear(condition, condition)
        )
        self.text_encoder = TextEncoder(text, condition, layers=1)
        self.text_mean = nn.Linear(condition, condition, bias=False)
        self.stem = nn.Linear(dimensions, width)
        self.layers = nn.ModuleList(Layer(width, condition) for _ in range(depth))
        self.head = zero(nn.Linear(width, dimensions))
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("deviation", torch.ones(dimensions))

    def fit(self, features: Tensor) -> None:
        """Sets mean and deviation to those of features (n, dimensions)."""
        if floating("features", features).ndim != 2 or features.shape[1] != len(self.mean) or len(features) < 2:
            raise BadArgument(f"features: expected (n, {len(self.mean)}), n from 2, got {tuple(features.shape)}")
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0).clamp(min=1e-2))

    def normalised(self, features: Tensor) -> Tensor:
        """Features (n, dimensions) as embeddings of mean 0 and deviation 1."""
        return (features - self.mean) / self.deviation

    def forward(self, z: Tensor, log_snr: Tensor, text: Tensor | None = None) -> Tensor:
        """Run the network. z: (b, dimensions); log_snr: scalar or (b,); text: tokens (b, length), or None."""
        if floating("z", z).ndim != 2 or z.shape[1] != len(self.mean):
            raise BadArgument(f"z: expected embeddings (b, {len(self.mean)}), got {tuple(z.shape)}")
        dtype = self.stem.weight.dtype
        wave = waves(log_snr.expand(len(z)), self.config["condition"]).to(dtype)
        condition = self.noise_embedding(wave)
        read = read_sentences(self.text_encoder, text, len(z))
        if read is not None:
            condition = condition + self.text_mean(read.mean)
        condition, x = F.silu(condition), self.stem(z.to(dtype))
        for layer in self.layers:
            x = layer(x, condition)
        return self.head(F.silu(x))


check_types(globals())
