"""Looking at what the temporal attention of a trained network attends to (lesson 08)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from einops import rearrange
from matplotlib.figure import Figure
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


def effective_frames(weights: Tensor) -> float:
    """Over how many frames attention is spread: exp(entropy), a mean over places, heads and frames.

    f where attention is even, 1 where each frame looks at a single one. weights: (h, w, heads, f, f).
    """
    return float(torch.special.entr(weights).sum(-1).exp().mean())


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
    fig, axes = figure(2, 1, width=8.4, height=4.3, height_ratios=[1, 5])
    strip, lower = axes
    strip.imshow(rearrange(clean, "f h w -> h (f w)").numpy(), cmap="gray", vmin=-1, vmax=1)
    across = (torch.arange(f) * size + (column // cell + 0.5) * cell - 0.5).tolist()
    strip.plot(across, [(row // cell + 0.5) * cell - 0.5] * f, "o", markersize=9, markerfacecolor="none",
               markeredgecolor=colors.eps)  # fmt: skip
    for frame in range(f):
        strip.axvline(frame * size - 0.5, color="#777777", linewidth=0.5)
    strip.set(xticks=[frame * size + size / 2 for frame in range(f)], yticks=[])
    strip.set(xticklabels=range(f), title=f"{title}: head {head} of {heads}, place ({row // cell}, {column // cell})")
    strip.grid(False)
    lower.axis("off")
    left, right = lower.inset_axes((0.05, 0.08, 0.36, 0.86)), lower.inset_axes((0.6, 0.14, 0.4, 0.74))
    shown = left.imshow(place.numpy(), cmap="viridis", vmin=0, vmax=max(0.3, float(place.max())))
    left.set(xlabel="looks at frame $j$", ylabel="frame $i$")
    left.set(xticks=range(0, f, 5), yticks=range(0, f, 5))
    left.grid(False)
    fig.colorbar(shown, cax=lower.inset_axes((0.39, 0.08, 0.015, 0.86)), label="weight $p_{ij}$")
    offsets = range(1 - f, f)
    right.plot(offsets, by_offset(place[None]).tolist(), color=colors.eps, label="this place")
    right.plot(offsets, by_offset(weights[:, :, head]).tolist(), color=colors.noise, label="all places")
    right.axhline(1 / f, color=colors.exact, linewidth=0.8, linestyle="--", label="even")
    right.set(xlabel="frames ahead, $j-i$", title="mean weight")
    right.set_ylim(bottom=0)
    right.legend(fontsize=10)
    return fig


def draw_spread(log_snrs: Sequence[float], spreads: Sequence[Sequence[float]], frames: int) -> Figure:
    """Effective number of frames over the noise level, a line per layer. spreads: per layer, a value per log-SNR."""
    fig, ax = figure(width=7.2, height=3.5)
    last = len(spreads) - 1
    looks = {0: (colors.eps, "o", "first layer"), last: (colors.x, "s", f"last layer, {last}")}
    for layer, values in enumerate(spreads):
        color, marker, label = looks.get(layer, (colors.noise, "", "the layers between" if layer == 1 else None))
        ax.plot(log_snrs, values, marker=marker, color=color, linewidth=2.2 if layer in looks else 1, label=label,
                zorder=3 if layer in looks else 2)  # fmt: skip
    ax.axhline(frames, color=colors.exact, linewidth=0.8, linestyle="--", label="even attention")
    ax.set(xlabel=r"log-SNR $\lambda$ (left: noise, right: clean)", ylabel="effective number of frames")
    ax.set_ylim(0, frames * 1.06)
    ax.legend(ncols=2, fontsize=10)
    return fig


def draw_gain(log_snrs: Sequence[float], ratios: Mapping[str, Tensor]) -> Figure:
    """Error of x_hat over the undisturbed one, a row of dots per disturbance. ratios: (levels, clips) per name."""
    fig, ax = figure(width=7.2, height=3.3)
    looks = [(colors.x, "o"), (colors.eps, "s"), (colors.v, "^")]
    for k, ((name, values), (color, marker)) in enumerate(zip(ratios.items(), looks, strict=False)):
        shift = 0.18 * (k - (len(ratios) - 1) / 2)
        for place, column in enumerate(values):
            ax.plot([place + shift] * len(column), column, marker, color=color, alpha=0.35, markersize=4.5)
        middle = values.log().mean(1).exp()
        ax.plot([place + shift for place in range(len(values))], middle, "_", color=color, markersize=18,
                markeredgewidth=2.5, label=name)  # fmt: skip
    ax.axhline(1, color=colors.exact, linewidth=0.8, linestyle="--")
    ax.set_xticks(range(len(log_snrs)), [rf"$\lambda={level:g}$" for level in log_snrs])
    ax.set(yscale="log", ylabel="error, undisturbed = 1", title="A dot is a clip, a bar the geometric mean")
    ticks = [0.5, 1, 2, 4, 8]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=10)
    return fig
