"""How the clip of another stage enters the U-Net."""

import pytest
import torch

from minivdm.networks import UNet3D
from minivdm.training import pretrained

SMALL = dict(width=32, multipliers=(1,), patch=2, labels=0, spatial=(False,), temporal=(True,), middle=1)


def conditions(channels=1, batch=2):
    torch.manual_seed(1)
    return {
        "low": torch.randn(batch, channels, 4, 8, 8),
        "low_log_snr": torch.tensor([1.0, 3.0])[:batch],
        "rate": torch.tensor([2.0, 8.0])[:batch],
    }


def test_weights_trained_without_go_on_bit_for_bit():
    trained = pretrained.load("moving-mnist-32").network
    network = UNet3D(**trained.config, low=2)
    missing, unexpected = network.load_state_dict(trained.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("low.") for name in missing)
    z = torch.randn(2, 1, 4, 32, 32)
    given = {**conditions(), "low": torch.randn(2, 2, 4, 32, 32)}
    with torch.no_grad():
        assert torch.equal(network(z, torch.tensor(0.5), **given), trained(z, torch.tensor(0.5)))


@pytest.mark.parametrize("name", ["low", "low_log_snr", "rate"])
def test_every_condition_is_learnt_of(name):
    network = UNet3D(**SMALL, low=1)
    torch.nn.init.normal_(network.head.weight)  # as after some steps of training
    for block in (*network.down[0]["cells"], *network.middle, *network.up[0]["cells"]):
        torch.nn.init.normal_(block.residual.conv2.weight)
    network(torch.randn(2, 1, 4, 8, 8), torch.tensor(0.0), **conditions()).sum().backward()
    layer = {"low": network.low.stem, "low_log_snr": network.low.level[-1], "rate": network.low.rate}[name]
    assert float(layer.weight.grad.abs().max()) > 0


def test_a_network_without_low_has_no_such_weights_and_says_so():
    network = UNet3D(**SMALL)
    assert not [name for name in network.state_dict() if name.startswith("low")] and "low" not in network.config
    with pytest.raises(ValueError, match="built with low=0"):
        network(torch.randn(2, 1, 4, 8, 8), torch.tensor(0.0), low=torch.zeros(2, 1, 4, 8, 8))


@pytest.mark.parametrize(
    "bad", [{"low": torch.zeros(2, 2, 4, 8, 8)}, {"low_log_snr": torch.zeros(3)}, {"rate": torch.zeros(2, 1)}]
)
def test_a_condition_of_another_size_is_named(bad):
    network = UNet3D(**SMALL, low=1)
    with pytest.raises(ValueError, match=f"{next(iter(bad))}: expected"):
        network(torch.randn(2, 1, 4, 8, 8), torch.tensor(0.0), **bad)
