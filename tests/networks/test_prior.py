"""The prior: a denoiser of embeddings whose unconditional model is that of no sentence."""

import pytest
import torch

from minivdm.core import CosineSchedule, Denoiser
from minivdm.guards import BadArgument
from minivdm.networks.prior import PriorNetwork


def prior():
    torch.manual_seed(0)
    network = PriorNetwork(6, text=9, width=16, depth=1, condition=32)
    torch.nn.init.normal_(network.head.weight)
    torch.nn.init.normal_(network.layers[0].narrow.weight)
    return network.eval()


@torch.no_grad()
def test_an_empty_sentence_is_no_sentence():
    network, z = prior(), torch.randn(3, 6)
    nothing = network(z, torch.zeros(3))
    assert torch.equal(network(z, torch.zeros(3), text=torch.zeros(3, 4, dtype=torch.int64)), nothing)
    assert not torch.allclose(network(z, torch.zeros(3), text=torch.full((3, 4), 2)), nothing)


def test_normalised_features_have_mean_0_and_deviation_1():
    network, x = prior(), 3 + 2 * torch.randn(500, 6)
    network.fit(x)
    y = network.normalised(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.std(0), torch.ones(6), rtol=0, atol=1e-5)
    with pytest.raises(BadArgument, match="features"):
        network.fit(x[:, :5])


def test_it_learns_which_point_a_word_means():
    """Two words, two points: after a few steps the denoiser at full noise is the mean given the word."""
    torch.manual_seed(0)
    network, points = PriorNetwork(6, text=9, width=16, depth=1, condition=32), torch.tensor([[1.0] * 6, [-1.0] * 6])
    model = Denoiser(network.train(), CosineSchedule(), "v")
    steps, dice = torch.optim.Adam(network.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    for _ in range(300):
        which = torch.randint(2, (64,), generator=dice)
        model.loss(points[which], text=which[:, None] + 1, generator=dice).mean.backward()
        steps.step()
        steps.zero_grad()
    with torch.no_grad():
        noise = torch.randn(400, 6, generator=dice)
        found = model.given(text=torch.tensor([[1], [2]]).repeat(200, 1))(noise, 1.0).unflatten(0, (200, 2)).mean(0)
    torch.testing.assert_close(found, points, rtol=0, atol=0.5)  # without the word, 0 would be off by 1


def test_what_is_no_embedding_is_refused():
    with pytest.raises(BadArgument, match="embeddings"):
        prior()(torch.randn(3, 5), torch.zeros(3))
    with pytest.raises(BadArgument, match="condition"):
        PriorNetwork(6, text=9, condition=33)
