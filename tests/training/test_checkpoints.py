"""Checkpoints: whatever changes in one is noticed, and the one before it is used."""

import json
import os
import random

import pytest
import torch
from small_runs import TINY, assert_same, fit, tiny

from minivdm import training
from minivdm.training import DamagedCheckpoint, checkpoints

STATE = {"steps": 3, "seconds": 1.5, "history": [{"clips": 0, "command": "train"}], "hardware": "CPU", "config": {}}


@pytest.fixture
def two(tmp_path):
    for clips in (4, 8):
        checkpoints.save(tmp_path, clips, {"weights.a": torch.arange(float(clips))}, STATE)
    return tmp_path


def test_every_flipped_bit_of_the_json_is_noticed_or_changes_nothing(two):
    path = two / "clips-000000008.json"
    good, content = path.read_bytes(), json.loads(path.read_bytes())
    accepted = []
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bytes(bad))
        _, state = checkpoints.load(two, lambda line: None)
        if state["clips"] == 8:
            accepted.append(state)
    assert all(state == content for state in accepted)  # one kind of white space for another
    assert len(accepted) < len(good) / 4


@pytest.mark.parametrize("seed", range(40))
def test_every_cut_or_flip_of_the_tensors_is_noticed(two, seed):
    path, draw = two / "clips-000000008.safetensors", random.Random(seed)
    data = bytearray(path.read_bytes())
    if seed % 2:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    else:
        del data[draw.randrange(len(data)) :]
    path.write_bytes(bytes(data))
    said = []
    assert checkpoints.load(two, said.append)[1]["clips"] == 4
    assert "damaged checkpoint left out" in said[0]


@pytest.mark.parametrize("change", [
    {"clips": 92}, {"clips": "8"}, {"clips": None}, {"steps": "x"}, {"steps": -1}, {"steps": True}, {"seconds": None},
    {"seconds": float("nan")}, {"history": []}, {"history": [7]}, {"history": {}}, {"config": []}, {"sha256": None},
    {"sha256": ""}, {"hardware": 3},
])  # fmt: skip
def test_fields_that_cannot_be_are_damage_even_under_a_right_digest(two, change):
    path = two / "clips-000000008.json"
    state = {**json.loads(path.read_bytes()), **change}
    path.write_text(json.dumps(checkpoints.sealed(state)))
    assert checkpoints.load(two, lambda line: None)[1]["clips"] == 4


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "[" * 100_000, "\x00\xff", '{"digest": 1}'])
def test_files_that_are_no_state_are_damage(two, text):
    (two / "clips-000000008.json").write_text(text)
    assert checkpoints.load(two, lambda line: None)[1]["clips"] == 4


@pytest.mark.parametrize("key", [*checkpoints.FIELDS, "digest"])
def test_missing_fields_are_damage(two, key):
    path = two / "clips-000000008.json"
    state = json.loads(path.read_bytes())
    del state[key]
    path.write_text(json.dumps(state if key == "digest" else checkpoints.sealed(state)))
    if key == "digest":  # exactly what an earlier version wrote, without "look" and "ramp"
        assert checkpoints.load(two, lambda line: None)[1]["clips"] == 8
        path.write_text(json.dumps({**state, "eigest": "0"}))
    assert checkpoints.load(two, lambda line: None)[1]["clips"] == 4


def test_checkpoint_that_does_not_fit_the_run_is_damage(tmp_path):
    whole = fit(TINY, tmp_path)
    path = tmp_path / "checkpoints" / "clips-000000024.safetensors"
    tensors, _ = checkpoints.read_tensors(path)
    key = next(key for key in tensors if key.endswith("exp_avg"))
    state = json.loads(path.with_suffix(".json").read_bytes())
    digest = checkpoints.write_tensors(path, {**tensors, key: tensors[key][:1]})
    path.with_suffix(".json").write_text(json.dumps(checkpoints.sealed({**state, "sha256": digest})))
    assert_same(whole, fit(TINY, tmp_path, resume=True))  # from the one before


def test_beyond_a_thousand_million_clips_the_newest_are_kept(tmp_path):
    for clips in (999_999_998, 999_999_999, 1_000_000_000, 10_000_000_000):
        checkpoints.save(tmp_path, clips, {"a": torch.zeros(1)}, STATE)
    assert [checkpoints.number(path) for path in checkpoints.listed(tmp_path)] == [1_000_000_000, 10_000_000_000]
    assert checkpoints.load(tmp_path)[1]["clips"] == 10_000_000_000


def test_a_damaged_newer_checkpoint_does_not_push_out_a_good_one(two):
    (two / "clips-000000008.json").write_text("damaged")
    checkpoints.save(two, 6, {"a": torch.zeros(1)}, STATE)
    assert [checkpoints.number(path) for path in checkpoints.listed(two)] == [4, 6, 8]


def test_foreign_names_are_left_alone(two):
    (two / "clips-old.json").write_text("{}")
    assert checkpoints.load(two)[1]["clips"] == 8


def test_full_disk_is_an_error_that_names_the_file(two, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*clips-000000012\.safetensors"):
        checkpoints.save(two, 12, {"a": torch.zeros(1)}, STATE)
    assert checkpoints.load(two)[1]["clips"] == 8


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    about = {"config": tiny().to_dict(), "clips": 3}
    tensors = {name: torch.arange(3.0) for name in "abc"}
    digests = {checkpoints.write_tensors(tmp_path / str(n), tensors, about) for n in range(20)}
    assert len(digests) == 1
    assert checkpoints.read_tensors(tmp_path / "0")[1] == about


def test_weights_of_an_earlier_version_are_read(tmp_path):
    from safetensors.torch import save_file

    path, trainer = tmp_path / "old.safetensors", training.Trainer(TINY)
    weights = {name: value.contiguous() for name, value in trainer.network.state_dict().items()}
    save_file(weights, path, {"config": json.dumps(TINY.to_dict()), "clips": "12"})
    weights, about = checkpoints.read_weights(path)
    assert about == {"config": TINY.to_dict(), "clips": 12} and set(weights) == set(trainer.network.state_dict())


def test_weights_with_a_foreign_parameter_do_not_fit_even_partly():
    network = torch.nn.Linear(2, 2)
    with pytest.raises(DamagedCheckpoint, match="not in this network"):
        checkpoints.load_weights(network, {"weight": torch.zeros(2, 2), "other": torch.zeros(1)}, partly=True)
    with pytest.raises(DamagedCheckpoint, match="none of the network"):
        checkpoints.load_weights(network, {}, partly=True)
    assert checkpoints.load_weights(network, {"weight": torch.zeros(2, 2)}, partly=True) == ["bias"]
