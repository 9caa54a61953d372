"""One clip of which something is known: the block of which extension, interpolation and upscaling are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from minivdm.core.denoiser import Denoise, schedule_of
from minivdm.core.gaussian import noise_like
from minivdm.core.guidance import Replacement, reconstruction
from minivdm.core.observe import BadObservation, Frames, Observe, Several
from minivdm.core.samplers import Sampling, SamplingFields, sample
from minivdm.guards import BadArgument, BadType, check_types, one_of, real
from minivdm.tasks.conditions import guided
from minivdm.tasks.generation import clip_shape
from minivdm.tasks.observations import Observations, check, pairs
from minivdm.tasks.orders import TooManyObserved

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RestorationFields(SamplingFields, total=False):
    """The fields of `RestorationSampling` but for `steps`, as keywords."""

    method: Literal["reconstruction", "replacement"]
    reconstruction_weight: float
    variance: Literal["vdm", "pigdm"]
    draw: Literal["fresh", "posterior"]


@dataclass(frozen=True)
class RestorationSampling(Sampling):
    """How a clip is sampled, and held to what is known of it.

    method: "reconstruction", guidance together with replacement of known frames, as VDM uses it; or "replacement"
        alone, for frames.
    reconstruction_weight: w_r >= 0. variance: of x^a given z_t, "vdm" or "pigdm" (see guidance.reconstruction).
    draw: "fresh" or "posterior" (see guidance.Replacement).
    clip: as for Sampling, here also the range that observed values have to lie in; None for data without one.
    """

    clip: tuple[float, float] | None = (-1.0, 1.0)
    method: Literal["reconstruction", "replacement"] = "reconstruction"
    reconstruction_weight: float = 2.0
    variance: Literal["vdm", "pigdm"] = "vdm"
    draw: Literal["fresh", "posterior"] = "fresh"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("method", self.method, ("reconstruction", "replacement"))
        one_of("variance", self.variance, ("vdm", "pigdm"))
        one_of("draw", self.draw, ("fresh", "posterior"))
        real("reconstruction_weight", self.reconstruction_weight, least=0)


class Problem(NamedTuple):
    """A clip to be restored, checked. denoise: with its labels. known: indices of whole frames, and these."""

    denoise: Denoise
    how: RestorationSampling
    shape: tuple[int, int, int, int, int]
    observe: Observe
    observed: Tensor
    known: tuple[list[int], Tensor] | None


def pose(
    denoise: Denoise,
    observations: Observations,
    shape: tuple[int, ...] | None,
    how: RestorationSampling,
    labels: Tensor | None = None,
    weight: float = 0.0,
    temporal_weight: float = 0.0,
) -> Problem:
    """The problem that `solve` solves. Raises, before anything is sampled, all that `restore` raises."""
    c, f, h, w = clip_shape(denoise, shape)
    known_of = pairs(observations)
    frames = [frame for observe, _ in known_of if isinstance(observe, Frames) for frame in observe.frames]
    if len(frames) >= f:
        raise TooManyObserved(
            f"expected fewer observed frames than the {f} of the clip, got {len(frames)} observed ones"
        )
    for observe, value in known_of:
        if how.method == "replacement" and not isinstance(observe, Frames):
            raise BadObservation("method: replacement can put in whole frames alone; reconstruction observes the rest")
        check(value, observe, (c, f, h, w), how.clip, gradient=not isinstance(observe, Frames))
    b = max(len(value) for _, value in known_of)
    if any(len(value) not in (1, b) for _, value in known_of):
        raise BadObservation(
            f"observations: expected 1 or {b} samples in each, got {[len(value) for _, value in known_of]}"
        )
    known = None
    if frames:
        given = [value.expand(b, -1, -1, -1, -1) for observe, value in known_of if isinstance(observe, Frames)]
        if len(set(frames)) < len(frames):
            raise BadObservation(f"observations: expected each frame once, got {frames}")
        known = frames, torch.cat(given, dim=2)
    if len(known_of) == 1:
        observe, observed = known_of[0]
    else:
        several = Several(*(observe for observe, _ in known_of))
        observe, observed = several, several.join(*(value for _, value in known_of))
    how.times(schedule_of(denoise))
    # Without self-conditioning: what the network takes over from its last estimate it no longer reads off z, and the
    # gradient with respect to z, on which guidance rests, gets weak. (Upscaling lost 3 dB by it.)
    asked = guided(denoise, labels, weight, temporal_weight=temporal_weight, self_conditioned=False)
    return Problem(asked, how, (b, c, f, h, w), observe, observed, known)


def solve(
    problem: Problem,
    generator: torch.Generator | None = None,
    callback: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """A clip (b, c, f, h, w) that agrees with what is known, sampled."""
    denoise, how, shape, observe, observed, known = problem
    schedule = denoise.schedule
    project = None
    if known is not None:
        project = Replacement(known[1], schedule, known[0], how.draw, generator)
    if how.method == "reconstruction":
        denoise = reconstruction(denoise, observed, how.reconstruction_weight, observe, how.variance)
    noise = noise_like(observed.new_empty(shape), generator) * schedule.prior_std(how.times(schedule)[0])
    sampling = Sampling(how.steps, how.step, how.grid, how.corrector, how.final, how.clip)
    return sample(denoise, noise, sampling=sampling, project=project, callback=callback, generator=generator)


@torch.no_grad()
def restore(
    denoise: Denoise,
    observations: Observations,
    shape: tuple[int, ...] | None = None,
    *,
    labels: Tensor | None = None,
    weight: float = 0.0,
    temporal_weight: float = 0.0,
    steps: int | None = None,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
    **named: Unpack[RestorationFields],
) -> Tensor:
    """One clip (b, c, f, h, w) of which something is known.

    Args:
        denoise: a trained Denoiser, an exact or a guided one; with labels it needs `.given`.
        observations: pairs of an operator and what it saw of the clip, (b or 1, ...), such as
            `[(Frames(range(8)), video[:, :, :8]), (Downsample(2), small)]`; see `minivdm.core.observe`. Of `Frames`,
            z^a is replaced by draws from q(z^a | x^a) at every level as well.
        shape: (c, f, h, w), by default what the weights were trained on.
        labels, weight, temporal_weight: as for `generate`.
        steps: and by name step, grid, corrector, final, clip, method, reconstruction_weight, variance, draw: the fields
            of `RestorationSampling`, or `sampling`, one of these with some of them replaced.
        generator: of all random draws.

    Raises:
        BadObservation, NotDifferentiable, TooManyObserved, BadArgument: before anything is sampled.
    """
    how = RestorationSampling.of(sampling, steps, **named)
    return solve(pose(denoise, observations, shape, how, labels, weight, temporal_weight), generator)


def placed(denoise: Denoise, video: Tensor, name: str = "video") -> Tensor:
    """The video where the denoiser's weights are; raises BadObservation for what is no video."""
    if not isinstance(video, Tensor):
        raise BadType(f"{name}: expected a tensor (b, c, f, h, w), got {type(video).__name__}")
    if video.ndim != 5 or 0 in video.shape:
        raise BadObservation(f"{name}: expected (b, c, f, h, w), none of them 0, got shape {tuple(video.shape)}")
    if not video.is_floating_point():
        raise BadObservation(f"{name}: expected floating-point values in [-1, 1], got {video.dtype}")
    if isinstance(denoise, nn.Module):
        video = video.to(next(denoise.parameters()).device)
    return video


def window_of(denoise: Denoise, window: int | None) -> int:
    """How many frames the denoiser holds: `window`, or as many as it was trained on."""
    if window is None and getattr(denoise, "shape", None) is not None:
        window = clip_shape(denoise, None)[1]
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise BadArgument(f"window: expected how many frames the denoiser holds at once, got {window}")
    return window


check_types(globals())
