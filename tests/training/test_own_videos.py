"""One's own videos: a folder of coloured GIFs becomes a trained model, and its mistakes are named."""

import pytest
import torch
from PIL import Image
from small_runs import NETWORK, fit, tiny

from minivdm.training import RecipeError, exports, monitor, pretrained


@pytest.fixture
def films(tmp_path):
    """Four GIFs of a coloured square that moves, two a class."""
    for number, (name, colour) in enumerate([("red", (250, 0, 0)), ("blue", (0, 0, 250))] * 2):
        frames = []
        for k in range(8):
            frame = Image.new("RGB", (24, 20))
            frame.paste(colour, (2 * k, 4, 2 * k + 6, 12))
            frame.putpixel((0, 0), (k, number, 9))  # no two frames are equal: a GIF would merge them
            frames.append(frame)
        path = tmp_path / "films" / name / f"{number}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    return tmp_path / "films"


def recipe(films, labels=2, **changes):
    network = {**NETWORK, "channels": 3, "labels": labels}
    own = {"data": "folder", "path": str(films), "network": network, "frames": 3, "batch": 4, "clips": 8, "images": 0}
    return tiny(**own, conditions={"labels": 0.1} if labels else {}, **changes)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIVDM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("labels", [0, 2])
def test_folder_of_coloured_gifs_is_trained_on(films, tmp_path, labels):
    trainer = fit(recipe(films, labels, preview_every=8, name="own"), tmp_path / "run")
    assert trainer.clips == 8 and all(torch.isfinite(p).all() for p in trainer.params)
    assert (tmp_path / "run" / "previews" / "clips-000000008.png").exists()
    assert monitor.read_metrics(tmp_path / "run")["held_out"]["clips"].tolist() == [8]
    denoise = pretrained.load(exports.export(tmp_path / "run", clips=1))
    assert denoise.shape == (3, 3, 16, 16)


def test_labels_have_to_be_as_many_as_sub_folders(films, tmp_path):
    with pytest.raises(RecipeError, match=r"network.labels: expected 2 \(blue, red\), got 3"):
        fit(recipe(films, 3), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folder_that_is_not_there_is_named_before_the_runs_folder_exists(tmp_path):
    with pytest.raises(FileNotFoundError, match="path"):
        fit(recipe(tmp_path / "nowhere", 0), tmp_path / "run")
    assert not (tmp_path / "run").exists()
