"""Tracks against motions that are known, rigidity against clips spoilt in known ways."""

import math

import pytest
import torch

from minivdm.data.moving_mnist import MovingMNIST
from minivdm.guards import BadArgument
from minivdm.measure import tracks

REAL = MovingMNIST(split="test", seed=11).clips(range(96))


def mean(values: torch.Tensor) -> float:
    return values.double().mean().item()


@pytest.mark.parametrize("keywords", [{}, {"size": 64, "frames": 20}, {"speed": 3.0}, {"speed": 0.0}])
def test_real_tracks_are_straight(keywords: dict) -> None:
    clips = MovingMNIST(split="test", **keywords).clips(range(48))
    track = tracks.fit_track(clips.video)
    # Whole-pixel drawing gives sqrt(2/12) = 0.41 on average; a clip's own figure varies about it.
    assert mean(track.deviation) < 0.45 and track.deviation.max() < 0.7
    assert mean((track.velocity - clips.velocities[:, 0, 0]).abs()) < 0.1  # rounding, spread over the frames
    assert track.observed.shape == track.fitted.shape == (48, clips.video.shape[2], 2)


def test_stochastic_bounces_are_not_straight() -> None:
    clips = MovingMNIST(motion="stochastic", split="test").clips(range(48))
    assert mean(tracks.track_deviation(clips.video)) > 0.8


def test_shuffled_frames_are_not_straight() -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    assert (tracks.track_deviation(REAL.video[:, :, order]) > 1).all()


def test_a_jump_and_a_jitter_are_measured() -> None:
    jump = REAL.video.clone()
    jump[:, :, 8:] = torch.roll(jump[:, :, 8:], (5, 5), dims=(-2, -1))
    assert mean(tracks.track_deviation(jump)) > 1
    jitter = torch.stack([torch.roll(REAL.video[:, :, f], (2 * (-1) ** f, 0), dims=(-2, -1)) for f in range(16)], dim=2)
    expected = math.hypot(2, 0.41)
    still = (REAL.positions[:, 0, :, 0] > 2.5).all(1) & (REAL.positions[:, 0, :, 0] < 15.5).all(1)  # no wrap
    assert abs(mean(tracks.track_deviation(jitter)[still]) - expected) < 0.15


def test_a_frame_without_ink_has_no_track() -> None:
    gone = REAL.video[:4].clone()
    gone[:, :, 7] = -1
    track = tracks.fit_track(gone)
    assert track.deviation.isinf().all() and track.observed[:, 7].isnan().all()


# Rigidity


def test_whole_pixels_are_rigid() -> None:
    # Digits are drawn at whole pixels, so that neighbouring frames are shifts of each other; 1e-6 is for the FFT.
    assert tracks.rigidity(REAL.video).max() < 1e-6
    large = MovingMNIST(size=64, frames=6, split="test").clips(range(8))
    assert tracks.rigidity(large.video).max() < 1e-6


def test_it_is_the_smallest_change_over_all_shifts() -> None:
    """Against the definition, written out as a loop over shifts of padded frames."""
    video = REAL.video[:3, :, :4] + 0.2 * torch.randn(3, 1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    y = (video.double().clamp(-1, 1) + 1) / 2
    padded = torch.nn.functional.pad(y, (2, 2, 2, 2))
    changes = [
        (padded[:, :, 1:] - padded[:, :, :-1].roll((dy, dx), (-2, -1))).square().sum((1, 3, 4))
        for dy in (-2, -1, 0, 1, 2)
        for dx in (-2, -1, 0, 1, 2)
    ]
    energy = y.square().sum((1, 3, 4))
    expected = torch.stack(changes).amin(0).sum(1) / ((energy[:, 1:] + energy[:, :-1]).sum(1) / 2)
    assert torch.allclose(tracks.rigidity(video, reach=2).double(), expected, atol=1e-6)  # the result is float32


def test_redrawn_strokes_are_seen_where_the_path_is_right() -> None:
    other = MovingMNIST(split="test", seed=12).clips(range(96))
    y, x = REAL.positions[:, 0].floor().long().unbind(-1)
    p, q = other.positions[:, 0, 0].floor().long().unbind(-1)
    redrawn = REAL.video.clone()
    for b in range(96):  # every second frame shows another digit at the same place
        glyph = other.video[b, 0, 0, p[b] : p[b] + 14, q[b] : q[b] + 14]
        for f in range(1, 16, 2):
            redrawn[b, 0, f] = -1
            redrawn[b, 0, f, y[b, f] : y[b, f] + 14, x[b, f] : x[b, f] + 14] = glyph
    assert mean(tracks.rigidity(redrawn)) > 0.5
    assert mean(tracks.track_deviation(redrawn)) < 1.0  # which the track does not see


def test_frames_that_share_nothing_have_the_value_two() -> None:
    apart = torch.full((1, 1, 2, 32, 32), -1.0)
    apart[0, 0, 0, 1, 1] = apart[0, 0, 1, 30, 30] = 1.0  # further apart than the largest shift
    assert tracks.rigidity(apart) == 2
    assert tracks.rigidity(torch.full((2, 1, 4, 32, 32), -1.0)).tolist() == [2, 2]


def test_colour_is_one_shape() -> None:
    colour = REAL.video[:4].expand(-1, 3, -1, -1, -1)
    assert tracks.rigidity(colour).max() < 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: tracks.rigidity(v[:, :, :1]), "at least 2 frames"),
        (lambda v: tracks.rigidity(v, reach=-1), "reach"),
        (lambda v: tracks.rigidity(v * math.nan), "NaN"),
        (lambda v: tracks.fit_track(v[..., :20, :]), "expected"),
        (lambda v: tracks.fit_track(v.expand(-1, 3, -1, -1, -1)), "expected"),
    ],
)
def test_bad_videos_are_named(call, message) -> None:
    with pytest.raises(BadArgument, match=message):
        call(REAL.video[:2])
