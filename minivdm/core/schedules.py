r"""Noise schedules: how much signal and how much noise z_t = alpha_t x + sigma_t eps holds.

A schedule is the pair (alpha, sigma) and how fast both change. From these four follow the log-SNR and the linear SDE
dz = f(t) z dt + g(t) dw that produces z:

    lambda = log(alpha^2 / sigma^2),
    f = alpha' / alpha,
    g^2 = 2 sigma sigma' - 2 f sigma^2 = -sigma^2 dlambda/dt

(Song et al. 2021, "Score-based generative modeling through SDEs", eqs 9, 11, 12, 29; Kingma et al. 2021,
"Variational diffusion models"). Where alpha = 0, f and g are infinite and alpha', sigma' are not: samplers that use
dz/dt = alpha' x_hat + sigma' eps_hat start from pure noise, as flow matching does. Time runs from 0 (clean) to 1
(noise). Everything is computed in float64, because alpha and sigma span many orders of magnitude; whoever mixes the
numbers into a video casts them at the end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from minivdm.guards import BadArgument, BadType, check_types, real


def _as_float(name: str, value: Tensor | float | Sequence[float]) -> Tensor:
    """Numbers as a float64 tensor of the same shape, on the CPU where the device has no float64."""
    try:
        value = (
            value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        )  # not by way of float32
    except (TypeError, ValueError, RuntimeError):
        raise BadType(f"{name}: expected a number or a tensor of them, got {value!r}") from None
    if value.is_complex() or value.dtype == torch.bool:
        raise BadType(f"{name}: expected real numbers, got {value.dtype}")
    if value.device.type == "mps":  # has no float64; these few numbers may as well be computed on the CPU
        value = value.cpu()
    return value.to(torch.float64)


def as_time(t: Tensor | float | Sequence[float]) -> Tensor:
    """Times as a float64 tensor of the same shape; BadArgument, a ValueError, where one lies outside [0, 1].

    Values that already live on an accelerator are not checked: reading them would stall it at every training step.
    """
    t = _as_float("t", t)
    if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):
        raise BadArgument(f"t: diffusion times lie in [0, 1] (0 is clean, 1 is noise), got {t.tolist()}")
    return t


class Schedule(ABC):
    """alpha, sigma, their slopes, and what follows from them, as functions of t in [0, 1] (any shape), in float64.

    The four abstract methods define a schedule; the others are derived, and overridden where a schedule knows better.
    """

    #: Between these times every quantity is finite; training times are drawn from [t_min, t_max].
    t_min: float = 0.0
    t_max: float = 1.0

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        """Scale of the signal, alpha_t > 0 for t < 1."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """Scale (standard deviation) of the noise, sigma_t >= 0."""

    @abstractmethod
    def alpha_slope(self, t: Tensor | float) -> Tensor:
        """alpha' = d alpha / dt."""

    @abstractmethod
    def sigma_slope(self, t: Tensor | float) -> Tensor:
        """sigma' = d sigma / dt."""

    def log_snr(self, t: Tensor | float) -> Tensor:
        """lambda_t = log(alpha_t^2 / sigma_t^2), strictly decreasing in t."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Tensor | float) -> Tensor:
        """The inverse of `log_snr`: the t in [0, 1] whose lambda_t is nearest to `log_snr`."""
        log_snr = _as_float("log_snr", log_snr)
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(60):  # bisection: 2^-60 is below float64's rounding
            middle = (low + high) / 2
            too_clean = self.log_snr(middle) > log_snr
            low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
        return torch.where(log_snr.isnan(), log_snr, high)

    def drift(self, t: Tensor | float) -> Tensor:
        """f(t) = alpha' / alpha, the scalar in the drift f(t) z of the SDE."""
        return self.alpha_slope(t) / self.alpha(t)

    def diffusion(self, t: Tensor | float) -> Tensor:
        """g(t) >= 0, the coefficient of the Brownian motion in the SDE: g^2 = 2 sigma sigma' - 2 f sigma^2."""
        sigma = self.sigma(t)
        return (2 * sigma * (self.sigma_slope(t) - self.drift(t) * sigma)).clamp(min=0).sqrt()

    def prior_std(self, t: Tensor | float = 1.0) -> Tensor:
        """Standard deviation of z_t for data of unit variance: 1 where variance is preserved."""
        return (self.alpha(t) ** 2 + self.sigma(t) ** 2).sqrt()

    def angle(self, t: Tensor | float) -> Tensor:
        """phi_t = arctan(sigma_t / alpha_t), in [0, pi/2] (Salimans & Ho 2022)."""
        return torch.atan2(self.sigma(t), self.alpha(t))


class CosineSchedule(Schedule):
    """Variance preserving; the angle arctan(sigma / alpha) grows linearly in t (VDM appendix A).

    lambda_t = -2 log tan(a + t (b - a)) + shift, where a and b are the angles at which lambda reaches
    `log_snr_max` and `log_snr_min`. `shift` moves the whole curve: averaging pixels lowers noise, so a video
    with frames of `size` pixels a side carries as much noise as one of `base` when shift = 2 log(base / size)
    (Hoogeboom et al. 2023, "simple diffusion", eqs 2-4); `for_size` says it that way.
    """

    def __init__(self, log_snr_min: float = -20.0, log_snr_max: float = 20.0, shift: float = 0.0) -> None:
        for name, value in dict(log_snr_min=log_snr_min, log_snr_max=log_snr_max, shift=shift).items():
            real(name, value, -70, 70)  # further out the angle rounds to 0 or to pi / 2
        if not log_snr_min < log_snr_max:
            raise BadArgument(f"expected log_snr_min < log_snr_max, got {log_snr_min}, {log_snr_max}")
        self.log_snr_min, self.log_snr_max, self.shift = float(log_snr_min), float(log_snr_max), float(shift)
        self._first = math.atan(math.exp(-self.log_snr_max / 2))  # a: the angle at t = 0, before the shift
        self._speed = math.atan(math.exp(-self.log_snr_min / 2)) - self._first  # b - a

    @classmethod
    def for_size(cls, size: int, base: int = 32, log_snr_min: float = -20.0, log_snr_max: float = 20.0):
        """The schedule shifted for frames of `size` x `size` pixels, unshifted at `base` x `base`."""
        real("size", size, 0, above=True)
        real("base", base, 0, above=True)
        return cls(log_snr_min, log_snr_max, shift=2 * math.log(base / size))

    def log_snr(self, t: Tensor | float) -> Tensor:
        return -2 * torch.log(torch.tan(self._first + as_time(t) * self._speed)) + self.shift

    def time(self, log_snr: Tensor | float) -> Tensor:
        log_snr = _as_float("log_snr", log_snr)
        angle = torch.atan(torch.exp((self.shift - log_snr) / 2))
        return ((angle - self._first) / self._speed).clamp(0, 1)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sigmoid(-self.log_snr(t)).sqrt()

    def _slope(self, t: Tensor | float) -> Tensor:
        """dlambda/dt = -2 (b - a) / (sin cos) of the angle; the shift is a constant and drops out."""
        return -4 * self._speed / torch.sin(2 * (self._first + as_time(t) * self._speed))

    # log alpha^2 = -log(1 + e^-lambda) and log sigma^2 = -log(1 + e^lambda), hence alpha' = (1/2) sigma^2 lambda' alpha
    # and sigma' = -(1/2) alpha^2 lambda' sigma.

    def alpha_slope(self, t: Tensor | float) -> Tensor:
        return self.sigma(t) ** 2 * self._slope(t) / 2 * self.alpha(t)

    def sigma_slope(self, t: Tensor | float) -> Tensor:
        return -(self.alpha(t) ** 2) * self._slope(t) / 2 * self.sigma(t)


class LinearSchedule(Schedule):
    """Variance preserving with beta(t) = beta_min + t (beta_max - beta_min) (Song et al. 2021, eqs 11, 32, 33).

    dz = -(1/2) beta z dt + sqrt(beta) dw, hence log alpha_t = -(1/4) t^2 (beta_max - beta_min) - (1/2) t
    beta_min and sigma^2 = 1 - alpha^2. At t = 0 there is no noise at all: log_snr is infinite there.
    """

    t_min = 1e-5  # Song et al. 2021, appendix C

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 < real("beta_min", beta_min) <= real("beta_max", beta_max):
            raise BadArgument(f"expected 0 < beta_min <= beta_max, got {beta_min} and {beta_max}")
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)

    def beta(self, t: Tensor | float) -> Tensor:
        """beta(t), the rate at which the signal decays."""
        return self.beta_min + as_time(t) * (self.beta_max - self.beta_min)

    def _log_alpha(self, t: Tensor | float) -> Tensor:
        t = as_time(t)
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def _time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The positive root of (1/4) (beta_max - beta_min) t^2 + (1/2) beta_min t + log alpha = 0, at most 1."""
        root = (self.beta_min**2 / 4 - (self.beta_max - self.beta_min) * log_alpha).sqrt()
        # This form of the root does not cancel near t = 0; log alpha = -inf lies beyond t = 1.
        return (-2 * log_alpha / (self.beta_min / 2 + root)).where(log_alpha.isfinite(), -log_alpha).clamp(0, 1)

    def alpha(self, t: Tensor | float) -> Tensor:
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor | float) -> Tensor:
        return (-torch.expm1(2 * self._log_alpha(t))).sqrt()

    def alpha_slope(self, t: Tensor | float) -> Tensor:
        return -self.beta(t) / 2 * self.alpha(t)

    def sigma_slope(self, t: Tensor | float) -> Tensor:
        return self.beta(t) * self.alpha(t) ** 2 / (2 * self.sigma(t))  # of sigma^2 = 1 - alpha^2; infinite at t = 0

    def time(self, log_snr: Tensor | float) -> Tensor:
        log_snr = _as_float("log_snr", log_snr)
        return self._time_of_log_alpha(-torch.nn.functional.softplus(-log_snr) / 2)

    def diffusion(self, t: Tensor | float) -> Tensor:
        return self.beta(t).sqrt()


class SubVPSchedule(LinearSchedule):
    """Sub-variance-preserving: alpha of the linear schedule, sigma = 1 - alpha^2 (Song et al. 2021, eqs 12, 29).

    Its noise is at every time at most that of the linear schedule; g^2 = beta (1 - alpha^4).
    """

    def sigma(self, t: Tensor | float) -> Tensor:
        return -torch.expm1(2 * self._log_alpha(t))

    def sigma_slope(self, t: Tensor | float) -> Tensor:
        return self.beta(t) * self.alpha(t) ** 2  # -2 alpha alpha'

    def time(self, log_snr: Tensor | float) -> Tensor:
        # sigma / alpha = (1 - alpha^2) / alpha = r, hence alpha = (sqrt(r^2 + 4) - r) / 2 = exp(-arsinh(r / 2)).
        ratio = torch.exp(-_as_float("log_snr", log_snr) / 2)
        return self._time_of_log_alpha(-torch.asinh(ratio / 2))

    def diffusion(self, t: Tensor | float) -> Tensor:
        return (-self.beta(t) * torch.expm1(4 * self._log_alpha(t))).sqrt()


class VESchedule(Schedule):
    """Variance exploding: alpha = 1, sigma_t = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021, eqs 9, 30).

    f = 0 and g = sigma_t sqrt(2 log(sigma_max / sigma_min)). Latents at t = 1 have standard deviation sigma_max.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        if not 0 < real("sigma_min", sigma_min) < real("sigma_max", sigma_max):
            raise BadArgument(f"expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self._growth = math.log(self.sigma_max / self.sigma_min)  # d log sigma / dt

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(as_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.sigma_min * torch.exp(as_time(t) * self._growth)

    def alpha_slope(self, t: Tensor | float) -> Tensor:
        return torch.zeros_like(as_time(t))

    def sigma_slope(self, t: Tensor | float) -> Tensor:
        return self.sigma(t) * self._growth

    def time(self, log_snr: Tensor | float) -> Tensor:
        log_sigma = -_as_float("log_snr", log_snr) / 2
        return ((log_sigma - math.log(self.sigma_min)) / self._growth).clamp(0, 1)


class FlowSchedule(Schedule):
    """The straight path alpha = 1 - t, sigma = t of flow matching (Lipman et al. 2023; Liu et al. 2023).

    z_t = (1 - t) x + t eps, whose velocity alpha' x + sigma' eps is eps - x at every t. At t = 1 nothing of x is left:
    the log-SNR runs from infinity to minus infinity, and f = -1 / (1 - t) is infinite at the end. t_min and t_max keep
    it within about [-23, 23].
    """

    t_min = 1e-5
    t_max = 1 - 1e-5

    def alpha(self, t: Tensor | float) -> Tensor:
        return 1 - as_time(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return as_time(t)

    def alpha_slope(self, t: Tensor | float) -> Tensor:
        return -torch.ones_like(as_time(t))

    def sigma_slope(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(as_time(t))

    def time(self, log_snr: Tensor | float) -> Tensor:
        return torch.sigmoid(-_as_float("log_snr", log_snr) / 2)  # sigma / alpha = t / (1 - t)


check_types(globals())
