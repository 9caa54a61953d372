"""Lesson 02: the log-SNR, Bayes by brute force, frame size, terminal SNR, and the lesson's drawings."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import (
    CosineSchedule,
    FlowSchedule,
    LinearSchedule,
    SubVPSchedule,
    VESchedule,
    diffuse,
    posterior,
    transition,
)
from minivdm.course.notebook.figures import noise_schedules as figures
from minivdm.course.notebook.picture import Picture

named = pytest.mark.parametrize("schedule", figures.schedules().values(), ids=figures.schedules())


@pytest.mark.parametrize("log_snr", [-20.0, -1.0, 0.0, 3.0])
def test_scales_of_a_log_snr(log_snr):
    alpha, sigma = figures.scales(log_snr)
    assert abs(alpha**2 + sigma**2 - 1) < 1e-15 and abs(math.log(alpha**2 / sigma**2) - log_snr) < 1e-9  # float64


@named
def test_any_process_is_variance_preserving_in_another_unit(schedule):
    t = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    unit = (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2).sqrt()
    expected = torch.tensor([figures.scales(log_snr) for log_snr in schedule.log_snr(t).tolist()])
    assert torch.allclose((schedule.alpha(t) / unit).float(), expected[:, 0], atol=1e-6)  # float32 rounding
    assert torch.allclose((schedule.sigma(t) / unit).float(), expected[:, 1], atol=1e-6)


@named
def test_density_of_log_snr_is_the_stretch_of_time(schedule):
    t = torch.rand(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = (schedule.log_snr(t) > 1.0).double().mean()
    assert abs(share - schedule.time(1.0)) < 4 * math.sqrt(0.25 / len(t))  # four standard errors of a share


def test_cosine_density_is_a_hyperbolic_secant():
    schedule, log_snr = CosineSchedule(), torch.tensor([-6.0, -1.0, 0.0, 2.0, 5.0], dtype=torch.float64)
    slope = (schedule.time(log_snr + 1e-4) - schedule.time(log_snr - 1e-4)) / 2e-4
    assert torch.allclose(-slope, 1 / (2 * math.pi * torch.cosh(log_snr / 2)), rtol=1e-4)  # the cut at +-20: 6e-5


def test_linear_log_snr_is_a_formula_of_the_integral_of_beta():
    t = torch.linspace(0.01, 1, 20, dtype=torch.float64)
    total = 0.1 * t + 19.9 * t**2 / 2
    assert torch.allclose(LinearSchedule().log_snr(t), -torch.log(torch.expm1(total)), atol=1e-9)
    sub_vp = -total - 2 * torch.log(-torch.expm1(-total))
    assert torch.allclose(SubVPSchedule().log_snr(t), sub_vp, atol=1e-9)  # float64, two ways


def test_ve_log_snr_is_a_line():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    line = -2 * math.log(0.01) - 2 * t * math.log(5000)
    assert torch.allclose(VESchedule(0.01, 50.0).log_snr(t), line, atol=1e-12)


@named
def test_transition_variance_is_a_difference_of_squares(schedule):
    s, t = 0.3, 0.7
    scale, variance = transition(s, t, schedule)
    # The subtraction loses digits that the package's form keeps: 1e-9 is generous for these times.
    assert torch.allclose(variance, schedule.sigma(t) ** 2 - scale**2 * schedule.sigma(s) ** 2, rtol=1e-9)
    wrong = (schedule.sigma(t) - scale * schedule.sigma(s)) ** 2
    assert abs(wrong / variance - 1) > 0.05


@named
def test_two_transitions_make_one(schedule):
    (a, u), (b, v), (c, w) = (transition(*pair, schedule) for pair in ((0.1, 0.4), (0.4, 0.9), (0.1, 0.9)))
    assert torch.allclose(a * b, c, rtol=1e-12) and torch.allclose(b**2 * u + v, w, rtol=1e-12)  # float64


@named
@pytest.mark.parametrize("s, t", [(0.1, 0.2), (0.4, 0.6), (0.05, 0.95)])
def test_posterior_is_the_product_of_two_gaussians(schedule, s, t):
    x = torch.ones(1, dtype=torch.float64)
    z = schedule.alpha(t) * x - 0.7 * schedule.sigma(t)
    drawn = figures.grid_posterior(float(z), 1.0, s, t, schedule)
    mean, variance = posterior(z, x, s, t, schedule)
    grid_mean = torch.trapezoid(drawn.product * drawn.z, drawn.z)
    grid_variance = torch.trapezoid(drawn.product * (drawn.z - grid_mean) ** 2, drawn.z)
    # The trapezoid rule converges exponentially on Gaussians that vanish at the ends.
    assert abs(mean - grid_mean) < 1e-6 and abs(variance / grid_variance - 1) < 1e-6


@named
def test_posterior_precisions_add(schedule):
    scale, variance = transition(0.3, 0.6, schedule)
    zero = torch.zeros(1, dtype=torch.float64)
    got = posterior(zero, zero, 0.3, 0.6, schedule).variance
    assert torch.allclose(1 / got, scale**2 / variance + 1 / schedule.sigma(0.3) ** 2, rtol=1e-9)  # float64
    r = torch.exp(schedule.log_snr(0.6) - schedule.log_snr(0.3))
    assert torch.allclose(scale**2 * schedule.sigma(0.3) ** 2, r * schedule.sigma(0.6) ** 2, rtol=1e-9)


@named
def test_posterior_averages_to_the_marginal(schedule):
    one = torch.ones(1, dtype=torch.float64)
    weight = posterior(one, 0 * one, 0.3, 0.6, schedule).mean
    variance = weight**2 * schedule.sigma(0.6) ** 2 + posterior(one, one, 0.3, 0.6, schedule).variance
    assert torch.allclose(variance, schedule.sigma(0.3) ** 2, rtol=1e-9)  # float64
    mean = posterior(schedule.alpha(0.6) * one, one, 0.3, 0.6, schedule).mean
    assert torch.allclose(mean, schedule.alpha(0.3) * one, rtol=1e-9)


@pytest.mark.parametrize("factor", [2, 4])
def test_pooling_raises_the_log_snr(factor):
    x = torch.zeros(40, 1, 1, 64, 64)
    z = diffuse(x, 0.5, CosineSchedule(), generator=torch.Generator().manual_seed(0))
    pooled = torch.nn.functional.avg_pool3d(z, (1, factor, factor))
    raised = float(torch.log(z.var() / pooled.var()))
    # Relative standard error of a variance: sqrt(2 / n), with the fewer values n = 40 x 64^2 / factor^2.
    assert abs(raised - 2 * math.log(factor)) < 4.5 * math.sqrt(2 * factor**2 / z.numel())


def test_shifted_schedule_pools_to_the_base():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    shifted = CosineSchedule.for_size(64, base=32).log_snr(t) + 2 * math.log(2)
    assert torch.allclose(shifted, CosineSchedule().log_snr(t), atol=1e-12)  # float64


def test_divergence_of_the_end_from_pure_noise():
    p, q = torch.distributions.Normal(0.3, 0.8), torch.distributions.Normal(0.0, 1.0)
    formula = (0.3**2 + 0.8**2 - 1 - math.log(0.8**2)) / 2
    assert abs(float(torch.distributions.kl_divergence(p, q)) - formula) < 1e-6  # float32


@pytest.mark.parametrize("log_snr", [-20.0, -7.0, -5.4])
def test_brightness_of_samples_has_the_predicted_variance(log_snr):
    predicted = sum(figures.brightness_variance(log_snr, 1024))
    measured = float(figures.sample_brightness(log_snr, 1024, 3000).var())
    assert abs(measured / predicted - 1) < 4 * math.sqrt(2 / 3000)  # four standard errors of a variance


def test_brightness_is_right_where_the_start_is():
    assert abs(sum(figures.brightness_variance(-5.4, 1024, start="marginal")) - 1) < 1e-12  # float64
    with pytest.raises(ValueError, match="noise"):
        figures.brightness_variance(-5.4, 1024, start="zero")


def test_noisy_clip_has_the_asked_log_snr():
    alpha, sigma = figures.scales(-1.0)
    eps = (figures.noisy_clip(-1.0) - alpha * figures.clip()) / sigma
    assert abs(eps.var() - 1) < 4 * math.sqrt(2 / eps.numel())  # four standard errors


@pytest.mark.parametrize("given", [{"alpha_bar": 0.2}, {"sigma_edm": 3.0}, {"t_flow": 0.9}, {"log_snr": -1.5}])
def test_coordinates_lead_back_to_the_one_that_was_given(given):
    at = figures.coordinates(**given)
    ((name, value),) = given.items()
    assert abs(getattr(at, name) - value) < 1e-12  # float64
    for other, level in at._asdict().items():
        assert figures.coordinates(**{other: level}) == pytest.approx(at, rel=1e-9, abs=1e-9)


@named
def test_coordinates_are_those_of_every_schedule(schedule):
    for t in (0.1, 0.5, 0.8):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        at = figures.coordinates(log_snr=float(schedule.log_snr(t)))
        assert abs(at.sigma_edm / (sigma / alpha) - 1) < 1e-9  # float64
        assert abs(at.alpha_bar - alpha**2 / (alpha**2 + sigma**2)) < 1e-9
        assert abs(at.t_flow / (1 - at.t_flow) - sigma / alpha) < 1e-9 * (1 + sigma / alpha)


def test_flow_time_and_density_are_functions_of_the_log_snr():
    log_snr = torch.tensor([-9.0, -2.0, 0.0, 1.0, 6.0], dtype=torch.float64)
    schedule = FlowSchedule()
    assert torch.allclose(schedule.log_snr(torch.sigmoid(-log_snr / 2)), log_snr, atol=1e-12)  # float64
    slope = (schedule.time(log_snr + 1e-4) - schedule.time(log_snr - 1e-4)) / 2e-4
    assert torch.allclose(-slope, 1 / (8 * torch.cosh(log_snr / 4) ** 2), rtol=1e-7)  # central differences


def test_the_chain_of_stable_diffusion_ends_where_lin_et_al_say():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    at = figures.coordinates(alpha_bar=float((1 - betas).prod()))
    assert abs(math.exp(at.log_snr) - 0.004682) < 5e-7  # their SNR(T), in the digits they print


@pytest.mark.parametrize("wrong", [{}, {"alpha_bar": 0.5, "t_flow": 0.5}, {"alpha_bar": 1.0}, {"sigma_edm": 0.0}])
def test_coordinates_refuse_what_is_no_level(wrong):
    with pytest.raises(ValueError, match="expected"):
        figures.coordinates(**wrong)


def test_pooled_noise_of_the_large_frame_is_that_of_the_small_one():
    axes = figures.draw_sizes(0.0).axes
    small, shifted = (torch.as_tensor(axes[k].images[0].get_array().data).double() for k in (3, 5))
    # Pooling halves the shifted level's sigma / alpha, and that is the base level's; signal and noise are the same.
    assert torch.allclose(small, shifted, atol=1e-5)  # float32


def test_drawings_are_pictures_of_plain_numbers():
    drawn = [
        figures.draw_log_snr(),
        figures.draw_posterior(0.6, 0.1, 1),
        figures.draw_fan(),
        figures.draw_bridge(),
        figures.draw_sizes(-1),
        figures.draw_brightness((-20.0, -5.4), 64, 500),
    ]
    assert all(isinstance(one, Figure) for one in drawn)
    assert isinstance(figures.draw_clip(-2, 3), Picture)


def test_drawn_posterior_is_the_packages():
    axes = figures.draw_posterior(0.6, 0.4, -0.2, 1.0).axes[0]
    dashed = next(line for line in axes.lines if line.get_linestyle() == "--")
    z, x = torch.tensor([-0.2], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    mean, variance = posterior(z, x, 0.4, 0.6, CosineSchedule())
    peak = dashed.get_xdata()[dashed.get_ydata().argmax()]
    assert abs(peak - float(mean)) < 4e-3  # the grid's spacing
    assert abs(dashed.get_ydata().max() - 1 / math.sqrt(2 * math.pi * float(variance))) < 1e-4
