"""Lesson 13: the law that a negative sentence guides by, counts of combinations, and maps of words."""

import pytest
import torch

from minivdm.core import Denoiser, classifier_free
from minivdm.course.notebook.figures import text_to_video as fig
from minivdm.course.notebook.picture import render
from minivdm.data.captions import VOCABULARY, tokens
from minivdm.networks import UNet3D


@pytest.mark.parametrize("negative", [None, (3,), (5, 6)])
def test_guidance_away_from_a_sentence_follows_the_tilted_law(negative):
    world, t, w = fig.compass_world(), 0.4, 1.7
    denoise = world.denoiser(fig.SCHEDULE)
    other = None if negative is None else fig.meaning(*negative)
    z = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_tilde = classifier_free(denoise.given(fig.meaning(1, 2, 3)), denoise.given(other), w)(z, t)
    alpha, sigma = fig.SCHEDULE.alpha(t), fig.SCHEDULE.sigma(t)
    score = (alpha * x_tilde - z) / sigma**2
    expected = fig.tilted_score(world, z, t, fig.meaning(1, 2, 3), other, w)
    assert torch.allclose(score, expected, rtol=1e-8, atol=1e-8)  # float64 throughout


def test_without_a_weight_the_negative_sentence_does_nothing():
    plain = fig.guided_points(fig.meaning(1, 2, 3), None, 0.0, count=100)
    assert torch.equal(plain, fig.guided_points(fig.meaning(1, 2, 3), fig.meaning(3), 0.0, count=100))
    assert fig.shares(plain)[[1, 2, 3]].sum() > 0.9


def test_the_negative_sentence_empties_its_direction_and_overshoots_unless_it_stops_early():
    free, stopped = (fig.guided_points(fig.meaning(1, 2, 3), fig.meaning(3), 2.0, until, 300) for until in (20.0, 0.0))
    assert fig.shares(free)[3] < 0.05 and fig.shares(stopped)[3] < 0.15
    # Two Gaussians of one variance: their tilted law has its mean at m_c + w (m_c - m_n), for neighbours far outside.
    assert free.norm(dim=1).mean() > 2
    assert stopped.norm(dim=1).mean() < 1.5
    assert fig.shares(stopped)[[1, 2]].sum() > 0.8


def test_two_gaussians_tilt_to_a_gaussian_beyond_the_first():
    """Where both sentences mean one component each, (13.4) at t = 0 is N(m_c + w (m_c - m_n), the same variance)."""
    world, w = fig.compass_world(), 1.5
    z = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = world.means[1] + w * (world.means[1] - world.means[3])
    found = fig.tilted_score(world, z, 0.0, fig.meaning(1), fig.meaning(3), w)
    alpha, sigma = fig.SCHEDULE.alpha(0.0), fig.SCHEDULE.sigma(0.0)
    assert torch.allclose(found, (alpha * mean - z) / (alpha**2 * 0.25**2 + sigma**2), rtol=1e-6, atol=1e-6)


def test_combinations_are_counted_and_held_out_ones_missing():
    clips = fig.captioned(60, "train")
    table = fig.combinations(clips)
    assert table.sum() == 60
    assert not any(table[d, k] for d in range(10) for k in range(8) if fig.held_out(d, k))


def test_maps_of_words_are_shares():
    network = UNet3D(
        width=8, multipliers=(1, 2), spatial=(True, True), temporal=(True, True), head_channels=8, embedding=16,
        middle=1, text=len(VOCABULARY),
    )  # fmt: skip
    row = tokens("a slow three moving up")
    found, maps = fig.word_maps(Denoiser(network.eval(), fig.SCHEDULE), torch.randn(1, 1, 3, 8, 8), 0.5, row)
    assert found == ["a", "slow", "three", "moving", "up"]
    assert maps.shape == (3, 4, 4, 5)
    assert torch.allclose(maps.sum(-1), torch.ones(()))


def test_figures_draw():
    for made in (
        fig.draw_combinations(torch.ones(10, 8, dtype=torch.long)),
        fig.draw_points({"a": torch.randn(5, 2), "b": torch.randn(5, 2)}),
        fig.draw_intervals(),
        fig.draw_matrix(torch.randn(4, 4), torch.eye(4, dtype=torch.bool)),
    ):
        assert render(made).png.startswith(b"\x89PNG")
