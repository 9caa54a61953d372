"""The tokenizer: exact causality, stills as clips of one frame, shapes, normalisation, both bottlenecks, errors."""

import math

import pytest
import torch

from minivdm.guards import BadArgument
from minivdm.networks import Tokenizer, tokenizer_loss
from minivdm.networks.causal import CausalConv3d, ChannelNorm, Grow

SMALL = dict(widths=(8, 12, 16), patch=2, latents=3)


def awake(**changes) -> Tokenizer:
    """A tokenizer none of whose layers is silent."""
    network = Tokenizer(**(SMALL | changes))
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return network.eval().requires_grad_(False)


def clips(frames: int = 17, size: int = 16, n: int = 2) -> torch.Tensor:
    return torch.rand(n, 1, frames, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_later_frames_change_nothing_bitwise(frames):
    model, x = awake(), clips()
    whole = model.encode(x)
    assert whole.shape == (2, 3, 5, 4, 4)
    x[:, :, frames:] = 0.5
    other, kept = model.encode(x), 1 + frames // 4
    assert torch.equal(other[:, :, :kept], whole[:, :, :kept]) and not torch.equal(other, whole)


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_the_first_frames_alone_have_the_first_latents(frames):
    model, x = awake(), clips()
    # To rounding: of a clip of another length, a convolution may sum in another order.
    assert (model.encode(x[:, :, :frames]) - model.encode(x)[:, :, : 1 + frames // 4]).abs().max() < 1e-5


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_first_latents_alone_decode_to_the_first_frames(count):
    model = awake()
    z = model.encode(clips())
    whole, frames = model.decode(z), 4 * count - 3
    assert (model.decode(z[:, :, :count]) - whole[:, :, :frames]).abs().max() < 1e-5
    z[:, :, count:] = 0.5
    assert torch.equal(model.decode(z)[:, :, :frames], whole[:, :, :frames])


@pytest.mark.parametrize("latent", range(5))
def test_which_frames_a_latent_sees_by_its_gradient(latent):
    model = awake()
    x = clips(n=1).requires_grad_()
    model.encode(x)[:, :, latent].square().sum().backward()
    by_frame = x.grad.abs().amax((0, 1, 3, 4))
    assert (by_frame[4 * latent + 1 :] == 0).all()
    assert (by_frame[max(0, 4 * latent - 3) : 4 * latent + 1] > 0).all()  # its own frames reach it


@pytest.mark.parametrize("frame", [0, 1, 4, 5, 16])
def test_which_latents_a_frame_sees_by_its_gradient(frame):
    model = awake()
    z = torch.randn(1, 3, 5, 4, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    model.reconstruct(z)[:, :, frame].square().sum().backward()
    by_latent = z.grad.abs().amax((0, 1, 3, 4))
    last = (frame + 3) // 4
    assert (by_latent[last + 1 :] == 0).all() and by_latent[last] > 0


def test_without_a_temporal_kernel_every_frame_is_coded_by_itself():
    model, x = awake(time_kernel=1, times=(1, 1)), clips(6)
    frames = x.transpose(1, 2).reshape(12, 1, 1, 16, 16)
    expected = model.encode(frames).view(2, 6, 3, 4, 4).transpose(1, 2)
    # The same products, in a convolution that may sum in another order.
    assert (model.encode(x) - expected).abs().max() < 1e-5


def test_a_causal_convolution_is_one_with_zeros_before():
    conv, x = CausalConv3d(2, 3, (3, 3), (2, 1)), torch.randn(1, 2, 7, 4, 4)
    padded = torch.cat([torch.zeros(1, 2, 2, 4, 4), x], dim=2)
    expected = torch.nn.functional.conv3d(padded, conv.weight, conv.bias, (2, 1, 1), (0, 1, 1))
    assert expected.shape[2] == 4 and torch.allclose(conv(x), expected, atol=1e-6)


def test_growing_makes_one_frame_of_the_first_and_two_of_others():
    assert Grow(4, 3, (3, 3), (2, 2))(torch.randn(1, 4, 5, 4, 4)).shape == (1, 3, 9, 8, 8)


def test_the_norm_is_one_of_each_place():
    x = 5 * torch.randn(2, 8, 3, 4, 4)
    assert torch.allclose(ChannelNorm(8)(x).square().mean(1), torch.ones(2, 3, 4, 4), atol=1e-4)


def test_shapes_both_ways():
    model = Tokenizer()
    assert model.latent_shape((1, 17, 64, 64)) == (8, 5, 8, 8)
    assert model.video_shape((8, 5, 8, 8)) == (1, 17, 64, 64)
    assert Tokenizer(channels=3, **SMALL).latent_shape((3, 1, 8, 12)) == (3, 1, 2, 3)


def test_calibrated_latents_have_mean_0_and_variance_1_per_channel():
    model, x = awake(), clips(n=4)
    before = model.decode(model.encode(x))
    model.calibrate(model.code(x, sample=False).latents)
    z = model.encode(x).transpose(0, 1).flatten(1)
    assert z.mean(1).abs().max() < 1e-5 and (z.std(1) - 1).abs().max() < 1e-4
    assert (model.decode(model.encode(x)) - before).abs().max() < 1e-5  # and decode undoes it


def test_the_rate_is_the_divergence_of_two_gaussians():
    model, x = awake(), clips()
    coded = model.code(x, sample=False)
    found = model.narrow(model.down(model.stem(
        x.unfold(3, 2, 2).unfold(4, 2, 2).permute(0, 1, 5, 6, 2, 3, 4).reshape(2, 4, 17, 8, 8)
    )))  # fmt: skip
    mean, log_variance = found.chunk(2, 1)
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0, 1)).flatten(1).sum(1)
    assert torch.allclose(coded.nats, expected, rtol=1e-4)


def test_the_loss_is_the_bound_times_twice_the_variance():
    model, x, s2 = awake(), clips(), 0.02
    loss = tokenizer_loss(model, x, 2 * s2, torch.Generator().manual_seed(3))
    coded = model.code(x, torch.Generator().manual_seed(3))
    error = (model.reconstruct(coded.latents) - x).square().flatten(1).sum(1)
    values = x[0].numel()
    bound = (error / (2 * s2) + coded.nats).mean()  # nats, up to the decoder's constant
    assert loss.mean.item() == pytest.approx((bound * 2 * s2 / values).item(), rel=1e-4)
    assert loss.error.item() == pytest.approx((error / values).mean().item(), rel=1e-4)


def test_codes_are_nearest_and_gradients_pass_straight():
    model, x = awake(bottleneck="vq", codes=7), clips(5)
    model.requires_grad_(True)
    coded = model.code(x)
    flat = coded.mean.permute(0, 2, 3, 4, 1).unsqueeze(-2)
    assert torch.equal(coded.codes, (flat - model.codebook.weight).square().sum(-1).argmin(-1))
    assert torch.allclose(coded.latents, model.codebook(coded.codes).permute(0, 4, 1, 2, 3), atol=1e-6)
    assert coded.nats.tolist() == pytest.approx([2 * 16 * math.log(7)] * 2)
    passed = torch.autograd.grad((coded.latents * 3).sum(), coded.mean)[0]
    assert (passed == 3).all()


def test_a_vq_loss_moves_codes_and_encoder():
    model = awake(bottleneck="vq", codes=7).requires_grad_(True)
    tokenizer_loss(model, clips(5)).mean.backward()
    assert model.codebook.weight.grad.abs().sum() > 0 and model.stem.weight.grad.abs().sum() > 0


def test_settings_are_remembered():
    model = awake(bottleneck="vq", codes=7)
    again = Tokenizer(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.encode(clips()), model.encode(clips()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(widths=(8, 12)), "widths, times, spaces"),
        (dict(times=(2, 2), time_kernel=1), "times: expected at most"),
        (dict(bottleneck="none"), "bottleneck"),
        (dict(latents=0), "latents"),
        (dict(widths="abc"), "widths"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(BadArgument, match=message):
        Tokenizer(**(SMALL | changes))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 1, 16, 16, 16), r"1 \+ 4k frames, got 16"),
        ((2, 1, 17, 16, 18), "multiples of 4, got 16x18"),
        ((2, 3, 17, 16, 16), "1 channels, got 3"),
        ((1, 17, 16, 16), "expected a video"),
    ],
)
def test_clips_that_do_not_fit(shape, message):
    with pytest.raises(BadArgument, match=message):
        awake().encode(torch.zeros(shape))


def test_latents_of_another_kind():
    with pytest.raises(BadArgument, match="latents"):
        awake().decode(torch.zeros(2, 8, 5, 4, 4))
    with pytest.raises(BadArgument, match="two finite values"):
        awake().calibrate(torch.full((2, 3, 1, 2, 2), math.nan))
