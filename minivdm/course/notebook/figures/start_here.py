"""Lesson 00: three views of a clip, what the network still knows at each noise level, and the nearest known digit."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from minivdm.course.notebook.style import colors, figure, image
from minivdm.data import Clips, load_digits


def centres(videos: Tensor) -> Tensor:
    """Centre (y, x) of what is brighter than black in each frame, in pixels.

    Args:
        videos: (b, 1, f, h, w), black is -1.

    Returns:
        (b, f, 2); NaN where a frame is all black.
    """
    ink = (videos[:, 0] + 1).clamp(min=0)  # b f h w
    rows = torch.arange(ink.shape[-2], dtype=ink.dtype)
    columns = torch.arange(ink.shape[-1], dtype=ink.dtype)
    total = ink.sum((-2, -1))
    y = (ink.sum(-1) * rows).sum(-1) / total
    x = (ink.sum(-2) * columns).sum(-1) / total
    return torch.stack([y, x], -1)


def half_time(times: Tensor, share: Tensor) -> float:
    """The first time at which a share falls below one half, between the times on a straight line.

    Raises:
        ValueError: it never does, or it starts below.
    """
    below = (share < 0.5).nonzero().flatten()
    if not len(below) or below[0] == 0:
        raise ValueError(f"expected a share that falls through one half, got {share.tolist()}")
    k = int(below[0])
    part = (share[k - 1] - 0.5) / (share[k - 1] - share[k])
    return float(times[k - 1] + part * (times[k] - times[k - 1]))


def known_digits(split: str = "train", size: int = 14) -> Tensor:
    """The digits that ship, as they are drawn at `size` pixels, (n, size * size) in [-1, 1]."""
    images = load_digits(None, split).images.float()[:, None]  # n 1 28 28
    pixels = torch.floor(functional.avg_pool2d(images, images.shape[-1] // size) + 0.5)  # bytes
    return pixels.flatten(1) / 127.5 - 1


def distance_to_known(frames: Tensor, known: Tensor, size: int = 14) -> Tensor:
    """How far the digit in each frame is from the nearest known one: root mean square of the pixels, 0 for a copy.

    Every window that holds at least 98 % of the most ink that any window holds is compared with every known digit.

    Args:
        frames: (n, h, w) in [-1, 1]. known: (m, size * size).

    Returns:
        (n,).
    """
    windows = functional.unfold(frames[:, None], size).transpose(1, 2)  # n places (size size)
    ink = (windows + 1).sum(-1)
    best = []
    for places, amount in zip(windows, ink, strict=True):
        held = places[amount >= 0.98 * amount.max()]
        best.append(torch.cdist(held, known).min() / size)
    return torch.stack(best)


def draw_shadows(made: Clips, title: str = "") -> Figure:
    """Front (h, w), top (f, w) and side (h, f) view of a clip, with the true path of each digit's middle."""
    block = made.video[0, 0]  # f h w
    frames, height, width = block.shape
    fig, axes = figure(2, 2, width=4.6, height=4.9, width_ratios=[width, frames], height_ratios=[frames, height])
    image(axes[0, 0], block.amax(1), f"{title} from the top".strip())
    image(axes[1, 0], block.amax(0), "from the front")
    image(axes[1, 1], block.amax(2).T, "from the side")
    last = frames - 1
    axes[0, 0].set(ylabel="frame (time runs down)", yticks=[0, last], xticks=[])
    axes[1, 0].set(xlabel="w", ylabel="h", xticks=[0, width - 1], yticks=[0, height - 1])
    axes[1, 1].set(xlabel="frame →", xticks=[0, last], yticks=[])
    axes[0, 1].set_axis_off()
    for path in made.positions[0] + 6.5:  # f 2; from a digit's corner to its middle
        y, x = path.T
        axes[0, 0].plot(x, range(frames), color=colors.eps, lw=1.2)
        axes[1, 0].plot(x, y, color=colors.eps, lw=1.2)
        axes[1, 1].plot(range(frames), y, color=colors.eps, lw=1.2)
    return fig


def draw_knowledge(times: Tensor, errors: dict[str, Tensor], shares: dict[str, tuple[Tensor, float]]) -> Figure:
    """Left, squared errors over time, logarithmic; right, shares of frames with their chance levels.

    Args:
        times: (n,).
        errors: label -> (n,); the network's comes first.
        shares: label -> ((n,), chance level).
    """
    fig, (left, right) = figure(1, 2, width=8.6, height=3.7)
    styles = (("o-", colors.learned), ("--", colors.noise), (":", colors.exact))
    for (label, error), (line, color) in zip(errors.items(), styles, strict=False):
        left.semilogy(times, error, line, color=color, label=label)
    left.set(xlabel="diffusion time $t$", ylim=(1e-4, 3), title="Squared error per pixel")
    left.legend(fontsize=9)
    for (label, (share, chance)), color in zip(shares.items(), (colors.eps, colors.data), strict=False):
        right.plot(times, 100 * share, "o-", color=color, label=label)
        right.axhline(100 * chance, color=color, lw=1, ls=":")
    right.set(xlabel="diffusion time $t$", ylim=(-3, 103), title="Share of frames, % (dotted: chance)")
    right.legend(fontsize=9, loc="center left")
    return fig
