"""The drawings of lesson 17, how far tokens and latents see, and the intervals of its rows."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from minivdm.course.notebook.figures import transformers as fig
from minivdm.networks.autoencoder import Tokenizer
from minivdm.networks.transformer import Transformer
from minivdm.networks.window_transformer import WindowTransformer, same_window
from minivdm.systems import dit


@pytest.fixture(scope="module")
def network():
    return fig.awake(WindowTransformer(2, 16, 3, spatial=(4, 4), temporal=(3, 2, 2), head_channels=8, embedding=16))


def test_a_token_reaches_its_frame_and_then_everything(network):
    one, two = (fig.reach(network, depth, (3, 4, 4), (1, 0, 0)) for depth in (1, 2))
    assert one[1].all() and not one[0].any() and not one[2].any()
    assert two.all()  # its window of all frames saw whole frames before
    assert fig.reach(network, 0, (3, 4, 4), (1, 0, 0)).sum() == 1


def test_windows_win_from_six_widths_of_tokens_on():
    """At n = 6 c attention over all tokens costs as much as all matrices together."""
    network = dit.dit("T", (1, 1, 1), channels=8)
    c, n = 64, 6 * 64
    matrices = n * 2 * 12 * c**2
    assert dit.operations(network, n) - dit.operations(network, n, 0) == matrices


def test_equal_divisions_keep_a_token_in_its_part_of_the_places():
    """Where both kinds of window divide the places alike, no depth leads out of them."""
    trapped = fig.awake(WindowTransformer(2, 16, 4, spatial=(2, 2), temporal=(3, 2, 2), head_channels=8, embedding=16))
    seen = fig.reach(trapped, 4, (3, 4, 4), (1, 0, 0))
    assert seen[:, :2, :2].all() and seen.sum() == 12


def test_without_places_tokens_are_a_set():
    """(17.1): tokens in another order get the answers in that order, to rounding: sums run in another order."""
    network = fig.awake(Transformer(1, 48, 2, (1, 4, 4), head_channels=16, embedding=32)).double()
    x, emb = torch.randn(1, 30, 48, generator=torch.Generator().manual_seed(2)).double(), torch.ones(1, 1, 32).double()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(network.run(x[:, order], emb, None), network.run(x, emb, None)[:, order], atol=1e-12)


def test_a_latent_sees_no_frame_after_its_own():
    shares = fig.seen_by_latents(Tokenizer(widths=(4, 4, 4)), frames=9, size=16)
    for k, row in enumerate(shares):
        assert (row[4 * k + 1 :] == 0).all() and row[4 * k] > 0


def test_rows_are_paired_by_seed_and_have_an_interval():
    row = lambda seed, *loss: {"seed": seed, "loss": list(loss), "distance": loss[0]}  # noqa: E731
    arms = {"a": [row(0, 1.0, 1.0), row(1, 2.0, 4.0), row(2, 9.0)], "b": [row(1, 2.0), row(0, 0.5)]}
    mean, half = fig.paired(arms, "a", "b", "loss")
    assert mean == pytest.approx(0.75)  # 0.5 and 1; the third seed has no partner
    assert half == pytest.approx(12.71 * (0.125**0.5) / 2**0.5)
    assert fig.paired(arms, "a", "b", "distance")[0] == pytest.approx(0.25)
    assert math.isnan(fig.interval([1.0])[1])
    assert fig.gap(0.0123, 0.1) == "+0.012 ± 0.100" and fig.gap(-12.3456, math.nan) == "-12.35 (one seed)"
    assert isinstance(fig.draw_rows(arms, "b", {"loss": "loss", "distance": "distance"}), Figure)


def test_a_race_counts_the_loss_with_the_own_estimate(tmp_path):
    row = '{"seed": 0, "loss": [1], "loss with estimate": [2]}'
    text = f'{{"command": "c", "hardware": "h", "clips": 4, "arms": {{"a": [{row}]}}}}'
    (tmp_path / "races.json").write_text(text)
    arms, words = fig.races(tmp_path / "races.json")
    assert arms == {"a": [{"seed": 0, "loss": [2]}]} and words == "c: 4 clips a run, h"


def test_rows_and_clips_are_read_back(tmp_path):
    (tmp_path / "rows.json").write_text('{"arms": {"a": [{"seed": 1}, {"seed": 0}]}}')
    assert [row["seed"] for row in fig.rows(tmp_path / "rows.json")["arms"]["a"]] == [0, 1]
    np.savez(tmp_path / "clips.npz", a=np.array([[[[0, 255]]]], dtype=np.uint8))
    kept = fig.clips(tmp_path / "clips.npz")["a"]
    assert kept.shape == (1, 1, 1, 1, 2) and kept.flatten().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    "draw",
    [
        fig.draw_operations,
        lambda: fig.draw_masks({"a": same_window((2, 2, 2), (1, 2, 2)), "b": torch.eye(8)}),
        lambda: fig.draw_causality(torch.eye(3)),
    ],
)
def test_drawings_are_made(draw):
    assert isinstance(draw(), Figure)
