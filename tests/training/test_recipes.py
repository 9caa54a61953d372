"""Recipes: what they say survives JSON and a command line, and what cannot be meant is refused by name."""

import json

import pytest
from small_runs import NETWORK, TINY, tiny

from minivdm.training import Recipe, RecipeError, recipes, validate


@pytest.mark.parametrize("config", [*recipes.RECIPES.values(), TINY])
def test_configuration_survives_json(config):
    assert Recipe.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_command_rebuilds_the_configuration():
    import shlex

    changed = recipes.get("moving-mnist-32").override(["lr=2e-3", "network.width=64", "optimizer=muon"])
    words = shlex.split(recipes.command(changed))
    assert words[:5] == ["python", "-m", "minivdm", "train", "moving-mnist-32"]
    assert recipes.get(words[4]).override([w for w in words[5:] if w != "--set"]) == changed


@pytest.mark.parametrize(("assignment", "says"), [
    ("lrr=1", "did you mean 'lr'"), ("lr=fast", "lr: expected a finite number"), ("batch=0", "batch: expected"),
    ("batch", "key=value"),
    ("frames=[[8,2,4],[4,2,4]]", "rise"), ("frames=[[8,2]]", "clips_until"), ("precision=fp8", "bf16"),
    ("lr.x=1", "a dot only after"), ("ema_decay=1", r"\[0, 1\)"),
])  # fmt: skip
def test_wrong_assignment_is_named(assignment, says):
    with pytest.raises(RecipeError, match=says):
        recipes.get("moving-mnist-32").override([assignment])


def test_learning_rate_rises_linearly_then_falls_as_a_cosine():
    config = tiny(clips=100, frames=2, warmup=10, lr=1.0, lr_end=0.1)
    assert config.lr_at(4) == pytest.approx(0.5)
    assert config.lr_at(10) == pytest.approx(1.0)
    assert config.lr_at(55) == pytest.approx(0.55)  # half way: the middle between 1 and 0.1
    assert config.lr_at(100) == pytest.approx(0.1)


def test_curriculum_changes_frames_and_batch_at_its_clips():
    got = [(TINY.phase_at(clips).frames, TINY.phase_at(clips).batch) for clips in (0, 7, 8, 15, 16, 99)]
    assert got == [(2, 4), (2, 4), (4, 2), (4, 2), (3, 4), (3, 4)]


def test_trapezoid_is_constant_and_then_a_line():
    recipe = tiny(clips=1000, frames=2, warmup=100, lr=1.0, lr_end=0.1, decay=0.2)
    assert [recipe.lr_at(n) for n in (100, 500, 800)] == pytest.approx([1, 1, 1])
    assert recipe.lr_at(900) == pytest.approx(0.55)  # the middle of the line from 1 to 0.1
    assert recipe.lr_at(1000) == pytest.approx(0.1)


# Every value of a recipe that was once found out only by a crash in the first step, or never.
@pytest.mark.parametrize(("assignments", "says"), [
    (["target=u"], "target"), (["weighting=nonsense"], "weighting"), (["weighting=z"], "weighting"),
    (["digits=three"], "digits"), (["digits=[3,1]"], "digits"), (["digits=[1,2,3]"], "digits"),
    (["betas=0.9"], "betas"),
    (["betas=[0.9,1]"], "betas"), (["network.widht=48"], "did you mean 'width'"), (["network.patch=3"], "network"),
    (["network.patch=0"], "patch"), (["network.patch=-1"], "patch"), (["network.labels=5"], "labels"),
    (["network.labels=null"], "labels"), (["network.labels=0"], "labels"), (["network.width=0"], "width"),
    (["network.width=12"], "width"), (["network.embedding=1"], "embedding"), (["network.blocks=-1"], "blocks"),
    (["network.channels=3"], "channels"), (["network.head_channels=0"], "head_channels"),
    (["network.multipliers=[0,0]"], "multipliers"), (["network.width=99999"], "width"), (["network=7"], "network"),
    (["network.self_conditioning=1"], "self_conditioning"),
    (["self_conditioning=0.5", "network.self_conditioning=false"], "network.self_conditioning"),
    (["size=18"], "multiples"), (["size=20"], "multiples"), (["size=100000"], "size"), (["size=32.0"], "size"),
    (["milestones=null"], "milestones"), (["milestones=-1"], "milestones"), (["milestones=[5,3]"], "milestones"),
    (["milestones=nonsense"], "milestones"), (["weight_decay=Infinity"], "weight_decay"), 
    (["weight_decay=-1"], "weight"),
    (["lr=NaN"], "lr"), (["lr=1e308"], "lr"), (["lr=-1"], "lr"), (["lr=true"], "lr"), (["shift=1e308"], "shift"),
    (["log_snr_min=30"], "log_snr_min"), (["log_snr_min=-1e308"], "log_snr_min"),
    (["log_snr_max=-Infinity"], "log_snr"),
    (["batch=1000000", "frames=16"], "batch"),
    (["batch=7", "accumulate=2", "frames=4"], "accumulate"), (["frames=0"], "frames"),
    (["data_seed=9223372036854775808"], "data_seed"), (["seed=9223372036854775808"], "seed"), (["seed=-1"], "seed"),
    (["seed=1e23"], "seed"), (["data=movies"], "did you mean|there are"), (["path=x"], "path"),
    (["schedule=vp"], "schedule"), (["times=[1]"], "times"), (["times=[1,0]"], "times"), (["keep=-1"], "keep"),
    (["graphs=true", "accumulate=2"], "graphs"), (["graphs=true", "compile=true"], "graphs"),
    (["graphs=true", "objective=progressive"], "graphs"),
    (["schedule=flow", "shift=1"], "shift"), (["conditions={\"text\":0.1}"], "condition"), (["name=a/b"], "name"),
    (["conditions.labels=2"], "conditions.labels"), (["name=..", ], "name"), (["motion=fast"], "motion"),
    (["clips=0"], "clips"), (["ema_decay=NaN"], "ema_decay"), (["speed=1e9"], "speed"), (["compile=1"], "compile"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(assignments, says):
    with pytest.raises(RecipeError, match=says):
        recipes.get("moving-mnist-32").override(assignments)


def test_a_recipe_of_an_earlier_version_is_read():
    old = {key: value for key, value in TINY.to_dict().items() if key != "conditions"}
    assert Recipe.from_dict({**old, "label_drop": 0.3}).conditions == {"labels": 0.3}
    unlabelled = {**old, "network": {**NETWORK, "labels": 0}, "label_drop": 0.3}
    assert Recipe.from_dict(unlabelled).conditions == {}


@pytest.mark.parametrize("values", [7, [1], {"size": {}}, {"nonsense": 1}, {"network": {"width": {}}}])
def test_json_that_is_no_recipe_is_named(values):
    with pytest.raises(RecipeError):
        Recipe.from_dict(values)


def test_checking_a_recipe_leaves_the_global_seed_alone():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    tiny(network={**NETWORK, "width": 24, "middle": 2})
    assert torch.equal(torch.rand(1), expected)


def test_recipes_come_after_those_whose_weights_they_start_from(monkeypatch):
    named = {name: tiny(name=name, init=init) for name, init in (("c", "b"), ("b", "a"), ("a", ""), ("d", "file"))}
    monkeypatch.setattr(recipes, "RECIPES", named)
    assert [recipe.name for recipe in recipes.in_order()] == ["a", "b", "c", "d"]
    assert [recipe.name for recipe in recipes.in_order(["b"])] == ["a", "b"]
    named["a"] = tiny(name="a", init="c")
    with pytest.raises(RecipeError, match="a <- "):
        recipes.in_order()


@pytest.mark.parametrize(("value", "hint", "good"), [
    (1, int, True), (True, int, False), (1, float, True), (10**400, float, True), (float("nan"), float, False),
    ((1, 2), tuple[int, ...], True), ((1, "a"), tuple[int, ...], False), ((1, 2, 3), tuple[int, int], False),
    ({"a": 1.0}, dict[str, float], True), ({1: 1.0}, dict[str, float], False), (None, int | None, True),
])  # fmt: skip
def test_values_fit_type_hints(value, hint, good):
    assert validate.fits(value, hint) is good
