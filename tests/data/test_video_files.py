"""Videos from files of every kind, and files that hold none."""

import numpy as np
import pytest
import torch
from PIL import Image

from minivdm.data import video_files, writing
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
    (np.full((4, 8, 8), 255.0), "got 255 to 255; bytes as floats"), (np.full((4, 8, 8), 0.5), r"become 2 x - 1"),
    (np.zeros((20, 3, 64, 64), np.uint8), "Moving-MNIST's own"),
    (np.zeros((2, 4, 2, 8, 8), np.uint8), "1 or 3 channels"),
    (np.full((4, 8, 8), np.nan), "in .-1, 1."),
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
    (tmp_path / "film.avi2").write_text("no video")
    with pytest.raises(VideoFileError, match=r"\.gif, .*got \.avi2"):
        load(tmp_path / "film.avi2")
    np.savez(tmp_path / "many.npz", a=np.zeros(3))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    with pytest.raises(VideoFileError, match="an archive"):
        load(tmp_path / "many.npy")
    np.save(tmp_path / "video.npy", np.zeros((4, 8, 8), np.uint8))
    cut = (tmp_path / "video.npy").read_bytes()[:-9]
    (tmp_path / "video.npy").write_bytes(cut)
    with pytest.raises(VideoFileError, match="truncated"):
        load(tmp_path / "video.npy")


def test_a_header_that_promises_terabytes_is_refused(tmp_path):
    np.save(tmp_path / "huge.npy", np.zeros((1, 8, 8), np.uint8))
    data = (tmp_path / "huge.npy").read_bytes()
    huge = data.replace(b"(1, 8, 8), }" + b" " * 12, b"(999999999999, 8, 8), }".ljust(24))
    assert len(huge) == len(data) and huge != data
    (tmp_path / "huge.npy").write_bytes(huge)
    with pytest.raises(VideoFileError, match="truncated"):
        load(tmp_path / "huge.npy")


@pytest.mark.parametrize("shape", [(4, 8, 9, 3), (2, 4, 8, 9, 3), (2, 4, 3, 8, 9), (2, 3, 4, 8, 9)])
def test_channels_are_found_where_they_are(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "video.npy", array)
    video = load(tmp_path / "video.npy")
    assert video.shape == (shape[0] if len(shape) == 5 else 1, 3, 4, 8, 9)
    axis = {4: 3}.get(len(shape), shape.index(3, 1))
    first = np.moveaxis(array, axis, 0)[1].reshape(-1, 4, 8, 9)[0]
    assert np.array_equal(((video[0, 1].numpy() + 1) * 127.5).round(), first)


def colours(f=5, h=12, w=20):
    """A clip (1, 3, f, h, w) of plain coloured halves whose left half changes from frame to frame."""
    video = torch.full((1, 3, f, h, w), -1.0)
    video[:, 0, :, :, : w // 2] = torch.linspace(-1, 1, f)[:, None, None]
    video[:, 2, :, :, w // 2 :] = 1.0
    return video


@pytest.mark.parametrize("ending", ["gif", "webp", "mp4"])
def test_animations_are_read_frame_by_frame(tmp_path, ending):
    if ending == "mp4":
        pytest.importorskip("av")
    path = writing.save(colours(), tmp_path / f"a.{ending}", zoom=8, columns=1)
    video = load(path)
    assert video.shape[:3] == (1, 3, 5)
    inside = video[0, :, :, 16:80, 16:64]  # away from the line around it
    atol = 0.08 if ending == "mp4" else 0.01
    assert torch.allclose(inside[0].mean((1, 2)), torch.linspace(-1, 1, 5), atol=atol)
    assert torch.allclose(inside[1], torch.tensor(-1.0), atol=3 * atol)


def test_a_folder_of_pictures_is_a_video_in_the_order_of_its_numbers(tmp_path):
    for k in (1, 2, 10, 9):
        Image.new("L", (6, 4), 10 * k).save(tmp_path / f"frame{k}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    video = load(tmp_path)
    assert video.shape == (1, 1, 4, 4, 6)
    assert ((video[0, 0, :, 0, 0] + 1) * 127.5).round().tolist() == [10, 20, 90, 100]


def test_frames_are_cropped_in_the_middle_and_resized(tmp_path):
    # 8 x 24: the middle 8 columns are white
    picture = np.zeros((8, 24), np.uint8)
    picture[:, 8:16] = 255
    picture[:, 12] = 0
    Image.fromarray(picture).save(tmp_path / "0.png")
    small = video_files.read(tmp_path, size=4, channels=1)
    assert small.shape == (1, 4, 4, 1) and (small[0, :, 0] == 255).all()
    assert (small[0, :, 2] < 200).all()  # the dark column is averaged, not skipped
    assert video_files.read(tmp_path, size=4, channels=3).shape == (1, 4, 4, 3)


def test_sixteen_bits_and_transparency(tmp_path):
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep" / "0.png")
    assert video_files.read(tmp_path / "deep").max() == 255
    (tmp_path / "clear").mkdir()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear" / "0.png")
    assert video_files.read(tmp_path / "clear").max() == 0  # black shows through


def test_frames_of_two_sizes_and_damaged_pictures_are_named(tmp_path):
    Image.new("L", (6, 4)).save(tmp_path / "0.png")
    Image.new("L", (6, 5)).save(tmp_path / "1.png")
    with pytest.raises(VideoFileError, match="6x4, 6x5"):
        load(tmp_path)
    assert load(tmp_path, size=4).shape == (1, 1, 2, 4, 4)  # resized, they are of one size
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    with pytest.raises(VideoFileError, match=r"1\.png: damaged"):
        load(tmp_path)


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_damaged_films_are_named(tmp_path, ending):
    if ending == "mp4":
        pytest.importorskip("av")
    (tmp_path / f"a.{ending}").write_bytes(b"nothing of the kind")
    with pytest.raises(VideoFileError, match=rf"a\.{ending}: damaged, or not a"):
        load(tmp_path / f"a.{ending}")


def test_films_without_pyav_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(VideoFileError, match=r"minivdm\[data\]"):
        load(tmp_path / "a.mp4")
