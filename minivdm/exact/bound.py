r"""The variational bound: what a denoiser's squared errors say about -log p(x), in nats.

    -log p(x) <= KL(q(z_1 | x) || p(z_1))  +  diffusion  +  E_q(z_0 | x)[-log p(x | z_0)]

With T steps the diffusion part is a sum of KLs of Gaussians, (1/2) sum (SNR(s) - SNR(t)) E ||x - x_hat(z_t)||^2;
as T grows it becomes the integral (1/2) E ||eps - eps_hat||^2 dlambda, which no longer knows the schedule but for
its two ends (Kingma et al. 2021, "Variational diffusion models", eqs 11-18). Divide by the number of values of x for
nats per dimension, and by log 2 for bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoise, schedule_of, times_for
from minivdm.core.gaussian import diffuse, expand, noise_like, ordered
from minivdm.core.schedules import Schedule, as_time
from minivdm.core.time_grids import as_grid
from minivdm.guards import BadArgument, batch, check_types, finite, floating, whole

#: A way to place times: uniform numbers u in [0, 1] of any shape -> (t, 1 / p(lambda_t)), float64, of that shape,
#: p being the density over lambda that follows.
Times = Callable[[Tensor, Schedule], tuple[Tensor, Tensor]]


class Bound(NamedTuple):
    """-log p(x) <= total = prior + diffusion + reconstruction, each (b,), in nats.

    standard_error: (b,), of the Monte Carlo mean in `diffusion`, computed as for independent draws; stratified ones do
    no worse.
    """

    total: Tensor
    standard_error: Tensor
    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor


# ---- the terms ---------------------------------------------------------------------------------------------


def gaussian_kl(mean_q: Tensor, variance_q: Tensor | float, mean_p: Tensor, variance_p: Tensor | float) -> Tensor:
    """KL(N(mean_q, variance_q I) || N(mean_p, variance_p I)), (b,), summed over a sample's values.

    = (1/2) (d (r - 1 - log r) + ||mean_q - mean_p||^2 / variance_p) with r = variance_q / variance_p. Means are
    (b, ...) of one shape, variances scalars or (b,). Raises ValueError unless both variances are positive.
    """
    batch("mean_q", mean_q)
    floating("mean_p", mean_p)
    if mean_q.shape != mean_p.shape:
        raise BadArgument(f"expected means of one shape, got {tuple(mean_q.shape)} and {tuple(mean_p.shape)}")
    variance_q, variance_p = (torch.as_tensor(v, dtype=torch.float64) for v in (variance_q, variance_p))
    if not all(bool((v > 0).all() and v.isfinite().all()) for v in (variance_q, variance_p)):
        raise BadArgument(f"expected finite, positive variances, got {variance_q.tolist()} and {variance_p.tolist()}")
    if any(v.shape not in ((), (1,), mean_q.shape[:1]) for v in (variance_q, variance_p)):
        got = f"{tuple(variance_q.shape)} and {tuple(variance_p.shape)}"
        raise BadArgument(f"expected variances that are scalars or {tuple(mean_q.shape[:1])}, got {got}")
    ratio = variance_q / variance_p
    per_value = (ratio - 1 - ratio.log()).to(mean_q)
    distance = (mean_q - mean_p).square().flatten(1).sum(1)
    return (mean_q[0].numel() * per_value + distance / variance_p.to(distance)) / 2


def prior_term(x: Tensor, schedule: Schedule) -> Tensor:
    """KL(q(z_1 | x) || p(z_1)), (b,): what the last latent still tells about x (Kingma et al. 2021, eq 11).

    p(z_1) is N(0, prior_std^2 I) of the schedule: N(0, I) where variance is preserved.
    """
    mean = expand(schedule.alpha(1.0), x) * x
    return gaussian_kl(mean, schedule.sigma(1.0) ** 2, torch.zeros_like(x), schedule.prior_std() ** 2)


def reconstruction_term(x: Tensor, schedule: Schedule) -> Tensor:
    """E[-log p(x | z_0)], (b,), for p(x | z_0) = N(z_0 / alpha_0, (sigma_0 / alpha_0)^2 I).

    = (d/2) (1 + log 2 pi - lambda_0), whatever x is. Time 0 is the schedule's t_min: its SNR has to be finite.
    """
    d = x[0].numel()
    return (d * (1 + math.log(2 * math.pi) - schedule.log_snr(schedule.t_min)) / 2).to(x).expand(len(x))


def step_term(
    denoise: Denoise, x: Tensor, s: Tensor | float, t: Tensor | float, generator: torch.Generator | None = None
) -> Tensor:
    """One draw of KL(q(z_s | z_t, x) || q(z_s | z_t, x_hat(z_t))) for s < t, (b,) (Kingma et al. 2021, eq 13).

    = (1/2) (SNR(s) - SNR(t)) ||x - x_hat(z_t)||^2: both Gaussians have the same variance.
    """
    s, t = ordered(times_for(len(batch("x", x, axes=2)), s), times_for(len(x), t))
    schedule = schedule_of(denoise)
    gain = schedule.log_snr(s).exp() * -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))
    z = diffuse(x, t, schedule, noise_like(x, generator))
    error = (x - denoise(z, t)).square().flatten(1).sum(1)
    return gain.to(error) / 2 * error


def nats_per_log_snr(
    denoise: Denoise, x: Tensor, t: Tensor | float, generator: torch.Generator | None = None
) -> Tensor:
    """One draw of h = (1/2) SNR(t) ||x - x_hat(z_t)||^2 = (1/2) ||eps - eps_hat||^2, (b,).

    The bound's diffusion part is its integral over lambda (Kingma et al. 2021, eq 17).
    """
    t = as_time(t)
    z = diffuse(x, t, denoise.schedule, noise_like(x, generator))
    error = (x - denoise(z, t)).square().flatten(1).sum(1)
    return denoise.schedule.log_snr(t).exp().to(error) / 2 * error


# ---- where to place the times ------------------------------------------------------------------------------


def by_time(u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Uniform in t: 1 / p(lambda) = -dlambda/dt, the schedule's own."""
    span = schedule.t_max - schedule.t_min
    t = schedule.t_min + span * u
    return t, span * (schedule.diffusion(t) / schedule.sigma(t)) ** 2  # g^2 = -sigma^2 dlambda/dt


def by_log_snr(u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Uniform in lambda: the same for every schedule with the same ends."""
    high, low = _ends(schedule)
    t = schedule.time(high - u * (high - low)).clamp(schedule.t_min, schedule.t_max)
    return t, torch.full_like(t, high - low)


class ByImportance:
    """p(lambda) proportional to sqrt(E[h^2]) at that lambda, which gives the estimate its least variance (as Nichol &
    Dhariwal 2021, eq 18, for discrete steps).

    Measured with one pass of `denoise` over the samples x, (b, ...), in `bins` equal parts of lambda's range.
    A twentieth of the mass is spread evenly, so that no lambda is out of reach.
    """

    def __init__(self, denoise: Denoise, x: Tensor, bins: int = 32, generator: torch.Generator | None = None) -> None:
        whole("bins", bins, most=100_000)
        _check_data(x)
        high, low = _ends(denoise.schedule)
        self.edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
        centres = (self.edges[1:] + self.edges[:-1]) / 2
        with torch.no_grad():
            h = [nats_per_log_snr(denoise, x, denoise.schedule.time(c), generator) for c in centres]
        size = torch.stack([value.double().square().mean().sqrt() for value in h]).cpu()
        self.mass = 0.95 * size / size.sum() + 0.05 / bins

    def __call__(self, u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), self.mass.cumsum(0)])
        u = 1 - u.cpu()  # as in the others, u = 0 is the clean end
        part = torch.searchsorted(cumulative, u.contiguous()).clamp(1, len(self.mass)) - 1
        width = self.edges[1] - self.edges[0]
        log_snr = self.edges[part] + width * (u - cumulative[part]) / self.mass[part]
        return schedule.time(log_snr).clamp(schedule.t_min, schedule.t_max), width / self.mass[part]


def _ends(schedule: Schedule) -> tuple[float, float]:
    """lambda at the clean and at the noisy end."""
    return float(schedule.log_snr(schedule.t_min)), float(schedule.log_snr(schedule.t_max))


# ---- the bound ---------------------------------------------------------------------------------------------


@torch.no_grad()
def discrete_bound(
    denoise: Denoise,
    x: Tensor,
    steps: int,
    draws: int = 8,
    generator: torch.Generator | None = None,
) -> Bound:
    """The bound of the ancestral sampler with `steps` equal steps of t (Kingma et al. 2021, eqs 11-14).

    x: clean data (b, ...). Every step is evaluated `draws` times, so this costs steps * draws calls of the denoiser.
    """
    whole("draws", draws, least=2, most=1_000_000)  # two, to tell the standard error
    whole("steps", steps, most=1_000_000)
    _check_data(x)
    schedule = schedule_of(denoise)
    grid = as_grid(torch.linspace(1, schedule.t_min, steps + 1, dtype=torch.float64))
    pairs = list(zip(grid[:-1], grid[1:], strict=True))
    total = [sum(step_term(denoise, x, s, t, generator) for t, s in pairs) for _ in range(draws)]
    return _assemble(torch.stack(total), x, schedule)  # type: ignore[arg-type]


@torch.no_grad()
def continuous_bound(
    denoise: Denoise,
    x: Tensor,
    draws: int = 64,
    times: Times = by_log_snr,
    stratified: bool = True,
    generator: torch.Generator | None = None,
) -> Bound:
    """The bound in the limit of ever more steps: E over lambda ~ p and eps of h / p (Kingma et al. 2021, eqs 15-18).

    x: clean data (b, ...). Each sample gets `draws` times, placed by `times`, one in each of as many equal parts of
    [0, 1] where `stratified`. Without bias for every `times`; its variance is theirs.
    """
    whole("draws", draws, least=2, most=1_000_000)  # two, to tell the standard error
    _check_data(x)
    schedule_of(denoise)
    device = x.device if generator is None else generator.device
    u = torch.rand(draws, len(x), generator=generator, device=device).cpu().double()
    if stratified:
        u = (torch.arange(draws)[:, None] + u) / draws
    values = []
    for row in u:
        t, inverse_density = times(row, denoise.schedule)
        h = nats_per_log_snr(denoise, x, t, generator)
        values.append(inverse_density.to(h) * h)
    return _assemble(torch.stack(values), x, denoise.schedule)


def _assemble(values: Tensor, x: Tensor, schedule: Schedule) -> Bound:
    """values: (draws, b), independent estimates of the diffusion part."""
    diffusion, error = values.mean(0), values.std(0) / math.sqrt(len(values))
    prior, reconstruction = prior_term(x, schedule), reconstruction_term(x, schedule)
    return Bound(prior + diffusion + reconstruction, error, prior, diffusion, reconstruction)


def _check_data(x: Tensor) -> None:
    """Data that a bound can be computed of: SNRs of e^20 leave half precision no digit."""
    if finite("x", batch("x", x, axes=2)).dtype in (torch.float16, torch.bfloat16):
        raise BadArgument(f"x: expected float32 or float64, got {x.dtype}")


check_types(globals())
