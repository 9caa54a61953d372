"""Looking at what the temporal attention of a trained network attends to (lesson 08)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from einops import rearrange
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from minivdm.core.denoiser import Denoiser
from minivdm.core.gaussian import diffuse
from minivdm.course.notebook.style import colors, figure
from minivdm.networks.attention import TemporalAttention, rotary_angles, rotate


def temporal_layers(denoiser: Denoiser) -> list[TemporalAttention]:
    """The temporal attention layers of a denoiser's network, in the order in which a clip meets them."""
    return [module for module in denoiser.network.modules() if isinstance(module, TemporalAttention)]


@torch.no_grad()
def attention_maps(denoiser: Denoiser, video: Tensor, log_snr: float, seed: int = 0) -> list[Tensor]:
    """Weights of each temporal layer, (h, w, heads, f, f) at its own resolution, while one noised clip is denoised.

    video: (1, c, f, h, w). log_snr: how noisy it is made; the noise is the same at each level.
    """
    seen: dict[int, Tensor] = {}
    layers = temporal_layers(denoiser)
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, i=i: seen.__setitem__(i, given[0]))  # type: ignore[misc]
        for i, layer in enumerate(layers)
    ]
    try:
        t = denoiser.schedule.time(torch.tensor(log_snr, dtype=torch.float64))
        denoiser(diffuse(video, t, denoiser.schedule, generator=torch.Generator().manual_seed(seed)), t)
    finally:
        for hook in hooks:
            hook.remove()
    return [layer.weights(seen[i], video.shape[2])[0] for i, layer in enumerate(layers)]


def own_frame(weights: Tensor) -> float:
    """Mean weight that a frame gives to itself; 1 / f where attention is even. weights: (h, w, heads, f, f)."""
    return float(weights.diagonal(dim1=-2, dim2=-1).mean())


def by_offset(weights: Tensor) -> Tensor:
    """Mean weight by key minus query frame, from -(f-1) to f-1: (2f - 1,). weights: (..., f, f)."""
    mean = weights.flatten(0, -3).mean(0)
    f = len(mean)
    return torch.stack([mean.diagonal(offset).mean() for offset in range(1 - f, f)])


@torch.no_grad()
def distance_bias(layer: TemporalAttention, reach: int = 16) -> Tensor:
    """The part of each head's logits that depends on the distance alone (equation 8.11): (heads, 2 reach - 1).

    From key - query = 1 - reach to reach - 1.
    """
    constant = layer.qkv(layer.norm.bias[None, :, None, None])  # what normalization and projection add to any content
    q, k, _ = rearrange(constant, "1 (three n d) 1 1 -> three n d", three=3, d=layer.head_channels)
    angles = rotary_angles(torch.arange(1 - reach, reach), layer.head_channels)
    turned = rotate(k[None, :, None].expand(1, -1, 2 * reach - 1, -1), angles.cos(), angles.sin())[0]
    return (q[:, None] * turned).sum(-1) / math.sqrt(layer.head_channels)


def attention_viewer(
    denoiser: Denoiser, video: Tensor, log_snrs: Sequence[float]
) -> Callable[[int, int, int, int, float], Figure]:
    """A drawing function (layer, head, row, column, log_snr) for one clip; the network runs once per log-SNR, here."""
    maps = {level: attention_maps(denoiser, video, level) for level in log_snrs}
    clean = video[0, 0]

    def draw(layer: int, head: int, row: int, column: int, log_snr: float) -> Figure:
        if log_snr not in maps:
            raise ValueError(f"expected a log-SNR out of {list(maps)}, got {log_snr}")
        title = f"layer {layer}, $\\lambda$ = {log_snr:g}"
        return draw_attention(clean, maps[log_snr][layer], head, row, column, title)

    return draw


def draw_attention(clean: Tensor, weights: Tensor, head: int, row: int, column: int, title: str = "") -> Figure:
    """Attention over time at one place: the frames with the place marked, the map, and its mean by offset.

    clean: (f, h, w) in [-1, 1]. weights: (h', w', heads, f, f). row, column: pixel in the frame; the place is the cell
    of the layer's grid that holds it. A layer with fewer heads takes the remainder.
    """
    f, size, _ = clean.shape
    h, _, heads, _, _ = weights.shape
    cell, head = size // h, head % heads
    place = weights[row // cell, column // cell, head]
    fig, axes = figure(2, 1, width=7.6, height=4.3, height_ratios=[1, 4.2])
    strip, lower = axes
    strip.imshow(rearrange(clean, "f h w -> h (f w)").numpy(), cmap="gray", vmin=-1, vmax=1)
    for frame in range(f):
        corner = (frame * size + column // cell * cell - 0.5, row // cell * cell - 0.5)
        strip.add_patch(Rectangle(corner, cell, cell, fill=False, edgecolor=colors.eps, linewidth=1.2))
        strip.axvline(frame * size - 0.5, color="#777777", linewidth=0.5)
    strip.set(xticks=[], yticks=[], title=f"{title}: head {head} of {heads}, place ({row // cell}, {column // cell})")
    strip.grid(False)
    lower.axis("off")
    left, right = lower.inset_axes((0.05, 0.02, 0.36, 0.95)), lower.inset_axes((0.55, 0.14, 0.44, 0.78))
    left.imshow(place.numpy(), cmap="viridis", vmin=0, vmax=max(0.3, float(place.max())))
    left.set(xlabel="looks at frame", ylabel="frame")
    left.grid(False)
    offsets = range(1 - f, f)
    right.plot(offsets, by_offset(place[None]).tolist(), color=colors.eps, label="this place")
    right.plot(offsets, by_offset(weights[:, :, head]).tolist(), color=colors.noise, label="all places")
    right.axhline(1 / f, color=colors.exact, linewidth=0.8, linestyle="--", label="even")
    right.set(xlabel="frames ahead", title="mean weight")
    right.set_ylim(bottom=0)
    right.legend(fontsize=9)
    return fig


def draw_own_frame(log_snrs: Sequence[float], shares: Sequence[Sequence[float]], frames: int) -> Figure:
    """Weight on the own frame over the noise level, one line a layer. shares: per layer, one value per log-SNR."""
    fig, ax = figure(width=6.4, height=3.3)
    for layer, values in enumerate(shares):
        finest = layer in (0, len(shares) - 1)
        ax.plot(log_snrs, values, "o-", color=colors.eps if finest else colors.noise, linewidth=2 if finest else 1,
                label=f"layer {layer}" if finest else None)  # fmt: skip
    ax.axhline(1 / frames, color=colors.exact, linewidth=0.8, linestyle="--", label="even attention")
    ax.set(xlabel=r"log-SNR $\lambda$", ylabel="weight on the own frame", ylim=(0, None))
    ax.legend()
    return fig


def draw_gain(log_snrs: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Figure:
    """Mean squared error of x_hat over the noise level, one line a name."""
    fig, ax = figure(width=6.4, height=3.2)
    looks = [(colors.x, 6), (colors.learned, 2), (colors.eps, 2), (colors.noise, 2)]  # wide: the second may cover it
    for (name, values), (color, linewidth) in zip(errors.items(), looks, strict=False):
        ax.semilogy(log_snrs, values, "o-", color=color, linewidth=linewidth, label=name)
    ax.set(xlabel=r"log-SNR $\lambda$", ylabel=r"mean of $(x-\hat x)^2$")
    ax.legend()
    return fig
