"""Align your latents: a frozen image model becomes a video model by layers between its own.

Blattmann et al. 2023, "Align your latents: high-resolution video synthesis with latent diffusion models", section 3.
After each layer of the image model, which sees frames one by one, a temporal layer makes z' of its answer z, and a
learned alpha mixes the two: alpha z + (1 - alpha) z' (their section 3.1). Where alpha = 1 the video model is the image
model. Two things about that sum:

- it is not exact: with z' = z it rounds, so that even a silent temporal layer changes the image model;
- at alpha = 1 no gradient reaches the temporal layer, so training could not start from the image model.

    z + (1 - alpha) (z' - z),   z' = z + projection(f(z)),   projection zero at first          (`Aligned`)

is the same sum, returns z bit by bit at first, for every alpha, and learns for every alpha below 1.

Prediction and interpolation are one model with other masks (their section 3.2): known frames and a channel that says
which frames are known are conditions of the temporal layers (`known_frames`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.core.observe import frame_indices
from minivdm.guards import BadArgument, check_types, real, video, whole
from minivdm.networks.causal import ChannelNorm


class Aligned(nn.Module):
    """A layer between image layers: z + (1 - alpha) (z' - z), z' = z + what frames say to each other.

    Args:
        width: channels of z.
        heads: of the temporal attention; a divisor of the width.
        context: channels of a condition on each frame, such as those of `known_frames`; 0 for none.
        alpha: where the mixing weight starts, in [0, 1). At 1 nothing would be learnt.
    """

    def __init__(self, width: int, heads: int = 1, context: int = 0, alpha: float = 0.5) -> None:
        super().__init__()
        if whole("width", width) % whole("heads", heads):
            raise BadArgument(f"heads: expected a divisor of width={width}, got {heads}")
        if real("alpha", alpha, 0, 1) == 1:
            raise BadArgument("alpha: expected a number below 1, where the temporal layer can learn, got 1")
        whole("context", context, least=0)
        self.norm = ChannelNorm(width)
        self.context = nn.Conv3d(context, width, 1) if context else None
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.project = nn.Linear(width, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        # alpha = sigmoid(logit) stays in (0, 1) whatever an optimizer does.
        self.logit = nn.Parameter(torch.logit(torch.tensor(float(alpha)), eps=1e-6))

    @property
    def alpha(self) -> Tensor:
        """The weight of the image model, a scalar."""
        return self.logit.sigmoid()

    def forward(self, z: Tensor, known: Tensor | None = None) -> Tensor:
        """z: (b, c, f, h, w), an image layer's answer for each frame. known: (b, context, f, h, w), or None."""
        video("z", z)
        x = self.norm(z)
        if known is not None:
            if self.context is None:
                raise BadArgument("known: expected none for a layer built with context=0, got some")
            wanted = (len(z), self.context.in_channels, *z.shape[2:])
            if tuple(known.shape) != wanted:
                raise BadArgument(f"known: expected shape {wanted}, got {tuple(known.shape)}")
            x = x + self.context(known)
        b, _, _, h, w = z.shape
        places = rearrange(x, "b c f h w -> (b h w) f c")
        said = self.project(self.attention(places, places, places, need_weights=False)[0])
        change = rearrange(said, "(b h w) f c -> b c f h w", b=b, h=h, w=w)  # z' - z
        return z + (1 - self.alpha) * change


class FrozenWithTime(nn.Module):
    """An image model's layers, frozen, each followed by a temporal layer that is trained.

    Args:
        layers: image layers, each from (n, c, h, w) to (n, c', h', w'), in their order.
        temporal: one `Aligned`, or None, after each.

    `images(x)` is the image model itself. As long as every projection is zero `forward` equals it frame by frame.
    """

    def __init__(self, layers: Sequence[nn.Module], temporal: Sequence[nn.Module | None]) -> None:
        super().__init__()
        if len(layers) != len(temporal) or not layers:
            raise BadArgument(f"temporal: expected one entry for each of {len(layers)} layers, got {len(temporal)}")
        self.layers = nn.ModuleList(layers).requires_grad_(False)
        self.temporal = nn.ModuleList(nn.Identity() if layer is None else layer for layer in temporal)

    def images(self, x: Tensor) -> Tensor:
        """The image model. x: (n, c, h, w)."""
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """The video model. x: (b, c, f, h, w). known: for the temporal layers that take it."""
        b = len(video("x", x))
        for layer, temporal in zip(self.layers, self.temporal, strict=True):
            frames = layer(rearrange(x, "b c f h w -> (b f) c h w"))
            x = rearrange(frames, "(b f) c h w -> b c f h w", b=b)
            if isinstance(temporal, Aligned):
                x = temporal(x, known if temporal.context is not None else None)
        return x


def known_frames(latents: Tensor, frames: Sequence[int]) -> Tensor:
    """Condition of prediction and interpolation: known latents, zero elsewhere, and a channel of 1 where known.

    Args:
        latents: (b, c, f, h, w), of which the known frames are read.
        frames: indices of known frames: (0,) or (0, 1) for prediction, (0, f - 1) or every fourth for interpolation,
            none for generation; training draws among them, so that one model does all.

    Returns:
        (b, c + 1, f, h, w).
    """
    f = video("latents", latents).shape[2]
    mask = torch.zeros(f, dtype=latents.dtype, device=latents.device)
    if frames:
        mask[list(frame_indices(frames, f))] = 1
    mask = mask[:, None, None]
    held = torch.where(mask > 0, latents, torch.zeros_like(latents))  # not a product: 0 times NaN is no zero
    return torch.cat([held, mask.expand_as(latents[:, :1])], dim=1)


check_types(globals())
