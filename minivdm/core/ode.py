r"""Solvers of the probability-flow ODE: steps without randomness, whose paths have the marginals q_t.

    dz/dt = f z - (1/2) g^2 score = alpha' x_hat + sigma' eps_hat         (Song et al. 2021, eq 13)

Each is a step `(denoise, z, t, s, generator=None) -> z_s` for `samplers.sample`; the generator goes unused.
DDIM with eta = 0 belongs here too, but lives with its random relatives in `samplers`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoise
from minivdm.core.gaussian import eps_from_x, expand, ordered, v_from_x


def velocity(denoise: Denoise, z: Tensor, t: Tensor | float) -> Tensor:
    """dz/dt = f z - (1/2) g^2 score = alpha' x_hat + sigma' eps_hat (Song et al. 2021, eq 13).

    The second form is the one computed: where alpha is small, the terms of the first are huge and cancel.
    """
    schedule = denoise.schedule
    alpha, sigma, f, g = schedule.alpha(t), schedule.sigma(t), schedule.drift(t), schedule.diffusion(t)
    x_hat = denoise(z, t)
    eps_hat = eps_from_x(z, x_hat, alpha, sigma)
    slope = f * sigma + g**2 / (2 * sigma)  # sigma', from g^2 = 2 sigma sigma' - 2 f sigma^2
    return expand(f * alpha, z) * x_hat + expand(slope, z) * eps_hat


def euler_step(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, generator=None) -> Tensor:
    """z_s = z_t + (s - t) velocity(z_t, t): first order."""
    s, t = ordered(s, t)
    return z + expand(s - t, z) * velocity(denoise, z, t)


def heun_step(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, generator=None) -> Tensor:
    """Euler's step, then the mean of the velocities at both its ends: second order.

    Karras et al. 2022, algorithm 1.
    """
    s, t = ordered(s, t)
    start = velocity(denoise, z, t)
    end = velocity(denoise, z + expand(s - t, z) * start, s)
    return z + expand((s - t) / 2, z) * (start + end)


def angular_ddim_step(denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, generator=None) -> Tensor:
    """z_s = cos(phi_s - phi_t) z_t + sin(phi_s - phi_t) v_hat: DDIM as a rotation.

    Salimans & Ho 2022, appendix D.

    Equal to `ddim_step` where variance is preserved; ValueError where it is not.
    """
    schedule = denoise.schedule
    s, t = ordered(s, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if not torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha)):
        raise ValueError(f"expected alpha^2 + sigma^2 = 1, got {(alpha**2 + sigma**2).tolist()}")
    turn = schedule.angle(s) - schedule.angle(t)
    v_hat = v_from_x(z, denoise(z, t), alpha, sigma)
    return expand(turn.cos(), z) * z + expand(turn.sin(), z) * v_hat


class DPMSolverPlusPlus2M:
    """DPM-Solver++(2M): second order at one denoiser call a step (Lu et al. 2022, algorithm 2).

    In l = lambda / 2 the flow is exactly z_s = (sigma_s / sigma_t) z_t + sigma_s * integral of e^l x_hat dl;
    x_hat is extrapolated linearly from this step and the last. An object remembers where its last step ended
    and what x_hat was
    there: a step that starts elsewhere, as the first one does, is of first order, which is DDIM.
    """

    def __init__(self) -> None:
        self.reached: Tensor | None = None  # the time at which the last step ended
        self.last: tuple[Tensor, Tensor] | None = None  # its length in l, and its x_hat

    def __call__(self, denoise: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, generator=None) -> Tensor:
        schedule = denoise.schedule
        s, t = ordered(s, t)
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        x_hat = denoise(z, t)
        guess = x_hat
        if self.last is not None and self.reached is not None and torch.equal(self.reached, t):
            last_h, last_x_hat = self.last
            if last_x_hat.shape == x_hat.shape:
                guess = x_hat + expand(h / (2 * last_h), z) * (x_hat - last_x_hat)
        self.reached, self.last = s, (h, x_hat)
        ratio = schedule.sigma(s) / schedule.sigma(t)
        return expand(ratio, z) * z - expand(schedule.alpha(s) * torch.expm1(-h), z) * guess
