"""The exact law of a sampler's output, held against the published figures and against the sampler itself."""

import math

import pytest
import torch

from minivdm.core.guidance import Replacement, reconstruction
from minivdm.core.samplers import (
    ancestral_law,
    ancestral_step,
    ddim_law,
    langevin_law,
    langevin_step,
    reverse_sde_law,
    sample,
)
from minivdm.core.schedules import CosineSchedule, LinearSchedule, VESchedule
from minivdm.exact import GaussianVideo, Law
from minivdm.exact.propagate import Propagation, push

VIDEO = GaussianVideo(16, 0.9)
SCHEDULE = CosineSchedule(-12, 12)
OBSERVED = range(4)
CONDITIONS = {
    "exact": lambda x_a: VIDEO.conditional_denoiser(SCHEDULE, x_a),
    "replacement": lambda x_a: VIDEO.denoiser(SCHEDULE),
    "reconstruction, w = 1": lambda x_a: reconstruction(VIDEO.denoiser(SCHEDULE), x_a, 1.0),
    "reconstruction, w = 2": lambda x_a: reconstruction(VIDEO.denoiser(SCHEDULE), x_a, 2.0),
    "reconstruction, w = 4": lambda x_a: reconstruction(VIDEO.denoiser(SCHEDULE), x_a, 4.0),
}
TABLE = [  # conditioning, one Langevin correction a step, 2-Wasserstein distance of the result from the truth
    ("exact", False, 0.0293),
    ("replacement", False, 0.6544),
    ("replacement", True, 0.4123),
    ("reconstruction, w = 1", False, 0.4972),
    ("reconstruction, w = 1", True, 0.2538),
    ("reconstruction, w = 2", False, 0.3725),
    ("reconstruction, w = 2", True, 0.1488),
    ("reconstruction, w = 4", False, 0.2374),
]


def test_push_is_the_law_of_an_affine_map():
    law = Law(torch.tensor([1.0, 2.0]).double(), torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double())
    a, c = torch.tensor([[1.0, 2.0], [0.0, 3.0]]).double(), torch.tensor([1.0, -1.0]).double()
    noise = torch.tensor([0.1, 0.2]).double()
    mean, covariance = push(law, lambda u: (u @ a.T + c, noise))
    torch.testing.assert_close(mean, a @ law.mean + c)
    torch.testing.assert_close(covariance, a @ law.covariance @ a.T + torch.diag(noise))


@pytest.mark.parametrize("condition, langevin, reference", TABLE)
def test_distance_of_conditional_samplers_from_the_truth(condition, langevin, reference):
    # 256 ancestral steps uniform in t, 4 of 16 frames observed. 2 %: the references have four decimals, and differ in
    # whether the last step adds the noise that sigma_0 = e^-6 allows.
    world = Propagation(VIDEO, SCHEDULE, CONDITIONS[condition], OBSERVED)
    law = world.run(256, ancestral_law, corrector_law=langevin_law if langevin else None)
    assert VIDEO.wasserstein(law) == pytest.approx(reference, rel=0.02)


def test_replacement_is_biased_however_many_steps_are_taken():
    # Four times the steps of the table: hardly less, and within 2 % of the 0.6481 that eight times the steps leave.
    world = Propagation(VIDEO, SCHEDULE, CONDITIONS["replacement"], OBSERVED)
    assert VIDEO.wasserstein(world.run(1024)) == pytest.approx(0.6481, rel=0.02)


@pytest.mark.parametrize("condition, langevin", [row[:2] for row in TABLE])
def test_samples_have_the_propagated_law(condition, langevin, generator):
    n, steps = 2000, 64
    world = Propagation(VIDEO, SCHEDULE, CONDITIONS[condition], OBSERVED)
    law = world.run(steps, corrector_law=langevin_law if langevin else None)

    observed = VIDEO.sample(n, generator)[:, :, :4]
    x = sample(
        CONDITIONS[condition](observed),
        torch.randn(n, 1, 16, 1, 1, generator=generator, dtype=torch.float64),
        steps,
        step=ancestral_step,
        project=Replacement(observed, SCHEDULE, generator=generator),
        corrector=langevin_step if langevin else None,
        generator=generator,
    )
    # Every entry of the covariance within five standard errors, sqrt((c_ii c_jj + c_ij^2) / n).
    variances = law.covariance.diagonal()
    error = ((variances[:, None] * variances + law.covariance**2) / n).sqrt()
    assert ((torch.cov(x.flatten(1).T) - law.covariance).abs() < 5 * error).all()
    # The distance within five standard deviations of what n draws from the propagated law itself measure.
    drawn = GaussianVideo(16, covariance=(law.covariance + law.covariance.T) / 2, mean=law.mean)
    measured = torch.tensor([VIDEO.wasserstein(drawn.sample(n, generator)) for _ in range(20)])
    assert abs(VIDEO.wasserstein(x) - measured.mean()) < 5 * measured.std()


@pytest.mark.parametrize("schedule", [LinearSchedule(), VESchedule(0.02, 50.0)], ids=["linear", "ve"])
@pytest.mark.parametrize("law", [ancestral_law, ddim_law, reverse_sde_law], ids=["ancestral", "ddim", "reverse sde"])
def test_unconditional_samplers_converge_to_the_data(law, schedule):
    video = GaussianVideo(4, 0.9)
    world = Propagation(video, schedule, lambda x_a: video.denoiser(schedule))
    distances = [video.wasserstein(world.run(n, law)) for n in (64, 128, 256)]
    assert distances[2] < 0.1
    assert distances[0] / distances[2] > 2.5  # towards 4, first order, from below or above


def test_observed_frames_may_lie_anywhere():
    video = GaussianVideo(6, 0.9)
    world = Propagation(video, SCHEDULE, lambda x_a: video.conditional_denoiser(SCHEDULE, x_a, [0, 5]), frames=[0, 5])
    law = world.run(128)
    torch.testing.assert_close(law.covariance[[0, 5]][:, [0, 5]], video.covariance[[0, 5]][:, [0, 5]])
    assert video.wasserstein(law) < 0.05  # what 128 steps leave


def test_a_mean_is_carried_along():
    video = GaussianVideo(4, 0.9, mean=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    world = Propagation(video, SCHEDULE, lambda x_a: video.conditional_denoiser(SCHEDULE, x_a), range(2))
    law = world.run(128)
    torch.testing.assert_close(law.mean, video.mean, rtol=0, atol=0.02)
    assert math.isfinite(video.wasserstein(law))


def test_bad_input_is_named():
    world = Propagation(VIDEO, SCHEDULE, CONDITIONS["exact"], OBSERVED)
    with pytest.raises(ValueError, match="steps: expected"):
        world.run()
    with pytest.raises(ValueError, match="decreasing"):
        world.run(grid=[0.0, 1.0])
