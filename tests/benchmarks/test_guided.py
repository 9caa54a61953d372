"""benchmarks/guided.py on a network of nothing: what its numbers are, not how good."""

import numpy as np
import pytest
import torch

from minivdm import training
from minivdm.core import Denoiser

NETWORK = {
    "width": 16, "multipliers": [1], "patch": 4, "middle": 0, "spatial": [False], "temporal": [True],
    "head_channels": 16, "embedding": 32, "labels": 10,
}  # fmt: skip


@pytest.fixture(scope="module")
def recipe():
    return training.Recipe(name="tiny", size=32, frames=16, network=NETWORK)


@pytest.fixture(scope="module")
def denoiser(recipe):
    made = Denoiser(recipe.make_network().eval(), recipe.make_schedule())
    made.shape = recipe.video_shape
    return made


@pytest.fixture(scope="module")
def clips(recipe):
    return recipe.make_data(16, split="test").clips(torch.arange(2))


@pytest.fixture
def guided(monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import guided

    return guided


def test_the_blend_is_linear_between_the_given_frames(guided, denoiser, clips):
    found = guided.interpolate(denoiser, clips, 1, 0)
    video = clips.video[:, 0, :13].numpy()
    blend = np.stack([[np.interp(range(13), [0, 4, 8, 12], p) for p in v[::4].reshape(4, -1).T] for v in video])
    expected = (((blend.transpose(0, 2, 1).reshape(video.shape) - video) / 2) ** 2).mean((1, 2, 3))
    assert np.abs(found["linear blend"]["error"] - expected).max() < 2e-6  # six digits are kept, float32
    assert set(found) == {"linear blend", *guided.METHODS}


def test_a_copied_frame_is_right_as_long_as_it_is_the_frame_before(guided, denoiser, clips):
    found = guided.extend(denoiser, clips, 1, 0)
    moved = (clips.video[:, :, 8] - clips.video[:, :, 7]).square().mean((1, 2, 3)) / 4  # pixels in [0, 1]
    assert torch.allclose(torch.tensor(found["last frame copied"]["error"])[:, 0], moved, atol=2e-6)
    assert found["real clips"]["error"] == [[0.0] * 8] * 2
    assert all(len(row["error"]) == len(row["right"]) == len(row["seam"]) == 2 for row in found.values())


def test_weights_of_eq_8_are_told_apart_and_held_to_the_observation(guided, denoiser, clips):
    found = guided.upscale(denoiser, clips, 2, 0)
    assert found["eq 8, w_r = 4"]["off"] != found["eq 8, w_r = 1"]["off"]
    assert max(found["bilinear"]["off"]) < 0.2 and max(found["bilinear"]["edges"]) < 1  # interpolation blurs


def test_what_is_real_is_read_right_in_every_block_of_a_long_clip(guided, denoiser, recipe):
    found = guided.long(denoiser, recipe.make_data(64, split="test").clips(torch.arange(1)), 1, 0)
    assert found["real clips"]["right"][0] == [1.0] * 6 and found["real clips"]["rigidity"] == [0.0]
    assert len(found["guided, w_r = 2"]["right"][0]) == 6
