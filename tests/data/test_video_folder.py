"""A folder of videos as a source of clips: what is in a clip, which clips there are, what is refused."""

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from minivdm.data import video_files
from minivdm.data.video_folder import VideoFolder, find_channels, find_videos


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MINIVDM_CACHE", str(folder))
    return folder


def counting(frames, video=0, size=8, colour=False):
    """Frame k of the video is of the plain grey 10 video + k; in colour, that is its red."""
    values = (10 * video + np.arange(frames)).astype(np.uint8)
    clip = np.broadcast_to(values[:, None, None], (frames, size, size))
    if colour:
        clip = np.stack([clip, np.zeros_like(clip), np.full_like(clip, 200)], -1)
    return np.ascontiguousarray(clip)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def greys(video):
    """(b, f) the grey, or red, of every frame."""
    return ((video[:, 0, :, 0, 0] + 1) * 127.5).round().int()


def test_every_clip_comes_once_an_epoch_in_an_order_of_its_own(tmp_path):
    save(tmp_path / "a.npy", counting(10))
    save(tmp_path / "b.npy", counting(4, 5))  # the shorter one is never the test
    data = VideoFolder(tmp_path, size=8, frames=4, stride=2, split="train")
    longer = VideoFolder(tmp_path, size=8, frames=4, stride=2, split="test")
    assert (len(data), len(longer)) == (1, 4)
    first = greys(longer.clips(range(4)).video)
    assert sorted(row[0].item() for row in first) == [0, 2, 4, 6]
    assert all((row[1:] - row[:-1] == 1).all() for row in first)
    orders = [tuple(greys(longer.clips(range(4 * e, 4 * e + 4)).video)[:, 0].tolist()) for e in range(8)]
    assert {tuple(sorted(order)) for order in orders} == {(0, 2, 4, 6)} and len(set(orders)) > 1


def test_a_clip_depends_on_seed_and_index_alone(tmp_path):
    for k in range(4):
        save(tmp_path / f"{k}.npy", counting(9, k))
    data = VideoFolder(tmp_path, size=8, frames=3)
    one = data.clips([5, 40, 3]).video
    assert torch.equal(one[1], VideoFolder(tmp_path, size=8, frames=3).clips([40]).video[0])
    assert torch.equal(one[2], data.clips(torch.tensor([3])).video[0])
    other = VideoFolder(tmp_path, size=8, frames=3, seed=1)
    assert not torch.equal(data.clips(range(20)).video, other.clips(range(20)).video)
    assert data.clips([]).video.shape == (0, 1, 3, 8, 8)


def test_every_takes_each_nth_frame_and_images_are_single_frames(tmp_path):
    save(tmp_path / "a.npy", counting(30))
    data = VideoFolder(tmp_path, size=8, frames=3, every=4)
    clip = greys(data.clips([0]).video)[0]
    assert (clip[1:] - clip[:-1] == 4).all()
    images, labels = data.images(range(50))
    assert images.shape == (50, 1, 1, 8, 8) and labels.shape == (50, 0)
    assert 10 < len(set(greys(images)[:, 0].tolist())) <= 27  # of the training frames


def test_one_video_is_split_in_time(tmp_path):
    save(tmp_path / "a.npy", counting(60))
    train, test = (VideoFolder(tmp_path, size=8, frames=4, split=split) for split in ("train", "test"))
    assert greys(train.clips(range(len(train))).video).max() < 54 <= greys(test.clips(range(len(test))).video).min()


def test_one_short_video_is_both_and_says_so(tmp_path):
    save(tmp_path / "a.npy", counting(6))
    with pytest.warns(UserWarning, match="test clips are training clips"):
        VideoFolder(tmp_path, size=8, frames=4, split="test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(VideoFolder(tmp_path, size=8, frames=4)) == 1  # of the first 5 frames


def test_test_videos_are_the_same_whatever_the_length_of_clips(tmp_path):
    for k in range(20):
        save(tmp_path / f"{k}.npy", counting(8 + k % 3, k))
    tests = []
    for frames in (1, 4, 8):
        train = VideoFolder(tmp_path, size=8, frames=frames)
        test = VideoFolder(tmp_path, size=8, frames=frames, split="test")
        videos = [set((greys(d.clips(range(len(d))).video)[:, 0] // 10).tolist()) for d in (train, test)]
        assert not videos[0] & videos[1] and len(videos[1]) == 2
        tests.append(videos[1])
    assert tests[0] == tests[1] == tests[2]


def test_sub_folders_are_labels(tmp_path):
    save(tmp_path / "dogs" / "a.npy", counting(5, 1))
    save(tmp_path / "dogs" / "deep" / "b.npy", counting(5, 2))
    for k in range(5):
        (tmp_path / "cats" / "c").mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), k).save(tmp_path / "cats" / "c" / f"{k}.png")
    data = VideoFolder(tmp_path, size=8, frames=2)
    assert data.classes == ["cats", "dogs"]
    clips = data.clips(range(len(data)))
    assert torch.equal(clips.labels.argmax(1), (greys(clips.video)[:, 0] >= 10).long())
    assert (clips.labels.sum(1) == 1).all()
    save(tmp_path / "loose.npy", counting(5))  # beside them lies one without a label: then there are none
    assert {source.label for source in find_videos(tmp_path)} == {""}
    assert VideoFolder(tmp_path, size=8, frames=2).clips([0]).labels.shape == (1, 0)


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_links_in_a_circle_end(tmp_path):
    save(tmp_path / "a" / "one.npy", counting(3))
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert [source.path.name for source in find_videos(tmp_path)] == ["one.npy"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_takes_it(tmp_path, workers):
    save(tmp_path / "a.npy", counting(40))
    data = VideoFolder(tmp_path, size=8, frames=4)
    batches = [video for video, _ in torch.utils.data.DataLoader(data, batch_size=5, num_workers=workers)]
    assert torch.equal(torch.cat(batches), data.clips(range(len(data))).video)


def test_colour_grey_and_both(tmp_path):
    save(tmp_path / "a.npy", counting(5, colour=True))
    assert VideoFolder(tmp_path, size=8, frames=2).clips([0]).video.shape[1] == 3
    assert VideoFolder(tmp_path, size=8, frames=2, channels=1).clips([0]).video.shape[1] == 1
    save(tmp_path / "b.npy", counting(5))
    with pytest.raises(video_files.VideoFileError, match=r"b\.npy \(grey\) and a\.npy \(coloured\)"):
        VideoFolder(tmp_path, size=8, frames=2)
    assert VideoFolder(tmp_path, size=8, frames=2, channels=3).channels == 3
    assert find_channels(find_videos(tmp_path)[:1]) == 3


def test_videos_are_decoded_once_and_again_when_they_change(tmp_path, monkeypatch, cache):
    read = []
    real = video_files.read
    monkeypatch.setattr(video_files, "read", lambda path, *rest: read.append(path.name) or real(path, *rest))
    save(tmp_path / "a.npy", counting(5))
    save(tmp_path / "b.npy", counting(5, 1))
    for _ in range(2):
        VideoFolder(tmp_path, size=8, frames=2)
    assert sorted(read) == ["a.npy", "b.npy"]
    save(tmp_path / "b.npy", counting(7, 2))
    clips = VideoFolder(tmp_path, size=8, frames=2), VideoFolder(tmp_path, size=8, frames=2, split="test")
    assert read[2:] == ["b.npy"] and len(list(cache.rglob("*.npy"))) == 2
    os.utime(tmp_path / "a.npy", ns=(1, 1))  # the same bytes at another time
    VideoFolder(tmp_path, size=8, frames=2)
    assert read[3:] == ["a.npy"]
    assert {greys(data.clips(range(9)).video).max().item() >= 20 for data in clips} == {True, False}


def test_what_is_no_folder_of_videos_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="found nothing"):
        VideoFolder(tmp_path / "nowhere")
    with pytest.raises(video_files.VideoFileError, match="found none"):
        VideoFolder(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    with pytest.raises(video_files.VideoFileError, match="one for each video"):
        VideoFolder(tmp_path)
    (tmp_path / "a.gif").write_bytes(b"GIF89a, and no more")
    with pytest.raises(video_files.VideoFileError, match=r"a\.gif: damaged"):
        VideoFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="a file"):
        VideoFolder(tmp_path / "a.gif")


def test_videos_that_are_too_short_are_counted(tmp_path):
    save(tmp_path / "a.npy", counting(3))
    save(tmp_path / "b.npy", counting(9))
    with pytest.raises(video_files.VideoFileError, match=r"at least 10 frames .* the longest of 1 has 3"):
        VideoFolder(tmp_path, size=8, frames=4, every=3)
    save(tmp_path / "c.npy", counting(9))
    with pytest.warns(UserWarning, match="1 of 2 videos are too short"):
        VideoFolder(tmp_path, size=8, frames=4)


@pytest.mark.parametrize(("options", "says"), [
    ({"size": 0}, "size"), ({"frames": 0}, "frames"), ({"every": 0}, "every"), ({"stride": 0}, "stride"),
    ({"channels": 2}, "channels"), ({"split": "valid"}, "split"), ({"seed": -1}, "seed"), ({"size": 8.5}, "size"),
])  # fmt: skip
def test_wrong_arguments_are_named(tmp_path, options, says):
    save(tmp_path / "a.npy", counting(5))
    with pytest.raises(ValueError, match=says):
        VideoFolder(tmp_path, **options)


def test_wrong_indices_are_named(tmp_path):
    save(tmp_path / "a.npy", counting(40))
    data = VideoFolder(tmp_path, size=8, frames=2)
    with pytest.raises(TypeError, match="list of integers"):
        data.clips([0.5])
    with pytest.raises(ValueError, match="from 0"):
        data.images([-1])
