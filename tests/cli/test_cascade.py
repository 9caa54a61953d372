"""`cascade`: stages without weights and words that nobody knows are named in one line, before anything is made."""

import pytest
import torch

from minivdm.cli.main import main
from minivdm.networks import UNet3D
from minivdm.systems import imagen_video, make_a_video, show_1
from minivdm.systems.imagen_video import NETWORKS, STAGES
from minivdm.training import stages


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    parts = {name: (NETWORKS[name], UNet3D(**NETWORKS[name]).state_dict()) for name in STAGES}
    stages.write(tmp_path / "all", parts, {})
    stages.write(tmp_path / "base", {"base": parts["base"]}, {})
    return tmp_path


def test_labels_become_a_clip(weights, capsys):
    out = weights / "clip.gif"
    words = ["cascade", "--labels", "3", "--steps", "1", "--weights", str(weights / "all.safetensors")]
    assert main([*words, "--out", str(out)]) == 0 and out.stat().st_size > 100
    assert "1 clips of 16 frames of 32x32" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--labels", "3"], ["--text", "a slow three moving up"]])
def test_what_ships_makes_large_clips(tmp_path, capsys, words):
    out = tmp_path / "clip.gif"
    assert main(["cascade", *words, "--steps", "1", "--out", str(out)]) == 0 and out.stat().st_size > 100
    assert "1 clips of 17 frames of 64x64" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "says"), [
    (["--labels", "3", "--weights", "{0}/base.safetensors"], "stage 'tsr': expected its weights in base.safetensors"),
    (["--labels", "3", "--weights", "nothing"], "nothing.safetensors, which is not there; benchmarks/train_cascade.py"),
    (["--text", "a three", "--weights", "nothing"], "benchmarks/train_make_a_video.py makes them"),
    (["--labels", "12"], "--labels: expected digits 0 to 9, got 12"),
    (["--text", "a cat"], "got 'cat'"),
    (["--text", "a three", "--labels", "3"], "expected one of them"),
    ([], "expected one of them"),
    (["--text", "a three", "a four", "--count", "3"], "expected 1 or --count 3 sentences"),
])  # fmt: skip
def test_what_cannot_be_made_is_named_in_one_line(weights, capsys, monkeypatch, words, says):
    monkeypatch.setattr(imagen_video, "sampled", lambda *a, **k: pytest.fail("something was made"))
    monkeypatch.setattr(show_1, "translate", lambda *a, **k: pytest.fail("something was made"))
    monkeypatch.setattr(make_a_video.MakeAVideo, "imagine", lambda *a, **k: pytest.fail("something was made"))
    words = [word.format(weights) for word in words]
    assert main(["cascade", *words, "--out", str(weights / "clip.gif")]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
