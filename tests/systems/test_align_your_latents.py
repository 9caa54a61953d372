"""Align your latents: the image model bit by bit at first, for every alpha; the formula; masks."""

import pytest
import torch
from torch import nn

from minivdm.guards import BadArgument
from minivdm.systems.align_your_latents import Aligned, FrozenWithTime, known_frames


def z(c: int = 4) -> torch.Tensor:
    return torch.randn(2, c, 5, 3, 3, generator=torch.Generator().manual_seed(0))


def awake(**changes) -> Aligned:
    layer = Aligned(4, **changes)
    nn.init.normal_(layer.project.weight, generator=torch.Generator().manual_seed(1))
    return layer


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.999])
def test_at_first_every_alpha_is_the_image_model_bit_by_bit(alpha):
    assert torch.equal(Aligned(4, alpha=alpha)(z()), z())


def test_the_papers_sum_rounds_where_this_one_does_not():
    x = z()
    alpha = torch.tensor(0.3)
    assert not torch.equal(alpha * x + (1 - alpha) * x, x)


def test_it_is_the_papers_sum():
    layer = awake(alpha=0.3)
    found, x = layer(z()), z()
    with torch.no_grad():
        layer.logit.fill_(-torch.inf)  # alpha = 0: the temporal layer's answer alone
    other = layer(z())
    assert torch.allclose(found, 0.3 * x + 0.7 * other, atol=1e-5)


def test_alpha_1_is_the_image_model_whatever_has_been_learnt():
    layer = awake()
    with torch.no_grad():
        layer.logit.fill_(torch.inf)
    assert torch.equal(layer(z()), z())


def test_gradients_reach_the_silent_projection():
    layer = Aligned(4)
    layer(z()).square().sum().backward()
    assert layer.project.weight.grad.abs().sum() > 0


def test_a_frozen_image_model_is_kept_and_only_time_is_trained():
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.Sequential(nn.SiLU(), nn.Conv2d(4, 2, 3, padding=1))]
    model = FrozenWithTime(layers, [Aligned(4), None])
    x = z(2)
    expected = model.images(x.transpose(1, 2).reshape(10, 2, 3, 3)).view(2, 5, 2, 3, 3).transpose(1, 2)
    assert torch.equal(model(x), expected)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"temporal"}


@pytest.mark.parametrize(("frames", "mask"), [((0,), "10000"), ((0, 4), "10001"), ((0, 2, 4), "10101"), ((), "00000")])
def test_known_frames(frames, mask):
    x = z()
    found = known_frames(x, frames)
    expected = torch.tensor([float(m) for m in mask])
    assert torch.equal(found[:, -1], expected[:, None, None].expand(2, 5, 3, 3))
    assert torch.equal(found[:, :-1], x * expected[:, None, None])


def test_what_is_not_known_does_not_leak():
    x = z()
    x[:, :, 1:] = torch.nan
    assert known_frames(x, (0,)).isfinite().all()


def test_known_frames_matter_to_layers_that_take_them():
    layer, x = awake(context=5), z()
    assert not torch.allclose(layer(x, known_frames(x, (0,))), layer(x, known_frames(x, ())))


def test_errors():
    with pytest.raises(BadArgument, match="alpha"):
        Aligned(4, alpha=1.0)
    with pytest.raises(BadArgument, match="heads"):
        Aligned(4, heads=3)
    with pytest.raises(BadArgument, match="context=0"):
        Aligned(4)(z(), z())
    with pytest.raises(BadArgument, match="known: expected shape"):
        Aligned(4, context=5)(z(), z())
    with pytest.raises(BadArgument, match="temporal"):
        FrozenWithTime([nn.Identity()], [])
