"""Guidance away from weaker answers: autoguidance, and frames that are taken for clips by themselves.

Classifier-free guidance moves away from what the network says without the condition. Whatever else says the same, but
worse, will do as well: then guidance moves towards what the better answer knows and the weaker one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from minivdm.core.denoiser import Conditional, Denoise, both, schedule_of
from minivdm.core.guidance import Guided
from minivdm.core.schedules import Schedule
from minivdm.guards import BadArgument, check_types, real, video


def away_from(denoise: Denoise, *weaker: tuple[Denoise, float]) -> Guided:
    """x_hat + sum over i of w_i (x_hat - x_hat_i): guided away from several weaker answers at once, each by its weight.

    With the unconditional denoiser alone it is `classifier_free`; with a worse network, autoguidance (Karras et al.
    2024, "Guiding a diffusion model with a bad version of itself"); with `FramesApart`, guidance towards frames that
    belong together. Each further one costs a call, but that conditions of one network share a batch.

    weaker: pairs of a denoiser and its weight w_i >= 0.
    """
    if not weaker or any(not isinstance(pair, tuple) or len(pair) != 2 for pair in weaker):
        raise BadArgument(f"weaker: expected at least one pair of a denoiser and its weight, got {weaker!r}")
    schedule, weights = schedule_of(denoise), [real("weaker", weight, least=0) for _, weight in weaker]
    for other, _ in weaker:
        schedule_of(other)

    def guided(z: Tensor, t: Tensor | float) -> Tensor:
        x_hat, first = both(denoise, weaker[0][0], z, t)
        total = x_hat
        for weight, (other, _) in zip(weights, weaker, strict=True):
            worse = first if other is weaker[0][0] else other(z, t)
            if worse.shape != x_hat.shape:
                raise BadArgument(f"weaker: expected x_hat of shape {tuple(x_hat.shape)}, got {tuple(worse.shape)}")
            total = total + weight * (x_hat - worse)
        return total

    return Guided(guided, schedule)


@dataclass(frozen=True)
class FramesApart:
    """The same denoiser, shown each frame as if it were a clip by itself: temporal attention sees no other frame.

    What it lacks is what frames know of each other, so guidance away from it strengthens that: the content that all
    frames share. Esser et al. 2023 ("Structure and content-guided video synthesis") guide in this way from the image
    model, which their network, as VDM's, is as well after training on both; Hyung et al. 2025 ("Spatiotemporal skip
    guidance") find that it works where the network was never trained so.

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
