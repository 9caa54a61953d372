"""Guidance against worlds in which the guided answer is known."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from minivdm.core import gaussian
from minivdm.core.denoiser import Denoiser
from minivdm.core.guidance import (
    Replacement,
    classifier,
    classifier_free,
    clipped,
    dynamically_thresholded,
    reconstruction,
)
from minivdm.core.samplers import ancestral_step, ddim_step, sample
from minivdm.core.schedules import CosineSchedule
from minivdm.exact import GaussianMixture, GaussianVideo

SCHEDULE = CosineSchedule(-12, 12)
MIXTURE = GaussianMixture.ring(4, 1.0, 0.3)
VIDEO = GaussianVideo(6, 0.9)
ONE_HOT = torch.tensor([[0.0, 1.0, 0.0, 0.0]])


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def eps_hat(denoise, z, t):
    return gaussian.eps_from_x(z, denoise(z, t), SCHEDULE.alpha(t), SCHEDULE.sigma(t))


def score(denoise, z, t):
    return gaussian.score_from_x(z, denoise(z, t), SCHEDULE.alpha(t), SCHEDULE.sigma(t))


# ---- classifier guidance and classifier-free ----------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_classifier_guidance_with_weight_one_is_bayes_rule(t, generator):
    # grad log p(z) + grad log p(c | z) = grad log p(z | c), exact in the mixture.
    z = normal(generator, 5, 2)
    guided = classifier(MIXTURE.denoiser(SCHEDULE), MIXTURE.log_class(1, SCHEDULE), 1.0)
    torch.testing.assert_close(guided(z, t), MIXTURE.denoiser(SCHEDULE).given(ONE_HOT)(z, t), rtol=1e-8, atol=1e-8)


def test_classifier_guidance_adds_the_weighted_gradient_to_the_score(generator):
    z, t, w = normal(generator, 5, 2).requires_grad_(), 0.5, 3.0
    (gradient,) = torch.autograd.grad(MIXTURE.log_class(1, SCHEDULE)(z, t).sum(), z)
    z = z.detach()
    guided = classifier(MIXTURE.denoiser(SCHEDULE), MIXTURE.log_class(1, SCHEDULE), w)
    expected = score(MIXTURE.denoiser(SCHEDULE), z, t) + w * gradient
    torch.testing.assert_close(score(guided, z, t), expected)


def test_classifier_free_guidance_in_eps(generator):
    # VDM eq 6: eps_tilde = (1 + w) eps_hat(z, c) - w eps_hat(z).
    conditional, unconditional = MIXTURE.denoiser(SCHEDULE).given(ONE_HOT), MIXTURE.denoiser(SCHEDULE)
    z, t, w = normal(generator, 5, 2), 0.5, 2.5
    expected = (1 + w) * eps_hat(conditional, z, t) - w * eps_hat(unconditional, z, t)
    torch.testing.assert_close(eps_hat(classifier_free(conditional, unconditional, w), z, t), expected)


def test_classifier_free_weight_keeps_its_digits(generator):
    conditional, unconditional = MIXTURE.denoiser(SCHEDULE).given(ONE_HOT), MIXTURE.denoiser(SCHEDULE)
    z, t, w = normal(generator, 5, 2), 0.5, 1.3  # not a float32
    expected = conditional(z, t) + w * (conditional(z, t) - unconditional(z, t))
    assert (classifier_free(conditional, unconditional, w)(z, t) - expected).abs().max() < 1e-14


def test_classifier_free_weight_zero_is_unguided(generator):
    conditional, unconditional = MIXTURE.denoiser(SCHEDULE).given(ONE_HOT), MIXTURE.denoiser(SCHEDULE)
    z = normal(generator, 5, 2)
    assert torch.equal(classifier_free(conditional, unconditional, 0.0)(z, 0.5), conditional(z, 0.5))
    torch.testing.assert_close(classifier_free(conditional, unconditional, -1.0)(z, 0.5), unconditional(z, 0.5))


def test_classifier_free_is_classifier_guidance_by_the_implicit_classifier(generator):
    # With p(c | z) from Bayes' rule, weight w around the conditional model is weight 1 + w around the unconditional.
    conditional, unconditional = MIXTURE.denoiser(SCHEDULE).given(ONE_HOT), MIXTURE.denoiser(SCHEDULE)
    z, w = normal(generator, 5, 2), 1.5
    explicit = classifier(unconditional, MIXTURE.log_class(1, SCHEDULE), 1 + w)
    implicit = classifier_free(conditional, unconditional, w)
    torch.testing.assert_close(explicit(z, 0.5), implicit(z, 0.5), rtol=1e-8, atol=1e-8)


def test_interval_confines_guidance(generator):
    conditional, unconditional = MIXTURE.denoiser(SCHEDULE).given(ONE_HOT), MIXTURE.denoiser(SCHEDULE)
    guided = classifier_free(conditional, unconditional, 2.0, interval=(-2, 2))
    z, t = normal(generator, 3, 2), SCHEDULE.time(torch.tensor([-3.0, 0.0, 3.0]))
    everywhere = classifier_free(conditional, unconditional, 2.0)(z, t)
    result = guided(z, t)
    torch.testing.assert_close(result[[0, 2]], conditional(z, t)[[0, 2]])
    torch.testing.assert_close(result[1], everywhere[1])


def test_guidance_raises_the_share_of_the_wanted_component(generator):
    noise = normal(generator, 200, 2)
    share = []
    for w in (-1.0, 0.0, 2.0):
        guided = classifier_free(MIXTURE.denoiser(SCHEDULE).given(ONE_HOT), MIXTURE.denoiser(SCHEDULE), w)
        share.append(MIXTURE.responsibilities(sample(guided, noise, 32))[:, 1].mean().item())
    assert share[0] == pytest.approx(0.25, abs=0.1)
    assert share[0] < share[1] < share[2]


# ---- replacement --------------------------------------------------------------------------------------------------


def test_fresh_replacement_draws_from_the_marginal(generator):
    # q(z_s^a | x^a) = N(alpha x^a, sigma^2).
    observed = torch.full((1, 1, 2, 1, 1), 0.7, dtype=torch.float64)
    project = Replacement(observed, SCHEDULE, frames=[1, 3], generator=generator)
    z = project(torch.zeros(20000, 1, 6, 1, 1, dtype=torch.float64), 0.4)
    assert (z[:, :, [0, 2, 4, 5]] == 0).all()
    drawn, sigma = z[:, 0, [1, 3], 0, 0], SCHEDULE.sigma(0.4)
    # five standard errors of mean and standard deviation
    assert (drawn.mean(0) - 0.7 * SCHEDULE.alpha(0.4)).abs().max() < 5 * sigma / math.sqrt(20000)
    assert (drawn.std(0) - sigma).abs().max() < 5 * sigma / math.sqrt(40000)


def test_posterior_replacement_keeps_the_joint_law_of_two_levels(generator):
    # Drawing z_t^a and then q(z_s^a | x^a, z_t^a) gives the forward process: Cov(z_s, z_t) = scale sigma_s^2.
    observed = torch.full((1, 1, 1, 1, 1), 0.7, dtype=torch.float64)
    project = Replacement(observed, SCHEDULE, draw="posterior", generator=generator)
    n, t, s = 40000, 0.5, 0.3
    z = torch.zeros(n, 1, 2, 1, 1, dtype=torch.float64)
    both = torch.stack([project(z, t)[:, 0, 0, 0, 0], project(z, s)[:, 0, 0, 0, 0]])
    scale, _ = gaussian.transition(s, t, SCHEDULE)
    sigma_s, sigma_t = SCHEDULE.sigma(s), SCHEDULE.sigma(t)
    expected = torch.stack([sigma_t**2, scale * sigma_s**2, scale * sigma_s**2, sigma_s**2]).reshape(2, 2)
    assert (torch.cov(both) - expected).abs().max() < 5 * math.sqrt(2 / n)  # five standard errors, variances <= 1
    assert (both[1].mean() - SCHEDULE.alpha(s) * 0.7).abs() < 5 / math.sqrt(n)
    again = project(z, s)[:, 0, 0, 0, 0]  # a corrector asks again at the same level
    assert torch.equal(again, both[1])


@pytest.mark.parametrize("draw", ["fresh", "posterior"])
def test_replacement_ends_at_the_observed_frames_themselves(draw, generator):
    observed = normal(generator, 3, 1, 2, 1, 1)
    project = Replacement(observed, SCHEDULE, draw=draw, generator=generator)
    noise = normal(generator, 3, 1, 6, 1, 1)
    x = sample(VIDEO.denoiser(SCHEDULE), noise, 8, step=ancestral_step, project=project, generator=generator)
    assert torch.equal(x[:, :, :2], observed)


def test_replacement_is_applied_at_the_level_just_reached():
    seen = []

    def project(z, t):
        seen.append(float(t))
        return z

    sample(VIDEO.denoiser(SCHEDULE), torch.zeros(1, 1, 6, 1, 1), 4, project=project)
    assert seen == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_what_replacement_misses(t, generator):
    # E[x^b | z, x^a] = E[x^b | z] + (sigma^2 / alpha) grad_{z^b} log q(x^a | z_t), q(x^a | z_t) being known here.
    z = normal(generator, 1, 1, 6, 1, 1).requires_grad_()
    observed = normal(generator, 1, 1, 2, 1, 1)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    c = VIDEO.covariance
    gain = alpha * c @ torch.linalg.inv(alpha**2 * c + sigma**2 * torch.eye(6, dtype=torch.float64))
    mean = (gain @ z.flatten())[:2]
    covariance = (c - gain @ (alpha * c))[:2, :2]
    log_q = torch.distributions.MultivariateNormal(mean, covariance).log_prob(observed.flatten())
    (gradient,) = torch.autograd.grad(log_q, z)
    z = z.detach()
    corrected = VIDEO.denoiser(SCHEDULE)(z, t) + sigma**2 / alpha * gradient
    exact = VIDEO.conditional_denoiser(SCHEDULE, observed)(z, t)
    # Only for the frames to generate: z^b is independent of z^a and x^a given x^b. z^a itself is not.
    torch.testing.assert_close(corrected[:, :, 2:], exact[:, :, 2:], rtol=1e-7, atol=1e-7)


# ---- reconstruction guidance --------------------------------------------------------------------------------------


@pytest.mark.parametrize("w", [0.0, 1.0, 5.0])
def test_reconstruction_is_vdm_equation_7(w, generator):
    # With x_hat = K z the gradient is -2 K_a^T (x^a - K_a z), summed over the observed values, not averaged.
    t, z, observed = 0.4, normal(generator, 3, 1, 6, 1, 1), normal(generator, 3, 1, 2, 1, 1)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    c = VIDEO.covariance
    gain = alpha * c @ torch.linalg.inv(alpha**2 * c + sigma**2 * torch.eye(6, dtype=torch.float64))
    x_hat = z.flatten(1) @ gain.T
    expected = x_hat + w * alpha * (observed.flatten(1) - x_hat[:, :2]) @ gain[:2]
    result = reconstruction(VIDEO.denoiser(SCHEDULE), observed, w)(z, t)
    torch.testing.assert_close(result.flatten(1), expected)


def test_reconstruction_has_the_variance_sigma_squared_over_alpha_squared(generator):
    # At w = 1 it is x_hat + (sigma^2 / alpha) grad log N(x^a; x_hat^a, sigma^2 / alpha^2).
    t, z, observed = 0.4, normal(generator, 3, 1, 6, 1, 1).requires_grad_(), normal(generator, 3, 1, 2, 1, 1)
    denoise, alpha, sigma = VIDEO.denoiser(SCHEDULE), SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    log_q = torch.distributions.Normal(denoise(z, t)[:, :, :2], sigma / alpha).log_prob(observed).sum()
    (gradient,) = torch.autograd.grad(log_q, z)
    z = z.detach()
    expected = denoise(z, t) + sigma**2 / alpha * gradient
    torch.testing.assert_close(reconstruction(denoise, observed, 1.0)(z, t), expected)


def test_reconstruction_through_a_downsampler_is_vdm_equation_8(generator):
    video = GaussianVideo(2, size=(4, 4), pixel_correlation=0.8)
    t, w, z = 0.4, 2.0, normal(generator, 2, 1, 2, 4, 4)
    observed = normal(generator, 2, 1, 2, 2, 2)
    down = partial(nn.functional.avg_pool3d, kernel_size=(1, 2, 2))
    pooling = down(torch.eye(32, dtype=torch.float64).reshape(32, 1, 2, 4, 4)).reshape(32, 8).T
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    c = video.covariance
    gain = alpha * c @ torch.linalg.inv(alpha**2 * c + sigma**2 * torch.eye(32, dtype=torch.float64))
    x_hat = z.flatten(1) @ gain.T
    expected = x_hat + w * alpha * (observed.flatten(1) - x_hat @ pooling.T) @ (pooling @ gain)
    result = reconstruction(video.denoiser(SCHEDULE), observed, w, observe=down)(z, t)
    torch.testing.assert_close(result.flatten(1), expected)


def test_reconstruction_composes_with_classifier_free_guidance(generator):
    conditional, unconditional = MIXTURE.denoiser(SCHEDULE).given(ONE_HOT), MIXTURE.denoiser(SCHEDULE)
    inner = classifier_free(conditional, unconditional, 1.0)
    z, t, observed = normal(generator, 3, 2), 0.4, normal(generator, 3, 1)
    result = reconstruction(inner, observed, 2.0, observe=lambda x: x[:, :1])(z, t)
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((observed - inner(leaf, t)[:, :1]).square().sum(), leaf)
    torch.testing.assert_close(result, inner(z, t) - SCHEDULE.alpha(t) * gradient)


def test_guidance_around_guidance_differentiates_through_both(generator):
    inner = reconstruction(MIXTURE.denoiser(SCHEDULE), normal(generator, 1, 1), 1.0, observe=lambda x: x[:, :1])
    z = normal(generator, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: inner(z, 0.5), (z,))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradient_guidance_works_where_gradients_are_off(context, generator):
    network = nn.Linear(6, 6).double()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = network

        def forward(self, z, log_snr):
            return self.layer(z.flatten(1)).reshape(z.shape)

    denoise = Denoiser(Network(), SCHEDULE)
    guided = reconstruction(denoise, normal(generator, 2, 1, 2, 1, 1), 2.0)
    z = normal(generator, 2, 1, 6, 1, 1)
    expected = guided(z, 0.5)
    with context():
        inside = guided(z.clone(), 0.5)
    torch.testing.assert_close(inside.clone(), expected)
    assert not inside.requires_grad
    assert network.weight.grad is None  # the network is not trained by sampling


def test_guided_denoisers_run_in_every_sampler(generator):
    observed = normal(generator, 2, 1, 2, 1, 1)
    guided = reconstruction(VIDEO.denoiser(SCHEDULE), observed, 2.0)
    for step in (ddim_step, ancestral_step):
        x = sample(guided, normal(generator, 2, 1, 6, 1, 1), 8, step=step, generator=generator)
        assert x.isfinite().all() and not x.requires_grad


# ---- clipping -----------------------------------------------------------------------------------------------------


def test_after_clipping_the_noise_is_rederived(generator):
    denoise = clipped(MIXTURE.denoiser(SCHEDULE), -0.1, 0.1)
    z, t, s = normal(generator, 4, 2), 0.6, 0.4
    x_hat = MIXTURE.denoiser(SCHEDULE)(z, t).clamp(-0.1, 0.1)
    eps = (z - SCHEDULE.alpha(t) * x_hat) / SCHEDULE.sigma(t)
    torch.testing.assert_close(ddim_step(denoise, z, t, s), SCHEDULE.alpha(s) * x_hat + SCHEDULE.sigma(s) * eps)


def test_dynamic_thresholding_keeps_small_samples_and_shrinks_large_ones():
    class Constant:
        schedule = SCHEDULE

        def __call__(self, z, t):
            return torch.tensor([[0.5, -0.5], [2.0, -4.0]])

    result = dynamically_thresholded(Constant(), quantile=0.5)(torch.zeros(2, 2), 0.5)
    torch.testing.assert_close(result, torch.tensor([[0.5, -0.5], [1.0, -1.0]]))


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_weights_have_to_be_finite(weight):
    denoise = MIXTURE.denoiser(SCHEDULE)
    for make in (
        lambda: classifier_free(denoise, denoise, weight),
        lambda: classifier(denoise, MIXTURE.log_class(0, SCHEDULE), weight),
        lambda: reconstruction(denoise, torch.zeros(1, 1, 1, 1, 1), weight),
    ):
        with pytest.raises(ValueError, match="weight: expected a finite number"):
            make()


def test_observations_of_another_shape_are_refused():
    guided = reconstruction(VIDEO.denoiser(SCHEDULE), torch.zeros(1, 1, 2, 2, 2), 1.0)
    with pytest.raises(ValueError, match="observed of shape"):
        guided(torch.zeros(2, 1, 6, 1, 1), 0.5)
    for shape in ((1, 1, 2, 1, 1), (3, 1, 2, 4, 4), (2, 3, 2, 4, 4)):  # pixels, batch, channels
        with pytest.raises(ValueError, match="observed of shape"):
            Replacement(torch.zeros(shape), SCHEDULE)(torch.zeros(2, 1, 6, 4, 4), 0.5)
    with pytest.raises(ValueError, match="frame indices"):
        Replacement(torch.zeros(1, 1, 2, 1, 1), SCHEDULE, frames=[0])
    with pytest.raises(ValueError, match="draw: expected one of 'fresh', 'posterior'"):
        Replacement(torch.zeros(1, 1, 2, 1, 1), SCHEDULE, draw="stale")
    with pytest.raises(ValueError, match="low < high"):
        clipped(VIDEO.denoiser(SCHEDULE), 1, -1)
    with pytest.raises(ValueError, match="quantile"):
        dynamically_thresholded(VIDEO.denoiser(SCHEDULE), 0)
