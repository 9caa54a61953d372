"""Every command of `python -m minivdm`, with a network that trains in a second."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import NETWORK

from minivdm.__main__ import main
from minivdm.training import pretrained

SMALL = [word for item in (f"network={json.dumps(NETWORK)}", "size=16", "speed=1", "frames=4", "batch=4", "log_every=4",
                           "milestones=[4]") for word in ("--set", item)]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "--out", str(out), "--clips", "8", "--device", "cpu", *SMALL]) == 0
    return out


def fails(capsys, *words):
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    last = said.splitlines()[-1]  # a progress bar may stand above it
    assert last.startswith(f"minivdm {words[0]}: ")
    return last


def test_train_writes_a_run_and_says_so(run, capsys):
    assert {p.name for p in run.iterdir()} >= {"config.json", "metrics.jsonl", "checkpoints", "snapshots"}
    assert main(["train", "--out", str(run), "--resume", "--device", "cpu"]) == 0  # configuration from the folder
    assert "done: 8 of 8 clips" in capsys.readouterr().out


def test_train_stopped_says_how_to_continue(tmp_path, capsys):
    main(["train", "--out", str(tmp_path / "run"), "--clips", "80", "--minutes", "0", "--device", "cpu", *SMALL])
    said = capsys.readouterr().out
    assert "stopped: 4 of 80 clips" in said and said.rstrip().endswith("--resume")


def test_train_writes_to_runs_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "moving-mnist-32-two", "--clips", "4", "--device", "cpu", *SMALL]) == 0
    assert (tmp_path / "runs" / "moving-mnist-32-two" / "config.json").exists()


@pytest.mark.parametrize(("words", "says"), [
    (["train", "moving-mnist-31"], "there are moving-mnist-32"),
    (["train", "--set", "lrr=1"], "did you mean 'lr'"),
    (["train", "--set", "network.depth=3"], "depth"),
    (["train", "--device", "tpu9"], "device"),
    (["train", "--set", "digits=[2,1]"], "digits"),
    (["train", "--init", "nowhere"], "no weights named 'nowhere'"),
])  # fmt: skip
def test_wrong_train_commands(capsys, tmp_path, words, says):
    assert says in fails(capsys, *words, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_train_into_another_run(capsys, run):
    assert "--resume" in fails(capsys, "train", "--out", run)
    assert "there, 0.1 here" in fails(capsys, "train", "--out", run, "--resume", "--set", "lr=0.1")


@pytest.mark.parametrize("words", [["--labels", "3", "7"], ["--sampler", "ancestral"],
                                   ["--weight", "0", "--labels", "1"], ["--eta", "1"]])  # fmt: skip
def test_sample_writes_an_animation(run, tmp_path, words):
    out = tmp_path / "clips.gif"
    assert main(["sample", "--weights", str(run), "--steps", "2", "--count", "3", "--out", str(out), *words]) == 0
    with Image.open(out) as image:
        assert image.n_frames == 4
        assert image.size == (3 * (2 * 16 + 1) + 1, 2 * 16 + 2)


def test_sample_writes_filmstrips(run, tmp_path):
    out = tmp_path / "clips.png"
    assert (
        main(
            [
                "sample",
                "--weights",
                str(run),
                "--steps",
                "2",
                "--count",
                "2",
                "--frames",
                "5",
                "--zoom",
                "1",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    with Image.open(out) as image:
        assert image.size == (5 * 17 + 1, 2 * 17 + 1)


def test_same_seed_same_sample(run, tmp_path):
    for name in ("a.png", "b.png"):
        main(["sample", "--weights", str(run), "--steps", "2", "--seed", "3", "--out", str(tmp_path / name)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(("words", "says"), [
    (["--out", "x.mp4"], ".gif or .png"), (["--labels", "12"], "classes 0 to 9"), (["--count", "0"], "at least 1"),
    (["--steps", "0"], "step"), (["--eta", "2", "--steps", "2"], "eta"), (["--frames", "0"], "at least 1"),
    (["--weights", "nothing"], "no weights named"), (["--zoom", "0"], "zoom"), (["--fps", "0"], "fps"),
])  # fmt: skip
def test_wrong_sample_commands(capsys, run, tmp_path, words, says):
    base = ["sample", "--weights", run, "--out", tmp_path / "x.gif"]
    assert says in fails(capsys, *base, *words)


EDITS = [["extend", "--frames", "7"], ["extend", "--frames", "9", "--backwards", "--overlap", "1"],
         ["extend", "--frames", "12", "--order", "hierarchical", "--method", "replacement", "--labels", "3"],
         ["interpolate", "--between", "2", "--langevin"], ["upscale"],
         ["upscale", "--space", "4", "--every", "2"]]  # fmt: skip


@pytest.mark.parametrize("words", EDITS)
def test_edits_write_an_animation(run, tmp_path, words):
    out = tmp_path / "clips.gif"
    assert main([*words, "--weights", str(run), "--steps", "2", "--count", "2", "--out", str(out)]) == 0
    frames = int(words[2]) if words[0] == "extend" else 3 if "--every" in words else 4
    with Image.open(out) as image:
        assert image.n_frames == frames
        assert image.size == (2 * (2 * 16 + 1) + 1, 2 * 16 + 2)


def test_edits_start_from_videos_of_ones_own(run, tmp_path):
    np.save(tmp_path / "small.npy", np.zeros((2, 4, 8, 8), dtype=np.uint8))
    out = tmp_path / "large.png"
    words = ["--video", str(tmp_path / "small.npy"), "--weights", str(run), "--zoom", "1", "--out", str(out)]
    assert main(["upscale", "--steps", "2", *words]) == 0
    with Image.open(out) as image:
        assert image.size == (4 * 17 + 1, 2 * 17 + 1)


@pytest.mark.parametrize(("words", "says"), [
    (["extend", "--frames", "4"], "NoNewFrames"), (["extend", "--overlap", "4"], "TooManyObserved"),
    (["extend", "--video", "nothing.npy"], "found nothing"), (["interpolate", "--between", "0"], "NoNewFrames"),
    (["upscale", "--space", "3"], "BadObservation"), (["upscale", "--space", "1"], "NoNewFrames"),
    (["upscale", "--every", "0"], "BadObservation"), (["extend", "--reconstruction", "-1"], "w_r"),
    (["extend", "--steps", "0"], "step"), (["extend", "--out", "x.mp4"], ".gif or .png"),
    (["extend", "--count", "0"], "at least 1"), (["extend", "--gamma", "2"], "gamma"),
])  # fmt: skip
def test_wrong_edits(capsys, run, tmp_path, words, says):
    assert says in fails(capsys, words[0], "--weights", run, "--out", tmp_path / "x.gif", *words[1:])


def test_export_then_doctor(run, tmp_path, monkeypatch, capsys):
    figures = tmp_path / "figures.json"
    figures.write_text('{"legible": 0.9}')
    words = ["export", str(run), "--name", "tiny", "--to", str(tmp_path / "weights"), "--metrics", str(figures)]
    assert main(words) == 0
    assert pretrained.card("tiny", tmp_path / "weights")["metrics"] == {"legible": 0.9}
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    capsys.readouterr()
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in ("machine", "python", "torch", "device", "MNIST digits", "tiny: 8 clips seen, checksum right", "well"):
        assert word in said


def test_doctor_finds_damage(run, tmp_path, monkeypatch, capsys):
    pretrained.export(run, "tiny", tmp_path, clips=2)
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    assert main(["doctor"]) == 1
    assert "DAMAGED" in capsys.readouterr().out


def test_doctor_speaks_without_torch():
    code = ("import sys, importlib.metadata as m; sys.modules['torch'] = None; real = m.version\n"
            "def version(name):\n    if name == 'torch': raise m.PackageNotFoundError(name)\n    return real(name)\n"
            "m.version = version\nfrom minivdm.__main__ import main\nsys.exit(main(['doctor']))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "MISSING: torch" in done.stdout and not done.stderr


def test_help_is_quick_because_it_leaves_torch_alone():
    code = "import sys\nfrom minivdm.__main__ import parser\nparser().format_help()\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_missing_run_is_named(capsys, tmp_path):
    assert "no checkpoint" in fails(capsys, "export", tmp_path)
    assert torch.is_grad_enabled()
