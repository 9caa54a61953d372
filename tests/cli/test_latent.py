"""`sample` with a latent model: clips of 64x64 by the command of the README, and options that it does not take."""

import pytest
from PIL import Image

from minivdm.cli.main import main


def sample(*words):
    return main(["sample", "--weights", "latent-64", *words])


def test_clip_is_made_of_a_code(tmp_path, capsys):
    out = tmp_path / "three.gif"
    assert sample("--labels", "3", "--count", "2", "--steps", "2", "--zoom", "1", "--out", str(out)) == 0
    assert "2 clips of 17 frames of 64x64" in capsys.readouterr().out
    with Image.open(out) as film:
        assert film.n_frames == 17 and film.size[0] >= 128


def test_labels_are_drawn_where_none_are_asked_for(tmp_path, capsys):
    assert sample("--count", "2", "--steps", "1", "--out", str(tmp_path / "a.png")) == 0
    assert "labels drawn at random: " in capsys.readouterr().out
    assert sample("--unconditional", "--count", "1", "--steps", "1", "--out", str(tmp_path / "b.png")) == 0
    assert "labels drawn at random" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--labels", "11"], "--labels: expected some of 0 to 9, got 11"),
        (["--frames", "8"], "--frames: expected none with a latent model"),
        (["--temporal", "2"], "--temporal: expected 0"),
        (["--text", "a three"], "--text: expected none"),
    ],
)
def test_what_it_does_not_take_is_named(words, said, tmp_path, capsys):
    assert sample(*words, "--out", str(tmp_path / "a.gif")) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "a.gif").exists()
