"""The exact cascade, against the covariance form of Gaussian conditioning and the table of its distances."""

import math

import pytest
import torch

from minivdm.core import CosineSchedule, samplers
from minivdm.exact import GaussianVideo, Law
from minivdm.exact.gaussian_cascade import GaussianCascade, block_means

VIDEO = GaussianVideo(16)
D = block_means(16)
CASCADE = GaussianCascade(VIDEO, D)
EYE = torch.eye(8, dtype=torch.float64)
WIDER = Law(CASCADE.low.mean, 1.2 * CASCADE.low.covariance)
NOISY = Law(CASCADE.low.mean, CASCADE.low.covariance + 0.1 * EYE)


@pytest.mark.parametrize("log_snr", [12.0, 4.0, math.log(5), math.log(3), -2.0])
def test_a_perfect_base_is_made_into_the_data_at_every_level(log_snr):
    # W2 is the root of a trace of rounding, 1e-15 times 16 values and the condition of S, about 1e2
    assert CASCADE.distance(CASCADE.low, log_snr) < 1e-5


@pytest.mark.parametrize(
    ("log_snr", "wider", "noisy", "apart"),
    [(12.0, 0.374, 0.440, 0.000), (4.0, 0.363, 0.325, 0.033), (math.log(5), 0.313, 0.099, 0.219),
     (math.log(3), 0.291, 0.070, 0.306), (-2.0, 0.051, 0.005, 1.33)],
)  # fmt: skip
def test_table(log_snr, wider, noisy, apart):
    """Three digits, and so half a unit of the third."""
    assert CASCADE.distance(WIDER, log_snr) == pytest.approx(wider, abs=6e-4)
    assert CASCADE.distance(NOISY, log_snr) == pytest.approx(noisy, abs=6e-4)
    assert CASCADE.disagreement(CASCADE.low, log_snr) == pytest.approx(apart, abs=6e-3 if apart > 1 else 6e-4)


def test_more_noise_hides_more_of_a_wrong_base():
    levels = torch.linspace(12, -4, 33).tolist()
    for base in (WIDER, NOISY):
        found = torch.tensor([CASCADE.distance(base, level) for level in levels])
        assert bool((found.diff() < 0).all())


def test_posterior_mean_against_the_covariance_form():
    """E[x | z, y] by conditioning the joint law of (x, z, y), with a mean that is not zero."""
    torch.manual_seed(0)
    mean = torch.randn(16, dtype=torch.float64)
    video = GaussianVideo(16, covariance=VIDEO.covariance, mean=mean)
    cascade, schedule, t, level = GaussianCascade(video, D), CosineSchedule(), 0.4, 1.1
    y, z = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 1, 16, 1, 1, dtype=torch.float64)
    a, s = float(schedule.alpha(t)), float(schedule.sigma(t))
    b, r = math.sqrt(1 / (1 + math.exp(-level))), math.sqrt(1 / (1 + math.exp(level)))
    H = torch.cat([a * torch.eye(16, dtype=torch.float64), b * D])
    noise = torch.tensor([s**2] * 16 + [r**2] * 8, dtype=torch.float64).diag()
    gain = VIDEO.covariance @ H.T @ torch.linalg.inv(H @ VIDEO.covariance @ H.T + noise)
    seen = torch.cat([z.flatten(1), y], 1)
    expected = mean + (seen - mean @ H.T) @ gain.T
    found = cascade.denoiser(schedule, y, level)(z, t).flatten(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_a_sampler_with_the_exact_denoiser_draws_from_the_law():
    """DDIM of 128 steps is not exact; its distance in one posterior is a small part of the posterior's spread."""
    y = torch.zeros(1, 8, dtype=torch.float64)
    denoise = CASCADE.denoiser(CosineSchedule(), y, 1.1)
    unit = torch.eye(16, dtype=torch.float64).reshape(16, 1, 16, 1, 1)
    ends = samplers.sample(denoise, unit, 128).flatten(1)  # linear, as the mean is 0
    law = CASCADE.given(y, 1.1)
    error = GaussianVideo(16, covariance=law.covariance).wasserstein(Law(torch.zeros(16).double(), ends.T @ ends))
    assert error < 0.05 * math.sqrt(float(law.covariance.trace()))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="operator: expected shape"):
        GaussianCascade(VIDEO, torch.eye(3).double())
    with pytest.raises(ValueError, match="y: expected shape"):
        CASCADE.given(torch.zeros(1, 3).double(), 1.0)
    with pytest.raises(ValueError, match="values: expected a multiple"):
        block_means(5)
