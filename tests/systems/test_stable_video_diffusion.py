"""Stable Video Diffusion: faults that are known are found, flow of a known shift, guidance as its formula."""

import math

import pytest
import torch

from minivdm.core import CosineSchedule
from minivdm.data import MovingMNIST
from minivdm.exact import GaussianVideo
from minivdm.guards import BadArgument
from minivdm.systems import stable_video_diffusion as svd

CLIPS = MovingMNIST(frames=12, seed=4, speed=0.9).clips(torch.arange(40)).video


def test_faults_are_what_they_are_called():
    found = svd.dirty_set(CLIPS)
    assert [int((found.fault == kind).sum()) for kind in range(4)] == [10, 10, 10, 10]
    assert torch.equal(found.videos[found.fault == svd.CLEAN], CLIPS[found.fault == svd.CLEAN])
    still = found.videos[found.fault == svd.STILL]
    assert torch.equal(still, still[:, :, :1].expand_as(still))
    for i in (found.fault == svd.CUT).nonzero()[:, 0].tolist():
        at = found.cut[i]
        assert torch.equal(found.videos[i, :, :at], CLIPS[i, :, :at])
        assert torch.equal(found.videos[i, :, at:], CLIPS[i - 1, :, at:])


def smooth(shift: tuple[float, float], frames: int = 5) -> torch.Tensor:
    """A pattern of slow waves under a soft window, moving by `shift` pixels a frame."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    made = []
    for f in range(frames):
        v, u = y - 30 - shift[0] * f, x - 30 - shift[1] * f
        made.append(torch.exp(-(u**2 + v**2) / 128) * torch.cos(u / 8) * torch.cos(v / 9))
    return torch.stack(made)[None, None]


@pytest.mark.parametrize("shift", [(0.3, 0.0), (0.0, -0.5), (0.2, 0.4)])
def test_flow_of_a_known_shift(shift):
    found = svd.flow(smooth(shift))
    assert (found - torch.tensor(shift)).abs().max() < 0.02  # differences for slopes of waves 8 pixels long
    assert svd.motion_score(smooth(shift)).item() == pytest.approx(math.hypot(*shift), abs=0.02)


def test_what_stands_still_or_is_empty_has_no_flow():
    assert svd.motion_score(torch.cat([smooth((0, 0)), torch.zeros(1, 1, 5, 64, 64)])).tolist() == [0, 0]


def test_one_cut_of_smooth_motion_is_found_where_it_is():
    clip = torch.cat([smooth((0.3, 0.1), 6), smooth((0.3, 0.1), 6).flip(3, 4).roll(20, 4)], dim=2)
    assert svd.cuts(clip).nonzero().tolist() == [[0, 5]]
    assert not svd.cuts(smooth((0.3, 0.1), 12)).any()


def test_roughness_of_white_noise_and_of_a_wave():
    noise = torch.randn(4, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert (svd.roughness(noise) - 1).abs().max() < 0.03  # five standard errors
    wave = torch.cos(torch.arange(64) * math.pi / 8).expand(
        1, 1, 2, 64, 64
    )  # columns alike, so half of all steps are 0
    assert svd.roughness(wave).item() == pytest.approx((1 - math.cos(math.pi / 8)) / 2, rel=0.03)
    assert svd.roughness(torch.zeros(1, 1, 2, 8, 8)).item() == 0


def test_the_filter_prefers_clean_clips():
    found = svd.dirty_set(CLIPS)
    kept = svd.keep(found.videos)
    share = [kept[found.fault == kind].float().mean().item() for kind in range(4)]
    assert share[svd.STILL] == share[svd.CLUTTER] == 0 and share[svd.CUT] < 0.5 < share[svd.CLEAN]
    blind = svd.keep(found.videos, most_roughness=None)
    mix = [(kept[found.fault == svd.CLUTTER].sum() / kept.sum()).item() for kept in (torch.ones(40) > 0, blind)]
    assert mix[1] > mix[0]  # what it does not look for has a larger share of what is left


def test_growing_guidance_against_its_formula():
    schedule, z = CosineSchedule(-12, 12), torch.randn(3, 1, 4, 1, 1, dtype=torch.float64)
    given, without = GaussianVideo(4, 0.9).denoiser(schedule), GaussianVideo(4, 0.2).denoiser(schedule)
    weights = svd.growing(0.0, 1.5, 4)
    found = svd.GrowingGuidance(given, without, weights)(z, 0.5)
    a, b = given(z, 0.5), without(z, 0.5)
    assert weights.tolist() == [0.0, 0.5, 1.0, 1.5]
    for f in range(4):
        assert torch.allclose(found[:, :, f], a[:, :, f] + f / 2 * (a[:, :, f] - b[:, :, f]))


def test_the_first_frame_as_a_condition():
    x = torch.randn(2000, 1, 3, 1, 1)
    held, sigma = svd.first_frame(x, None, torch.Generator().manual_seed(0))
    assert torch.equal(held[:, :, 0], held[:, :, 2]) and (sigma == 0.02).all()
    assert (held - x[:, :, :1]).std().item() == pytest.approx(0.02, rel=0.1)
    _, sigma = svd.first_frame(x, generator=torch.Generator().manual_seed(0))
    assert sigma.log().mean().item() == pytest.approx(-3, abs=0.06)  # five standard errors
    assert sigma.log().std().item() == pytest.approx(0.5, abs=0.05)


def test_errors():
    with pytest.raises(BadArgument, match="share"):
        svd.dirty_set(CLIPS, share=0.5)
    with pytest.raises(BadArgument, match="3 frames"):
        svd.cuts(CLIPS[:, :, :2])
    with pytest.raises(BadArgument, match="weights"):
        svd.GrowingGuidance(*[GaussianVideo(4).denoiser(CosineSchedule())] * 2, torch.tensor([-1.0]))
