r"""How probable data are to a model, by the probability-flow ODE and the divergence of its velocity.

In nats per sample; divide by the number of values for nats per dimension, and by log 2 for bits. `minivdm.exact.bound`
has the variational bound on the same number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoise, schedule_of
from minivdm.core.gaussian import expand
from minivdm.core.ode import velocity
from minivdm.core.time_grids import Grid, times_of, uniform_in_t
from minivdm.exact.jacobian import Field, divergence
from minivdm.guards import batch, check_types, finite, floating, real, whole

Divergence = Callable[[Field, Tensor], tuple[Tensor, Tensor]]


def exact_divergence(field: Field, z: Tensor) -> tuple[Tensor, Tensor]:
    """field(z), and its Jacobian's trace per sample (b,), by one backward pass for every value."""
    value, trace = divergence(field, z)
    return value.detach(), trace.detach()


def hutchinson_divergence(probes: Tensor) -> Divergence:
    """field(z) and an unbiased estimate of the trace, E[e^T J e] over signs e (Hutchinson 1990; Grathwohl et al. 2019).

    probes: (k, *z.shape) of random +1 and -1, one backward pass each. They are kept for the whole path, so that the
    solver follows one smooth function.
    """

    def estimate(field: Field, z: Tensor) -> tuple[Tensor, Tensor]:
        value, trace = divergence(field, z, probes)
        return value.detach(), trace.detach()

    return estimate


def signs_like(z: Tensor, probes: int, generator: torch.Generator | None = None) -> Tensor:
    """(probes, *z.shape) of independent +1 and -1."""
    whole("probes", probes)
    floating("z", z)
    device = z.device if generator is None else generator.device
    bits = torch.randint(0, 2, (probes, *z.shape), generator=generator, device=device)
    return (2 * bits - 1).to(z)


def normal_log_prob(z: Tensor, std: Tensor | float = 1.0) -> Tensor:
    """log N(z; 0, std^2 I) per sample, (b,). std: positive, a number or 0-d."""
    real("std", std, least=0, above=True)
    z = batch("z", z, axes=2).flatten(1) / torch.as_tensor(std).to(z)
    return -(z**2).sum(1) / 2 - z.shape[1] * (math.log(2 * math.pi) / 2 + torch.as_tensor(std).log().to(z))


def log_likelihood(
    denoise: Denoise,
    x: Tensor,
    steps: int = 200,
    grid: Grid | Tensor | Sequence[float] = uniform_in_t,
    probes: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log p(x) in nats, (b,), by the instantaneous change of variables (Chen et al. 2018; Song et al. 2021, eq 39).

    log p_0(z_0) = log p_1(z_1) + the integral over t of div(dz/dt), by Heun's method from t_min to the grid's first
    time, 1 unless it starts below. The prior there is N(0, prior_std^2 I) of the schedule.

    x: (b, ...), floating-point and finite. steps, grid: as in `sample`; a grid of times says its own number of steps.
    probes: 0 for the exact trace, else the number of Hutchinson's random signs.
    """
    schedule = schedule_of(denoise)
    whole("probes", probes, least=0)
    finite("x", batch("x", x, axes=2))
    times = times_of(grid, steps if callable(grid) else None, schedule).flip(0).clamp(min=schedule.t_min)
    trace = hutchinson_divergence(signs_like(x, probes, generator)) if probes else exact_divergence

    z, change = x, torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for s, t in zip(times[:-1], times[1:], strict=True):
        dt = expand(t - s, z)
        start, start_trace = trace(lambda z, s=s: velocity(denoise, z, s), z)  # type: ignore[misc]
        end, end_trace = trace(lambda z, t=t: velocity(denoise, z, t), z + dt * start)  # type: ignore[misc]
        z = z + dt * (start + end) / 2
        change = change + dt * (start_trace + end_trace) / 2
    return normal_log_prob(z, schedule.prior_std(times[-1])) + change


check_types(globals())
