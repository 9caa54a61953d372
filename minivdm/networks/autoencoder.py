"""A tokenizer: video to a small grid of latents and back, so that diffusion has fewer numbers to make.

Per frame it is the autoencoder of Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models"
(LDM), section 3.1. Over time it is that of Yu et al. 2023, "Language model beats diffusion: tokenizer is key"
(MAGVIT-v2), section 3.2: convolutions see this frame and earlier ones, never later ones, so that 1 + 4k frames become
1 + k latent frames and the first latent depends on the first frame alone. A still is a clip of one frame.
The layers are those of `causal`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.guards import BadArgument, BadType, check_types, one_of, real, video, whole
from minivdm.networks.causal import CausalBlock, CausalConv3d, ChannelNorm, Grow

BOTTLENECKS = ("kl", "vq")


class Coded(NamedTuple):
    """A clip in the bottleneck, before normalisation.

    latents: (b, c, f', h', w'), a draw of q(latents | x) or code vectors. mean: like it, its mean (for "vq", the
    encoder's own output). nats: (b,), the rate: KL(q || N(0, 1)), or the logarithm of the codebook's size for each
    place. penalty: scalar, what the bottleneck adds to the loss by itself (for "vq", codebook and commitment).
    codes: (b, f', h', w') int64 for "vq", else None.
    """

    latents: Tensor
    mean: Tensor
    nats: Tensor
    penalty: Tensor
    codes: Tensor | None = None


class TokenizerLoss(NamedTuple):
    """mean: the scalar to differentiate. error: squared error per value. nats: rate per clip. Both means of a batch."""

    mean: Tensor
    error: Tensor
    nats: Tensor


class Tokenizer(nn.Module):
    """Clips (b, c, 1 + T k, h, w) to latents (b, `latents`, 1 + k, h / S, w / S) and back.

    T is the product of `times`, S that of `patch` and `spaces`. The defaults are those of the weights that ship: 17
    frames of 64x64 become 5x8x8 places of 8 numbers, 27 times fewer.

    Args:
        channels: colour channels c of the clip.
        widths: channels of each level, finest first.
        patch: side of the squares folded into channels before the first convolution.
        times, spaces: by how much each level after the first shrinks time and space.
        time_kernel: frames that a convolution sees, this one and earlier ones. With 1, and `times` of 1, every
            frame is coded by itself: the image autoencoder of LDM.
        latents: channels of the latents.
        bottleneck: "kl", Gaussian latents whose information is penalized; "vq", the nearest of `codes` vectors
            (van den Oord et al. 2017, "Neural discrete representation learning").
        codes: size of the codebook.

    Attributes:
        shift, scale: (`latents`,) mean and standard deviation of each latent channel, set by `calibrate`. `encode` and
            `decode` speak of normalised latents, which diffusion with unit noise presumes.

    Raises:
        BadArgument: a ValueError that names the argument.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (32, 56, 80),
        patch: int = 4,
        times: Sequence[int] = (2, 2),
        spaces: Sequence[int] = (2, 1),
        time_kernel: int = 3,
        latents: int = 8,
        bottleneck: str = "kl",
        codes: int = 512,
    ) -> None:
        super().__init__()
        for name, value in dict(channels=channels, patch=patch, latents=latents, codes=codes).items():
            whole(name, value)
        whole("time_kernel", time_kernel, 1, 16)
        one_of("bottleneck", bottleneck, BOTTLENECKS)
        for name, values in dict(widths=widths, times=times, spaces=spaces).items():
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise BadType(f"{name}: expected a sequence of whole numbers, got {values!r}")
            for value in values:
                whole(name, value, 1, 4096)
        if not len(widths) == len(times) + 1 == len(spaces) + 1:
            got = f"{len(widths)}, {len(times)} and {len(spaces)}"
            raise BadArgument(f"widths, times, spaces: expected one width more than times and spaces, got {got}")
        if max(times, default=1) > time_kernel:
            raise BadArgument(f"times: expected at most time_kernel={time_kernel}, or frames are lost, got {times}")
        self.config: dict[str, Any] = dict(
            channels=channels, widths=list(widths), patch=patch, times=list(times), spaces=list(spaces),
            time_kernel=time_kernel, latents=latents, bottleneck=bottleneck, codes=codes,
        )  # fmt: skip
        self.time_factor, self.space_factor = math.prod(times), patch * math.prod(spaces)

        kernel, factors = (time_kernel, 3), list(zip(times, spaces, strict=True))
        folded, levels = channels * patch**2, list(zip(widths[:-1], widths[1:], factors, strict=True))
        down: list[nn.Module] = [CausalBlock(widths[0], kernel)]
        for fine, coarse, factor in levels:
            down += [CausalConv3d(fine, coarse, kernel, factor), CausalBlock(coarse, kernel)]
        up: list[nn.Module] = [CausalBlock(widths[-1], kernel)]
        for fine, coarse, factor in reversed(levels):
            up += [Grow(coarse, fine, kernel, factor), CausalBlock(fine, kernel)]
        outputs = 2 * latents if bottleneck == "kl" else latents
        self.stem = CausalConv3d(folded, widths[0], kernel)
        self.down, self.up = nn.Sequential(*down), nn.Sequential(*up)
        self.narrow = nn.Sequential(ChannelNorm(widths[-1]), CausalConv3d(widths[-1], outputs, (1, 1)))
        self.widen = CausalConv3d(latents, widths[-1], (1, 1))
        self.head = nn.Sequential(ChannelNorm(widths[0]), nn.SiLU(), CausalConv3d(widths[0], folded, kernel))
        with torch.no_grad():
            last = self.narrow[1].bias
            if bottleneck == "kl" and isinstance(last, Tensor):
                # With noise as large as the signal from the start, the decoder learns to do without latents.
                last[latents:] = -5.0
        if bottleneck == "vq":
            self.codebook = nn.Embedding(codes, latents)
            nn.init.normal_(self.codebook.weight)
        self.register_buffer("shift", torch.zeros(latents))
        self.register_buffer("scale", torch.ones(latents))

    # ---- shapes --------------------------------------------------------------------------------------------------

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Shape (c', f', h', w') of the latents of a clip of shape (c, f, h, w); BadArgument where it does not fit."""
        if isinstance(shape, str) or not isinstance(shape, Sequence) or len(shape) != 4:
            raise BadArgument(f"shape: expected (c, f, h, w), got {shape!r}")
        c, f, h, w = (whole("shape", n) for n in shape)
        t, s = self.time_factor, self.space_factor
        if c != self.config["channels"]:
            raise BadArgument(f"video: expected {self.config['channels']} channels, got {c}")
        if (f - 1) % t:
            raise BadArgument(f"video: expected 1 + {t}k frames, got {f}")
        if h % s or w % s:
            raise BadArgument(f"video: expected height and width that are multiples of {s}, got {h}x{w}")
        return self.config["latents"], 1 + (f - 1) // t, h // s, w // s

    def video_shape(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Shape (c, f, h, w) of the clip that latents of shape (c', f', h', w') decode to."""
        if isinstance(shape, str) or not isinstance(shape, Sequence) or len(shape) != 4:
            raise BadArgument(f"shape: expected (c, f, h, w), got {shape!r}")
        c, f, h, w = (whole("shape", n) for n in shape)
        if c != self.config["latents"]:
            raise BadArgument(f"latents: expected {self.config['latents']} channels, got {c}")
        return self.config["channels"], 1 + (f - 1) * self.time_factor, h * self.space_factor, w * self.space_factor

    # ---- to latents and back --------------------------------------------------------------------------------------

    def code(self, videos: Tensor, generator: torch.Generator | None = None, sample: bool = True) -> Coded:
        """Clips in the bottleneck, as the loss wants them: see `Coded`. sample: False for the mean of q."""
        self.latent_shape(video("video", videos).shape[1:])
        dtype, p = self.widen.weight.dtype, self.config["patch"]
        x = rearrange(videos.to(dtype), "b c f (h y) (w x) -> b (c y x) f h w", y=p, x=p)
        found = self.narrow(self.down(self.stem(x))).float()
        if self.config["bottleneck"] == "vq":
            return self._nearest(found)
        mean, log_variance = found.chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        latents = mean
        if sample:
            noise = torch.randn(mean.shape, generator=generator, device="cpu" if generator else mean.device)
            latents = mean + (log_variance / 2).exp() * noise.to(mean)
        nats = (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2
        return Coded(latents, mean, nats, torch.zeros((), device=mean.device))

    def _nearest(self, found: Tensor) -> Coded:
        """Each place becomes the code vector nearest to it; gradients pass as if it had not moved."""
        flat = rearrange(found, "b c f h w -> (b f h w) c")
        table = self.codebook.weight.float()
        index = torch.cdist(flat, table).argmin(1)
        chosen = table[index]
        # Codes move to what they stand for; the encoder commits to its codes, with weight 1/4 (their eq 3).
        penalty = (chosen - flat.detach()).square().mean() + 0.25 * (flat - chosen.detach()).square().mean()
        b, c, f, h, w = found.shape
        vectors = rearrange(flat + (chosen - flat).detach(), "(b f h w) c -> b c f h w", b=b, f=f, h=h)
        nats = torch.full((b,), f * h * w * math.log(len(table)), device=found.device)
        return Coded(vectors, found, nats, penalty, index.view(b, f, h, w))

    def reconstruct(self, latents: Tensor) -> Tensor:
        """Clips from latents as the bottleneck has them, before normalisation."""
        self.video_shape(video("latents", latents).shape[1:])
        x = self.head(self.up(self.widen(latents.to(self.widen.weight.dtype))))
        p = self.config["patch"]
        return rearrange(x, "b (c y x) f h w -> b c f (h y) (w x)", y=p, x=p)

    def encode(self, videos: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normalised latents (b, c', f', h', w') of clips (b, c, f, h, w) in [-1, 1], float32.

        generator: draws from q(latents | x); without one they are its mean.
        """
        coded = self.code(videos, generator, sample=generator is not None)
        return (coded.latents - self._place(self.shift)) / self._place(self.scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Clips of normalised latents, float32, within [-1, 1]."""
        video("latents", latents, channels=self.config["latents"])
        return self.reconstruct(latents * self._place(self.scale) + self._place(self.shift)).float().clamp(-1, 1)

    def forward(self, videos: Tensor) -> Tensor:
        """Clips, encoded and decoded."""
        return self.decode(self.encode(videos))

    def _place(self, values: Tensor) -> Tensor:
        return values.float()[:, None, None, None]

    @torch.no_grad()
    def calibrate(self, latents: Tensor) -> None:
        """Set shift and scale so that these latents of `code`, (b, c', ...), have mean 0 and variance 1 per channel.

        One number for all channels is what LDM uses; it cannot undo that one channel is larger than another.
        """
        rows = video("latents", latents, channels=self.config["latents"]).transpose(0, 1).flatten(1).double()
        if rows.shape[1] < 2 or not bool(rows.isfinite().all()):
            raise BadArgument("latents: expected at least two finite values in each channel")
        self.shift.copy_(rows.mean(1))
        self.scale.copy_(rows.std(1).clamp(min=1e-6))


def tokenizer_loss(
    tokenizer: Tokenizer, videos: Tensor, kl_weight: float = 1e-2, generator: torch.Generator | None = None
) -> TokenizerLoss:
    """Squared error per value + `kl_weight` * nats per value (+ codebook and commitment, for "vq").

    A Gaussian decoder of variance s^2 has -log p(x | latents) = |x - x_hat|^2 / (2 s^2) + const, so the negative bound
    on log p(x), times 2 s^2 and per value, is this loss with kl_weight = 2 s^2 (Kingma & Welling 2014). A weight near
    twice the error that remains therefore counts nats as the likelihood does; LDM's 1e-6 is all but none.
    """
    real("kl_weight", kl_weight, least=0)
    coded = tokenizer.code(videos, generator)
    error = (tokenizer.reconstruct(coded.latents).float() - videos).square().mean()
    per_value = coded.nats.mean() / videos[0].numel()
    weight = kl_weight if tokenizer.config["bottleneck"] == "kl" else 0.0
    return TokenizerLoss(error + weight * per_value + coded.penalty, error.detach(), coded.nats.detach().mean())


check_types(globals())
