"""Lesson 05, flow matching: the identities it derives, and its drawings."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import (
    CosineSchedule,
    FlowSchedule,
    ddim_step,
    diffuse,
    euler_step,
    gaussian,
    loss_weight,
    stratified_times,
    velocity,
)
from minivdm.course.notebook.figures import flow
from minivdm.course.notebook.figures.elbo import effective_weight

LINE = FlowSchedule()
SLOPES = (torch.tensor(-1.0).double(), torch.tensor(1.0).double())


def pair(n: int = 64):
    generator = torch.Generator().manual_seed(0)
    x, _ = flow.world().sample(n, generator)
    return x, torch.randn(x.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_velocity_of_the_line_is_noise_less_data(t: float) -> None:
    x, eps = pair()
    z, step = diffuse(x, t, LINE, eps), 1e-4
    slope = (diffuse(x, t + step, LINE, eps) - diffuse(x, t - step, LINE, eps)) / (2 * step)
    assert (slope - (eps - x)).abs().max() < 1e-9  # a line: no error but rounding over the step
    assert (gaussian.velocity_from_x(z, x, 1 - t, t, SLOPES) - (eps - x)).abs().max() < 1e-9
    assert (z - t * (eps - x) - x).abs().max() < 1e-12
    assert (z + (1 - t) * (eps - x) - eps).abs().max() < 1e-12


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_velocity_is_v_with_a_known_part_added(t: float) -> None:
    x, eps = pair()
    z, v = diffuse(x, t, LINE, eps), (1 - t) * eps - t * x
    assert (((2 * t - 1) * z + v) / ((1 - t) ** 2 + t**2) - (eps - x)).abs().max() < 1e-12


def test_mean_velocity_carries_the_density() -> None:
    # d/dt of log q(z(t), t) along dz/dt = u is minus the divergence of u: the continuity equation
    world, t, step = flow.world(), 0.6, 1e-4
    denoise = world.denoiser(LINE)
    z = diffuse(*pair(8)[:1], t, LINE, pair(8)[1]).requires_grad_()
    u = velocity(denoise, z, t)
    divergence = sum(torch.autograd.grad(u[:, i].sum(), z, retain_graph=True)[0][:, i] for i in range(2))

    def log_q(z, t):
        return world.log_prob(z, LINE.alpha(t), LINE.sigma(t))

    z, u = z.detach(), u.detach()
    change = (log_q(z + step * u, t + step) - log_q(z - step * u, t - step)) / (2 * step)
    assert (change + divergence.detach()).abs().max() < 1e-4  # a central difference, second order in 1e-4


@pytest.mark.parametrize("log_snr", [-6.0, 0.0, 4.0])
def test_weight_of_the_velocity_is_the_square_of_root_snr_plus_one(log_snr: float) -> None:
    t = LINE.time(log_snr)
    assert abs(loss_weight("velocity", t, LINE) / (math.exp(log_snr / 2) + 1) ** 2 - 1) < 1e-9
    assert abs(t - 1 / (1 + math.exp(log_snr / 2))) < 1e-12


def test_velocity_on_the_line_and_v_under_cosine_are_one_objective() -> None:
    log_snr = torch.linspace(-8, 8, 33, dtype=torch.float64)
    on_line = effective_weight("velocity", log_snr, LINE)
    assert torch.allclose(on_line, torch.exp(-log_snr / 2), rtol=1e-6)
    under_cosine = effective_weight("v", log_snr, CosineSchedule(-40, 40))  # hardly truncated
    assert torch.allclose(under_cosine, 2 / math.pi * on_line, rtol=1e-4)


def test_logit_normal_times_are_normal_in_log_snr() -> None:
    m, b, n = 0.5, 0.8, 20_000
    t = stratified_times(n, LINE, torch.Generator().manual_seed(1), logit_normal=(m, b))
    log_snr = LINE.log_snr(t)
    # Stratified: the sample's moments are the distribution's to about 1 / n, but for the ends cut at |lambda| = 23.
    assert abs(log_snr.mean() + 2 * m) < 1e-3 and abs(log_snr.std() - 2 * b) < 2e-3


@pytest.mark.parametrize("name", ["cosine, uniform t", "flow line, uniform t", "flow line, logit-normal t", "EDM"])
def test_densities_are_those_of_the_times(name: str) -> None:
    log_snr = torch.linspace(-60, 60, 12_001, dtype=torch.float64)
    density = flow.densities(log_snr, m=0.5, b=0.8)[name]
    assert abs(torch.trapezoid(density, log_snr) - 1) < 1e-6
    schedules = {"cosine, uniform t": CosineSchedule(-40, 40), "flow line, uniform t": LINE}
    if name in schedules:  # the share of uniform times with a log-SNR below 1 is 1 - t(1)
        below = log_snr <= 1
        share = torch.trapezoid(density[below], log_snr[below]).item()
        assert abs(share - (1 - schedules[name].time(1.0).item())) < 1e-3  # half a cell of the grid


def test_euler_on_the_line_is_a_ddim_step_in_any_unit() -> None:
    cosine, t, s = CosineSchedule(-40, 40), 0.7, 0.4
    z = diffuse(*pair()[:1], t, LINE, pair()[1])
    line = euler_step(flow.world().denoiser(LINE), z, t, s)
    assert (line - ddim_step(flow.world().denoiser(LINE), z, t, s)).abs().max() < 1e-12
    there, here = (cosine.time(LINE.log_snr(time)) for time in (t, s))
    turned = ddim_step(flow.world().denoiser(cosine), z / LINE.prior_std(t), there, here)
    assert (line - turned * LINE.prior_std(s)).abs().max() < 1e-9


def test_names_of_one_level() -> None:
    found = flow.names(torch.tensor([0.0, 4.0], dtype=torch.float64))
    assert found.alpha_bar[0] == 0.5 and found.sigma[0] == 1.0 and found.flow_time[0] == 0.5
    assert abs(found.angle[0] - math.pi / 4) < 1e-12 and abs(found.cosine_time[0] - 0.5) < 1e-12
    assert abs(found.flow_time[1] - LINE.time(4.0)) < 1e-12
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - beta, 0)[int(found.step[1]) - 1]
    assert abs(torch.logit(bar) - 4.0) < 0.05  # the nearest of the steps


def test_bend_of_a_line_and_of_a_detour() -> None:
    line = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[2.0, 0.0]]])
    detour = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]], [[2.0, 0.0]]])
    assert flow.bend(line).item() == 1.0
    assert abs(flow.bend(detour).item() - math.sqrt(2)) < 1e-6


def test_both_schedules_lead_to_the_same_ends() -> None:
    ends = [flow.exact_paths(name)[-1] for name in flow.SCHEDULES]
    assert (ends[0] - ends[1]).abs().max() < 0.02  # 80 steps of Heun each; cosine starts at -20


def test_drawings_take_plain_numbers() -> None:
    assert isinstance(flow.times(m=1, b=1), Figure)
    made = flow.chords(steps=1, path="cosine")
    assert "cosine" in made.axes[0].get_title("left")
    assert isinstance(flow.straightened({"a": flow.exact_paths("cosine")}), Figure)
