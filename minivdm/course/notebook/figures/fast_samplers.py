"""Drawings of lesson 06b: the exact flow by quantiles, orders, time grids and straightened paths."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core.schedules import FlowSchedule
from minivdm.course.notebook.figures.samplers import (
    distribution,
    even_quantiles,
    lesson_schedule,
    line_world,
    quantile_flow,
)
from minivdm.course.notebook.style import colors, figure


@functools.cache
def straight_flow(n: int) -> tuple[Tensor, Tensor]:
    """n noises in order (n, 1), and where the flow of the straight schedule takes each: the same quantiles of x."""
    noise = even_quantiles(n)
    return noise, straight_path(noise, 0.0)


def straight_path(noise: Tensor, t: float) -> Tensor:
    """Where the flow of alpha = 1 - t, sigma = t carries noise (n, 1) from time 1 to t."""
    return quantile_flow(line_world(), FlowSchedule(), noise, 1.0, t)


def draw_quantiles(t: float, s: float) -> Figure:
    """Distribution functions at two times: a point of the flow keeps its height, and changes its place."""
    world, schedule = line_world(), lesson_schedule()
    fig, ax = figure(width=6.4, height=3.4)
    z = torch.linspace(-2.8, 2.8, 400, dtype=torch.float64)[:, None]
    curves = {}
    for time, color in ((t, colors.noise), (s, colors.x)):
        curves[time] = distribution(world, z, schedule.alpha(time), schedule.sigma(time))[:, 0]
        ax.plot(z[:, 0], curves[time], color=color, label=f"$F_t(z)$ at t = {time:g}")
    for height in (0.1, 0.3, 0.45, 0.6, 0.75, 0.95):
        start, end = (float(z[int((curves[time] < height).sum()), 0]) for time in (t, s))
        arrow = {"arrowstyle": "-|>", "color": colors.eps, "lw": 1.5, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (end, height), (start, height), arrowprops=arrow)
    ax.set(xlabel="$z$", ylabel="share of points below $z$", title="A point of the flow keeps its quantile")
    ax.legend(loc="upper left")
    return fig


def draw_orders(errors: Mapping[str, Sequence[float]], steps: Sequence[int], calls: Mapping[str, int]) -> Figure:
    """Error over denoiser calls. errors: per sampler one for each of `steps`; calls: per sampler, calls a step."""
    fig, ax = figure(width=7.0, height=4.0)
    palette = [colors.noise, colors.x, colors.v, colors.eps]
    for (name, found), color in zip(errors.items(), palette, strict=False):
        ax.loglog([n * calls[name] for n in steps], found, "o-", color=color, label=name)
    first = max(max(found) for found in errors.values())
    reference = torch.tensor([steps[0], steps[-1]], dtype=torch.float64)
    for order in (1, 2):  # above the curves, so that neither hides the other
        level = 2.5 * first * (reference / steps[0]) ** -order
        ax.loglog(reference, level, ":", color="#555555", linewidth=1)
        ax.text(float(reference[1]) * 1.05, float(level[1]), f"slope −{order}", va="center", color="#555555")
    ax.set(xlabel="denoiser calls", ylabel="root mean squared error", title="Error against the exact flow")
    ax.legend()
    return fig


def draw_grids(rates: Mapping[str, tuple[Tensor, Tensor]], grids: Mapping[str, Tensor]) -> Figure:
    """How fast x_hat changes over the log-SNR, above; where grids put their calls, below.

    rates: name -> (log-SNRs, change of x_hat per unit of log-SNR), drawn relative to its largest. grids: name ->
    log-SNRs of the calls.
    """
    fig, (top, bottom) = figure(2, 1, width=7.2, height=4.8, sharex=True, height_ratios=[1.4, 1])
    for name, (log_snr, rate) in rates.items():
        top.plot(log_snr, rate / rate.max(), "o-", label=name)
    top.set(ylabel="change of $\\hat x$ per unit of λ\n(largest = 1)", title="Where the guess changes")
    top.legend()
    for row, log_snr in enumerate(grids.values()):
        bottom.plot(log_snr, [row] * len(log_snr), "|", color=colors.eps, markersize=14, markeredgewidth=2)
    bottom.set_yticks(range(len(grids)), list(grids))
    bottom.set(
        xlim=(-10, 10),
        ylim=(len(grids) - 0.5, -0.5),
        xlabel="log-SNR λ: noise at the left, data at the right",
        title="Where the calls are (some lie beyond the edges)",
    )
    return fig


def draw_reflow(seed: int = 0) -> Figure:
    """Pairs of noise and data drawn independently, the flow they make, and the pairs of that flow joined straight."""
    fig, axes = figure(1, 3, width=8.2, height=3.3, sharey=True)
    generator = torch.Generator().manual_seed(seed)
    times = torch.linspace(1, 0, 41, dtype=torch.float64)
    noise = even_quantiles(14)
    data = line_world().sample(14, generator)[0]
    flow = torch.stack([straight_path(noise, float(t)) for t in times])  # (times, lines, 1)
    straight = times[:, None, None]
    paths = {
        "1. random pairs": straight * noise + (1 - straight) * data,
        "2. the flow they make": flow,
        "3. its pairs, joined": straight * noise + (1 - straight) * flow[-1],
    }
    for ax, (title, lines), color in zip(axes, paths.items(), (colors.noise, colors.eps, colors.v), strict=True):
        ax.plot(times, lines[..., 0].numpy(), color=color, linewidth=1.2)
        ax.set(xlim=(1, 0), xlabel="$t$ (1 is noise)", title=title)
    axes[0].set_ylabel("$z$")
    return fig
