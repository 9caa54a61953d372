"""ModelScope: silent at first, any number of frames, stills as clips of one frame, a convolution's reach."""

import pytest
import torch
from torch import nn

from minivdm.guards import BadArgument
from minivdm.systems.modelscope import SpatioTemporalBlock, TemporalConvolution, joint_loss, length_share


def clip(frames: int) -> torch.Tensor:
    return torch.randn(2, 8, frames, 3, 3, generator=torch.Generator().manual_seed(0))


def awake(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for p in layer.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    return layer


@pytest.mark.parametrize("frames", [1, 2, 7, 16])
def test_at_first_it_is_the_image_model_bit_by_bit(frames):
    spatial = nn.Conv2d(8, 8, 3, padding=1)
    found = SpatioTemporalBlock(spatial, 8, heads=2)(clip(frames))
    expected = spatial(clip(frames).transpose(1, 2).reshape(-1, 8, 3, 3)).view(2, frames, 8, 3, 3).transpose(1, 2)
    assert torch.equal(found, expected)


def test_a_still_passes_the_middle_of_the_kernel_alone():
    layer = awake(TemporalConvolution(8))
    x = clip(1)
    for part in layer.layers:
        if isinstance(part, nn.Conv3d):
            middle = part.weight[:, :, 1, 0, 0]  # of earlier, this and later frame
            x = torch.einsum("oc,bcfhw->bofhw", middle, x) + part.bias[:, None, None, None]
        else:
            x = part(x)
    assert torch.allclose(layer(clip(1)), clip(1) + x, atol=1e-4)


def test_how_far_a_frame_is_heard():
    layer = awake(TemporalConvolution(8))
    for i in range(0, 12, 3):
        layer.layers[i] = nn.Identity()  # a group norm's statistics are the whole clip's
    x = clip(16).requires_grad_()
    layer(x)[:, :, 8].sum().backward()
    heard = (x.grad.abs().amax((0, 1, 3, 4)) > 0).float()
    assert heard.sum() / 16 == length_share(16) == 9 / 16


def test_the_joint_loss():
    clips, images = torch.tensor([1.0, 3.0]), torch.tensor([4.0])
    assert joint_loss(clips, images, 0.5) == 4.0
    assert joint_loss(clips, images[:0]) == 2.0


def test_errors():
    with pytest.raises(BadArgument, match="groups"):
        TemporalConvolution(12)
    with pytest.raises(BadArgument, match="heads"):
        SpatioTemporalBlock(nn.Identity(), 8, heads=3)
    with pytest.raises(BadArgument, match="losses"):
        joint_loss(torch.zeros(0), torch.zeros(1))
