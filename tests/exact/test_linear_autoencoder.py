"""Linear autoencoders: trained from a random start, they end where the formulas say."""

import math

import pytest
import torch

from minivdm.exact import GaussianVideo
from minivdm.exact.linear_autoencoder import (
    linear_bound,
    linear_error,
    principal_subspace,
    rate_distortion,
    train_bound,
    train_linear,
)
from minivdm.guards import BadArgument

WORLD = GaussianVideo(6, 0.8, size=(2, 1), pixel_correlation=0.5)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_training_finds_the_principal_subspace(k):
    encoder, decoder = train_linear(WORLD, k, generator=torch.Generator().manual_seed(k))
    axes, variances, error = principal_subspace(WORLD, k)
    assert error == pytest.approx(variances[k:].sum().item())
    assert linear_error(WORLD, encoder, decoder).item() == pytest.approx(error, rel=1e-9)
    # The minimum is flat, so the weights are as exact as the root of the error's precision.
    assert (decoder @ encoder - axes @ axes.T).abs().max() < 1e-5
    angles = torch.linalg.svdvals(torch.linalg.qr(decoder)[0].T @ axes)  # cosines of the principal angles
    assert (angles - 1).abs().max() < 1e-9


def test_the_latents_are_known_only_up_to_an_invertible_map():
    encoder, decoder = train_linear(WORLD, 3, generator=torch.Generator().manual_seed(0))
    c = torch.tensor([[3.0, 1, 0], [0, 0.1, 2], [1, 0, 1]], dtype=torch.float64)
    other = linear_error(WORLD, torch.linalg.inv(c) @ encoder, decoder @ c)
    assert other.item() == pytest.approx(linear_error(WORLD, encoder, decoder).item(), rel=1e-9)


def test_the_error_against_samples():
    encoder, decoder = train_linear(WORLD, 2, generator=torch.Generator().manual_seed(0))
    x = WORLD.sample(40_000, torch.Generator().manual_seed(1)).flatten(1)
    found = (x - x @ encoder.T @ decoder.T).square().sum(1)
    expected = linear_error(WORLD, encoder, decoder).item()
    assert found.mean().item() == pytest.approx(expected, abs=5 * found.std().item() / 200)


@pytest.mark.parametrize("level", [0.05, 0.3, 1.0])
def test_the_best_bound_is_the_likelihood_that_rate_and_error_give(level):
    """A linear Gaussian autoencoder of enough latents, at its optimum, has the bound of the formula."""
    variances, axes = torch.linalg.eigh(WORLD.covariance)
    keep = variances > level
    k, u = variances[keep], axes[:, keep]
    decoder = u * (k - level).sqrt()
    encoder = (u * ((k - level).sqrt() / k)).T
    found = linear_bound(WORLD, encoder, decoder, level / k, level)
    rate = rate_distortion(WORLD, level)
    d = len(variances)
    assert found.item() == pytest.approx(rate.nats + rate.error / (2 * level) + d / 2 * math.log(2 * math.pi * level))
    assert rate.kept == int(keep.sum())
    weights = [w.clone().requires_grad_() for w in (encoder, decoder, level / k)]
    linear_bound(WORLD, *weights, level).backward()
    assert max(w.grad.abs().max().item() for w in weights) < 1e-9  # and it is a stationary point


def test_the_slope_of_rate_against_error():
    """dR/dD = -1 / (2 s^2): the price of error in nats that the weight of the rate stands for."""
    a, b = rate_distortion(WORLD, 0.1), rate_distortion(WORLD, 0.1001)
    assert (b.nats - a.nats) / (b.error - a.error) == pytest.approx(-1 / (2 * 0.10005), rel=1e-4)


def test_errors():
    with pytest.raises(BadArgument, match="k: expected"):
        principal_subspace(WORLD, 13)
    with pytest.raises(BadArgument, match="encoder, decoder"):
        linear_error(WORLD, torch.zeros(2, 5), torch.zeros(5, 2))
    with pytest.raises(BadArgument, match="decoder_variance"):
        rate_distortion(WORLD, 0.0)


@pytest.mark.parametrize("level", [2.0, 0.3])
def test_training_on_the_bound_reaches_rate_and_error_of_the_closed_form(level):
    d = len(WORLD.covariance)
    found = train_bound(WORLD, level, d, torch.Generator().manual_seed(0))
    best = rate_distortion(WORLD, level)
    assert (found.nats, found.error) == (pytest.approx(best.nats, abs=0.02), pytest.approx(best.error, abs=0.02))
    assert found.kept == best.kept
