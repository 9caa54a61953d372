"""The probability-flow ODE: its velocity, its exact flow, and how fast the solvers converge to it."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from minivdm.core.ode import velocity
from minivdm.core.samplers import DPMSolverPlusPlus2M, ddim_step, euler_step, heun_step, sample
from minivdm.core.schedules import CosineSchedule, LinearSchedule, SubVPSchedule, VESchedule
from minivdm.exact import GaussianMixture, GaussianVideo

SCHEDULES = [CosineSchedule(-12, 12), LinearSchedule(), SubVPSchedule(), VESchedule(0.02, 20.0)]
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
MIXTURE = GaussianMixture.ring(5, 1.0, 0.25)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@every
def test_velocity_is_the_drift_less_half_g_squared_score(schedule, generator):
    # dz/dt = f z - (1/2) g^2 grad log q (Song et al. 2021, eq 13).
    z, t = normal(generator, 4, 2), torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    score = MIXTURE.score(z, schedule.alpha(t), schedule.sigma(t))
    f, g = schedule.drift(t)[:, None], schedule.diffusion(t)[:, None]
    torch.testing.assert_close(velocity(MIXTURE.denoiser(schedule), z, t), f * z - g**2 / 2 * score)


@every
def test_densities_move_with_the_velocity(schedule, generator):
    # The continuity equation, Fokker-Planck's for this ODE: d log q / dt = -div v - v . grad log q.
    t, h = 0.4, 1e-4
    z = normal(generator, 5, 2)
    denoise = MIXTURE.denoiser(schedule)

    def log_q(time):
        return MIXTURE.log_prob(z, schedule.alpha(time), schedule.sigma(time))

    change = (log_q(t + h) - log_q(t - h)) / (2 * h)

    def field(point):
        return velocity(denoise, point[None], t)[0]

    jacobian = torch.stack([torch.autograd.functional.jacobian(field, point) for point in z])
    divergence = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    score = MIXTURE.score(z, schedule.alpha(t), schedule.sigma(t))
    expected = -divergence - (velocity(denoise, z, t) * score).sum(1)
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-4)  # central differences: h^2 of third derivatives


@every
def test_flow_of_a_gaussian_stretches_its_axes(schedule, generator):
    # z_s = sqrt((alpha_s^2 l + sigma_s^2) / (alpha_t^2 l + sigma_t^2)) z_t along an eigenvector of variance l.
    video = GaussianVideo(4, 0.9)
    z, t, s = normal(generator, 3, 1, 4, 1, 1), 0.8, 0.3
    variances, axes = torch.linalg.eigh(video.covariance)

    def std(time):
        return (schedule.alpha(time) ** 2 * variances + schedule.sigma(time) ** 2).sqrt()

    expected = (z.flatten(1) @ axes * std(s) / std(t)) @ axes.T
    result = sample(video.denoiser(schedule), z, grid=torch.linspace(t, s, 401).double(), step=heun_step)
    torch.testing.assert_close(result.flatten(1), expected, rtol=0, atol=2e-4)  # 400 steps of second order


@pytest.fixture(scope="module")
def flow():
    """The mixture's flow from t = 1 to 0.02 by scipy, to about 3e-8: far below the errors measured against it."""
    denoise = MIXTURE.denoiser(CosineSchedule(-12, 12))
    start = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def right_hand_side(t, y):
        return velocity(denoise, torch.as_tensor(y).reshape(8, 2), float(t)).numpy().ravel()

    end = solve_ivp(right_hand_side, (1.0, 0.02), start.numpy().ravel(), method="DOP853", rtol=1e-9, atol=1e-9)
    return denoise, start, torch.as_tensor(end.y[:, -1]).reshape(8, 2)


@pytest.mark.parametrize(
    "make, order, tolerance",
    [
        (lambda: ddim_step, 1, 0.15),
        (lambda: euler_step, 1, 0.15),
        (lambda: heun_step, 2, 0.25),
        (DPMSolverPlusPlus2M, 2, 0.25),
    ],
    ids=["ddim", "euler", "heun", "dpm-solver++(2m)"],
)
@pytest.mark.parametrize("uniform", ["t", "log_snr"])
def test_order_of_convergence(make, order, tolerance, uniform, flow):
    # The slope of log error over log steps; the tolerances leave room for terms of higher order at 32 steps.
    denoise, start, end = flow
    errors, steps = [], (32, 64, 128, 256)
    for n in steps:
        if uniform == "t":
            grid = torch.linspace(1, 0.02, n + 1, dtype=torch.float64)
        else:
            high, low = denoise.schedule.log_snr(torch.tensor([0.02, 1.0], dtype=torch.float64))
            grid = denoise.schedule.time(torch.linspace(low, high, n + 1, dtype=torch.float64)).clamp(0, 1)
        errors.append((sample(denoise, start, grid=grid, step=make()) - end).abs().max().item())
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=tolerance)


def test_dpm_solver_begins_with_ddim_and_goes_on_from_its_past(generator):
    denoise = MIXTURE.denoiser(CosineSchedule())
    z, solver = normal(generator, 4, 2), DPMSolverPlusPlus2M()
    first, past = solver.advance(denoise, z, 0.9, 0.8)
    torch.testing.assert_close(first, ddim_step(denoise, z, 0.9, 0.8), rtol=1e-9, atol=1e-11)
    second, _ = solver.advance(denoise, first, 0.8, 0.7, past)
    assert not torch.allclose(second, ddim_step(denoise, first, 0.8, 0.7))
    # l = lambda / 2: x_hat is continued along the line through its last two values, to the middle of the step.
    schedule, x_hat = denoise.schedule, denoise(first, 0.8)
    h, last_h = ((schedule.log_snr(s) - schedule.log_snr(t)) / 2 for t, s in ((0.8, 0.7), (0.9, 0.8)))
    middle = x_hat + h / (2 * last_h) * (x_hat - denoise(z, 0.9))
    expected = schedule.sigma(0.7) / schedule.sigma(0.8) * first - schedule.alpha(0.7) * torch.expm1(-h) * middle
    torch.testing.assert_close(second, expected, rtol=1e-12, atol=1e-12)


def test_a_solver_remembers_nothing_between_runs(generator):
    # One run ends where the other begins, on other data: an object with a memory of its own would mix them.
    denoise, step = MIXTURE.denoiser(CosineSchedule()), DPMSolverPlusPlus2M()
    z, other = normal(generator, 4, 2), normal(generator, 4, 2)
    fresh = sample(denoise, z, step=DPMSolverPlusPlus2M(), grid=[0.5, 0.25, 0.1])
    sample(denoise, other, step=step, grid=[1.0, 0.75, 0.5])
    assert torch.equal(sample(denoise, z, step=step, grid=[0.5, 0.25, 0.1]), fresh)
    assert vars(step) == {}
