"""Weights of several networks in one file: they come back, and what is missing is named."""

import json

import pytest
import torch

from minivdm.training import checkpoints, stages


def written(folder):
    parts = {"base": ({"width": 3}, {"a.weight": torch.arange(3.0), "n": torch.tensor(7)}),
             "base-2": ({"width": 4}, {"a.weight": torch.ones(4)})}  # fmt: skip
    stages.write(folder / "both", parts, {"command": "this test", "stages": {"base": {"steps": 5}}})
    return folder / "both.safetensors"


def test_each_stage_comes_back_with_its_configuration(tmp_path):
    found = stages.read(written(tmp_path), ["base", "base-2"], "this test")
    assert found["base"].config == {"width": 3} and found["base"].about["steps"] == 5
    assert torch.equal(found["base"].tensors["a.weight"], torch.arange(3.0))
    assert found["base"].tensors["n"].dtype == torch.int64
    assert set(found["base-2"].tensors) == {"a.weight"}
    by_name = stages.read("both", ["base"], "this test", folder=tmp_path)
    assert torch.equal(by_name["base"].tensors["a.weight"], found["base"].tensors["a.weight"])


def test_a_stage_without_weights_is_named(tmp_path):
    path = written(tmp_path)
    with pytest.raises(stages.MissingStage, match="stage 'ssr': expected its weights in both.safetensors.*train it"):
        stages.read(path, ["base", "ssr"], "train it")
    with pytest.raises(stages.MissingStage, match="nothing.safetensors, which is not there; train it makes them"):
        stages.read("nothing", ["base"], "train it", folder=tmp_path)


def test_changed_weights_and_cards_are_noticed(tmp_path):
    path = written(tmp_path)
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, "command": "another"}))
    with pytest.raises(checkpoints.DamagedCheckpoint):
        stages.read(path, ["base"], "this test")
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(checkpoints.DamagedCheckpoint):
        stages.read(path, ["base"], "this test")


def test_what_ships_is_the_same_in_fewer_bits(tmp_path):
    matrix = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    about = {"command": "c", "stages": {"base": {"steps": 5}}}
    stages.write(tmp_path / "made", {"base": ({"width": 3}, {"a.weight": matrix})}, about)
    stages.ship(tmp_path / "made.safetensors", tmp_path / "small")
    made, small = (stages.read(tmp_path / f"{n}.safetensors", ["base"], "x")["base"] for n in ("made", "small"))
    # Half a step of 1/127 of a row's largest weight, beside the 11 bits of half precision.
    assert ((small.tensors["a.weight"] - matrix).abs() <= matrix.abs().amax(1, keepdim=True) / 250).all()
    assert (small.config, small.about) == (made.config, made.about)
    card = json.loads((tmp_path / "small.json").read_text())
    assert card["precision"] == "int8" and card["command"] == "c" and card["name"] == "small"
