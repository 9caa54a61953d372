"""How a digit moves: the straight path with bounces that fits it best, and how rigidly its strokes go along."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minivdm import guards
from minivdm.guards import BadArgument, whole
from minivdm.measure.metrics import pixels

CENTRE = 6.25  # from a digit's true corner, at size 32: the mean centre of mass, 6.75, less half a pixel of rounding


@dataclass
class Track:
    """The straight-line-with-bounce motion that fits a clip of one digit best.

    Attributes:
        observed: (b, f, 2) centre of the ink, (y, x) in pixels; NaN in frames without ink.
        fitted: (b, f, 2) the same of the best fitting motion.
        velocity: (b, 2) pixels per frame at the first frame.
        deviation: (b,) root mean square distance of the two, in pixels; infinite if some frame has no ink.
    """

    observed: Tensor
    fitted: Tensor
    velocity: Tensor
    deviation: Tensor


def fit_track(videos: Tensor) -> Track:
    """Fit position, velocity and bounces to the ink's centre of every clip (b, 1, f, h, h), by least squares.

    Both axes bounce independently of each other, so each is fitted alone: all starts and velocities on a
    grid, then a finer grid around the best. MNIST digits are centred on their centre of mass, so that the
    centre of the ink may go from half a digit (7/32 of the canvas) to as much before the far wall; the fit
    may shift these walls by a pixel.
    """
    b, c, f, h, w = pixels("videos", videos).shape
    if h != w or c != 1:
        raise BadArgument(f"videos: expected (b, 1, f, h, h), got {tuple(videos.shape)}")
    ink = ((videos[:, 0].double() + 1) / 2 - 0.2).clamp(min=0)  # a faint background is not the digit
    total = ink.sum((-2, -1))
    pixel = torch.arange(h, device=videos.device, dtype=torch.float64)
    y = (ink.sum(-1) * pixel).sum(-1) / total  # b f
    x = (ink.sum(-2) * pixel).sum(-1) / total
    observed = torch.stack([y, x], -1).where(total[..., None] > 1, torch.nan)

    tracks = observed.transpose(1, 2).reshape(2 * b, f).nan_to_num(h / 2)
    fitted, velocity = _fit_axis(tracks, h)
    fitted = fitted.view(b, 2, f).transpose(1, 2)
    deviation = (fitted - observed).square().sum(-1).mean(-1).sqrt().nan_to_num(torch.inf)
    return Track(observed, fitted, velocity.view(b, 2), deviation)


def track_deviation(videos: Tensor) -> Tensor:
    """How far each clip of one digit is from straight-line-with-bounce motion, (b,) in pixels (see `Track`).

    Digits drawn at whole pixels leave sqrt(2/12) = 0.41 pixels of rounding. Ask it of legible clips only:
    grey noise, whose ink has its centre in the middle of the canvas all the time, does not move at all.
    """
    return fit_track(videos).deviation


def _fit_axis(tracks: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Best bouncing motion for tracks (n, f): the fitted tracks (n, f) and their velocities (n,)."""
    scale, frames = size / 32, tracks.shape[1]
    start = torch.linspace(0, 18 * scale, 37, dtype=torch.float64, device=tracks.device)
    velocity = torch.linspace(-4 * scale, 4 * scale, 161, dtype=torch.float64, device=tracks.device)
    start, velocity = (grid.reshape(-1) for grid in torch.meshgrid(start, velocity, indexing="ij"))
    for step in (0.5 * scale, None):  # a grid for all tracks, then a finer one around each track's best
        paths = _bouncing(start, velocity, 18 * scale, frames) + CENTRE * scale  # (k, f) or (n, k, f)
        gap = tracks.mean(-1, keepdim=True) - paths.mean(-1)  # (n, k)
        shift = gap.clamp(-scale, scale)
        if paths.ndim == 2:
            error = torch.cdist(tracks, paths).square()
        else:
            error = (tracks[:, None] - paths).square().sum(-1)
        best = (error + frames * (shift - 2 * gap) * shift).argmin(-1, keepdim=True)  # (n, 1)
        shift = shift.gather(1, best)
        if step is not None:
            around = torch.linspace(-1, 1, 21, dtype=torch.float64, device=tracks.device)
            dy, dv = (grid.reshape(-1) for grid in torch.meshgrid(around, around, indexing="ij"))
            start = (start[best] + step * dy).clamp(0, 18 * scale)  # (n, k)
            velocity = velocity[best] + 0.1 * step * dv
    fitted = paths.gather(1, best[..., None].expand(-1, -1, frames))[:, 0] + shift
    return fitted, velocity.gather(1, best)[:, 0]


def _bouncing(start: Tensor, velocity: Tensor, free: float, frames: int) -> Tensor:
    """Paths (..., f) within [0, free] of starts and velocities (...): clamped to the wall, then reversed."""
    path = [start]
    for _ in range(1, frames):
        ahead = path[-1] + velocity
        velocity = torch.where(ahead <= 0, velocity.abs(), torch.where(ahead >= free, -velocity.abs(), velocity))
        path.append(ahead.clamp(0, free))
    return torch.stack(path, -1)


def rigidity(videos: Tensor, reach: int | None = None) -> Tensor:
    """How much ink is redrawn from frame to frame, (b,): 0 where one rigid shape is carried along, 2 where neighbouring
    frames have nothing in common.

    The share of the ink's energy that changes between neighbouring frames k and k + 1 after the best shift by whole
    pixels: sum_k min_s |S_s y_k - y_{k+1}|^2 over sum_k (|y_k|^2 + |y_{k+1}|^2) / 2, with y = (x + 1) / 2 and S_s a
    shift that loses nothing (the canvas is padded). A clip without ink has the value 2. Meant for clips of one digit,
    as two have two shifts.

    Args:
        videos: (b, c, f, h, w) in [-1, 1], f at least 2.
        reach: largest shift looked at along either axis, in pixels; by default an eighth of the frame's height.
    """
    b, c, f, h, w = pixels("videos", videos).shape
    if f < 2:
        raise BadArgument(f"videos: expected at least 2 frames, got {f}")
    reach = max(1, h // 8) if reach is None else whole("reach", reach, 0, min(h, w) - 1)
    ink = (videos.double().clamp(-1, 1) + 1) / 2
    energy = ink.square().sum((1, 3, 4))  # b f
    # |S y - y'|^2 = |y|^2 + |y'|^2 - 2 <S y, y'>, and all inner products at once are a correlation, by FFT.
    spectrum = torch.fft.rfft2(ink, s=(h + reach, w + reach))  # b c f . .
    product = (spectrum[:, :, :-1].conj() * spectrum[:, :, 1:]).sum(1)  # b (f-1) . .
    overlap = torch.fft.irfft2(product, s=(h + reach, w + reach))  # at negative shifts too, wrapped around
    near = torch.arange(-reach, reach + 1, device=videos.device)
    best = overlap[..., near, :][..., near].flatten(2).amax(2)  # b (f-1)
    both = energy[:, :-1] + energy[:, 1:]
    changed = (both - 2 * best).clamp(min=0).sum(1)
    total = both.sum(1) / 2
    return torch.where(total > 1e-3 * h * w * c / 1024, changed / total.clamp(min=1e-12), 2.0).to(videos.dtype)


guards.check_types(globals())
