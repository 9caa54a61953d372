"""The drawings of lesson 04: what they draw is what the package computes."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import loss_weight
from minivdm.course.notebook.figures import elbo
from minivdm.exact import bound


def test_kl_is_the_area_it_fills() -> None:
    made = elbo.kl_of_gaussians(shift=0.5, ratio=0.3)
    assert isinstance(made, Figure)
    u, integrand = made.axes[0].lines[2].get_data()
    # The trapezoid rule on a grid of 0.025 is exact to rounding for functions this smooth.
    area = torch.trapezoid(torch.as_tensor(integrand), torch.as_tensor(u)).item()
    assert made.axes[0].get_title("left") == f"KL(q || p) = {area:.3f} nats"


def test_curve_is_the_packages_error(generator) -> None:
    world = elbo.world()
    x, _ = world.sample(40_000, generator)
    denoise = world.denoiser(elbo.SCHEDULES["cosine"])
    curve = elbo.error_curve()
    for place in (60, 100, 130, 180):
        h = bound.nats_per_log_snr(denoise, x, denoise.schedule.time(curve.log_snr[place]), generator)
        # 2 %: the curve averages over 256 evenly spread points
        assert abs(h.mean() - curve.nats[place]) < 4 * h.std() / 200 + 0.02 * curve.nats[place]


def test_limit_is_the_mixtures_entropy(generator) -> None:
    x, _ = elbo.world().sample(100_000, generator)
    curve = elbo.error_curve()
    limit = torch.trapezoid(curve.nats, curve.log_snr).item() + curve.rest
    # 0.02 nats: three standard errors of the entropy are 0.01, the curve's own error is about as large
    assert abs(limit + elbo.world().log_prob(x).mean().item()) < 0.02


@pytest.mark.parametrize("schedule", elbo.SCHEDULES)
def test_teeth_have_the_area_of_the_discrete_bound(schedule: str, generator) -> None:
    x, _ = elbo.world().sample(4096, generator)
    steps = elbo.discrete_steps(24, schedule)
    denoise = elbo.world().denoiser(elbo.SCHEDULES[schedule])
    exact = bound.discrete_bound(denoise, x, 24, 2, generator).diffusion.mean().item()
    assert abs(steps.nats.sum().item() / exact - 1) < 0.05  # both carry about 2 % of sampling error


def test_sawtooth_takes_plain_numbers() -> None:
    made = elbo.sawtooth(steps=3, schedule="cosine")
    assert isinstance(made, Figure)
    assert "cosine" in made.axes[0].get_title("left")


@pytest.mark.parametrize("schedule", elbo.SCHEDULES.values(), ids=elbo.SCHEDULES)
def test_effective_weights_turn_each_loss_into_an_integral(schedule) -> None:
    # E_t[w h'] over uniform t must equal the integral over lambda, here for ||x - x_hat||^2 = e^-lambda / (1 + ...)
    log_snr = torch.linspace(-10, 10, 20_001, dtype=torch.float64)[1:-1]
    noise_error = torch.exp(-(log_snr**2) / 4)  # any smooth (1/2)||eps - eps_hat||^2
    weight = elbo.effective_weight("v", log_snr, schedule)
    integral = torch.trapezoid(weight * noise_error, log_snr).item()
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    lam = schedule.log_snr(t)
    x_error = 2 * torch.exp(-(lam**2) / 4) / lam.exp()
    assert abs(integral - (loss_weight("v", t, schedule) * x_error).mean().item()) < 1e-3  # midpoint rule


def test_the_bounds_own_weight_is_one() -> None:
    weight = elbo.effective_weight("elbo", torch.linspace(-9, 9, 19).double(), elbo.SCHEDULES["cosine"])
    assert (weight - 1).abs().max() < 1e-9
    assert isinstance(elbo.weights(), Figure)


def test_drawings_of_results_draw_them() -> None:
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 1.5])
    made = elbo.against_likelihood(a, {"one": b})
    assert made.axes[0].lines[0].get_ydata().tolist() == b.tolist()
    made = elbo.estimators({"one": a, "two": b}, exact=0.7)
    assert made.axes[0].lines[1].get_xdata().tolist() == b.tolist()
    made = elbo.training([0, 1], [2.0, 1.0], [0.1, 0.1], exact=math.pi)
    assert isinstance(made, Figure)
