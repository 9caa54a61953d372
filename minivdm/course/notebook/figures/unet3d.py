"""Drawings of lesson 08: ways to let a network see time, counted and measured.

The comparison layers live here because only the lesson needs them; the network itself is `minivdm.networks.unet3d`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minivdm.course.notebook.style import colors, figure
from minivdm.networks import ResidualBlock, UNet3D

KINDS = ["factorized", "(2+1)D", "full 3D"]


# ---- three ways ----------------------------------------------------------------------------------------------------


class VolumeConv(nn.Module):
    """A convolution over frames as well as places, for activations (b f) c h w.

    kind: "full 3D" is one 3x3x3 kernel; "(2+1)D" a 1x3x3 kernel, a SiLU and a 3x1x1 kernel (Tran et al. 2018), with as
    many channels between as come out.
    """

    def __init__(self, width_in: int, width: int, kind: str, frames: int):
        super().__init__()
        self.frames = frames
        if kind == "full 3D":
            self.layers = nn.Sequential(nn.Conv3d(width_in, width, 3, padding=1))
        elif kind == "(2+1)D":
            self.layers = nn.Sequential(
                nn.Conv3d(width_in, width, (1, 3, 3), padding=(0, 1, 1)),
                nn.SiLU(),
                nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0)),
            )
        else:
            raise ValueError(f"expected a kind out of {KINDS[1:]}, got {kind!r}")

    def forward(self, x: Tensor) -> Tensor:
        volume = rearrange(x, "(b f) c h w -> b c f h w", f=self.frames)
        return rearrange(self.layers(volume), "b c f h w -> (b f) c h w")


def variant(kind: str, frames: int, **settings: Any) -> UNet3D:
    """The course's U-Net with time handled in another way.

    "factorized" is the network as it stands. In the other two no layer attends over time; instead both convolutions of
    every residual block see three frames.
    """
    if kind not in KINDS:
        raise ValueError(f"expected a kind out of {KINDS}, got {kind!r}")
    levels = len(settings.get("multipliers", (1, 2, 4)))
    settings["temporal"] = (kind == "factorized",) * levels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet3D(**settings)
        for block in net.modules():
            if kind != "factorized" and isinstance(block, ResidualBlock):
                for name in ("conv1", "conv2"):
                    conv = getattr(block, name)
                    setattr(block, name, VolumeConv(conv.in_channels, conv.out_channels, kind, frames))
    return net


def layer_parameters(kind: str, channels: int) -> int:
    """Weights, without biases, of one layer that mixes C channels over space and time (equation 8.4)."""
    return {"full 3D": 27, "(2+1)D": 12, "factorized": 13}[kind] * channels**2


def layer_multiply_adds(kind: str, channels: int, frames: int) -> int:
    """Multiplications with addition per place and frame of the same layer (equation 8.5)."""
    attention = 2 * frames * channels if kind == "factorized" else 0
    return layer_parameters(kind, channels) + attention


class Cost(NamedTuple):
    """What a training step on one clip costs: counts, bytes kept for the backward pass, median seconds."""

    parameters: int
    multiply_adds: int
    bytes_kept: int
    seconds: float


def count_multiply_adds(net: nn.Module, *inputs: Any) -> int:
    """Multiplications with addition of a forward pass, counted as it runs."""
    # The fused attention kernels are opaque to the counter; the plain one is two matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(*inputs)
    return counter.get_total_flops() // 2


def cost_by_part(network: nn.Module, z: Tensor) -> dict[str, int]:
    """Multiply-adds of a forward pass on z, by kind of layer: "convolutions", "attention over space" and "over time".

    The network's cells have parts called `residual`, `spatial` and `temporal`, as in `UNet3D`; whatever lies outside
    of the two attentions (stem, head, embedding, changes of resolution) counts as convolutions.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(z, torch.zeros(z.shape[0]))
    found = {"attention over space": 0, "attention over time": 0}
    for name, counts in counter.get_flop_counts().items():
        for part, words in (("spatial", "attention over space"), ("temporal", "attention over time")):
            if name.endswith("." + part):
                found[words] += sum(counts.values()) // 2
    return {"convolutions": counter.get_total_flops() // 2 - sum(found.values()), **found}


def bytes_kept(net: nn.Module, *inputs: Any) -> int:
    """Bytes of activations that a forward pass keeps for the backward pass; parameters do not count."""
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, Any] = {}  # the storages themselves: held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = net(*inputs)
    total = sum(storage.nbytes() for storage in kept.values())
    del result
    return total


def measure(net: nn.Module, z: Tensor, repeats: int = 3) -> Cost:
    """Cost of forward and backward on z (b, c, f, h, w) at log-SNR 0.

    Time is the median of `repeats`, after one more to warm up.
    """
    log_snr = torch.zeros(z.shape[0])
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        net(z, log_snr).square().mean().backward()
        seconds.append(time.perf_counter() - began)
    net.zero_grad(set_to_none=True)
    return Cost(
        sum(p.numel() for p in net.parameters()),
        count_multiply_adds(net, z, log_snr),
        bytes_kept(net, z, log_snr),
        statistics.median(seconds[1:]),
    )


def draw_measured(costs: Mapping[str, Cost]) -> Figure:
    """Bars: each cost of each network, relative to the first of them."""
    names = ["parameters", "multiply-adds", "memory kept", "time"]
    fig, ax = figure(width=7.0, height=3.2)
    first = next(iter(costs.values()))
    palette = [colors.x, colors.v, colors.eps]
    for place, ((kind, cost), color) in enumerate(zip(costs.items(), palette, strict=False)):
        heights = [value / base for value, base in zip(cost, first, strict=True)]
        x = [i + (place - (len(costs) - 1) / 2) * 0.26 for i in range(4)]
        ax.bar(x, heights, 0.24, color=color, label=kind)
        for left, height in zip(x, heights, strict=True):
            ax.text(left, height, f"{height:.2f}", ha="center", va="bottom", fontsize=9)
    ax.set_xticks(range(4), names)
    ax.set(ylabel=f"relative to {next(iter(costs))}", title="One U-Net, three ways to see time")
    ax.grid(False, axis="x")
    ax.set_ylim(top=1.22 * max(max(bar.get_height() for bar in group) for group in ax.containers))
    ax.legend(ncols=3, loc="upper left")
    return fig


def draw_costs(channels: int, frames: int, side: int) -> Figure:
    """Work per place of one layer over its resolution: three ways, and attention over all places and frames at once."""
    fig, (left, right) = figure(1, 2, width=8.2, height=3.1, width_ratios=[1, 1.5])
    palette = [colors.x, colors.v, colors.eps]
    counts = [layer_parameters(kind, channels) / 1e3 for kind in KINDS]
    left.bar(KINDS, counts, color=palette)
    left.set(title=f"Weights at {channels} channels", ylabel="thousand")
    left.grid(False, axis="x")
    lengths = range(1, 1025)  # beyond the crossing of factorized and full 3D, at f = 7 C
    for kind, color in zip(KINDS, palette, strict=True):
        right.plot(lengths, [layer_multiply_adds(kind, channels, f) for f in lengths], color=color, label=kind)
    joint = [13 * channels**2 + 2 * f * side**2 * channels for f in lengths]
    right.plot(lengths, joint, color=colors.noise, linestyle="--", label=f"attention over f·{side}·{side} tokens")
    right.axvline(frames, color=colors.exact, linewidth=0.8)
    right.set(yscale="log", xscale="log", xlabel="frames f", title="Multiply-adds per place and frame")
    right.legend(fontsize=10)
    return fig


# ---- a kernel as a sum of separable ones -----------------------------------------------------------------------------


def separate(kernel: Tensor, between: int) -> tuple[Tensor, Tensor]:
    """The best (2+1)D pair for a full kernel (equation 8.3), by truncated singular value decomposition.

    kernel: (out, in, 3, 3, 3), time first. between: channels M between the two. Returns the spatial kernel
    (M, in, 1, 3, 3) and the temporal one (out, M, 3, 1, 1).
    """
    matrix = rearrange(kernel, "o i t h w -> (o t) (i h w)")
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    spatial = rearrange(vh[:between], "m (i h w) -> m i 1 h w", h=3, w=3)
    temporal = rearrange(u[:, :between] * s[:between], "(o t) m -> o m t 1 1", t=3)
    return spatial, temporal


# ---- the alternatives ------------------------------------------------------------------------------------------------


class CausalConv(nn.Module):
    """A 3x3x3 convolution that sees its own frame and the two before it (equation 8.16), for clips (b, c, f, h, w).

    All of its padding in time lies before the first frame, as in MAGVIT-v2 (Yu et al. 2023), here copies of that frame:
    a single image is a clip of one frame.
    """

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv = nn.Conv3d(width_in, width, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        past = x[:, :, :1].expand(-1, -1, 2, -1, -1)
        return self.conv(torch.cat((past, x), dim=2))


def transformer_multiply_adds(width: int, frames: int, places: int, divided: bool) -> int:
    """Multiply-adds per token of a transformer block of that width over a clip's tokens (equation 8.15).

    Its perceptron is four times as wide. divided: attention over space, then over time, instead of over all tokens.
    """
    if divided:
        return 16 * width**2 + 2 * (frames + places) * width
    return 12 * width**2 + 2 * frames * places * width
