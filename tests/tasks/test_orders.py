"""Orders of blocks: what each block observes and makes, and orders that cannot be meant."""

from functools import partial

import pytest

from minivdm.tasks.orders import BadOrder, NoNewFrames, TooManyObserved, autoregressive, hierarchical, plan

KNOWN = {"leading": range(16), "trailing": range(48, 64), "few": range(3), "one": [20], "none": [],
         "both ends": [*range(8), *range(56, 64)], "spread": range(0, 64, 7)}  # fmt: skip
ORDERS = [autoregressive, hierarchical, partial(hierarchical, overlap=2)]
ORDERS += [partial(autoregressive, overlap=overlap) for overlap in (0, 1, 15)]


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_makes_every_frame_once_out_of_frames_that_are_there(known, order):
    blocks = plan(order, list(KNOWN[known]), 64, 16)  # checks each block
    made = [frame for _, new in blocks for frame in new]
    assert sorted([*made, *KNOWN[known]]) == list(range(64))


def test_autoregressive_blocks_are_full_windows_half_of_them_observed():
    blocks = plan(autoregressive, range(16), 64, 16)
    assert blocks[0] == (list(range(8, 16)), list(range(16, 24)))
    assert [len(new) for _, new in blocks] == [8] * 6


def test_the_last_block_observes_more_rather_than_being_short():
    blocks = plan(partial(autoregressive, overlap=4), range(16), 36, 16)
    assert [len(new) for _, new in blocks] == [12, 8]
    assert all(len(observed) + len(new) == 16 for observed, new in blocks)


def test_backwards_is_the_mirror_of_forwards():
    forwards, backwards = plan(autoregressive, range(16), 64, 16), plan(autoregressive, range(48, 64), 64, 16)
    mirrored = [([63 - i for i in reversed(observed)], [63 - i for i in reversed(new)]) for observed, new in backwards]
    assert mirrored == forwards


def test_both_ways_from_the_middle():
    blocks = plan(autoregressive, range(24, 40), 64, 16)
    assert [new[0] for _, new in blocks] == [40, 48, 56, 16, 8, 0]


def test_interpolation_observes_the_frames_ahead():
    (observed, new), *rest = plan(autoregressive, [0, 4, 8, 12], 13, 16)
    assert observed == [0, 4, 8, 12] and len(new) == 9 and not rest


def test_hierarchical_spans_the_video_first_and_halves_the_stride():
    blocks = plan(hierarchical, range(4), 64, 16)
    first = sorted([*blocks[0][0], *blocks[0][1]])
    assert first == list(range(0, 64, 4))
    strides = [min(b - a for a, b in zip(sorted([*o, *n])[:-1], sorted([*o, *n])[1:], strict=True)) for o, n in blocks]
    assert strides == sorted(strides, reverse=True) and set(strides) == {4, 2, 1}


def test_blocks_of_ones_own():
    assert plan([([0], [2]), ([0, 2], [1])], [0], 3, 3) == [([0], [2]), ([0, 2], [1])]
    assert plan(iter([((0,), range(1, 3))]), [0], 3, 3) == [([0], [1, 2])]


@pytest.mark.parametrize(("blocks", "error", "says"), [
    ([([0], [])], NoNewFrames, "block 1: expected at least one new"),
    ([([0, 1], [2, 3, 4])], TooManyObserved, "at most the 4 frames"),
    ([([3], [2])], BadOrder, r"observes frames \[3\]"),
    ([([0], [1])], BadOrder, "new, each once"),
    ([([0], [2, 2])], BadOrder, "new, each once"),
    ([([0], [2, 9])], BadOrder, "out of 0 to 4"),
    ([([0], [2])], BadOrder, r"leave out frames \[3, 4\]"),
])  # fmt: skip
def test_orders_that_cannot_be_made(blocks, error, says):
    with pytest.raises(error, match=says):
        plan(blocks, [0, 1], 5, 4)


def test_requests_that_cannot_be_meant():
    with pytest.raises(NoNewFrames, match="nothing to make"):
        plan(autoregressive, range(5), 5, 4)
    with pytest.raises(TooManyObserved, match="overlap"):
        plan(partial(autoregressive, overlap=4), range(4), 8, 4)
    with pytest.raises(BadOrder, match="known"):
        plan(autoregressive, [7], 5, 4)
    with pytest.raises(BadOrder, match="known"):
        plan(autoregressive, [1, 1], 5, 4)
