"""Latent diffusion: the core's loss and sampler on latents, an exact world in latents, counted cost, errors."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save
from torch import nn

import minivdm
from minivdm import tasks
from minivdm.core import CosineSchedule, Denoiser, sample
from minivdm.exact import GaussianVideo
from minivdm.exact.linear_autoencoder import principal_subspace
from minivdm.guards import BadArgument, BadFile
from minivdm.networks import Tokenizer, Transformer, UNet3D
from minivdm.systems.latent_diffusion import LatentDiffusion, check_latents, encode_all, gflop, load, load_tokenizer

SHAPE = (1, 5, 16, 16)


def tokenizer() -> Tokenizer:
    model = Tokenizer(widths=(8, 12, 16), patch=2, latents=2).eval().requires_grad_(False)
    model.calibrate(model.code(clips(4), sample=False).latents)
    return model


def clips(n: int = 2) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def latent_model() -> LatentDiffusion:
    network = UNet3D(
        2, width=8, multipliers=(1, 2), patch=1, spatial=(False, True), temporal=(True, True), head_channels=8,
        embedding=16, middle=1,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=generator)
    return LatentDiffusion(Denoiser(network, CosineSchedule(-12, 12)), tokenizer(), SHAPE)


def test_the_cache_is_what_encoding_gives():
    model = tokenizer()
    assert torch.allclose(encode_all(model, clips(5), batch=2), model.encode(clips(5)), atol=1e-5)


def test_loss_and_samples_are_the_cores():
    model = latent_model()
    latents = encode_all(model.tokenizer, clips())
    found = model.loss(latents, generator=torch.Generator().manual_seed(1))
    assert found.mean == model.denoiser.loss(latents, generator=torch.Generator().manual_seed(1)).mean
    made = model.sample(count=2, steps=3, generator=torch.Generator().manual_seed(2))
    z = tasks.generate(model.denoiser, count=2, shape=(2, 2, 4, 4), steps=3, generator=torch.Generator().manual_seed(2))
    assert made.shape == (2, *SHAPE) and torch.equal(made, model.tokenizer.decode(z))


def test_diffusion_of_principal_latents_is_the_diffusion_of_their_subspace():
    """An exact world: DDIM in k whitened latents, decoded, against DDIM in all values along these k axes."""
    world, k = GaussianVideo(6, 0.9), 3
    axes, variances, _ = principal_subspace(world, k)
    schedule, noise = CosineSchedule(-12, 12), torch.randn(50, 1, 6, 1, 1, dtype=torch.float64)
    along = noise.flatten(1) @ axes
    scaled = GaussianVideo(k, covariance=torch.diag(variances[:k]))  # latents that keep their variances
    z = sample(scaled.denoiser(schedule), along.view(50, 1, k, 1, 1), steps=16)
    whole = sample(world.denoiser(schedule), noise, steps=16).flatten(1) @ axes
    assert (z.flatten(1) - whole).abs().max() < 1e-9


def test_the_cost_of_a_convolution():
    conv = nn.Conv3d(3, 5, (1, 3, 3), padding=(0, 1, 1), bias=False)
    x = torch.randn(2, 3, 4, 8, 8)
    forward = 2 * 2 * 4 * 8 * 8 * 5 * 3 * 9 / 1e9
    assert gflop(lambda: conv(x), backward=False) == pytest.approx(forward)
    assert gflop(lambda: conv(x)) == pytest.approx(2 * forward)  # the weights' gradient; the input wants none


@pytest.fixture
def written(tmp_path):
    """A small network in the form in which benchmarks/train_latent.py writes it."""
    torch.manual_seed(0)
    network, tokenizer = Transformer(8, 16, 1, (1, 2, 2), head_channels=8, embedding=16), load_tokenizer()
    data = save({name: value.half().contiguous() for name, value in network.state_dict().items()})
    (tmp_path / "small.safetensors").write_bytes(data)
    card = {"sha256": hashlib.sha256(data).hexdigest(), "network": network.config, "shape": [1, 17, 64, 64],
            "schedule": {"log_snr_min": -12.0, "log_snr_max": 12.0, "shift": -1.0},
            "tokenizer": {"shift": tokenizer.shift.tolist(), "scale": tokenizer.scale.tolist()}}  # fmt: skip
    (tmp_path / "small.json").write_text(json.dumps(card))
    return tmp_path / "small.safetensors", card


def test_written_weights_make_clips(written):
    model = load(written[0])
    assert model.denoiser.schedule.shift == -1.0 and not model.denoiser.training
    made = model.sample(torch.eye(10)[:1], steps=2, weight=1.0, generator=torch.Generator().manual_seed(0))
    assert made.shape == (1, 1, 17, 64, 64) and made.abs().max() <= 1


def test_the_packages_own_functions_take_it(written):
    model = minivdm.load(written[0])
    assert isinstance(model, LatentDiffusion)
    made = minivdm.generate(model, [3], count=2, seed=5, steps=2)
    labels, dice = tasks.multi_hot([3]), torch.Generator().manual_seed(5)
    assert torch.equal(made, model.sample(labels, count=2, steps=2, weight=1.0, generator=dice))
    with pytest.raises(BadArgument, match="got a latent one"):
        minivdm.generate(model, text="a three")
    assert "moving-mnist-32" in minivdm.available() and "tokenizer-64" not in minivdm.available()


def test_latents_of_another_tokenizer_are_refused(written):
    path, card = written
    card["tokenizer"]["scale"][0] *= 2
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(BadFile, match="tokenizer's scale"):
        load(path)
    path.with_suffix(".json").write_text(json.dumps({"sha256": card["sha256"]}))
    with pytest.raises(BadFile, match="card of a latent model"):
        load(path)
    with pytest.raises(FileNotFoundError, match="train_latent"):
        load(path.with_name("none.safetensors"))


def test_errors():
    model = latent_model()
    with pytest.raises(BadArgument, match="root mean square near 1"):
        check_latents(100 * encode_all(model.tokenizer, clips()), model.tokenizer)
    with pytest.raises(BadArgument, match="latents: expected"):
        model.loss(torch.randn(2, 2, 3, 4, 4))
    with pytest.raises(BadArgument, match=r"1 \+ 4k frames"):
        encode_all(model.tokenizer, clips()[:, :, :4])
    with pytest.raises(BadArgument, match="bounds=None"):
        LatentDiffusion(Denoiser(nn.Identity(), CosineSchedule(), bounds=(-1, 1)), tokenizer(), SHAPE)
