"""Drawings of lesson 08: which frame influences which, what masks let through, what images in the batch are worth."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from minivdm.course.notebook.style import colors, figure
from minivdm.networks import TemporalAttention, UNet3D


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
    """Influence matrices (f, f), each over its largest entry, in powers of ten; exact zeros are white.

    clip_frames: where the images begin.
    """
    fig, axes = figure(1, len(panels), width=3.1 * len(panels) + 1.4, height=3.5, squeeze=False)
    for ax, (title, matrix) in zip(axes[0], panels.items(), strict=True):
        matrix = matrix.detach().double() / matrix.max()
        shade = torch.where(matrix > 0, matrix.clamp(min=1e-30).log10(), torch.nan)
        drawn = ax.imshow(shade.numpy(), cmap="Blues", vmin=-4, vmax=0)
        if clip_frames is not None:
            for cut in (ax.axhline, ax.axvline):
                cut(clip_frames - 0.5, color=colors.eps, linewidth=1)
        ax.set(title=title, xlabel="input frame $j$")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(False)
    axes[0][0].set_ylabel("output frame $i$")
    bar = fig.colorbar(drawn, ax=list(axes[0]), ticks=range(-4, 1), shrink=0.85, extend="min")
    bar.set_label("influence, largest = 1;\nwhite: exactly 0")
    bar.set_ticklabels(["0.0001", "0.001", "0.01", "0.1", "1"])
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
