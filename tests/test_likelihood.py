"""Likelihoods against closed forms."""

import math

import pytest
import torch

from minivdm.exact import GaussianMixture, GaussianVideo
from minivdm.likelihood import (
    exact_divergence,
    hutchinson_divergence,
    log_likelihood,
    normal_log_prob,
    signs_like,
    variational_bound,
)
from minivdm.schedules import CosineSchedule, LinearSchedule, SubVPSchedule, VESchedule

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


def test_hutchinson_likelihood_is_unbiased(generator):
    # One point many times over, each with its own signs: the mean within five standard errors of the exact trace's.
    n = 300
    x = MIXTURE.sample(1, generator)[0].expand(n, 2)
    denoise = MIXTURE.denoiser(CosineSchedule())
    estimates = log_likelihood(denoise, x, steps=30, probes=1, generator=generator)
    exact = log_likelihood(denoise, x[:1], steps=30)
    assert estimates.std() > 0
    assert (estimates.mean() - exact).abs() < 5 * estimates.std() / math.sqrt(n)


@pytest.mark.parametrize("schedule", [CosineSchedule(), CosineSchedule(-12, 12), LinearSchedule()], ids=str)
@pytest.mark.parametrize("uniform_in", ["t", "log_snr"])
def test_bound_is_tight_for_the_exact_denoiser(uniform_in, schedule, generator):
    # Its value does not depend on the schedule nor on how lambda is drawn. Four standard errors of the mean.
    x, _ = MIXTURE.sample(256, generator)
    bound = variational_bound(MIXTURE.denoiser(schedule), x, draws=64, uniform_in=uniform_in, generator=generator)
    gap = bound.total + MIXTURE.log_prob(x)
    error = bound.standard_error.square().sum().sqrt() / 256
    assert gap.mean().abs() < 4 * error


def test_bound_of_another_model_is_its_own_likelihood_and_lies_above(generator):
    # The denoiser of a wider mixture p' makes p' the model: the bound is -log p'(x), and exceeds -log p(x) on average.
    x, _ = MIXTURE.sample(256, generator)
    wider = GaussianMixture.ring(5, 1.0, 1.0)
    bound = variational_bound(wider.denoiser(CosineSchedule(-12, 12)), x, draws=64, generator=generator)
    error = bound.standard_error.square().sum().sqrt() / 256
    assert (bound.total + wider.log_prob(x)).mean().abs() < 4 * error
    assert (bound.total + MIXTURE.log_prob(x)).mean() > 4 * error


def test_uniform_in_lambda_varies_less(generator):
    x, _ = MIXTURE.sample(64, generator)
    by_t, by_log_snr = (
        variational_bound(MIXTURE.denoiser(CosineSchedule()), x, 64, uniform_in, generator).standard_error.mean()
        for uniform_in in ("t", "log_snr")
    )
    assert by_log_snr < 0.7 * by_t


def test_bound_of_a_gaussian_in_closed_form(generator):
    # x ~ N(0, I): with x_hat = alpha z, ||x - x_hat||^2 integrates to -log p(x) with prior and reconstruction.
    video = GaussianVideo(3, 0.0)
    x = video.sample(64, generator)
    bound = variational_bound(video.denoiser(CosineSchedule(-12, 12)), x, draws=256, generator=generator)
    gap = bound.total + video.log_prob(x)
    assert gap.mean().abs() < 4 * bound.standard_error.square().sum().sqrt() / 64


def test_bad_input_is_named():
    denoise, x = MIXTURE.denoiser(CosineSchedule()), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="at least one step"):
        log_likelihood(denoise, x, steps=0)
    with pytest.raises(ValueError, match="uniform_in"):
        variational_bound(denoise, x, uniform_in="sigma")
