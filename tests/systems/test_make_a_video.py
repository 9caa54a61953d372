"""Make-A-Video's parts: what is masked, what noise frames share, and the whole composition."""

import pytest
import torch

from minivdm.data.captions import CaptionError
from minivdm.data.files import load_digits
from minivdm.guards import BadArgument
from minivdm.systems import make_a_video
from minivdm.systems.make_a_video import STAGES, features, load_make_a_video, masked, same_for_all_frames, spread
from minivdm.training import stages


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(0)
    made = make_a_video.untrained()
    for name in STAGES:
        part = getattr(made, name).eval().requires_grad_(False)
        torch.nn.init.normal_(part.network.head.weight if name in ("prior", "image", "larger")
                              else part.network.head.spatial.weight, std=0.02)  # fmt: skip
    return made


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def test_features_know_what_is_shown_more_than_where():
    """The same digit elsewhere is nearer than any of 29 others in its place, for nine of ten."""
    digits = load_digits(None, "test").images[:30].float().reshape(30, 1, 14, 2, 14, 2).mean((3, 5)) / 127.5 - 1
    here, there = (torch.nn.functional.pad(digits, (k, 18 - k, 9, 9), value=-1) for k in (5, 13))
    nearest = torch.cdist(features(there), features(here)).argmin(1)
    assert float((nearest == torch.arange(30)).float().mean()) >= 0.9
    with pytest.raises(BadArgument, match="frames"):
        features(torch.zeros(1, 1, 16, 16))


def test_masked_frames_are_zero_whatever_was_in_them():
    clips, known = torch.rand(2, 1, 4, 2, 2), torch.tensor([True, False, False, True])
    spoilt = clips.clone()
    spoilt[:, :, 1] = torch.nan
    made = masked(spoilt, known)
    assert made.shape == (2, 2, 4, 2, 2) and torch.equal(made[:, 0, [0, 3]], clips[:, 0, [0, 3]])
    assert not bool(made[:, :, 1:3].any()) and bool((made[:, 1, [0, 3]] == 1).all())
    with pytest.raises(BadArgument, match="known"):
        masked(clips, known[:3])


def test_spreading_takes_frames_apart():
    clips = torch.rand(1, 1, 3, 2, 2)
    longer, known = spread(clips)
    assert known.tolist() == [True, False] * 3 and torch.equal(longer[:, :, ::2], clips)


def test_shared_noise_is_normal_and_the_same_in_all_frames():
    noise = same_for_all_frames(4, (1, 3, 40, 40), dice())
    assert torch.equal(noise[:, :, 0], noise[:, :, 2]) and not torch.equal(noise[0], noise[1])
    assert abs(float(noise[:, :, 0].std()) - 1) < 0.04  # 6,400 values: four standard errors


def test_a_still_clip_stays_still_from_shared_noise(system):
    """SR_h has no layers over time: equal frames, equal noise, equal result. With noise of their own they differ."""
    still, embedding = torch.rand(1, 1, 1, 32, 32).expand(-1, -1, 3, -1, -1), torch.zeros(1, 96)
    same = system.enlarge(still, embedding, 2, dice())
    torch.testing.assert_close(same[:, :, 0], same[:, :, 2], rtol=0, atol=1e-5)
    own = system.enlarge(still, embedding, 2, dice(), same_noise=False)
    assert float((own[:, :, 0] - own[:, :, 2]).abs().max()) > 1e-3


def test_the_untrained_video_model_makes_the_image_models_frames(system):
    embedding = torch.randn(2, 96, generator=dice(1))
    apart = system.frames(embedding, 1.0, 2, dice(), apart=True)
    system.video.network.head.spatial.load_state_dict(system.image.network.head.state_dict())
    assert torch.equal(system.frames(embedding, 1.0, 2, dice()), apart)


def test_the_whole_composition_has_its_shapes_and_keeps_the_frames_that_it_fills_in_between(system):
    small = system("a slow three", steps=1, generator=dice(), large=False)
    assert small.shape == (1, 1, 16, 32, 32)
    assert torch.equal(small, system("a slow three", steps=1, generator=dice(), large=False))
    clips, embedding = torch.rand(2, 1, 8, 32, 32), torch.zeros(2, 96)
    filled = system.fill(clips, embedding, steps=1, generator=dice())
    assert filled.shape == (2, 1, 16, 32, 32) and torch.equal(filled[:, :, ::2], clips)
    with pytest.raises(CaptionError, match="tree"):
        system("a tree")


def test_saved_parts_come_back(system, tmp_path):
    parts = {}
    for name in STAGES:
        network = getattr(system, name).network
        over_time = name in ("video", "between")
        parts[name] = (network.config, network.temporal_state() if over_time else network.state_dict())
    stages.write(tmp_path / "parts", parts, {})
    again = load_make_a_video("parts", folder=tmp_path)
    found = again.prior.network.state_dict()["stem.weight"]
    torch.testing.assert_close(found, system.prior.network.stem.weight, rtol=1e-3, atol=1e-3)  # half precision
    with pytest.raises(stages.MissingStage, match="train_make_a_video"):
        load_make_a_video("nothing", folder=tmp_path)
