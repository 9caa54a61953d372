"""Gaussian algebra: forward process, transitions, posteriors, conversions; all closed form, in float64."""

import itertools
import math

import pytest
import torch

from minivdm.core import gaussian
from minivdm.core.schedules import CosineSchedule, LinearSchedule, SubVPSchedule, VESchedule

SCHEDULES = [CosineSchedule(), LinearSchedule(), SubVPSchedule(), VESchedule()]
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
S, T = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64), torch.tensor([0.2, 0.7, 0.9], dtype=torch.float64)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- forward process ----------------------------------------------------------------------------------------------


@every
def test_diffuse_is_alpha_x_plus_sigma_noise(schedule, generator):
    # VDM eq 1, with one time per sample.
    x, noise = normal(generator, 3, 1, 2, 4, 4), normal(generator, 3, 1, 2, 4, 4)
    z = gaussian.diffuse(x, T, schedule, noise)
    for i in range(3):
        torch.testing.assert_close(z[i], schedule.alpha(T[i]) * x[i] + schedule.sigma(T[i]) * noise[i])


def test_diffuse_draws_the_noise_of_the_generator():
    x, draws = torch.zeros(2, 3), []
    for _ in range(2):
        draws.append(gaussian.diffuse(x, 1.0, CosineSchedule(), generator=torch.Generator().manual_seed(7)))
    assert torch.equal(*draws) and draws[0].std() > 0


def test_drawing_noise_leaves_the_global_random_state_alone(generator):
    before = torch.get_rng_state()
    gaussian.noise_like(torch.zeros(3), generator)
    assert torch.equal(before, torch.get_rng_state())


@every
def test_transition_composes_to_the_marginal(schedule):
    # x -> z_s -> z_t has to be x -> z_t: alpha_t = scale alpha_s and sigma_t^2 = scale^2 sigma_s^2 + variance
    # (VDM eq 1; the Markov property). The variance is so a difference of squares, not of standard deviations.
    scale, variance = gaussian.transition(S, T, schedule)
    torch.testing.assert_close(scale * schedule.alpha(S), schedule.alpha(T), rtol=1e-12, atol=0)
    total = scale**2 * schedule.sigma(S) ** 2 + variance
    torch.testing.assert_close(total, schedule.sigma(T) ** 2, rtol=1e-10, atol=0)


@every
def test_posterior_is_bayes_rule(schedule, generator):
    # q(z_s | z_t, x) is proportional to q(z_t | z_s) q(z_s | x): precisions add up (VDM eq 3).
    z, x = normal(generator, 3, 5), normal(generator, 3, 5)
    mean, variance = gaussian.posterior(z, x, S, T, schedule)
    scale, step_variance = (c[:, None] for c in gaussian.transition(S, T, schedule))
    alpha, sigma = schedule.alpha(S)[:, None], schedule.sigma(S)[:, None]
    precision = 1 / sigma**2 + scale**2 / step_variance
    torch.testing.assert_close(variance[:, None], 1 / precision, rtol=1e-9, atol=0)
    expected = (alpha * x / sigma**2 + scale * z / step_variance) / precision
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-12)


@every
def test_posterior_marginalises_to_the_forward_process(schedule):
    # Over z_t ~ q(z_t | x), the posterior's mean is alpha_s x on average, and variances add to sigma_s^2.
    one = torch.ones(3, 1, dtype=torch.float64)
    mean, variance = gaussian.posterior(schedule.alpha(T)[:, None] * one, one, S, T, schedule)
    torch.testing.assert_close(mean[:, 0], schedule.alpha(S), rtol=1e-10, atol=0)
    gain = gaussian.posterior(one, 0 * one, S, T, schedule).mean[:, 0]
    torch.testing.assert_close(gain**2 * schedule.sigma(T) ** 2 + variance, schedule.sigma(S) ** 2, rtol=1e-9, atol=0)


def test_posterior_at_clean_data_is_x(generator):
    z, x = normal(generator, 2, 3), normal(generator, 2, 3)
    mean, variance = gaussian.posterior(z, x, 0.0, 0.5, LinearSchedule())  # sigma_0 = 0, lambda_0 infinite
    torch.testing.assert_close(mean, x)
    assert variance == 0


@pytest.mark.parametrize("s, t", [(0.5, 0.5), (0.6, 0.5), (torch.tensor([0.1, 0.8]), torch.tensor([0.5, 0.5]))])
def test_s_has_to_be_before_t(s, t):
    with pytest.raises(ValueError, match="s < t"):
        gaussian.transition(s, t, CosineSchedule())
    with pytest.raises(ValueError, match="s < t"):
        gaussian.posterior(torch.zeros(2, 3), torch.zeros(2, 3), s, t, CosineSchedule())


# ---- x, eps, v, score ---------------------------------------------------------------------------------------------

NAMES = ("x", "eps", "v", "score")


def four_names(generator, alpha, sigma):
    x, eps = normal(generator, 5, 4), normal(generator, 5, 4)
    a, s = alpha[:, None], sigma[:, None]
    return a * x + s * eps, {"x": x, "eps": eps, "v": a * eps - s * x, "score": -eps / s}


@pytest.mark.parametrize("given, wanted", list(itertools.permutations(NAMES, 2)))
@every
def test_conversion_gives_the_definition(schedule, given, wanted, generator):
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    z, names = four_names(generator, alpha, sigma)
    result = getattr(gaussian, f"{wanted}_from_{given}")(z, names[given], alpha, sigma)
    torch.testing.assert_close(result, names[wanted], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("given, wanted", list(itertools.permutations(NAMES, 2)))
def test_round_trips_hold_to_1e_6_at_extreme_log_snr(given, wanted, generator):
    log_snr = torch.tensor([-20.0, -10.0, 0.0, 10.0, 20.0], dtype=torch.float64)
    alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    z, names = four_names(generator, alpha, sigma)
    there = getattr(gaussian, f"{wanted}_from_{given}")(z, names[given], alpha, sigma)
    back = getattr(gaussian, f"{given}_from_{wanted}")(z, there, alpha, sigma)
    # Relative to the size of what went in: a score is as large as e^10 at lambda = 20.
    error = (back - names[given]).abs() / names[given].abs().clamp(min=1)
    assert error.max() < 1e-6


def test_v_in_the_angle(generator):
    # z = cos x + sin eps; v = dz/dphi; x = cos z - sin v; eps = sin z + cos v (Salimans & Ho 2022).
    x, eps, phi = normal(generator, 1, 6), normal(generator, 1, 6), torch.tensor(0.7, dtype=torch.float64)
    z, v = torch.autograd.functional.jvp(lambda p: p.cos() * x + p.sin() * eps, phi, torch.ones_like(phi))
    alpha, sigma = phi.cos(), phi.sin()
    torch.testing.assert_close(gaussian.v_from_eps(z, eps, alpha, sigma), v)
    torch.testing.assert_close(gaussian.x_from_v(z, v, alpha, sigma), phi.cos() * z - phi.sin() * v)
    torch.testing.assert_close(gaussian.eps_from_v(z, v, alpha, sigma), phi.sin() * z + phi.cos() * v)
    torch.testing.assert_close(gaussian.x_from_v(z, v, alpha, sigma), x)


def test_score_is_the_gradient_of_the_log_density(generator):
    x, z = normal(generator, 1, 4), normal(generator, 1, 4).requires_grad_()
    alpha, sigma = 0.6, 0.8
    log_q = torch.distributions.Normal(alpha * x, sigma).log_prob(z).sum()
    (gradient,) = torch.autograd.grad(log_q, z)
    torch.testing.assert_close(gaussian.score_from_x(z.detach(), x, alpha, sigma), gradient)


# ---- coefficients and bad input ------------------------------------------------------------------------------------


def test_coefficients_take_the_dtype_of_the_video():
    z = torch.ones(2, 1, 3, 4, 4)
    for t in (0.3, torch.tensor(0.3), torch.tensor([0.3, 0.4])):
        assert gaussian.diffuse(z, t, CosineSchedule(), torch.zeros_like(z)).dtype == torch.float32


def test_coefficients_that_fit_no_axis_are_refused():
    with pytest.raises(ValueError, match="broadcast"):
        gaussian.expand(torch.ones(3), torch.zeros(2, 1, 3, 4, 4))
    with pytest.raises(ValueError, match="broadcast"):
        gaussian.expand(torch.ones(2, 3), torch.zeros(2, 1, 3, 4, 4))


def test_predictions_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        gaussian.x_from_v(torch.zeros(2, 3), torch.zeros(3), 0.6, 0.8)
    with pytest.raises(ValueError, match="shape"):
        gaussian.diffuse(torch.zeros(2, 3), 0.5, CosineSchedule(), noise=torch.zeros(2))


@pytest.mark.parametrize("name", ["eps_from_x", "v_from_x", "score_from_x", "score_from_eps", "score_from_v"])
def test_zero_noise_cannot_be_divided_by(name):
    with pytest.raises(ValueError, match="sigma"):
        getattr(gaussian, name)(torch.zeros(2, 3), torch.zeros(2, 3), 1.0, torch.tensor([0.0, 0.5]))


@pytest.mark.parametrize("name", ["x_from_eps", "x_from_score", "v_from_eps", "v_from_score"])
def test_zero_signal_cannot_be_divided_by(name):
    with pytest.raises(ValueError, match="alpha"):
        getattr(gaussian, name)(torch.zeros(2, 3), torch.zeros(2, 3), 0.0, 1.0)


def test_v_is_defined_where_x_and_eps_are_not(generator):
    # At zero SNR v = -x, at zero noise v = eps: the reason to predict it (Salimans & Ho 2022).
    z, v = normal(generator, 2, 3), normal(generator, 2, 3)
    torch.testing.assert_close(gaussian.x_from_v(z, v, 0.0, 1.0), -v)
    torch.testing.assert_close(gaussian.eps_from_v(z, v, 1.0, 0.0), v)
    assert math.isfinite(gaussian.x_from_v(z, v, 1.0, 0.0).sum().item())
