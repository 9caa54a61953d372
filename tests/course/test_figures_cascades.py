"""The drawings of lesson 14, and the statements that its cells make of them."""

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import CosineSchedule, Denoiser
from minivdm.course.notebook.figures import cascades as fig
from minivdm.networks import UNet3D


def test_the_ladder_is_what_each_stage_has_to_make():
    x, labels = fig.clips(1)
    ladder = fig.ladder(x)
    assert [tuple(small.shape[2:]) for small in ladder.values()] == [(8, 16, 16), (16, 16, 16), (16, 32, 32)]
    assert all(tuple(row.shape) == (1, 16, 32, 32) for row in fig.side_by_side(x)) and labels.sum() == 1
    assert torch.equal(fig.side_by_side(x)[0][:, 0, ::2, ::2], ladder["base"][0][:, 0])


def test_an_inner_best_level_needs_a_fault_in_both_stages():
    """With a perfect second stage more noise is never worse; with a wrong one only the noisy base wants some."""
    levels = torch.linspace(12, -4, 17).tolist()
    for name, base in fig.bases().items():
        perfect, wrong = (torch.tensor([fig.distance(base, s, c) for s in levels]) for c in (0.9, 0.95))
        assert bool((perfect.diff() < 1e-6).all())
        if name == "exact":
            assert float(perfect.max()) < 1e-5 and bool((wrong.diff() > -1e-9).all())
        if name.startswith("white"):
            assert 0 < int(wrong.argmin()) < 16 and wrong.min() < 0.6 * wrong[0]


def test_weights_in_turn_do_about_what_their_mean_does():
    """Means of 1,200 points of spread 0.1 are known to 0.003; the rest is steps of finite length."""
    mean, turns, strong = (fig.off(fig.points_of(how))[0] for how in ("constant 8", "in turn", "constant 15"))
    assert abs(turns - mean) < 0.1 * mean < strong - mean


def test_thresholding_as_shown():
    network = UNet3D(width=32, multipliers=(1,), patch=2, spatial=(False,), temporal=(False,), middle=0)
    torch.manual_seed(0)
    torch.nn.init.normal_(network.head.weight)
    z = torch.randn(1, 1, 2, 8, 8)
    rows = fig.saturated(Denoiser(network, CosineSchedule()).eval(), z, 0.6, torch.eye(10)[:1], 4.0)
    assert float(rows["as it is"].max()) > 1 and float(rows["thresholded"].abs().max()) <= 1
    assert float(rows["thresholded from -1"].min()) == -1 and float(rows["thresholded from -1"].max()) <= 1 + 1e-6


ROWS = {
    "single": {"legible": [0.5, 0.4, 0.6]},
    "made, no augmentation": {"legible": [0.2, 0.1, 0.3]},
    "made, log-SNR 6": {"legible": [0.3, 0.2, 0.4]},
    "made, log-SNR -2": {"legible": [0.6, 0.5, 0.7]},
    "true, log-SNR 6": {"legible": [0.9, 0.8, 1.0]},
}


def test_a_sweep_finds_its_rows_and_tables_their_cells():
    assert fig.sweep(ROWS, "made", "legible") == {6.0: [0.3, 0.2, 0.4], -2.0: [0.6, 0.5, 0.7]}
    assert fig.sweep(ROWS, "true", "legible") == {6.0: [0.9, 0.8, 1.0]}
    head, first, *_ = fig.lines(ROWS, ["legible", "rigidity"])
    assert "legible" in head and "0.50 (0.40 to 0.60)" in first and first.startswith("single")
    assert fig.kept("nothing that was measured") is None


@pytest.mark.parametrize("draw", [
    fig.draw_cascade, lambda: fig.draw_sweep(ROWS, "legible"), lambda: fig.draw_sweep(ROWS, "legible", ["made"]),
    lambda: fig.draw_turns({name: fig.points_of(name, 4, 20) for name in ("constant 1", "in turn")}),
])  # fmt: skip
def test_drawings_are_made(draw):
    assert isinstance(draw(), Figure)
