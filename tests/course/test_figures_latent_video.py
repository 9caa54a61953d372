"""What the drawings and tables of lesson 16 rest on, against closed forms."""

import json
import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import CosineSchedule
from minivdm.course.notebook.figures import latent_video as fig
from minivdm.exact import GaussianVideo
from minivdm.systems import stable_video_diffusion as svd
from minivdm.systems.latent_diffusion import load_tokenizer


def test_ddim_of_white_latents_shrinks_them_by_its_own_turns():
    schedule, n = CosineSchedule(-20, 20), 16
    far = fig.after_steps(torch.eye(3).double(), torch.ones(3).double(), n, schedule)
    assert far == pytest.approx(math.sqrt(3) * (1 - math.cos(math.pi / 2 / n) ** n), rel=1e-3)


def test_whitened_latents_are_walked_as_white_ones():
    mixed = torch.tensor([[4.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
    root = torch.linalg.cholesky(mixed)
    far = fig.after_steps(mixed, root, 16)
    # the walk multiplies white latents by a number, and so any others
    white = fig.after_steps(torch.eye(2).double(), torch.ones(2).double(), 16)
    assert far == pytest.approx(white * (mixed.trace() / 2).sqrt().item(), rel=1e-6)


def test_blocks_hold_all_frames_but_the_first_once():
    videos = torch.randn(2, 1, 17, 16, 16)
    assert fig.blocks(videos).shape == (2 * 4 * 4, 256)
    assert fig.blocks(videos).square().sum().item() == pytest.approx(videos[:, :, 1:].square().sum().item(), rel=1e-5)


def test_a_linear_code_of_everything_is_exact():
    videos = torch.randn(40, 1, 17, 8, 8, generator=torch.Generator().manual_seed(0)) / 4
    errors = fig.block_codes(videos.repeat(3, 1, 1, 1, 1), videos[:4], [1, 8])
    assert errors[0] < errors[1]
    assert fig.decibels(torch.tensor(4.0)) == 0.0  # from -1 to 1 everywhere


def test_a_code_book_of_two_for_a_normal_value():
    points = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    best = 1 - 2 / math.pi  # codes at plus and minus E|x|
    assert fig.nearest_codes(points, 2, points) == pytest.approx(best, abs=0.02)


def test_the_staircase_of_a_causal_code():
    seen = fig.dependence(load_tokenizer())
    assert seen.shape == (5, 17) and seen[0].sum() == 1 and seen[0, 0]
    for k in range(1, 5):
        assert seen[k, 4 * k] and not seen[k, 4 * k + 1 :].any()


def test_the_image_model_is_the_exact_denoiser_of_single_values():
    schedule = CosineSchedule(-12, 12)
    t = schedule.time(torch.tensor(1.0))
    model, z = fig.frame_model(schedule, t), torch.randn(3, 1, 8, 1, 1)
    assert torch.allclose(fig.by_frames(model, z), fig.levels(schedule, t)[0] * z, atol=1e-5)
    assert torch.equal(model(z), fig.by_frames(model, z))


def test_moments_of_the_exact_denoiser_are_the_worlds():
    world = GaussianVideo(6)
    first = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    mean, spread = fig.moments(world.conditional_denoiser(CosineSchedule(-12, 12), first, [0]), 6, steps=256)
    assert (mean - 0.9 ** torch.arange(6)).abs().max() < 0.02
    assert (spread - (1 - 0.81 ** torch.arange(6)).sqrt()).abs().max() < 0.02


def test_spoiled_clips_and_their_best_linear_denoiser():
    dirty = fig.spoiled(40, 0)
    assert (dirty.fault == svd.STILL).sum() == 10
    world = fig.fitted(dirty.videos)
    assert world.shape == (1, 8, 8, 8)
    noisy, clean = (fig.clean_error(world, level, 4).mean() for level in (-4.0, 8.0))
    assert clean < noisy


def test_letters_are_glyphs_of_ten_kinds():
    found = fig.letters()
    assert found.images.shape == (10, 28, 28) and found.labels.tolist() == list(range(10))
    ink = found.images.float().flatten(1)
    assert ink.amax(1).min() > 200 and torch.cdist(ink, ink).fill_diagonal_(1e9).min() > 500


def test_lines_of_a_table(tmp_path):
    assert fig.results(tmp_path / "none.json") == {}
    row = {"legible": [0.5, 0.4, 0.6, 8], "rigidity, median": 0.1, "detail": None}
    (tmp_path / "found.json").write_text(json.dumps({"latent-64": {"judged": {"w = 1": row, "true clips": row}}}))
    said = fig.lines(fig.results(tmp_path / "found.json")["latent-64"]["judged"], ("w =",))
    assert said.split() == ["w", "=", "1", "legible", "50", "%", "(40", "to", "60)", "rigidity", "0.1"]


def test_lines_of_tokenizers():
    judged = {"nats per clip": 1234.5}
    for noise, decibels in (("0.0", 26.0), ("0.3", 25.0)):
        right = {"PSNR, dB": decibels, "right in every frame: share, low, high": [0.5, 0.4, 0.6]}
        judged[f"noise of {noise} standard deviations on the latents"] = right
    rows = {"KL": {"numbers": 2560, "on test clips": judged}}
    rows["VQ"] = {**rows["KL"], "code book": {"codes in use": 7, "nats a place": 1.25}}
    first, second = fig.tokenizers({"rows": rows}).split("\n")
    assert first.split()[:4] == ["KL", "2,560", "numbers", "1,234"] and "26.0 dB (25.0 with noise)" in first
    assert second.startswith("VQ") and second.endswith("50 % (40 to 60)  7 codes in use, 1.2 nats a place")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: fig.draw_codes([1, 2], [10.0, 12.0], 14.0),
        lambda: fig.draw_rate(fig.video(), {"a": (1.0, 5.0)}),
        lambda: fig.draw_dependence(torch.eye(3).bool()),
        lambda: fig.draw_guided(torch.ones(4), {"a": torch.zeros(4)}),
        lambda: fig.draw_strength([0.0, 0.5]),
    ],
)
def test_drawings_are_drawn(draw):
    assert isinstance(draw(), Figure)


def test_latents_as_pictures_are_as_long_as_the_clip():
    shown = fig.as_pictures(torch.randn(8, 5, 8, 8))
    assert shown.shape == (8, 1, 17, 64, 64) and shown.abs().max() <= 1
    assert not torch.equal(shown[:, :, 0], shown[:, :, 1])  # the first frame has its own
    for k in range(1, 5):
        assert torch.equal(shown[:, :, 4 * k - 3], shown[:, :, 4 * k])
