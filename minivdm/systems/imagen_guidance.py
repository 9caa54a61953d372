"""What Imagen Video adds to guidance: thresholds that leave the background alone, and a weight that oscillates.

Ho et al. 2022, "Imagen Video: high definition video generation with diffusion models", sections 2.5 and 2.6. Both are
denoisers made of denoisers, and are put into each other: `thresholded_from(oscillating(told, free, times))`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minivdm import tasks
from minivdm.core import samplers
from minivdm.core.denoiser import Conditional, Denoise, schedule_of
from minivdm.core.guidance import Guided, classifier_free, dynamically_thresholded
from minivdm.core.samplers import Sampling
from minivdm.core.schedules import as_time
from minivdm.guards import BadArgument, check_types, floating, real, whole

#: (denoiser with labels, without, the sampler's times) -> the denoiser to sample with.
Guide = Callable[[Denoise, Denoise, Tensor], Denoise]


def thresholded_from(denoise: Denoise, floor: float = -1.0, quantile: float = 0.995) -> Guided:
    """Dynamic thresholding that leaves the background where it is: x_hat - floor, not x_hat, is clipped and divided.

    `core.dynamically_thresholded` (Saharia et al. 2022, section 2.3) divides by m = max(1, a quantile of |x_hat|): a
    background of exactly -1 becomes -1/m, a grey. Here m = max(1, a quantile of (x_hat - floor) / (1 - floor)), and
    values below the floor are set to it. A step derives eps_hat anew from what this returns, as it has to.
    """
    real("floor", floor, most=1)
    schedule = schedule_of(denoise)
    height = Guided(lambda z, t: (denoise(z, t) - floor).clamp(min=0) / (1 - floor), schedule)
    thresholded = dynamically_thresholded(height, quantile)
    return Guided(lambda z, t: floor + (1 - floor) * thresholded(z, t), schedule)


def oscillating(
    conditional: Denoise,
    unconditional: Denoise,
    times: Tensor,
    weights: tuple[float, float] = (15.0, 1.0),
    constant: int = 1,
) -> Guided:
    """Guidance whose weight alternates from step to step (Imagen Video, section 2.5): strong, then weak, in turn.

    times: (n + 1,), falling, of the sampler's grid. weights: w, strong and weak, as in (1 + w) eps_c - w eps; a weak
    weight of 1 still guides. constant: the first steps, all of them strong.
    """
    grid = floating("times", times).flatten().double()
    if len(grid) < 2 or not bool((grid.diff() < 0).all()):
        raise BadArgument("times: expected two or more that fall")
    whole("constant", constant, least=0)
    strong, weak = (classifier_free(conditional, unconditional, w) for w in weights)

    def guided(z: Tensor, t: Tensor | float) -> Tensor:
        step = int((grid - as_time(t).flatten()[0].double().to(grid)).abs().argmin())
        return (strong if step < constant or (step - constant) % 2 == 1 else weak)(z, t)

    return Guided(guided, schedule_of(conditional))


def sampled(
    denoiser: Conditional,
    labels: Tensor | None,
    count: int | None,
    shape: tuple[int, int, int, int],
    generator: torch.Generator | None = None,
    guide: Guide | None = None,
    **options: Any,
) -> Tensor:
    """Clips (count, *shape) as `tasks.generate` makes them, or sampled with what a guide makes of the denoiser.

    Raises BadArgument for a guide beside a weight, which would be guidance twice.
    """
    if guide is None:
        return tasks.generate(
            denoiser, labels, count=count, shape=shape, generator=generator, **options
        )  # labels may be None
    if options.pop("weight", 0.0):
        raise BadArgument("weight: expected none beside a guide, which has weights of its own, got one")
    conditions = dict(options.pop("conditions", None) or {})
    how = Sampling.of(options.pop("sampling", None), options.pop("steps", None), **options)
    given = [len(value) for value in (labels, *conditions.values()) if value is not None]
    rows = count if count is not None else max(given, default=1)
    noise = torch.randn((rows, *shape), generator=generator, device=None if generator is None else generator.device)
    if isinstance(denoiser, torch.nn.Module):
        noise = noise.to(next(denoiser.parameters()).device)
    wanted = guide(denoiser.given(labels, **conditions), denoiser.given(None), how.times(schedule_of(denoiser)))
    return samplers.sample(wanted, noise, sampling=how, generator=generator)


check_types(globals())
