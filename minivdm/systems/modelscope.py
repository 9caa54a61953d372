"""ModelScope: spatio-temporal blocks that take clips of any length, and images as clips of one frame.

Wang et al. 2023, "ModelScope text-to-video technical report", section 3.3. A block has a spatial convolution, a
temporal convolution, spatial attention and temporal attention, in this order. A temporal convolution, as in the
published code, is four of (group norm, SiLU, convolution of 3 frames), the last one zero at first, around which the
input goes past: at first the block is the image model's. It has no parameter that knows the number of frames, so images
are clips with f = 1 and train in the same loop, without the mask that attention over joined frames would need.

Two other systems are combinations of such parts:

- VideoCrafter (Chen et al. 2023, 2024): an image model with temporal layers, the frame rate embedded beside the noise
  level, and image tokens read by a second cross-attention.
- LaVie (Wang et al. 2023): everything is trained on clips and images at once, L_video + a L_image; temporal attention
  has rotary positions (`networks.attention.TemporalAttention` is one).
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from minivdm.guards import BadArgument, check_types, real, video, whole
from minivdm.networks.layers import GroupNorm


class TemporalConvolution(nn.Module):
    """x + four times (norm, SiLU, convolution of 3 frames), the last one zero at first; any number of frames.

    Args:
        width: channels, a multiple of `groups`.
        groups: of the norm, whose statistics are over the whole clip.
        layers: how many; the published code has four.
    """

    def __init__(self, width: int, groups: int = 8, layers: int = 4) -> None:
        super().__init__()
        if whole("width", width) % whole("groups", groups):
            raise BadArgument(f"groups: expected a divisor of width={width}, got {groups}")
        parts: list[nn.Module] = []
        for _ in range(whole("layers", layers)):
            parts += [GroupNorm(groups, width), nn.SiLU(), nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))]
        for p in parts[-1].parameters():
            nn.init.zeros_(p)
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:  # b c f h w
        return x + self.layers(video("x", x))


class SpatioTemporalBlock(nn.Module):
    """Spatial layer, temporal convolution, attention over places, attention over frames (their figure 2).

    Args:
        spatial: from (n, c, h, w) to the same, frame by frame, such as an image model's residual block.
        width: channels c.
        heads: of both attentions.
    """

    def __init__(self, spatial: nn.Module, width: int, heads: int = 1) -> None:
        super().__init__()
        if whole("width", width) % whole("heads", heads):
            raise BadArgument(f"heads: expected a divisor of width={width}, got {heads}")
        self.spatial, self.over_time = spatial, TemporalConvolution(width)
        self.norms = nn.ModuleList(GroupNorm(8, width) for _ in range(2))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(2))
        for name, p in self.attentions.named_parameters():
            if "out_proj" in name:
                nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:  # b c f h w
        b, _, f, h, w = video("x", x).shape
        frames = self.spatial(rearrange(x, "b c f h w -> (b f) c h w"))
        x = self.over_time(rearrange(frames, "(b f) c h w -> b c f h w", b=b))
        places = rearrange(self.norms[0](x), "b c f h w -> (b f) (h w) c")
        x = x + rearrange(self._attend(0, places), "(b f) (h w) c -> b c f h w", b=b, h=h)
        times = rearrange(self.norms[1](x), "b c f h w -> (b h w) f c")
        return x + rearrange(self._attend(1, times), "(b h w) f c -> b c f h w", b=b, h=h, w=w)

    def _attend(self, which: int, tokens: Tensor) -> Tensor:
        return self.attentions[which](tokens, tokens, tokens, need_weights=False)[0]


def joint_loss(clips: Tensor, images: Tensor, weight: float = 1.0) -> Tensor:
    """LaVie's L_video + weight * L_image. clips, images: losses per sample, (b,) and (n,); n may be 0."""
    real("weight", weight, least=0)
    if clips.ndim != 1 or images.ndim != 1 or not len(clips):
        got = f"{tuple(clips.shape)} and {tuple(images.shape)}"
        raise BadArgument(f"clips, images: expected losses (b,) and (n,), b at least 1, got {got}")
    return clips.mean() + weight * images.mean() if len(images) else clips.mean()


def length_share(frames: int, kernel: int = 3, layers: int = 4) -> float:
    """Share of the clip that one frame in its middle hears of through the temporal convolutions alone, at most 1."""
    reach = 2 * layers * (whole("kernel", kernel) // 2) + 1
    return min(reach, whole("frames", frames)) / frames


check_types(globals())
