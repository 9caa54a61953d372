r"""Solvers of the probability-flow ODE: steps without randomness, whose paths have the marginals q_t.

    dz/dt = f z - (1/2) g^2 score = alpha' x_hat + sigma' eps_hat         (Song et al. 2021, eq 13)

Each is a step `(denoise, z, t, s, generator=None) -> z_s` for `samplers.sample`; the generator goes unused.
DDIM with eta = 0 belongs here too, but lives with its random relatives in `samplers`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoise, schedule_of
from minivdm.core.gaussian import expand, ordered, same_shape, v_from_x, velocity_from_x
from minivdm.guards import BadArgument, check_types


def velocity(denoise: Denoise, z: Tensor, t: Tensor | float) -> Tensor:
    """dz/dt = f z - (1/2) g^2 score = alpha' x_hat + sigma' eps_hat (Song et al. 2021, eq 13).

    The second form is the one computed: where alpha is small, the terms of the first are huge and cancel, and where it
    is 0, at the start of the flow path, they are infinite.
    """
    schedule = schedule_of(denoise)
    slopes = (schedule.alpha_slope(t), schedule.sigma_slope(t))
    return velocity_from_x(z, denoise(z, t), schedule.alpha(t), schedule.sigma(t), slopes)


def euler_step(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, generator=None) -> Tensor:
    """z_s = z_t + (s - t) velocity(z_t, t): first order."""
    s, t = ordered(s, t)
    return z + expand(s - t, z) * velocity(denoise, z, t)


def heun_step(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, generator=None) -> Tensor:
    """Euler's step, then the mean of the velocities at both its ends: second order (Karras et al. 2022, algorithm 1).

    Where no noise is left at s, the velocity there is not known, and Euler's step stands, as in the algorithm.
    """
    s, t = ordered(s, t)
    start = velocity(denoise, z, t)
    euler = z + expand(s - t, z) * start
    if bool((schedule_of(denoise).sigma(s) == 0).all()):
        return euler
    return z + expand((s - t) / 2, z) * (start + velocity(denoise, euler, s))


def angular_ddim_step(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, generator=None) -> Tensor:
    """z_s = cos(phi_s - phi_t) z_t + sin(phi_s - phi_t) v_hat: DDIM as a rotation (Salimans & Ho 2022, appendix D).

    Equal to `ddim_step` where variance is preserved; BadArgument where it is not.
    """
    schedule = schedule_of(denoise)
    s, t = ordered(s, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if not torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha)):
        raise BadArgument(f"schedule: expected alpha^2 + sigma^2 = 1, got {(alpha**2 + sigma**2).tolist()}")
    turn = schedule.angle(s) - schedule.angle(t)
    v_hat = v_from_x(z, denoise(z, t), alpha, sigma)
    return expand(turn.cos(), z) * z + expand(turn.sin(), z) * v_hat


@runtime_checkable
class Multistep(Protocol):
    """A solver that learns from its earlier steps: they come in as `past`, None at first, and go out again."""

    def advance(
        self, denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, past: Any = None
    ) -> tuple[Tensor, Any]: ...


class Past(NamedTuple):
    """Of the step before: its length in lambda / 2, and its x_hat."""

    h: Tensor
    x_hat: Tensor


class DPMSolverPlusPlus2M:
    """DPM-Solver++(2M): second order at one denoiser call a step (Lu et al. 2022, algorithm 2).

    In l = lambda / 2 the flow is exactly z_s = (sigma_s / sigma_t) z_t + sigma_s * integral of e^l x_hat dl; x_hat is
    extrapolated linearly from this step and the last. Without a past, as on the first step, and where a step has no
    end in l because no noise is left, it is of first order, which is DDIM. The object itself remembers nothing.
    """

    def __call__(self, denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, generator=None) -> Tensor:
        """A step without a past."""
        return self.advance(denoise, z, t, s)[0]

    def advance(
        self, denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, past: Past | None = None
    ) -> tuple[Tensor, Past]:
        """z_s, and what the next step has to know of this one."""
        schedule = schedule_of(denoise)
        s, t = ordered(s, t)
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        guess = x_hat = denoise(z, t)
        same_shape(z, x_hat, "x_hat")
        if past is not None and past.x_hat.shape == x_hat.shape and bool(h.isfinite().all()):
            guess = x_hat + expand(h / (2 * past.h), z) * (x_hat - past.x_hat)
        ratio = schedule.sigma(s) / schedule.sigma(t)
        return expand(ratio, z) * z - expand(schedule.alpha(s) * torch.expm1(-h), z) * guess, Past(h, x_hat)


check_types(globals())
