import torch

from minivdm.data import MovingMNIST
from minivdm.data.captioned_mnist import CaptionedMNIST
from minivdm.data.kept import KeptClips


def test_kept_clips_are_those_of_the_source():
    source = CaptionedMNIST(frames=2)
    kept, own = KeptClips(source, 6).clips([1, 4]), source.clips([1, 4])
    assert torch.equal(kept.text, own.text) and torch.equal(kept.labels, own.labels)
    assert (kept.video - own.video).abs().max() < 1e-6  # bytes divided once more


def test_an_index_beyond_them_begins_anew():
    kept = KeptClips(MovingMNIST(frames=2), 3)
    assert torch.equal(kept.clips([7]).video, kept.clips([1]).video)


def test_parts_are_put_together_in_order(monkeypatch):
    monkeypatch.setattr("minivdm.data.kept.PART", 2)
    source = MovingMNIST(frames=2)
    assert torch.equal(KeptClips(source, 5).clips(range(5)).positions, source.clips(range(5)).positions)
