"""Guidance away from weaker answers: autoguidance, and frames that are taken for clips by themselves.

Classifier-free guidance moves away from what the network says without the condition. Whatever else says the same, but
worse, will do as well: then guidance moves towards what the better answer knows and the weaker one does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from minivdm.core.denoiser import Conditional, Denoise, both, schedule_of
from minivdm.core.gaussian import expand
from minivdm.core.guidance import Guided
from minivdm.core.schedules import Schedule
from minivdm.guards import BadArgument, check_types, real, video


class Weaker(NamedTuple):
    """A weaker answer, the weight w >= 0 of moving away from it, and between which two log-SNR alone that is done
    (Kynkaanniemi et al. 2024); elsewhere it is not asked."""

    denoise: Denoise
    weight: float
    interval: tuple[float, float] = (-math.inf, math.inf)


def as_weaker(entry: object) -> Weaker:
    """From a tuple of these. Raises BadArgument, BadType."""
    if not isinstance(entry, tuple) or len(entry) not in (2, 3):
        raise BadArgument(f"weaker: expected a denoiser, its weight and possibly an interval, got {entry!r}")
    found = Weaker(entry[0], real("weaker", entry[1], least=0), *entry[2:])
    schedule_of(found.denoise)
    if not found.interval[0] <= found.interval[1]:
        raise BadArgument(f"weaker: expected an interval of two log-SNR, the lower first, got {found.interval}")
    return found


def away_from(denoise: Denoise, *weaker: tuple[Denoise, float] | Weaker) -> Guided:
    """x_hat + sum over i of w_i (x_hat - x_hat_i): guided away from several weaker answers at once, each by its weight.

    With the unconditional denoiser alone it is `classifier_free`; with a worse network, autoguidance (Karras et al.
    2024, "Guiding a diffusion model with a bad version of itself"); with `FramesApart`, guidance towards frames that
    belong together. Each further one costs a call, but that conditions of one network share a batch.
    """
    schedule, others = schedule_of(denoise), [as_weaker(entry) for entry in weaker]
    if not others:
        raise BadArgument("weaker: expected at least one pair of a denoiser and its weight, got none")

    def guided(z: Tensor, t: Tensor | float) -> Tensor:
        log_snr = schedule.log_snr(t)
        inside = [(other, (log_snr >= low) & (log_snr <= high)) for other in others for low, high in [other.interval]]
        asked = [(other, where) for other, where in inside if where.any()]
        if not asked:
            return denoise(z, t)
        x_hat, first = both(denoise, asked[0][0].denoise, z, t)
        total = x_hat
        for number, (other, where) in enumerate(asked):
            worse = other.denoise(z, t) if number else first
            if worse.shape != x_hat.shape:
                raise BadArgument(f"weaker: expected x_hat of shape {tuple(x_hat.shape)}, got {tuple(worse.shape)}")
            total = total + expand(other.weight * where.double(), z) * (x_hat - worse)
        return total

    return Guided(guided, schedule)


@dataclass(frozen=True)
class FramesApart:
    """The same denoiser, shown each frame as if it were a clip by itself: temporal attention sees no other frame.

    What it lacks is what frames know of each other, so guidance away from it strengthens that: the content that all
    frames share. Esser et al. 2023 ("Structure and content-guided video synthesis") guide so from the image model that
    their network, as VDM's, is as well; Hyung et al. 2025 ("Spatiotemporal skip guidance") from one never trained so.

    conditions: as for `denoise.given`.
    """

    denoise: Conditional
    conditions: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        self.denoise.given(**self.conditions, frame_mask=torch.ones(1, 1, dtype=torch.bool))  # is there such a mask?

    @property
    def schedule(self) -> Schedule:
        """That of the denoiser."""
        return self.denoise.schedule

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        apart = torch.eye(video("z", z).shape[2], dtype=torch.bool, device=z.device)  # f f
        return self.denoise.given(**self.conditions, frame_mask=apart)(z, t)


check_types(globals())
