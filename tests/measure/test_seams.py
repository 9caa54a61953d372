"""Best of n, consistency of features, seams: on videos that are spoilt in known ways."""

import pytest
import torch

from minivdm.data.moving_mnist import MovingMNIST
from minivdm.measure import metrics
from minivdm.measure.seams import best_of_n, block_seam, feature_consistency

REAL = MovingMNIST(seed=31).clips(range(64)).video
ORDER = torch.randperm(16, generator=torch.Generator().manual_seed(1))


def joined():
    """From frame 8 on, another clip."""
    video = REAL.clone()
    video[:, :, 8:] = REAL.roll(1, 0)[:, :, 8:]
    return video


def shifted(pixels):
    """The same digit goes on, but `pixels` away from where it should be."""
    video = REAL.clone()
    video[:, :, 8:] = video[:, :, 8:].roll(pixels, -1)
    return video


# ---- best of n ----------------------------------------------------------------------------------------------------


def test_best_of_n_picks_each_clips_best_sample():
    target = torch.zeros(2, 1, 3, 4, 4)
    samples = torch.stack([target + 0.5, target + 0.1, target + 0.3])
    samples[0, 1] = 0.05
    values, best = best_of_n(samples, target, metrics.squared_error, larger_is_better=False)
    assert best.tolist() == [1, 0]
    torch.testing.assert_close(values, torch.tensor([[0.05**2] * 3, [0.025**2] * 3]))  # pixels in [0, 1]


def test_best_is_chosen_by_the_whole_clip_and_reported_by_frame():
    target = torch.zeros(1, 1, 2, 4, 4)
    good_start, good_mean = target.clone(), target + 0.5
    good_start[:, :, 1] = 0.9
    values, best = best_of_n(torch.stack([good_start, good_mean]), target, metrics.absolute_error, False)
    assert best.item() == 0 and values.shape == (1, 2)  # 0.225 against 0.25 on average
    assert values[0, 0] == 0


def test_best_of_n_never_gets_worse_with_n(generator):
    samples = REAL[None, :4] + 0.3 * torch.randn(6, *REAL[:4].shape, generator=generator)
    scores = torch.stack([best_of_n(samples[:n], REAL[:4])[0].mean(1) for n in range(1, 7)])
    assert (scores.diff(dim=0) >= 0).all()
    torch.testing.assert_close(scores[0], metrics.psnr(samples[0], REAL[:4]).mean(1))


def test_best_of_n_takes_a_value_per_clip(generator):
    samples = REAL[None, :2] + 0.3 * torch.randn(3, *REAL[:2].shape, generator=generator)
    values, best = best_of_n(samples, REAL[:2], lambda a, b: metrics.psnr(a, b, of="clip"))
    assert values.shape == best.shape == (2,)


# ---- consistency --------------------------------------------------------------------------------------------------


def test_consistency_falls_at_a_change_and_nowhere_else():
    real, spoilt = feature_consistency(REAL), feature_consistency(joined())
    assert real.shape == (64, 15)
    torch.testing.assert_close(spoilt[:, :7], real[:, :7], rtol=0, atol=1e-5)  # float32
    assert spoilt[:, 7].mean() < real[:, 7].mean() - 0.05


def test_consistency_falls_for_shuffled_and_noisy_frames(generator):
    real = feature_consistency(REAL).mean()
    assert feature_consistency(REAL[:, :, ORDER]).mean() < real - 0.02
    noisy = (REAL + 0.4 * torch.randn(REAL.shape, generator=generator)).clamp(-1, 1)
    assert feature_consistency(noisy).mean() < real - 0.02


def test_standing_still_is_perfectly_consistent():
    torch.testing.assert_close(feature_consistency(REAL[:, :, :1].expand_as(REAL)), torch.ones(64, 15))


# ---- seams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["features", "pixels"])
def test_real_clips_have_no_seam(of):
    assert block_seam(REAL, [8], of).mean() == pytest.approx(1, abs=0.1)
    assert block_seam(REAL, [4, 12], of).mean() == pytest.approx(1, abs=0.1)


def test_a_change_of_clip_is_a_seam_where_it_is_and_nowhere_else():
    assert block_seam(joined(), [8]).mean() > 2
    assert block_seam(joined(), [5]).mean() < 1
    assert block_seam(joined(), [8], "pixels").mean() > 1.1


def test_seams_grow_with_the_jump():
    found = [float(block_seam(shifted(pixels), [8]).mean()) for pixels in (0, 2, 4, 8)]
    assert found == sorted(found) and found[-1] > 1.5 * found[0]


def test_a_steady_motion_has_no_jump_of_second_order():
    ramp = torch.linspace(-1, 1, 12)[None, None, :, None, None].expand(1, 3, 12, 8, 8).clone()
    ramp[:, :, 6:] += 0.1
    assert block_seam(ramp, [6], "pixels") > 1e3  # everywhere else rounding alone


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_bad_input_is_named():
    for call in (
        lambda: best_of_n(REAL, REAL),
        lambda: best_of_n(REAL[None, :2], REAL),
        lambda: best_of_n(REAL[None][:0], REAL),
        lambda: block_seam(REAL, []),
        lambda: block_seam(REAL, [1]),
        lambda: block_seam(REAL, [15]),
        lambda: block_seam(REAL, [8], of="sound"),
        lambda: block_seam(REAL[0], [8], of="pixels"),
        lambda: block_seam(REAL, range(2, 15)),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
