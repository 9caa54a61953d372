"""Drawings of lesson 08: three ways to let a convolution see time, counted and measured, and what masks let through.

The comparison layers live here because only the lesson needs them; the network itself is `minivdm.networks.unet3d`.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from einops import rearrange
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minivdm.course.notebook.style import colors, figure
from minivdm.networks.unet3d import ResidualBlock, TemporalAttention, UNet3D

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
    ax.legend()
    return fig


def draw_costs(channels: int, frames: int, side: int) -> Figure:
    """Work per place of one layer over its resolution: three ways, and attention over all places and frames at once."""
    fig, (left, right) = figure(1, 2, width=8.2, height=3.1, width_ratios=[1, 1.5])
    palette = [colors.x, colors.v, colors.eps]
    counts = [layer_parameters(kind, channels) / 1e3 for kind in KINDS]
    left.bar(KINDS, counts, color=palette)
    left.set(title=f"Weights at {channels} channels", ylabel="thousand")
    left.grid(False, axis="x")
    lengths = range(1, 257)
    for kind, color in zip(KINDS, palette, strict=True):
        right.plot(lengths, [layer_multiply_adds(kind, channels, f) for f in lengths], color=color, label=kind)
    joint = [13 * channels**2 + 2 * f * side**2 * channels for f in lengths]
    right.plot(lengths, joint, color=colors.noise, linestyle="--", label=f"attention over f·{side}·{side} tokens")
    right.axvline(frames, color=colors.exact, linewidth=0.8)
    right.set(yscale="log", xscale="log", xlabel="frames f", title="Multiply-adds per place and frame")
    right.legend(fontsize=9)
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


# ---- who sees whom ---------------------------------------------------------------------------------------------------


def influence(network: nn.Module, z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Sum of |d out_i / d in_j| over the values of frame j, for out_i the summed squares of output frame i: (f, f).

    z: (1, c, f, h, w). mask: the network's `frame_mask`.
    """
    z = z.detach().requires_grad_()
    out = network(z, torch.zeros(1), frame_mask=mask)
    rows = []
    for i in range(z.shape[2]):
        (gradient,) = torch.autograd.grad(out[:, :, i].square().sum(), z, retain_graph=True)
        rows.append(gradient.abs().sum(dim=(0, 1, 3, 4)))
    return torch.stack(rows)


@contextmanager
def forgetting_mask(layer: TemporalAttention) -> Iterator[None]:
    """Inside, one temporal layer does not receive the mask: the mistake to look for."""
    layer.forward = lambda x, frames, mask=None: TemporalAttention.forward(layer, x, frames)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del layer.forward


def awake(network: UNet3D, scale: float = 0.05, seed: int = 0) -> UNet3D:
    """A copy in float64 with noise on every weight: at their start, zeroed output layers would hide what passes."""
    network = copy.deepcopy(network).double()
    generator = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.data += scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return network


def reach(masks: Sequence[Tensor]) -> Tensor:
    """Which input frame can reach which output frame through layers of these masks (f, f): their boolean product."""
    seen = torch.eye(masks[0].shape[0])
    for mask in masks:
        seen = ((mask.float() + torch.eye(len(seen))) @ seen > 0).float()  # + 1: the residual path around the layer
    return seen.bool()


def draw_influence(panels: Mapping[str, Tensor], clip_frames: int | None = None) -> Figure:
    """Influence matrices (f, f), on a logarithmic scale; exact zeros are white. clip_frames: where the images begin."""
    fig, axes = figure(1, len(panels), width=2.9 * len(panels), height=3.5, squeeze=False)
    for ax, (title, matrix) in zip(axes[0], panels.items(), strict=True):
        matrix = matrix.detach().double()
        shade = torch.where(matrix > 0, matrix.clamp(min=1e-30).log10(), torch.nan)
        ax.imshow(shade.numpy(), cmap="Blues", vmin=float(shade[~shade.isnan()].max()) - 7)
        if clip_frames is not None:
            for cut in (ax.axhline, ax.axvline):
                cut(clip_frames - 0.5, color=colors.eps, linewidth=1)
        ax.set(title=title, xlabel="input frame")
        ax.grid(False)
    axes[0][0].set_ylabel("output frame")
    return fig


def average_variance(frames: int, images: int, correlation: float) -> float:
    """Variance of the mean of f frames with pairwise correlation rho and n independent images, each of variance 1."""
    return (frames * (1 + (frames - 1) * correlation) + images) / (frames + images) ** 2


def draw_average_variance(images: int) -> Figure:
    """Variance of a batch average over the correlation of a clip's frames, with and without further images."""
    rho = [i / 100 for i in range(101)]
    fig, ax = figure(width=5.6, height=3.1)
    for n, color in ((0, colors.noise), (images, colors.x)):
        ax.plot(rho, [average_variance(16, n, r) for r in rho], color=color, label=f"16 frames + {n} images")
    ax.plot(rho, [1 / (16 + images)] * 101, ":", color=colors.exact, label=f"{16 + images} independent images")
    ax.set(xlabel=r"correlation $\rho$ of two frames of a clip", ylabel="variance of the average", ylim=(0, 1.02))
    ax.legend()
    return fig


# ---- the network as a picture ----------------------------------------------------------------------------------------


def draw_network(network: UNet3D, size: int = 32) -> Figure:
    """Blocks of the U-Net at their resolutions; what each contains; skip connections as thin lines."""
    config: dict[str, Any] = network.config
    widths = [config["width"] * m for m in config["multipliers"]]
    ways: dict[str, Any] = {"down": network.down, "up": network.up}
    down = [(level, cell) for level, part in enumerate(ways["down"]) for cell in part["cells"]]
    middle = [(len(widths) - 1, cell) for cell in network.middle]
    up = [(len(widths) - 1 - i, cell) for i, part in enumerate(ways["up"]) for cell in part["cells"]]
    cells = down + middle + up
    fig, ax = figure(width=8.2, height=3.3)
    parts = [
        ("residual", colors.noise, "1×3×3 convolutions, λ and c"),
        ("spatial", colors.observed, "attention over space"),
        ("temporal", colors.eps, "attention over time"),
    ]
    for place, (level, cell) in enumerate(cells):
        for row, (name, color, _) in enumerate(parts):
            there = getattr(cell, name) is not None
            ax.add_patch(Rectangle((place, -level - 0.25 * row), 0.72, 0.21, facecolor=color if there else "white",
                                   edgecolor="#999999", linewidth=0.6))  # fmt: skip
    for level, width in enumerate(widths):
        side = size // config["patch"] // 2**level
        ax.text(-1.1, -level - 0.12, f"{side}×{side}\n{width} channels", ha="right", va="center", fontsize=10)
        first = next(i for i, (lev, _) in enumerate(cells) if lev == level)
        last = max(i for i, (lev, _) in enumerate(cells) if lev == level)
        if level + 1 < len(widths):
            ax.plot([first + 0.8, last - 1.1], [-level - 0.15] * 2, color="#777777", linewidth=1, linestyle=":")
    for row, (_, color, label) in enumerate(parts):
        ax.text(len(cells) + 0.6, -0.15 - 0.4 * row, label, color=color, fontsize=10, va="center", weight="bold")
    ax.set(xlim=(-3.4, len(cells) + 5.6), ylim=(-len(widths) + 0.2, 0.5))
    ax.axis("off")
    return fig
