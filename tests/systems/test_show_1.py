"""Show-1: the two ends of its strength, its law in the Gaussian video against draws, errors."""

import pytest
import torch

from minivdm.core import CosineSchedule, Denoiser
from minivdm.exact import GaussianVideo, Law
from minivdm.guards import BadArgument
from minivdm.networks import Tokenizer, Transformer, UNet3D
from minivdm.systems.latent_diffusion import LatentDiffusion
from minivdm.systems.show_1 import enlarged, show_1, translate, translated
from minivdm.tasks import sdedit

SCHEDULE, SHAPE = CosineSchedule(-12, 12), (1, 5, 16, 16)
WORLD = GaussianVideo(8, 0.9)
HELD = torch.block_diag(*[torch.full((2, 2), 0.5, dtype=torch.float64)] * 4)  # every second frame, twice
BASE = Law(WORLD.mean, HELD @ WORLD.covariance @ HELD.T)


def clips(n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    torch.manual_seed(0)
    tokenizer = Tokenizer(widths=(8, 12, 16), patch=2, latents=2)
    tokenizer.calibrate(tokenizer.code(clips(4), sample=False).latents)
    network = Transformer(2, 16, 1, (1, 2, 2), head_channels=8, embedding=16, self_conditioning=True)
    for p in network.parameters():
        p.data += 0.05 * torch.randn_like(p)
    return LatentDiffusion(Denoiser(network.eval(), SCHEDULE), tokenizer, SHAPE)


def test_at_strength_0_a_clip_is_encoded_and_decoded(model):
    assert torch.equal(translate(model, clips(), strength=0.0), model.tokenizer(clips()))


def test_at_strength_1_what_came_in_is_forgotten(model):
    one, other = (
        translate(model, clips(seed=k), strength=1.0, steps=3, generator=torch.Generator().manual_seed(1))
        for k in (0, 5)
    )
    assert (one - other).abs().max() < 0.05  # alpha is e^-6 there
    made = model.sample(count=2, steps=3, generator=torch.Generator().manual_seed(1))
    assert (one - made).abs().max() < 0.05


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.9])
def test_clips_of_the_right_law_keep_it(strength):
    found = translated(WORLD, WORLD.law, SCHEDULE, strength, steps=512)
    assert WORLD.wasserstein(found.law) < 0.02  # the error of 512 steps


def test_strength_trades_the_law_for_agreement():
    found = [translated(WORLD, BASE, SCHEDULE, t) for t in (0.0, 0.2, 0.4, 0.6)]
    far, moved = [WORLD.wasserstein(row.law) for row in found], [row.moved for row in found]
    assert far == sorted(far, reverse=True) and far[-1] < far[0] / 5
    assert moved == sorted(moved) and moved[0] == 0.0


def test_the_law_is_that_of_sdedit():
    dice = torch.Generator().manual_seed(0)
    x = (HELD @ WORLD.sample(20_000, dice).flatten(1).T).T.reshape(-1, *WORLD.shape)
    out = sdedit(WORLD.denoiser(SCHEDULE), x, 0.5, 16, generator=dice)
    found = translated(WORLD, BASE, SCHEDULE, 0.5, steps=16)
    assert (out.flatten(1).T.cov() - found.law.covariance).abs().max() < 0.05  # five standard errors of a variance
    assert (out - x).square().mean().item() == pytest.approx(found.moved, rel=0.03)


def test_the_whole_makes_a_clip_of_the_latent_models_size(model):
    network = UNet3D(1, 8, (1,), 2, head_channels=8, embedding=16, middle=1, spatial=(False,), temporal=(True,))
    pixels = Denoiser(network.eval(), SCHEDULE, bounds=(-1, 1))
    pixels.shape = (1, 4, 8, 8)
    found = show_1(pixels, model, torch.eye(10)[:2], steps=2, sampling=None, generator=torch.Generator().manual_seed(0))
    assert found.small.shape == (2, 1, 5, 8, 8) and found.enlarged.shape == found.clip.shape == (2, *SHAPE)
    assert torch.equal(found.enlarged, enlarged(found.small, 2))
    pixels.shape = (1, 4, 12, 12)
    with pytest.raises(BadArgument, match="whole fraction of 16x16"):
        show_1(pixels, model)


def test_errors(model):
    with pytest.raises(BadArgument, match="videos: expected"):
        translate(model, clips()[:, :, :1])
    with pytest.raises(BadArgument, match="strength"):
        translate(model, clips(), strength=1.5)
