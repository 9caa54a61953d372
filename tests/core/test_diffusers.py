"""Samplers against an independent implementation, the schedulers of diffusers, on the same denoiser."""

import pytest
import torch

from minivdm.core.samplers import DPMSolverPlusPlus2M, ddim_law, sample
from minivdm.core.schedules import Schedule
from minivdm.exact import GaussianMixture

pytest.importorskip("diffusers", reason="make bounds leaves it out: it would need a torch of its own age")

MIXTURE = GaussianMixture.ring(5, 1.0, 0.25)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Tabulated(Schedule):
    """The discrete schedule of diffusers: its step k is our time (k + 1) / n, and time 0 is clean."""

    def __init__(self, alphas_cumprod):
        self.power = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod.double()])

    def _power(self, t):
        return self.power[(torch.as_tensor(t) * (len(self.power) - 1)).round().long()]

    def alpha(self, t):
        return self._power(t).sqrt()

    def sigma(self, t):
        return (1 - self._power(t)).sqrt()

    def log_snr(self, t):
        return (self._power(t) / (1 - self._power(t))).log()

    def alpha_slope(self, t):
        raise NotImplementedError

    sigma_slope = alpha_slope


def run_diffusers(scheduler, denoise, z, steps):
    scheduler.set_timesteps(steps)
    times = [(int(k) + 1) / 1000 for k in scheduler.timesteps] + [0.0]
    for k, t in zip(scheduler.timesteps, times, strict=False):
        z = scheduler.step(denoise(z, t), k, z).prev_sample
    return z, times


# 1e-5: diffusers keeps its coefficients in float32.
SETTINGS = {"prediction_type": "sample", "timestep_spacing": "trailing"}


def test_ddim_agrees_with_diffusers(generator):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **SETTINGS)
    denoise = MIXTURE.denoiser(Tabulated(scheduler.alphas_cumprod))
    z = normal(generator, 16, 2)
    expected, times = run_diffusers(scheduler, denoise, z, 20)
    torch.testing.assert_close(sample(denoise, z, grid=times), expected, rtol=0, atol=1e-5)


def test_ddim_with_noise_agrees_with_diffusers(generator):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, **SETTINGS)
    scheduler.set_timesteps(20)
    denoise = MIXTURE.denoiser(Tabulated(scheduler.alphas_cumprod))
    z, noise = normal(generator, 16, 2), normal(generator, 16, 2)
    k, t, s = 499, 0.5, 0.45
    expected = scheduler.step(denoise(z, t), k, z, eta=0.6, variance_noise=noise).prev_sample
    mean, variance = ddim_law(denoise, z, t, s, eta=0.6)
    torch.testing.assert_close(mean + variance.sqrt() * noise, expected, rtol=0, atol=1e-5)


def test_dpm_solver_agrees_with_diffusers(generator):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", final_sigmas_type="zero", **SETTINGS
    )
    denoise = MIXTURE.denoiser(Tabulated(scheduler.alphas_cumprod))
    z = normal(generator, 16, 2)
    expected, times = run_diffusers(scheduler, denoise, z, 20)
    result = sample(denoise, z, grid=times, step=DPMSolverPlusPlus2M())
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
