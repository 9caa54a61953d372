"""Consistency models: the exact end of the flow, and what the loss makes of it."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from small_runs import fit, tiny

from minivdm.core import CosineSchedule, Denoiser, LinearSchedule, diffuse, samplers
from minivdm.exact import GaussianMixture, GaussianVideo
from minivdm.guards import BadArgument, BadType
from minivdm.networks import PointNetwork
from minivdm.systems import consistency
from minivdm.systems import progressive_distillation as pd
from minivdm.training import loop
from minivdm.training.objectives import Batch, Student

COSINE = CosineSchedule(-12.0, 12.0)
VIDEO = GaussianVideo(16)
TWO = GaussianMixture(torch.tensor([0.6, 0.4]), torch.tensor([[-0.7], [0.5]]), torch.tensor([0.2, 0.1]))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("schedule", [COSINE, LinearSchedule()])
@pytest.mark.parametrize(("world", "shape"), [(VIDEO, VIDEO.shape), (TWO, (1,))])
def test_the_end_is_constant_along_a_trajectory(schedule, world, shape):
    """A fine solver walks from t = 0.9 to 0.1; the distance of the ends falls as the square of its step (Heun)."""
    exact = consistency.ExactConsistency(world, schedule)
    z = noise(6, *shape)
    errors = []
    for steps in (100, 200):
        grid = torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)
        walked = samplers.sample(world.denoiser(schedule), z, grid=grid, step=samplers.heun_step)
        errors.append(float((exact(walked, 0.1) - exact(z, 0.9)).abs().max()))
    assert errors[1] < 2e-3
    assert errors[1] < errors[0] / 3  # second order gives 4


@pytest.mark.parametrize(("world", "shape"), [(VIDEO, VIDEO.shape), (TWO, (1,))])
def test_without_noise_the_end_is_where_it_is(world, shape):
    x = 0.3 * noise(5, *shape)
    torch.testing.assert_close(consistency.ExactConsistency(world, COSINE)(x, 0.0), x, rtol=0, atol=1e-9)


def test_each_sample_has_its_own_time():
    exact, z = consistency.ExactConsistency(VIDEO, COSINE), noise(2, *VIDEO.shape)
    both = exact(z, torch.tensor([0.3, 0.8], dtype=torch.float64))
    torch.testing.assert_close(both[1:], exact(z[1:], 0.8), rtol=0, atol=1e-13)
    torch.testing.assert_close(both[:1], exact(z[:1], 0.3), rtol=0, atol=1e-13)


def test_ends_of_noised_data_have_the_law_of_the_data():
    exact, t = consistency.ExactConsistency(VIDEO, COSINE), torch.tensor(0.7, dtype=torch.float64)
    d = 16
    maps = exact(torch.eye(d, dtype=torch.float64).reshape(d, *VIDEO.shape), t).flatten(1)
    noisy = COSINE.alpha(t) ** 2 * VIDEO.covariance + COSINE.sigma(t) ** 2 * torch.eye(d, dtype=torch.float64)
    torch.testing.assert_close(maps.T @ noisy @ maps, VIDEO.covariance, rtol=0, atol=1e-12)


def test_ranks_and_quantiles_are_inverse():
    x = torch.linspace(-1.5, 1.0, 30, dtype=torch.float64)[:, None]  # further out 1 - rank has few digits
    torch.testing.assert_close(consistency.quantile(TWO, consistency.cdf(TWO, x)), x, rtol=0, atol=1e-6)


def test_the_one_dimensional_end_is_what_many_steps_approach():
    z = noise(200, 1)
    exact = consistency.ExactConsistency(TWO, COSINE)(z, 1.0)
    errors = [(samplers.sample(TWO.denoiser(COSINE), z, n) - exact).abs().mean() for n in (64, 256)]
    assert errors[1] < errors[0] / 2.5 and errors[1] < 0.01  # first order: four times the steps, a quarter


def test_the_loss_sees_nothing_where_the_student_is_exact():
    """As the step shrinks, the exact f has no consistency loss, and another function has."""
    exact, z = consistency.ExactConsistency(VIDEO, COSINE), noise(8, *VIDEO.shape)
    t = torch.full((8,), 0.5, dtype=torch.float64)
    found = []
    for n in (64, 128):
        lower = pd.walk(VIDEO.denoiser(COSINE), z, t, t - 1 / n, 1)
        found.append(float((exact(z, t) - exact(lower, t - 1 / n)).square().mean()))
    mean = VIDEO.denoiser(COSINE)
    wrong = float((mean(z, t) - mean(lower, t - 1 / n)).square().mean())
    assert found[1] < found[0] / 10 and found[1] < 0.05 * wrong  # the square of a local error of second order: 16


def test_a_network_that_predicts_v_is_the_identity_without_noise():
    network = PointNetwork(2, width=8, generator=torch.Generator().manual_seed(0))
    torch.nn.init.ones_(network.layers[-1].bias)
    x = noise(4, 2).float()
    torch.testing.assert_close(Denoiser(network, CosineSchedule())(x, 0.0), x, rtol=0, atol=1e-3)  # sigma is 4.5e-5


def test_several_steps_noise_again():
    exact = consistency.ExactConsistency(VIDEO, COSINE)
    z = noise(1, *VIDEO.shape)
    again = consistency.consistency_step(exact, z, 1.0, 0.5, torch.Generator().manual_seed(1))
    eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alpha, sigma = COSINE.alpha(0.5), COSINE.sigma(0.5)
    torch.testing.assert_close(again, alpha * exact(z, 1.0) + sigma * eps, rtol=0, atol=1e-6)
    assert consistency.consistency_step(exact, z, 1.0, 0.0).equal(exact(z, 1.0))


def test_the_lowest_level_learns_the_teachers_end():
    objective = consistency.ConsistencyDistillation(TWO.denoiser(COSINE), Student(steps=4, teacher_steps=1), "x")
    student = Denoiser(lambda z, log_snr: torch.zeros_like(z), COSINE)
    never = Denoiser(lambda z, log_snr: torch.full_like(z, float("nan")), COSINE)
    x, eps, t = noise(3, 1), noise(3, 1, seed=1), torch.full((3,), 0.25, dtype=torch.float64)
    found = objective(student, never, Batch(x, {}, None, t, eps))
    z = diffuse(x, t, COSINE, eps)
    expected = (student(z, t) - TWO.denoiser(COSINE)(z, t)).square().mean()
    torch.testing.assert_close(found.mean, expected, rtol=1e-10, atol=0)


def test_points_learn_the_end_of_the_flow():
    data = torch.as_tensor(TWO.sample(4096, torch.Generator().manual_seed(0))[0]).float()
    schedule = CosineSchedule()
    teacher = TWO.denoiser(schedule)
    objective = consistency.ConsistencyDistillation(teacher, Student(steps=16, teacher_steps=1), "x")
    network = PointNetwork(1, width=32, generator=torch.Generator().manual_seed(0))
    student, _ = loop.train(
        network, lambda i: data[i % 4096], steps=400, batch=128, lr=3e-3, decay=0.95, every=0, target=objective
    )
    z = noise(512, 1, seed=3).float()
    end = consistency.ExactConsistency(TWO, schedule)(z, 1.0)
    learnt, plain = samplers.sample(student, z, 1), samplers.sample(teacher, z, 1)
    assert (learnt - end).square().mean() < 0.2 * (plain - end).square().mean()


def test_the_usual_trainer_learns_it_from_a_run(tmp_path):
    short = {"frames": 2, "images": 0, "clips": 8, "batch": 4, "warmup": 0, "milestones": []}
    fit(tiny(**short), tmp_path / "teacher")
    how = {
        "objective": "consistency",
        "teacher": str(tmp_path / "teacher"),
        "student": {"steps": 8, "teacher_steps": 1},
    }
    trainer = fit(tiny(**{**short, **how, "weighting": "x", "init": how["teacher"]}), tmp_path / "student")
    assert isinstance(trainer.objective, consistency.ConsistencyDistillation) and trainer.clips == 8


def test_other_worlds_are_named():
    with pytest.raises(BadArgument, match="1 dimension"):
        consistency.ExactConsistency(GaussianMixture.ring(), COSINE)
    with pytest.raises(BadType, match="world"):
        consistency.ExactConsistency(3, COSINE)
