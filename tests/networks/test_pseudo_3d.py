"""Pseudo-3D layers: a video network that starts as the image network, and trains nothing of it."""

import pytest
import torch

from minivdm.guards import BadArgument
from minivdm.networks import UNet3D
from minivdm.networks.pseudo_3d import Clock, Pseudo3DUNet, PseudoConv3d, is_temporal

IMAGE = dict(width=32, multipliers=(1, 2), patch=2, labels=6, blocks=1, middle=1, spatial=(False, True),
             temporal=(False, False), embedding=64)  # fmt: skip


def image_network():
    torch.manual_seed(0)
    network = UNet3D(**IMAGE).eval()
    for p in network.parameters():
        if not bool(p.any()):  # a network as if it were trained: no branch is silent
            torch.nn.init.normal_(p, std=0.1)
    return network


def inputs(frames=5):
    dice = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, frames, 16, 16, generator=dice), torch.zeros(2), torch.randn(2, 6, generator=dice)


@torch.no_grad()
def test_at_first_the_video_network_is_the_image_network_bit_for_bit():
    image = image_network()
    video, (z, log_snr, labels) = Pseudo3DUNet(image).eval(), inputs()
    wanted = image(z, log_snr, labels=labels)
    assert float(wanted.std()) > 0.1
    assert torch.equal(video(z, log_snr, labels=labels), wanted)
    told = dict(low=torch.ones(2, 2, 5, 16, 16), rate=torch.full((2,), 8.0))
    assert torch.equal(video(z, log_snr, labels=labels, **told), wanted)


@torch.no_grad()
def test_frames_meet_once_a_layer_over_time_speaks():
    video, (z, log_snr, _) = Pseudo3DUNet(image_network()).eval(), inputs()
    other = z.clone()
    other[:, :, 4] += 1
    before = video(z, log_snr)
    assert torch.equal(before[:, :, :4], video(other, log_snr)[:, :, :4])
    torch.nn.init.normal_(video.stem.temporal.weight, std=0.1)
    changed = (video(z, log_snr) - video(other, log_snr)).abs().amax((0, 1, 3, 4))
    # Only the stem speaks, and reaches one frame: the neighbour hears of frame 4, frame 2 does not.
    assert changed[3] > 1e-3 and float(changed[:3].max()) == 0


@torch.no_grad()
def test_the_convolution_over_time_is_a_convolution_over_time():
    """Against a Conv3d of (3, 3, 3) whose kernel is the product of the two."""
    torch.manual_seed(2)
    layer = PseudoConv3d(torch.nn.Conv2d(4, 4, 3, padding=1, bias=False), clock=Clock()).double()
    layer.clock.frames = 5
    torch.nn.init.normal_(layer.temporal.weight, std=0.3)
    x = torch.randn(1, 4, 5, 6, 6, dtype=torch.float64)
    time = layer.temporal.weight[:, :, :, 0].clone()  # out in 3
    time[:, :, 1] += torch.eye(4)  # x + W x
    kernel = torch.einsum("omt,mihw->oithw", time, layer.spatial.weight)
    wanted = torch.nn.functional.conv3d(x, kernel, padding=1)
    found = layer(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (1, 5)).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_training_the_layers_over_time_leaves_the_image_network_as_it_is():
    image = image_network()
    video, (z, log_snr, labels) = Pseudo3DUNet(image), inputs()
    for name, p in video.named_parameters():
        p.requires_grad_(is_temporal(name))
    steps = torch.optim.SGD([p for p in video.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        video(z, log_snr, labels=labels, rate=torch.ones(2)).square().mean().backward()
        steps.step()
    state = {name.replace(".spatial.weight", ".weight").replace(".spatial.bias", ".bias"): value
             for name, value in video.state_dict().items() if not is_temporal(name)}  # fmt: skip
    kept = image.state_dict()
    assert state.keys() == kept.keys() and all(torch.equal(state[name], kept[name]) for name in kept)
    assert not torch.equal(video(z, log_snr, labels=labels), image(z, log_snr, labels=labels))


def test_the_layers_over_time_are_all_that_has_to_be_kept():
    image = image_network()
    one, two = Pseudo3DUNet(image), Pseudo3DUNet(image)
    for p in one.temporal_state().values():
        torch.nn.init.normal_(p.data, std=0.1)
    two.load_temporal(one.temporal_state())
    z, log_snr, labels = inputs()
    with torch.no_grad():
        assert torch.equal(one(z, log_snr, labels=labels), two(z, log_snr, labels=labels))
    with pytest.raises(BadArgument, match="temporal weights"):
        two.load_temporal({"stem.temporal.weight": torch.zeros(1)})


def test_networks_that_are_no_image_networks_and_masks_are_refused():
    with pytest.raises(BadArgument, match="without temporal attention"):
        Pseudo3DUNet({**IMAGE, "temporal": (True, True)})
    z, log_snr, _ = inputs()
    with pytest.raises(BadArgument, match="frame_mask"):
        Pseudo3DUNet(IMAGE)(z, log_snr, frame_mask=torch.eye(5).bool())
