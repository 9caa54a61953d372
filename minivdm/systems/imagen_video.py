"""A cascade: a base model makes a small clip, others make it longer and larger, each given what the last one made.

Ho et al. 2022, "Imagen Video: high definition video generation with diffusion models"; Ho et al. 2021, "Cascaded
diffusion models". Here a base of 8 frames of 16x16, temporal super-resolution (TSR) to 16 of 16x16, and spatial
super-resolution (SSR) to 16 of 32x32. Each stage is a `Denoiser` whose network takes labels (or text), and the clip of
the stage before as `low`, at its own size, with that clip's log-SNR as `low_log_snr`.

A later stage learns from clips of the data, and works on clips that a network made. Noise-conditioning augmentation
hides the difference: `low` is noised, in training to all levels, in sampling to one (Ho et al. 2021, section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minivdm.core.denoiser import Denoise, Denoiser, Loss
from minivdm.core.gaussian import noise_like
from minivdm.core.observe import Downsample
from minivdm.core.schedules import CosineSchedule
from minivdm.guards import BadArgument, check_types, floating, real, video, whole
from minivdm.networks.unet3d import UNet3D
from minivdm.systems.imagen_guidance import Guide, oscillating, sampled, thresholded_from  # noqa: F401
from minivdm.training import stages as weights

LOG_SNR = (-4.0, 8.0)  # of the condition in training, even between these
AT_SAMPLING = math.log(5.0)  # Imagen Video, section 2.4: a signal-to-noise ratio of 3 or 5

#: The networks of the small cascade of lesson 14. The single model has nearly as many weights as its three stages.
SMALL = dict(width=32, multipliers=(1, 2), labels=10, blocks=1, middle=1, spatial=(False, True), embedding=64)
NETWORKS: dict[str, dict[str, Any]] = {
    "base": {**SMALL, "patch": 1, "temporal": (True, True)},
    "tsr": {**SMALL, "patch": 2, "temporal": (True, True), "low": 1},
    "ssr": {**SMALL, "patch": 2, "temporal": (False, True), "low": 1},
    "single": {**SMALL, "patch": 2, "multipliers": (1, 2, 3), "spatial": (False, True, True), "temporal": (True,) * 3},
}
STAGES = ("base", "tsr", "ssr")
OF = {"tsr": (1, 8, 16, 16), "ssr": (1, 16, 16, 16)}  # what they go on from
SHAPES = {"base": (1, 8, 16, 16), "tsr": (1, 16, 16, 16), "ssr": (1, 16, 32, 32), "single": (1, 16, 32, 32)}


@dataclass(frozen=True)
class Stage:
    """One model of a cascade. denoiser: its network takes `low` unless it is the first. shape: (c, f, h, w) of what it
    makes. name: for errors and pictures. of: the shape of the clips that it was trained to go on from, if others are to
    be refused."""

    denoiser: Denoiser
    shape: tuple[int, int, int, int]
    name: str = ""
    of: tuple[int, int, int, int] | None = None


def shrunk(x: Tensor, every: int = 1, space: int = 1) -> Tensor:
    """What the stage before would have made of x (b, c, f, h, w): each `every`-th frame, means of space x space."""
    video("x", x)
    whole("every", every)
    if x.shape[3] % whole("space", space) or x.shape[4] % space or x.shape[2] % every:
        raise BadArgument(f"x: expected multiples of every={every}, space={space}, got shape {tuple(x.shape)}")
    return Downsample(space, every)(x)


def resized(low: Tensor, shape: Sequence[int]) -> Tensor:
    """`low` (b, c, f, h, w) at another stage's (c, F, H, W): frames repeated, pixels bilinear. (b, c, F, H, W).

    Imagen Video, section 2.2: spatial stages see the clip bilinearly resized, temporal ones its frames repeated.
    """
    video("low", low)
    c, frames, height, width = shape
    b, channels, f, h, w = low.shape
    if c != channels or frames % f or height % h or width % w:
        raise BadArgument(
            f"low: expected a smaller clip, of which {tuple(shape)} is a multiple, got shape {tuple(low.shape)}"
        )
    longer = low.repeat_interleave(frames // f, dim=2)
    if (height, width) == (h, w):
        return longer
    flat = longer.transpose(1, 2).flatten(0, 1)  # (b f) c h w
    flat = F.interpolate(flat, size=(height, width), mode="bilinear", align_corners=False)
    return flat.unflatten(0, (b, frames)).transpose(1, 2)


def augmented(
    low: Tensor, log_snr: Tensor | float, generator: torch.Generator | None = None, noise: Tensor | None = None
) -> Tensor:
    """y = alpha_s low + sigma_s eps at a log-SNR (scalar or (b,)), variance preserving; infinite: low itself.

    noise: eps, drawn where None.
    """
    level = torch.as_tensor(log_snr, dtype=torch.float64)
    if level.ndim > 1 or level.numel() not in (1, len(floating("low", low))):
        raise BadArgument(f"log_snr: expected a scalar or shape ({len(low)},), got {tuple(level.shape)}")
    alpha, sigma = ((sign * level).sigmoid().sqrt().to(low).reshape(-1, *[1] * (low.ndim - 1)) for sign in (1, -1))
    return alpha * low + sigma * (noise_like(low, generator) if noise is None else noise)


def stage_loss(
    denoiser: Denoiser,
    x: Tensor,
    low: Tensor,
    *,
    augment: bool = True,
    log_snr: tuple[float, float] = LOG_SNR,
    generator: torch.Generator | None = None,
    **named: Any,
) -> Loss:
    """The loss of a super-resolution stage on clips x (b, c, f, h, w) of the data and their smaller selves.

    augment: noise `low` to a log-SNR of its own for each clip, even between `log_snr`; False is the plain cascade,
    which is told no level. named: `labels`, `label_drop` and whatever else `Denoiser.loss` takes.
    """
    condition = resized(low, x.shape[1:])
    if augment:
        where = generator.device if generator is not None else x.device
        u = torch.rand(len(x), generator=generator, device=where).to(x)
        level = log_snr[0] + (log_snr[1] - log_snr[0]) * u  # (b,)
        named["low_log_snr"], condition = level, augmented(condition, level, generator)
    return denoiser.loss(x, low=condition, generator=generator, **named)


@torch.no_grad()
def make_larger(
    stage: Stage,
    low: Tensor,
    labels: Tensor | None = None,
    *,
    low_log_snr: float | None = AT_SAMPLING,
    generator: torch.Generator | None = None,
    guide: Guide | None = None,
    **options: Any,
) -> Tensor:
    """What a later stage makes of a clip, (b, *stage.shape).

    low: (b, c, f, h, w), smaller than the stage's shape. low_log_snr: to which `low` is noised, and which the network
    is told; None neither noises nor tells. options: of `tasks.generate`, such as weight and steps.
    """
    check_stage(stage, first=False)
    fits(stage, tuple(low.shape[1:]))
    condition = resized(low, stage.shape)
    bound: dict[str, Tensor] = {}
    if low_log_snr is not None:
        condition = augmented(condition, real("low_log_snr", low_log_snr), generator)
        bound["low_log_snr"] = torch.full((len(low),), float(low_log_snr), device=low.device)
    # Guidance is by labels and text alone: the clip of the stage before stays in both terms.
    bound["low"] = condition
    return sampled(Bound(stage.denoiser, bound), labels, len(low), stage.shape, generator, guide, **options)


@torch.no_grad()
def cascade(
    stages: Sequence[Stage],
    labels: Tensor | None = None,
    *,
    low_log_snr: float | None = AT_SAMPLING,
    generator: torch.Generator | None = None,
    guide: Guide | Sequence[Guide | None] | None = None,
    **options: Any,
) -> list[Tensor]:
    """The clips of all stages, first to last, from labels (b, n); from text with `conditions={"text": tokens}`.

    Every stage is told the labels. options: of `tasks.generate`, the same for every stage. guide: in place of a weight,
    for all stages or one for each. Imagen Video thresholds every answer and lets the weight oscillate in the first
    stages alone:

        strong = lambda told, free, times: thresholded_from(oscillating(told, free, times))
        cascade(stages, labels, guide=(strong, strong, None))

    Raises BadArgument, before anything is sampled, for stages that do not fit behind each other.
    """
    if not stages:
        raise BadArgument("stages: expected at least one, got none")
    for number, stage in enumerate(stages):
        check_stage(stage, first=number == 0)
    for before, after in zip(stages, stages[1:], strict=False):
        fits(after, before.shape)
        resized(torch.zeros(1, *before.shape), after.shape)
    guides = list(guide) if isinstance(guide, Sequence) else [guide] * len(stages)
    if len(guides) != len(stages):
        raise BadArgument(f"guide: expected one, or one for each of {len(stages)} stages, got {len(guides)}")
    count = options.pop("count", None if labels is None else len(labels))
    made = [sampled(stages[0].denoiser, labels, count, stages[0].shape, generator, guides[0], **options)]
    for stage, how in zip(stages[1:], guides[1:], strict=True):
        low = made[-1].clamp(-1, 1)
        larger = make_larger(stage, low, labels, low_log_snr=low_log_snr, generator=generator, guide=how, **options)
        made.append(larger)
    return made


def load_stages(
    source: str | Path = "cascade-32",
    names: Sequence[str] = STAGES,
    device: str | torch.device = "cpu",
    folder: Path | None = None,
) -> list[Stage]:
    """The trained stages of these names. MissingStage, a BadArgument, where one of them has no weights."""
    found, made = weights.read(source, names, "benchmarks/train_cascade.py", folder), []
    for name in names:
        network = UNet3D(**found[name].config)
        network.load_state_dict(found[name].tensors)
        denoiser = Denoiser(network.to(device).eval().requires_grad_(False), CosineSchedule(), "v", bounds=(-1, 1))
        kind = name.split("-")[0]
        made.append(Stage(denoiser, SHAPES[kind], name, OF.get(kind)))
    return made


def check_stage(stage: Stage, first: bool) -> None:
    """A first stage is given no clip, a later one is."""
    if not isinstance(stage, Stage):
        raise BadArgument(f"stage: expected a Stage, got {type(stage).__name__}")
    takes = bool(getattr(stage.denoiser.network, "config", {}).get("low"))
    if takes == first:
        wanted = "built without low, as nothing comes before it" if first else "that takes low, such as UNet3D(low=1)"
        raise BadArgument(f"stage {stage.name!r}: expected a network {wanted}")


def fits(stage: Stage, shape: Sequence[int]) -> None:
    """Raises BadArgument where a stage goes on from clips of another shape than (c, f, h, w)."""
    if stage.of is not None and tuple(shape) != stage.of:
        raise BadArgument(f"low: expected clips {stage.of} for the stage {stage.name!r}, got {tuple(shape)}")


class Bound(torch.nn.Module):
    """A denoiser some of whose conditions are bound for good, whatever else it is given or not given."""

    def __init__(self, denoiser: Denoiser, conditions: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.denoiser, self.conditions, self.schedule = denoiser, dict(conditions), denoiser.schedule
        self.network = denoiser.network

    def forward(self, z: Tensor, t: Tensor | float) -> Tensor:
        return self.denoiser(z, t, **self.conditions)

    def given(self, labels: Tensor | None = None, **conditions: Tensor | None) -> Denoise:
        """The same, with further conditions."""
        return self.denoiser.given(labels, **{**conditions, **self.conditions})


check_types(globals())
