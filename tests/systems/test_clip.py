"""CLIP in small: the loss against its definition, what is normalised, retrieval, and frames that say the same."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from minivdm.data.captioned_mnist import CaptionedMNIST
from minivdm.data.captions import say
from minivdm.guards import BadArgument
from minivdm.systems.clip import (
    LARGEST_SCALE,
    WEIGHTS,
    Clip,
    contrastive_loss,
    fit,
    fitting,
    frame_consistency,
    load_clip,
    recall_at_1,
    similarity,
)


@pytest.fixture(scope="module")
def clips():
    return CaptionedMNIST(seed=3).clips(torch.arange(24))


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Clip().eval().requires_grad_(False)


def logits(n: int = 6, m: int = 6) -> torch.Tensor:
    return 3 * torch.randn(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_loss_is_two_cross_entropies():
    scores, own = logits(), torch.arange(6)
    expected = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    assert torch.allclose(contrastive_loss(scores), expected, rtol=1e-12)


def test_several_that_fit_share_the_target():
    scores, fits = logits(), torch.eye(6, dtype=torch.bool)
    fits[0, 3] = fits[5, 2] = True
    target = fits.double()
    rows = F.cross_entropy(scores, target / target.sum(1, keepdim=True))
    columns = F.cross_entropy(scores.T, (target / target.sum(0)).T)
    assert torch.allclose(contrastive_loss(scores, fits), (rows + columns) / 2, rtol=1e-12)


def test_the_loss_of_no_knowledge_and_of_full_knowledge():
    assert contrastive_loss(torch.zeros(8, 8)).item() == pytest.approx(math.log(8))
    assert contrastive_loss(100 * torch.eye(8)).item() < 1e-6


def test_the_order_of_the_pairs_does_not_matter():
    scores, order = logits(), torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(contrastive_loss(scores), contrastive_loss(scores[order][:, order]), rtol=1e-12)


def test_vectors_have_length_one(model, clips):
    for vectors in (model.of_videos(clips.video), model.of_frames(clips.video), model.of_texts(clips.sentences)):
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(()), atol=1e-5)


def test_logits_are_cosines_over_the_temperature(model, clips):
    scores = model(clips.video, clips.text)
    assert model.scale.item() == pytest.approx(1 / 0.07)
    assert torch.allclose(scores.diagonal(), similarity(model, clips.video, clips.sentences) / 0.07, atol=1e-4)
    with torch.no_grad():
        hot = Clip()
        hot.log_scale.fill_(9.0)
    assert hot.scale.item() == LARGEST_SCALE


def test_frames_that_say_the_same_have_consistency_one(model, clips):
    still = clips.video[:, :, :1].expand(-1, -1, 6, -1, -1)
    assert torch.allclose(frame_consistency(model, still), torch.ones(24), atol=1e-5)
    mixed = torch.cat([still[:, :, :3], still.roll(1, 0)[:, :, :3]], 2)
    frames = model.of_frames(mixed)
    written_out = torch.stack([frames[:, i] @ frames[0, j] for i in range(6) for j in range(i + 1, 6)])[:, 0].mean()
    assert frame_consistency(model, mixed)[0].item() == pytest.approx(written_out.item(), abs=1e-5)


def test_which_sentences_fit_which_clips(clips):
    fits = fitting(clips.captions, clips.sentences)
    assert fits.diagonal().all()
    digits = [c.digit for c in clips.captions]
    threes = fitting(clips.captions, ["a three", "a digit"])
    assert threes[:, 0].tolist() == [digit == 3 for digit in digits] and threes[:, 1].all()


def test_retrieval_counts_any_that_fits(clips):
    told = clips.video, clips.captions, clips.sentences

    class Knows(Clip):
        def forward(self, videos, texts):
            return fitting(clips.captions, clips.sentences).float()

    class Wrong(Clip):
        def forward(self, videos, texts):
            return -fitting(clips.captions, clips.sentences).float()

    assert all(found.all() for found in recall_at_1(Knows(), *told))
    by_text, by_video = recall_at_1(Wrong(), *told)
    universal = fitting(clips.captions, clips.sentences).all(0)  # a sentence that is true of every clip cannot miss
    assert torch.equal(by_text, universal) and by_video.sum() <= universal.any() * len(by_video)


def test_training_lowers_the_loss_and_leaves_the_global_seed_alone():
    state, losses = torch.random.get_rng_state(), []
    fit(12, batch=16, lr=2e-3, watch=lambda step, loss: losses.append(loss))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(losses) == 12
    assert sum(losses[-3:]) < sum(losses[:3])


def test_bad_arguments_are_named(model, clips):
    with pytest.raises(BadArgument, match="videos"):
        model.of_videos(clips.video[:, :, :4])
    with pytest.raises(BadArgument, match="videos"):
        model.of_videos(clips.video[..., :16])
    with pytest.raises(BadArgument, match="sentences"):
        similarity(model, clips.video, ["a three"])
    with pytest.raises(BadArgument, match="captions, sentences: expected one for each of 24 clips, got 24, 1"):
        recall_at_1(model, clips.video, clips.captions, ["a three"])
    with pytest.raises(BadArgument, match="fits"):
        contrastive_loss(logits(), torch.zeros(6, 6, dtype=torch.bool))
    with pytest.raises(BadArgument, match="logits"):
        contrastive_loss(torch.zeros(3))


def test_the_shipped_model_sees_time_and_its_frames_do_not():
    shipped, some = load_clip(), CaptionedMNIST(split="test", seed=1).clips(torch.arange(64))
    told = [say(caption) for caption in some.captions]
    true, back = (similarity(shipped, video, told) for video in (some.video, some.video.flip(2)))
    assert true.mean() > back.mean() + 0.2  # 0.57 and 0.20 were measured, their standard errors are below 0.04
    by_text, _ = recall_at_1(shipped, some.video, some.captions, told)
    assert by_text.float().mean() > 0.5  # 0.77 was measured; chance is one in 64
    order = frame_consistency(shipped, some.video) - frame_consistency(shipped, some.video.flip(2))
    assert order.abs().max() < 1e-5


def test_the_card_of_the_shipped_model_has_its_retrieval():
    card = json.loads(WEIGHTS.with_suffix(".json").read_text())
    recalls = card["on 512 test clips"]["recall at 1 among 64: share, low, high"]
    assert len(recalls) == 4 and all(low <= share <= high for share, low, high in recalls.values())
