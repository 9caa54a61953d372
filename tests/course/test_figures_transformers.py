"""The drawings of lesson 17, how far a token sees, and the interval of a race."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.course.notebook.figures import transformers as fig
from minivdm.networks.window_transformer import WindowTransformer, same_window
from minivdm.systems import dit


@pytest.fixture(scope="module")
def network():
    return fig.awake(WindowTransformer(2, 16, 3, spatial=(4, 4), temporal=(3, 2, 2), head_channels=8, embedding=16))


def test_a_token_reaches_its_frame_then_a_part_of_all_frames_then_everything(network):
    one, two, three = (fig.reach(network, depth, (3, 4, 4), (1, 0, 0)) for depth in (1, 2, 3))
    assert one[1].all() and not one[0].any() and not one[2].any()
    assert two.all()  # its window of all frames saw whole frames before
    assert three.all()
    assert fig.reach(network, 0, (3, 4, 4), (1, 0, 0)).sum() == 1


def test_windows_win_from_six_widths_of_tokens_on():
    """At n = 6 c attention over all tokens costs as much as all matrices together."""
    network = dit.dit("T", (1, 1, 1), channels=8)
    c, n = 64, 6 * 64
    matrices = n * 2 * 12 * c**2
    assert dit.operations(network, n) - dit.operations(network, n, 0) == matrices


def test_a_race_is_paired_by_seed():
    row = lambda loss: {"loss": [loss, loss]}  # noqa: E731
    arms = {"a": [row(1.0), row(3.0)], "b": [row(0.5), row(2.0)]}
    mean, half, n = fig.paired(arms, "a", "b")
    assert mean == pytest.approx(0.75) and n == 2
    assert half == pytest.approx(12.71 * (0.125**0.5) / 2**0.5)  # gaps 0.5 and 1: deviation sqrt(1/8)
    assert math.isnan(fig.paired({"a": arms["a"][:1], "b": arms["b"]}, "a", "b")[1])


@pytest.mark.parametrize(
    "draw", [fig.draw_operations, lambda: fig.draw_masks({"a": same_window((2, 2, 2), (1, 2, 2)), "b": torch.eye(8)})]
)
def test_drawings_are_made(draw):
    assert isinstance(draw(), Figure)
