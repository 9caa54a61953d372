r"""Samplers: a step takes a denoiser and z_t to z_s, and one loop takes any step.

A step is a function `(denoise, z, t, s, generator=None) -> z_s` with s < t. Its options are bound beforehand:
`functools.partial(ddim_step, eta=1.0)`. The denoiser is any function (z, t) -> x_hat that carries a
`.schedule`, trained, guided or exact.

The random steps draw from a Gaussian, which `<name>_law` returns; `minivdm.exact.propagate` works with those laws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.core.denoiser import Denoise
from minivdm.core.gaussian import (
    Gaussian,
    diffuse,
    eps_from_x,
    expand,
    noise_like,
    ordered,
    posterior,
    score_from_x,
    transition,
)
from minivdm.core.ode import DPMSolverPlusPlus2M, angular_ddim_step, euler_step, heun_step
from minivdm.core.time_grids import Grid, as_grid, karras, times_of, uniform_in_log_snr, uniform_in_t

__all__ = [
    "DPMSolverPlusPlus2M",
    "Denoise",
    "ancestral_law",
    "ancestral_step",
    "angular_ddim_step",
    "as_grid",
    "ddim_law",
    "ddim_step",
    "draw",
    "euler_step",
    "heun_step",
    "invert",
    "karras",
    "langevin_law",
    "langevin_step",
    "reverse_sde_law",
    "reverse_sde_step",
    "sample",
    "sdedit",
    "uniform_in_log_snr",
    "uniform_in_t",
]

Step = Callable[..., Tensor]


# ---- random steps: a Gaussian whose mean is a function of z ------------------------------------------------


def draw(law: Gaussian, generator: torch.Generator | None = None) -> Tensor:
    """mean + sqrt(variance) eps."""
    return law.mean + expand(law.variance.sqrt(), law.mean) * noise_like(law.mean, generator)


def ancestral_law(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, gamma: float = 0.0) -> Gaussian:
    """N(posterior mean given x_hat, (posterior variance)^{1 - gamma} (sigma_{t|s}^2)^gamma) (VDM eq 4).

    gamma in [0, 1] interpolates, in the logarithm, between the smallest and the largest sensible variance.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"expected gamma in [0, 1], got {gamma}")
    mean, smallest = posterior(z, denoise(z, t), s, t, denoise.schedule)
    largest = transition(s, t, denoise.schedule).variance
    return Gaussian(mean, smallest ** (1 - gamma) * largest**gamma)


def ancestral_step(
    denoise: Denoise,
    z: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    gamma: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A draw from `ancestral_law` (VDM eq 4; Ho et al. 2020, algorithm 2)."""
    return draw(ancestral_law(denoise, z, t, s, gamma), generator)


def ddim_law(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, eta: float = 0.0) -> Gaussian:
    """N(alpha_s x_hat + sqrt(sigma_s^2 - fresh) eps_hat, fresh), with fresh = eta^2 x the posterior variance.

    Song, Meng & Ermon 2020, "Denoising diffusion implicit models", eqs 12 and 16. eta = 0 keeps the predicted
    noise and is deterministic; eta = 1 is `ancestral_law` with gamma = 0.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"expected eta in [0, 1], got {eta}")
    schedule = denoise.schedule
    x_hat = denoise(z, t)
    eps_hat = eps_from_x(z, x_hat, schedule.alpha(t), schedule.sigma(t))
    fresh = eta**2 * posterior(z, x_hat, s, t, schedule).variance
    kept = (schedule.sigma(s) ** 2 - fresh).clamp(min=0).sqrt()
    return Gaussian(expand(schedule.alpha(s), z) * x_hat + expand(kept, z) * eps_hat, fresh)


def ddim_step(
    denoise: Denoise,
    z: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A draw from `ddim_law`; without randomness where eta = 0."""
    law = ddim_law(denoise, z, t, s, eta)
    return law.mean if eta == 0 else draw(law, generator)


def reverse_sde_law(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float) -> Gaussian:
    """Euler-Maruyama on dz = (f z - g^2 score) dt + g dw, backwards from t to s.

    Anderson 1982; Song et al. 2021, eq 6.

    Explicit, hence unstable where (t - s) g^2 exceeds about 2 sigma^2, as it does next to t = 1 on a cosine
    schedule with a low log_snr_min: start the grid a little below 1 there.
    """
    schedule = denoise.schedule
    s, t = ordered(s, t)
    f, g2 = schedule.drift(t), schedule.diffusion(t) ** 2
    score = score_from_x(z, denoise(z, t), schedule.alpha(t), schedule.sigma(t))
    mean = z - expand((t - s) * f, z) * z + expand((t - s) * g2, z) * score
    return Gaussian(mean, (t - s) * g2)


def reverse_sde_step(
    denoise: Denoise,
    z: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A draw from `reverse_sde_law`."""
    return draw(reverse_sde_law(denoise, z, t, s), generator)


def langevin_law(denoise: Denoise, z: Tensor, t: Tensor | float, delta: float = 0.1) -> Gaussian:
    """N(z - (1/2) delta sigma_t eps_hat(z), delta sigma_t^2): stays at t, and pulls towards q_t.

    VDM eq 5.
    """
    if not delta > 0:
        raise ValueError(f"expected a Langevin step size delta > 0, got {delta}")
    alpha, sigma = denoise.schedule.alpha(t), denoise.schedule.sigma(t)
    eps_hat = eps_from_x(z, denoise(z, t), alpha, sigma)
    return Gaussian(z - expand(delta * sigma / 2, z) * eps_hat, delta * sigma**2)


def langevin_step(
    denoise: Denoise,
    z: Tensor,
    t: Tensor | float,
    delta: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A draw from `langevin_law`: the corrector of predictor-corrector sampling (`sample(corrector=...)`)."""
    return draw(langevin_law(denoise, z, t, delta), generator)


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
    corrector: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Walk z from the first time of a grid to its last; the one loop of every sampler.

    noise: z at the grid's first time, any shape with the batch first: standard normal noise times
        `schedule.prior_std()`, which is 1 where variance is preserved.
    steps: how many denoising steps, where `grid` is a function of it.
    step: `(denoise, z, t, s, generator=) -> z_s`.
    project: `(z, t) -> z`, applied at the first level and at each level just reached: here replacement enters.
    grid: a function (steps, schedule) -> times, or the decreasing times themselves, in [0, 1].
    callback: called as `(z, t)` after each step.
    corrector: `(denoise, z, t, generator=) -> z`, applied at each level just reached but the last, and followed
        by `project` once more: with `langevin_step` this is predictor-corrector sampling.

    t = 0 means clean data: where the grid ends there, the last step returns x_hat itself, without the noise
    that a truncated schedule still has at t = 0. A grid that ends earlier returns z of its last time.
    """
    schedule = getattr(denoise, "schedule", None)
    if schedule is None:
        raise TypeError("expected a denoiser that carries its noise schedule as .schedule, got one without")
    times = times_of(grid, steps, schedule)
    z = noise if project is None else project(noise, times[0])
    for t, s in tqdm(list(zip(times[:-1], times[1:], strict=True)), disable=not progress, desc="sampling"):
        z = denoise(z, t) if s == 0 else step(denoise, z, t, s, generator=generator)
        if project is not None:
            z = project(z, s)
        if corrector is not None and s > 0:
            z = corrector(denoise, z, s, generator=generator)
            z = z if project is None else project(z, s)
        if callback is not None:
            callback(z, s)
    return z


# ---- starting from data ------------------------------------------------------------------------------------


@torch.no_grad()
def invert(
    denoise: Denoise,
    x: Tensor,
    steps: int | None = None,
    grid: Grid | Tensor | Sequence[float] = uniform_in_t,
    refinements: int = 2,
) -> Tensor:
    """The noise from which DDIM makes x: its update run from s to t (Song, Meng & Ermon 2020, section 4.3).

    x: clean data, batch first. steps, grid: as in `sample`; the result is z at the grid's first time.
    The bare update takes x_hat and eps_hat where a step starts, whereas DDIM takes them where it ends: an error
    that shrinks with the step. Fixed-point iterations, `refinements` of them at one denoiser call each, remove
    it: z_t <- z_t + (z_s - ddim(z_t)). With the exact denoiser and 200 steps the round trip errs by a few 1e-2 with
    none (the bare update), by a few 1e-3 with one, and by less than 1e-3 with two.
    """
    schedule = denoise.schedule
    times = times_of(grid, steps, schedule).flip(0)
    z = x
    for s, t in zip(times[:-1], times[1:], strict=True):
        start = s.clamp(min=schedule.t_min)
        x_hat = denoise(z, start)
        eps_hat = eps_from_x(z, x_hat, schedule.alpha(start), schedule.sigma(start))
        z_t = expand(schedule.alpha(t), z) * x_hat + expand(schedule.sigma(t), z) * eps_hat
        for _ in range(refinements):
            z_t = z_t + z - (denoise(z_t, t) if s == 0 else ddim_step(denoise, z_t, t, s))
        z = z_t
    return z


def sdedit(
    denoise: Denoise,
    x: Tensor,
    t: float,
    steps: int,
    step: Step = ddim_step,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Tensor:
    """Noises x to an intermediate time t and denoises it from there (Meng et al. 2022, "SDEdit").

    The larger t, the more of x is made anew. options: as for `sample`.
    """
    times = float(t) * times_of(uniform_in_t, steps, denoise.schedule)
    z = diffuse(x, times[0], denoise.schedule, generator=generator)
    return sample(denoise, z, step=step, grid=times, generator=generator, **options)
