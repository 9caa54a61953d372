"""Captions: every sentence is read back as it was meant, is true to its clip, and one outside the language is named."""

import itertools

import pytest
import torch

from minivdm.data.captioned_mnist import CaptionedMNIST, directions, first_leg, held_out
from minivdm.data.captions import (
    COMPASS,
    LENGTH,
    VOCABULARY,
    Caption,
    CaptionError,
    parse,
    say,
    split,
    tokens,
    words,
)
from minivdm.guards import BadArgument, BadType

ALL = [
    Caption(*parts)
    for parts in itertools.product([None, *range(10)], [None, *range(8)], [None, 0, 1], [None, False, True])
]


@pytest.fixture(scope="module")
def train():
    return CaptionedMNIST(seed=5).clips(torch.arange(160))


@pytest.fixture(scope="module")
def test():
    return CaptionedMNIST(seed=5, split="test").clips(torch.arange(160))


@pytest.mark.parametrize("variant", [0, 1, 12345, 2**40 - 1, 987654321])
def test_every_caption_is_read_back_as_it_was_meant(variant):
    assert [parse(say(caption, variant)) for caption in ALL] == ALL


def test_the_plainest_sentence():
    assert say(Caption(3, 3, 0, True)) == "a slow three moving up and left and bouncing"
    assert str(Caption(8)) == "an eight"
    assert str(Caption()) == "a digit"


def test_synonyms_all_occur_and_no_sentence_is_too_long():
    sentences = [say(caption, variant) for caption in ALL[::5] for variant in range(0, 20000, 331)]
    assert {word for sentence in sentences for word in split(sentence)} == set(VOCABULARY)
    assert max(len(split(sentence)) for sentence in sentences) <= LENGTH


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("A slow 3, moving up-left.", Caption(3, 3, 0)),
        ("a seven heading northwest", Caption(7, 3)),
        ("a seven heading left and upwards quickly", Caption(7, 3, 1)),
        ("moving to the right without bouncing", Caption(None, 0, None, False)),
        ("the rapid number", Caption(speed=1)),
        ("three", Caption(3)),
    ],
)
def test_sentences_of_a_user(text, meant):
    assert parse(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a slow thre moving up", "got 'thre'; the nearest is 'three'"),
        ("a three moving updown", "got 'updown'; the nearest is"),
        ("", "expected a sentence such as"),
        (" .", "expected a sentence such as"),
        ("a three moving up and down", "that goes with the one before after 'a three moving up and', got 'down'"),
        ("a slow three moving quickly", "expected no word against 'slow' after 'a slow three moving', got 'quickly'"),
        ("a slow", "expected a digit such as 'three', or 'digit' after 'a slow', got the end"),
        ("a three left", "after 'a three', got 'left'"),
        ("left", "expected an article, a digit or a verb, got 'left'"),
        ("a three " * 9, "at most 16 words"),
    ],
)  # fmt: skip
def test_a_sentence_outside_the_language_is_named(text, said):
    with pytest.raises(CaptionError) as caught:
        parse(text)
    assert said in str(caught.value)
    with pytest.raises(CaptionError):
        tokens(text)


def test_what_is_no_text_is_refused():
    with pytest.raises(BadType, match="text: .* got 3"):
        parse(3)
    with pytest.raises(BadArgument, match="direction"):
        Caption(direction=8)


def test_tokens_are_the_words_in_order():
    rows = tokens(["a three", "a slow three moving up and to the left then bouncing off the wall"])
    assert rows.shape == (2, LENGTH) and rows.dtype == torch.int64
    assert words(rows[0]) == ["a", "three"]
    assert (rows[0, 2:] == 0).all()
    assert " ".join(words(rows[1])) == "a slow three moving up and to the left then bouncing off the wall"


def test_agreement_ignores_what_is_not_said():
    truth = Caption(3, 2, 1, True)
    assert Caption(3).agrees(truth) and Caption().agrees(truth) and not Caption(3, 3).agrees(truth)


def test_directions_are_the_compass_with_y_pointing_down():
    diagonal = 0.5**0.5
    steps = {"right": (0, 1), "up": (-1, 0), "left": (0, -1), "down": (1, 0)}
    for place, name in enumerate(COMPASS):
        y, x = (sum(parts) for parts in zip(*(steps[point] for point in name.split(" and ")), strict=True))
        assert directions(diagonal * torch.tensor([float(y), float(x)])) == place


# --- clips with captions


def test_sentences_are_true_to_their_clips(train):
    for sentence, caption in zip(train.sentences, train.captions, strict=True):
        assert parse(sentence).agrees(caption)
    assert torch.equal(train.text, tokens(train.sentences))


def test_captions_say_what_the_clips_were_made_of(train):
    velocity = train.velocities[:, 0, 0]
    assert [caption.digit for caption in train.captions] == train.digits[:, 0].tolist()
    assert [caption.direction for caption in train.captions] == directions(velocity).tolist()
    fast = torch.tensor([caption.speed for caption in train.captions]).bool()
    assert torch.allclose(velocity.norm(dim=-1), torch.where(fast, 1.2, 0.6), atol=1e-3)  # grid of 1/65536 pixel
    reversed_once = (train.velocities[:, 0, :-1] != train.velocities[:, 0, :1]).any(-1).any(-1)
    assert [caption.bounce for caption in train.captions] == reversed_once.tolist()


def test_a_first_leg_ends_where_the_velocity_changes():
    velocities = torch.tensor([[1.0, 0.0]]).repeat(5, 1)[None]  # b f 2
    assert first_leg(velocities).tolist() == [4]
    velocities[0, 2:, 0] = -1
    assert first_leg(velocities).tolist() == [2]
    velocities[0, 2:, 0] = 1
    velocities[0, 4, 0] = -1  # how it leaves the last frame is not seen
    assert first_leg(velocities).tolist() == [4]


def test_clips_go_straight_for_half_of_their_frames(train, test):
    for clips in (train, test):
        assert (first_leg(clips.velocities[:, 0]) >= 8).float().mean() > 0.97  # of 8 candidates, one does


def test_held_out_combinations_are_in_the_test_split_alone(train, test):
    kept = [[held_out(c.digit, c.direction) for c in clips.captions] for clips in (train, test)]
    assert not any(kept[0])
    assert 0.1 < sum(kept[1]) / len(kept[1]) < 0.4  # a quarter of the combinations
    pairs = [(digit, place) for digit in range(10) for place in range(8) if held_out(digit, place)]
    assert len(pairs) == 20
    assert {digit for digit, _ in pairs} == set(range(10))
    assert {place for _, place in pairs} == set(range(8))


def test_a_clip_depends_on_its_index_alone(train):
    some = CaptionedMNIST(seed=5).clips([7, 3, 12])
    assert torch.equal(some.video, train.video[[7, 3, 12]])
    assert some.sentences == [train.sentences[i] for i in (7, 3, 12)]


def test_clips_have_the_range_and_shape_of_videos(train):
    assert train.video.shape == (160, 1, 16, 32, 32)
    assert train.video.amin() == -1 and train.video.amax() <= 1
    assert {tuple(row.nonzero()[:, 0].tolist()) for row in train.labels} <= {(i,) for i in range(10)}


def test_no_indices_and_bad_sizes_are_refused():
    with pytest.raises(BadArgument, match="indices"):
        CaptionedMNIST().clips([])
    with pytest.raises(BadArgument, match="size"):
        CaptionedMNIST(size=0)
