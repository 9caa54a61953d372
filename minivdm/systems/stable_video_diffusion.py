"""Stable Video Diffusion: which clips to learn from, what to tell the network about them, and image to video.

Blattmann et al. 2023, "Stable video diffusion: scaling latent video diffusion models to large datasets". Clips from the
wild have hard cuts, stand still, or are cluttered; their section 3.1 finds cuts, scores motion by optical flow and
leaves the worst out. `dirty_set` spoils clips on purpose and remembers how, so that a filter can be held against the
truth. Flow is that of Lucas & Kanade (1981) for one motion of the whole frame, which is exact for a small shift.

Image to video: the first frame is a condition, with noise so that small faults of it do not matter, and in their
high-resolution model guidance grows linearly over frames, as later ones are further from it; our weight is their
scale - 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from minivdm.core.denoiser import Conditional, Denoise, both, schedule_of
from minivdm.core.gaussian import noise_like
from minivdm.core.schedules import Schedule
from minivdm.guards import BadArgument, check_types, finite, real, video, whole

CLEAN, CUT, STILL, CLUTTER = range(4)


class Dirty(NamedTuple):
    """videos: (b, c, f, h, w). fault: (b,) of CLEAN, CUT, STILL, CLUTTER. cut: (b,) first frame after a cut, or -1."""

    videos: Tensor
    fault: Tensor
    cut: Tensor


def dirty_set(videos: Tensor, share: float = 0.25, clutter: float = 0.5, seed: int = 0) -> Dirty:
    """Clips, of which a share each gets a hard cut to another clip, stands still, or is covered with noise.

    videos: (b, c, f, h, w) in [-1, 1], f at least 2. share: of each of the three faults, at most 1/3. clutter: standard
    deviation of the noise, the same in every frame.
    """
    b, _, f = video("videos", videos).shape[:3]
    real("share", share, 0, 1 / 3)
    real("clutter", clutter, 0)
    if f < 2 or b < 2:
        raise BadArgument(f"videos: expected at least 2 clips of 2 frames, got {tuple(videos.shape)}")
    generator = torch.Generator().manual_seed(whole("seed", seed, 0))
    made, count = videos.clone(), round(share * b)
    fault = torch.zeros(b, dtype=torch.long)
    order = torch.randperm(b, generator=generator)
    for kind in (CUT, STILL, CLUTTER):
        fault[order[(kind - 1) * count : kind * count]] = kind
    cut = torch.where(fault == CUT, torch.randint(1, f, (b,), generator=generator), -1)
    for i in range(b):
        if fault[i] == CUT:
            made[i, :, cut[i] :] = videos[i - 1, :, cut[i] :]
        elif fault[i] == STILL:
            made[i] = videos[i, :, :1]
        elif fault[i] == CLUTTER:
            noise = torch.randn(videos[i, :, :1].shape, generator=generator).to(videos)
            made[i] = (made[i] + clutter * noise).clamp(-1, 1)
    return Dirty(made, fault, cut)


def cuts(videos: Tensor, factor: float = 1.75) -> Tensor:
    """Where a clip is cut, (b, f - 1) bool: True where frame i + 1 is not what follows frame i.

    The change from frame to frame, mean |difference|, is compared with the median change of the clip; more than
    `factor` times that, and more than 1 % of the range, is a cut. Of digits at 0.9 pixels a frame on 32x32, 1.75 found
    18 of 24 cuts and kept 22 of 24 clean clips; at twice the speed neighbouring frames differ as much as strangers.
    """
    real("factor", factor, least=1)
    if finite("videos", video("videos", videos)).shape[2] < 3:
        raise BadArgument(f"videos: expected at least 3 frames, or no change is unusual, got {videos.shape[2]}")
    change = (videos[:, :, 1:] - videos[:, :, :-1]).abs().mean((1, 3, 4))  # b f-1
    usual = change.median(1, keepdim=True).values
    return (change > factor * usual) & (change > 0.02)


def flow(videos: Tensor) -> Tensor:
    """Motion of the whole frame, (b, f - 1, 2) in pixels (y, x), by least squares (Lucas & Kanade 1981).

    I_y v_y + I_x v_x = -I_t over all pixels, with slopes of the mean of both frames; 0 where nothing has a slope.
    """
    if video("videos", videos).shape[2] < 2 or min(videos.shape[3:]) < 3:
        raise BadArgument(f"videos: expected 2 frames or more of 3x3 or more, got {tuple(videos.shape)}")
    x = videos.double()
    mean = (x[:, :, 1:] + x[:, :, :-1]) / 2
    slope_y = (mean[..., 2:, 1:-1] - mean[..., :-2, 1:-1]) / 2
    slope_x = (mean[..., 1:-1, 2:] - mean[..., 1:-1, :-2]) / 2
    slope_t = (x[:, :, 1:] - x[:, :, :-1])[..., 1:-1, 1:-1]
    slopes = torch.stack([slope_y, slope_x], -1)  # b c f-1 h w 2
    gram = torch.einsum("bcfhwi,bcfhwj->bfij", slopes, slopes)
    right = -torch.einsum("bcfhwi,bcfhw->bfi", slopes, slope_t)
    return (torch.linalg.pinv(gram, hermitian=True) @ right[..., None])[..., 0].to(videos.dtype)


def motion_score(videos: Tensor) -> Tensor:
    """Mean length of the flow, (b,), pixels a frame: the amount of motion, also as a condition."""
    return flow(videos).norm(dim=-1).mean(1)


def roughness(videos: Tensor) -> Tensor:
    """How little neighbouring pixels have in common, (b,): half their mean squared difference over the variance.

    1 for white noise, near 0 for a smooth picture; 0 where nothing varies. Digits of 32x32 pixels have 0.15 to 0.55.
    """
    x = finite("videos", video("videos", videos)).double()
    steps = [(x.narrow(d, 1, x.shape[d] - 1) - x.narrow(d, 0, x.shape[d] - 1)).square().flatten(1) for d in (3, 4)]
    variance = x.flatten(1).var(1, correction=0)
    return (torch.cat(steps, 1).mean(1) / (2 * variance).clamp(min=1e-12)).to(videos.dtype)


def keep(
    videos: Tensor, least_motion: float = 0.1, factor: float = 1.75, most_roughness: float | None = 0.57
) -> Tensor:
    """Which clips a filter keeps, (b,) bool: no cut, at least this much motion, no clutter (None: whatever there is).

    Each fault wants its own test. What none of them sees is kept, and has a larger share after the others than before.
    """
    kept = ~cuts(videos, factor).any(1) & (motion_score(videos) >= real("least_motion", least_motion, 0))
    return kept if most_roughness is None else kept & (roughness(videos) <= real("most_roughness", most_roughness, 0))


def growing(first: float, last: float, frames: int) -> Tensor:
    """Guidance weights (frames,), linear over frames: theirs is a scale of 1 to 2.5 for 14 frames, so w of 0 to 1.5."""
    return torch.linspace(real("first", first, 0), real("last", last, 0), whole("frames", frames))


class GrowingGuidance:
    """x_hat_f = x_hat_f(given) + w_f (x_hat_f(given) - x_hat_f(without)), one weight a frame.

    given, without: denoisers of videos (b, c, f, h, w). weights: (f,), none below 0.
    """

    def __init__(self, given: Denoise, without: Denoise, weights: Tensor) -> None:
        if weights.ndim != 1 or not bool((weights >= 0).all()):
            raise BadArgument(f"weights: expected (f,) numbers of at least 0, got {weights}")
        self.given, self.without, self.weights = given, without, weights

    @property
    def schedule(self) -> Schedule:
        """Of the guided denoiser."""
        return schedule_of(self.given)

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        if video("z", z).shape[2] != len(self.weights):
            raise BadArgument(f"weights: expected one for each of {z.shape[2]} frames, got {len(self.weights)}")
        wanted, other = both(self.given, self.without, z, t)
        return wanted + self.weights.to(z)[:, None, None] * (wanted - other)


def first_frame(
    latents: Tensor, log_sigma: tuple[float, float] | None = (-3.0, 0.5), generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The first frame, with noise, at every frame: a condition (b, c, f, h, w) to be concatenated, and sigma (b,).

    log_sigma: mean and standard deviation of log sigma, of training (their appendix D); None for sampling's 0.02.
    """
    b, _, f = video("latents", latents).shape[:3]
    if log_sigma is None:
        sigma = torch.full((b,), 0.02)
    else:
        mean, spread = real("log_sigma", log_sigma[0]), real("log_sigma", log_sigma[1], 0)
        sigma = (mean + spread * torch.randn(b, generator=generator)).exp()
    first = latents[:, :, :1]
    noisy = first + sigma.to(first)[:, None, None, None, None] * noise_like(first, generator)
    return noisy.expand(-1, -1, f, -1, -1), sigma


def image_to_video(model: Conditional, first: Tensor, weights: Tensor, name: str = "estimate") -> GrowingGuidance:
    """A model that takes the first frame as condition `name`, guided more in later frames. first: (b, c, f, h, w)."""
    return GrowingGuidance(model.given(**{name: first}), model.given(None), weights)


check_types(globals())
