"""Score matching: every objective is the explicit one up to a constant; expectations by quadrature, so exact."""

import math

import pytest
import torch
from torch import nn

from minivdm.exact import GaussianMixture
from minivdm.exact.score_matching import (
    annealed_langevin,
    denoising,
    explicit,
    geometric_ladder,
    implicit,
    sliced,
    tweedie,
)

MIXTURE = GaussianMixture(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [-0.5, 0.5]]), 0.5)


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def expectation(values, z, log_q, cell):
    """The integral of values q over a grid: spectrally accurate, as q and its slopes vanish at the border."""
    return (values * log_q.exp()).sum() * cell


@pytest.fixture(scope="module")
def grid():
    axis = torch.linspace(-5, 5, 121, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), (10 / 120) ** 2


def test_implicit_is_explicit_up_to_a_constant(grid):
    # By parts: E[tr grad s + (1/2)||s||^2] = E[(1/2)||s - grad log q||^2] - (1/2) E||grad log q||^2 (Hyvarinen 2005).
    z, cell = grid
    log_q, score = MIXTURE.log_prob(z), MIXTURE.score(z)
    constant = expectation((score**2).sum(1) / 2, z, log_q, cell)
    for seed in range(3):
        model = network(seed)
        by_parts = expectation(implicit(model, z), z, log_q, cell)
        direct = expectation(explicit(model, z, score), z, log_q, cell)
        torch.testing.assert_close(by_parts, direct - constant, rtol=0, atol=1e-8)


def test_explicit_vanishes_at_the_true_score(grid):
    z, _ = grid
    assert explicit(MIXTURE.score, z, MIXTURE.score(z)).max() == 0


def test_implicit_is_smallest_at_the_true_score(grid):
    z, cell = grid
    log_q = MIXTURE.log_prob(z)

    def true(z):  # differentiable, unlike `score`, which returns a number
        return torch.autograd.grad(MIXTURE.log_prob(z).sum(), z, create_graph=True)[0]

    best = expectation(implicit(true, z), z, log_q, cell)
    for scale in (0.9, 1.1):
        assert expectation(implicit(lambda z, k=scale: k * true(z), z), z, log_q, cell) > best


@pytest.mark.parametrize("variance_reduction", [True, False])
def test_sliced_is_implicit_on_average(variance_reduction, generator):
    # Over 4000 signs at each of three points, within five standard errors.
    model, n = network(0), 4000
    for point in MIXTURE.sample(3, generator)[0]:
        z = point.expand(n, 2)
        values = sliced(model, z, 1, variance_reduction, generator)
        assert (values.mean() - implicit(model, point[None])).abs() < 5 * values.std() / math.sqrt(n)


def test_sliced_averages_its_probes(generator):
    model, z = network(0), MIXTURE.sample(3, generator)[0]
    many = sliced(model, z, 400, generator=generator)
    # 400 probes of e1 e2 (J12 + J21), which is of order one: five standard errors of 1 / sqrt(400)
    assert (many - implicit(model, z)).abs().max() < 0.25


def test_denoising_is_explicit_on_the_noisy_density_up_to_a_constant(grid):
    # Vincent's identity (2011): E||s(z) + (z - alpha x)/sigma^2||^2 - E||s - grad log q_sigma||^2 does not depend on s.
    # Data are three points, so that q_sigma is a mixture and every expectation is a sum of quadratures.
    points = torch.tensor([[0.5, 0.0], [-1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    alpha, sigma = 0.8, 0.6
    noisy = GaussianMixture(torch.ones(3), alpha * points, sigma)
    z, cell = grid
    log_q, score = noisy.log_prob(z), noisy.score(z)
    differences = []
    for seed in range(3):
        model, total = network(seed), 0.0
        for point in points:
            noise = (z - alpha * point) / sigma
            log_normal = -(noise**2).sum(1) / 2 - math.log(2 * math.pi * sigma**2)
            values = denoising(model, point.expand(len(z), 2), sigma, alpha, noise)
            total = total + expectation(values, z, log_normal, cell) / 3
        differences.append(total - expectation(explicit(model, z, score), z, log_q, cell))
    torch.testing.assert_close(torch.stack(differences), differences[0].expand(3), rtol=0, atol=1e-8)


def test_denoising_draws_its_noise_from_the_generator():
    x = torch.zeros(4, 2, dtype=torch.float64)
    a, b = (denoising(network(0), x, 0.5, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(a, b)


def test_objectives_train_their_network(generator):
    z = MIXTURE.sample(8, generator)[0]
    for objective in (
        lambda model: implicit(model, z),
        lambda model: sliced(model, z, generator=generator),
        lambda model: denoising(model, z, 0.5, generator=generator),
        lambda model: explicit(model, z, MIXTURE.score(z)),
    ):
        model = network(0)
        objective(model).mean().backward()
        assert all(p.grad is not None for name, p in model.named_parameters() if name != "2.bias")


def test_tweedie_is_the_posterior_mean(generator):
    alpha, sigma = 0.8, 0.6
    z = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    score = MIXTURE.score(z, alpha, sigma)
    torch.testing.assert_close(tweedie(z, score, sigma, alpha), MIXTURE.posterior_mean(z, alpha, sigma))


def test_ladder_has_one_ratio():
    sigmas = geometric_ladder(10.0, 0.01, 10)
    assert sigmas[0] == 10 and sigmas[-1].item() == pytest.approx(0.01)
    torch.testing.assert_close(sigmas[1:] / sigmas[:-1], torch.full((9,), 0.001 ** (1 / 9)).double())


def test_annealing_finds_the_weights_that_plain_langevin_misses(generator):
    # Two far modes with weights 0.8 and 0.2: without large noise a chain stays where it started (Song & Ermon 2019).
    far = GaussianMixture(torch.tensor([0.8, 0.2]), torch.tensor([[4.0, 4.0], [-4.0, -4.0]]), 0.5)
    n = 1000
    start = 8 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 4

    def score(z, sigma):
        return far.score(z, 1.0, sigma)

    annealed = annealed_langevin(score, start, geometric_ladder(10.0, 0.1, 10), 100, 1e-2, generator)
    plain = annealed_langevin(score, start, torch.tensor([0.1]).double(), 300, 1e-2, generator)
    share = [(x.sum(1) > 0).double().mean().item() for x in (annealed, plain)]
    assert share[0] == pytest.approx(0.8, abs=5 * 0.4 / math.sqrt(n) + 0.03)  # five standard errors, and the bias
    assert share[1] == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(n))
    distance = (annealed - torch.where(annealed.sum(1, keepdim=True) > 0, 4.0, -4.0)).square().mean().sqrt()
    assert distance.item() == pytest.approx(math.hypot(0.5, 0.1), abs=0.05)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="sigma > 0"):
        denoising(network(0), torch.zeros(2, 2), 0.0)
    with pytest.raises(ValueError, match="sigma_min"):
        geometric_ladder(0.1, 1.0, 5)
    with pytest.raises(ValueError, match="decreasing"):
        annealed_langevin(lambda z, sigma: z, torch.zeros(1, 2), torch.tensor([0.1, 1.0]))
