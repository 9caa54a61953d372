r"""How probable data are to a model, by the probability-flow ODE and the divergence of its velocity.

In nats per sample; divide by the number of values for nats per dimension, and by log 2 for bits. `minivdm.exact.bound`
has the variational bound on the same number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoise
from minivdm.core.gaussian import expand
from minivdm.core.ode import velocity
from minivdm.core.time_grids import Grid, times_of, uniform_in_t

Divergence = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[Tensor, Tensor]]


def exact_divergence(field: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """field(z), and its Jacobian's trace per sample (b,) by one backward pass for every value."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = field(z)
        flat = value.flatten(1)
        trace = torch.zeros(len(z), dtype=z.dtype, device=z.device)
        for i in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, i].sum(), z, retain_graph=True)
            trace = trace + row.flatten(1)[:, i]
    return value.detach(), trace


def hutchinson_divergence(probes: Tensor) -> Divergence:
    """field(z) and an unbiased estimate of the trace, E[e^T J e] over signs e.

    Hutchinson 1990; Grathwohl et al. 2019.

    probes: (k, *z.shape) of random +1 and -1, one backward pass each. They are kept for the whole path, so
    that the solver follows one smooth function.
    """

    def divergence(field: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = field(z)
            trace = torch.zeros(len(z), dtype=z.dtype, device=z.device)
            for e in probes:
                (product,) = torch.autograd.grad((value * e).sum(), z, retain_graph=True)
                trace = trace + (product * e).flatten(1).sum(1) / len(probes)
        return value.detach(), trace

    return divergence


def signs_like(z: Tensor, probes: int, generator: torch.Generator | None = None) -> Tensor:
    """(probes, *z.shape) of independent +1 and -1."""
    device = z.device if generator is None else generator.device
    bits = torch.randint(0, 2, (probes, *z.shape), generator=generator, device=device)
    return (2 * bits - 1).to(z)


def normal_log_prob(z: Tensor, std: Tensor | float = 1.0) -> Tensor:
    """log N(z; 0, std^2 I) per sample, (b,)."""
    z = z.flatten(1) / torch.as_tensor(std).to(z)
    return -(z**2).sum(1) / 2 - z.shape[1] * (math.log(2 * math.pi) / 2 + torch.as_tensor(std).log().to(z))


def log_likelihood(
    denoise: Denoise,
    x: Tensor,
    steps: int = 200,
    grid: Grid | Tensor | Sequence[float] = uniform_in_t,
    probes: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log p(x) in nats, (b,), by the instantaneous change of variables.

    Chen et al. 2018; Song et al. 2021, eq 39:

    log p_0(z_0) = log p_1(z_1) + the integral over t of div(dz/dt), by Heun's method from t_min to 1. The prior
    p_1 is N(0, prior_std^2 I) of the schedule.

    steps, grid: as in `sample`. probes: 0 for the exact trace, else the number of Hutchinson's random signs.
    """
    schedule = denoise.schedule
    if probes < 0:
        raise ValueError(f"expected probes >= 0, got {probes}")
    times = times_of(grid, steps if callable(grid) else None, schedule).flip(0).clamp(min=schedule.t_min)
    divergence = hutchinson_divergence(signs_like(x, probes, generator)) if probes else exact_divergence

    z, change = x, torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for s, t in zip(times[:-1], times[1:], strict=True):
        dt = expand(t - s, z)
        start, start_trace = divergence(lambda z, s=s: velocity(denoise, z, s), z)  # type: ignore[misc]
        end, end_trace = divergence(lambda z, t=t: velocity(denoise, z, t), z + dt * start)  # type: ignore[misc]
        z = z + dt * (start + end) / 2
        change = change + dt * (start_trace + end_trace) / 2
    return normal_log_prob(z, schedule.prior_std()) + change
