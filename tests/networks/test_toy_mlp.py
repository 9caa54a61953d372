"""The small network of the two-dimensional experiments."""

import pytest
import torch

from minivdm.core.denoiser import Denoiser
from minivdm.core.schedules import CosineSchedule
from minivdm.networks.toy_mlp import PointNetwork


def test_answers_with_a_tensor_like_z(generator) -> None:
    z, log_snr = torch.randn(5, 3, generator=generator), torch.linspace(-20, 20, 5)
    assert PointNetwork(3, generator=generator)(z, log_snr).shape == z.shape


def test_one_seed_gives_one_network_and_leaves_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    z, log_snr = torch.ones(2, 2), torch.zeros(2)
    first, second = (PointNetwork(generator=torch.Generator().manual_seed(3))(z, log_snr) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_tells_every_log_snr_apart(generator) -> None:
    network = PointNetwork(generator=generator)
    answers = network(torch.zeros(41, 2), torch.arange(-20.0, 21))
    distances = torch.cdist(answers, answers) + torch.eye(41)
    assert distances.min() > 1e-4


def test_works_inside_a_denoiser_and_learns(generator) -> None:
    denoise = Denoiser(PointNetwork(width=16, depth=1, generator=generator), CosineSchedule(-4, 4))
    optimizer = torch.optim.Adam(denoise.parameters(), lr=1e-2)
    x = torch.tensor([[0.5, -0.5]]).expand(256, 2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = denoise.loss(x, generator=generator).mean
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="width: expected at least 1"):
        PointNetwork(width=0)
