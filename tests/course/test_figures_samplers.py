"""The drawings of lesson 06a, and the equations of lessons 06a and 06b that have no test elsewhere."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm import tasks
from minivdm.core import gaussian, ode, samplers
from minivdm.core.schedules import FlowSchedule
from minivdm.course.notebook.figures import samplers as fig
from minivdm.exact import GaussianVideo, likelihood
from minivdm.exact.propagate import Propagation

SCHEDULE = fig.lesson_schedule()
LINE, PLANE = fig.line_world(), fig.plane_world()


def points(n=50, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the exact flow on a line


def test_the_flow_map_keeps_quantiles():
    z = fig.even_quantiles(31)
    moved = fig.quantile_flow(LINE, SCHEDULE, z, 0.8, 0.3)
    before = fig.distribution(LINE, z, SCHEDULE.alpha(0.8), SCHEDULE.sigma(0.8))
    after = fig.distribution(LINE, moved, SCHEDULE.alpha(0.3), SCHEDULE.sigma(0.3))
    assert (before - after).abs().max() < 1e-12  # bisection down to rounding


def test_the_flow_map_moves_with_the_velocity_of_the_flow():
    z, h = fig.even_quantiles(31), 1e-5
    ahead, behind = (fig.quantile_flow(LINE, SCHEDULE, z, 0.5, 0.5 + step) for step in (h, -h))
    velocity = ode.velocity(LINE.denoiser(SCHEDULE), z, 0.5)
    assert ((ahead - behind) / (2 * h) - velocity).abs().max() < 1e-6  # h^2 and rounding / h


def test_distribution_is_the_integral_of_the_density():
    z = torch.linspace(-6, 3, 4001, dtype=torch.float64)[:, None]
    alpha, sigma = SCHEDULE.alpha(0.4), SCHEDULE.sigma(0.4)
    area = torch.trapezoid(LINE.log_prob(z, alpha, sigma).exp(), z[:, 0])
    assert abs(area - fig.distribution(LINE, z[-1:], alpha, sigma)) < 1e-6  # trapezoidal rule at 4000 steps


@pytest.mark.parametrize(
    ("name", "order", "slack"),
    [
        ("Euler", 1, 0.15),
        ("DDIM", 1, 0.15),
        ("Heun", 2, 0.25),
        ("DPM-Solver++(2M)", 2, 0.25),
    ],
)
def test_orders_against_the_exact_flow(name, order, slack):
    z = fig.even_quantiles(25)
    truth = fig.quantile_flow(LINE, SCHEDULE, z, 0.9, 0.2)
    errors = []
    for n in (32, 64):
        grid = torch.linspace(0.9, 0.2, n + 1, dtype=torch.float64)
        found = samplers.sample(LINE.denoiser(SCHEDULE), z, grid=grid, step=fig.make_step(name))
        errors.append((found - truth).square().mean().sqrt())
    assert abs(math.log2(errors[0] / errors[1]) - order) < slack  # terms of the next order, at 32 steps


# --- equations


def test_fokker_planck():
    t, h = torch.tensor(0.4, dtype=torch.float64), 1e-5
    z = points().requires_grad_()

    def log_q(time):
        return PLANE.log_prob(z, SCHEDULE.alpha(time), SCHEDULE.sigma(time))

    (score,) = torch.autograd.grad(log_q(t).sum(), z, create_graph=True)
    laplacian = sum(torch.autograd.grad(score[:, i].sum(), z, retain_graph=True)[0][:, i] for i in range(2))
    f, g = SCHEDULE.drift(t), SCHEDULE.diffusion(t)
    right = -2 * f - f * (z * score).sum(1) + g**2 / 2 * (laplacian + (score**2).sum(1))
    assert ((log_q(t + h) - log_q(t - h)) / (2 * h) - right).abs().max() < 1e-6  # h^2 and rounding / h


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, 1.5])
def test_every_reverse_diffusion_has_the_marginals(share):
    """Variance of N(0, 0.3) carried backwards by (6.5) with rho = share x g, by its linear moment equation."""
    times = torch.linspace(0.9, 0.3, 1001, dtype=torch.float64)
    variance = SCHEDULE.alpha(times[0]) ** 2 * 0.3 + SCHEDULE.sigma(times[0]) ** 2
    for t, s in zip(times[:-1], times[1:], strict=True):
        f, g2 = SCHEDULE.drift(t), SCHEDULE.diffusion(t) ** 2
        noisy = SCHEDULE.alpha(t) ** 2 * 0.3 + SCHEDULE.sigma(t) ** 2
        rate = f + (1 + share**2) * g2 / 2 / noisy
        variance = (1 + (s - t) * rate) ** 2 * variance + share**2 * g2 * (t - s)
    truth = SCHEDULE.alpha(0.3) ** 2 * 0.3 + SCHEDULE.sigma(0.3) ** 2
    assert abs(variance / truth - 1) < 1e-2  # first order in 1000 steps


def test_velocity_is_the_flow_of_the_score():
    z, t = points(), torch.tensor(0.6, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    plain = SCHEDULE.drift(t) * z - SCHEDULE.diffusion(t) ** 2 / 2 * PLANE.score(z, alpha, sigma)
    assert (ode.velocity(PLANE.denoiser(SCHEDULE), z, t) - plain).abs().max() < 1e-10  # float64


@pytest.mark.parametrize("rho", [0.5, 2.0])
def test_langevin_leaves_the_density_alone(rho):
    """(6.4): -div(drift q) + (1/2) rho^2 Laplacian(q) = 0 for the drift (1/2) rho^2 score, term by term over q."""
    z = points().requires_grad_()
    alpha, sigma = SCHEDULE.alpha(0.4), SCHEDULE.sigma(0.4)
    (score,) = torch.autograd.grad(PLANE.log_prob(z, alpha, sigma).sum(), z, create_graph=True)
    laplacian = sum(torch.autograd.grad(score[:, i].sum(), z, retain_graph=True)[0][:, i] for i in range(2))
    drift = rho**2 / 2 * PLANE.score(z, alpha, sigma)
    divergence = rho**2 / 2 * laplacian
    carried = -divergence - (drift * score).sum(1)  # -div(drift q) / q
    smeared = rho**2 / 2 * (laplacian + (score**2).sum(1))  # (1/2) rho^2 Laplacian(q) / q
    assert (carried + smeared).abs().max() < 1e-9 * smeared.abs().max()  # float64


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_flow_and_langevin_steps_have_the_marginals(kappa):
    """A DDIM step, then Langevin with delta = kappa^2 times the step in log-SNR, on N(0, 0.3)."""
    world = GaussianVideo(frames=1, covariance=torch.tensor([[0.3]], dtype=torch.float64))
    walk = Propagation(world, SCHEDULE, lambda _: world.denoiser(SCHEDULE))
    times = torch.linspace(1, 0.2, 801, dtype=torch.float64)
    law = walk.start(1.0)
    for t, s in zip(times[:-1], times[1:], strict=True):
        law = walk.step(law, lambda d, z, t=t, s=s: samplers.ddim_law(d, z, t, s))
        if kappa:
            delta = float(kappa**2 * (SCHEDULE.log_snr(s) - SCHEDULE.log_snr(t)))
            law = walk.step(law, lambda d, z, s=s, delta=delta: samplers.langevin_law(d, z, s, delta))
    truth = SCHEDULE.alpha(0.2) ** 2 * 0.3 + SCHEDULE.sigma(0.2) ** 2
    assert abs(law.covariance[0, 0] / truth - 1) < 1e-2  # first order in 800 steps


@pytest.mark.parametrize("n", [3, 16])
def test_ddim_shrinks_white_data_by_cosines(n):
    world = GaussianVideo(frames=1)
    walk = Propagation(world, SCHEDULE, lambda _: world.denoiser(SCHEDULE))
    law = walk.run(step_law=samplers.ddim_law, grid=torch.linspace(1, 0.1, n + 1, dtype=torch.float64))
    turn = (SCHEDULE.angle(1.0) - SCHEDULE.angle(0.1)) / n
    assert abs(law.covariance[0, 0] - turn.cos() ** (2 * n)) < 1e-9  # float64 rounding


def test_ddim_is_euler_on_the_straight_path():
    z, flow = points(), FlowSchedule()
    times = torch.linspace(1, 0.1, 8, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(times), SCHEDULE.sigma(times)
    grid = sigma / (alpha + sigma)
    ddim = samplers.sample(PLANE.denoiser(SCHEDULE), z, grid=times)
    start = z / (alpha[0] + sigma[0])
    euler = samplers.sample(PLANE.denoiser(flow), start, grid=grid, step=samplers.euler_step)
    assert (ddim / (alpha[-1] + sigma[-1]) - euler).abs().max() < 1e-10  # float64 rounding


def test_true_variance_of_a_reverse_step_is_between_the_extremes():
    """(6.7) for N(0, c): the posterior variance plus what is unknown of x."""
    s, t, c = 0.4, 0.6, 0.3
    fresh = -torch.expm1(SCHEDULE.log_snr(t) - SCHEDULE.log_snr(s))
    smallest = gaussian.posterior(torch.zeros(1), torch.zeros(1), s, t, SCHEDULE).variance
    scale, largest = gaussian.transition(s, t, SCHEDULE)
    noisy_s = SCHEDULE.alpha(s) ** 2 * c + SCHEDULE.sigma(s) ** 2
    noisy_t = SCHEDULE.alpha(t) ** 2 * c + SCHEDULE.sigma(t) ** 2
    unknown = c * SCHEDULE.sigma(t) ** 2 / noisy_t  # Var[x | z_t]
    formula = smallest + (fresh * SCHEDULE.alpha(s)) ** 2 * unknown
    direct = noisy_s - (scale * noisy_s) ** 2 / noisy_t  # conditioning two jointly normal numbers
    assert abs(formula - direct) < 1e-12 and smallest < direct < largest


@pytest.mark.parametrize(("variance", "gamma"), [(1.0, 1.0), (0.0, 0.0)])
def test_each_extreme_of_gamma_is_exact_for_its_data(variance, gamma):
    world = GaussianVideo(frames=1, covariance=torch.tensor([[variance]]))
    walk = Propagation(world, SCHEDULE, lambda _: world.denoiser(SCHEDULE))
    times = torch.tensor([1.0, 0.7, 0.3, 0.1], dtype=torch.float64)
    law = walk.run(step_law=lambda d, z, t, s: samplers.ancestral_law(d, z, t, s, gamma), grid=times)
    truth = SCHEDULE.alpha(times[-1]) ** 2 * variance + SCHEDULE.sigma(times[-1]) ** 2
    assert abs(law.covariance[0, 0] / truth - 1) < 1e-9  # float64 rounding


def test_ddim_with_full_noise_is_ancestral():
    z, denoise = points(), PLANE.denoiser(SCHEDULE)
    one, other = samplers.ddim_law(denoise, z, 0.7, 0.5, eta=1.0), samplers.ancestral_law(denoise, z, 0.7, 0.5)
    assert (one.mean - other.mean).abs().max() < 1e-12 and abs(one.variance - other.variance) < 1e-12


def test_ddim_is_a_rotation():
    z, denoise = points(), PLANE.denoiser(SCHEDULE)
    turn = ode.angular_ddim_step(denoise, z, 0.7, 0.5)
    assert (samplers.ddim_step(denoise, z, 0.7, 0.5) - turn).abs().max() < 1e-12  # one formula twice


def test_local_error_of_ddim():
    """(6.12): half the squared turn times dx_hat / dphi, over sin phi."""
    z, t, h = fig.even_quantiles(15), torch.tensor(0.5, dtype=torch.float64), 1e-3
    s, denoise = t - h, LINE.denoiser(SCHEDULE)
    truth = fig.quantile_flow(LINE, SCHEDULE, z, t, s)
    turn = SCHEDULE.angle(s) - SCHEDULE.angle(t)
    rate = (denoise(truth, s) - denoise(z, t)) / turn
    predicted = turn**2 / 2 * rate / SCHEDULE.angle(t).sin()
    error = samplers.ddim_step(denoise, z, t, s) - truth
    assert (error - predicted).abs().max() < 0.02 * error.abs().max()  # the next power of h


def test_exact_solution_of_the_flow_in_log_snr():
    """(6.17) with the integral done numerically along the exact path."""
    z, t, s = fig.even_quantiles(9), 0.7, 0.4
    times = torch.linspace(t, s, 201, dtype=torch.float64)
    path = [fig.quantile_flow(LINE, SCHEDULE, z, t, time) for time in times]
    x_hat = torch.stack([LINE.denoiser(SCHEDULE)(point, time) for point, time in zip(path, times, strict=True)])
    ratio = SCHEDULE.alpha(times) / SCHEDULE.sigma(times)  # e^l, so that e^l dl is its differential
    integral = torch.trapezoid(x_hat[..., 0].T, ratio)
    found = SCHEDULE.sigma(s) / SCHEDULE.sigma(t) * z[:, 0] + SCHEDULE.sigma(s) * integral
    assert (found - path[-1][:, 0]).abs().max() < 1e-4  # trapezoidal rule at 200 steps


def test_langevin_widens_by_half_its_contraction():
    world = GaussianVideo(frames=1, covariance=torch.tensor([[0.3]], dtype=torch.float64))
    walk = Propagation(world, SCHEDULE, lambda _: world.denoiser(SCHEDULE))
    law = walk.start(0.5)
    for _ in range(120):
        law = walk.step(law, lambda denoise, z: samplers.langevin_law(denoise, z, 0.5, delta=0.2))
    noisy = SCHEDULE.alpha(0.5) ** 2 * 0.3 + SCHEDULE.sigma(0.5) ** 2
    a = 0.2 * SCHEDULE.sigma(0.5) ** 2 / (2 * noisy)
    assert abs(law.covariance[0, 0] - noisy / (1 - a / 2)) < 1e-7  # (1 - a)^240 of the start is left


def test_likelihood_of_the_flow():
    x, _ = PLANE.sample(16, torch.Generator().manual_seed(0))
    found = likelihood.log_likelihood(PLANE.denoiser(SCHEDULE), x, steps=150)
    assert (found - PLANE.log_prob(x)).abs().max() / 2 < 0.01  # nats per dimension, by Heun


def test_hutchinson_is_exact_over_all_signs():
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    z = points(5)
    probes = signs[:, None].expand(4, 5, 2)
    _, found = likelihood.hutchinson_divergence(probes)(lambda z: z**3 + z.flip(1), z)  # off-diagonals too
    assert (found - (3 * z**2).sum(1)).abs().max() < 1e-12


def test_inversion_gains_an_order_per_refinement():
    denoise = PLANE.denoiser(SCHEDULE)
    x, _ = PLANE.sample(16, torch.Generator().manual_seed(0))
    for refinements, power in ((0, 1), (1, 2)):
        errors = []
        for n in (50, 100):
            back = samplers.sample(denoise, tasks.invert(denoise, x, n, refinements=refinements), n)
            errors.append((back - x).square().mean().sqrt())
        assert abs(math.log2(errors[0] / errors[1]) - power) < 0.6  # 16 points, moderate steps


def test_sdedit_keeps_a_component_with_its_posterior_probability():
    generator = torch.Generator().manual_seed(0)
    x, n = PLANE.means[:1].repeat(1000, 1), 1000
    z = gaussian.diffuse(x, 0.5, SCHEDULE, generator=generator)
    exact = PLANE.responsibilities(z, SCHEDULE.alpha(0.5), SCHEDULE.sigma(0.5))[:, 0].mean()
    edited = tasks.sdedit(PLANE.denoiser(SCHEDULE), x, 0.5, 30, step=samplers.ancestral_step, generator=generator)
    kept = PLANE.responsibilities(edited)[:, 0].mean()
    assert abs(kept - exact) < 4 * 0.5 * math.sqrt(2 / n) + 0.01  # two means of 1000, and 30 steps' error


def test_without_its_noise_the_reverse_sde_collapses():
    world = GaussianVideo(frames=1)
    z = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    found = samplers.sample(
        world.denoiser(SCHEDULE),
        z,
        grid=torch.linspace(0.9, 0.2, 801, dtype=torch.float64),
        step=lambda d, z, t, s, generator=None: samplers.ancestral_law(d, z, t, s).mean,
    )
    assert abs(found.item() * SCHEDULE.alpha(0.2) / SCHEDULE.alpha(0.9) - 1) < 1e-2  # first order in 800 steps


# --- drawings


@pytest.mark.parametrize("sampler", fig.SAMPLERS)
def test_flow_is_a_figure_for_every_sampler(sampler):
    assert isinstance(fig.draw_flow(sampler, 5, 0.5), Figure)


def test_flow_draws_the_package_s_own_path():
    drawn = fig.draw_flow("DDIM", 5, 0.0).axes[0].lines[-1].get_ydata()
    visited = []
    noise = fig.even_quantiles(16)
    samplers.sample(LINE.denoiser(SCHEDULE), noise, 5, callback=lambda z, t: visited.append(z))
    assert abs(drawn[-1] - visited[-1][-1, 0].item()) < 1e-12


def test_distance_of_the_truth_is_zero():
    assert fig.distance(fig.quantile_flow(LINE, SCHEDULE, fig.even_quantiles(200), 1.0, 0.0)) < 1e-12


def test_the_other_drawings_are_figures():
    lines = {"one": [1.0, 0.5], "two": [2.0, 0.25]}
    assert isinstance(fig.draw_paths({"flow": samplers.ddim_step}, 5), Figure)
    assert isinstance(fig.draw_rotation(0.7, 0.4), Figure)
    assert isinstance(fig.draw_lines([1, 2], lines, log="xy", exact=1.0, title="t"), Figure)
    assert isinstance(fig.draw_clouds({"a": points(), "b": points()}, cross=torch.zeros(2)), Figure)


def test_ends_are_where_the_package_takes_the_starts():
    start, end = fig.ends(samplers.ddim_step, 6, 40, seed=1)
    assert torch.equal(end, samplers.sample(LINE.denoiser(SCHEDULE), start, 6))
    assert not torch.equal(start, fig.ends(samplers.ddim_step, 6, 40, seed=2)[0])


def test_a_sharp_drawing_says_what_it_shows():
    picture = fig.sharp(fig.draw_flow, "paths")(sampler="DDIM", steps=3, eta=0.0)
    assert picture.alt.startswith("paths: DDIM")
    assert picture.to_pil().width == 2 * picture.width  # so that letters keep their size where stills are halved


def test_an_unknown_sampler_is_named():
    with pytest.raises(ValueError, match="DDIM"):
        fig.make_step("magic")
