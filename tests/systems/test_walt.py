"""W.A.L.T: what it is given in training, prediction that keeps what is known, a cascade's condition, other aspects."""

import pytest
import torch

from minivdm.core import CosineSchedule, Denoiser
from minivdm.guards import BadArgument
from minivdm.networks.window_transformer import WindowTransformer
from minivdm.systems import walt

SCHEDULE = CosineSchedule(-12, 12)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def awake(**more) -> Denoiser:
    shape = dict(width=24, depth=2, head_channels=8, embedding=16, spatial=(4, 4), temporal=(5, 2, 2))
    network = WindowTransformer(2, **(shape | dict(self_conditioning=True, frames_known=True) | more))
    generator = dice()
    for p in network.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return Denoiser(network.eval(), SCHEDULE)


def clip(b: int = 2, f: int = 3) -> torch.Tensor:
    return torch.randn(b, 2, f, 4, 4, generator=dice(1))


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (5, 2), (17, 5)])
def test_frames_are_one_and_groups_of_four(frames, latents):
    assert walt.latent_frames(frames) == latents


@pytest.mark.parametrize("frames", [2, 4, 16])
def test_other_numbers_of_frames_are_named(frames):
    with pytest.raises(BadArgument, match=f"frames: expected 1 \\+ 4 k, .* got {frames}"):
        walt.latent_frames(frames)


def test_known_frames_and_their_mask():
    x = clip()
    known = walt.known_frames(x, torch.tensor([0, 2]))
    assert known.shape == (2, 3, 3, 4, 4)
    assert (known[0] == 0).all()
    assert torch.equal(known[1, :2, :2], x[1, :, :2]) and (known[1, :, 2] == 0).all() and (known[1, 2, :2] == 1).all()
    with pytest.raises(BadArgument, match="counts: expected 0 to 3"):
        walt.known_frames(x, 4)


def test_the_plain_loss_is_the_denoisers():
    model, x = awake(), clip(8)
    found = walt.loss(model, x, self_conditioning=0.0, generator=dice())
    other = model.loss(x, generator=dice())  # times and noise are drawn first, in the same order
    assert torch.equal(found.per_sample, other.per_sample)


def test_all_see_their_own_first_estimate_and_no_gradient_goes_through_it():
    model, x, calls = awake(), clip(4), []
    model.network.register_forward_pre_hook(lambda _, args, named: calls.append(named), with_kwargs=True)
    walt.loss(model, x, torch.eye(10)[:4], self_conditioning=1.0, prediction=1.0, given=(2,), generator=dice())
    first, second = calls
    assert "estimate" not in first and not second["estimate"].requires_grad
    assert torch.equal(first["known"], second["known"]) and torch.equal(first["labels"], second["labels"])
    assert (second["known"][:, 2].sum((1, 2, 3)) == 2 * 16).all()
    assert second["estimate"].abs().sum() > 0


def test_shares_are_kept():
    model, calls = awake(), []
    model.network.register_forward_pre_hook(lambda _, args, named: calls.append(named), with_kwargs=True)
    walt.loss(model, clip(200), torch.ones(200, 10), self_conditioning=0.3, prediction=0.5, generator=dice())
    last = calls[-1]
    told = (last["estimate"].flatten(1) != 0).any(1).float().mean()
    ahead = (last["known"].flatten(1) != 0).any(1).float().mean()
    dropped = (last["labels"] == 0).all(1).float().mean()
    # 200 draws: three standard deviations are about 0.1.
    assert abs(told - 0.3) < 0.1 and abs(ahead - 0.5) < 0.11 and abs(dropped - 0.1) < 0.07


def test_prediction_keeps_what_is_known_and_guidance_acts():
    model, first = awake(), clip()[:, :, :1]
    plain = walt.predict(model, first, 3, steps=3, generator=dice())
    assert plain.shape == (2, 2, 3, 4, 4) and torch.equal(plain[:, :, :1], first)
    guided = walt.predict(model, first, 3, weight=2.0, steps=3, generator=dice())
    assert (guided - plain).abs().max() > 1e-3
    other = walt.predict(model, 0 * first, 3, steps=3, generator=dice())
    assert (other[:, :, 1:] - plain[:, :, 1:]).abs().max() > 1e-3


def test_a_long_clip_goes_on_from_its_last_frames():
    made = walt.go_on(awake(), clip()[:, :, :2], blocks=2, frames=4, steps=2, generator=dice())
    assert made.shape == (2, 2, 6, 4, 4)
    with pytest.raises(BadArgument, match="overlap"):
        walt.go_on(awake(), clip()[:, :, :1], blocks=1, frames=3)


def test_guided_samples_follow_the_formula_step_by_step():
    model, labels = awake(self_conditioning=False), torch.eye(10)[:2]
    one = walt.sampled(model, (2, 2, 3, 4, 4), {"labels": labels}, 2.0, steps=1, generator=dice())
    z = torch.randn(2, 2, 3, 4, 4, generator=dice())
    # One step ends in the guided estimate at t = 1; float32, two clips or four in a batch.
    expected = 3 * model.given(labels)(z, 1.0) - 2 * model(z, 1.0)
    torch.testing.assert_close(one, expected, rtol=0, atol=1e-4)


def test_depth_becomes_space():
    clip = torch.arange(4.0).view(1, 4, 1, 1, 1)
    assert walt.depth_to_space(clip, 2).flatten().tolist() == [0, 1, 2, 3]
    with pytest.raises(BadArgument, match="2\\^2 divides, got 3"):
        walt.depth_to_space(clip[:, :3], 2)


def test_a_cascades_condition_has_the_noise_that_it_says():
    low = torch.ones(4, 4, 2, 8, 8)
    made = walt.low_resolution(low, 2, torch.tensor([12.0, 2.0, 0.0, -2.0]), SCHEDULE, dice())
    assert made["low"].shape == (4, 1, 2, 16, 16)
    alpha, sigma = (f(SCHEDULE.time(made["low_log_snr"])) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    found = made["low"].flatten(1)
    # 512 values a clip: a mean errs by 0.044 sigma, a standard deviation by 3 %; four times that.
    torch.testing.assert_close(found.mean(1), alpha.float(), rtol=0, atol=0.18)
    torch.testing.assert_close(found.std(1), sigma.float(), rtol=0.13, atol=1e-3)
    model = awake(low_channels=1, spatial=(4, 4))
    answer = model.given(**walt.low_resolution(low[:2, :, :, :2, :2], 2, torch.zeros(2), SCHEDULE, dice()))
    assert answer(clip(2, 2)[:, :, :, :4, :4], 0.5).shape == (2, 2, 2, 4, 4)
    with pytest.raises(BadArgument, match="one for each of 4 clips"):
        walt.low_resolution(low, 2, torch.zeros(1), SCHEDULE)


def test_another_aspect_starts_from_interpolated_positions():
    network = awake(grid=(5, 4, 4)).network
    same, wide = walt.resized(network, 4, 4), walt.resized(network, 4, 8)
    torch.testing.assert_close(same.space_embedding, network.space_embedding)
    z = torch.randn(1, 2, 3, 4, 8, generator=dice(2))
    # It answers as the old one does at this size, which interpolates anew at each call.
    torch.testing.assert_close(wide(z, torch.zeros(1)), network(z, torch.zeros(1)), rtol=0, atol=1e-5)
    assert wide.space_embedding.shape == (4, 8, 24)
    with pytest.raises(BadArgument, match="sines"):
        walt.resized(awake().network, 4, 8)


def test_a_model_without_the_condition_is_named():
    with pytest.raises(BadArgument, match="frames_known=True"):
        walt.predict(awake(frames_known=False), clip()[:, :, :1], 3)
    with pytest.raises(BadArgument, match="more than the 1 that are given"):
        walt.predict(awake(), clip()[:, :, :1], 1)
