r"""Samplers: a step takes a denoiser and z_t to z_s, and one loop takes any step.

A step is a function `(denoise, z, t, s, generator=None) -> z_s` with s < t. Its options are bound beforehand:
`functools.partial(ddim_step, eta=1.0)`. The denoiser is any function (z, t) -> x_hat that carries a
`.schedule`, trained, guided or exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.gaussian import eps_from_x, expand, noise_like, posterior, transition
from minivdm.schedules import Schedule, as_time


class Denoise(Protocol):
    """(z, t) -> x_hat, with the schedule under which z was noised."""

    schedule: Schedule

    def __call__(self, z: Tensor, t: Any, /) -> Tensor: ...


Step = Callable[..., Tensor]
Grid = Callable[[int, Schedule], Tensor]


# ---- steps -------------------------------------------------------------------------------------------------


def ancestral_step(
    denoise: Denoise,
    z: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    gamma: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """z_s ~ N(posterior mean given x_hat, (posterior variance)^{1-gamma} (sigma_{t|s}^2)^gamma) (VDM eq 4).

    gamma in [0, 1] interpolates, in the logarithm, between the smallest and the largest sensible variance.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"expected gamma in [0, 1], got {gamma}")
    mean, smallest = posterior(z, denoise(z, t), s, t, denoise.schedule)
    largest = transition(s, t, denoise.schedule).variance
    std = (smallest ** (1 - gamma) * largest**gamma).sqrt()
    return mean + expand(std, z) * noise_like(z, generator)


def ddim_step(
    denoise: Denoise,
    z: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """z_s = alpha_s x_hat + sqrt(sigma_s^2 - fresh^2) eps_hat + fresh eps, fresh = eta x posterior std.

    Song, Meng & Ermon 2020, "Denoising diffusion implicit models", eqs 12 and 16. eta = 0 keeps the predicted
    noise and is deterministic; eta = 1 is `ancestral_step` with gamma = 0.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"expected eta in [0, 1], got {eta}")
    schedule = denoise.schedule
    x_hat = denoise(z, t)
    fresh = eta * posterior(z, x_hat, s, t, schedule).variance.sqrt()
    eps_hat = eps_from_x(z, x_hat, schedule.alpha(t), schedule.sigma(t))
    kept = (schedule.sigma(s) ** 2 - fresh**2).clamp(min=0).sqrt()
    z_s = expand(schedule.alpha(s), z) * x_hat + expand(kept, z) * eps_hat
    return z_s if eta == 0 else z_s + expand(fresh, z) * noise_like(z, generator)


# ---- time grids: (steps, schedule) -> times (steps + 1,), from 1 down to 0 ---------------------------------


def uniform_in_t(steps: int, schedule: Schedule) -> Tensor:
    """Equal steps of t from 1 to 0, float64."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


def as_grid(times: Tensor | Sequence[float]) -> Tensor:
    """Times as a float64 tensor on the CPU; ValueError unless there are two or more and they strictly
    decrease.
    """
    times = as_time(torch.as_tensor(times).cpu())
    if times.ndim != 1 or len(times) < 2 or not bool((times[1:] < times[:-1]).all()):
        raise ValueError(f"expected a strictly decreasing grid of two times or more, got {times.tolist()}")
    return times


# ---- the loop ----------------------------------------------------------------------------------------------


@torch.no_grad()
def sample(
    denoise: Denoise,
    noise: Tensor,
    steps: int | None = None,
    step: Step = ddim_step,
    project: Callable[[Tensor, Tensor], Tensor] | None = None,
    grid: Grid | Tensor | Sequence[float] = uniform_in_t,
    callback: Callable[[Tensor, Tensor], object] | None = None,
    progress: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Walk z from the first time of a grid to its last; the one loop of every sampler.

    noise: z at the grid's first time, any shape with the batch first. At t = 1 of a variance-preserving
    schedule that
        is standard normal noise; in general it is sigma(1) times it.
    steps: how many denoising steps, where `grid` is a function of it. step: `(denoise, z, t, s, generator=)
    -> z_s`.
    project: `(z, t) -> z`, applied at the first level and at each level just reached: replacement enters
    here.
    grid: a function (steps, schedule) -> times, or the decreasing times themselves, in [0, 1].
    callback: called as `(z, t)` after each step.

    t = 0 means clean data: where the grid ends there, the last step returns x_hat itself, without the noise
    that a truncated schedule still has at t = 0. A grid that ends earlier returns z of its last time.
    """
    schedule = getattr(denoise, "schedule", None)
    if schedule is None:
        raise TypeError("expected a denoiser that carries its noise schedule as .schedule, got one without")
    if callable(grid):
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"expected at least one step, got steps={steps}")
        grid = grid(steps, schedule)
    times = as_grid(grid)
    if steps not in (None, len(times) - 1):
        raise ValueError(f"expected a grid of {steps} steps, got one of {len(times) - 1}")

    z = noise if project is None else project(noise, times[0])
    for t, s in tqdm(list(zip(times[:-1], times[1:], strict=True)), disable=not progress, desc="sampling"):
        z = denoise(z, t) if s == 0 else step(denoise, z, t, s, generator=generator)
        if project is not None:
            z = project(z, s)
        if callback is not None:
            callback(z, s)
    return z
