"""The page-long training loop: it trains points and clips, and does what the Trainer does."""

import pytest
import torch
from small_runs import NETWORK, tiny

from minivdm import training
from minivdm.networks import PointNetwork, UNet3D
from minivdm.training import loop


def ring(index):
    """Points on a circle, by index."""
    angle = index.double() * 2.399963  # the golden angle: any stretch of indices covers the circle evenly
    return torch.stack([angle.cos(), angle.sin()], 1).float() * 0.7


def test_points_are_learned_to_lie_on_their_circle():
    network = PointNetwork(generator=torch.Generator().manual_seed(0))
    denoiser, losses = loop.train(network, ring, steps=400, batch=128, lr=3e-3, decay=0.99, every=0)
    assert sum(losses[-50:]) < 0.9 * sum(losses[:50])
    # At little noise the best guess of a point near the circle is the nearest one on it.
    t = denoiser.schedule.time(4.0)
    x = ring(torch.arange(64))
    guess = denoiser((denoiser.schedule.alpha(t) * x).float(), t)
    assert (guess.norm(dim=1) - 0.7).abs().max() < 0.1


def test_clips_are_learned(capsys):
    data = tiny(frames=2, images=0).make_data()
    network = UNet3D(**{**NETWORK, "labels": 0})
    _, losses = loop.train(network, lambda index: data.clips(index).video, steps=60, lr=3e-3, every=30)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert capsys.readouterr().out.count("loss") == 2


def test_first_steps_are_those_of_the_trainer():
    network = {**NETWORK, "labels": 0}
    recipe = tiny(network=network, conditions={}, frames=2, images=0, batch=4, clips=160, warmup=0, lr=1e-3, lr_end=0.0,
                  weight_decay=0.01, ema_decay=0.999, milestones=[])  # fmt: skip
    trainer = training.Trainer(recipe)
    data = trainer.data[2]
    denoiser, losses = loop.train(
        recipe.make_network(), lambda index: data.clips(index).video, steps=40, batch=4, every=0, seed=recipe.seed
    )
    seen = []
    for _ in range(40):
        trainer.step()
        seen.append(trainer.tally.read(trainer.world)["loss"])
    assert losses == pytest.approx(seen, abs=2e-5)  # six decimals are written; the fused step rounds differently
    # The weights' averages give the same answers; single weights without influence may drift apart under Adam.
    z = torch.randn(2, 1, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(denoiser(z, 0.5), trainer.ema_denoiser(z, 0.5), rtol=0, atol=2e-3)


def test_the_loop_leaves_the_global_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    loop.train(PointNetwork(generator=torch.Generator().manual_seed(0)), ring, steps=2, every=0)
    assert torch.equal(torch.rand(1), expected)
