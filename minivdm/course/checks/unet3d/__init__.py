"""Checks of assignment 08: convolutions and attention over space and time, positions, and masks."""

from minivdm.course.checks.unet3d.attention import Attention, temporal_attention
from minivdm.course.checks.unet3d.convolutions import channels_between, per_frame_conv
from minivdm.course.checks.unet3d.images import best_weights, sequence_mask
from minivdm.course.checks.unet3d.network import ResidualBlock, UNet
from minivdm.course.checks.unet3d.positions import rotate, shaw_logits

CHECKS = (
    Attention,
    ResidualBlock,
    UNet,
    per_frame_conv,
    channels_between,
    temporal_attention,
    sequence_mask,
    rotate,
    shaw_logits,
    best_weights,
)
