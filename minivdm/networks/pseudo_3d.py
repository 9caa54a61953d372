"""Pseudo-3D layers: an image network becomes a video network that still is the image network (Make-A-Video).

Singer et al. 2022, "Make-A-Video: text-to-video generation without text-video data", section 3.2. After each 2-D
convolution, which sees frames one by one, comes a 1-D convolution over the frames at each place, the identity at first;
after each attention over places one over frames, whose output is zero at first. So the video network starts as the
image network, bit for bit: the identity is written x + W x with W = 0, exact in any precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.guards import BadArgument, check_types, whole
from minivdm.networks.attention import TemporalAttention
from minivdm.networks.blocks import Block
from minivdm.networks.layers import zero
from minivdm.networks.low_resolution import LowResolution
from minivdm.networks.unet3d import UNet3D


class Clock:
    """How many frames the clips have that are in the network just now: convolutions see (b f) c h w."""

    frames = 1


class PseudoConv3d(nn.Module):
    """A 2-D convolution of each frame, then x + a 1-D convolution over 3 frames at each place, zero at first.

    Args:
        spatial: the image network's convolution, which stays what it is.
        clock: shared by all convolutions of a network.
    """

    def __init__(self, spatial: nn.Conv2d, clock: Clock) -> None:
        super().__init__()
        self.spatial, self.clock = spatial, clock
        width = spatial.out_channels
        self.temporal = zero(nn.Conv2d(width, width, (3, 1), padding=(1, 0)))

    @property
    def weight(self) -> Tensor:
        """The image network's, of whose precision and device a network asks."""
        return self.spatial.weight

    def forward(self, x: Tensor) -> Tensor:  # (b f) c h w
        x = self.spatial(x)
        height, frames = x.shape[2], self.clock.frames
        change = self.temporal(rearrange(x, "(b f) c h w -> b c f (h w)", f=frames))
        return x + rearrange(change, "b c f (h w) -> (b f) c h w", h=height)


class Pseudo3DUNet(UNet3D):
    """A U-Net for images with layers over time between its own; called as `UNet3D` is, with clips.

    Every convolution larger than 1x1 gets a temporal one; every spatial attention is followed by a temporal one.

    Args:
        image: a network without temporal attention, whose weights are copied; or its configuration.
        low: channels of a clip that goes in beside, as `UNet3D` has it: for known frames, their mask is one more.
            With it comes `rate`, the frame rate.

    Attributes:
        image_config: the configuration of the image network.
    """

    def __init__(self, image: UNet3D | Mapping[str, Any], low: int = 2) -> None:
        image = image if isinstance(image, UNet3D) else UNet3D(**image)
        config: dict[str, Any] = dict(image.config)
        whole("low", low, least=0)
        if any(config["temporal"]) or config.get("low") or config.get("self_conditioning") or config.get("text"):
            raise BadArgument("image: expected a network without temporal attention, low, estimate and text, got one")
        super().__init__(**config)
        self.load_state_dict(image.state_dict())
        self.image_config, self.clock = config, Clock()
        self.config = {**config, "low": low}
        for module in list(self.modules()):
            if isinstance(module, Block) and module.spatial is not None:
                width = module.spatial.out.out_channels
                module.temporal = TemporalAttention(width, config["head_channels"])
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if type(child) is nn.Conv2d and child.kernel_size != (1, 1) and not isinstance(module, PseudoConv3d):
                    setattr(module, name, PseudoConv3d(child, self.clock))
        self.low = LowResolution(low, config["width"], config["patch"], config["embedding"]) if low else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, z: Tensor, *args: Any, **conditions: Any) -> Tensor:
        """As `UNet3D.forward`, but for a frame mask: convolutions over time know none."""
        if conditions.get("frame_mask") is not None:
            raise BadArgument("frame_mask: expected none, as convolutions over time cannot be masked, got one")
        self.clock.frames = z.shape[2]
        return super().forward(z, *args, **conditions)

    def temporal_state(self) -> dict[str, Tensor]:
        """The weights that make a video network of the image network: all that `is_temporal` names."""
        return {name: value for name, value in self.state_dict().items() if is_temporal(name)}

    def load_temporal(self, state: Mapping[str, Tensor]) -> None:
        """Take these over. Raises BadArgument where they are not exactly those of `temporal_state`."""
        own = self.temporal_state()
        if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
            odd = sorted(own.keys() ^ state.keys())[:3]
            raise BadArgument(f"state: expected the temporal weights of this network, got others: {odd}")
        self.load_state_dict(dict(state), strict=False)


def is_temporal(name: str) -> bool:
    """Whether a weight of this name belongs to the layers over time and to what they are told of known frames."""
    return ".temporal." in f".{name}" or name.startswith("low.")


check_types(globals())
