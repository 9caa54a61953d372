"""One's own videos by the commands of the page that describes them: a folder of coloured GIFs, a network, a GIF."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from minivdm.cli import folders
from minivdm.cli.main import main
from minivdm.data import writing
from minivdm.training import pretrained

SMALL = [word for item in ("network.width=8", "network.multipliers=[1,2]", "network.patch=4", "network.head_channels=8",
                           "network.embedding=16", "network.spatial=[false,true]", "network.temporal=[true,true]",
                           "size=16", "frames=4", "batch=2", "log_every=2", "milestones=[2]", "warmup=0")
         for word in ("--set", item)]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MINIVDM_CACHE", str(tmp_path_factory.mktemp("cache")))


def film(path, colour, frames=8, size=(30, 20)):
    """A square of that colour that moves to the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = torch.full((1, 3, frames, size[1], size[0]), -1.0)
    for k in range(frames):
        video[0, :, k, 6:12, 2 * k : 2 * k + 6] = torch.tensor(colour)[:, None, None]
    writing.save(video, path, zoom=1)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for k in range(3):
        film(folder / "red" / f"{k}.gif", (1.0, -1.0, -1.0), 8 + k)
        film(folder / "blue" / f"{k}.gif", (-1.0, -1.0, 1.0), 8 + k)
    return folder


@pytest.fixture(scope="module")
def run(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "films"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIVDM_CACHE", str(tmp_path_factory.mktemp("cache")))
        words = ["train", "--set", "data=folder", "--set", f"path={films}", "--clips", "4", "--device", "cpu", *SMALL]
        assert main([*words, "--out", str(out)]) == 0
    return out


def test_the_folder_says_channels_labels_and_name(films, run):
    recipe = json.loads((run / "config.json").read_text())
    assert (recipe["network"]["channels"], recipe["network"]["labels"]) == (3, 2)
    assert recipe["name"] == folders.name(str(films)) and recipe["conditions"] == {"labels": 0.3}
    denoiser = pretrained.load(run)
    assert denoiser.shape == (3, 4, 16, 16)
    clips = denoiser.config.make_data().clips(range(8))
    middle = clips.video[:, :, :, 8, :].amax(3)  # b c f: what is bright on the row that the square moves along
    red = clips.labels[:, 1] == 1
    assert (middle[red, 0] > 0.9).all() and (middle[~red, 2] > 0.9).all() and (middle[red, 2] < 0).all()


def colours(path):
    with Image.open(path) as image:
        return image.n_frames, np.asarray(image.convert("RGB")).reshape(-1, 3)


def test_sample_from_it(run, tmp_path, capsys):
    words = ["sample", "--weights", str(run), "--steps", "1"]
    assert main([*words, "--count", "2", "--out", str(tmp_path / "a.gif")]) == 0
    said = capsys.readouterr().out
    assert "labels drawn at random: " in said and {"red", "blue"} & set(said.replace(";", "").split())
    count, pixels = colours(tmp_path / "a.gif")
    assert count == 4 and (pixels.max(1) - pixels.min(1)).max() > 0  # in colour, if pale after two steps
    assert main([*words, "--labels", "red", "--out", str(tmp_path / "b.png")]) == 0
    assert main([*words, "--labels", "green", "--out", str(tmp_path / "c.png")]) == 2
    assert "expected some of blue, red, got green" in capsys.readouterr().err


def test_extend_from_it(run, films, tmp_path):
    words = ["extend", "--weights", str(run), "--steps", "1", "--count", "2"]
    assert main([*words, "--frames", "6", "--out", str(tmp_path / "a.gif")]) == 0
    count, pixels = colours(tmp_path / "a.gif")
    assert count == 6 and len(pixels) // (3 * 19 + 3)  # truth, result, baseline
    # Longer than any of the films: there is no truth to show, and the whole window is given.
    assert main([*words, "--frames", "20", "--out", str(tmp_path / "b.gif")]) == 0
    assert colours(tmp_path / "b.gif")[0] == 20
    one = str(films / "red" / "0.gif")
    assert main([*words, "--frames", "11", "--video", one, "--out", str(tmp_path / "c.gif"), "--only-result"]) == 0
    assert colours(tmp_path / "c.gif")[0] == 11


def test_a_folder_without_sub_folders_has_no_labels(tmp_path):
    for k in range(2):
        film(tmp_path / "videos" / f"{k}.gif", (1.0, 1.0, 1.0))
    found = dict(text.split("=", 1) for text in folders.settings(["data=folder", f"path={tmp_path / 'videos'}"]))
    assert found == {"name": '"videos"', "network.channels": "1", "network.labels": "0", "conditions": "{}"}
    given = ["data=folder", f"path={tmp_path / 'videos'}", 'network={"channels": 3, "labels": 0}', "name=x"]
    assert folders.settings(given) == [] and folders.settings(["size=16"]) == []


def test_what_cannot_be_trained_on_leaves_no_run(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    film(tmp_path / "short" / "a.gif", (1.0, 0.0, 0.0), 3)
    for folder, says in {"nowhere": "found nothing", "empty": "found none", "short": "at least 4 frames"}.items():
        words = ["train", "--set", "data=folder", "--set", f"path={tmp_path / folder}", "--out", str(tmp_path / "run")]
        assert main([*words, "--clips", "4", "--device", "cpu", *SMALL]) == 2
        assert says in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "run").exists()
