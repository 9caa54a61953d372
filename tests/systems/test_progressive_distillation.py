"""Progressive distillation: its target, its exact students, and a training that can be stopped."""

import functools
import math
import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from small_runs import NETWORK, assert_same, fit, stop_at, tiny

from minivdm import training
from minivdm.core import (
    CosineSchedule,
    Denoiser,
    FlowSchedule,
    LinearSchedule,
    classifier_free,
    ddim_law,
    diffuse,
    samplers,
)
from minivdm.core.guidance import Guided
from minivdm.exact import GaussianMixture, GaussianVideo, Law
from minivdm.exact.propagate import Propagation
from minivdm.guards import BadArgument
from minivdm.networks import PointNetwork
from minivdm.systems import few_steps
from minivdm.systems import progressive_distillation as pd
from minivdm.training import checkpoints, exports, loop, pretrained, recipes
from minivdm.training.objectives import Batch, Student

COSINE = CosineSchedule(-12.0, 12.0)
VIDEO = GaussianVideo(16)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- the target ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [COSINE, LinearSchedule(), FlowSchedule()])
def test_a_step_along_the_target_ends_where_the_teacher_did(schedule):
    z, after = noise(5, 3), noise(5, 3, seed=1)
    t, s = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.125]).double(), torch.tensor([0.875, 0.5, 0.375, 0.125, 0.0]).double()
    x = pd.target_x(z, after, t, s, schedule)
    torch.testing.assert_close(pd.step_to(z, x, t, s, schedule), after, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", [COSINE, LinearSchedule()])
def test_both_forms_of_the_target_are_one(schedule):
    z, after = noise(4, 3), noise(4, 3, seed=1)
    t, s = torch.tensor([1.0, 0.6, 0.25, 0.125]).double(), torch.tensor([0.9, 0.5, 0.125, 0.0]).double()
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    from_v = alpha * z - sigma * pd.target_v(z, after, t, s, schedule)
    torch.testing.assert_close(from_v, pd.target_x(z, after, t, s, schedule), rtol=0, atol=1e-12)


def test_without_noise_left_the_target_is_the_last_estimate():
    z, x_hat = noise(3, 2), noise(3, 2, seed=1)
    t = torch.tensor(0.125, dtype=torch.float64)
    assert pd.step_to(z, x_hat, t, 0.0, COSINE).equal(x_hat)
    torch.testing.assert_close(pd.target_x(z, x_hat, t, 0.0, COSINE), x_hat, rtol=0, atol=1e-14)


def test_angles_want_preserved_variance():
    with pytest.raises(BadArgument, match="schedule"):
        pd.target_v(noise(2, 2), noise(2, 2), 0.5, 0.25, FlowSchedule())


def test_a_walk_is_that_many_steps_of_the_sampler():
    denoise, z = VIDEO.denoiser(COSINE), noise(3, *VIDEO.shape)
    grid = torch.linspace(0.75, 0.25, 5, dtype=torch.float64)
    expected = samplers.sample(denoise, z, grid=grid, step=samplers.ddim_step)
    torch.testing.assert_close(pd.walk(denoise, z, 0.75, 0.25, 4), expected, rtol=0, atol=1e-13)


def test_each_sample_walks_between_its_own_times():
    denoise, z = VIDEO.denoiser(COSINE), noise(2, *VIDEO.shape)
    t, s = torch.tensor([1.0, 0.5]).double(), torch.tensor([0.5, 0.0]).double()
    both = pd.walk(denoise, z, t, s)
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], pd.walk(denoise, z[i : i + 1], t[i], s[i]), rtol=0, atol=1e-13)


def test_the_next_step_is_handed_the_last_estimate():
    seen = []

    def told(estimate):
        def answer(z, t):
            seen.append(None if estimate is None else float(estimate.mean()))
            return torch.full_like(z, len(seen) / 10)

        return Guided(answer, COSINE)

    pd.walk(told(None), noise(1, 2), 0.5, 0.0, 3, renew=told)
    assert seen == [None, pytest.approx(0.1), pytest.approx(0.2)]


def test_students_are_asked_at_their_own_times_alone_all_alike():
    t = pd.student_times(4000, 8, COSINE, torch.Generator().manual_seed(0))
    values, counts = t.unique(return_counts=True)
    torch.testing.assert_close(values, torch.arange(1, 9).double() / 8, rtol=0, atol=0)
    assert counts.tolist() == [500] * 8  # stratified: each part of the time has its share


def test_the_weight_on_the_error_of_v_lies_between_a_half_and_one():
    student = Denoiser(lambda z, log_snr: torch.zeros_like(z), COSINE)
    z, t = noise(6, 3), torch.linspace(0.1, 1, 6, dtype=torch.float64)
    s = pd.before(t, 10)
    after = noise(6, 3, seed=1)
    found = pd.loss(student, z, t, after, s)
    error = pd.target_v(z, after, t, s, COSINE).square().mean(1)  # v_hat is 0
    snr = COSINE.log_snr(t).exp()
    torch.testing.assert_close(found.per_sample, error * snr.clamp(min=1) / (1 + snr), rtol=1e-12, atol=0)
    assert ((found.per_sample / error >= 0.5) & (found.per_sample / error < 1)).all()


@pytest.mark.parametrize("target", ["x", "v"])
def test_the_loss_of_a_student_that_is_right_is_zero(target):
    z, t = noise(4, 3), torch.tensor([1.0, 0.75, 0.5, 0.25]).double()
    s, after = pd.before(t, 4), noise(4, 3, seed=1)
    right = (pd.target_x if target == "x" else pd.target_v)(z, after, t, s, COSINE)
    assert pd.loss(Denoiser(lambda z, log_snr: right, COSINE, target), z, t, after, s).mean < 1e-24


# ---- students in closed form ---------------------------------------------------------------------------------


@functools.cache
def students():
    """Of 128, 64, ..., 1 steps, each the student of the one before; the first teacher takes 256 steps."""
    found, teacher = {}, VIDEO.denoiser(COSINE)
    for n in [128 >> k for k in range(8)]:
        found[n] = teacher = pd.AffineStudent(teacher, VIDEO.shape, n)
    return found


@pytest.mark.parametrize("steps", [128, 8, 4, 2, 1])
def test_every_student_is_the_map_of_256_ddim_steps(steps):
    z = noise(4, *VIDEO.shape)
    many = samplers.sample(VIDEO.denoiser(COSINE), z, 256)
    few = samplers.sample(students()[steps], z, steps)
    torch.testing.assert_close(few, many, rtol=0, atol=1e-12)  # eight halvings in float64


def law_of(denoise, steps):
    """The law of what DDIM makes of white noise: linear, hence known from the unit vectors."""
    d = math.prod(VIDEO.shape)
    ends = samplers.sample(denoise, torch.eye(d, dtype=torch.float64).reshape(d, *VIDEO.shape), steps).flatten(1)
    return Law(torch.zeros(d, dtype=torch.float64), ends.T @ ends)


@pytest.mark.parametrize(("steps", "distance"), [(1, 3.98), (2, 2.63), (4, 1.59), (8, 0.864), (16, 0.452), (64, 0.118)])
def test_the_student_is_near_the_data_where_ddim_is_far(steps, distance):
    exact = VIDEO.denoiser(COSINE)
    assert VIDEO.wasserstein(law_of(exact, steps)) == pytest.approx(
        distance, rel=5e-3
    )  # three digits were written down
    assert VIDEO.wasserstein(law_of(students()[steps], steps)) == pytest.approx(0.0299, abs=5e-5)


def test_the_teacher_and_the_stochastic_sampler_beside_it():
    """256 DDIM steps are the students' ceiling; 256 ancestral steps end a little farther away."""
    laws = Propagation(VIDEO, COSINE, lambda x_a: VIDEO.denoiser(COSINE))
    ceiling = laws.run(256, ddim_law)
    torch.testing.assert_close(ceiling.covariance, law_of(students()[1], 1).covariance, rtol=0, atol=1e-10)
    assert VIDEO.wasserstein(laws.run(256)) == pytest.approx(0.0431, abs=5e-5)


def test_steps_that_a_student_does_not_know_are_refused():
    student = students()[4]
    with pytest.raises(pd.TooManySteps, match="multiples of 1/4"):
        samplers.sample(student, noise(1, *VIDEO.shape), 8)
    assert samplers.sample(student, noise(1, *VIDEO.shape), 2).isfinite().all()  # fewer, at times that it knows


# ---- a network of points -------------------------------------------------------------------------------------


def test_points_learn_one_step_of_what_took_many():
    """In one dimension, teacher exact: after a short training the one-step map is nearer DDIM(256) than DDIM(1) is."""
    world = GaussianMixture(torch.ones(2), torch.tensor([[-0.7], [0.7]]), 0.2)
    exact = world.denoiser(CosineSchedule())
    data = torch.as_tensor(world.sample(4096, torch.Generator().manual_seed(0))[0]).float()
    objective = pd.ProgressiveDistillation(exact, Student(steps=1, teacher_steps=16), "truncated_snr")
    network = PointNetwork(1, width=32, generator=torch.Generator().manual_seed(0))
    student, losses = loop.train(
        network, lambda i: data[i % 4096], steps=200, batch=64, lr=3e-3, decay=0.99, every=0, target=objective
    )
    z = noise(512, 1, seed=3).float()
    many, few = samplers.sample(exact, z, 256), samplers.sample(student, z, 1)
    plain = samplers.sample(exact, z, 1)
    assert (few - many).square().mean() < 0.1 * (plain - many).square().mean()
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


# ---- the usual training --------------------------------------------------------------------------------------

SHORT = {"frames": 2, "images": 0, "clips": 16, "batch": 4, "warmup": 0, "save_every": 8, "milestones": []}


@pytest.fixture
def teacher(tmp_path):
    """A teacher's run, barely trained, that takes its estimate."""
    recipe = tiny(name="teacher", network={**NETWORK, "self_conditioning": True}, self_conditioning=0.5, **SHORT)
    fit(recipe, tmp_path / "teacher")
    return tmp_path / "teacher"


def student_recipe(teacher, /, **changes):
    how = {"steps": 4, "weight": 1.0, "temporal_weight": 0.75, "own_estimate": True}
    named = {"objective": "progressive", "teacher": str(teacher), "init": str(teacher), "student": how, "name": "few-4"}
    return tiny(**{**SHORT, **named, "weighting": "truncated_snr", **changes})


def test_a_student_starts_as_its_teacher_without_the_estimate(teacher):
    trainer = training.Trainer(student_recipe(teacher))
    assert trainer.start_from(checkpoints.read_weights(teacher)[0]) == []
    z, t = noise(2, 1, 2, 16, 16).float(), torch.tensor([0.25, 1.0])
    torch.testing.assert_close(trainer.denoiser(z, t), pretrained.load(teacher)(z, t), rtol=0, atol=0)


def test_the_teacher_is_guided_as_the_recipe_says(teacher):
    trainer = training.Trainer(student_recipe(teacher, student={"steps": 4, "teacher_steps": 1, "weight": 2.0}))
    model = trainer.objective.teacher
    clips = trainer.data[2].clips(torch.arange(2))
    t = torch.tensor([0.5, 0.25], dtype=torch.float64)
    z = diffuse(clips.video, t, trainer.schedule, noise(*clips.video.shape).float())
    s = pd.before(t, 4)
    guided = classifier_free(model.given(clips.labels), model.given(None), 2.0)
    expected = pd.step_to(z, guided(z, t), t, s, trainer.schedule)
    got = trainer.objective.end(z, t, s, {"labels": clips.labels})
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_labels_that_are_left_out_guide_nobody(teacher):
    trainer = training.Trainer(student_recipe(teacher, student={"steps": 4, "weight": 2.0}))
    z, t = noise(2, 1, 2, 16, 16).float(), torch.tensor([0.5, 0.25], dtype=torch.float64)
    s = pd.before(t, 4)
    got = trainer.objective.end(z, t, s, {"labels": torch.zeros(2, 10)})
    torch.testing.assert_close(got, pd.walk(trainer.objective.teacher.given(None), z, t, s), rtol=0, atol=1e-5)


def test_an_interrupted_student_goes_on_bit_for_bit(teacher, tmp_path, monkeypatch):
    recipe = student_recipe(teacher)
    whole = fit(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 8, signal.SIGTERM)
        assert fit(recipe, tmp_path / "parts").clips == 8
    assert_same(whole, fit(recipe, tmp_path / "parts", resume=True))


def test_a_student_is_exported_and_knows_its_steps(teacher, tmp_path):
    recipe = student_recipe(teacher)
    fit(recipe, tmp_path / "few")
    model = pretrained.load(exports.export(tmp_path / "few", clips=2))
    assert model.config == recipe and few_steps.student_of(model).steps == 4
    assert few_steps.student_sampling(model).steps == 4 and few_steps.student_sampling(model, 2).steps == 2
    with pytest.raises(pd.TooManySteps, match="1, 2, 4.*got 8"):
        few_steps.student_sampling(model, 8)
    with pytest.raises(BadArgument, match="student"):
        few_steps.student_sampling(pretrained.load(teacher))


def test_clips_take_one_call_a_step_and_no_guidance(teacher, tmp_path):
    fit(student_recipe(teacher), tmp_path / "few")
    exports.export(tmp_path / "few", clips=2)
    folder = tmp_path / "few" / "weights"
    assert few_steps.shipped(folder) == [4]
    model, calls = few_steps.load(4, folder=folder), []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    made = few_steps.generate(model, torch.eye(10)[:2], generator=torch.Generator().manual_seed(0))
    assert made.shape == (2, 1, 2, 16, 16) and len(calls) == 4
    with pytest.raises(BadArgument, match="learnt its guidance"):
        few_steps.generate(model, weight=1.0)
    with pytest.raises(pd.TooManySteps, match="few: expected.*4; got 16"):
        few_steps.load(16, folder=folder)
    assert len(calls) == 4


@pytest.mark.parametrize(("changes", "says"), [
    ({"objective": "progresive"}, "did you mean 'progressive'"), ({"teacher": ""}, "teacher"),
    ({"student": {"steps": 0}}, "student.steps"), ({"student": {"step": 8}}, "did you mean 'steps'"),
    ({"student": {"weight": -1.0}}, "student.weight"), ({"images": 1}, "images"),
    ({"objective": "denoising"}, "student: expected nothing"),
])  # fmt: skip
def test_a_student_that_cannot_be_meant_is_named(changes, says):
    with pytest.raises(training.RecipeError, match=says):
        student_recipe("moving-mnist-32", **changes)


def test_an_estimate_is_asked_of_a_teacher_that_takes_one():
    exact = VIDEO.denoiser(COSINE)
    with pytest.raises(BadArgument, match="own_estimate"):
        pd.ProgressiveDistillation(exact, Student(own_estimate=True), "truncated_snr")


def test_each_halving_waits_for_its_teacher():
    names = [recipe.name for recipe in recipes.in_order(["few-4"])]
    assert names == ["moving-mnist-32", "few-16", "few-8", "few-4"]


def test_conditions_reach_student_and_teacher(teacher):
    trainer = training.Trainer(student_recipe(teacher))
    [batch] = trainer.pieces(trainer.config.phase_at(0))
    assert isinstance(batch, Batch) and set(batch.conditions) == {"labels"}
    assert (batch.t * 4 == (batch.t * 4).round()).all()
