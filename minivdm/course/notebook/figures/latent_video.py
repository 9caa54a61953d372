"""Drawings of lesson 16: codes of clips and their rate, latents and their scale, curation, strength, and glyphs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import rearrange
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

from minivdm.core import samplers
from minivdm.core.denoiser import Denoise
from minivdm.core.schedules import CosineSchedule, Schedule
from minivdm.course.notebook.figures.latent_results import lines as lines
from minivdm.course.notebook.figures.latent_results import results as results
from minivdm.course.notebook.figures.latent_results import tokenizers as tokenizers
from minivdm.course.notebook.figures.samplers import lesson_schedule
from minivdm.course.notebook.strips import font
from minivdm.course.notebook.style import colors, figure
from minivdm.data import MovingMNIST
from minivdm.data.files import Digits
from minivdm.data.moving_mnist import Clips
from minivdm.exact import GaussianVideo, Law
from minivdm.exact.laws import wasserstein
from minivdm.exact.linear_autoencoder import rate_distortion
from minivdm.networks import Tokenizer
from minivdm.systems import show_1
from minivdm.systems import stable_video_diffusion as svd
from minivdm.systems.align_your_latents import Aligned, FrozenWithTime

SHAPE = (1, 17, 64, 64)


@functools.cache
def clips(count: int, split: str = "test", seed: int = 9) -> Clips:
    """Clips as the tokenizer takes them: 17 frames of 64x64, one digit at half the canonical speed."""
    return MovingMNIST(SHAPE[2], SHAPE[1], speed=1.8, split=split, seed=seed).clips(range(count))


@functools.cache
def video() -> GaussianVideo:
    """Sixteen frames of one pixel, each correlated with the next by 0.9."""
    return GaussianVideo(16)


# ---- a code for clips ----------------------------------------------------------------------------------------------


def as_pictures(latents: Tensor, frames: int = 17, side: int = 64) -> Tensor:
    """Latents (c, f, h, w) as clips (c, 1, frames, side, side) to be shown: in their range, and as long as the clip."""
    c, f, h, w = latents.shape
    low, high = latents.flatten(1).aminmax(dim=1)
    shown = 2 * (latents - low.view(c, 1, 1, 1)) / (high - low).view(c, 1, 1, 1).clamp(min=1e-6) - 1
    each = (torch.arange(frames) + (frames - 1) // (f - 1) - 1) // ((frames - 1) // (f - 1))  # 0, then groups of four
    large = shown[:, each].repeat_interleave(side // h, 2).repeat_interleave(side // w, 3)
    return large[:, None]


def blocks(videos: Tensor, frames: int = 4, side: int = 8) -> Tensor:
    """Blocks (n, frames * side * side) of all frames but the first: what a linear code is made for."""
    pattern = "b 1 (f a) (h p) (w q) -> (b f h w) (a p q)"
    return rearrange(videos[:, :, 1:], pattern, a=frames, p=side, q=side)


def block_codes(train: Tensor, test: Tensor, sizes: Sequence[int]) -> list[float]:
    """PSNR of the best linear code of so many numbers a block, on frames but the first: principal components."""
    x = blocks(train).double()
    axes = torch.linalg.eigh(torch.cov(x.T))[1].flip(1)
    y = blocks(test).double() - x.mean(0)
    return [decibels((y - (y @ axes[:, :k]) @ axes[:, :k].T).square().mean()) for k in sizes]


def decibels(error: Tensor) -> float:
    """PSNR of a mean squared error of values in [-1, 1]."""
    return -10 * math.log10(float(error) / 4)


def later(made: Tensor, videos: Tensor) -> float:
    """PSNR of all frames but the first, which the tokenizer codes by itself."""
    return decibels((made - videos)[:, :, 1:].square().mean())


def draw_codes(sizes: Sequence[int], linear: Sequence[float], network: float, at: int = 8) -> Figure:
    """Quality over the size of the code: linear ones, and the tokenizer."""
    fig, axes = figure(1, 1, width=6.4, height=3.5)
    axes.semilogx(sizes, linear, "o-", color=colors.noise, label="linear: principal components of 4x8x8 blocks")
    axes.plot([at], [network], "D", color=colors.v, markersize=9, label=f"tokenizer-64: {network:.1f} dB")
    axes.set_xticks(list(sizes), [str(k) for k in sizes])
    axes.minorticks_off()
    axes.set(xlabel="numbers for each block of 256 pixels", ylabel="PSNR, dB", title="What a code keeps")
    axes.legend(fontsize=8)
    return fig


def draw_rate(world: GaussianVideo, points: Mapping[str, tuple[float, float]]) -> Figure:
    """Error over rate in the Gaussian video: the bound, and codes. points: name -> (nats, squared error) a clip."""
    levels = torch.logspace(1, -3, 60, dtype=torch.float64).tolist()
    rates = [rate_distortion(world, level) for level in levels]
    fig, axes = figure(1, 1, width=6.4, height=3.5)
    axes.semilogy([r.nats for r in rates], [r.error for r in rates], color=colors.exact, label="no code is below")
    for (name, (nats, error)), color in zip(points.items(), (colors.eps, colors.x, colors.v, colors.z), strict=False):
        axes.plot([nats], [error], "o", color=color, markersize=8, label=name)
    axes.set(xlabel="rate, nats a clip", ylabel="squared error a clip", title="Rate and distortion, 16 values a clip")
    axes.legend(fontsize=8)
    return fig


def nearest_codes(points: Tensor, count: int, test: Tensor, rounds: int = 40) -> float:
    """Squared error a value, on test points (m, d), of `count` code vectors that Lloyd's algorithm finds for (n, d)."""
    codes = points[torch.linspace(0, len(points) - 1, count).long()].clone()
    for _ in range(rounds):
        chosen = torch.cdist(points, codes).argmin(1)
        number = torch.zeros(count).index_add_(0, chosen, torch.ones(len(points)))
        sums = torch.zeros_like(codes).index_add_(0, chosen, points)
        codes = torch.where(number[:, None] > 0, sums / number.clamp(min=1)[:, None], codes)
    return (test - codes[torch.cdist(test, codes).argmin(1)]).square().mean().item()


def dependence(tokenizer: Tokenizer, shape: tuple[int, ...] = (1, 17, 16, 16)) -> Tensor:
    """Which frame of a clip each latent frame depends on, (f', f) bool, by gradient."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    x = torch.rand(1, *shape, generator=generator) * 2 - 1
    for k in range(tokenizer.latent_shape(shape)[1]):
        given = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(tokenizer.encode(given)[:, :, k].square().sum(), given)
        rows.append(gradient.abs().sum((0, 1, 3, 4)) > 0)
    return torch.stack(rows)


def draw_dependence(seen: Tensor) -> Figure:
    """Dark where a latent frame (rows) depends on a frame (columns)."""
    fig, axes = figure(1, 1, width=6.4, height=2.6)
    axes.imshow(seen.numpy(), cmap="Blues", vmin=0, vmax=1.4, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(seen.shape[1]))
    axes.set_yticks(range(seen.shape[0]))
    axes.set(xlabel="frame of the clip", ylabel="latent frame", title="Dark: it depends on that frame")
    axes.grid(False)
    return fig


# ---- the scale of latents ------------------------------------------------------------------------------------------


def after_steps(covariance: Tensor, scale: Tensor, steps: int, schedule: Schedule | None = None) -> float:
    """W2 from latents N(0, covariance) to what so many DDIM steps make of noise with the exact denoiser, where the
    diffusion sees scale^-1 latents. scale: (k,) for each channel, or an invertible matrix (k, k)."""
    k = len(covariance)
    back = torch.diag(scale) if scale.ndim == 1 else scale
    forth = torch.linalg.inv(back)
    seen = forth @ covariance @ forth.T
    world = GaussianVideo(k, covariance=(seen + seen.T) / 2)
    unit = torch.eye(k, dtype=torch.float64).reshape(k, 1, k, 1, 1)
    ends = back @ samplers.sample(world.denoiser(schedule or lesson_schedule()), unit, steps).flatten(1).T
    zero = torch.zeros(k, dtype=torch.float64)
    return wasserstein(Law(zero, covariance), Law(zero, ends @ ends.T))


# ---- an image model that learns time -------------------------------------------------------------------------------


def levels(schedule: Schedule, t: Tensor) -> tuple[float, float]:
    """alpha and sigma of a time."""
    return float(schedule.alpha(t)), float(schedule.sigma(t))


def frame_model(schedule: Schedule, t: Tensor, width: int = 8) -> FrozenWithTime:
    """The exact denoiser of single values of variance 1 at time t, alpha z, as two frozen layers, with a temporal layer
    between them."""
    alpha, _ = levels(schedule, t)
    first, last = nn.Conv2d(1, width, 1), nn.Conv2d(width, 1, 1, bias=False)
    with torch.no_grad():
        gain, offset = first.weight[:, 0, 0, 0].normal_(), first.bias.normal_()  # type: ignore[union-attr]
        back = gain - offset * (gain @ offset) / (offset @ offset)  # blind to the offset
        last.weight[0, :, 0, 0] = alpha * back / (back @ gain)
    return FrozenWithTime([first, last], [Aligned(width, 2), None])


def pairs(
    world: GaussianVideo, schedule: Schedule, t: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Clips of a world and the same with noise, float32."""
    alpha, sigma = levels(schedule, t)
    x = world.sample(count, generator).float()
    return x, alpha * x + sigma * torch.randn(x.shape, generator=generator)


def by_frames(model: FrozenWithTime, z: Tensor) -> Tensor:
    """What the image model says of each frame of clips by itself."""
    frames = model.images(rearrange(z, "b c f h w -> (b f) c h w"))
    return rearrange(frames, "(b f) c h w -> b c f h w", b=len(z))


# ---- Stable Video Diffusion ----------------------------------------------------------------------------------------


@functools.cache
def spoiled(count: int, seed: int) -> svd.Dirty:
    """Clips of 16 frames of 32x32, a quarter of them each cut, still, or cluttered."""
    return svd.dirty_set(MovingMNIST(speed=0.9, seed=seed).clips(range(count)).video, seed=seed)


def fitted(videos: Tensor) -> GaussianVideo:
    """The Gaussian world of clips, made 8 frames of 8x8: its denoiser is the best linear one for them."""
    x = eighth(videos).flatten(1).double()
    covariance = torch.cov(x.T) + 1e-4 * torch.eye(x.shape[1], dtype=torch.float64)
    return GaussianVideo(8, size=(8, 8), covariance=covariance, mean=x.mean(0))


def eighth(videos: Tensor) -> Tensor:
    """16 frames of 32x32 as 8 frames of 8x8, by means."""
    return functional.avg_pool3d(videos, (2, 4, 4))


def clean_error(world: GaussianVideo, log_snr: float = 0.0, count: int = 300) -> Tensor:
    """Squared error of its denoiser on clean test clips, (count,), at that noise level, with the same noise always."""
    x = eighth(MovingMNIST(speed=0.9, split="test", seed=9).clips(range(count)).video)
    schedule = CosineSchedule(-12, 12)
    t = schedule.time(torch.tensor(log_snr))
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    z = alpha * x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (world.posterior_mean(z, alpha, sigma) - x).square().flatten(1).mean(1)


def moments(denoise: Denoise, frames: int, steps: int = 128) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each frame that DDIM makes with an affine denoiser of one-pixel clips."""
    probes = torch.cat([torch.zeros(1, frames), torch.eye(frames)]).double().view(-1, 1, frames, 1, 1)
    ends = samplers.sample(denoise, probes, steps).flatten(1)
    matrix = (ends[1:] - ends[0]).T
    return ends[0], (matrix @ matrix.T).diag().sqrt()


def draw_guided(truth: Tensor, rows: Mapping[str, Tensor]) -> Figure:
    """Mean of each frame, given the first one: the truth, and what guidance makes of it."""
    fig, axes = figure(1, 1, width=6.4, height=3.3)
    axes.plot(truth, color=colors.exact, lw=4, alpha=0.3, label="true conditional mean")
    for (name, mean), color in zip(rows.items(), (colors.x, colors.eps, colors.v), strict=False):
        axes.plot(mean, "o-", color=color, label=name)
    axes.set(xlabel="frame", ylabel="mean, given that frame 0 is 1", title="Guidance away from the unconditional mean")
    axes.legend(fontsize=8)
    return fig


# ---- Show-1 and retrieval ------------------------------------------------------------------------------------------


@functools.cache
def held() -> Law:
    """The law of clips of `video()` of which every second frame is the one before: a base that is too smooth."""
    hold = torch.block_diag(*[torch.full((2, 2), 0.5, dtype=torch.float64)] * 8)
    return Law(video().mean, hold @ video().covariance @ hold.T)


def draw_strength(strengths: Sequence[float]) -> Figure:
    """Distance from the data, and from what came in, over the strength."""
    found = [show_1.translated(video(), held(), lesson_schedule(), t) for t in strengths]
    fig, axes = figure(1, 2, width=8.4, height=3.2)
    axes[0].plot(strengths, [video().wasserstein(row.law) for row in found], "o-", color=colors.v)
    axes[0].set(xlabel="strength $t$", ylabel="$W_2$ to the data", title="What is repaired")
    axes[1].plot(strengths, [row.moved for row in found], "o-", color=colors.eps)
    axes[1].set(xlabel="strength $t$", ylabel="squared change a value", title="What it costs in agreement")
    for one in axes:
        one.set_ylim(0)
    return fig


@functools.cache
def letters(text: str = "ABCDEFGHJK") -> Digits:
    """Glyphs that no network here has seen, as a source of clips: letters of the notebook's own font."""
    pictures = []
    for letter in text:
        picture = Image.new("L", (56, 56))
        ImageDraw.Draw(picture).text((28, 28), letter, fill=255, font=font(42), anchor="mm")
        pictures.append(np.asarray(picture.resize((28, 28))))
    return Digits(torch.tensor(np.stack(pictures)), torch.arange(len(text)))
