"""Obedience: true clips obey their captions, others do not, and the interval of a share is Wilson's."""

from dataclasses import replace

import pytest
import torch

from minivdm.data.captioned_mnist import CaptionedMNIST
from minivdm.data.captions import Caption
from minivdm.guards import BadArgument
from minivdm.measure.obedience import ATTRIBUTES, obedience, wilson


@pytest.fixture(scope="module")
def clips():
    return CaptionedMNIST(split="test", seed=11).clips(torch.arange(48))


@pytest.fixture(scope="module")
def found(clips):
    return obedience(clips.video, clips.captions)


def test_true_clips_obey_their_captions(found):
    rates = {name: found.share(name).rate for name in ATTRIBUTES}
    assert rates["digit"] > 0.9  # the reader's own share on test clips
    assert rates["direction"] > 0.85  # near the border of two directions the path is called the other
    assert rates["speed"] == 1  # 0.6 and 1.2 lie far apart
    assert rates["bounce"] > 0.85  # a wall met in the last frame or two is not seen


def test_other_captions_are_not_obeyed(clips):
    others = [Caption((c.digit + 1) % 10, (c.direction + 4) % 8, 1 - c.speed, not c.bounce) for c in clips.captions]
    found = obedience(clips.video, others)
    assert all(found.share(name).rate < 0.2 for name in ATTRIBUTES)
    assert found.share("all").hits == 0


def test_clips_played_backwards_go_the_other_way(clips):
    straight = [i for i, c in enumerate(clips.captions) if not c.bounce]
    turned = [replace(clips.captions[i], direction=(clips.captions[i].direction + 4) % 8) for i in straight]
    assert obedience(clips.video[straight].flip(2), turned).share("direction").rate > 0.85


def test_what_a_sentence_leaves_out_is_not_counted(clips):
    found = obedience(clips.video[:4], [Caption(), Caption(digit=0), Caption(speed=1), Caption()])
    assert {name: found.share(name).count for name in ATTRIBUTES} == dict(digit=1, direction=0, speed=1, bounce=0)
    assert found.share("all").count == 2


def test_an_empty_clip_obeys_nothing():
    found = obedience(torch.full((1, 1, 16, 32, 32), -1.0), [Caption(3, 2, 1, True)])
    assert all(found.share(name).hits == 0 for name in ATTRIBUTES)


def test_a_subset_can_be_counted(found, clips):
    fast = torch.tensor([c.speed == 1 for c in clips.captions])
    assert found.share("digit", fast).count == int(fast.sum())
    parts = found.share("digit", fast).hits + found.share("digit", ~fast).hits
    assert parts == found.share("digit").hits


@pytest.mark.parametrize(("hits", "count"), [(0, 20), (20, 20), (7, 20), (85, 100)])
def test_wilsons_ends_are_where_the_normal_test_just_rejects(hits, count):
    share, z = wilson(hits, count), 1.959963984540054
    assert 0 <= share.low <= share.rate <= share.high <= 1
    for end in (share.low, share.high):
        if 0 < end < 1:  # (p_hat - p)^2 = z^2 p (1 - p) / n, the equation that defines them
            assert (share.rate - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / count, rel=1e-9)


def test_bad_arguments_are_named(found, clips):
    with pytest.raises(BadArgument, match="captions"):
        obedience(clips.video[:2], clips.captions[:3])
    with pytest.raises(BadArgument, match="attribute"):
        found.share("colour")
    with pytest.raises(BadArgument, match="hits"):
        wilson(3, 2)
    with pytest.raises(BadArgument, match="among"):
        found.share("digit", torch.ones(3, dtype=torch.bool))
