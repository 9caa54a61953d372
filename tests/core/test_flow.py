"""The flow path, alpha = 1 - t and sigma = t: every sampler runs on it from pure noise, every target learns on it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from minivdm.core import gaussian
from minivdm.core.denoiser import Denoiser
from minivdm.core.guidance import classifier, reconstruction
from minivdm.core.ode import velocity
from minivdm.core.samplers import (
    DPMSolverPlusPlus2M,
    ancestral_law,
    ancestral_step,
    clean_step,
    ddim_law,
    ddim_step,
    euler_step,
    heun_step,
    langevin_step,
    reverse_sde_step,
    sample,
)
from minivdm.core.schedules import CosineSchedule, FlowSchedule, LinearSchedule, SubVPSchedule, VESchedule
from minivdm.core.targets import stratified_times
from minivdm.exact import GaussianMixture, GaussianVideo
from minivdm.exact.propagate import Propagation
from minivdm.guards import BadArgument

FLOW = FlowSchedule()
VIDEO = GaussianVideo(6, 0.9)
MIXTURE = GaussianMixture.ring(3, 1.0, 0.3)
STEPS = {
    "euler": lambda: euler_step,
    "heun": lambda: heun_step,
    "ddim": lambda: ddim_step,
    "dpm-solver++(2m)": DPMSolverPlusPlus2M,
    "ancestral": lambda: ancestral_step,
}
SCHEDULES = [FLOW, CosineSchedule(), LinearSchedule(), SubVPSchedule(), VESchedule(0.05, 20.0)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- samplers from t = 1 ------------------------------------------------------------------------------------------


def exact_map(step, steps):
    """The matrix that a deterministic sampler applies to its noise: every step is linear on a centred Gaussian."""
    identity = torch.eye(6, dtype=torch.float64).reshape(6, 1, 6, 1, 1)
    return sample(VIDEO.denoiser(FLOW), identity, steps, step=step).flatten(1).T


# DPM-Solver++(2M) steps in lambda, which is infinite at both ends: the steps next to them never shrink, and its order
# rises to 2 only slowly, from 1.6 at 40 steps to 1.8 at 640.
ORDERS = {"euler": (0.8, 1.2), "ddim": (0.8, 1.2), "heun": (1.8, 2.3), "dpm-solver++(2m)": (1.5, 2.2)}


@pytest.mark.parametrize("name", ORDERS)
def test_solvers_converge_to_the_gaussian_video_from_pure_noise(name):
    # W2 between N(0, A A^T) and N(0, S), without Monte Carlo: 0 in the limit, at the solver's own order.
    distances, counts = [], (20, 40, 80)
    for steps in counts:
        matrix = exact_map(STEPS[name](), steps)
        law = VIDEO.law._replace(covariance=matrix @ matrix.T)
        distances.append(VIDEO.wasserstein(law))
    slope = -np.polyfit(np.log(counts), np.log(distances), 1)[0]
    assert distances[1] < 0.1
    assert ORDERS[name][0] < slope < ORDERS[name][1]


def test_euler_and_ddim_are_one_step_on_the_flow_path(generator):
    # alpha and sigma are straight lines: Euler's tangent does not leave them.
    z = normal(generator, 8, 2)
    for t, s in ((1.0, 0.7), (0.5, 0.2), (0.1, 0.0)):
        one, other = euler_step(MIXTURE.denoiser(FLOW), z, t, s), ddim_step(MIXTURE.denoiser(FLOW), z, t, s)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_ancestral_sampling_from_pure_noise_has_the_law_of_its_equation():
    # Propagation knows the exact law of the output of the same steps; it has to be finite and near the truth.
    law = Propagation(VIDEO, FLOW, lambda _: VIDEO.denoiser(FLOW)).run(160, ancestral_law)
    assert law.covariance.isfinite().all()
    half = Propagation(VIDEO, FLOW, lambda _: VIDEO.denoiser(FLOW)).run(80, ancestral_law)
    assert VIDEO.wasserstein(law) < 0.6 * VIDEO.wasserstein(half) < 0.1


@pytest.mark.parametrize("name", STEPS)
def test_samples_from_pure_noise_have_the_law_of_the_video(name, generator):
    # 20,000 draws of 6 values: W2 of true samples to their own law is about 0.03 there.
    noise = normal(generator, 20_000, *VIDEO.shape)
    made = sample(VIDEO.denoiser(FLOW), noise, 40, step=STEPS[name](), generator=generator)
    assert VIDEO.wasserstein(made) < {"ancestral": 0.2}.get(name, 0.12)


@every_schedule
@pytest.mark.parametrize("name", STEPS)
def test_the_step_itself_may_take_the_last_interval(name, schedule, generator):
    # `final=None`: the step is called on every interval, also where no noise is left at t = 0.
    calls, noise = [], normal(generator, 3, *VIDEO.shape) * schedule.prior_std()
    step = STEPS[name]()

    def noted(denoise, z, t, s, generator=None):
        calls.append(float(s))
        return step(denoise, z, t, s, generator=generator)

    last = [0.5, 0.25, 0.0]
    result = sample(VIDEO.denoiser(schedule), noise, step=noted, grid=last, final=None, generator=generator)
    assert result.isfinite().all() and calls == [0.25, 0.0]
    calls.clear()
    named = sample(VIDEO.denoiser(schedule), noise, step=noted, grid=last, final=clean_step, generator=generator)
    assert calls == [0.25] and named.isfinite().all()


def test_a_multistep_solver_takes_the_last_interval_without_its_past(generator):
    # No noise is left at t = 0, so the interval has no end in lambda: the solver falls back to DDIM, which is x_hat.
    z = normal(generator, 3, *VIDEO.shape)
    options = {"grid": [0.5, 0.25, 0.0], "step": DPMSolverPlusPlus2M()}
    one, other = (sample(VIDEO.denoiser(FLOW), z, final=final, **options) for final in (None, clean_step))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_guidance_says_nothing_where_z_does(generator):
    z, one = normal(generator, 4, 2), torch.tensor(1.0)
    denoise = MIXTURE.denoiser(FLOW)
    for guided in (
        classifier(denoise, MIXTURE.log_class(0, FLOW), 2.0),
        reconstruction(denoise, torch.zeros(1, 1), 2.0, lambda x: x[:, :1], variance="pigdm"),
        reconstruction(denoise, torch.zeros(1, 1), 2.0, lambda x: x[:, :1]),
    ):
        torch.testing.assert_close(guided(z, one), denoise(z, one))
        assert sample(guided, z, 8).isfinite().all()


def test_the_langevin_corrector_runs_on_the_flow_path(generator):
    noise = normal(generator, 4, *VIDEO.shape)
    assert sample(VIDEO.denoiser(FLOW), noise, 5, corrector=langevin_step, generator=generator).isfinite().all()


def test_the_reverse_sde_says_where_its_drift_is_infinite(generator):
    with pytest.raises(BadArgument, match="up to 0.99999"):
        reverse_sde_step(VIDEO.denoiser(FLOW), normal(generator, 1, *VIDEO.shape), 1.0, 0.9)


# ---- zero SNR on other schedules ----------------------------------------------------------------------------------


class ZeroTerminal(CosineSchedule):
    """The cosine schedule run to the very end: alpha = cos(pi t / 2), sigma = sin(pi t / 2)."""

    t_min, t_max = 1e-5, 1 - 1e-5

    def alpha(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return torch.cos(t * math.pi / 2).where(t < 1, 0.0)

    def sigma(self, t):
        return torch.sin(torch.as_tensor(t, dtype=torch.float64) * math.pi / 2)

    def alpha_slope(self, t):
        return -math.pi / 2 * self.sigma(t)

    def sigma_slope(self, t):
        return math.pi / 2 * self.alpha(t)

    def log_snr(self, t):
        return 2 * (self.alpha(t).log() - self.sigma(t).log())


@pytest.mark.parametrize("name", STEPS)
def test_zero_terminal_snr_samples_with_every_step(name, generator):
    noise = normal(generator, 20_000, *VIDEO.shape)
    made = sample(VIDEO.denoiser(ZeroTerminal()), noise, 40, step=STEPS[name](), generator=generator)
    assert VIDEO.wasserstein(made) < 0.2  # 40 steps; NaN would fail as well


def test_without_signal_ancestral_and_ddim_steps_agree_with_q_of_x_hat(generator):
    # Where z says nothing, q(z_s | z_t, x) is q(z_s | x): N(alpha_s x, sigma_s^2 I).
    z, denoise = normal(generator, 3, 2), MIXTURE.denoiser(FLOW)
    mean, variance = ancestral_law(denoise, z, 1.0, 0.6)
    torch.testing.assert_close(mean, 0.4 * denoise(z, 1.0))
    assert variance.item() == pytest.approx(0.36)
    mean, variance = ddim_law(denoise, z, 1.0, 0.6, eta=1.0)
    torch.testing.assert_close(mean, 0.4 * denoise(z, 1.0))
    assert variance.item() == pytest.approx(0.36)


# ---- velocity as a name, and as a target ----------------------------------------------------------------------------


@every_schedule
def test_velocity_is_one_prediction_under_another_name(schedule, generator):
    x, eps, t = normal(generator, 4, 3), normal(generator, 4, 3), torch.tensor([0.1, 0.4, 0.7, 0.9]).double()
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    slopes = schedule.alpha_slope(t), schedule.sigma_slope(t)
    z = gaussian.diffuse(x, t, schedule, eps)
    u = slopes[0][:, None] * x + slopes[1][:, None] * eps
    for convert, given, expected in (
        (gaussian.velocity_from_x, x, u),
        (gaussian.velocity_from_eps, eps, u),
        (gaussian.x_from_velocity, u, x),
        (gaussian.eps_from_velocity, u, eps),
    ):
        torch.testing.assert_close(convert(z, given, alpha, sigma, slopes), expected, rtol=1e-8, atol=1e-8)


@every_schedule
def test_velocity_is_the_slope_of_z_in_time(schedule, generator):
    x, eps, t, h = normal(generator, 2, 3), normal(generator, 2, 3), 0.4, 1e-5
    u = gaussian.velocity_from_x(gaussian.diffuse(x, t, schedule, eps), x, schedule.alpha(t), schedule.sigma(t),
                                 (schedule.alpha_slope(t), schedule.sigma_slope(t)))  # fmt: skip
    slope = (gaussian.diffuse(x, t + h, schedule, eps) - gaussian.diffuse(x, t - h, schedule, eps)) / (2 * h)
    torch.testing.assert_close(u, slope, rtol=1e-6, atol=1e-6)  # central differences: h^2 of the third derivative


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_on_the_flow_path_the_target_is_noise_less_data_at_every_time(t, generator):
    class Recorder(nn.Module):
        def forward(self, z, log_snr):
            assert log_snr.isfinite().all()  # also at t = 1, where lambda is minus infinity
            return torch.zeros_like(z)

    x, eps = normal(generator, 4, 3), normal(generator, 4, 3)
    loss = Denoiser(Recorder(), FLOW, "velocity").loss(x, t=torch.full((4,), t), noise=eps, weighting="velocity")
    if t > 0:  # at t = 0 the weight is 1 / 0, on an error of x_hat that is 0
        torch.testing.assert_close(loss.per_sample, (eps - x).square().mean(1))


def test_the_velocity_of_a_velocity_network_is_its_output(generator):
    class Network(nn.Module):
        def forward(self, z, log_snr):
            return torch.sin(3 * z)

    z = normal(generator, 4, 3)
    for t in (0.25, 1.0):
        torch.testing.assert_close(velocity(Denoiser(Network(), FLOW, "velocity"), z, t), torch.sin(3 * z))


@pytest.mark.parametrize("target", ["eps", "score"])
def test_targets_that_say_nothing_of_x_in_pure_noise_are_refused_there(target, generator):
    class Zero(nn.Module):
        def forward(self, z, log_snr):
            return torch.zeros_like(z)

    denoise, z = Denoiser(Zero(), FLOW, target), normal(generator, 2, 3)
    assert denoise(z, FLOW.t_max).isfinite().all()
    with pytest.raises(BadArgument, match="divides by alpha"):
        denoise(z, 1.0)


# ---- times --------------------------------------------------------------------------------------------------------


def test_logit_normal_times_are_stratified_and_have_their_moments(generator):
    # log(t / (1 - t)) ~ N(m, s^2) (Esser et al. 2024, eq 19): one draw in each n-th of the probability.
    n, mean, std = 2000, -0.4, 0.8
    t = stratified_times(n, FLOW, generator, logit_normal=(mean, std))
    logits = torch.logit((t - FLOW.t_min) / (FLOW.t_max - FLOW.t_min))
    share = torch.special.ndtr((logits - mean) / std)
    assert ((share * n).floor().long() - torch.arange(n)).abs().max() <= 1  # a rounding at the edge of a part
    # The error of a stratified mean is at most one part's spread: far below that of independent draws, 0.018.
    assert logits.mean().item() == pytest.approx(mean, abs=5e-3)
    assert logits.std().item() == pytest.approx(std, abs=1e-2)


def test_times_stay_where_the_flow_path_is_finite(generator):
    t = stratified_times(4000, FLOW, generator)
    assert t.min() >= FLOW.t_min and t.max() <= FLOW.t_max
    assert FLOW.log_snr(t).isfinite().all() and FLOW.diffusion(t).isfinite().all()
