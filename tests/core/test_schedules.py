"""Schedules: each formula against the SDE it belongs to, in float64."""

import math

import pytest
import torch

from minivdm.core.schedules import CosineSchedule, FlowSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule

SCHEDULES = {
    "cosine": CosineSchedule(),
    "shifted": CosineSchedule.for_size(64, base=32),
    "linear": LinearSchedule(),
    "sub-vp": SubVPSchedule(),
    "ve": VESchedule(0.01, 50.0),
    "flow": FlowSchedule(),
}
every = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
T = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def slope(function, t, h=1e-4):
    """Derivative by central differences of fourth order: relative error about h^4 + 1e-16 / h = 1e-12."""
    return (8 * (function(t + h) - function(t - h)) - (function(t + 2 * h) - function(t - 2 * h))) / (12 * h)


@every
def test_drift_is_the_relative_growth_of_alpha(schedule):
    # The mean of dz = f z dt + g dw obeys m' = f m, and m = alpha x (Song et al. 2021, eqs 5, 29).
    torch.testing.assert_close(slope(schedule.alpha, T), schedule.drift(T) * schedule.alpha(T), rtol=1e-7, atol=1e-9)


@every
def test_diffusion_solves_the_variance_equation(schedule):
    # (sigma^2)' = 2 f sigma^2 + g^2 (Song et al. 2021, eqs 5, 29).
    growth = slope(lambda t: schedule.sigma(t) ** 2, T)
    expected = 2 * schedule.drift(T) * schedule.sigma(T) ** 2 + schedule.diffusion(T) ** 2
    torch.testing.assert_close(growth, expected, rtol=1e-7, atol=1e-9)


@every
def test_diffusion_is_minus_sigma_squared_times_the_slope_of_lambda(schedule):
    # g^2 = -sigma^2 dlambda/dt (Kingma et al. 2021).
    expected = -(schedule.sigma(T) ** 2) * slope(schedule.log_snr, T)
    torch.testing.assert_close(schedule.diffusion(T) ** 2, expected, rtol=1e-7, atol=1e-9)


@every
def test_slopes_are_the_derivatives(schedule):
    torch.testing.assert_close(schedule.alpha_slope(T), slope(schedule.alpha, T), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(schedule.sigma_slope(T), slope(schedule.sigma, T), rtol=1e-7, atol=1e-9)


@every
def test_what_a_schedule_overrides_is_what_the_slopes_say(schedule):
    # Four formulas make a schedule; those that it gives besides have to agree with the derived ones.
    for name in ("log_snr", "drift", "diffusion"):
        derived = getattr(Schedule, name)(schedule, T)
        torch.testing.assert_close(getattr(schedule, name)(T), derived, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(Schedule.time(schedule, schedule.log_snr(T)), T, rtol=0, atol=1e-9)


@every
def test_times_of_a_log_snr_out_of_reach_are_the_ends(schedule):
    far = torch.tensor([-1e9, 1e9, math.nan], dtype=torch.float64)
    for time in (schedule.time(far), Schedule.time(schedule, far)):
        assert time[0] == 1 and 0 <= time[1] < 1e-9 and time[2].isnan()


@every
def test_between_its_ends_a_schedule_is_finite(schedule):
    t = torch.linspace(schedule.t_min, schedule.t_max, 101, dtype=torch.float64)
    for name in ("alpha", "sigma", "alpha_slope", "sigma_slope", "log_snr", "drift", "diffusion"):
        assert getattr(schedule, name)(t).isfinite().all()


@every
def test_log_snr_is_the_log_ratio_of_signal_to_noise_power_and_decreases(schedule):
    log_snr = schedule.log_snr(T)
    torch.testing.assert_close(log_snr, (schedule.alpha(T) / schedule.sigma(T)).log() * 2, rtol=1e-12, atol=1e-10)
    assert (log_snr.diff() < 0).all()


@every
def test_time_inverts_log_snr(schedule):
    # 1e-9: conditioning, lambda being flat where |lambda| is largest.
    torch.testing.assert_close(schedule.time(schedule.log_snr(T)), T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["cosine", "shifted", "linear"])
def test_variance_preserving(name):
    schedule, t = SCHEDULES[name], torch.linspace(0, 1, 11)
    power = schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2
    torch.testing.assert_close(power, torch.ones(11).double(), rtol=0, atol=1e-14)
    assert schedule.prior_std().item() == pytest.approx(1, abs=1e-14)


def test_sub_vp_noise_is_one_minus_alpha_squared_and_below_vp():
    sub, vp = SubVPSchedule(), LinearSchedule()
    torch.testing.assert_close(sub.sigma(T), 1 - sub.alpha(T) ** 2, rtol=1e-12, atol=0)
    assert (sub.sigma(T) < vp.sigma(T)).all()
    assert torch.equal(sub.alpha(T), vp.alpha(T))


def test_ve_keeps_the_signal_and_grows_geometrically():
    schedule = VESchedule(0.1, 10.0)
    assert torch.equal(schedule.alpha(T), torch.ones_like(T))
    assert schedule.sigma(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0.1, 1.0, 10.0], rel=1e-12)


def test_cosine_is_the_formula_of_vdm_appendix_a():
    # lambda_t = -2 log tan(pi t / 2), and the truncated form with the arctangents of e^(-lambda/2).
    wide = CosineSchedule(-60, 60)  # truncation so far out that it does not show
    torch.testing.assert_close(wide.log_snr(T), -2 * torch.tan(math.pi * T / 2).log(), rtol=0, atol=1e-9)
    a, b = math.atan(math.exp(-10)), math.atan(math.exp(10))
    torch.testing.assert_close(CosineSchedule().log_snr(T), -2 * torch.tan(a + T * (b - a)).log(), rtol=0, atol=1e-12)


def test_cosine_reaches_its_ends():
    schedule = CosineSchedule(-12, 15)
    # 1e-6: next to pi/2 the tangent magnifies the rounding of the angle by e^6.
    assert schedule.log_snr(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([15, -12], abs=1e-6)


def test_linear_alpha_is_the_integral_of_beta():
    schedule, t = LinearSchedule(0.1, 20.0), 0.7
    grid = torch.linspace(0, t, 1001, dtype=torch.float64)
    integral = torch.trapezoid(schedule.beta(grid), grid)  # exact for a straight line
    assert schedule.alpha(t).item() == pytest.approx(math.exp(-integral / 2), rel=1e-12)


def test_linear_is_clean_at_zero():
    schedule = LinearSchedule()
    assert schedule.alpha(0.0) == 1 and schedule.sigma(0.0) == 0 and schedule.log_snr(0.0) == math.inf


def test_shift_makes_up_for_the_noise_that_averaging_removes():
    # A mean over 2 x 2 pixels keeps the signal of a smooth image and halves sigma: lambda rises by 2 log 2. The
    # schedule for frames of twice the size is lower by just that.
    small, large = CosineSchedule.for_size(32, base=32), CosineSchedule.for_size(64, base=32)
    torch.testing.assert_close(large.log_snr(T) + 2 * math.log(2), small.log_snr(T), rtol=0, atol=1e-12)


def test_angle_is_linear_in_time_for_the_cosine_schedule():
    phi = CosineSchedule().angle(torch.linspace(0, 1, 11, dtype=torch.float64))
    torch.testing.assert_close(phi.diff(), (phi[-1] - phi[0]).expand(10) / 10, rtol=0, atol=1e-12)


@every
def test_float64_whatever_comes_in(schedule):
    for t in (0.5, torch.tensor(0.5), torch.tensor([0.25, 0.5])):
        for method in (schedule.alpha, schedule.sigma, schedule.log_snr, schedule.drift, schedule.diffusion):
            assert method(t).dtype == torch.float64
            assert method(t).shape == torch.as_tensor(t).shape


@every
@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan])
def test_times_outside_the_unit_interval_are_refused(schedule, t):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        schedule.alpha(t)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CosineSchedule(5, -5),
        lambda: CosineSchedule(-math.inf, 5),
        lambda: CosineSchedule(-100, 5),
        lambda: CosineSchedule("-20"),
        lambda: CosineSchedule(shift=math.nan),
        lambda: CosineSchedule.for_size(0),
        lambda: LinearSchedule(2, 1),
        lambda: LinearSchedule(-1, 1),
        lambda: VESchedule(1, 0.1),
        lambda: VESchedule(0, 1),
    ],
)
def test_impossible_parameters_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_python_numbers_keep_their_precision():
    exact = CosineSchedule().log_snr(torch.tensor(0.7, dtype=torch.float64))
    assert CosineSchedule().log_snr(0.7) == exact
