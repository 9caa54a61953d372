"""The networks, which know nothing of diffusion: a noisy clip and a log-SNR in, a clip out.

Read layers, attention, blocks, unet3d, built from what unet3d_config names, and text_encoder for a network that reads
sentences; toy_mlp is the U-Net's stand-in for points of a plane. low_resolution lets the clip of another stage in;
pseudo_3d makes a video network of an image network, and prior denoises embeddings. autoencoder takes clips to latents
and back. tokens, transformer_blocks, transformer and window_transformer are the other family: clips as patches.
"""

from minivdm.networks.attention import (
    SpatialAttention,
    TemporalAttention,
    attend,
    joint_frame_mask,
    rotary_angles,
    rotate,
)
from minivdm.networks.autoencoder import Tokenizer, TokenizerLoss, tokenizer_loss
from minivdm.networks.blocks import Block, Modulated, ResidualBlock
from minivdm.networks.layers import GroupNorm, zero
from minivdm.networks.low_resolution import LowResolution
from minivdm.networks.prior import PriorNetwork
from minivdm.networks.pseudo_3d import Pseudo3DUNet
from minivdm.networks.toy_mlp import PointNetwork
from minivdm.networks.transformer import Transformer, TransformerConfig
from minivdm.networks.unet3d import UNet3D
from minivdm.networks.unet3d_config import UNet3DConfig
from minivdm.networks.window_transformer import WindowTransformer

__all__ = [
    "Block",
    "GroupNorm",
    "LowResolution",
    "Modulated",
    "PointNetwork",
    "PriorNetwork",
    "Pseudo3DUNet",
    "ResidualBlock",
    "SpatialAttention",
    "TemporalAttention",
    "Tokenizer",
    "TokenizerLoss",
    "Transformer",
    "TransformerConfig",
    "UNet3D",
    "UNet3DConfig",
    "WindowTransformer",
    "attend",
    "joint_frame_mask",
    "rotary_angles",
    "rotate",
    "tokenizer_loss",
    "zero",
]
