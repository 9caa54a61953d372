"""All weights, one recipe after the other: made once, continued where they stopped, in order of dependence."""

import pytest
from small_runs import tiny

from minivdm.cli.main import main
from minivdm.training import checkpoints, make, pretrained, recipes


@pytest.fixture
def two(monkeypatch):
    short = {"frames": 2, "images": 0, "clips": 8}
    named = {name: tiny(name=name, init=init, **short) for name, init in (("second", "first"), ("first", ""))}
    monkeypatch.setattr(recipes, "RECIPES", named)
    monkeypatch.setattr(make.exports.export, "__defaults__", (None, None, None, 2, False))  # two held-out clips
    return named


def test_all_are_made_in_order_and_once(two, tmp_path, capsys):
    assert main(["recipes", "--make", "--out", str(tmp_path), "--device", "cpu"]) == 0
    history = checkpoints.load(tmp_path / "second" / "checkpoints")[1]["history"]
    assert history[0]["init"] == "first" and history[0]["init_clips"] == 8
    for name in two:
        assert pretrained.load(tmp_path / name / "weights" / f"{name}.safetensors").config == two[name]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert main(["recipes", "--make", "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before


def test_time_that_is_up_is_kept_for_the_next_call(two, tmp_path):
    assert main(["recipes", "first", "--make", "--minutes", "1e-9", "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert not (tmp_path / "first" / "weights").exists()
    assert main(["recipes", "first", "--make", "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert (tmp_path / "first" / "weights" / "first.json").exists() and not (tmp_path / "second").exists()


def test_recipes_are_listed(two, capsys):
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    assert said.index("first\n") < said.index("second\n") and "starts from first" in said
    assert main(["recipes", "third"]) == 2
    assert "no recipe 'third'" in capsys.readouterr().err
