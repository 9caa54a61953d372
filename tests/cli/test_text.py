"""`sample --text` and `generate(text=...)`: a sentence becomes a clip; one that cannot be meant is named at once."""

import pytest
import torch

import minivdm
from minivdm.cli.main import main
from minivdm.data.captions import VOCABULARY
from minivdm.guards import BadArgument
from minivdm.training import fit
from minivdm.training.recipe import Recipe

NETWORK = {
    "width": 8,
    "multipliers": [1, 2],
    "patch": 2,
    "labels": 10,
    "spatial": [False, True],
    "temporal": [False, True],
    "head_channels": 8,
    "embedding": 16,
    "middle": 1,
    "text": len(VOCABULARY),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Weights that read sentences, after one step."""
    folder = tmp_path_factory.mktemp("text") / "run"
    recipe = Recipe(
        name="tiny-text",
        data="captioned-mnist",
        size=32,
        frames=3,
        speed=0.9,
        network=NETWORK,
        clips=2,
        batch=2,
        conditions={"labels": 0.8, "text": 0.15},
        save_every=2,
        preview_every=100,
        milestones=(),
    )
    fit(recipe, folder, progress=False)
    return folder


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--text", "a slow three moving up", "--count", "2"], 2),
        (["--text", "a three", "a fast seven moving left and down"], 2),
        (["--text", "a three", "--negative", "a slow digit", "--count", "1", "--temporal", "0"], 1),
    ],
)
def test_sentences_become_clips(run, tmp_path, capsys, words, count):
    out = tmp_path / "x.gif"
    assert main(["sample", "--weights", str(run), "--steps", "2", "--out", str(out), *words]) == 0
    assert out.stat().st_size > 0
    assert f"{count} clips of 3 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--text", "a slow thre"], "the nearest is 'three'"),
        (["--text", ""], "--text: caption: expected a sentence such as"),
        (["--text", "a three", "--negative", "a cat"], "--negative: caption: expected a word"),
        (["--negative", "a three"], "--negative: expected only with --text"),
        (["--text", "a three", "--labels", "3"], "expected without --labels"),
        (["--text", "a three", "--few", "8"], "--few and --autoguidance"),
        (["--text", "a three", "a two", "--count", "3"], "expected 1 or --count 3 sentences, got 2"),
        (["--text", "a three", "--weights", "moving-mnist-32"], "text-32"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_named_before_weights_are_read(tmp_path, capsys, words, says, monkeypatch):
    from minivdm.training import pretrained

    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)  # no weights there
    assert main(["sample", "--out", str(tmp_path / "x.gif"), *words]) != 0
    assert says in capsys.readouterr().err


def test_the_python_interface_takes_sentences(run):
    model = minivdm.load(run)
    clips = minivdm.generate(model, text="a three moving up", count=2, steps=2)
    assert clips.shape == (2, 1, 3, 32, 32) and clips.abs().max() <= 1
    both = minivdm.generate(model, text=["a three", "a two"], negative="a slow digit", steps=2)
    assert both.shape == (2, 1, 3, 32, 32)
    assert torch.equal(clips, minivdm.generate(model, text="a three moving up", count=2, steps=2))
    with pytest.raises(BadArgument, match="without digits"):
        minivdm.generate(model, [3], text="a three")
    with pytest.raises(BadArgument, match="nearest is 'three'"):
        minivdm.generate(model, text="a thre")
