"""Every command of `python -m minivdm`, with a network that trains in a second."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import minivdm
from minivdm import tasks
from minivdm.cli import doctor, options
from minivdm.cli.main import CALLS, main, parser
from minivdm.data import files, writing
from minivdm.networks import UNet3D
from minivdm.training import exports, pretrained

NETWORK = {"width": 8, "multipliers": [1, 2], "spatial": [False, True], "temporal": [True, True], "patch": 4,
           "head_channels": 8, "embedding": 16, "middle": 1, "labels": 10}  # fmt: skip
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
    assert main(["train", "moving-mnist-32-two", "--clips", "4", "--device", "cpu", *SMALL, "--set", "init="]) == 0
    assert (tmp_path / "runs" / "moving-mnist-32-two" / "config.json").exists()


@pytest.mark.parametrize(("words", "says"), [
    (["train", "moving-mnist-31"], "did you mean 'moving-mnist-32'"),
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


def frames(path):
    with Image.open(path) as image:
        return image.n_frames, image.size


@pytest.mark.parametrize("words", [["--labels", "3", "7"], ["--sampler", "ancestral"], ["--unconditional"],
                                   ["--weight", "0", "--labels", "1"], ["--eta", "1"]])  # fmt: skip
def test_sample_writes_an_animation(run, tmp_path, words):
    out = tmp_path / "clips.gif"
    assert main(["sample", "--weights", str(run), "--steps", "2", "--count", "3", "--out", str(out), *words]) == 0
    assert frames(out) == (4, (3 * (2 * 16 + 1) + 1, 2 * 16 + 2))


@pytest.mark.parametrize("ending", ["png", "webp", "mp4"])
def test_sample_writes_the_other_formats(run, tmp_path, ending):
    if ending == "mp4":
        pytest.importorskip("av")
    out = tmp_path / f"clips.{ending}"
    words = ["--steps", "1", "--count", "2", "--frames", "5", "--zoom", "1", "--out", str(out)]
    assert main(["sample", "--weights", str(run), *words]) == 0
    if ending == "png":
        assert frames(out)[1] == (5 * 17 + 1, 2 * 17 + 1)
    assert out.stat().st_size


def test_sample_without_options_draws_labels_and_says_so(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = []
    real = tasks.guided
    monkeypatch.setattr(tasks, "guided", lambda *args, **named: asked.append(args[1:]) or real(*args, **named))
    assert main(["sample", "--weights", str(run), "--steps", "1"]) == 0
    (labels, weight), said = asked[0], capsys.readouterr().out
    digits = labels.argmax(1).tolist()
    assert labels.shape == (8, 10) and (labels.sum(1) == 1).all() and len(set(digits)) > 1 and weight == 1
    assert f"labels drawn at random: {' '.join(map(str, digits))};" in said
    assert main(["sample", "--weights", str(run), "--steps", "1", "--unconditional"]) == 0
    assert asked[1] == (None, 0.0) and "drawn" not in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["samples-2.gif", "samples.gif"]


@pytest.mark.parametrize("words", [[], ["--sampler", "ancestral"], ["--eta", "0.5"]])
def test_a_clip_of_a_batch_comes_again_from_its_own_seed(run, tmp_path, monkeypatch, words):
    made = {}
    monkeypatch.setattr(writing, "save", lambda video, path, *_, **__: (made.update({path.stem: video}), path)[1])
    base = ["sample", "--weights", str(run), "--steps", "3", *words]
    assert main([*base, "--seed", "5", "--count", "3", "--out", str(tmp_path / "batch.png")]) == 0
    assert main([*base, "--seed", "7", "--count", "1", "--out", str(tmp_path / "alone.png")]) == 0
    # Convolutions of another batch size differ in the last bits.
    assert torch.allclose(made["batch"][2], made["alone"][0], atol=1e-4)
    assert not torch.allclose(made["batch"][1], made["alone"][0], atol=1e-1)


def test_nothing_asked_is_guided_away_from_the_network_of_before(tmp_path, monkeypatch):
    asked = []
    real = tasks.guided
    monkeypatch.setattr(tasks, "guided", lambda *args, **named: asked.append(named) or real(*args, **named))
    made = {}
    monkeypatch.setattr(writing, "save", lambda video, path, *_, **__: (made.update({path.stem: video}), path)[1])
    base = ["sample", "--unconditional", "--steps", "5", "--count", "1", "--frames", "2", "--out"]
    assert main([*base, str(tmp_path / "a.gif")]) == 0
    assert main([*base, str(tmp_path / "b.gif"), "--autoguidance", "0"]) == 0
    (earlier, weight, interval), none = asked[0]["weaker"], asked[1]["weaker"]
    assert earlier.card["name"] == "moving-mnist-32-early" and none is None
    assert (weight, interval) == (options.AUTOGUIDANCE, options.AUTOGUIDED)
    assert not torch.equal(made["a"], made["b"])
    by_name = minivdm.generate(minivdm.load(), steps=5, shape=(1, 2, 32, 32))
    # The same defaults and noise; a DDIM step with eta = 1 is an ancestral one up to rounding.
    assert torch.allclose(by_name, made["a"].clamp(-1, 1), atol=1e-3)


def test_a_student_takes_as_many_calls_as_it_is_asked_for(tmp_path, monkeypatch, capsys):
    calls = []
    real = UNet3D.forward
    monkeypatch.setattr(UNet3D, "forward", lambda *args, **named: calls.append(1) or real(*args, **named))
    out = tmp_path / "three.gif"
    assert main(["sample", "--few", "8", "--labels", "3", "--count", "1", "--out", str(out)]) == 0
    assert len(calls) == 8 and frames(out)[0] == 16 and "8 calls" in capsys.readouterr().out


def test_half_precision_is_asked_for_and_is_near(run, tmp_path, monkeypatch):
    seen = []
    real = UNet3D.forward
    monkeypatch.setattr(
        UNet3D, "forward", lambda *a, **b: seen.append(torch.is_autocast_enabled("cpu")) or real(*a, **b)
    )
    for words in ([], ["--bf16"]):
        out = str(tmp_path / f"{len(words)}.png")
        assert main(["sample", "--weights", str(run), "--steps", "2", "--out", out, *words]) == 0
    assert not any(seen[: len(seen) // 2]) and all(seen[len(seen) // 2 :])
    one, two = (torch.tensor(np.array(Image.open(tmp_path / f"{k}.png").convert("L"))).float() for k in (0, 1))
    assert (one - two).abs().mean() < 4  # of 255: eight bits of mantissa, a network of a few layers


def test_same_seed_same_sample(run, tmp_path):
    for name in ("a.png", "b.png"):
        main(["sample", "--weights", str(run), "--steps", "2", "--seed", "3", "--out", str(tmp_path / name)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(("words", "says"), [
    (["--few", "7"], "a student knows, 8"), (["--few", "8", "--steps", "16"], "steps: expected 1, 2, 4, 8"),
    (["--few", "8", "--steps", "24"], "steps: expected 1, 2, 4, 8"),
    (["--few", "8", "--sampler", "ancestral"], "--sampler, --eta"),
    (["--few", "8", "--autoguidance", "1"], "whose earlier ones ship, such as moving-mnist-32, got few-8"),
    (["--weights", "text-32", "--autoguidance", "1"], "--autoguidance: expected weights whose earlier ones ship"),
    (["--weights", "latent-64", "--autoguidance", "1"], "--autoguidance: expected none with a latent model"),
    (["--out", "x.avi"], ".gif"), (["--labels", "12"], "0 to 9"), (["--count", "0"], "--count: expected 1 to"),
    (["--steps", "0"], "--steps"), (["--eta", "2"], "--eta"), (["--frames", "0"], "--frames"),
    (["--weights", "nothing"], "no weights named"), (["--zoom", "0"], "--zoom"), (["--fps", "0"], "--fps"),
    (["--zoom", "9" * 20], "--zoom"), (["--zoom", "100000"], "--zoom"), (["--steps", "1000000000"], "--steps"),
    (["--count", "9" * 20], "--count"), (["--frames", "9" * 20], "--frames"), (["--weight", "1e308"], "--weight"),
    (["--weight", "nan"], "--weight"), (["--weight", "-1"], "--weight"), (["--fps", "inf"], "--fps"),
    (["--count", "4000", "--frames", "60000"], "pixel values"), (["--count", "900", "--zoom", "64"], "million pixels"),
    (["--seed", "-1"], "--seed"), (["--seed", "9" * 30], "--seed"), (["--labels", "1", "--unconditional"], "--uncond"),
    (["--count", "1.5"], "whole number"), (["--wieght", "1"], "--wieght"), (["--sampler", "euler"], "--sampler"),
    (["--device", "tpu9"], "device"), (["--count"], "--count"),
])  # fmt: skip
def test_wrong_sample_commands_are_refused_in_one_line(capsys, run, tmp_path, words, says):
    base = ["sample", "--weights", run, "--out", tmp_path / "x.gif"]
    assert says in fails(capsys, *base, *words)
    assert not list(tmp_path.iterdir())


EDITS = [["extend", "--frames", "7"], ["extend", "--frames", "9", "--backwards", "--overlap", "1"],
         ["extend", "--frames", "12", "--order", "hierarchical", "--method", "replacement", "--labels", "3"],
         ["interpolate", "--between", "2", "--langevin"], ["upscale"], ["extend", "--frames", "6", "--unconditional"],
         ["upscale", "--space", "4", "--every", "2"]]  # fmt: skip


@pytest.mark.parametrize("words", EDITS)
def test_edits_write_an_animation(run, tmp_path, words):
    out = tmp_path / "clips.gif"
    assert main([*words, "--weights", str(run), "--steps", "2", "--count", "2", "--out", str(out)]) == 0
    count, (width, _) = frames(out)
    assert count == (int(words[2]) if words[0] == "extend" else 3 if "--every" in words else 4)
    assert width == (4 if words[0] == "upscale" else 3) * (2 * 16 + 3) + 3  # panels beside each other
    assert main([*words, "--weights", str(run), "--steps", "1", "--count", "2", "--out", str(out), "--force",
                 "--only-result"]) == 0  # fmt: skip
    assert frames(out)[0] == count


@pytest.mark.parametrize("command", ["extend", "interpolate", "upscale"])
def test_test_clips_are_asked_for_their_own_labels(run, tmp_path, monkeypatch, command):
    name = {"upscale": "super_resolve"}.get(command, command)
    asked = []
    real = getattr(tasks, name)
    monkeypatch.setattr(tasks, name, lambda *args, **options: asked.append(options) or real(*args, **options))
    words = [command, "--weights", str(run), "--steps", "1", "--count", "3", "--seed", "4"]
    words += ["--frames", "6"] if command == "extend" else []
    assert main([*words, "--out", str(tmp_path / "x.gif")]) == 0
    clips = pretrained.load(run).config.make_data(split="test").clips([4, 5, 6])
    assert torch.equal(torch.cat([options["labels"] for options in asked]), clips.labels)
    assert [options["weight"] for options in asked] == [1.0] * 3
    assert asked[0]["reconstruction_weight"] == (4.0 if command == "upscale" else 2.0)
    assert main([*words, "--unconditional", "--out", str(tmp_path / "y.gif")]) == 0
    assert [(options["labels"], options["weight"]) for options in asked[3:]] == [(None, 0.0)] * 3
    assert main([*words, "--labels", "2", "--space" if command == "upscale" else "--gamma",
                 "4" if command == "upscale" else "0", "--out", str(tmp_path / "z.gif")]) == 0  # fmt: skip
    assert all(torch.equal(options["labels"], tasks.multi_hot([2])) for options in asked[6:])
    assert asked[6]["reconstruction_weight"] == (16.0 if command == "upscale" else 2.0)


def test_what_stands_beside_an_edit(run, tmp_path, monkeypatch):
    """The truth, the result with its given frames, and a baseline made here once more."""
    found = {}

    def keep(panels, path, *_, known, **__):
        found.update(panels=panels, known=known)
        return path

    monkeypatch.setattr(writing, "save_comparison", keep)
    base = ["--weights", str(run), "--steps", "1", "--count", "2", "--out", str(tmp_path / "x.gif")]
    truth = pretrained.load(run).config.make_data(7, "test").clips([0, 1]).video

    assert main(["extend", "--frames", "7", *base]) == 0
    panels = found["panels"]
    assert list(panels) == ["truth", "extended", "same frame"] and torch.equal(panels["truth"], truth)
    assert torch.equal(panels["extended"][:, :, :4], truth[:, :, :4]) and found["known"]["extended"] == [0, 1, 2, 3]
    assert torch.equal(panels["same frame"], truth[:, :, [0, 1, 2, 3, 3, 3, 3]])

    assert main(["extend", "--frames", "7", "--backwards", *base]) == 0
    assert torch.equal(found["panels"]["extended"][:, :, 3:], truth[:, :, 3:]) and found["known"]["extended"][0] == 3
    assert torch.equal(found["panels"]["same frame"], truth[:, :, [3, 3, 3, 3, 4, 5, 6]])

    assert main(["interpolate", "--between", "2", *base]) == 0
    fade = found["panels"]["cross-fade"]
    assert torch.allclose(fade[:, :, 1], (2 * truth[:, :, 0] + truth[:, :, 3]) / 3, atol=1e-6)
    assert found["known"]["interpolated"] == [0, 3]

    assert main(["upscale", *base]) == 0
    panels = found["panels"]
    assert list(panels) == ["truth", "given", "upscaled", "bilinear"]
    small = torch.nn.functional.avg_pool3d(truth[:, :, :4], (1, 2, 2))
    assert torch.allclose(panels["given"][..., ::2, 1::2], small, atol=1e-6)
    frame = torch.nn.functional.interpolate(small[:, 0], scale_factor=2, mode="bilinear")
    assert torch.allclose(panels["bilinear"][:, 0], frame, atol=1e-6)


def test_edits_of_a_file(run, tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", clips)
    words = ["extend", "--frames", "5", "--video", str(tmp_path / "mine.npy"), "--weights", str(run), "--steps", "1"]
    assert main([*words, "--out", str(tmp_path / "x.gif")]) == 0
    assert frames(tmp_path / "x.gif")[1][0] == 2 * (2 * 16 + 3) + 3  # the result and a baseline: nobody knows the truth


def test_nothing_is_replaced_unless_it_is_forced(capsys, run, tmp_path):
    out = tmp_path / "x.png"
    out.write_bytes(b"mine")
    base = ["sample", "--weights", str(run), "--steps", "1", "--count", "1", "--out", str(out)]
    assert "--force" in fails(capsys, *base) and out.read_bytes() == b"mine"
    assert main([*base, "--force"]) == 0 and out.read_bytes() != b"mine"


def test_help_shows_every_default(capsys):
    for command in CALLS:
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        top = next(a for a in parser()._actions if a.dest == "command").choices[command]
        for action in top._actions:
            if action.default not in (None, False, "==SUPPRESS==", []):
                value = action.default if isinstance(action.default, list) else [action.default]
                assert f"(default: {' '.join(map(str, value))})" in said, (command, action.dest)
            elif action.option_strings and action.nargs != 0 and action.default is None and action.dest != "metrics":
                assert re.search("if not given|may|neither|stop, and save|start from|the same as", action.help), action


@pytest.mark.parametrize(("words", "says"), [
    (["extend", "--frames", "4"], "NoNewFrames"), (["extend", "--overlap", "4"], "TooManyObserved"),
    (["extend", "--video", "nothing.npy"], "nothing"), (["interpolate", "--between", "0"], "--between"),
    (["upscale", "--space", "3"], "BadObservation"), (["upscale", "--space", "1"], "NoNewFrames"),
    (["upscale", "--every", "0"], "--every"), (["extend", "--reconstruction", "-1"], "--reconstruction"),
    (["extend", "--steps", "0"], "--steps"), (["extend", "--out", "x.avi"], ".gif"),
    (["extend", "--count", "0"], "--count"), (["extend", "--gamma", "2"], "--gamma"),
    (["interpolate", "--between", "99999999999"], "--between"), (["extend", "--labels", "x"], "0 to 9"),
    (["extend", "--frames", "60000", "--count", "4000"], "pixel values"), (["upscale", "--space", "99"], "--space"),
])  # fmt: skip
def test_wrong_edits_are_refused_in_one_line(capsys, run, tmp_path, words, says):
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
    exports.export(run, "tiny", tmp_path, clips=2)
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    assert main(["doctor"]) == 1
    assert "DAMAGED" in capsys.readouterr().out


def test_doctor_says_which_extras_are_missing(monkeypatch):
    listed = ["torch>=2", 'matplotlib>=3.9; extra == "course"', "no-such-thing-at-all>=1 ; extra == 'data'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: listed)
    course, data, dev = doctor._extras()
    assert course.endswith("all there") and dev.endswith("all there")
    assert data.endswith("without no-such-thing-at-all: pip install 'minivdm[data]'")


def test_doctor_names_weights_of_other_kinds_too():
    lines, healthy = doctor._weights()
    assert healthy
    assert all(file.stem in "\n".join(lines) for file in pretrained.FOLDER.glob("*.safetensors"))


def test_doctor_finds_other_digits(monkeypatch, capsys):
    monkeypatch.setattr(files, "SHIPPED_SHA256", "0" * 64)
    assert main(["doctor"]) == 1
    assert "mnist-5000.npz DAMAGED" in capsys.readouterr().out


def test_doctor_speaks_without_torch():
    code = ("import sys, importlib.metadata as m; sys.modules['torch'] = None; real = m.version\n"
            "def version(name):\n    if name == 'torch': raise m.PackageNotFoundError(name)\n    return real(name)\n"
            "m.version = version\nfrom minivdm.__main__ import main\nsys.exit(main(['doctor']))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "MISSING: torch" in done.stdout and not done.stderr


def test_help_is_quick_because_it_leaves_torch_alone():
    code = "import sys\nfrom minivdm.cli.main import parser\nparser().format_help()\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_missing_run_is_named(capsys, tmp_path):
    assert "no checkpoint" in fails(capsys, "export", tmp_path)
    assert torch.is_grad_enabled()
