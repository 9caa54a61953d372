"""The drawings of lesson 05, and the identities it derives: what they show is what the package computes."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import gaussian
from minivdm.core.schedules import CosineSchedule, SubVPSchedule, VESchedule
from minivdm.course.notebook.figures import parameterization as figures
from minivdm.exact import GaussianMixture

SCHEDULES = [CosineSchedule(-6, 6), SubVPSchedule(), VESchedule(0.05, 20.0)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def noisy(schedule, t: float, n: int = 256):
    generator = torch.Generator().manual_seed(0)
    x, _ = figures.world().sample(n, generator)
    return gaussian.diffuse(x, t, schedule, generator=generator), schedule.alpha(t), schedule.sigma(t)


# ---- the lesson's identities -------------------------------------------------------------------------------


@every_schedule
def test_the_optimal_predictions_obey_the_conversions(schedule) -> None:
    z, alpha, sigma = noisy(schedule, 0.6)
    score = figures.world().score(z, alpha, sigma)  # by differentiating the density, not by conversion
    x_hat = figures.world().posterior_mean(z, alpha, sigma)
    eps_hat, v_hat = gaussian.eps_from_x(z, x_hat, alpha, sigma), gaussian.v_from_x(z, x_hat, alpha, sigma)
    # 1e-9: float64, after a division by sigma^2 as small as 0.04
    assert (score + eps_hat / sigma).abs().max() < 1e-9
    assert (v_hat - (alpha * eps_hat - sigma * x_hat)).abs().max() < 1e-9


@every_schedule
@pytest.mark.parametrize("t", [0.2, 0.7])
def test_errors_are_exchanged_at_fixed_rates(schedule, t: float) -> None:
    z, alpha, sigma = noisy(schedule, t)
    eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    off = 0.01

    def moved(name: str) -> float:
        convert = getattr(gaussian, f"x_from_{name}")
        return (convert(z, eps + off, alpha, sigma) - convert(z, eps, alpha, sigma)).mean().item()

    expected = {"eps": -sigma / alpha, "v": -sigma / (alpha**2 + sigma**2), "score": sigma**2 / alpha}
    for name, rate in expected.items():
        assert abs(moved(name) - off * rate.item()) < 1e-9 * max(1.0, rate.abs().item())  # differences of float64


def test_a_rotation_by_the_difference_of_angles_moves_z(generator) -> None:
    x, eps = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    phi, other = 0.4, 1.3
    z, v = (math.cos(phi) * x + math.sin(phi) * eps, math.cos(phi) * eps - math.sin(phi) * x)
    there = math.cos(other - phi) * z + math.sin(other - phi) * v
    assert (there - (math.cos(other) * x + math.sin(other) * eps)).abs().max() < 1e-14
    assert abs((z**2 + v**2).sum() - (x**2 + eps**2).sum()) < 1e-12


def test_unit_gaussian_data_leave_v_nothing_to_learn() -> None:
    schedule = CosineSchedule(-6, 6)
    world = GaussianMixture(torch.ones(1), torch.zeros(1, 2), 1.0)
    for t in (0.1, 0.5, 0.9):
        z, alpha, sigma = noisy(schedule, t)
        x_hat = world.posterior_mean(z, alpha, sigma)
        assert gaussian.v_from_x(z, x_hat, alpha, sigma).abs().max() < 1e-12
        assert (gaussian.eps_from_x(z, x_hat, alpha, sigma) - sigma * z).abs().max() < 1e-12


# ---- the drawings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["x", "eps", "v"])
def test_vectors_draw_the_packages_radii(target: str) -> None:
    phi, error = 0.9, 0.1
    made = figures.vectors(phi=phi, target=target, error=error)
    assert isinstance(made, Figure)
    alpha, sigma = math.cos(phi), math.sin(phi)
    expected = {"x": (1, alpha / sigma), "eps": (sigma / alpha, 1), "v": (sigma, alpha)}[target]
    radii = [patch.radius for patch in made.axes[0].patches if hasattr(patch, "radius")][1:]
    wanted = [error * r for name, r in zip(("x", "eps"), expected, strict=True) if name != target]
    assert radii == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["x", "eps", "v", "score"])
def test_error_factors_are_those_of_the_conversions(name: str) -> None:
    schedule = figures.SCHEDULE
    log_snr = torch.tensor([-5.0, 0.0, 5.0], dtype=torch.float64)
    t = schedule.time(log_snr)
    z, off = torch.zeros(3, 1).double(), torch.ones(3, 1).double()
    convert = getattr(gaussian, f"x_from_{name}", lambda z, x, alpha, sigma: x)
    x = convert(z, off, schedule.alpha(t), schedule.sigma(t))
    eps = gaussian.eps_from_x(z, x, schedule.alpha(t), schedule.sigma(t))
    of_x, of_eps = figures.error_factors(name, log_snr)
    assert torch.allclose(of_x, x.abs()[:, 0], rtol=1e-9)
    assert torch.allclose(of_eps, eps.abs()[:, 0], rtol=1e-9)


def test_distance_of_the_exact_denoiser_is_rounding() -> None:
    log_snr = torch.tensor([-10.0, 0.0, 5.0], dtype=torch.float64)
    exact = figures.world().denoiser(figures.SCHEDULE)
    # float32 points shift a blob's responsibilities by about 1e-7 times their slope
    assert figures.distance_from_exact(exact, log_snr, samples=100).max() < 1e-5


def test_distance_of_a_shifted_denoiser_is_the_shift() -> None:
    class Shifted:
        schedule = figures.SCHEDULE

        def __call__(self, z, t):
            return figures.world().denoiser(self.schedule)(z, t) + 0.3

    found = figures.distance_from_exact(Shifted(), torch.tensor([0.0, 4.0]).double(), samples=50)
    assert (found - 0.3).abs().max() < 1e-5


def test_drawings_take_plain_numbers() -> None:
    log_snr = torch.tensor([-1.0, 1.0]).double()
    made = figures.by_log_snr(log_snr, {"v": torch.tensor([0.1, 0.2]).double()})
    assert made.axes[1].lines[0].get_ydata().tolist() == pytest.approx([0.1 * math.exp(-0.5), 0.2 * math.exp(0.5)])
    assert isinstance(figures.exchange(), Figure)
    assert isinstance(figures.weightings(min_snr_gamma=2), Figure)
    made = figures.clouds({"eps": torch.tensor([[0.0, 0.0], [9.0, 0.0]])})
    assert "1 of 2 outside" in made.axes[0].get_title("left")
    assert isinstance(figures.blocks(), Figure)
