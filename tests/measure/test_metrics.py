"""Metrics against independent implementations, and against videos spoilt in known ways."""

import functools
import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from minivdm.data.moving_mnist import MovingMNIST
from minivdm.guards import BadArgument
from minivdm.measure import frechet, metrics, readers

REAL = MovingMNIST(split="test", seed=11).clips(range(96))
NOISY = (REAL.video + 0.3 * torch.randn(REAL.video.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)


@functools.cache
def reading() -> metrics.Reading:
    """What the reader finds in REAL, for all tests: reading takes a second."""
    return metrics.read(REAL.video)


def mean(values: torch.Tensor) -> float:
    return values.double().mean().item()


# Distances


def test_errors_are_per_pixel_in_unit_range() -> None:
    black, white = torch.full((2, 1, 3, 16, 16), -1.0), torch.full((2, 1, 3, 16, 16), 1.0)
    assert torch.equal(metrics.squared_error(black, white), torch.ones(2, 3))
    assert torch.equal(metrics.absolute_error(black, white), torch.ones(2, 3))
    assert torch.equal(metrics.squared_error(black, 0 * white), torch.full((2, 3), 0.25))
    assert torch.equal(metrics.absolute_error(black, 0 * white), torch.full((2, 3), 0.5))


def test_psnr_agrees_with_scikit_image() -> None:
    ours = metrics.psnr(NOISY[:3], REAL.video[:3])
    for b in range(3):
        for f in range(16):
            a, x = (((v[b, 0, f] + 1) / 2).double().numpy() for v in (REAL.video, NOISY))
            # float32 against float64: relative rounding of 1e-7 in the error is 1e-6 dB
            assert abs(peak_signal_noise_ratio(a, x, data_range=1) - ours[b, f]) < 1e-4


def test_psnr_of_the_clip_is_at_most_the_mean_of_its_frames() -> None:
    uneven = REAL.video.clone()
    uneven[:, :, 8:] = NOISY[:, :, 8:]
    uneven[:, :, :8] = 0.5 * (uneven[:, :, :8] + NOISY[:, :, :8])
    of_frames, of_clip = metrics.psnr(uneven, REAL.video), metrics.psnr(uneven, REAL.video, of="clip")
    assert of_frames.shape == (96, 16) and of_clip.shape == (96,)
    assert (of_clip < of_frames.mean(1)).all()
    assert metrics.psnr(REAL.video, REAL.video).isinf().all()


def test_ssim_agrees_with_scikit_image() -> None:
    ours = metrics.ssim(NOISY[:2], REAL.video[:2])
    for b in range(2):
        for f in range(16):
            a, x = (((v[b, 0, f] + 1) / 2).double().numpy() for v in (REAL.video, NOISY))
            theirs = structural_similarity(
                a, x, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            assert abs(theirs - ours[b, f]) < 1e-4  # variances are differences of squares, in float32


def test_ssim_agrees_with_torchmetrics() -> None:
    a, x = ((v[:, 0, :1] + 1) / 2 for v in (REAL.video, NOISY))
    _, places = structural_similarity_index_measure(x, a, sigma=1.5, data_range=1.0, return_full_image=True)
    # It averages over a border of reflected pixels as well; ours is the part without.
    theirs = places[..., 5:-5, 5:-5].mean((1, 2, 3))
    assert (theirs - metrics.ssim(NOISY, REAL.video)[:, 0]).abs().max() < 1e-4  # float32, as above


def test_ssim_of_itself_is_one() -> None:
    assert (metrics.ssim(REAL.video, REAL.video) - 1).abs().max() < 1e-5  # float32


def test_ssim_takes_float64_as_well() -> None:
    double = metrics.ssim(NOISY.double(), REAL.video.double())
    assert double.dtype == torch.float64
    assert (double - metrics.ssim(NOISY, REAL.video)).abs().max() < 1e-4  # the float32 side errs, as above


# The reader


def test_real_clips_are_legible_and_keep_their_identity() -> None:
    # The reader misreads a few of the 500 test digits, always: see its card.
    assert metrics.legibility(REAL.video, REAL.labels, reading=reading()) >= 0.95
    assert metrics.identity(REAL.video, reading=reading()) >= 0.95


def test_two_digits_are_read_too() -> None:
    clips = MovingMNIST(digits=2, split="test", seed=11).clips(range(96))
    found = metrics.read(clips.video)
    assert metrics.legibility(clips.video, clips.labels, reading=found) >= 0.85
    assert metrics.identity(clips.video, reading=found) >= 0.8


def test_full_size_is_read_as_half_size() -> None:
    clips = MovingMNIST(size=64, frames=4, split="test").clips(range(64))
    assert metrics.legibility(clips.video, clips.labels) >= 0.95


def test_other_labels_are_not_found() -> None:
    assert metrics.legibility(REAL.video, REAL.labels.roll(1, dims=1), reading=reading()) <= 0.05
    both = (REAL.labels + REAL.labels.roll(1, dims=1)).clamp(max=1)
    assert metrics.legibility(REAL.video, both, reading=reading()) <= 0.1


def test_noise_and_darkness_are_not_legible() -> None:
    nothing = torch.zeros(96, 10)
    black, noise = torch.full_like(REAL.video, -1), torch.rand(REAL.video.shape, generator=torch.Generator()) * 2 - 1
    dark = metrics.read(black)
    for video, found in ((black, dark), (noise, metrics.read(noise))):
        assert metrics.legibility(video, REAL.labels, reading=found) <= 0.05
        assert metrics.identity(video, reading=found) <= 0.05
    assert not dark.frames.any() and (dark.presence < 0).all()
    assert metrics.legibility(black, nothing, reading=dark) == 1


def test_pieces_in_wrong_order_are_not_legible() -> None:
    y, x = REAL.positions[:, 0, 0].floor().long().unbind(-1)
    frames = torch.full((96, 1, 1, 32, 32), -1.0)
    for b in range(96):
        digit = REAL.video[b, 0, 0, y[b] : y[b] + 14, x[b] : x[b] + 14]
        quarters = digit.roll((7, 7), dims=(0, 1))  # each goes to the corner opposite
        frames[b, 0, 0, 9:23, 9:23] = quarters.flip(1) if b % 2 else quarters
    assert metrics.legibility(frames, REAL.labels) <= 0.25


def test_a_swap_mid_clip_breaks_identity() -> None:
    other = REAL.video.roll(1, dims=0)
    swapped = torch.cat([REAL.video[:, :, :8], other[:, :, 8:]], dim=2)
    differs = (REAL.labels != REAL.labels.roll(1, dims=0)).any(-1)
    found = metrics.read(swapped)
    assert mean(metrics.keeps_identity(swapped, reading=found)[differs]) <= 0.05
    assert mean(metrics.legible(swapped, REAL.labels, reading=found)[differs]) <= 0.4


def test_identity_does_not_ask_for_motion() -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    assert metrics.identity(REAL.video[:, :, order]) >= 0.95


def test_every_frame_of_real_clips_is_read_right() -> None:
    def same(labels: torch.Tensor | None) -> float:
        return mean(metrics.same_in_every_frame(REAL.video, labels, reading=reading()))

    assert same(REAL.labels) >= 0.95  # the reader errs on a frame in thousands
    assert same(None) >= 0.95
    assert same(REAL.labels.roll(1, dims=0)) <= 0.25  # one in ten by chance


def test_one_wrong_frame_breaks_identity_in_every_frame_but_not_in_windows() -> None:
    spoilt = REAL.video.clone()
    spoilt[:, :, 7] = REAL.video.roll(1, dims=0)[:, :, 7]
    differs = (REAL.labels != REAL.labels.roll(1, dims=0)).any(-1)
    found = metrics.read(spoilt)
    assert mean(metrics.same_in_every_frame(spoilt, REAL.labels, reading=found)[differs]) <= 0.02
    assert mean(metrics.keeps_identity(spoilt, reading=found)[differs]) >= 0.8  # a mean over five frames


def test_a_reading_at_hand_is_not_made_again(monkeypatch) -> None:
    videos, labels = NOISY[:6], REAL.labels[:6]
    asked = (
        lambda **given: metrics.legible(videos, labels, **given),
        lambda **given: metrics.keeps_identity(videos, **given),
        lambda **given: metrics.same_in_every_frame(videos, labels, **given),
        lambda **given: torch.tensor(frechet.reader_score(videos, **given)),
    )
    expected, reading = [ask() for ask in asked], metrics.read(videos)

    def refuse(*_):
        raise AssertionError("read once more")

    monkeypatch.setattr(metrics, "read", refuse)
    monkeypatch.setattr(frechet, "read", refuse)
    for ask, answer in zip(asked, expected, strict=True):
        assert torch.equal(ask(reading=reading), answer)


def test_nothing_to_read_has_no_identity() -> None:
    assert not metrics.same_in_every_frame(torch.full_like(REAL.video[:4], -1)).any()


# Bad input


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: ((v + 1) * 127.5).to(torch.uint8), "8-bit pixels"),
        (lambda v: (v + 1) * 127.5, r"up to 25\d"),
        (lambda v: v * math.nan, "NaN"),
        (lambda v: v[:0], "none of them 0"),
        (lambda v: v.numpy(), "expected a real tensor, got ndarray"),
        (lambda v: v.to(torch.complex64), "a real tensor, got Tensor"),
        (lambda v: v[:, :, :3], "equal shape"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.squared_error, metrics.absolute_error, metrics.psnr, metrics.ssim])
def test_either_argument_is_looked_at(metric, spoil, message) -> None:
    video = REAL.video[:2]
    for pair in ((spoil(video), video), (video, spoil(video))):
        with pytest.raises(BadArgument, match=message):
            metric(*pair)


@pytest.mark.parametrize("labels", [2 * torch.eye(10)[:2] - 1, torch.full((2, 10), 0.5), torch.full((2, 10), math.nan)])
def test_labels_are_zeros_and_ones(labels) -> None:
    for metric in (metrics.legible, metrics.same_in_every_frame):
        with pytest.raises(BadArgument, match="labels: expected zeros and ones"):
            metric(REAL.video[:2], labels)


def test_shapes_are_checked() -> None:
    video = REAL.video[:2]
    for call in (
        lambda: metrics.squared_error(video, video[:, :, :5]),
        lambda: metrics.ssim(video[..., :8, :8], video[..., :8, :8]),
        lambda: metrics.psnr(video, video, of="batch"),
        lambda: metrics.read(video[0]),
        lambda: metrics.read(video[..., :20, :20]),
        lambda: metrics.legibility(video, torch.zeros(2, 9)),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_a_changed_weights_file_is_refused(tmp_path, monkeypatch) -> None:
    file = tmp_path / "reader.safetensors"
    file.write_bytes(readers.READER.read_bytes()[:-10])
    file.with_suffix(".json").write_text(readers.READER.with_suffix(".json").read_text())
    monkeypatch.setattr(readers, "READER", file)
    readers.load_reader.cache_clear()
    with pytest.raises(ValueError, match="SHA-256"):
        readers.load_reader()
    readers.load_reader.cache_clear()


def test_nothing_touches_the_global_seed() -> None:
    before = torch.get_rng_state()
    metrics.read(REAL.video[:1])
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(np.asarray(before), np.ndarray)
