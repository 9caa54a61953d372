"""A cascade's parts: what a stage is given, what guidance does in turn, and what is refused before anything is made."""

import math

import pytest
import torch

from minivdm.core import CosineSchedule, Denoiser, classifier_free, dynamically_thresholded
from minivdm.core.guidance import Guided
from minivdm.guards import BadArgument
from minivdm.networks import UNet3D
from minivdm.systems import imagen_video
from minivdm.systems.imagen_video import (
    Stage,
    augmented,
    cascade,
    load_stages,
    make_larger,
    oscillating,
    resized,
    shrunk,
    thresholded_from,
)
from minivdm.training import stages as weights

SCHEDULE = CosineSchedule()
TINY = dict(width=32, multipliers=(1,), patch=2, labels=10, spatial=(False,), temporal=(True,), middle=0)


def stage(shape, low=0, name=""):
    torch.manual_seed(0)
    return Stage(Denoiser(UNet3D(**TINY, low=low), SCHEDULE).eval(), shape, name)


def stages():
    return [stage((1, 2, 4, 4), name="base"), stage((1, 4, 4, 4), 1, "tsr"), stage((1, 4, 8, 8), 1, "ssr")]


def fixed(value):
    return Guided(lambda z, t: torch.full_like(z, value), SCHEDULE)


def test_resizing_repeats_frames_and_keeps_a_plane():
    """Bilinear interpolation is exact on a linear ramp, away from the border where it is held."""
    ramp = torch.arange(6.0).expand(1, 1, 2, 6, 6) + torch.tensor([0.0, 100.0])[:, None, None]
    out = resized(ramp, (1, 4, 12, 12))
    assert torch.equal(out[:, :, 0], out[:, :, 1]) and torch.equal(out[:, :, 0] + 100, out[:, :, 2])
    torch.testing.assert_close(out[0, 0, 0, 5, 1:-1], torch.arange(0.25, 5, 0.5), rtol=0, atol=1e-5)
    assert torch.equal(resized(ramp, (1, 2, 6, 6)), ramp)


def test_shrinking_takes_frames_and_means():
    x = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    low = shrunk(x, 2, 2)
    assert low.shape == (1, 1, 2, 2, 2) and float(low[0, 0, 1, 0, 0]) == (32 + 33 + 36 + 37) / 4


def test_augmentation_has_the_law_it_says():
    low = torch.full((4, 1, 4, 50, 50), 0.5)
    levels = torch.tensor([-2.0, 0.0, math.log(3), 40.0])
    made = augmented(low, levels, torch.Generator().manual_seed(0)).double().flatten(1)
    alpha, sigma = levels.double().sigmoid().sqrt(), (-levels.double()).sigmoid().sqrt()
    # 10,000 values: a mean is known to 1 % of sigma, a deviation to 0.7 %; four standard errors each
    assert bool(((made.mean(1) - 0.5 * alpha).abs() <= 0.04 * sigma + 1e-6).all())
    assert bool(((made.std(1) - sigma).abs() <= 0.03 * sigma + 1e-6).all())


def test_the_loss_of_a_stage_is_that_of_a_denoiser_with_these_conditions():
    model = stage((1, 4, 8, 8), 1).denoiser
    torch.nn.init.normal_(model.network.head.weight)
    torch.nn.init.normal_(model.network.low.stem.weight)
    x = torch.rand(3, 1, 4, 8, 8) * 2 - 1
    low, dice = shrunk(x, 1, 2), torch.Generator().manual_seed(4)
    found = imagen_video.stage_loss(model, x, low, generator=dice).mean
    dice = torch.Generator().manual_seed(4)
    level = -4 + 12 * torch.rand(3, generator=dice)
    y = augmented(resized(low, x.shape[1:]), level, dice)
    assert torch.equal(found, model.loss(x, low=y, low_log_snr=level, generator=dice).mean)


def test_a_whole_cascade_has_its_shapes_and_is_reproducible():
    labels, options = torch.eye(10)[[3, 5]], {"steps": 2, "weight": 1.0}
    made = cascade(stages(), labels, generator=torch.Generator().manual_seed(0), **options)
    again = cascade(stages(), labels, generator=torch.Generator().manual_seed(0), **options)
    assert [tuple(clip.shape) for clip in made] == [(2, 1, 2, 4, 4), (2, 1, 4, 4, 4), (2, 1, 4, 8, 8)]
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))


def test_guidance_keeps_the_clip_in_both_terms():
    """With w = 1: 2 x_hat(labels, low) - x_hat(low), not - x_hat()."""
    model = stage((1, 4, 8, 8), 1).denoiser
    for part in (model.network.head, model.network.low.stem, model.network.label_embedding):
        torch.nn.init.normal_(part.weight)
    for cell in (*model.network.down[0]["cells"], *model.network.up[0]["cells"]):
        torch.nn.init.normal_(cell.residual.conv2.weight, std=0.02)
    low, labels, z = torch.randn(2, 1, 4, 8, 8), torch.eye(10)[[3, 5]], torch.randn(2, 1, 4, 8, 8)
    bound = imagen_video.Bound(model, {"low": low})
    with torch.no_grad():
        found = classifier_free(bound.given(labels), bound.given(None), 1.0)(z, 0.5)
        expected = 2 * model(z, 0.5, labels, low=low) - model(z, 0.5, low=low)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bad", [
    lambda: [], lambda: stages()[1:], lambda: [stages()[0]] * 2, lambda: [stages()[0], stages()[2], stages()[1]],
])  # fmt: skip
def test_stages_that_do_not_fit_are_refused_before_anything_is_made(bad, monkeypatch):
    monkeypatch.setattr(imagen_video, "sampled", lambda *a, **k: pytest.fail("something was made"))
    with pytest.raises(ValueError, match="stage|low"):
        cascade(bad(), torch.eye(10)[[3]], steps=2)


def test_a_clip_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match="low: expected a smaller clip"):
        make_larger(stages()[1], torch.zeros(1, 1, 4, 8, 8))
    with pytest.raises(ValueError, match="low: expected a smaller clip"):
        make_larger(stages()[2], torch.zeros(1, 1, 4, 5, 5))


def test_a_stage_that_knows_its_clips_refuses_others():
    base, tsr, ssr = stages()
    known = Stage(ssr.denoiser, ssr.shape, "ssr", of=(1, 4, 4, 4))
    assert make_larger(known, torch.zeros(1, 1, 4, 4, 4), steps=1).shape == (1, *ssr.shape)
    with pytest.raises(BadArgument, match="low: expected clips .1, 4, 4, 4. for the stage 'ssr'"):
        make_larger(known, torch.zeros(1, 1, 2, 4, 4), steps=1)
    with pytest.raises(BadArgument, match="for the stage 'ssr'"):
        cascade([base, known], steps=1, count=1)


# ---- guidance


def test_thresholding_from_the_background_leaves_it():
    x = torch.full((1, 1, 1, 10, 10), -1.0)
    x[..., :3, :] = 1.4  # too bright
    denoise = Guided(lambda z, t: x, SCHEDULE)
    z = torch.zeros_like(x)
    plain, anchored = dynamically_thresholded(denoise)(z, 0.5), imagen_video.thresholded_from(denoise)(z, 0.5)
    assert float(plain.min()) == pytest.approx(-1 / 1.4) and float(plain.max()) == 1
    assert float(anchored.min()) == -1 and float(anchored.max()) == pytest.approx(1)


def test_thresholding_leaves_what_is_in_range():
    x = torch.rand(2, 1, 2, 4, 4) * 2 - 1
    found = imagen_video.thresholded_from(Guided(lambda z, t: x, SCHEDULE))(torch.zeros_like(x), 0.5)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-6)


def test_guidance_is_constant_first_and_then_in_turn():
    times = torch.linspace(1, 0, 9)
    guided = oscillating(fixed(1.0), fixed(0.0), times, (15.0, 1.0), constant=3)
    z = torch.zeros(1, 1)
    found = [float(guided(z, float(t))) - 1 for t in times[:-1]]  # 1 + w - 1
    assert found == [15, 15, 15, 1, 15, 1, 15, 1]


def test_oscillation_between_equal_weights_is_plain_guidance():
    guided, plain = (
        oscillating(fixed(1.0), fixed(0.5), torch.tensor([1.0, 0.5, 0.0]), (2.0, 2.0)),
        classifier_free(fixed(1.0), fixed(0.5), 2.0),
    )
    for t in (1.0, 0.5):
        assert torch.equal(guided(torch.zeros(1, 1), t), plain(torch.zeros(1, 1), t))


def test_a_guide_takes_the_place_of_a_weight():
    """Plain guidance by w = 1, written as a guide, samples what the weight samples; one guide for each stage."""
    labels = torch.eye(10)[[3, 5]]
    plain = lambda told, free, times: classifier_free(told, free, 1.0)  # noqa: E731
    dice = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    wanted = cascade(stages(), labels, generator=dice(), steps=2, weight=1.0)
    for guide in (plain, [plain] * 3):
        found = cascade(stages(), labels, generator=dice(), steps=2, guide=guide)
        # float32; the two answers are added in another order
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))
    with pytest.raises(BadArgument, match="weight: expected none beside a guide"):
        cascade(stages(), labels, steps=2, weight=1.0, guide=plain)
    with pytest.raises(BadArgument, match="guide: expected one"):
        cascade(stages(), labels, steps=2, guide=[plain])


def test_thresholds_and_oscillating_weights_go_into_a_cascade():
    seen = []

    def guide(told, free, times):
        seen.append(times)
        return thresholded_from(oscillating(told, free, times, weights=(2.0, 1.0)))

    made = cascade(stages(), torch.eye(10)[[3]], steps=3, guide=guide, generator=torch.Generator().manual_seed(0))
    assert [len(times) for times in seen] == [4, 4, 4] and made[-1].shape == (1, 1, 4, 8, 8)
    assert float(made[-1].min()) >= -1 - 1e-6  # the floor


def test_stages_come_from_a_file_and_a_missing_one_is_named(tmp_path):
    made = dict(zip(("base", "tsr"), stages(), strict=False))
    parts = {name: (one.denoiser.network.config, one.denoiser.network.state_dict()) for name, one in made.items()}
    weights.write(tmp_path / "tiny", parts, {})
    [base] = load_stages("tiny", ["base"], folder=tmp_path)
    assert base.name == "base" and base.shape == imagen_video.SHAPES["base"]
    with pytest.raises(weights.MissingStage, match="stage 'ssr'.*benchmarks/train_cascade.py"):
        load_stages("tiny", ["base", "ssr"], folder=tmp_path)
