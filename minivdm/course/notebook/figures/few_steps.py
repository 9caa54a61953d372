"""Drawings of lesson 15: where one step has to land, students beside their teacher, and ends of trajectories."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core import samplers
from minivdm.core.denoiser import Denoise
from minivdm.core.schedules import CosineSchedule
from minivdm.course.notebook.figures.samplers import even_quantiles, flow_axes, lesson_schedule, line_world
from minivdm.course.notebook.style import colors, figure
from minivdm.exact import GaussianVideo, Law
from minivdm.systems import ExactConsistency, target_x, walk
from minivdm.systems.progressive_distillation import AffineStudent


@functools.cache
def video() -> GaussianVideo:
    """Sixteen frames of one pixel, each correlated with the next by 0.9."""
    return GaussianVideo(16)


@functools.cache
def halvings(first: int = 256) -> dict[int, AffineStudent]:
    """The exact students of first / 2, ..., 1 steps in the Gaussian video, each the pupil of the one before."""
    found: dict[int, AffineStudent] = {}
    teacher: Denoise = video().denoiser(lesson_schedule())
    for n in [first >> k for k in range(1, first.bit_length())]:
        found[n] = teacher = AffineStudent(teacher, video().shape, n)
    return found


def linear_law(denoise: Denoise, steps: int) -> Law:
    """The law of what DDIM makes of white noise in the Gaussian video: a linear map, known from the unit vectors."""
    d = math.prod(video().shape)
    unit = torch.eye(d, dtype=torch.float64).reshape(d, *video().shape)
    ends = samplers.sample(denoise, unit, steps).flatten(1)
    return Law(torch.zeros(d, dtype=torch.float64), ends.T @ ends)


@functools.cache
def line_schedule() -> CosineSchedule:
    """The noise of everything that is trained on the line here: that of `training.loop`."""
    return CosineSchedule()


def draw_target(t: float = 0.75, s: float = 0.25, start: float = 0.35) -> Figure:
    """On the line: two steps of the teacher, the one step that it would take, and the estimate that replaces both."""
    schedule, world = line_schedule(), line_world()
    teacher = world.denoiser(schedule)
    z = torch.tensor([[start]], dtype=torch.float64)
    middle = walk(teacher, z, t, (t + s) / 2, 1)
    after = walk(teacher, middle, (t + s) / 2, s, 1)
    alone = walk(teacher, z, t, s, 1)
    fig, axes = figure(1, 1, width=6.6, height=3.8)
    flow_axes(axes, "One step has to land where two did")
    places = [float(point) for point in (z, middle, after)]
    axes.plot([t, (t + s) / 2, s], places, "o-", color=colors.eps, lw=2.5, label="two steps of the teacher")
    axes.plot([t, s], [float(z), float(alone)], "o--", color=colors.noise, lw=2, label="one step of the teacher")
    axes.plot([t, s], [float(z), float(after)], "-", color=colors.v, lw=2, label="the student's step, with $\\tilde x$")
    target, guess = float(target_x(z, after, t, s, schedule)), float(teacher(z, t))
    axes.plot([0.0], [target], "D", color=colors.v, markersize=9, clip_on=False, label=f"$\\tilde x$ = {target:.2f}")
    axes.plot([0.0], [guess], "s", color=colors.noise, markersize=8, clip_on=False, label=f"$\\hat x$ = {guess:.2f}")
    axes.legend(loc="upper left", fontsize=8)
    return fig


def draw_distances(steps: Sequence[int], rows: Mapping[str, Sequence[float]], floor: Mapping[str, float]) -> Figure:
    """Distance from the data over the number of steps. rows: name -> one distance for each of `steps`; floor: name ->
    a distance that is drawn as a level."""
    fig, axes = figure(1, 1, width=6.8, height=3.8)
    palette = (colors.noise, colors.v, colors.x)
    for (name, found), color in zip(rows.items(), palette, strict=False):
        axes.loglog(steps, found, "o-", color=color, label=name)
    for (name, level), style in zip(floor.items(), (":", "-.", "--"), strict=False):
        axes.axhline(level, color=colors.exact, linestyle=style, linewidth=1.3, label=f"{name}: {level:.4f}")
    axes.set(xlabel="calls of the denoiser", ylabel="$W_2$ to the data", title="What is lost with fewer steps")
    axes.set_xticks(list(steps), [str(n) for n in steps])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return fig


def draw_maps(maps: Mapping[str, Tensor]) -> Figure:
    """From noise to sample on the line. maps: name -> ends (n, 1) of the noises of `line_noise(n)`."""
    n = len(next(iter(maps.values())))
    noise = line_noise(n)
    fig, axes = figure(1, 1, width=6.8, height=3.8)
    axes.plot(noise[:, 0], flow_ends(n)[:, 0], color=colors.exact, lw=5, alpha=0.25, label="the flow, exactly")
    palette = (colors.noise, colors.x, colors.v, colors.eps)
    for (name, ends), color in zip(maps.items(), palette, strict=False):
        axes.plot(noise[:, 0], ends[:, 0], color=color, lw=1.6, label=name)
    axes.set(xlabel="noise $z$ at $t=1$", ylabel="sample", ylim=(-2, 2), title="The map from noise to sample")
    axes.legend(fontsize=8)
    return fig


@functools.cache
def flow_ends(n: int) -> Tensor:
    """Where the flow takes the noises of `line_noise(n)`, exactly, (n, 1)."""
    return ExactConsistency(line_world(), line_schedule())(line_noise(n), 1.0)


def draw_ends() -> Figure:
    """The consistency function over time and place: along a trajectory of the flow the colour does not change."""
    schedule, world = line_schedule(), line_world()
    times = torch.linspace(1, 0, 101, dtype=torch.float64)
    z = torch.linspace(-2.6, 2.6, 161, dtype=torch.float64)[:, None]
    exact = ExactConsistency(world, schedule)
    ends = torch.stack([exact(z, t)[:, 0] for t in times], 1)
    fig, axes = figure(1, 1, width=6.6, height=3.6)
    flow_axes(axes, "$f(z,t)$: where the flow through $z$ ends")
    for kept in list(axes.collections):
        kept.remove()
    drawn = axes.contourf(
        times, z[:, 0], ends, levels=torch.linspace(-2.2, 2.2, 12).tolist(), cmap="RdBu", extend="both"
    )
    fig.colorbar(drawn, ax=axes, label="$f$, the end")
    return fig


@functools.cache
def teacher_ends(n: int, steps: int = 256) -> Tensor:
    """Where the exact teacher's DDIM steps take the noises of `line_noise(n)`, (n, 1)."""
    return samplers.sample(line_world().denoiser(line_schedule()), line_noise(n), steps)


def errors(ends: Tensor) -> tuple[float, float]:
    """Root mean squared distances of the ends (n, 1) of `line_noise(n)`: from where 256 DDIM steps of the teacher take
    them, and from where the flow does."""
    n = len(ends)
    found = [float((ends.double() - truth).square().mean().sqrt()) for truth in (teacher_ends(n), flow_ends(n))]
    return found[0], found[1]


def line_noise(n: int = 400) -> Tensor:
    """Noises (n, 1) that stand for N(0, 1), in order."""
    return even_quantiles(n)
