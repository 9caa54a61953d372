"""The drawings of lesson 12, and its equations."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.course.notebook.figures import corruptions
from minivdm.course.notebook.figures import evaluation as fig
from minivdm.data import MovingMNIST
from minivdm.exact import GaussianVideo
from minivdm.measure import frechet, metrics, tracks

CLIPS = fig.real_clips(0, 8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- equations


def test_a_sample_costs_twice_the_error_of_the_mean_and_averages_less():
    world = GaussianVideo(6, 0.9)
    x = world.sample(20000, generator())
    future = world.given(x[:, :, :2])
    total = future.covariance.trace()
    draws = torch.stack([future.sample(20000, generator(1 + k)) for k in range(4)])
    of_mean = (future.mean - x.flatten(1)).square().sum(1).mean()
    # 20,000 draws: standard errors below 1 %
    assert abs(of_mean / total - 1) < 0.04
    assert abs((draws[0] - x).square().flatten(1).sum(1).mean() / (2 * total) - 1) < 0.04
    assert abs((draws.mean(0) - x).square().flatten(1).sum(1).mean() / (1.25 * total) - 1) < 0.04


def test_frechet_is_the_least_cost_of_a_coupling():
    g = generator()
    a, b = (torch.randn(5, 5, generator=g, dtype=torch.float64) for _ in range(2))
    c1, c2 = a @ a.T, b @ b.T

    def root(c):
        variances, axes = torch.linalg.eigh(c)
        return axes * variances.clamp(min=0).sqrt() @ axes.T

    u, s, vt = torch.linalg.svd(root(c2) @ root(c1))
    best = root(c1) @ (vt.T @ u.T) @ root(c2)
    assert abs(best.trace() - s.sum()) < 1e-9  # step 3 of the derivation holds with equality
    joint = torch.cat([torch.cat([c1, best], 1), torch.cat([best.T, c2], 1)])
    assert torch.linalg.eigvalsh(joint).min() > -1e-9  # and it is a covariance; float64 rounding
    # Clouds with exactly these moments: the columns of a root, centred and scaled.
    n = 10
    columns = [torch.ones(n, 1, dtype=torch.float64), torch.randn(n, 5, generator=g, dtype=torch.float64)]
    basis = torch.linalg.qr(torch.cat(columns, 1))[0][:, 1:]  # orthonormal, and of mean 0
    clouds = [basis @ root(c) * math.sqrt(n - 1) for c in (c1, c2)]
    assert abs(frechet.frechet(*clouds) - (c1.trace() + c2.trace() - 2 * s.sum())) < 1e-8


@pytest.mark.parametrize("d", [1, 6])
def test_bias_of_frechet(d):
    found = fig.white_distances(d, [200], repeats=300)[0]
    # the standard error of 300 repeats is below 5 %; the next order, d/n, is smaller still
    assert abs(found / fig.bias_of_frechet(d, 200, 200) - 1) < 0.15


def test_a_line_over_one_over_n_is_extended_to_zero():
    counts = [10, 20, 50]
    intercept, slope = fig.extrapolated(counts, [2.0 + 30.0 / n for n in counts])
    assert abs(intercept - 2) < 1e-12 and abs(slope - 30) < 1e-10  # float64 rounding


def test_standard_error_of_a_share():
    draws = (torch.rand(4000, 50, generator=generator()) < 0.3).float().mean(1)
    assert abs(draws.std() / fig.standard_error(0.3, 50) - 1) < 0.05  # 4,000 repeats: about 1 %


def test_score_is_the_exponential_of_a_difference_of_entropies():
    log_p = metrics.read(CLIPS.video).logits.mean(1).double().log_softmax(-1)
    p = log_p.exp()
    marginal = p.mean(0)
    difference = -(marginal * marginal.log()).sum() + (p * log_p).sum(-1).mean()
    assert abs(frechet.reader_score(CLIPS.video) - float(difference.exp())) < 1e-5  # log(n) is float32


# --- corruptions


@pytest.mark.parametrize("name", fig.CORRUPTIONS)
def test_corruptions_begin_with_the_clip_itself_and_grow(name):
    damage = [(fig.CORRUPTIONS[name](CLIPS, strength) - CLIPS.video).abs().mean() for strength in (0.0, 0.5, 1.0)]
    assert damage[0] == 0 and 0 < damage[1] < damage[2]
    assert fig.CORRUPTIONS[name](CLIPS, 1.0).abs().max() <= 1 + 1e-5  # rounding of the blur


def test_frozen_shuffled_and_collapsed_are_what_they_are_called():
    names = ("frozen", "shuffled", "mode collapse")
    frozen, shuffled, collapsed = (corruptions.CORRUPTIONS[name](CLIPS, 1.0) for name in names)
    assert torch.equal(frozen, CLIPS.video[:, :, :1].expand_as(CLIPS.video))
    # the same frames, in another order
    ink, mixed = (video.sum((1, 3, 4)).sort(1).values for video in (CLIPS.video, shuffled))
    assert (ink - mixed).abs().max() < 1e-3  # float32 sums
    assert torch.equal(collapsed, CLIPS.video[:1].expand_as(CLIPS.video))


@pytest.mark.parametrize("name", list(corruptions.CORRUPTIONS))
def test_strength_zero_leaves_clips_as_they_are(name):
    assert torch.equal(corruptions.CORRUPTIONS[name](CLIPS, 0.0), CLIPS.video)


def test_a_swap_keeps_the_first_half_and_the_path():
    swapped = corruptions.swapped(CLIPS, 1.0)
    assert torch.equal(swapped[:, :, :8], CLIPS.video[:, :, :8])
    assert tracks.track_deviation(swapped).max() < 1.5
    first = CLIPS.positions[0, 0, 12].floor().long()
    other = CLIPS.positions[1, 0, 12].floor().long()
    (y, x), (v, u) = first.tolist(), other.tolist()
    assert torch.equal(swapped[0, 0, 12, y : y + 14, x : x + 14], CLIPS.video[1, 0, 12, v : v + 14, u : u + 14])


# --- figures


def test_the_slider_shows_what_was_measured():
    drawn = fig.draw_corruption("shuffled", 0.5)
    value = fig.measured("shuffled", 0.5, 16)["track deviation"]
    assert f"track deviation {value:.2f}" in drawn.get_suptitle()
    shown = torch.as_tensor(drawn.axes[6 + 1].images[0].get_array().data)
    assert torch.equal(shown, corruptions.shuffled(fig.real_clips(0, 8), 0.5)[0, 0, 3])


def test_the_others_return_figures(monkeypatch):
    monkeypatch.setattr(fig, "alarmed", lambda name, value: name == "SSIM")
    row = {"PSNR": 99.0, "SSIM": 0.5, "clip distance": 12.0}
    for drawn in (
        fig.draw_table({"blur": row}, row), fig.draw_bias(4, [10, 20], [2.0, 1.0], [10, 20], [2.0, 1.5]),
    ):  # fmt: skip
        assert isinstance(drawn, Figure)


def test_alarms(monkeypatch):
    monkeypatch.setattr(fig, "spread_of_real", lambda: {"clip distance": (2.0, 0.1), "identity": (1.0, 0.02)})
    assert fig.alarmed("clip distance", 3.1) and not fig.alarmed("clip distance", 2.9)
    assert fig.alarmed("identity", 0.9) and not fig.alarmed("identity", 0.95)
    assert fig.alarmed("PSNR", 30.0) and not fig.alarmed("SSIM", 1.0)


def test_a_digit_is_found_wherever_it_is_and_however_bright():
    """(12.16): 0 for the digit itself at any place and brightness, 1 for ink that no digit has."""
    digits = fig.digits_of("train")[:40]
    frames = -torch.ones(2, 1, 32, 32)
    frames[0, 0, 3:17, 11:25] = 2 * digits[7] - 1
    frames[1, 0, 18:32, 0:14] = 2 * (0.3 * digits[31]) - 1
    distance, which = fig.nearest_digit(frames, digits)
    assert which.tolist() == [7, 31]
    assert torch.allclose(distance, torch.zeros(2), atol=1e-5)  # of float32 sums
    assert fig.placed(digits[:3]).shape == (1, 3, 32, 32)


def test_clips_show_the_digits_that_are_compared_with():
    clips = MovingMNIST(32, 4).clips(range(6)).video
    assert fig.nearest_digit(clips[:, :, 1], fig.digits_of("train"))[0].max() < 1e-5
