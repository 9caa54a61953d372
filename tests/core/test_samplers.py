"""Steps against their equations, the loop, time grids, inversion and editing."""

import math
from functools import partial

import pytest
import torch

from minivdm.core import gaussian
from minivdm.core.samplers import (
    DPMSolverPlusPlus2M,
    Sampling,
    ancestral_law,
    ancestral_step,
    angular_ddim_step,
    as_grid,
    ddim_law,
    ddim_step,
    euler_step,
    for_few_steps,
    heun_step,
    karras,
    langevin_law,
    langevin_step,
    reverse_sde_law,
    reverse_sde_step,
    sample,
    uniform_in_log_snr,
    uniform_in_t,
)
from minivdm.core.schedules import CosineSchedule, LinearSchedule, SubVPSchedule, VESchedule
from minivdm.exact import GaussianMixture, GaussianVideo
from minivdm.tasks import invert, sdedit

SCHEDULES = [CosineSchedule(), LinearSchedule(), SubVPSchedule(), VESchedule(0.02, 20.0)]
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
MIXTURE = GaussianMixture.ring(5, 1.0, 0.25)
RANDOM_STEPS = {
    "ancestral": ancestral_step,
    "ancestral, gamma 1": partial(ancestral_step, gamma=1.0),
    "ddim, eta 1": partial(ddim_step, eta=1.0),
    "reverse sde": reverse_sde_step,
}
STEPS = {
    **RANDOM_STEPS,
    "ddim": ddim_step,
    "euler": euler_step,
    "heun": heun_step,
    "dpm-solver++(2m)": DPMSolverPlusPlus2M(),
}
every_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
T, S = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64), torch.tensor([0.2, 0.5, 0.6], dtype=torch.float64)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- random steps -------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_ancestral_law_is_vdm_equation_4(gamma, schedule, generator):
    z, denoise = normal(generator, 3, 2), MIXTURE.denoiser(schedule)
    mean, variance = ancestral_law(denoise, z, T, S, gamma)
    posterior = gaussian.posterior(z, denoise(z, T), S, T, schedule)
    largest = gaussian.transition(S, T, schedule).variance
    torch.testing.assert_close(mean, posterior.mean)
    expected = (1 - gamma) * posterior.variance.log() + gamma * largest.log()
    torch.testing.assert_close(variance.log(), expected)


@every
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_keeps_the_marginal_variance_for_every_eta(eta, schedule, generator):
    # For data of one point x the step maps q(z_t | x) to q(z_s | x) (Song et al. 2020, lemma 1).
    x = torch.tensor([[0.5, -0.5]], dtype=torch.float64)
    point = GaussianMixture(torch.ones(1), x, 1e-9)
    noise = normal(generator, 3, 2)
    z = gaussian.diffuse(x.expand(3, 2), T, schedule, noise)
    mean, fresh = ddim_law(point.denoiser(schedule), z, T, S, eta)
    kept = (mean - schedule.alpha(S)[:, None] * x) / noise  # the coefficient of the old noise
    # 1e-6: the point has a standard deviation of 1e-9, next to a noise of 0.02 and more.
    expected = (schedule.sigma(S) ** 2)[:, None].expand(3, 2)
    torch.testing.assert_close(kept**2 + fresh[:, None], expected, rtol=1e-6, atol=0)


@every
def test_ddim_with_eta_one_is_ancestral_sampling(schedule, generator):
    z, denoise = normal(generator, 3, 2), MIXTURE.denoiser(schedule)
    for one, other in zip(ddim_law(denoise, z, T, S, 1.0), ancestral_law(denoise, z, T, S, 0.0), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@every
def test_ddim_with_eta_zero_keeps_the_predicted_noise(schedule, generator):
    z, denoise = normal(generator, 3, 2), MIXTURE.denoiser(schedule)
    x_hat = denoise(z, T)
    eps_hat = gaussian.eps_from_x(z, x_hat, schedule.alpha(T), schedule.sigma(T))
    torch.testing.assert_close(ddim_step(denoise, z, T, S), gaussian.diffuse(x_hat, S, schedule, eps_hat))


def test_ddim_in_the_angle_is_a_rotation(generator):
    # z_s = cos(phi_s - phi_t) z_t + sin(phi_s - phi_t) v_hat (Salimans & Ho 2022), equal to DDIM.
    schedule = CosineSchedule()
    z, denoise = normal(generator, 3, 2), MIXTURE.denoiser(schedule)
    torch.testing.assert_close(angular_ddim_step(denoise, z, T, S), ddim_step(denoise, z, T, S), rtol=1e-9, atol=1e-11)
    with pytest.raises(ValueError, match="alpha"):
        angular_ddim_step(MIXTURE.denoiser(VESchedule()), z, T, S)


@every
def test_langevin_law_is_vdm_equation_5(schedule, generator):
    z, denoise, delta = normal(generator, 3, 2), MIXTURE.denoiser(schedule), 0.1
    mean, variance = langevin_law(denoise, z, T, delta)
    sigma = schedule.sigma(T)
    eps_hat = gaussian.eps_from_x(z, denoise(z, T), schedule.alpha(T), sigma)
    torch.testing.assert_close(mean, z - delta / 2 * sigma[:, None] * eps_hat)
    torch.testing.assert_close(variance, delta * sigma**2)


def test_langevin_steps_converge_to_the_marginal(generator):
    # At t = 0.5, from far away, 400 steps reach q_t up to the bias of order delta; moments within 5 standard errors.
    schedule, n = CosineSchedule(), 4000
    denoise, z = MIXTURE.denoiser(schedule), torch.full((4000, 2), 3.0, dtype=torch.float64)
    for _ in range(400):
        z = langevin_step(denoise, z, 0.5, delta=0.05, generator=generator)
    variance = schedule.alpha(0.5) ** 2 * (0.5 + 0.25**2) + schedule.sigma(0.5) ** 2  # of the ring along an axis
    assert (z.mean(0)).abs().max() < 5 / math.sqrt(n)
    assert (z.var(0) - variance).abs().max() < 5 * variance * math.sqrt(2 / n) + 0.05 / 4


@every
def test_reverse_sde_law_is_anderson(schedule, generator):
    # Euler-Maruyama on dz = (f z - g^2 score) dt + g dw, backwards in time (Song et al. 2021, eq 6).
    z, denoise = normal(generator, 3, 2), MIXTURE.denoiser(schedule)
    score = MIXTURE.score(z, schedule.alpha(T), schedule.sigma(T))
    f, g, dt = (c[:, None] for c in (schedule.drift(T), schedule.diffusion(T), S - T))
    mean, variance = reverse_sde_law(denoise, z, T, S)
    torch.testing.assert_close(mean, z + dt * (f * z - g**2 * score))
    torch.testing.assert_close(variance, (T - S) * schedule.diffusion(T) ** 2)


@every
def test_reverse_sde_and_ancestral_steps_agree_in_the_limit(schedule, generator):
    # Both have drift and diffusion of the same SDE: the difference of their means vanishes as dt^2, tested by halving.
    z, denoise, t = normal(generator, 3, 2), MIXTURE.denoiser(schedule), torch.tensor(0.5, dtype=torch.float64)

    def gap(dt):
        return (reverse_sde_law(denoise, z, t, t - dt).mean - ancestral_law(denoise, z, t, t - dt).mean).abs().max()

    assert gap(1e-3) / gap(5e-4) == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("step", RANDOM_STEPS.values(), ids=RANDOM_STEPS.keys())
def test_same_seed_same_sample(step, generator):
    denoise, noise = MIXTURE.denoiser(LinearSchedule()), normal(generator, 4, 2)
    before = torch.get_rng_state()
    runs = [sample(denoise, noise, 8, step=step, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert torch.equal(before, torch.get_rng_state())


@every_step
@pytest.mark.parametrize("schedule", [LinearSchedule(), VESchedule(0.02, 20.0)], ids=lambda s: type(s).__name__)
def test_every_sampler_reaches_the_data(step, schedule, generator):
    # Mean nearest-centre distance of the samples against that of true ones: 0.25 sqrt(pi / 2) = 0.31.
    noise = normal(generator, 500, 2) * schedule.prior_std()
    x = sample(MIXTURE.denoiser(schedule), noise, 200, step=step, generator=generator)
    distance = torch.cdist(x, MIXTURE.means).min(1).values
    share = torch.bincount(torch.cdist(x, MIXTURE.means).argmin(1), minlength=5) / 500
    assert distance.mean().item() == pytest.approx(0.31, abs=0.05)  # standard error 0.16 / sqrt(500), and the bias
    assert (share - 0.2).abs().max() < 5 * 0.4 / math.sqrt(500)


# ---- the loop -----------------------------------------------------------------------------------------------------


@every_step
@every
def test_the_last_step_returns_x_hat_itself(schedule, step, generator):
    # At t = 0 alpha is 1 and the noise is gone, though a truncated schedule still has sigma_0 > 0.
    denoise, z = MIXTURE.denoiser(schedule), normal(generator, 4, 2)
    assert torch.equal(sample(denoise, z, step=step, grid=[0.3, 0.0]), denoise(z, 0.3))


def test_a_grid_that_ends_early_returns_its_latent(generator):
    denoise, z = MIXTURE.denoiser(CosineSchedule()), normal(generator, 4, 2)
    torch.testing.assert_close(sample(denoise, z, grid=[0.8, 0.5]), ddim_step(denoise, z, 0.8, 0.5))


def test_predictor_and_corrector_alternate(generator):
    calls = []

    def note(name):
        def step(denoise, z, t, *rest, generator=None):
            calls.append((name, *(round(float(time), 2) for time in (t, *rest))))
            return z

        return step

    def project(z, t):
        calls.append(("project", round(float(t), 2)))
        return z

    denoise = MIXTURE.denoiser(CosineSchedule())
    sample(denoise, torch.zeros(1, 2), 2, step=note("step"), corrector=note("correct"), project=project)
    assert calls == [
        ("project", 1.0),
        ("step", 1.0, 0.5),
        ("project", 0.5),
        ("correct", 0.5),
        ("project", 0.5),
        ("project", 0.0),
    ]


def test_callback_sees_every_level():
    seen = []
    sample(MIXTURE.denoiser(CosineSchedule()), torch.zeros(1, 2), 4, callback=lambda z, t: seen.append(float(t)))
    assert seen == [0.75, 0.5, 0.25, 0.0]


def test_progress_shows_on_request(capsys):
    for progress in (False, True):
        sample(MIXTURE.denoiser(CosineSchedule()), torch.zeros(1, 2), 2, progress=progress)
        assert ("sampling" in capsys.readouterr().err) == progress


def test_float32_stays_float32():
    z = torch.zeros(2, 1, 4, 1, 1)
    denoise = GaussianVideo(4).denoiser(CosineSchedule())
    for step in STEPS.values():
        assert sample(denoise, z, 3, step=step).dtype == torch.float32


@pytest.mark.parametrize("grid", [[0.0, 1.0], [1.0, 0.5, 0.5], [1.0], [[1.0, 0.0]], [1.2, 0.0], [1.0, math.nan]])
def test_grids_have_to_decrease_within_the_unit_interval(grid):
    with pytest.raises(ValueError, match="decreasing|\\[0, 1\\]|sequence of numbers"):
        sample(MIXTURE.denoiser(CosineSchedule()), torch.zeros(1, 2), grid=grid)


def test_bad_input_is_named():
    denoise, z = MIXTURE.denoiser(CosineSchedule()), torch.zeros(1, 2)
    for steps in (0, 1.5, 10**9):
        with pytest.raises(ValueError, match="steps: expected"):
            sample(denoise, z, steps)
    with pytest.raises(ValueError, match="grid of 3 steps"):
        sample(denoise, z, 3, grid=[1.0, 0.0])
    with pytest.raises(TypeError, match="schedule"):
        sample(lambda z, t: z, z, 3)
    for step in (ancestral_step, ddim_step, reverse_sde_step, euler_step, heun_step, angular_ddim_step):
        with pytest.raises(ValueError, match="s < t"):
            step(denoise, z, 0.5, 0.5)
    with pytest.raises(ValueError, match="s < t"):
        DPMSolverPlusPlus2M()(denoise, z, 0.4, 0.5)
    with pytest.raises(ValueError, match="gamma"):
        ancestral_step(denoise, z, 0.5, 0.4, gamma=1.5)
    with pytest.raises(ValueError, match="eta"):
        ddim_step(denoise, z, 0.5, 0.4, eta=-0.1)
    with pytest.raises(ValueError, match="delta"):
        langevin_step(denoise, z, 0.5, delta=0.0)
    with pytest.raises(ValueError, match="sigma"):
        ddim_step(MIXTURE.denoiser(LinearSchedule()), z, torch.tensor([0.0]), torch.tensor([0.0]) - 0)


# ---- time grids ---------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("grid", [uniform_in_t, uniform_in_log_snr, karras])
def test_grids_run_from_noise_to_clean(grid, schedule):
    times = as_grid(grid(10, schedule))
    assert len(times) == 11 and times[-1] == 0
    assert times[0] == 1 or grid is karras


def test_uniform_in_log_snr_has_equal_steps_of_lambda():
    schedule = CosineSchedule(-10, 10)
    steps = schedule.log_snr(uniform_in_log_snr(20, schedule)).diff()
    torch.testing.assert_close(steps, torch.ones(20, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("schedule", [CosineSchedule(), CosineSchedule(-3.0, 20.0)])
def test_the_grid_for_few_steps_starts_at_one_and_ends_at_zero(steps, schedule):
    times = as_grid(for_few_steps(steps, schedule))
    assert len(times) == steps + 1 and (float(times[0]), float(times[-1])) == (1, 0)
    if steps > 2:
        assert float(schedule.log_snr(times[-2])) == pytest.approx(-2 * math.log(0.2))


def test_the_first_step_of_few_brings_in_the_mean():
    """Data that are always m: from t = 1 every step ends on it; from plain noise at sigma / alpha = 10 none does."""
    schedule, mean = CosineSchedule(), torch.tensor(-0.9)

    def off(z, t):  # knows the mean at high noise, and has to find the rest in z: E[x | z] for x ~ N(m, 0.3^2)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return mean + 0.09 * alpha / (0.09 * alpha**2 + sigma**2) * (z - alpha * mean)

    off.schedule = schedule
    noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = {
        name: float(sample(off, noise, 20, grid=grid).mean() - mean)
        for name, grid in {
            "few": for_few_steps,
            "plain": partial(karras, sigma_min=0.2, sigma_max=10.0, rho=3.0),
        }.items()
    }
    assert abs(found["few"]) < 3 * 0.3 / 4000**0.5 < found["plain"]


def test_karras_grid_is_edm_equation_5():
    schedule, n, rho = VESchedule(0.001, 100.0), 10, 7.0
    times = karras(n, schedule, sigma_min=0.002, sigma_max=80.0, rho=rho)
    i = torch.arange(n, dtype=torch.float64)
    expected = (80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    torch.testing.assert_close(schedule.sigma(times[:-1]), expected, rtol=1e-9, atol=0)
    with pytest.raises(ValueError, match="sigma_min"):
        karras(n, schedule, sigma_min=2, sigma_max=1)


@pytest.mark.parametrize("ends", [(0.01, 50.0), (0.002, 80.0), (1e-4, 200.0)])
def test_karras_grid_ends_at_zero_once_on_every_schedule(ends):
    # Where the schedule's own sigma_min is the last level, t = 0 is that level, not one after it.
    schedule = VESchedule(*ends)
    for steps in range(1, 101):
        times = as_grid(karras(steps, schedule))
        assert len(times) == steps + 1 and times[-1] == 0
    noise = schedule.prior_std(karras(18, schedule)[0]) * torch.ones(4, 2).double()
    assert sample(MIXTURE.denoiser(schedule), noise, 18, step=heun_step, grid=karras).isfinite().all()


# ---- how a denoiser is sampled, as one object -----------------------------------------------------------------------


def test_one_object_and_its_keywords_sample_alike(generator):
    denoise, z = MIXTURE.denoiser(CosineSchedule()), normal(generator, 4, 2)
    named = dict(step=heun_step, grid=uniform_in_log_snr, clip=(-1.0, 1.0))
    one = sample(denoise, z, sampling=Sampling(5, **named))
    assert torch.equal(one, sample(denoise, z, 5, **named)) and one.abs().max() <= 1
    assert torch.equal(one, sample(denoise, z, sampling=Sampling(9, **named), steps=5))  # a keyword replaces its field


def test_a_sampling_does_not_change_and_can_be_compared():
    grid = torch.tensor([1.0, 0.5, 0.0])
    how = Sampling(grid=grid)
    grid[1] = 0.7
    assert how.times(CosineSchedule()).tolist() == [1.0, 0.5, 0.0]
    assert how == Sampling.of(how, grid=[1.0, 0.5, 0.0]) != Sampling(grid=[1.0, 0.0])
    with pytest.raises(AttributeError):
        how.steps = 3


@pytest.mark.parametrize(
    "wrong, says",
    [
        (dict(steps=0), "steps: expected"),
        (dict(steps=4, grid=[1.0, 0.0]), "a grid of 4 steps, got one of 1"),
        (dict(grid=[0.0, 1.0]), "decreasing"),
        (dict(step=3), "step: expected a function"),
        (dict(step=None), "step: expected a function"),
        (dict(corrector="langevin"), "corrector: expected a function"),
        (dict(clip=(1.0, -1.0)), "clip: expected two numbers, the lower first"),
        (dict(stpe=ddim_step), "stpe: expected options out of steps, step"),
    ],
)
def test_a_sampling_that_cannot_be_meant_is_refused_when_it_is_made(wrong, says):
    with pytest.raises(ValueError, match=says):
        Sampling.of(**wrong)


# ---- inversion and editing ----------------------------------------------------------------------------------------


@every
def test_inversion_then_ddim_returns_the_data(schedule, generator):
    # The largest error of any value below 1e-3 at 200 steps, exact denoisers: of the mixture, of the Gaussian video.
    video = GaussianVideo(16)
    for world, x in ((MIXTURE, MIXTURE.sample(128, generator)[0]), (video, video.sample(16, generator))):
        denoise = world.denoiser(schedule)
        back = sample(denoise, invert(denoise, x, 200), 200)
        assert (back - x).abs().max() < 1e-3


def test_bare_inversion_errs_by_first_order(generator):
    x, _ = MIXTURE.sample(16, generator)
    denoise = MIXTURE.denoiser(CosineSchedule())
    error = [(sample(denoise, invert(denoise, x, n, refinements=0), n) - x).abs().max().item() for n in (100, 200, 400)]
    assert error[0] / error[2] == pytest.approx(4, rel=0.3)  # halving the step halves the error
    assert error[1] > 1e-3


def test_inverted_data_look_like_noise(generator):
    n = 2000
    z = invert(MIXTURE.denoiser(CosineSchedule()), MIXTURE.sample(n, generator)[0], 100)
    assert z.mean(0).abs().max() < 5 / math.sqrt(n)
    assert (torch.cov(z.T) - torch.eye(2)).abs().max() < 5 * math.sqrt(2 / n) + 0.02  # standard errors; 100 steps


def test_sdedit_keeps_more_the_earlier_it_starts(generator):
    x, _ = MIXTURE.sample(300, generator)
    denoise = MIXTURE.denoiser(CosineSchedule())
    moved = [(sdedit(denoise, x, t, 50, generator=generator) - x).norm(dim=1).mean().item() for t in (0.02, 0.4, 1.0)]
    assert moved[0] < 0.1 < moved[1] < moved[2]
