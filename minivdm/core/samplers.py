r"""Samplers: a step takes a denoiser and z_t to z_s, and one loop takes any step.

A step is a function `(denoise, z, t, s, generator=None) -> z_s` with s < t. Its options are bound beforehand:
`functools.partial(ddim_step, eta=1.0)`. The denoiser is any function (z, t) -> x_hat that carries a
`.schedule`, trained, guided or exact.

The random steps draw from a Gaussian, which `<name>_law` returns; `minivdm.exact.propagate` works with those laws.
The solvers of `ode` and the grids of `time_grids` are at hand here too, so that every step is `samplers.<name>`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.core.denoiser import Denoise, schedule_of
from minivdm.core.gaussian import (
    Gaussian,
    eps_from_x,
    expand,
    noise_like,
    ordered,
    posterior,
    same_shape,
    score_from_x,
    transition,
)
from minivdm.core.guidance import clipped
from minivdm.core.ode import DPMSolverPlusPlus2M, Multistep, angular_ddim_step, euler_step, heun_step  # noqa: F401
from minivdm.core.schedules import CosineSchedule, Schedule
from minivdm.core.time_grids import (  # noqa: F401
    Grid,
    as_grid,
    for_few_steps,
    karras,
    times_of,
    uniform_in_log_snr,
    uniform_in_t,
)
from minivdm.guards import BadArgument, BadType, batch, check_types, finite, real, span

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

Step = Callable[..., Tensor]
Corrector = Callable[..., Tensor]


# ---- random steps: a Gaussian whose mean is a function of z ------------------------------------------------


def draw(law: Gaussian, generator: torch.Generator | None = None) -> Tensor:
    """mean + sqrt(variance) eps."""
    if law.variance.device.type == "cpu" and not bool((law.variance >= 0).all()):
        raise BadArgument(f"law: expected a variance >= 0, got {law.variance.tolist()}")
    return law.mean + expand(law.variance.sqrt(), law.mean) * noise_like(law.mean, generator)


def ancestral_law(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, gamma: float = 0.0) -> Gaussian:
    """N(posterior mean given x_hat, (posterior variance)^{1 - gamma} (sigma_{t|s}^2)^gamma) (VDM eq 4).

    gamma in [0, 1] interpolates, in the logarithm, between the smallest and the largest sensible variance.
    """
    real("gamma", gamma, 0, 1)
    schedule_of(denoise)
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
    real("eta", eta, 0, 1)
    schedule = schedule_of(denoise)
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
    """Euler-Maruyama on dz = (f z - g^2 score) dt + g dw from t to s < t (Anderson 1982; Song et al. 2021, eq 6).

    Explicit, hence unstable where (t - s) g^2 exceeds about 2 sigma^2, as it does next to t = 1 on a cosine schedule
    with a low log_snr_min: start the grid a little below 1 there. Raises BadArgument where f is infinite, as on the
    flow path at t = 1.
    """
    schedule = schedule_of(denoise)
    s, t = ordered(s, t)
    f, g2 = schedule.drift(t), schedule.diffusion(t) ** 2
    if not bool(f.isfinite().all()):
        raise BadArgument(f"t: expected times at which the drift is finite, up to {schedule.t_max}, got {t.tolist()}")
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
    """N(z - (1/2) delta sigma_t eps_hat(z), delta sigma_t^2): stays at t, and pulls towards q_t (VDM eq 5)."""
    real("delta", delta, 0, above=True)
    schedule = schedule_of(denoise)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
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


def clean_step(
    denoise: Denoise,
    z: Tensor,
    t: Tensor | float,
    s: Tensor | float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x_hat itself: the step to clean data, whatever noise a truncated schedule still has at its time 0."""
    return denoise(z, t)


# ---- the loop ----------------------------------------------------------------------------------------------


class SamplingFields(TypedDict, total=False):
    """The fields of `Sampling` but for `steps`, as keywords."""

    step: Step
    grid: Grid | Tensor | Sequence[float]
    corrector: Corrector | None
    final: Step | None
    clip: tuple[float, float] | None


@dataclass(frozen=True)
class Sampling:
    """How a denoiser is sampled; checked when it is made.

    steps: how many denoising steps, 64 unless the grid says it.
    step: `(denoise, z, t, s, generator=) -> z_s`, its options bound beforehand, or a `Multistep` solver.
    grid: a function (steps, schedule) -> times, or the decreasing times themselves, in [0, 1].
    corrector: `(denoise, z, t, generator=) -> z`, applied at each level just reached but the last: with
        `langevin_step` this is predictor-corrector sampling.
    final: the step of the interval that ends at t = 0, where data are clean; None: `step`, there as everywhere.
    clip: (low, high), the range that x_hat is kept in; None for none.
    """

    steps: int | None = None
    step: Step = ddim_step
    grid: Grid | Tensor | Sequence[float] = uniform_in_t
    corrector: Corrector | None = None
    final: Step | None = clean_step
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not callable(self.grid):
            object.__setattr__(self, "grid", tuple(as_grid(self.grid).tolist()))  # compares, and cannot change
        self.times(CosineSchedule())  # any schedule: are they as many as `steps`?
        for name, optional in (("step", False), ("corrector", True), ("final", True)):
            value = getattr(self, name)
            if not (callable(value) or (optional and value is None)):
                raise BadType(f"{name}: expected a function, got {value!r}")
        if self.clip is not None:
            span("clip", self.clip)

    @classmethod
    def of(cls, sampling: Sampling | None = None, steps: int | None = None, **named: Any) -> Self:
        """A sampling from keywords, or `sampling` with some fields replaced; BadType for a keyword that is no field."""
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in named if name not in known]:
            raise BadType(f"{', '.join(unknown)}: expected options out of {', '.join(known)}")
        if not isinstance(sampling, Sampling | None):
            raise BadType(f"sampling: expected a Sampling, got {sampling!r}")
        if steps is not None:
            named["steps"] = steps
        return cls(**{**(vars(sampling) if sampling is not None else {}), **named})

    def times(self, schedule: Schedule) -> Tensor:
        """The times at which sampling stops, (steps + 1,), decreasing, float64."""
        steps = 64 if self.steps is None and callable(self.grid) else self.steps
        return times_of(self.grid, steps, schedule)


@torch.no_grad()
def sample(
    denoise: Denoise,
    noise: Tensor,
    steps: int | None = None,
    *,
    sampling: Sampling | None = None,
    project: Callable[[Tensor, Tensor], Tensor] | None = None,
    callback: Callable[[Tensor, Tensor], object] | None = None,
    progress: bool = False,
    generator: torch.Generator | None = None,
    **named: Unpack[SamplingFields],
) -> Tensor:
    """Walk z from the first time of a grid to its last; the one loop of every sampler.

    noise: z at the grid's first time, any shape with the batch first: standard normal noise times
        `schedule.prior_std(times[0])`, which is 1 where variance is preserved.
    steps, step, grid, corrector, final, clip: the fields of `Sampling`; or `sampling`, one object of them.
    project: `(z, t) -> z`, applied at the first level and at each level just reached, before the corrector and after:
        here replacement enters.
    callback: called as `(z, t)` after each step.

    t = 0 means clean data: where the grid ends there, the `final` step returns x_hat itself, without the noise that a
    truncated schedule still has at t = 0. A grid that ends earlier returns z of its last time.
    """
    how = Sampling.of(sampling, steps, **named)
    times = how.times(schedule_of(denoise))
    finite("noise", batch("noise", noise))
    if how.clip is not None:
        denoise = clipped(denoise, *how.clip)
    z, past = noise if project is None else project(noise, times[0]), None
    for t, s in tqdm(list(zip(times[:-1], times[1:], strict=True)), disable=not progress, desc="sampling"):
        step = how.final if s == 0 and how.final is not None else how.step
        if isinstance(step, Multistep):
            z, past = step.advance(denoise, z, t, s, past)
        else:
            z = step(denoise, z, t, s, generator=generator)
        same_shape(noise, z, "the result of a step")
        z = z if project is None else project(z, s)
        if how.corrector is not None and s > 0:
            z = how.corrector(denoise, z, s, generator=generator)
            z = z if project is None else project(z, s)
        if callback is not None:
            callback(z, s)
    return z


check_types(globals())
