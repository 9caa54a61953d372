"""Latent diffusion: the diffusion model makes the latents of a tokenizer, and the decoder makes them a clip.

Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models", section 3. Training is in two
stages: the tokenizer first (`networks.autoencoder`), which is then left as it is, so that every clip is encoded once
and the diffusion model is trained from a cache (`encode_all`). Nothing of the diffusion changes: latents are x, of
another shape, brought to mean 0 and variance 1 per channel as unit noise presumes, and of no known range, so that x_hat
is not clipped. What changes is the cost (`gflop`), as the network sees fewer places.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minivdm.core.denoiser import Denoiser, Loss
from minivdm.core.schedules import CosineSchedule
from minivdm.guards import BadArgument, BadFile, check_types, real, video, whole
from minivdm.measure.readers import load_shipped
from minivdm.networks.autoencoder import Tokenizer
from minivdm.networks.transformer import Transformer
from minivdm.tasks.generation import generate

NO_RANGE = (-math.inf, math.inf)
WEIGHTS = Path(__file__).parents[1] / "weights" / "tokenizer-64.safetensors"
LATENT = WEIGHTS.with_name("latent-64.safetensors")


@functools.cache
def load_tokenizer(device: str | torch.device = "cpu") -> Tokenizer:
    """The tokenizer of `benchmarks/train_tokenizer.py`. FileNotFoundError or BadFile without usable files."""
    return load_shipped(WEIGHTS, Tokenizer, "benchmarks/train_tokenizer.py", device)


def weights_of(name: str | Path) -> Path | None:
    """The file with a latent model that a name, or the path of a .safetensors file, stands for; None for all others."""
    path = Path(name) if str(name).endswith(".safetensors") else WEIGHTS.parent / f"{name}.safetensors"
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return path if isinstance(card, dict) and "tokenizer" in card else None


def load(path: str | Path = LATENT, device: str | torch.device = "cpu") -> LatentDiffusion:
    """The latent model that `benchmarks/train_latent.py` wrote to `path`, with its tokenizer.

    Raises:
        FileNotFoundError: no weights, or no card beside them.
        BadFile: one of them is damaged, or the latents are those of another tokenizer.
    """
    path, tokenizer = Path(path), load_tokenizer(device)
    about = path.with_suffix(".json")
    if not about.is_file():
        raise FileNotFoundError(f"{about}: expected a card; benchmarks/train_latent.py makes it")
    try:
        card = json.loads(about.read_text(encoding="utf-8"))
        config, schedule, shape = card["network"], CosineSchedule(**card["schedule"]), card["shape"]
        scales = [torch.tensor(card["tokenizer"][name], device=device) for name in ("shift", "scale")]
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{about}: expected the card of a latent model, but: {error!r}") from error
    for name, value, own in zip(("shift", "scale"), scales, (tokenizer.shift, tokenizer.scale), strict=True):
        if value.shape != own.shape or not torch.allclose(value, own, atol=1e-3):
            raise BadFile(f"{about}: expected the tokenizer's {name}, {own.tolist()}, got {value.tolist()}")
    network = load_shipped(path, lambda: Transformer(**config), "benchmarks/train_latent.py", device)
    return LatentDiffusion(Denoiser(network, schedule), tokenizer, tuple(shape)).eval()


@torch.no_grad()
def encode_all(
    tokenizer: Tokenizer, videos: Tensor, batch: int = 8, generator: torch.Generator | None = None
) -> Tensor:
    """Normalised latents (n, c', f', h', w') of clips (n, c, f, h, w), a batch at a time: the cache of training.

    generator: draws from q(latents | x); without one they are its mean.
    """
    tokenizer.latent_shape(video("videos", videos).shape[1:])
    return torch.cat([tokenizer.encode(part, generator) for part in videos.split(whole("batch", batch))])


def check_latents(latents: Tensor, tokenizer: Tokenizer, at_most: float = 3.0) -> Tensor:
    """Latents as the diffusion wants them; BadArgument for another shape, or another scale than about 1 per channel.

    at_most: the factor by which a channel's root mean square may differ from 1; a batch of few clips is not exact.
    """
    tokenizer.video_shape(video("latents", latents).shape[1:])
    real("at_most", at_most, least=1)
    size = latents.detach().float().square().mean((0, 2, 3, 4)).sqrt()
    if latents.device.type == "cpu" and not bool(((size <= at_most) & (size >= 1 / at_most)).all()):
        low, high = float(size.min()), float(size.max())
        raise BadArgument(
            f"latents: expected a root mean square near 1 in each channel, got {low:.3g} to {high:.3g}; "
            "`Tokenizer.calibrate` sets the scale, and `encode` uses it"
        )
    return latents


class LatentDiffusion(nn.Module):
    """A denoiser of latents and the tokenizer that they belong to.

    Args:
        denoiser: of latents (b, c', f', h', w'), any network; its `bounds` are None, and become infinite, as latents
            have no range into which an estimate could be clipped.
        tokenizer: is frozen.
        shape: (c, f, h, w) of the clips.
    """

    def __init__(self, denoiser: Denoiser, tokenizer: Tokenizer, shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.latent_shape = tokenizer.latent_shape(shape)
        if denoiser.bounds not in (None, NO_RANGE):
            raise BadArgument(f"denoiser: expected bounds=None, as latents have no range, got {denoiser.bounds}")
        denoiser.bounds = NO_RANGE
        self.denoiser, self.tokenizer, self.shape = denoiser, tokenizer.eval().requires_grad_(False), shape

    def loss(self, latents: Tensor, **options: Any) -> Loss:
        """`Denoiser.loss` of cached latents, with its options (labels, generator, ...)."""
        if tuple(video("latents", latents).shape[1:]) != self.latent_shape:
            raise BadArgument(f"latents: expected (b, {self.latent_shape}), got {tuple(latents.shape)}")
        return self.denoiser.loss(check_latents(latents, self.tokenizer), **options)

    @torch.no_grad()
    def sample(self, labels: Tensor | None = None, **options: Any) -> Tensor:
        """Clips (b, c, f, h, w) in [-1, 1]: `tasks.generate` of latents with its options, then the decoder."""
        return self.tokenizer.decode(generate(self.denoiser, labels, shape=self.latent_shape, **options))


def gflop(call: Callable[[], Tensor], backward: bool = True) -> float:
    """GFLOP of `call()`, and of its backward pass; a product and its sum are two, as torch counts.

    PyTorch's own fused attention on a CPU is not counted: for a network with attention this is a lower bound there.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.set_grad_enabled(backward):
        answer = call()
        if backward:
            answer.float().square().mean().backward()
    return counter.get_total_flops() / 1e9


check_types(globals())
