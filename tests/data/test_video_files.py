"""Videos from .npy files, and files that hold none."""

import numpy as np
import pytest
import torch

from minivdm.data.video_files import VideoFileError, load


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 4, 8, 8), (2, 1, 4, 8, 8)])
def test_bytes_become_values_between_minus_one_and_one(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "video.npy", array)
    video = load(tmp_path / "video.npy")
    assert video.shape == (1 if len(shape) == 3 else 2, 1, 4, 8, 8) and video.dtype == torch.float32
    assert np.array_equal(((video.numpy() + 1) * 127.5).round().reshape(shape), array)


def test_values_are_taken_as_they_are(tmp_path):
    array = np.linspace(-1, 1, 4 * 64).reshape(4, 8, 8)
    np.save(tmp_path / "video.npy", array)
    assert np.allclose(load(tmp_path / "video.npy")[0, 0], array)


@pytest.mark.parametrize(("array", "says"), [
    (np.zeros((8, 8), np.uint8), "expected an array"), (np.zeros((0, 8, 8), np.uint8), "expected an array"),
    (np.full((4, 8, 8), 255.0), "got 255 to 255"), (np.full((4, 8, 8), np.nan), "in .-1, 1."),
    (np.zeros((4, 8, 8), np.int64), "got int64"), (np.array([None]), "not an .npy"),
])  # fmt: skip
def test_other_arrays_are_refused(tmp_path, array, says):
    np.save(tmp_path / "video.npy", array)
    with pytest.raises(VideoFileError, match=says):
        load(tmp_path / "video.npy")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="found nothing"):
        load(tmp_path / "nothing.npy")
    (tmp_path / "text.npy").write_text("not an array")
    with pytest.raises(VideoFileError, match="not an .npy"):
        load(tmp_path / "text.npy")
    np.savez(tmp_path / "many.npz", a=np.zeros(3))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    with pytest.raises(VideoFileError, match="an archive"):
        load(tmp_path / "many.npy")
    np.save(tmp_path / "video.npy", np.zeros((4, 8, 8), np.uint8))
    cut = (tmp_path / "video.npy").read_bytes()[:-9]
    (tmp_path / "video.npy").write_bytes(cut)
    with pytest.raises(VideoFileError, match="truncated"):
        load(tmp_path / "video.npy")
