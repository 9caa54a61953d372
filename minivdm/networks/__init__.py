"""The networks, which know nothing of diffusion: a noisy clip and a log-SNR in, a clip out.

Read unet3d; toy_mlp is its stand-in for points of a plane.
"""

from minivdm.networks.toy_mlp import PointNetwork
from minivdm.networks.unet3d import (
    Block,
    Modulated,
    ResidualBlock,
    SpatialAttention,
    TemporalAttention,
    UNet3D,
    attend,
    joint_frame_mask,
    rotary_angles,
    rotate,
    zero,
)

__all__ = [
    "Block",
    "Modulated",
    "PointNetwork",
    "ResidualBlock",
    "SpatialAttention",
    "TemporalAttention",
    "UNet3D",
    "attend",
    "joint_frame_mask",
    "rotary_angles",
    "rotate",
    "zero",
]
