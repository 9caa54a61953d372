r"""The Gaussian algebra of diffusion: noising, transitions, posteriors, and the five names of one prediction.

Everything rests on z_t = alpha_t x + sigma_t eps with eps ~ N(0, I). Knowing z, any one of

    x,    eps,    v = alpha eps - sigma x,    score = grad log q(z | x) = -eps / sigma

gives the other three, for any alpha and sigma (Ho et al. 2022, "Video diffusion models" (VDM), section 2;
Salimans & Ho 2022, "Progressive distillation", appendix D, for v). The conversions are named
`<result>_from_<given>` and all take `(z, given, alpha, sigma)`. A fifth name is the velocity, the slope in t of z at
fixed x and eps,

    velocity = alpha' x + sigma' eps                                    (Lipman et al. 2023, "Flow matching"),

whose conversions take the two slopes as well. A coefficient is a number, a 0-d tensor, a `(b,)` tensor (one per
sample), or a tensor that broadcasts against z; z has any shape with the batch first, e.g. (b, c, f, h, w).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from minivdm.core.schedules import Schedule, as_time
from minivdm.guards import BadArgument, check_types, floating, real


class Transition(NamedTuple):
    """q(z_t | z_s) = N(scale z_s, variance I)."""

    scale: Tensor
    variance: Tensor


class Gaussian(NamedTuple):
    """N(mean, variance I)."""

    mean: Tensor
    variance: Tensor


def expand(coefficient: Tensor | float, z: Tensor) -> Tensor:
    """A coefficient in z's dtype and on its device, shaped so that a `(b,)` one meets z's batch axis.

    Raises BadArgument where the shapes do not fit, BadType where z is not floating-point.
    """
    floating("z", z)
    if not isinstance(coefficient, Tensor):
        coefficient = torch.tensor(real("a coefficient", coefficient), dtype=z.dtype)
    if coefficient.ndim == 0 and coefficient.device.type == "cpu":
        return coefficient.to(z.dtype)  # meets a tensor on any device, without a copy to it
    coefficient = coefficient.to(device=z.device, dtype=z.dtype)
    if coefficient.ndim == 0:
        return coefficient
    if coefficient.ndim == 1 and z.ndim > 0 and coefficient.shape[0] in (1, z.shape[0]):
        return coefficient.reshape(-1, *[1] * (z.ndim - 1))
    pairs = zip(coefficient.shape, z.shape, strict=False)
    if coefficient.ndim == z.ndim and all(n in (1, m) for n, m in pairs):
        return coefficient
    raise BadArgument(
        f"expected a scalar, one value per sample ({tuple(z.shape)[:1]}) or a shape that broadcasts against "
        f"{tuple(z.shape)}, got {tuple(coefficient.shape)}"
    )


def noise_like(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise like z, drawn on the generator's device: one seed, one noise on any machine."""
    floating("z", z)
    device = z.device if generator is None else generator.device
    return torch.randn(z.shape, generator=generator, device=device, dtype=z.dtype).to(z.device)


def same_shape(z: Tensor, other: Tensor, name: str) -> None:
    """BadArgument unless `other`, called `name`, has the shape of the latent z: nothing broadcasts by accident.
    BadType where it is not floating-point."""
    if not isinstance(other, Tensor) or z.shape != other.shape:
        other = other if isinstance(other, Tensor) else torch.empty(0)
        raise BadArgument(f"expected {name} of the latent's shape {tuple(z.shape)}, got {tuple(other.shape)}")
    floating(name, other)


def _coefficients(
    z: Tensor, given: Tensor, alpha: Tensor | float, sigma: Tensor | float, divides_by: str = ""
) -> tuple[Tensor, Tensor]:
    same_shape(z, given, "a prediction")
    for name, value in (("alpha", alpha), ("sigma", sigma)):
        if name == divides_by and bool((torch.as_tensor(value) == 0).any()):
            raise BadArgument(f"this conversion divides by {name}, which must not be 0, got {value}")
    return expand(alpha, z), expand(sigma, z)


# ---- the forward process -----------------------------------------------------------------------------------


def diffuse(
    x: Tensor,
    t: Tensor | float,
    schedule: Schedule,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """z_t = alpha_t x + sigma_t eps, a draw from q(z_t | x) (VDM eq 1).

    x: clean data, batch first. t: scalar or (b,). noise: eps of x's shape, drawn where it is None.
    """
    if noise is None:
        noise = noise_like(x, generator)
    same_shape(x, noise, "noise")
    return expand(schedule.alpha(t), x) * x + expand(schedule.sigma(t), x) * noise


def ordered(s: Tensor | float, t: Tensor | float) -> tuple[Tensor, Tensor]:
    """Two times in float64; BadArgument unless s < t everywhere."""
    s, t = as_time(s), as_time(t)
    if s.shape != t.shape and min(s.ndim, t.ndim) > 0 and 1 not in (s.numel(), t.numel()):
        raise BadArgument(f"s, t: expected times of one shape, got {tuple(s.shape)} and {tuple(t.shape)}")
    if t.device.type == "cpu" and s.device.type == "cpu" and not bool((s < t).all()):
        raise BadArgument(f"expected s < t (s is the cleaner time), got s={s.tolist()} and t={t.tolist()}")
    return s, t


def transition(s: Tensor | float, t: Tensor | float, schedule: Schedule) -> Transition:
    """q(z_t | z_s) = N((alpha_t / alpha_s) z_s, sigma_{t|s}^2 I) for s < t (VDM eq 1).

    sigma_{t|s}^2 = (1 - e^{lambda_t - lambda_s}) sigma_t^2. Both results have the shape of the times, in
    float64.
    """
    s, t = ordered(s, t)
    fresh = -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))  # 1 - e^{lambda_t - lambda_s}
    return Transition(schedule.alpha(t) / schedule.alpha(s), fresh * schedule.sigma(t) ** 2)


def posterior(z: Tensor, x: Tensor, s: Tensor | float, t: Tensor | float, schedule: Schedule) -> Gaussian:
    """q(z_s | z_t, x) for s < t: where z_t came from, if the clean data were x (VDM eq 3).

    mean = e^{lambda_t - lambda_s} (alpha_s / alpha_t) z_t + (1 - e^{lambda_t - lambda_s}) alpha_s x,
    variance = (1 - e^{lambda_t - lambda_s}) sigma_s^2 (shape of the times, float64). Where alpha_t = 0, z_t says
    nothing of x and weighs nothing: q(z_s | x) is left.
    """
    s, t = ordered(s, t)
    same_shape(z, x, "x")
    change = schedule.log_snr(t) - schedule.log_snr(s)  # negative: the SNR falls from s to t
    kept, fresh = change.exp(), -torch.expm1(change)
    alpha_s, alpha_t = schedule.alpha(s), schedule.alpha(t)
    of_z = (kept * alpha_s / alpha_t).where(alpha_t > 0, 0.0)  # not 0 / 0, where the SNR is 0
    mean = expand(of_z, z) * z + expand(fresh * alpha_s, z) * x
    return Gaussian(mean, fresh * schedule.sigma(s) ** 2)


# ---- x, eps, v, score: one prediction under four names -----------------------------------------------------


def x_from_eps(z: Tensor, eps: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """x = (z - sigma eps) / alpha."""
    alpha, sigma = _coefficients(z, eps, alpha, sigma, divides_by="alpha")
    return (z - sigma * eps) / alpha


def x_from_v(z: Tensor, v: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """x = (alpha z - sigma v) / (alpha^2 + sigma^2), the denominator being 1 in a VP process."""
    alpha, sigma = _coefficients(z, v, alpha, sigma)
    return (alpha * z - sigma * v) / (alpha**2 + sigma**2)


def x_from_score(z: Tensor, score: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """x = (z + sigma^2 score) / alpha: Tweedie's formula where the score is that of the marginal q(z)."""
    alpha, sigma = _coefficients(z, score, alpha, sigma, divides_by="alpha")
    return (z + sigma**2 * score) / alpha


def eps_from_x(z: Tensor, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """eps = (z - alpha x) / sigma."""
    alpha, sigma = _coefficients(z, x, alpha, sigma, divides_by="sigma")
    return (z - alpha * x) / sigma


def eps_from_v(z: Tensor, v: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """eps = (sigma z + alpha v) / (alpha^2 + sigma^2)."""
    alpha, sigma = _coefficients(z, v, alpha, sigma)
    return (sigma * z + alpha * v) / (alpha**2 + sigma**2)


def eps_from_score(z: Tensor, score: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """eps = -sigma score."""
    _, sigma = _coefficients(z, score, alpha, sigma)
    return -sigma * score


def v_from_x(z: Tensor, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """v = alpha eps - sigma x with eps = (z - alpha x) / sigma."""
    alpha, sigma = _coefficients(z, x, alpha, sigma, divides_by="sigma")
    return alpha * (z - alpha * x) / sigma - sigma * x


def v_from_eps(z: Tensor, eps: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """v = alpha eps - sigma x with x = (z - sigma eps) / alpha."""
    alpha, sigma = _coefficients(z, eps, alpha, sigma, divides_by="alpha")
    return alpha * eps - sigma * (z - sigma * eps) / alpha


def v_from_score(z: Tensor, score: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """v of the noise eps = -sigma score."""
    return v_from_eps(z, eps_from_score(z, score, alpha, sigma), alpha, sigma)


def score_from_x(z: Tensor, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """score = (alpha x - z) / sigma^2."""
    alpha, sigma = _coefficients(z, x, alpha, sigma, divides_by="sigma")
    return (alpha * x - z) / sigma**2


def score_from_eps(z: Tensor, eps: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """score = -eps / sigma."""
    _, sigma = _coefficients(z, eps, alpha, sigma, divides_by="sigma")
    return -eps / sigma


def score_from_v(z: Tensor, v: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """score of the noise that v stands for."""
    return score_from_eps(z, eps_from_v(z, v, alpha, sigma), alpha, sigma)


# ---- velocity: the slope of z in t; slopes are (alpha', sigma') -----------------------------------------------

Slopes = tuple[Tensor | float, Tensor | float]


def velocity_from_x(z: Tensor, x: Tensor, alpha: Tensor | float, sigma: Tensor | float, slopes: Slopes) -> Tensor:
    """alpha' x + sigma' eps with eps = (z - alpha x) / sigma."""
    return expand(slopes[0], z) * x + expand(slopes[1], z) * eps_from_x(z, x, alpha, sigma)


def velocity_from_eps(z: Tensor, eps: Tensor, alpha: Tensor | float, sigma: Tensor | float, slopes: Slopes) -> Tensor:
    """alpha' x + sigma' eps with x = (z - sigma eps) / alpha."""
    return expand(slopes[0], z) * x_from_eps(z, eps, alpha, sigma) + expand(slopes[1], z) * eps


def x_from_velocity(
    z: Tensor, velocity: Tensor, alpha: Tensor | float, sigma: Tensor | float, slopes: Slopes
) -> Tensor:
    """x = (sigma' z - sigma velocity) / (alpha sigma' - sigma alpha'): z - t velocity on the flow path."""
    alpha, sigma = _coefficients(z, velocity, alpha, sigma)
    alpha_slope, sigma_slope = expand(slopes[0], z), expand(slopes[1], z)
    return (sigma_slope * z - sigma * velocity) / (alpha * sigma_slope - sigma * alpha_slope)


def eps_from_velocity(
    z: Tensor, velocity: Tensor, alpha: Tensor | float, sigma: Tensor | float, slopes: Slopes
) -> Tensor:
    """eps = (alpha velocity - alpha' z) / (alpha sigma' - sigma alpha'): z + (1 - t) velocity on the flow path."""
    alpha, sigma = _coefficients(z, velocity, alpha, sigma)
    alpha_slope, sigma_slope = expand(slopes[0], z), expand(slopes[1], z)
    return (alpha * velocity - alpha_slope * z) / (alpha * sigma_slope - sigma * alpha_slope)


check_types(globals())
