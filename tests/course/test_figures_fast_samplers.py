"""The drawings of lesson 06b, and those of its equations that have no test elsewhere."""

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import gaussian, samplers, time_grids
from minivdm.course.notebook.figures import fast_samplers as fast
from minivdm.course.notebook.figures import samplers as fig

SCHEDULE = fig.lesson_schedule()
LINE, PLANE = fig.line_world(), fig.plane_world()


# --- equations


@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_karras_times_are_even_in_a_root_of_the_noise(rho):
    times = time_grids.karras(9, SCHEDULE, sigma_min=0.02, sigma_max=30.0, rho=rho)[:-1]
    roots = (SCHEDULE.sigma(times) / SCHEDULE.alpha(times)) ** (1 / rho)
    assert abs(roots[0] - 30 ** (1 / rho)) < 1e-9 and abs(roots[-1] - 0.02 ** (1 / rho)) < 1e-9
    assert (roots.diff() - roots.diff()[0]).abs().max() < 1e-9  # float64 rounding through the schedule's inverse


def test_noise_and_flow_back_is_a_langevin_step():
    """(6.22), in the mean over the fresh noise: what remains beyond half the added variance is of second order."""
    t, z = torch.tensor(0.5, dtype=torch.float64), PLANE.sample(20, torch.Generator().manual_seed(0))[0]
    denoise = PLANE.denoiser(SCHEDULE)
    rests = []
    for c in (0.02, 0.01):
        up = SCHEDULE.time(SCHEDULE.log_snr(t) - 2 * torch.log1p(torch.tensor(c).double()))
        scale, _ = gaussian.transition(t, up, SCHEDULE)
        moved = samplers.heun_step(denoise, scale * z, up, t) - z  # the fresh noise at its mean, 0
        score = PLANE.score(z, SCHEDULE.alpha(t), SCHEDULE.sigma(t))
        langevin = ((1 + c) ** 2 - 1) * SCHEDULE.sigma(t) ** 2 / 2 * score
        rests.append((moved - langevin).abs().max())
    assert rests[0] / rests[1] > 3  # quarters when c halves


def test_pairs_of_the_flow_are_in_order_and_joined_straight():
    noise, data = fast.straight_flow(101)
    assert (data.diff(dim=0) > 0).all()
    for t in (0.25, 0.5, 0.75):
        assert (((1 - t) * data + t * noise).diff(dim=0) > 0).all()  # no two lines meet
    share = fig.distribution(LINE, data, torch.tensor(1.0), torch.tensor(0.0))
    assert (share - torch.special.ndtr(noise)).abs().max() < 1e-9  # the same quantiles: the data's law


def test_a_constant_step_of_2m_is_ddim():
    z, denoise = fig.even_quantiles(9), LINE.denoiser(SCHEDULE)
    step = samplers.DPMSolverPlusPlus2M()
    assert (step(denoise, z, 0.7, 0.5) - samplers.ddim_step(denoise, z, 0.7, 0.5)).abs().max() < 1e-12


# --- drawings


def test_straight_paths_begin_in_noise_and_end_in_data():
    noise = fig.even_quantiles(7)
    assert (fast.straight_path(noise, 1.0) - noise).abs().max() < 1e-9
    assert torch.equal(fast.straight_path(noise, 0.0), fast.straight_flow(7)[1])


def test_the_drawings_are_figures():
    lines = {"one": [1.0, 0.5], "two": [2.0, 0.25]}
    log_snr = torch.linspace(-4, 4, 5)
    assert isinstance(fast.draw_quantiles(0.9, 0.2), Figure)
    assert isinstance(fast.draw_orders(lines, [8, 16], {"one": 1, "two": 2}), Figure)
    assert isinstance(fast.draw_grids({"a": (log_snr, log_snr.exp())}, {"even": log_snr, "odd": log_snr}), Figure)
    assert isinstance(fast.draw_reflow(), Figure)
