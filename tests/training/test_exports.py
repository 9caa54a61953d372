"""What an export writes and where: never over what it did not make, and the same bytes when it is made again."""

import json
import warnings

import pytest
import torch
from small_runs import TINY, fit

from minivdm.cli.main import main
from minivdm.training import RunFolderError, exports, milestones, pretrained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fit(TINY, folder)
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_export_goes_into_the_runs_own_folder(run):
    path = exports.export(run, clips=2)
    assert path == run / "weights" / "moving-mnist-32.safetensors"
    assert pretrained.load(path).config == TINY


def test_the_same_run_exports_the_same_bytes(run, tmp_path):
    first, again = (files(exports.export(run, "a", tmp_path / name, clips=2).parent) for name in ("one", "two"))
    assert first == again and set(first) == {"a.json", "a.safetensors", "a.metrics.jsonl"}
    own = files(exports.export(run, clips=2).parent)
    assert files(exports.export(run, clips=2).parent) == own


def test_weights_that_something_else_made_are_not_replaced(run, tmp_path):
    for name in ("moving-mnist-32", "digit-reader-32"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"precious")
        with pytest.raises(RunFolderError, match="--force"):
            exports.export(run, name, tmp_path, clips=2)
        assert (tmp_path / f"{name}.safetensors").read_bytes() == b"precious"
    exports.export(run, "moving-mnist-32", tmp_path, clips=2, force=True)
    assert pretrained.load("moving-mnist-32", folder=tmp_path).config == TINY


def test_export_that_was_killed_is_made_again(run):
    path = exports.export(run, "killed", clips=2)
    path.with_suffix(".json").unlink()  # the card comes last
    assert exports.export(run, "killed", clips=2) == path and pretrained.load(path).config == TINY


def test_damaged_card_is_not_sealed_again(run, tmp_path):
    card = exports.export(run, "a", tmp_path, clips=2).with_suffix(".json")
    card.write_text(card.read_text().replace('"steps": 8', '"steps": 9'))
    with pytest.raises(pretrained.checkpoints.DamagedCheckpoint, match="digest"):
        exports.stamp(tmp_path / "a.safetensors")


def test_in_the_runs_folder_only_its_own_export_is_replaced(run):
    path = exports.export(run, "mine", clips=2)
    card = json.loads(path.with_suffix(".json").read_bytes())
    path.with_suffix(".json").write_text(json.dumps({**card, "commands": [{"clips": 0, "command": "another"}]}))
    with pytest.raises(RunFolderError, match="not made of"):
        exports.export(run, "mine", clips=2)


@pytest.mark.parametrize("name", ["../escape", "a/b", "..", ".hidden", "", "/tmp/x", "a\\b"])
def test_names_stay_in_their_folder(run, tmp_path, name):
    with pytest.raises(ValueError, match="path separators"):
        exports.target(run, tmp_path / "w", name, "safetensors", {}, force=True)
    assert main(["export", str(run), "--to", str(tmp_path / "w"), f"--name={name or '..'}"]) == 2
    assert not list(tmp_path.iterdir())


def test_progress_is_kept_apart_and_on_the_card(run):
    exports.export(run, clips=2)
    path = milestones.record(run, digits=(1,), steps=2, held_out_clips=1)
    assert path == run / "weights" / "moving-mnist-32.progress.npz"
    assert set(pretrained.card("moving-mnist-32", run / "weights")["files"]) == {"metrics.jsonl", "progress.npz"}
    assert "moving-mnist-32" not in pretrained.verify(run / "weights")


@pytest.mark.parametrize("ending", ["json", "safetensors", "metrics.jsonl", "progress.npz"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_every_damage_to_what_ships_is_found(run, tmp_path, ending, damage):
    exports.export(run, "a", tmp_path, clips=2)
    milestones.record(run, tmp_path, "a", digits=(1,), steps=1, held_out_clips=1)
    assert pretrained.verify(tmp_path) == {}
    path = tmp_path / f"a.{ending}"
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    assert list(pretrained.verify(tmp_path)) == ["a"]
    if ending == "progress.npz" and damage != "gone":
        with pytest.raises(pretrained.DamagedWeights):
            milestones.read("a", tmp_path)


def test_weights_of_another_size_say_so_once(run):
    denoise = pretrained.load(exports.export(run, clips=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoise(torch.zeros(1, 1, 5, 16, 16), 0.5)  # another number of frames is what extending is for
    with pytest.warns(UserWarning, match="trained on frames of 16x16 pixels and are given 32x32"):
        denoise(torch.zeros(1, 1, 3, 32, 32), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoise(torch.zeros(1, 1, 3, 32, 32), 0.5)


def test_what_ships_is_whole():
    assert pretrained.verify() == {}
