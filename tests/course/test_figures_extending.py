"""The drawings of lesson 10, and the equations of it that have no test elsewhere."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core.guidance import reconstruction
from minivdm.core.samplers import ancestral_law
from minivdm.course.notebook.figures import extending as fig
from minivdm.course.notebook.figures import particles as particles_of
from minivdm.tasks.orders import autoregressive, plan

WORLD, SCHEDULE = fig.world(), fig.lesson_schedule()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(log_snr):
    return SCHEDULE.time(torch.tensor(log_snr, dtype=torch.float64))


# ---- what an estimate knows ------------------------------------------------------------------------------------------


def test_score_of_the_conditional_law_is_bayes_rule():
    # (10.1) by differentiating: log q(z | x^a) - log q(z) - log q(x^a | z) does not depend on z^b.
    z, x_a, t = normal(1, 1, 16, 1, 1).requires_grad_(), normal(1, 1, 4, 1, 1, seed=1), at(-1.0)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    mean = WORLD.posterior_mean(z, alpha, sigma)[0, 0, :4, 0, 0]
    likelihood = torch.distributions.MultivariateNormal(mean, fig.posterior_covariance(-1.0))
    rest = WORLD.given(x_a).log_prob(z, alpha, sigma) - WORLD.log_prob(z, alpha, sigma)
    rest = rest - likelihood.log_prob(x_a.flatten())
    (gradient,) = torch.autograd.grad(rest.sum(), z)
    assert gradient[:, :, 4:].abs().max() < 1e-8  # float64 after three inversions


@pytest.mark.parametrize(("method", "weight"), [("replacement", 0.0), ("reconstruction", 2.0), ("exact", 0.0)])
def test_estimates_are_the_matrices_of_the_denoiser(method, weight):
    x_a, z = normal(5, 1, 4, 1, 1), normal(5, 1, 16, 1, 1, seed=1)
    a, b = fig.estimate(method, -1.0, weight)
    expected = fig.conditioned(x_a, method, weight)(z, at(-1.0))[:, 0, 4:, 0, 0]
    assert (x_a.flatten(1) @ a.T + z.flatten(1) @ b.T - expected).abs().max() < 1e-10  # float64


@pytest.mark.parametrize("log_snr", [-8.0, 0.0, 8.0])
def test_the_gradient_taken_on_paper_is_the_package_s(log_snr):
    t, x_a, z = at(log_snr), normal(3, 1, 4, 1, 1, seed=1), normal(3, 1, 16, 1, 1, seed=2)
    expected = reconstruction(fig.world().denoiser(fig.lesson_schedule()), x_a, 3.0)(z, t)
    assert (fig.guided_by_hand(x_a, 3.0)(z, t) - expected).abs().max() < 1e-12  # float64


def test_squared_error_is_that_of_samples():
    n, t = 20_000, at(-1.0)
    x = WORLD.sample(n, torch.Generator().manual_seed(0))
    z = SCHEDULE.alpha(t) * x + SCHEDULE.sigma(t) * normal(*x.shape, seed=7)
    found = (fig.conditioned(x[:, :, :4], "reconstruction", 2.0)(z, t) - x)[:, :, 4:].square().mean()
    assert found.item() == pytest.approx(fig.squared_error("reconstruction", -1.0, 2.0), rel=0.03)  # 5 / sqrt(n)


def test_the_exact_estimate_is_the_best_and_guidance_lies_between():
    for log_snr in (-4.0, -1.0, 2.0):
        exact = fig.squared_error("exact", log_snr)
        guided = fig.squared_error("reconstruction", log_snr, 1.0)
        assert exact < guided < fig.squared_error("replacement", log_snr)


def test_covariance_of_the_known_frames_given_the_latent():
    # Against the regression formula Sigma - alpha^2 Sigma (alpha^2 Sigma + sigma^2 I)^-1 Sigma.
    t, c = at(-1.0), WORLD.covariance
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    noisy = alpha**2 * c + sigma**2 * torch.eye(16, dtype=torch.float64)
    expected = (c - alpha**2 * c @ torch.linalg.solve(noisy, c))[:4, :4]
    assert (fig.posterior_covariance(-1.0) - expected).abs().max() < 1e-10  # float64


@pytest.mark.parametrize("log_snr", [-6.0, 0.0, 6.0])
def test_the_approximation_claims_too_much_variance(log_snr):
    weights = fig.right_weights(log_snr)
    assert weights.min() >= 1
    largest = torch.linalg.eigvalsh(torch.linalg.inv(WORLD.covariance)).max()
    assert weights.max() <= 1 + largest * math.exp(-log_snr) + 1e-9  # of the whole C_t; exact as lambda grows


@pytest.mark.parametrize("log_snr", [-3.0, 1.0])
def test_with_the_right_matrix_as_weight_guidance_is_exact(log_snr):
    x_a, z, t = normal(3, 1, 4, 1, 1), normal(3, 1, 16, 1, 1, seed=1), at(log_snr)
    x_hat = WORLD.denoiser(SCHEDULE)(z, t).flatten(1)
    weight = math.exp(-log_snr) * torch.linalg.inv(fig.posterior_covariance(log_snr))
    jacobian = fig.estimate("replacement", log_snr)[1][:, :4].T  # symmetric gain: d x^a / d z^b
    guided = x_hat[:, 4:] + SCHEDULE.alpha(t) * (x_a.flatten(1) - x_hat[:, :4]) @ weight @ jacobian
    exact = WORLD.conditional_denoiser(SCHEDULE, x_a)(z, t).flatten(1)[:, 4:]
    assert (guided - exact).abs().max() < 1e-9  # float64


@pytest.mark.parametrize("z", [-0.5, 0.2, 1.0])
def test_the_gaussian_approximation_is_exact_for_clean_frames_only(z):
    gaps = []
    for log_snr in (-2.0, 2.0, 6.0):
        x, true, guess = fig.approximation(log_snr, z if log_snr < 6 else 1.0)
        assert true.sum() * (x[1] - x[0]) == pytest.approx(1, abs=1e-9)  # a softmax
        gaps.append(((true - guess).abs().sum() * (x[1] - x[0])).item() / 2)  # total variation on the axis
    assert gaps[0] > 0.3 and gaps[2] < 0.05


# ---- the sampler as a whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "weight", "corrector", "reference"), [
    ("replacement", 0.0, False, 0.6544), ("reconstruction", 1.0, False, 0.4972), ("reconstruction", 2.0, True, 0.1488),
])  # fmt: skip
def test_distances_are_those_of_the_table(method, weight, corrector, reference):
    assert fig.distance(method, weight, 256, corrector) == pytest.approx(reference, rel=0.02)  # four decimals, 2 %


def test_a_moderate_weight_beats_none_and_too_large_ones():
    found = [fig.distance("reconstruction", w, 64, False) for w in (0.0, 1.0, 4.0, 16.0)]
    assert found[2] < found[1] < found[0] < found[3]


def test_zero_weight_is_replacement():
    assert fig.distance("reconstruction", 0.0, 32, False) == pytest.approx(fig.distance("replacement", 0.0, 32, False))


def test_step_factor_is_the_eigenvalue_of_a_guided_step():
    t, s, w = 0.6, 0.5, 3.0
    z, x_a = torch.zeros(1, 1, 16, 1, 1, dtype=torch.float64), normal(1, 1, 4, 1, 1)
    guided = reconstruction(WORLD.denoiser(SCHEDULE), x_a, w)

    def step(z_b):
        return ancestral_law(guided, torch.cat([z[:, :, :4], z_b], dim=2), t, s).mean[:, :, 4:].flatten()

    columns = [step(unit.reshape(1, 1, 12, 1, 1)) - step(z[:, :, 4:]) for unit in torch.eye(12, dtype=torch.float64)]
    expected = torch.linalg.eigvals(torch.stack(columns, dim=1)).real.min()
    assert fig.step_factor(w, t, s) == pytest.approx(expected.item(), abs=1e-9)  # float64


def test_what_overshoots_explodes():
    assert fig.worst_factor(1024.0, 16) < -1 < fig.worst_factor(1024.0, 256)
    assert fig.distance("reconstruction", 1024.0, 16, False) > 1e3 > fig.distance("reconstruction", 16.0, 16, False)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="replacement"):
        fig.conditioned(normal(1, 1, 4, 1, 1), "prayer")


@pytest.mark.parametrize(("known", "frames", "overlap"), [(16, 64, 8), (16, 64, 4), (10, 37, 12)])
def test_number_of_blocks(known, frames, overlap):
    from functools import partial

    blocks = plan(partial(autoregressive, overlap=overlap), range(known), frames, 16)
    assert len(blocks) == -(-(frames - known) // (16 - overlap))


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_the_slider_draws_the_propagated_covariance():
    drawn = fig.draw_guided(w_r=2.0, steps=16, corrector=True)
    law = fig.sampled("reconstruction", 2.0, 16, True)
    assert drawn.axes[0].lines[1].get_ydata().tolist() == law.covariance[3].tolist()
    assert f"{fig.distance('reconstruction', 2.0, 16, True):.3f}" in drawn.axes[0].get_title(loc="left")


def test_the_others_return_figures():
    for drawn in (
        fig.draw_what_is_missed([1.0]), fig.draw_approximation(-1.0, 0.3), fig.draw_table([0, 1], [8, 16]),
        fig.draw_too_much([1, 64], [8]), fig.draw_errors({"a": torch.tensor([[0.1, 0.2], [0.2, 0.3]])}, 8),
    ):  # fmt: skip
        assert isinstance(drawn, Figure)


@pytest.mark.parametrize(("particles", "back"), [(1, 0), (24, 0), (1, 4)])
def test_particles_and_resampling_take_bias_from_replacement(particles, back):
    """Replacement's W_2 at 64 steps is 0.68 (propagated); each correction has to take away a good part of it."""
    g = torch.Generator().manual_seed(0)
    x_a = fig.world().sample(3000, g).flatten(1)[:, :4]
    found = particles_of.distance_of_samples(particles_of.replaced(x_a, 64, particles, back, g))
    if particles == 1 and back == 0:
        # the posterior form of replacement; 3,000 samples move the distance by a few hundredths
        assert abs(found - fig.distance("replacement", 0.0, 64, False)) < 0.1
    else:
        assert found < 0.5
