"""Checks of exercises 10.2 and 10.3: what is given, put into a latent at its level of noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, gaussian
from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, ordered_pair, uniform, video

COSINE, LINEAR = CosineSchedule(-12.0, 12.0), LinearSchedule()


def _masked_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in FLOATS:
        z, x, e = (video(g, 2, 1, 6, 4, 4, dtype=dtype) for _ in range(3))
        given = torch.rand(2, 1, 6, 4, 4, generator=g) < 0.4
        if dtype == torch.float64:
            yield Case("single pixels of 6 frames, x at hand everywhere", (z, x, e, given, t, s, COSINE))
        yield Case(f"{name_of(dtype)}, single pixels of 6 frames", (z, _unknown(x, given), e, given, t, s, COSINE))
    z, x, e = (video(g, 3, 2, 5, 3, 3) for _ in range(3))
    whole = torch.tensor([False, True, False, False, True]).reshape(1, 1, 5, 1, 1)
    yield Case("frames 1 and 4 of 5, from t = 1", (z, _unknown(x, whole), e, whole, 1.0, s, LINEAR))
    left = torch.tensor([True, False, False])
    yield Case("the left column, to s = 0", (z, _unknown(x, left), e, left, t, 0.0, COSINE))
    yield Case("all pixels of one clip", (z[:1], x[:1], e[:1], torch.ones(1, dtype=torch.bool), t, s, COSINE))


def _unknown(x: Tensor, given: Tensor) -> Tensor:
    """x where it is given, and NaN where nobody knows it."""
    return x.masked_fill(~given, torch.nan)


def _masked(draw: Callable[..., Tensor], clean: bool = True) -> Callable[..., Tensor]:
    """draw: (x, noise, t, s, schedule) -> values of the given pixels."""

    def answer(z: Tensor, x: Tensor, e: Tensor, given: Tensor, t: float, s: float, schedule: Schedule) -> Tensor:
        return torch.where(given, x if s == 0 and clean else draw(x, e, t, s, schedule), z)

    return answer


def _diffused(x: Tensor, e: Tensor, t: float, s: float, schedule: Schedule) -> Tensor:
    return gaussian.diffuse(x, s, schedule, e)


def _number(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.dtype)


masked_replacement = Check(
    "masked_replacement",
    _masked(_diffused),
    _masked_cases,
    [
        Wrong(
            _masked(lambda x, e, t, s, schedule: gaussian.diffuse(x, t, schedule, e)),
            "you noise what is given to t. The step has left t: at which level is the latent now?",
        ),
        Wrong(
            _masked(_diffused, clean=False),
            "at s = 0 noise is left in what is given: a truncated schedule has some there, clean data do not.",
        ),
        Wrong(
            _masked(lambda x, e, t, s, schedule: x),
            "you put in the clean pixels; next to noisy ones at level s, a model has never seen such a latent.",
        ),
        Wrong(
            _masked(lambda x, e, t, s, schedule: x + _number(schedule.sigma(s), x) * e),
            "your given pixels keep scale 1: at level s the signal has scale alpha_s.",
        ),
        Wrong(
            _masked(lambda x, e, t, s, schedule: gaussian.diffuse(x, s, schedule, _number(schedule.sigma(s), e) * e)),
            "you scale the noise by a variance, sigma_s²; a standard deviation belongs there.",
        ),
        Wrong(
            lambda z, x, e, given, *rest: (
                given.to(z.dtype) * _masked(_diffused)(z, x, e, torch.ones_like(given), *rest)
                + (~given).to(z.dtype) * z
            ),
            "you multiply by the mask and add: where nothing is known x is NaN, and 0 times NaN is NaN. Choose, with "
            "torch.where.",
        ),
        Wrong(
            lambda z, x, e, given, *rest: _masked(_diffused)(z, x.nan_to_num(), e, ~given, *rest),
            "you overwrite what is *not* given.",
        ),
        Wrong(
            lambda z, x, e, given, *rest: _masked(_diffused)(z, x, e, torch.ones_like(given), *rest),
            "you overwrite everything: where nothing is given, the latent stays what the step made of it.",
        ),
    ],
    new=True,
)


def _path_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    share = float(uniform(g, 0.3, 0.7))
    for dtype in FLOATS:
        z_s, z_t, x_a, e = (video(g, 2, 1, n, 4, 4, dtype=dtype) for n in (6, 6, 3, 3))
        yield Case(
            f"{name_of(dtype)}, frames 0 to 2 of 6, share {share:.2f}",
            (z_s, z_t, x_a, e, [0, 1, 2], t, s, COSINE, share),
        )
    z_s, z_t, x_a, e = (video(g, 3, 2, n, 3, 3) for n in (5, 5, 2, 2))
    yield Case("frames 4 and 1 of 5, from t = 1", (z_s, z_t, x_a, e, [4, 1], 1.0, s, LINEAR, share))
    one = (z_s[:1, :, :2], z_t[:1, :, :2], x_a[:1, :, :1], e[:1, :, :1])
    yield Case("one clip, one frame of two, nothing fresh", (*one, [1], t, s, COSINE, 0.0))
    yield Case("all of it fresh", (*one, [1], t, s, COSINE, 1.0))


def _put(z: Tensor, frames: Any, values: Tensor) -> Tensor:
    z = z.clone()
    z[:, :, frames] = values
    return z


def _path(
    value: Callable[..., Tensor], before: bool = True, order: Callable[[Any], Any] = lambda frames: frames
) -> Callable[..., Tensor]:
    """value: (z_t^a, x_a, fresh noise, alpha and sigma of t and s, share) -> what is put in."""

    def answer(
        z_s: Tensor, z_t: Tensor, x_a: Tensor, e: Tensor, frames: Any, t: float, s: float, schedule: Any, share: float
    ) -> Tensor:
        scales = (_number(f(u), e) for u in (t, s) for f in (schedule.alpha, schedule.sigma))
        frames = order(frames)
        return _put(z_s, frames, value((z_t if before else z_s)[:, :, frames], x_a, e, *scales, share))

    return answer


def _kept(z: Tensor, x: Tensor, e: Tensor, at: Tensor, st: Tensor, as_: Tensor, ss: Tensor, k: float) -> Tensor:
    """As a draw around the mean of DDIM's law (6.9)."""
    fresh = k * ss
    return as_ * x + (ss**2 - fresh**2).clamp(min=0).sqrt() / st * (z - at * x) + fresh * e


path_replacement = Check(
    "path_replacement",
    _path(_kept),
    _path_cases,
    [
        Wrong(
            _path(_kept, before=False),
            "you begin from what the step made of the given frames; the path goes on from what they were at t.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * e),
            "that is a fresh draw, whatever the share: it forgets the noise of the level before.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * ((1 - k) * (z - at * x) / st + k * e)),
            "your two shares add up to 1; then their noise has less than variance 1. It is the squares that do.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * (k * (z - at * x) / st + (1 - k**2) ** 0.5 * e)),
            "you have old and fresh noise exchanged: at share 1 all of it is fresh.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * ((1 - k) ** 0.5 * (z - at * x) / st + k**0.5 * e)),
            "you take the share for that of the variance; it is that of the standard deviation.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + (1 - k**2) ** 0.5 * (z - at * x) + k * ss * e),
            "what is left of z_t without its signal is noise of size sigma_t; at s it has size sigma_s.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * ((1 - k**2) ** 0.5 * (z - x) / st + k * e)),
            "in z_t the signal has scale alpha_t: that much of x is to be taken away.",
        ),
        Wrong(
            _path(_kept, order=sorted),
            "you sort the frames: `frames` is in the order of the frames of x_a, and need not rise.",
        ),
    ],
)
