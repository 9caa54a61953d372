"""Lesson 03: Langevin dynamics, traces by probes, what finite data teach, and the lesson's drawings."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core.schedules import CosineSchedule
from minivdm.course.notebook.figures import score_matching as figures
from minivdm.exact.score_matching import annealed_langevin, denoising, geometric_ladder, implicit, tweedie

WORLD = figures.world()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noisy(n, sigma, seed=0):
    x = WORLD.sample(n, seeded(seed))[0]
    return x, x + sigma * torch.randn(x.shape, generator=seeded(seed + 1), dtype=torch.float64)


def test_a_score_needs_no_normalising_constant():
    z = figures.lattice(5)[::3].requires_grad_()
    (slope,) = torch.autograd.grad((17.0 * WORLD.log_prob(z).exp()).log().sum(), z)
    assert torch.allclose(slope, WORLD.score(z.detach()), atol=1e-8)  # float64 through a log of an exp


def test_langevin_keeps_the_density():
    z = WORLD.sample(4000, seeded(0))[0]
    moved = annealed_langevin(lambda z, _: WORLD.score(z), z, torch.tensor([1.0]), 60, 0.004, seeded(1))
    for before, after in ((z.mean(0), moved.mean(0)), (z.var(0), moved.var(0))):
        # Standard errors of two draws of 4000: 1.7 sqrt(2 / 4000) = 0.04; a step of 0.004 biases the width by 0.6 %.
        assert (before - after).abs().max() < 0.2
    assert (figures.shares(z) - figures.shares(moved)).abs().max() < 0.01  # nobody crosses a watershed in time 0.24


@pytest.mark.parametrize("step", [0.02, 0.2])
def test_finite_langevin_steps_widen_a_gaussian(step):
    sigma, n = 0.5, 8000
    z = torch.zeros(n, 1, dtype=torch.float64)
    z = annealed_langevin(lambda z, _: -z / sigma**2, z, torch.tensor([1.0]), 250, step, seeded(2))
    assert abs(z.var() * (1 - step / (4 * sigma**2)) / sigma**2 - 1) < 4 * math.sqrt(2 / n)  # standard errors


def test_steins_identity():
    z = WORLD.sample(20_000, seeded(3))[0]

    def model(z):
        return torch.stack([torch.sin(z[:, 0] + z[:, 1]), z[:, 0] * torch.exp(-(z[:, 1] ** 2))], dim=1)

    trace = implicit(model, z) - (model(z) ** 2).sum(1) / 2
    values = (model(z) * WORLD.score(z)).sum(1) + trace
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(len(z))  # four standard errors


def test_an_edge_gives_a_wrong_fit():
    z = (torch.arange(20_000, dtype=torch.float64)[:, None] + 0.5) / 20_000  # the uniform density, by midpoints
    best = figures.uniform_fit()
    losses = [implicit(lambda z, c=c: c * z, z).mean() for c in (best - 0.1, best, best + 0.1)]
    assert losses[1] < min(losses[0], losses[2]) and abs(best + 3) < 1e-12
    assert abs(losses[1] + 1.5) < 1e-6  # c + c^2 / 6 at -3; midpoints are exact to 1e-9


def test_probes_estimate_a_trace_with_the_predicted_variance():
    a = torch.randn(4, 4, generator=seeded(4), dtype=torch.float64)
    e = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)  # all sign vectors: no chance
    values = torch.einsum("bi,ij,bj->b", e, a, e)
    variance = torch.triu(a + a.T, diagonal=1).square().sum()
    assert abs(values.mean() - a.trace()) < 1e-12  # float64
    assert abs(values.var(unbiased=False) - variance) < 1e-12


def test_the_marginal_score_is_the_mean_of_the_conditional_one():
    sigma = 0.7
    mean_noise = (figures.lattice(7) - WORLD.posterior_mean(figures.lattice(7), 1.0, sigma)) / sigma  # E[eps | z]
    assert torch.allclose(WORLD.score(figures.lattice(7), 1.0, sigma), -mean_noise / sigma, atol=1e-9)  # float64


def test_vincents_constant():
    sigma = 0.6
    x, z = noisy(20_000, sigma, seed=5)
    score = WORLD.score(z, 1.0, sigma)
    noise = (z - x) / sigma
    values = denoising(lambda z: WORLD.score(z, 1.0, sigma), x, sigma, noise=noise)  # explicit loss: 0
    difference = values - (2 / sigma**2 - (score**2).sum(1)) / 2
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(len(x))  # four standard errors


def test_weighted_levels_are_a_regression_on_the_noise():
    x = WORLD.sample(50, seeded(6))[0]
    noise = torch.randn(x.shape, generator=seeded(7), dtype=torch.float64)
    sigma = torch.linspace(0.1, 3, 50, dtype=torch.float64)[:, None]

    def score(z):
        return -torch.tanh(z) / sigma

    weighted = sigma[:, 0] ** 2 * denoising(score, x, sigma, noise=noise)
    plain = ((noise - torch.tanh(x + sigma * noise)) ** 2).sum(1) / 2
    assert torch.allclose(weighted, plain, atol=1e-12)  # float64


def test_weights_are_invisible_inside_a_mode():
    other = type(WORLD)(torch.tensor([0.1, 0.1, 0.8]), WORLD.means, 0.4)
    inside = WORLD.means + 0.3
    assert torch.allclose(WORLD.score(inside), other.score(inside), atol=1e-6)  # others: exp(-30) and less


def test_ladder_steps_have_one_ratio_of_drift_to_noise():
    sigmas = geometric_ladder(4.0, 0.1, 10)
    drawn = []

    def record(z, sigma):
        drawn.append(float(sigma))
        return torch.zeros_like(z)

    z = annealed_langevin(record, torch.zeros(4000, 1, dtype=torch.float64), sigmas, 1, 2e-3, seeded(8))
    assert torch.allclose(torch.tensor(drawn, dtype=torch.float64), sigmas)
    total = (2e-3 * (sigmas / sigmas[-1]) ** 2).sum()  # without a score, only the noise adds up
    assert abs(z.var() / total - 1) < 4 * math.sqrt(2 / 4000)


def test_annealing_finds_the_weights():
    start = 4 * torch.randn(1000, 2, generator=seeded(9), dtype=torch.float64)

    def exact(z, sigma):
        return WORLD.score(z, 1.0, sigma)

    sigmas = geometric_ladder(4.0, 0.1, 10)
    annealed = annealed_langevin(exact, start, sigmas, 50, 2e-3, seeded(10))
    plain = annealed_langevin(exact, start, sigmas[-1:], 100, 2e-3, seeded(11))
    # A share of 0.5 among 1000 has standard error 0.016: four of them, and 0.02 for finite steps.
    assert (figures.shares(annealed) - WORLD.weights).abs().max() < 0.084
    assert (figures.shares(plain) - WORLD.weights).abs().max() > 0.084


def test_finite_data_teach_the_bells_on_their_points():
    points, sigma = WORLD.sample(20, seeded(12))[0], 0.3
    z = figures.lattice(6)
    weight = torch.softmax(-(torch.cdist(z, points) ** 2) / (2 * sigma**2), dim=1)
    expected = torch.einsum("bn,bnd->bd", weight, points - z[:, None]) / sigma**2
    score = figures.empirical(points, sigma).score(z)
    assert torch.allclose(score, expected, atol=1e-9)  # float64, two formulas
    assert torch.allclose(tweedie(z, score, sigma), weight @ points, atol=1e-9)  # averages of training points


def test_errors_of_the_exact_score_are_zero_and_groups_are_sorted():
    log_q, error = figures.error_by_density(lambda z: WORLD.score(z, 1.0, 0.3), 0.3)
    assert bool((log_q[1:] < log_q[:-1]).all()) and error.max() < 1e-5  # float32 points
    _, twice = figures.error_by_density(lambda z: 2 * WORLD.score(z, 1.0, 0.3), 0.3)
    assert torch.allclose(twice, torch.ones_like(twice), atol=1e-4)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.6, 0.9])
def test_peaks_less_passes_plus_minima_is_one(t):
    schedule = CosineSchedule()
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    found = figures.zeros(alpha, sigma)
    assert len(found.peaks) - len(found.passes) + len(found.minima) == 1  # arrows point inwards all round the window
    assert WORLD.score(torch.cat(found), alpha, sigma).abs().max() < 1e-7  # Newton's last step is exact to rounding


def test_three_far_clusters_have_seven_zeros():
    found = figures.zeros(1.0, 0.2)
    assert [len(part) for part in found] == [3, 3, 1]
    assert torch.cdist(found.peaks, WORLD.means).min(dim=1).values.max() < 1e-2  # the others hardly move a peak


def test_loss_over_time_is_the_loss_on_the_noise_and_on_x():
    schedule = CosineSchedule(-6, 6)
    x = WORLD.sample(64, seeded(20))[0]
    noise = torch.randn(x.shape, generator=seeded(21), dtype=torch.float64)
    t = torch.rand(64, generator=seeded(22), dtype=torch.float64)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]

    def score(z):
        return -torch.tanh(z) / sigma  # eps_hat = tanh(z)

    z = alpha * x + sigma * noise
    x_hat = tweedie(z, score(z), sigma, alpha)
    weighted = sigma[:, 0] ** 2 * denoising(score, x, sigma, alpha, noise=noise)  # (3.16) with kappa = sigma^2
    on_noise = ((torch.tanh(z) - noise) ** 2).sum(1) / 2
    on_x = schedule.log_snr(t).exp() * ((x_hat - x) ** 2).sum(1) / 2
    assert torch.allclose(weighted, on_noise, rtol=1e-9) and torch.allclose(weighted, on_x, rtol=1e-9)  # float64


def test_any_positive_weight_over_time_has_the_score_as_its_minimum():
    schedule = CosineSchedule(-6, 6)
    x = WORLD.sample(4000, seeded(23))[0]
    noise = torch.randn(x.shape, generator=seeded(24), dtype=torch.float64)
    t = torch.rand(4000, generator=seeded(25), dtype=torch.float64)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    for weight in (sigma[:, 0] ** 2, sigma[:, 0] ** 4):

        def loss(factor, weight=weight):
            values = denoising(
                lambda z: factor * WORLD.score(z, alpha[:, 0], sigma[:, 0]), x, sigma, alpha, noise=noise
            )
            return (weight * values).mean()

        assert loss(1.0) < min(loss(0.9), loss(1.1))  # the same draws for all three


def test_relative_error_of_a_stretched_score_is_the_stretch():
    found = figures.relative_error(lambda z: 1.25 * WORLD.score(z.double(), 1.0, 0.5), 0.5, n=200)
    assert abs(found - 0.25) < 1e-4  # float32 points


def test_drawings_are_figures_of_plain_numbers():
    drawn = [
        *(figures.draw_field(t) for t in (0.05, 0.95)),
        *(figures.draw_memory(n, sigma) for n, sigma in ((5, 0.05), (300, 1.0))),
        figures.draw_boundary(),
        figures.draw_question(50),
        figures.draw_levels({"a": [0.1, 0.2]}, torch.tensor([1.0, 0.1]), {"a": torch.tensor([1.0])}),
        figures.draw_learned(lambda z: -z, 0.3),
        figures.draw_samples({"data": WORLD.sample(100, seeded(13))[0]}),
        figures.draw_errors([10, 100], {"a": [1.0, 0.1]}),
    ]
    assert all(isinstance(one, Figure) for one in drawn)


def test_field_shows_the_packages_score():
    quiver = next(one for one in figures.draw_field(0.4).axes[0].collections if hasattr(one, "U"))
    schedule = CosineSchedule()
    z = figures.lattice(15, figures.WIDTH * 0.94)
    score = WORLD.score(z, float(schedule.alpha(0.4)), float(schedule.sigma(0.4)))
    along = torch.as_tensor(quiver.U) * score[:, 1] - torch.as_tensor(quiver.V) * score[:, 0]
    assert along.abs().max() < 1e-9 * score.abs().max()  # arrows are shortened, not turned
