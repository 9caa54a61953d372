"""Lesson 01: Brownian motion, Itô's rules, the moment equations, Euler-Maruyama, and the lesson's drawings."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import CosineSchedule, LinearSchedule, SubVPSchedule, VESchedule, reverse_sde_law
from minivdm.course.notebook.figures import forward_sdes as figures
from minivdm.course.notebook.figures import sde_paths as sde

SCHEDULES = [LinearSchedule(), SubVPSchedule(), VESchedule(0.01, 10.0), CosineSchedule(-6.0, 12.0)]
named = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)


@pytest.fixture(scope="module")
def w():
    return sde.brownian(1000, 4000, sde.seeded(0))


def test_increments_are_normal_with_the_variance_of_their_length(w):
    step = w[700] - w[300]
    # 4000 draws: standard errors 0.632 / sqrt(4000) = 0.01 of the mean, 0.4 sqrt(2 / 4000) = 0.009 of the variance.
    assert abs(step.mean()) < 0.04 and abs(step.var() - 0.4) < 0.036
    # Independent of the past: a correlation has standard error 1 / sqrt(4000) = 0.016.
    assert abs(torch.corrcoef(torch.stack([step, w[300]]))[0, 1]) < 0.064


def test_quadratic_variation_approaches_time(w):
    squares = w.diff(dim=0).square().sum(0)
    assert abs(squares.mean() - 1) < 4 * math.sqrt(2 / 1000 / 4000)  # four standard errors
    assert abs(squares.std() / math.sqrt(2 / 1000) - 1) < 0.05  # 4000 paths know it to 1.1 %


def test_ito_isometry(w):
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]
    integral = torch.exp(t) @ w.diff(dim=0)
    exact = (math.e**2 - 1) / 2
    # Four standard errors sqrt(2 / 4000) = 2.2 %, and 0.1 % for the sum's finite steps.
    assert abs(integral.var() / exact - 1) < 0.09
    assert abs(integral.mean()) < 4 * math.sqrt(exact / 4000)


def test_ito_integral_of_brownian_motion(w):
    left = (w[:-1] * w.diff(dim=0)).sum(0)
    # The difference is half of (1 - quadratic variation), of spread sqrt(2 / 1000) / 2 = 0.022.
    assert (left - (w[-1] ** 2 - 1) / 2).abs().max() < 5.5 * 0.0224


def test_ito_rule_along_a_path(w):
    z = 0.3 + w  # dz = dw, h = exp: dh = e^z dw + e^z dt / 2
    change = (z[:-1].exp() * (w.diff(dim=0) + 0.5 / 1000)).sum(0)
    exact = z[-1].exp() - z[0].exp()
    # Summed left-end errors e^z ((dw)^2 - dt) / 2: spread 0.022 times the size of e^z.
    assert ((change - exact).abs() / z.exp().amax(0)).max() < 5.5 * 0.0224


@named
def test_the_solution_with_an_integral_is_the_path_itself(schedule):
    steps = 4000
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    dw = sde.brownian(steps, 50, sde.seeded(1))
    path = sde.euler_maruyama(torch.ones(50, dtype=torch.float64), dw, schedule, t)[2000]
    alpha, g = schedule.alpha(t), schedule.diffusion(t)
    exact = alpha[2000] / alpha[0] + alpha[2000] * ((g / alpha)[:2000] @ dw[:2001].diff(dim=0))
    # Strong order 1: about dt x max(beta, ...) = 20 / 4000, times the size of z.
    assert (path - exact).abs().max() < 0.02 * (1 + schedule.sigma(t)[2000])


@named
def test_variance_is_the_integral_of_the_noise_that_survives(schedule):
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)
    weight = (schedule.diffusion(t) / schedule.alpha(t)) ** 2
    integral = torch.trapezoid(weight, t) + (schedule.sigma(0.0) / schedule.alpha(0.0)) ** 2
    # The trapezoid rule on 20000 cells of a function with slopes up to 10^3: 1e-5.
    assert torch.allclose(schedule.alpha(1.0) ** 2 * integral, schedule.sigma(1.0) ** 2, rtol=1e-5)


@named
def test_moment_equations(schedule):
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    h = 1e-5
    slope = (schedule.sigma(t + h) ** 2 - schedule.sigma(t - h) ** 2) / (2 * h)
    right = 2 * schedule.drift(t) * schedule.sigma(t) ** 2 + schedule.diffusion(t) ** 2
    # Central differences: h^2 times a third derivative of 10^3, and rounding 1e-16 / h.
    assert torch.allclose(slope, right, rtol=1e-6, atol=1e-7)
    mean_slope = (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h)
    assert torch.allclose(mean_slope, schedule.drift(t) * schedule.alpha(t), rtol=1e-6, atol=1e-7)


@named
def test_drift_and_diffusion_follow_from_the_scales(schedule):
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64, requires_grad=True)
    (alpha_slope,) = torch.autograd.grad((schedule.alpha(t) + 0 * t).sum(), t)
    (log_snr_slope,) = torch.autograd.grad(schedule.log_snr(t).sum(), t)
    with torch.no_grad():  # float64 rounding, a little of it lost in quotients
        assert torch.allclose(schedule.drift(t), alpha_slope / schedule.alpha(t), rtol=1e-9)
        g_squared = -(schedule.sigma(t) ** 2) * log_snr_slope
        assert torch.allclose(schedule.diffusion(t) ** 2, g_squared, rtol=1e-9)


def test_euler_maruyama_by_hand():
    schedule = LinearSchedule(0.5, 2.0)
    z = torch.tensor([2.0], dtype=torch.float64)
    w = torch.tensor([[0.0], [0.3]], dtype=torch.float64)
    times = torch.tensor([0.2, 0.4], dtype=torch.float64)
    beta = 0.5 + 0.2 * 1.5
    expected = 2.0 - 0.5 * beta * 2.0 * 0.2 + math.sqrt(beta) * 0.3
    assert abs(sde.euler_maruyama(z, w, schedule, times)[-1].item() - expected) < 1e-14  # rounding


def test_orders_of_convergence():
    steps = [16, 32, 64, 128, 256]
    geometric, linear = sde.geometric_errors(steps), sde.linear_errors(steps, LinearSchedule(0.1, 8.0), 1000)
    # Next-order terms bend the lines by up to 5 %, and the paths leave 3 % on a point.
    assert abs(sde.order(steps, geometric.strong) - 0.5) < 0.12
    for errors in (geometric.weak, linear.strong, linear.weak):
        assert abs(sde.order(steps, errors) - 1) < 0.12


def test_a_weak_error_is_at_most_the_strong_one():
    steps = [16, 64]
    for errors in (sde.geometric_errors(steps, paths=2000), sde.linear_errors(steps, LinearSchedule(0.1, 8.0), 500)):
        assert (errors.weak < errors.strong).all()  # |E z - E exact| <= E |z - exact|; a margin of 4 and more here


def test_geometric_brownian_motion_has_its_exact_solution():
    errors = sde.geometric_errors([8, 4096], paths=500)
    assert errors.strong[1] < 0.01 < errors.strong[0]  # strong order 1/2: 0.06 at 16 steps is 0.004 at 4096


def test_simulated_moments_agree_with_the_exact_moments_of_the_scheme():
    schedule, n = SubVPSchedule(), 4000
    z = sde.simulate(schedule, torch.full((n,), 0.8), 100, sde.seeded(3))
    exact = sde.euler_moments(schedule, 100, 0.8)
    for k in (20, 50, 100):  # five standard errors
        assert abs(z[k].mean() - exact.mean[k]) < 5 * (exact.variance[k] / n).sqrt()
        assert abs(z[k].var() / exact.variance[k] - 1) < 5 * math.sqrt(2 / n)


def test_vp_is_the_limit_of_the_discrete_chain():
    schedule, n = LinearSchedule(), 20000
    beta = schedule.beta((torch.arange(n, dtype=torch.float64) + 0.5) / n) / n
    log_kept = torch.log1p(-beta).sum() / 2  # log of the product of sqrt(1 - beta_i)
    # Next order: the sum of beta_i^2 / 4, which is 133 / 4 / 20000.
    assert abs(log_kept - schedule.alpha(1.0).log()) < 2e-3


def test_vp_preserves_variance():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    schedule = LinearSchedule()
    assert torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t), atol=1e-14)


def test_ve_has_no_drift_and_a_geometric_ladder():
    schedule = VESchedule(0.01, 10.0)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.equal(schedule.drift(t), torch.zeros_like(t))
    sigma = 0.01 * 1000**t
    assert torch.allclose(schedule.diffusion(t), sigma * math.sqrt(2 * math.log(1000)), rtol=1e-12)


def test_sub_vp_noise_is_the_square_of_vps():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    vp, sub_vp = LinearSchedule(), SubVPSchedule()
    assert torch.allclose(sub_vp.sigma(t), vp.sigma(t) ** 2, atol=1e-14)
    kept = (-2 * (0.1 * t + t**2 * 19.9 / 2)).exp()
    assert torch.allclose(sub_vp.diffusion(t) ** 2, vp.beta(t) * (1 - kept), rtol=1e-12)


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(-6.0, 12.0)], ids=["linear", "cosine"])
def test_a_vp_process_follows_from_its_log_snr_alone(schedule):
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.log_snr(t).sum(), t)
    with torch.no_grad():  # float64, a few digits lost in products of large and small numbers
        assert torch.allclose(schedule.drift(t), schedule.sigma(t) ** 2 * slope / 2, rtol=1e-9)
        assert torch.allclose(schedule.diffusion(t) ** 2, -2 * schedule.drift(t), rtol=1e-9)


def test_score_of_two_points_is_the_gradient_of_their_log_density():
    schedule, t = LinearSchedule(0.1, 8.0), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    z = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    logs = torch.stack([-((z - alpha * x) ** 2) / (2 * sigma**2) for x in (1.5, -1.5)])
    (gradient,) = torch.autograd.grad(logs.logsumexp(0).sum(), z)
    assert torch.allclose(sde.two_point_score(schedule, 1.5)(z.detach(), t), gradient, atol=1e-12)  # float64


def test_reverse_sde_has_the_marginals_of_the_forward_process():
    schedule, n = LinearSchedule(0.1, 10.0), 4000
    times = torch.linspace(1e-3, 1, 501, dtype=torch.float64)
    noise = torch.randn(n, generator=sde.seeded(1), dtype=torch.float64)
    path = sde.reverse(noise, times, schedule, sde.two_point_score(schedule, 1.5), sde.seeded(2))
    for k in (100, 250, 400):
        alpha, sigma = schedule.alpha(times[k]), schedule.sigma(times[k])
        # alpha_1 = 0.08 makes the start a little narrow; a variance of 4000 values is known to 2.2 %: four of them.
        assert abs(path[k].var() / (alpha**2 * 1.5**2 + sigma**2) - 1) < 0.09
    assert ((path[0].abs() - 1.5).abs() < 0.15).all()  # sigma = 0.01 there, and one step's overshoot
    assert abs((path[0] > 0).double().mean() - 0.5) < 4 * 0.5 / n**0.5  # both points alike


def test_reverse_steps_are_those_of_the_package():
    schedule, x = CosineSchedule(-6.0, 12.0), 1.5

    class Exact:
        def __init__(self):
            self.schedule = schedule

        def __call__(self, z, t):
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            return x * torch.tanh(alpha * x * z / sigma**2)

    z = torch.randn(50, generator=sde.seeded(3), dtype=torch.float64)
    times = torch.tensor([0.5, 0.6], dtype=torch.float64)
    ours = sde.reverse(z, times, schedule, sde.two_point_score(schedule, x), sde.seeded(4))
    law = reverse_sde_law(Exact(), z, 0.6, 0.5)
    noise = torch.randn(50, generator=sde.seeded(4), dtype=torch.float64)
    assert torch.allclose(ours[0], law.mean + law.variance.sqrt() * noise, atol=1e-12)  # float64, the same noise


def test_cosine_coefficients_are_tangents():
    schedule = CosineSchedule(-40.0, 40.0)  # so wide that its truncation lies below 1e-8
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    tangent = math.pi * torch.tan(math.pi * t / 2)
    assert torch.allclose(schedule.diffusion(t) ** 2, tangent, rtol=1e-6)
    assert torch.allclose(schedule.drift(t), -tangent / 2, rtol=1e-6)


@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_last_euler_step_of_the_cosine_schedule_doubles_the_variance(steps):
    assert abs(sde.euler_moments(CosineSchedule(), steps).variance[-1] - 2) < 0.1  # log-SNR is cut at -20


def test_drawings_are_figures_of_plain_numbers():
    drawn = [
        figures.draw_there_and_back(),
        figures.draw_brownian(sde.brownian(100, 12, sde.seeded(0)), shown=6),
        figures.draw_families(),
        figures.draw_last_step(50),
        *(figures.draw_paths(beta_max, kind) for beta_max, kind in ((0.5, "VP"), (40.0, "sub-VP"), (20, "VE"))),
    ]
    assert all(isinstance(one, Figure) for one in drawn)


def test_the_band_of_paths_is_the_closed_form():
    axes = figures.draw_paths(12.0, "VP", x=1.5).axes[0]
    means = [line for line in axes.lines if line.get_linewidth() == 2]
    t = torch.linspace(0, 1, 251, dtype=torch.float64)
    drawn = torch.as_tensor(means[0].get_ydata())
    assert torch.allclose(drawn, 1.5 * LinearSchedule(0.1, 12.0).alpha(t), atol=1e-12)  # the same numbers


def test_unknown_process_is_named():
    with pytest.raises(ValueError, match="VP, sub-VP or VE"):
        figures.process("cosine")
