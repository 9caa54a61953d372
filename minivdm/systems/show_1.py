r"""Show-1: pixels decide what a clip shows, latents how it looks in high resolution.

Zhang et al. 2023, "Show-1: Marrying pixel and latent diffusion models for text-to-video generation". A diffusion model
of few pixels obeys a text well, as no code stands between it and what it draws; one of latents is cheap where frames
are large. So a pixel model makes a small clip, and a latent model makes the enlarged clip anew in part, which they call
*expert translation*: encode, add noise up to a time t, denoise from there (`tasks.sdedit`), decode.

    z_t = alpha_t E(enlarged) + sigma_t eps,   clip = D(what the latent model makes of z_t)

The *strength* t says how much is made anew. At 0 the enlarged clip stays as it is, as far as the tokenizer lets it; at
1 it is forgotten. In between the latent model repairs what it knows to be wrong and keeps the rest. In the Gaussian
video both sides of that are formulas (`translated`).

Their pixel stages are three, key frames, interpolation and a first super-resolution, as in a cascade
(`imagen_video`); here one small network makes all frames at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from minivdm.core import samplers
from minivdm.core.denoiser import Denoiser
from minivdm.core.schedules import Schedule
from minivdm.exact.gaussian_video import GaussianVideo
from minivdm.exact.laws import Law
from minivdm.guards import BadArgument, check_types, real, video, whole
from minivdm.systems.latent_diffusion import LatentDiffusion
from minivdm.tasks.conditions import guided
from minivdm.tasks.editing import sdedit
from minivdm.tasks.generation import generate


class Made(NamedTuple):
    """The clip of the pixel model, the same enlarged, and what the latent model made of it, all (b, c, f, h, w)."""

    small: Tensor
    enlarged: Tensor
    clip: Tensor


def enlarged(videos: Tensor, factor: int) -> Tensor:
    """Frames `factor` times as high and wide, bilinear."""
    factor = whole("factor", factor)
    return functional.interpolate(video("videos", videos), scale_factor=(1, factor, factor), mode="trilinear")


@torch.no_grad()
def translate(
    model: LatentDiffusion,
    videos: Tensor,
    labels: Tensor | None = None,
    *,
    strength: float = 0.5,
    weight: float = 0.0,
    steps: int = 24,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Clips (b, c, f, h, w) made anew in part by a latent model, in [-1, 1].

    Args:
        model: of clips of this shape.
        videos: such as an enlarged clip; whatever is wrong with it should be less than the noise of that time.
        labels: (b, n), as the pixel model had them.
        strength: t of the noise, in [0, 1]; at 0 the clips are encoded and decoded, and nothing else.
        weight: of the guidance towards labels.
        steps: of DDIM, from there to 0.
        generator: of the noise.
    """
    if tuple(video("videos", videos).shape[1:]) != tuple(model.shape):
        raise BadArgument(f"videos: expected (b, {model.shape}), got {tuple(videos.shape)}")
    latents = model.tokenizer.encode(videos)
    if real("strength", strength, 0, 1) > 0:
        wanted = guided(model.denoiser, labels, weight)
        latents = sdedit(wanted, latents, strength, steps, generator=generator)
    return model.tokenizer.decode(latents)


def show_1(
    pixels: Denoiser,
    latent: LatentDiffusion,
    labels: Tensor | None = None,
    *,
    strength: float = 0.5,
    weight: float = 0.0,
    steps: int = 24,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Made:
    """Clips by both: pixels at a whole fraction of the latent model's size, then `translate`.

    options: for `tasks.generate` of the pixel model, by name; it makes as many frames as the latent model's clips have.
    """
    c, f, h, w = latent.shape
    rows, columns = getattr(pixels, "shape", (c, f, h, w))[2:]
    if h % rows or w % columns or h // rows != w // columns:
        raise BadArgument(f"pixels: expected clips of a whole fraction of {h}x{w} pixels, got {rows}x{columns}")
    shape = (c, f, rows, columns)
    small = generate(pixels, labels, shape=shape, weight=weight, generator=generator, **options).clamp(-1, 1)
    large = enlarged(small, h // rows)
    how: dict[str, Any] = dict(strength=strength, weight=weight, steps=steps, generator=generator)
    return Made(small, large, translate(latent, large, labels, **how))


class Translated(NamedTuple):
    """law: of what comes out. moved: E|out - in|^2 per value."""

    law: Law
    moved: float


def translated(world: GaussianVideo, base: Law, schedule: Schedule, strength: float, steps: int = 64) -> Translated:
    """What SDEdit with the exact denoiser makes of x ~ base, another Gaussian law than the world's.

    DDIM is an affine map here, out = A z + c, so out = alpha A x + sigma A eps + c.
    """
    d = len(world.covariance)
    t = real("strength", strength, 0, 1)
    if t == 0:
        return Translated(base, 0.0)
    times = t * samplers.uniform_in_t(steps, schedule)
    probes = torch.cat([torch.zeros(1, d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)])
    ends = samplers.sample(world.denoiser(schedule), probes.view(d + 1, *world.shape), grid=times).flatten(1)
    offset, matrix = ends[0], (ends[1:] - ends[0]).T
    alpha, sigma = float(schedule.alpha(times[0])), float(schedule.sigma(times[0]))
    keep, noise = alpha * matrix, sigma**2 * matrix @ matrix.T
    law = Law(keep @ base.mean + offset, keep @ base.covariance @ keep.T + noise)
    change = keep - torch.eye(d, dtype=torch.float64)
    moved = (change @ base.mean + offset).square().sum() + (change @ base.covariance @ change.T + noise).trace()
    return Translated(law, float(moved) / d)


check_types(globals())
