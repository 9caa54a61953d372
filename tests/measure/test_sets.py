"""Distances of clouds and scores of forecasts against closed forms."""

import math

import pytest
import torch

from minivdm.guards import BadArgument
from minivdm.measure.sets import energy_score, kernel_distance, precision_recall


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kernel_distance_has_no_bias():
    """For two sets of one law the mean over repeats is 0 at any n, here of 8 samples; Frechet's is far above."""
    found = torch.tensor([kernel_distance(normal(8, 4, seed=k), normal(8, 4, seed=1000 + k)) for k in range(600)])
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(600)


def test_kernel_distance_is_that_of_the_moments():
    """(a.b/d + 1)^3 in one dimension compares the first three moments: MMD^2 = 3 dm1^2 + 3 dm2^2 + dm3^2."""
    x, y = normal(4000, 1), 0.5 + 1.2 * normal(4000, 1, seed=1)
    expected = sum(c * (x.pow(p).mean() - y.pow(p).mean()) ** 2 for p, c in ((1, 3), (2, 3), (3, 1)))
    assert abs(kernel_distance(x, y) - float(expected)) < 0.05  # the plug-in value has a bias of order 1/n


def test_precision_falls_with_what_is_not_real_and_recall_with_what_is_missing():
    real = torch.cat([normal(150, 3), normal(150, 3, seed=1) + 20])
    half = normal(150, 3, seed=2)  # one of the two modes
    both = precision_recall(half, real)
    assert both.precision > 0.9 and 0.4 < both.recall < 0.55
    wild = torch.cat([real[::2] + 0.01, normal(150, 3, seed=3) - 50])
    other = precision_recall(wild, real)
    assert 0.45 < other.precision < 0.55 and other.recall > 0.9


def test_two_sets_that_are_equal_have_both():
    cloud = normal(40, 2)
    assert precision_recall(cloud, cloud) == (1.0, 1.0)


def test_energy_score_of_a_normal_forecast_in_one_dimension():
    """CRPS of N(0, 1) at x: x (2 Phi(x) - 1) + 2 phi(x) - 1/sqrt(pi) (Gneiting & Raftery 2007, eq 21)."""
    x = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    law = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = x * (2 * law.cdf(x) - 1) + 2 * law.log_prob(x).exp() - 1 / math.sqrt(math.pi)
    # 20,000 forecasts in pieces of 2,000: the standard error is below 0.01
    found = torch.stack([energy_score(normal(2000, 3, seed=s), x) for s in range(10)]).mean(0)
    assert (found - expected).abs().max() < 0.03


def test_energy_score_prefers_the_true_law():
    target = normal(2000, 2, seed=9)
    scores = {tau: float(energy_score(tau * normal(16, 2000, 2, seed=5), target).mean()) for tau in (0.3, 1.0, 2.0)}
    assert min(scores, key=scores.get) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernel_distance(normal(1, 2), normal(5, 2)),
        lambda: kernel_distance(normal(5, 2), normal(5, 3)),
        lambda: precision_recall(normal(3, 2), normal(9, 2), neighbours=3),
        lambda: precision_recall(normal(9, 2), normal(9, 2), neighbours=0),
        lambda: energy_score(normal(1, 4), normal(4)),
        lambda: energy_score(normal(3, 4) * math.nan, normal(4)),
    ],
)
def test_bad_sets_are_named(call):
    with pytest.raises(BadArgument, match="expected"):
        call()
