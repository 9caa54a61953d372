"""Clips against their definition, digit for digit; files against the formats' definitions; every named error."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from minivdm.data import files
from minivdm.data.moving_mnist import MovingMNIST

CLIPS = MovingMNIST(digits=(1, 3), seed=3).clips(range(40))


def as_bytes(video: torch.Tensor) -> torch.Tensor:
    return ((video + 1) * 127.5).round().to(torch.uint8)


def test_shapes_and_ranges() -> None:
    assert CLIPS.video.shape == (40, 1, 16, 32, 32) and CLIPS.video.dtype == torch.float32
    assert CLIPS.video.min() == -1 and CLIPS.video.max() == 1
    assert CLIPS.digits.shape == (40, 3) and CLIPS.labels.shape == (40, 10) and len(CLIPS) == 40
    assert CLIPS.positions.shape == CLIPS.velocities.shape == (40, 3, 16, 2)


def test_a_clip_is_the_same_on_every_machine() -> None:
    # Pinned: if this changes, so do the data that any weights were trained on.
    for keywords, expected in [
        ({"digits": (1, 2), "seed": 7}, "7b2eea5b741dafe0"),
        ({"size": 64, "frames": 20, "digits": 2, "motion": "stochastic", "split": "test"}, "c1cc199f885e04e6"),
    ]:
        clips = MovingMNIST(**keywords).clips([0, 1, 12345678901])
        found = hashlib.sha256(as_bytes(clips.video).numpy().tobytes() + clips.digits.numpy().tobytes())
        assert found.hexdigest()[:16] == expected


def test_hash_is_splitmix64() -> None:
    # First outputs of SplitMix64 from state 0, as in its published reference code.
    from minivdm.data.moving_mnist import _mix

    golden = 0x9E3779B97F4A7C15
    states = torch.tensor([(k * golden & (2**64 - 1)) - (1 << 64 if k * golden & (1 << 63) else 0) for k in (0, 1)])
    outputs = [int(z) % 2**64 for z in _mix(states)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_a_clip_depends_on_its_index_alone() -> None:
    data = MovingMNIST(digits=(1, 3), seed=3)
    alone, shuffled = data.clips([17]), data.clips(torch.tensor([39, 17, 2]))
    assert torch.equal(alone.video[0], CLIPS.video[17])
    assert torch.equal(shuffled.video, CLIPS.video[[39, 17, 2]])


def test_fewer_frames_are_the_beginning_of_more() -> None:
    for motion in ("deterministic", "stochastic"):
        long = MovingMNIST(frames=16, motion=motion).clips(range(8)).video
        assert torch.equal(MovingMNIST(frames=5, motion=motion).clips(range(8)).video, long[:, :, :5])


def test_seed_and_split_give_other_clips() -> None:
    first = MovingMNIST().clips(range(8)).positions
    assert not torch.equal(first, MovingMNIST(seed=1).clips(range(8)).positions)
    assert not torch.equal(first, MovingMNIST(split="test").clips(range(8)).positions)


def test_every_pixel_is_the_maximum_of_the_digits_over_it() -> None:
    # The definition, one digit and one frame at a time; exact, as everything is integers.
    data = MovingMNIST(size=(40, 28), frames=6, digits=3)
    clips = data.clips(range(5))
    pool = files.load_digits()
    patches = {tuple(image.flatten().tolist()): int(label) for image, label in zip(*vars(pool).values(), strict=True)}
    assert len(patches) == 4500
    for video, corners, digits in zip(as_bytes(clips.video)[:, 0], clips.positions, clips.digits, strict=True):
        drawn = torch.zeros_like(video)
        candidates = [pool.images[pool.labels == d] for d in digits]
        for corner, candidate in zip(corners, candidates, strict=True):
            y, x = corner[0].floor().int().tolist()
            below = (candidate <= video[0, y : y + 28, x : x + 28]).flatten(1).all(1)
            picture = candidate[below][candidate[below].flatten(1).sum(1).argmax()]  # the one that was drawn
            for frame, (y, x) in enumerate(corner.floor().int().tolist()):
                window = drawn[frame, y : y + 28, x : x + 28]
                torch.maximum(window, picture, out=window)
        assert torch.equal(drawn, video)


def test_half_size_is_the_mean_of_two_by_two() -> None:
    half = MovingMNIST(size=(14, 14), frames=1)
    full = MovingMNIST(size=(28, 28), frames=1)  # no room to move: both show the same digit, in place
    mean = torch.nn.functional.avg_pool2d(as_bytes(full.clips(range(9)).video)[:, 0].float(), 2)
    assert (as_bytes(half.clips(range(9)).video)[:, 0] - mean).abs().max() <= 0.5  # rounding


def test_labels_are_the_digits() -> None:
    for labels, digits, positions in zip(CLIPS.labels, CLIPS.digits, CLIPS.positions, strict=True):
        assert set(labels.nonzero().flatten().tolist()) == {d for d in digits.tolist() if d >= 0}
        assert torch.equal(positions.isnan().all(-1).all(-1), digits == -1)
    counts = (CLIPS.digits >= 0).sum(1)
    assert set(counts.tolist()) == {1, 2, 3}


def test_motion_is_straight_clamped_and_reversed() -> None:
    clips = MovingMNIST(frames=60, digits=2, speed=2.3).clips(range(64))
    position, velocity = clips.positions.double(), clips.velocities.double()
    free = 32 - 14
    ahead = position[:, :, :-1] + velocity[:, :, :-1]
    assert torch.equal(position[:, :, 1:], ahead.clamp(0, free))
    turned = torch.where(ahead <= 0, velocity[:, :, :-1].abs(), velocity[:, :, :-1])
    turned = torch.where(ahead >= free, -turned.abs(), turned)
    assert torch.equal(velocity[:, :, 1:], turned)
    speed = velocity.square().sum(-1).sqrt()
    assert (speed - 2.3).abs().max() < 2**-16  # components are rounded to 1/65536 pixel
    assert ((position == 0) | (position == free)).any()


@pytest.mark.parametrize(("size", "speed"), [(64, 3.6), (32, 1.8)])
def test_canonical_speed(size: int, speed: float) -> None:
    velocity = MovingMNIST(size=size).clips(range(16)).velocities
    assert (velocity.square().sum(-1).sqrt() - speed).abs().max() < 1e-4  # 1/65536 pixel


def test_starts_and_directions_are_uniform() -> None:
    clips = MovingMNIST(frames=1).clips(range(4000))
    position, velocity = clips.positions[:, 0, 0] / 18, clips.velocities[:, 0, 0]
    angle = torch.atan2(velocity[:, 0], velocity[:, 1]) / (2 * torch.pi) + 0.5
    for sample in (position[:, 0], position[:, 1], angle):
        gap = (sample.sort().values - (torch.arange(4000) + 0.5) / 4000).abs().max()
        assert gap < 1.95 / 4000**0.5  # Kolmogorov's statistic, exceeded by chance once in 1,000
    assert torch.corrcoef(position.T)[0, 1].abs() < 3.3 / 4000**0.5  # likewise


def test_stochastic_motion_redraws_the_velocity_at_walls_only() -> None:
    clips = MovingMNIST(frames=200, motion="stochastic").clips(range(64))
    position, velocity = clips.positions, clips.velocities
    hit = ((position == 0) | (position == 18))[:, :, 1:]
    changed = (velocity[:, :, 1:] != velocity[:, :, :-1]).any(-1)
    assert not (changed & ~hit.any(-1)).any()
    quarters = velocity / (2 / 4)  # the largest component is 2 pixels per frame at size 32
    assert torch.equal(quarters, quarters.round()) and quarters.abs().max() == 4
    after = quarters[:, :, 1:]
    assert (after[(position == 0)[:, :, 1:]] > 0).all() and (after[(position == 18)[:, :, 1:]] < 0).all()
    one_wall = hit.sum(-1) == 1
    along = after[one_wall][~hit[one_wall]]
    assert set(along.int().tolist()) == set(range(-4, 5))


def test_images_are_independent_single_frames() -> None:
    data = MovingMNIST(digits=2, seed=5)
    video, labels = data.images(range(30))
    assert video.shape == (30, 1, 1, 32, 32) and labels.shape == (30, 10)
    first_frames = data.clips(range(30)).video[:, :, :1]
    assert not (video == first_frames).flatten(1).all(1).any()
    assert torch.equal(data.images([4])[0][0], video[4])


def test_shipped_digits_are_balanced_and_disjoint() -> None:
    train, test = files.load_digits(split="train"), files.load_digits(split="test")
    assert train.labels.bincount().tolist() == [450] * 10 and test.labels.bincount().tolist() == [50] * 10
    assert not {i.numpy().tobytes() for i in train.images} & {i.numpy().tobytes() for i in test.images}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"size": (16, 28)}, "size: digit: expected 1 to 16, got 28"),
        ({"size": (16, 8, 8)}, r"size: expected that of the canvas or \(canvas, digit\), got \(16, 8, 8\)"),
        ({"frames": 0}, "frames: expected at least 1, got 0"),
        ({"digits": 0}, "digits"),
        ({"digits": (2, 1)}, "digits"),
        ({"speed": -1}, "speed"),
        ({"speed": float("nan")}, "speed"),
        ({"motion": "random"}, "'deterministic', 'stochastic', got 'random'"),
        ({"split": "valid"}, "'train', 'test', got 'valid'"),
    ],
)
def test_bad_arguments_are_named(keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MovingMNIST(**keywords)


def test_bad_indices_are_named() -> None:
    with pytest.raises(TypeError, match="list of integers"):
        MovingMNIST().clips([0.5])
    with pytest.raises(TypeError, match="list of integers"):
        MovingMNIST().clips(torch.tensor(3))
    with pytest.raises(ValueError, match="from 0, got -1"):
        MovingMNIST().clips([-1])


# Files


def write_idx(path, array: np.ndarray) -> bytes:
    raw = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return raw


@pytest.fixture
def idx_folder(tmp_path):
    images = np.arange(6 * 28 * 28, dtype=np.uint32).reshape(6, 28, 28).astype(np.uint8)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.array([3, 1, 4, 1, 5, 9], dtype=np.uint8))
    return tmp_path


def test_idx_files_plain_and_gz(idx_folder) -> None:
    digits = files.load_digits(idx_folder)
    assert digits.images.shape == (6, 28, 28) and digits.images[1, 0, 5] == (28 * 28 + 5) % 256
    assert digits.labels.tolist() == [3, 1, 4, 1, 5, 9]
    clips = MovingMNIST(digit_source=idx_folder).clips(range(20))
    assert set(clips.digits.flatten().tolist()) <= {1, 3, 4, 5, 9}


def test_idx_missing_split(idx_folder) -> None:
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte"):
        files.load_digits(idx_folder, "test")


def test_idx_truncated(idx_folder) -> None:
    labels = idx_folder / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-2])
    with pytest.raises(files.DataFileError, match=r"truncated, 4 values where \(6,\) needs 6"):
        files.load_digits(idx_folder)
    images = idx_folder / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-20])
    with pytest.raises(files.DataFileError, match="truncated or damaged gzip"):
        files.read_idx(images)


def test_idx_of_another_kind_or_shape(idx_folder) -> None:
    (idx_folder / "x").write_bytes(b"\x93NUMPY")
    with pytest.raises(files.DataFileError, match="expected an IDX file of bytes"):
        files.read_idx(idx_folder / "x")
    write_idx(idx_folder / "train-labels-idx1-ubyte", np.zeros(5, dtype=np.uint8))
    with pytest.raises(files.DataFileError, match="one integer for each of 6 images"):
        files.load_digits(idx_folder)
    write_idx(idx_folder / "train-images-idx3-ubyte.gz", np.zeros((6, 28, 20), dtype=np.uint8))
    with pytest.raises(files.DataFileError, match=r"expected \(n, h, h\) uint8"):
        files.load_digits(idx_folder)


def test_canonical_clips(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "CANONICAL_SHAPE", (20, 5, 64, 64))  # the real one has 819 MB
    frames = np.random.default_rng(0).integers(0, 256, (20, 5, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "mnist_test_seq.npy", frames)
    data = files.MovingMNISTTest(tmp_path / "mnist_test_seq.npy")
    videos = data.videos([4, 0])
    assert len(data) == 5 and videos.shape == (2, 1, 20, 64, 64) and videos.dtype == torch.float32
    assert torch.equal(as_bytes(videos[0, 0]), torch.from_numpy(frames[:, 4]))
    with pytest.raises(ValueError, match=r"expected 0\.\.4, got 5\.\.5"):
        data.videos([5])
    truncated = tmp_path / "half.npy"
    truncated.write_bytes((tmp_path / "mnist_test_seq.npy").read_bytes()[:-1000])
    with pytest.raises(files.DataFileError, match="truncated"):
        files.MovingMNISTTest(truncated)


def test_canonical_clips_of_another_shape(tmp_path) -> None:
    np.save(tmp_path / "clips.npy", np.zeros((10, 20, 64, 64), dtype=np.uint8))
    with pytest.raises(files.DataFileError, match=r"expected \(20, 10000, 64, 64\).*got \(10, 20, 64, 64\)"):
        files.MovingMNISTTest(tmp_path / "clips.npy")
    with pytest.raises(FileNotFoundError):
        files.MovingMNISTTest(tmp_path / "no.npy")


def test_split_is_balanced_and_repeatable() -> None:
    from minivdm.data.make_digits import split_and_shuffle

    labels = np.repeat(np.arange(10, dtype=np.uint8), 60)
    images = np.arange(600, dtype=np.uint32).view(np.uint8).reshape(600, 4)
    first, second = split_and_shuffle(images, labels), split_and_shuffle(images, labels)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert np.bincount(first["test_labels"]).tolist() == [50] * 10
    together = np.concatenate([first["train_images"], first["test_images"]])
    assert {bytes(image) for image in together} == {bytes(image) for image in images}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_takes_it(workers) -> None:
    data = MovingMNIST(size=16, frames=2)
    data.length = 10
    batches = list(torch.utils.data.DataLoader(data, batch_size=4, num_workers=workers))
    assert [len(video) for video, _ in batches] == [4, 4, 2]
    wanted = data.clips(range(10))
    assert torch.equal(torch.cat([video for video, _ in batches]), wanted.video)
    assert torch.equal(torch.cat([labels for _, labels in batches]), wanted.labels)


def test_items_end_and_clips_go_on() -> None:
    data = MovingMNIST(size=16, frames=2)
    assert len(data) == 60_000 and data[3][0].shape == (1, 2, 16, 16)
    with pytest.raises(IndexError, match="0 to 59999"):
        data[60_000]
    assert len(data.clips([60_000])) == 1


def test_no_indices_make_no_clips() -> None:
    assert MovingMNIST(size=16, frames=2).clips([]).video.shape == (0, 1, 2, 16, 16)


def test_sources_share_their_digits_and_change_none_of_them():
    """Making a source costs next to nothing, and clips stay what they were."""
    first, second = MovingMNIST(), MovingMNIST(seed=1)
    assert first._patches.data_ptr() == second._patches.data_ptr()
    before = first.clips([0]).video
    second.clips(range(4)).video.zero_()
    assert torch.equal(MovingMNIST().clips([0]).video, before)
