"""The drawings of lesson 11, and its equations."""

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import samplers
from minivdm.core.guidance import reconstruction
from minivdm.core.observe import Downsample, Frames, Several
from minivdm.course.notebook.figures import super_resolution as fig
from minivdm.exact import Law

SCHEDULE = fig.lesson_schedule()
WORLD = fig.small_world()
DENOISE = WORLD.denoiser(SCHEDULE)
D = fig.matrix_of(fig.LOW, WORLD.shape)  # (m, d)
T = torch.tensor(0.45, dtype=torch.float64)
ALPHA, SIGMA = SCHEDULE.alpha(T), SCHEDULE.sigma(T)
Z = torch.randn(3, *WORLD.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
X = WORLD.sample(3, torch.Generator().manual_seed(2))
Y = fig.LOW(X)
C = fig.posterior_covariance(WORLD, ALPHA, SIGMA)


def corrected(method, weight=1.0):
    """x_hat + K (y - D x_hat), like Z."""
    x_hat = DENOISE(Z, T).flatten(1)
    k = fig.gain(method, C, D, ALPHA, SIGMA, weight)
    return (x_hat + (Y.flatten(1) - x_hat @ D.T) @ k.T).reshape(Z.shape)


# --- equations; tolerances of 1e-9 and below are float64 rounding


@pytest.mark.parametrize("space", [2, 4])
def test_block_means_have_the_gram_matrix_of_a_scaled_identity(space):
    shape = (1, 2, 8, 8)
    d = fig.matrix_of(Downsample(space), shape)
    assert (d @ d.T - torch.eye(len(d)) / space**2).abs().max() < 1e-12
    x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spread = Downsample(space)(x).repeat_interleave(space, -1).repeat_interleave(space, -2)
    assert (x.flatten(1) @ (space**2 * d.T @ d).T - spread.flatten(1)).abs().max() < 1e-12  # D+ D x
    assert (Downsample(space)(x - spread)).abs().max() < 1e-12  # the rest cannot be seen


def test_conditional_estimate_is_bayes_rule_for_scores():
    z = Z.clone().requires_grad_()
    # y given z_t is Gaussian with mean D x_hat and covariance D C D^T
    law = torch.distributions.MultivariateNormal(DENOISE(z, T).flatten(1) @ D.T, D @ C @ D.T)
    (gradient,) = torch.autograd.grad(law.log_prob(Y.flatten(1)).sum(), z)
    expected = DENOISE(Z, T) + SIGMA**2 / ALPHA * gradient
    assert (WORLD.conditional_denoiser(SCHEDULE, Y, operator=D)(Z, T) - expected).abs().max() < 1e-9


def test_jacobian_of_a_denoiser_is_its_posterior_covariance():
    z = Z[:1]
    jacobian = torch.autograd.functional.jacobian(lambda z: DENOISE(z, T).flatten(), z).reshape(len(C), -1)
    assert (jacobian - ALPHA / SIGMA**2 * C).abs().max() < 1e-10


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_reconstruction_guidance_is_a_gain(weight):
    guided = reconstruction(DENOISE, Y, weight, fig.LOW)
    assert (guided(Z, T) - corrected("eq 8", weight)).abs().max() < 1e-9
    guided = reconstruction(DENOISE, Y, weight, fig.LOW, "pigdm")
    assert (guided(Z, T) - corrected("ΠGDM", weight)).abs().max() < 1e-9


def test_exact_conditional_is_a_gain():
    exact = WORLD.conditional_denoiser(SCHEDULE, Y, operator=D)(Z, T)
    assert (exact - corrected("exact")).abs().max() < 1e-9


def test_excess_is_the_mean_squared_distance_from_the_exact_estimate():
    log_snr = float(SCHEDULE.log_snr(T))
    g = torch.Generator().manual_seed(3)
    x = WORLD.sample(20000, g)
    z = ALPHA * x + SIGMA * torch.randn(x.shape, generator=g, dtype=torch.float64)
    residual = fig.LOW(x).flatten(1) - DENOISE(z, T).flatten(1) @ D.T
    off = fig.gain("eq 8", C, D, ALPHA, SIGMA, 2.0) - fig.gain("exact", C, D, ALPHA, SIGMA)
    found = (residual @ off.T).square().mean()
    # 20,000 draws: the standard error is about 1 %
    assert abs(found / fig.excess("eq 8", WORLD, log_snr, 2.0) - 1) < 0.05


def test_eq_8_never_enlarges_a_gaussian_residual_up_to_twice_the_block():
    for log_snr in (-8.0, -2.0, 0.0, 3.0, 8.0):
        assert fig.leftover(WORLD, log_snr, 8.0).abs().max() <= 1 + 1e-12
    assert fig.leftover(WORLD, 8.0, 4.0).abs().max() < 0.05  # w_r = 4 is the exact gain towards clean data
    assert fig.leftover(WORLD, 8.0, 16.0).abs().max() > 2


def test_several_observations_add_their_squares():
    both = Several(Frames([0]), Downsample(2, frames=[1, 2]))
    joined = both.join(X[:, :, :1], Downsample(2, frames=[1, 2])(X))
    guided = reconstruction(DENOISE, joined, 3.0, both)(Z, T)
    parts = [reconstruction(DENOISE, observe(X), 3.0, observe)(Z, T) - DENOISE(Z, T) for observe in both.observe]
    assert (guided - DENOISE(Z, T) - parts[0] - parts[1]).abs().max() < 1e-9


def test_a_mean_instead_of_a_sum_is_a_weight_divided_by_the_number_of_values():
    n = Y[0].numel()
    z = Z.clone().requires_grad_()
    mean = (Y - fig.LOW(DENOISE(z, T))).square().flatten(1).mean(1).sum()
    (gradient,) = torch.autograd.grad(mean, z)
    expected = DENOISE(Z, T) - 5.0 * ALPHA / 2 * gradient
    assert (reconstruction(DENOISE, Y, 5.0 / n, fig.LOW)(Z, T) - expected).abs().max() < 1e-10


def test_sampled_law_is_that_of_samples():
    law = fig.sampled_law(WORLD, Y[:1], 4.0, steps=12)
    noise = torch.randn(4000, *WORLD.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    guided = reconstruction(DENOISE, Y[:1], 4.0, fig.LOW)
    x = samplers.sample(
        guided,
        noise * SCHEDULE.prior_std(1.0),
        12,
        step=samplers.ancestral_step,
        generator=torch.Generator().manual_seed(6),
    ).flatten(1)
    assert (x.mean(0) - law.mean).abs().max() < 5 * x.std(0).max() / 4000**0.5  # five standard errors
    assert (torch.cov(x.T) - law.covariance).abs().max() < 0.1 * law.covariance.diagonal().max()


# --- figures


def test_the_slider_draws_the_formula():
    drawn = fig.draw_gains(2.0, 0.5)
    line = {line.get_label(): line for line in drawn.axes[0].lines}["eq 8"]
    x, y = line.get_xdata()[10], line.get_ydata()[10]
    assert abs(y - fig.excess("eq 8", fig.small_world(0.5), float(x), 2.0)) < 1e-12


def test_the_others_return_figures():
    for drawn in (fig.draw_written(), fig.draw_leftover([4.0, 16.0]), fig.draw_distances({"a": {0.0: 1.0, 4.0: 0.2}})):
        assert isinstance(drawn, Figure)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="eq 8"):
        fig.gain("magic", C, D, ALPHA, SIGMA)


def test_the_mean_transported_to_the_data_errs_less_than_a_draw():
    """(11.11) at P = 0, by its construction: the mean, mapped onto the data's law by optimal transport, errs by the
    error of the mean and the squared distance of the two laws, which is below twice the error of the mean."""
    world = fig.small_world()
    operator = fig.matrix_of(fig.LOW, world.shape)
    cov = world.covariance
    of_mean = cov @ operator.T @ torch.linalg.inv(operator @ cov @ operator.T) @ operator @ cov
    least = (cov - of_mean).trace()
    distance = world.wasserstein(Law(torch.zeros(len(cov), dtype=cov.dtype), of_mean))
    # The coupling of mean m and answer a with least cost has E m a^T of trace tr (of_mean^1/2 cov of_mean^1/2)^1/2,
    # and x is correlated with the answer through m alone: E|x - a|^2 = tr cov + tr cov - 2 tr E[m a^T].
    values, axes = torch.linalg.eigh(of_mean)
    root = axes * values.clamp(min=0).sqrt() @ axes.T
    shared = torch.linalg.eigvalsh(root @ cov @ root).clamp(min=0).sqrt().sum()
    assert abs(2 * cov.trace() - 2 * shared - (least + distance**2)) < 1e-6  # roots of zero eigenvalues lose digits
    assert least + distance**2 < 2 * least
