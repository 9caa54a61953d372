"""Weights that ship: what export writes, load reads back; damage and wrong names are told apart."""

import json
import re

import pytest
import torch
from small_runs import NETWORK, TINY, fit, tiny

from minivdm.training import checkpoints, exports, pretrained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, fit(TINY, folder)


@pytest.fixture
def folder(run, tmp_path):
    exports.export(run[0], "small", tmp_path, metrics={"legible": 0.5}, clips=4)
    return tmp_path


def test_exported_weights_are_the_average_in_half_precision(run, folder):
    denoise = pretrained.load("small", folder=folder)
    assert not denoise.training and not any(p.requires_grad for p in denoise.parameters())
    assert denoise.shape == (1, 3, 16, 16)
    for p, q in zip(denoise.network.parameters(), run[1].ema.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=2**-11, atol=2**-24)  # rounding of float16: 11 bits, subnormals below
    assert pretrained.available(folder) == ["small"]


def test_loaded_denoiser_denoises_like_the_trained_one(run, folder):
    denoise, trained = pretrained.load("small", folder=folder), run[1].ema_denoiser
    g = torch.Generator().manual_seed(0)
    z, labels = torch.randn(2, 1, 3, 16, 16, generator=g), torch.eye(10)[:2]
    difference = denoise.given(labels)(z, 0.5) - trained.given(labels)(z, 0.5)
    assert difference.abs().max() < 5e-3  # weights off by 2^-11 each, through about ten layers


def test_card_says_where_the_weights_come_from(folder):
    card = pretrained.card("small", folder)
    assert card["clips"] == 24 and card["steps"] == 8 and card["seed"] == 0
    assert card["commands"][0]["command"].startswith("python -m minivdm train moving-mnist-32 --set ")
    assert len(card["held_out"]["v_error"]) == len(card["held_out"]["log_snr"])
    assert len(card["train_loss_by_log_snr"]["loss"]) == len(card["train_loss_by_log_snr"]["edges"]) + 1
    assert card["metrics"] == {"legible": 0.5}
    assert card["bytes"] == (folder / "small.safetensors").stat().st_size
    assert str(folder) not in json.dumps(card)


@pytest.mark.parametrize("damage", [lambda data: data[:-10], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_truncated_or_altered_weights_are_refused(folder, damage):
    path = folder / "small.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(pretrained.DamagedWeights, match="SHA-256"):
        pretrained.load("small", folder=folder)


def test_weights_without_card_or_card_without_weights(folder):
    (folder / "small.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(pretrained.DamagedWeights, match="missing"):
        pretrained.load("small", folder=folder)
    denoise = pretrained.load(folder / "other.safetensors", folder=folder.parent)  # the file knows its configuration
    assert denoise.config == TINY


def test_unknown_name_lists_what_ships(folder):
    with pytest.raises(pretrained.UnknownWeights, match=re.escape("those that ship: small")):
        pretrained.load("large", folder=folder)


def test_card_of_another_network_is_named(folder):
    card = pretrained.card("small", folder)
    card["config"] = tiny(network={**NETWORK, "width": 16}).to_dict()
    (folder / "small.json").write_text(json.dumps(card))
    with pytest.raises(checkpoints.DamagedCheckpoint, match="digest"):
        pretrained.load("small", folder=folder)
    (folder / "small.json").write_text(json.dumps(checkpoints.sealed(card)))  # whole, but not of these weights
    with pytest.raises(checkpoints.DamagedCheckpoint, match="not the one inside the file"):
        pretrained.load("small", folder=folder)


@pytest.mark.parametrize(
    "source", ["", "snapshots/clips-000000010.safetensors", "checkpoints/clips-000000024.safetensors"]
)
def test_runs_snapshots_and_checkpoints_load_as_well(run, source):
    assert pretrained.load(run[0] / source).config == TINY


def test_file_that_is_no_weights(tmp_path):
    path = tmp_path / "notes.safetensors"
    path.write_text("these are notes")
    with pytest.raises(checkpoints.DamagedCheckpoint, match="not a whole safetensors file"):
        pretrained.load(path)


def test_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize("name", pretrained.available())
def test_shipped_weights_are_whole_and_small(name):
    denoise = pretrained.load(name)
    assert denoise.card["bytes"] <= 8.5e6
    assert sum(p.numel() for p in denoise.network.parameters()) == denoise.card["parameters"]


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda video: (video + 1) * 127.5, r"data in \[-1.0, 1.0\], got 0 to 255"),
        (
            lambda video: video.transpose(1, 2),
            r"video \(b, c=1, f, h, w\), none of them 0, got shape \(2, 4, 1, 16, 16\)",
        ),
    ],
)
def test_videos_that_are_none_are_refused(folder, wrong, says):
    video = torch.linspace(-1, 1, 2 * 4 * 16 * 16).view(2, 1, 4, 16, 16)
    with pytest.raises(ValueError, match=says):
        pretrained.load("small", folder=folder).loss(wrong(video))


def test_weights_that_ship_may_have_earlier_ones():
    assert pretrained.weaker(pretrained.load()).card["clips"] < pretrained.card("moving-mnist-32")["clips"]
    assert pretrained.weaker(pretrained.load("text-32")) is None
    changed = pretrained.load()
    changed.card = {**changed.card, "sha256": "0" * 64}  # a run of the same name
    assert pretrained.weaker(changed) is None
    assert pretrained.weaker(object()) is None
