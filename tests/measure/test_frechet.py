"""Fréchet distances: the formula against closed forms, the encoder against spoilt videos, FVD's own network file."""

import json
import math

import pytest
import scipy.linalg
import torch
from torch import nn
from torch.nn import functional

from minivdm.data.moving_mnist import MovingMNIST
from minivdm.exact import Law, wasserstein
from minivdm.measure import frechet, metrics, readers

N = 96
REAL = MovingMNIST(seed=21).clips(range(N))
REFERENCE = MovingMNIST(seed=22).clips(range(N)).video
BASE_FRAMES = frechet.frame_distance(REAL.video, REFERENCE)
BASE_CLIPS = frechet.clip_distance(REAL.video, REFERENCE)


# ---- the formula --------------------------------------------------------------------------------------------------


def test_distance_is_that_of_the_fitted_gaussians(generator):
    a = torch.randn(300, 5, generator=generator, dtype=torch.float64) @ torch.randn(5, 5, generator=generator).double()
    b = torch.randn(200, 5, generator=generator, dtype=torch.float64) + 0.3
    laws = [Law(cloud.mean(0), torch.cov(cloud.T)) for cloud in (a, b)]
    assert frechet.frechet(a, b) == pytest.approx(wasserstein(*laws) ** 2, rel=1e-9)
    # and as FID is usually written, with the square root of the product
    root = scipy.linalg.sqrtm((laws[0].covariance @ laws[1].covariance).numpy()).real
    usual = (a.mean(0) - b.mean(0)).square().sum() + laws[0].covariance.trace() + laws[1].covariance.trace()
    assert frechet.frechet(a, b) == pytest.approx(float(usual) - 2 * root.trace(), rel=1e-7)


def test_distance_of_a_shift_is_its_square(generator):
    a = torch.randn(100, 3, generator=generator)
    assert frechet.frechet(a, a) < 1e-9  # float64 rounding of roots
    assert frechet.frechet(a, a + 2) == pytest.approx(12, rel=1e-6)
    assert frechet.frechet(a, 3 * a) == pytest.approx(
        float((2 * a.double().mean(0)).square().sum() + 4 * torch.cov(a.double().T).trace()), rel=1e-6
    )


def test_distance_of_fewer_samples_than_dimensions_is_finite(generator):
    a, b = torch.randn(8, 64, generator=generator), torch.randn(8, 64, generator=generator)
    assert math.isfinite(frechet.frechet(a, b)) and frechet.frechet(a, a) < 1e-6


def test_bias_falls_with_the_number_of_samples(generator):
    # Two draws of one law: the expectation is not 0, and halves about with every doubling.
    def mean(n):
        draws = [torch.randn(2, n, 8, generator=generator) for _ in range(30)]
        return sum(frechet.frechet(*pair) for pair in draws) / 30

    few, more = mean(64), mean(256)
    assert few > 2.5 * more > 0  # 4 in the limit


# ---- the encoder on real and on spoilt videos ---------------------------------------------------------------------


def blurred(share):
    return torch.lerp(REAL.video, functional.avg_pool3d(REAL.video, (1, 3, 3), 1, (0, 1, 1)), share)


def noisy(level):
    noise = torch.randn(REAL.video.shape, generator=torch.Generator().manual_seed(3))
    return (REAL.video + level * noise).clamp(-1, 1)


def swapped():
    """The digit of the next clip from frame 8 on, on the same track."""
    video, corner = REAL.video.clone(), REAL.positions[:, 0].floor().long()
    for i in range(N):
        (y, x), j = corner[(i + 1) % N, 0], (i + 1) % N
        for f in range(8, 16):
            row, column = corner[i, f]
            video[i, 0, f] = -1
            video[i, 0, f, row : row + 14, column : column + 14] = REAL.video[j, 0, 0, y : y + 14, x : x + 14]
    return video


ORDER = torch.randperm(16, generator=torch.Generator().manual_seed(4))


def collapsed():
    return REAL.video[:6].repeat(N // 6, 1, 1, 1, 1)


@pytest.mark.parametrize("spoilt", [lambda: blurred(1.0), lambda: noisy(0.2), collapsed],
                         ids=["blur", "noise", "collapse"])  # fmt: skip
def test_both_distances_see_blur_noise_and_collapse(spoilt):
    assert frechet.frame_distance(spoilt(), REFERENCE) > 4 * BASE_FRAMES
    assert frechet.clip_distance(spoilt(), REFERENCE) > 4 * BASE_CLIPS


def test_distances_grow_with_the_corruption():
    reference = [part.flatten(0, -2) for part in frechet.features(REFERENCE)]
    for make, levels in ((blurred, (0.5, 0.75, 1.0)), (noisy, (0.1, 0.2, 0.4))):
        found = [[part.flatten(0, -2) for part in frechet.features(make(level))] for level in levels]
        for of, cloud in enumerate(reference):
            distances = [frechet.frechet(spoilt[of], cloud) for spoilt in found]
            assert distances == sorted(distances) and distances[2] > 2 * distances[0]


@pytest.mark.parametrize("spoilt", [lambda: REAL.video[:, :, ORDER], lambda: REAL.video[:, :, :1].expand_as(REAL.video),
                                    swapped], ids=["shuffled", "frozen", "swapped identity"])  # fmt: skip
def test_only_the_clip_distance_sees_time(spoilt):
    assert frechet.clip_distance(spoilt(), REFERENCE) > 2 * BASE_CLIPS
    assert frechet.frame_distance(spoilt(), REFERENCE) < 2 * BASE_FRAMES  # frozen clips have fewer different frames


def test_frames_in_any_order_are_the_same_set_of_frames():
    shuffled = frechet.frame_distance(REAL.video[:, :, ORDER], REFERENCE)
    assert shuffled == pytest.approx(BASE_FRAMES, rel=1e-4)  # float32 features in another order


def test_clips_of_any_length_and_size_have_features():
    assert frechet.clip_features(REAL.video[:3, :, :5]).shape == (3, 64)
    assert frechet.clip_features(REAL.video[:3].repeat(1, 1, 4, 1, 1)).shape == (3, 64)
    doubled = REAL.video[:3].repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(frechet.clip_features(doubled), frechet.clip_features(REAL.video[:3]), rtol=0, atol=1e-4)


def test_a_feature_belongs_to_its_own_clip_whatever_the_batch():
    whole = frechet.features(REAL.video[:10], batch=64)
    parts = frechet.features(REAL.video[:10], batch=3)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)  # float32 sums in another order


def test_the_card_tells_what_the_encoder_reads():
    card = json.loads(readers.ENCODER.with_suffix(".json").read_text())
    assert card["errors_on_500_clips"]["test"]["digits of frames"] > 0.85
    assert card["errors_on_500_clips"]["test"]["velocity, pixels per frame"] < 0.5
    assert card["bytes"] == readers.ENCODER.stat().st_size < 1e6
    assert "neither FID nor FVD" in card["what"]


def test_a_changed_encoder_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "encoder.safetensors"
    file.write_bytes(readers.ENCODER.read_bytes()[:-10])
    file.with_suffix(".json").write_text(readers.ENCODER.with_suffix(".json").read_text())
    monkeypatch.setattr(readers, "ENCODER", file)
    readers.load_encoder.cache_clear()
    with pytest.raises(ValueError, match="SHA-256"):
        readers.load_encoder()
    monkeypatch.setattr(readers, "ENCODER", tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError, match="train_clip_encoder"):
        readers.load_encoder()


# ---- the reader's score -------------------------------------------------------------------------------------------


def score(monkeypatch, logits):
    reading = metrics.Reading(logits=logits[:, None].expand(-1, 2, -1), presence=logits[:, :1].expand(-1, 2))
    monkeypatch.setattr(frechet, "read", lambda videos: reading)
    return frechet.reader_score(torch.zeros(len(logits), 1, 2, 32, 32))


def test_score_of_clear_and_even_digits_is_ten(monkeypatch):
    assert score(monkeypatch, 60 * torch.eye(10).repeat(3, 1)) == pytest.approx(10)


def test_score_of_one_digit_and_of_no_digit_is_one(monkeypatch):
    assert score(monkeypatch, 60 * torch.eye(10)[:1].repeat(5, 1)) == pytest.approx(1)
    assert score(monkeypatch, torch.zeros(5, 10)) == pytest.approx(1)


def test_score_counts_the_digits_that_come_up(monkeypatch):
    assert score(monkeypatch, 60 * torch.eye(10)[:4].repeat(5, 1)) == pytest.approx(4)


@pytest.mark.skipif(not readers.READER.exists(), reason="the digit reader's weights are not there")
def test_score_sees_noise_blur_and_collapse():
    real = frechet.reader_score(REAL.video)
    assert real > 7
    for spoilt in (noisy(0.8), REAL.video[:2].repeat(20, 1, 1, 1, 1)):
        assert frechet.reader_score(spoilt) < 0.5 * real
    assert frechet.reader_score(REAL.video[:, :, ORDER]) == pytest.approx(real, rel=1e-3)  # it does not see time


# ---- FVD proper ---------------------------------------------------------------------------------------------------


class FakeI3D(nn.Module):
    """Called as I3D is; its 400 logits are a few means of the video."""

    def __init__(self, logits: int = 400):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, logits))

    def forward(self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False):
        assert x.shape[1] == 3 and x.shape[3] == 224 and not rescale and not resize and return_features
        return x.mean([1, 2, 3, 4])[:, None] * self.weight


def saved(tmp_path, module):
    path = tmp_path / "i3d.pt"
    torch.jit.script(module).save(str(path))
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_fvd_is_the_distance_of_the_networks_logits(tmp_path, generator):
    i3d = frechet.load_i3d(saved(tmp_path, FakeI3D()))
    a, b = (torch.rand(6, 1, 10, 8, 8, generator=generator) * high for high in (0.5, 1))
    logits = [videos.mean((1, 2, 3, 4))[:, None] * torch.linspace(-1, 1, 400) for videos in (a, b)]
    assert frechet.fvd(a, b, i3d, batch=4) == pytest.approx(frechet.frechet(*logits), rel=1e-4)  # resizing in float32


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_files_that_are_no_i3d(tmp_path):
    with pytest.raises(FileNotFoundError, match="found nothing"):
        frechet.load_i3d(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("not a network")
    with pytest.raises(frechet.NotAnI3D, match="TorchScript"):
        frechet.load_i3d(tmp_path / "text.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(frechet.NotAnI3D, match="TorchScript"):
        frechet.load_i3d(tmp_path / "weights.pt")
    with pytest.raises(frechet.NotAnI3D, match="400 finite logits"):
        frechet.load_i3d(saved(tmp_path, FakeI3D(10)))
    with pytest.raises(frechet.NotAnI3D, match="called as I3D"):
        frechet.load_i3d(saved(tmp_path, nn.Linear(3, 3)))


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_bad_input_is_named():
    video = REAL.video[:3]
    for call in (
        lambda: frechet.features(video[0]),
        lambda: frechet.features(video[..., :20, :20]),
        lambda: frechet.features(video.expand(3, 2, 16, 32, 32)),
        lambda: frechet.features(video[:0]),
        lambda: frechet.frechet(torch.zeros(3, 4), torch.zeros(3, 5)),
        lambda: frechet.frechet(torch.full((3, 4), math.nan), torch.zeros(3, 4)),
        lambda: frechet.fvd(video[0], video, lambda x: x),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
    for call in (
        lambda: frechet.features(video[:, :, :4]),
        lambda: frechet.clip_distance(video[:1], video),
        lambda: frechet.reader_score(video[:1]),
        lambda: frechet.fvd(video[:, :, :9], video, lambda x: x),
    ):
        with pytest.raises(frechet.NotEnoughVideos, match="at least"):
            call()


@pytest.mark.parametrize("load", [readers.load_encoder, readers.load_reader])
def test_loading_draws_nothing_from_the_global_generator(load):
    load.cache_clear()
    before = torch.get_rng_state()
    load()
    assert torch.equal(torch.get_rng_state(), before)
