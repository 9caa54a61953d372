"""The names that `import minivdm` offers: the README's five lines, digits and seeds, and what is refused."""

import subprocess
import sys

import pytest
import torch
from PIL import Image

import minivdm
from minivdm import api, tasks
from minivdm.cli import options
from minivdm.core import for_few_steps
from minivdm.guards import BadArgument
from minivdm.systems import few_steps


@pytest.fixture(scope="module")
def model():
    return minivdm.load("moving-mnist-32")


def test_every_public_name_is_there_and_is_listed():
    assert all(getattr(minivdm, name) is not None for name in minivdm.__all__)
    assert {*minivdm.__all__, "core", "tasks", "training"} <= set(dir(minivdm))
    assert minivdm.exact.GaussianVideo


def test_a_name_that_is_not_there_is_named():
    with pytest.raises(AttributeError, match="'sampel'"):
        _ = minivdm.sampel


def test_names_are_imported_when_they_are_used():
    code = (
        "import sys, minivdm\nassert 'torch' not in sys.modules\nminivdm.MovingMNIST\n"
        "assert 'torch' in sys.modules and 'minivdm.training' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_lines_of_the_readme(model, tmp_path):
    video = minivdm.generate(model, digits=[3], weight=1.0, steps=2)
    assert video.shape == (1, *model.shape) and video.abs().max() <= 1
    with Image.open(minivdm.save_gif(video, tmp_path / "three.gif")) as image:
        assert image.n_frames == video.shape[2]


def test_digits_and_seed_are_labels_and_a_generator(model):
    made = minivdm.generate(model, [3, 7], seed=5, steps=2, shape=(1, 2, 16, 16))
    generator = torch.Generator().manual_seed(5)
    labels = tasks.multi_hot([3, 7])
    asked = {"weight": 1.0, "temporal_weight": api.TEMPORAL_WEIGHT, "steps": 2, "shape": (1, 2, 16, 16)}
    asked["grid"] = for_few_steps
    wanted = tasks.generate(model, labels, count=1, generator=generator, **asked)
    assert torch.equal(made, wanted.clamp(-1, 1))
    assert not torch.equal(made, minivdm.generate(model, [3, 7], seed=6, steps=2, shape=(1, 2, 16, 16)))
    # Without digits there is nothing to guide towards.
    assert minivdm.generate(model, count=2, steps=2, shape=(1, 2, 16, 16)).shape == (2, 1, 2, 16, 16)


def test_the_command_line_has_the_same_defaults():
    assert (options.TEMPORAL, options.FEW_STEPS) == (api.TEMPORAL_WEIGHT, api.STEPS)
    assert options.LATENT_STEPS == api.LATENT_STEPS
    assert (options.AUTOGUIDANCE, options.AUTOGUIDED) == (api.AUTOGUIDANCE, api.AUTOGUIDED)


def test_times_of_ones_own_keep_the_tasks_own_number_of_steps(model):
    asked = {"shape": (1, 2, 16, 16), "temporal_weight": 0.0}
    made = minivdm.generate(model, [3], grid=[1.0, 0.5, 0.0], **asked)
    wanted = tasks.generate(model, tasks.multi_hot([3]), weight=1.0, grid=[1.0, 0.5, 0.0],
                            generator=torch.Generator().manual_seed(0), **asked)  # fmt: skip
    assert torch.equal(made, wanted.clamp(-1, 1))


def test_a_student_in_place_of_the_model(model):
    made = minivdm.generate(model, [3], few=8, seed=5, shape=(1, 2, 32, 32))
    options = {"count": 1, "shape": (1, 2, 32, 32), "generator": torch.Generator().manual_seed(5)}
    wanted = few_steps.generate(few_steps.load(8), tasks.multi_hot([3]), **options)
    assert torch.equal(made, wanted.clamp(-1, 1))
    with pytest.raises(BadArgument, match="has learnt its guidance"):
        minivdm.generate(model, [3], few=8, weight=1.0)
    with pytest.raises(BadArgument, match="few: expected"):
        minivdm.generate(model, few=7)


def test_the_other_tasks(model):
    clip = minivdm.MovingMNIST(size=16, frames=3).clips([0]).video
    assert minivdm.extend(model, clip, 5, [1], steps=1).shape == (1, 1, 5, 16, 16)
    assert minivdm.interpolate(model, clip, 1, steps=1).shape == (1, 1, 5, 16, 16)
    small = torch.nn.functional.avg_pool3d(clip, (1, 2, 2))
    assert minivdm.super_resolve(model, small, 2, digits=[1], steps=1).shape == clip.shape


@pytest.mark.parametrize(("options", "says"), [
    ({"digits": 3}, "a list of digits"), ({"digits": []}, "a list of digits"), ({"digits": [1.5]}, "digits"),
    ({"digits": [12]}, "12"), ({"digits": [True]}, "digits"), ({"count": 0}, "count"), ({"seed": -1}, "seed"),
    ({"seed": 2**64}, "seed"), ({"weight": 1.0}, "weight"), ({"digits": [1], "labels": torch.zeros(1, 10)}, "both"),
])  # fmt: skip
def test_wrong_arguments_are_named(model, options, says):
    with pytest.raises(ValueError, match=says):
        minivdm.generate(model, steps=1, **options)


def test_save_gif_writes_gifs(tmp_path):
    with pytest.raises(BadArgument, match=r"ending in .gif"):
        minivdm.save_gif(torch.zeros(1, 1, 2, 4, 4), tmp_path / "a.png")
    assert minivdm.save(torch.zeros(1, 1, 2, 4, 4), tmp_path / "a.png").exists()
