"""benchmarks/weights.py: what is measured of clips of one digit, and of clips of several."""

from pathlib import Path

import pytest

from minivdm.data.moving_mnist import MovingMNIST


@pytest.fixture
def weights(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import weights

    return weights


def test_true_clips_of_two_digits_are_legible_and_no_single_shape_is_supposed(weights):
    clips = MovingMNIST(digits=(1, 2), frames=8, speed=1.8, split="test").clips(range(48))
    found = weights.judged(clips.video, clips.labels, most=2)
    assert found["legible"]["share"] > 0.75  # the reader's card: 89 % of clips of two digits, 98 % of those of one
    assert not {"rigidity", "every_frame", "track_deviation_px"} & set(found)


def test_without_labels_as_many_digits_as_the_clips_have_are_legible(weights):
    clips = MovingMNIST(digits=2, frames=8, speed=1.8, split="test").clips(range(24))
    one, two = (weights.judged(clips.video, None, most)["legible"]["share"] for most in (1, 2))
    assert two > 0.75 > 0.25 > one  # two of the same class count as one


def test_the_table_has_the_columns_that_were_measured(weights):
    clips = MovingMNIST(digits=2, frames=4, split="test").clips(range(4))
    for most, columns in ((1, 6), (2, 3)):
        rows = {weights.REAL: weights.judged(clips.video, clips.labels, most)}
        figures = {"rows": rows, "sampler": "none", "seed": 0, "command": "none"}
        head, _, row, *_ = weights.table("some", figures).splitlines()
        assert head.count("|") == row.count("|") == columns + 1


def test_weights_of_another_name_have_files_of_their_own(weights):
    assert weights.results("moving-mnist-32", "few").name == "weights_few.json"
    assert weights.results("moving-mnist-32-two", "even").name == "weights_moving-mnist-32-two.json"
