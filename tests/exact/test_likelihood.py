"""Likelihoods against closed forms."""

import math

import pytest
import torch

from minivdm.core.schedules import CosineSchedule, LinearSchedule, SubVPSchedule, VESchedule
from minivdm.core.time_grids import karras
from minivdm.exact import GaussianMixture, GaussianVideo
from minivdm.exact.likelihood import (
    exact_divergence,
    hutchinson_divergence,
    log_likelihood,
    normal_log_prob,
    signs_like,
)

SCHEDULES = [CosineSchedule(), LinearSchedule(), SubVPSchedule(), VESchedule(0.01, 20.0)]
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
MIXTURE = GaussianMixture.ring(5, 1.0, 0.25)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_divergence_is_the_trace_of_the_jacobian(generator):
    matrix, z = normal(generator, 4, 4), normal(generator, 3, 1, 2, 2, 1)

    def field(z):
        return (z.flatten(1) ** 2 @ matrix.T).reshape(z.shape)

    value, trace = exact_divergence(field, z)
    torch.testing.assert_close(value, field(z))
    torch.testing.assert_close(trace, (2 * z.flatten(1) * matrix.diagonal()).sum(1))


def test_hutchinson_is_exact_over_all_signs(generator):
    # In two dimensions the average over the four sign vectors is the trace itself.
    matrix, z = normal(generator, 2, 2), normal(generator, 3, 2)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()[:, None].expand(4, 3, 2)
    _, trace = hutchinson_divergence(signs)(lambda z: z @ matrix.T, z)
    torch.testing.assert_close(trace, matrix.trace().expand(3))


def test_signs_are_fair(generator):
    signs = signs_like(torch.zeros(100, 10), 10, generator)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 5 / math.sqrt(10000)


def test_normal_log_prob(generator):
    z = normal(generator, 3, 1, 2, 2, 1)
    expected = torch.distributions.Normal(0.0, 2.0).log_prob(z).flatten(1).sum(1)
    torch.testing.assert_close(normal_log_prob(z, 2.0), expected)


@every
def test_ode_likelihood_of_the_mixture(schedule, generator):
    # Within 0.01 nats per dimension at 200 Heun steps.
    x, _ = MIXTURE.sample(16, generator)
    error = log_likelihood(MIXTURE.denoiser(schedule), x) - MIXTURE.log_prob(x)
    assert error.abs().max() / 2 < 0.01


def test_ode_likelihood_of_the_video(generator):
    video = GaussianVideo(16, 0.9)
    x = video.sample(4, generator)
    error = log_likelihood(video.denoiser(CosineSchedule()), x, steps=50) - video.log_prob(x)
    assert error.abs().max() / 16 < 0.01


def test_a_grid_that_starts_below_one_ends_at_its_own_prior(generator):
    # The grid of Karras from sigma = 10 on a schedule that goes to 50: z there has standard deviation (1 + 100)^(1/2).
    schedule, video = VESchedule(0.01, 50.0), GaussianVideo(2, 0.5)
    x = video.sample(16, generator)
    found = log_likelihood(video.denoiser(schedule), x, grid=karras(200, schedule, sigma_max=10.0))
    # 0.02: the prior there is not yet the law of z_t, and t_min's noise of 0.01 stands for none.
    assert (found - video.log_prob(x)).abs().max() < 0.02


def test_hutchinson_likelihood_is_unbiased(generator):
    # One point many times over, each with its own signs: the mean within five standard errors of the exact trace's.
    n = 300
    x = MIXTURE.sample(1, generator)[0].expand(n, 2)
    denoise = MIXTURE.denoiser(CosineSchedule())
    estimates = log_likelihood(denoise, x, steps=30, probes=1, generator=generator)
    exact = log_likelihood(denoise, x[:1], steps=30)
    assert estimates.std() > 0
    assert (estimates.mean() - exact).abs() < 5 * estimates.std() / math.sqrt(n)


def test_bad_input_is_named():
    denoise, x = MIXTURE.denoiser(CosineSchedule()), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="steps: expected"):
        log_likelihood(denoise, x, steps=0)
    with pytest.raises(ValueError, match="probes"):
        log_likelihood(denoise, x, probes=-1)
    with pytest.raises(ValueError, match="decreasing"):
        log_likelihood(denoise, x, grid=[0.0, 1.0])
