"""Checks of exercises 09.1, 09.7 and 09.8: the times of a batch, their variances, and the floor at the noisy end."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform

# ---- times ---------------------------------------------------------------------------------------------------


def _offset_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for n, dtype in ((8, torch.float64), (5, torch.float32)):
        yield Case(f"{name_of(dtype)}, {n} clips", (uniform(g, 0.55, 0.95).to(dtype), n))
    yield Case("a small number, 4 clips", (uniform(g, 0.01, 0.2), 4))
    yield Case("one clip", (uniform(g, 0, 1), 1))
    yield Case("u = 0, 3 clips", (torch.zeros((), dtype=torch.float64), 3))


def _offset(u: Tensor, n: int) -> Tensor:
    """One after the other, each an n-th after the one before."""
    times = [u]
    for k in range(1, n):
        time = u + k / n
        times.append(time - 1 if time >= 1 else time)
    return torch.stack(times)


def _numbers(u: Tensor, n: int) -> Tensor:
    return torch.arange(n, dtype=u.dtype)


offset_times = Check(
    "offset_times",
    _offset,
    _offset_cases,
    [
        Wrong(
            lambda u, n: u + _numbers(u, n) / n, "some of your times lie beyond 1: what runs over comes in again at 0."
        ),
        Wrong(
            lambda u, n: (u + _numbers(u, n) / n).clamp(max=1.0),
            "your times stop at 1, and several are the same there; what runs over comes in again at 0.",
        ),
        Wrong(
            lambda u, n: (u + _numbers(u, n)) / n,
            "your k-th time always lies in the k-th part, so that a clip's time depends on its place in the batch; "
            "here each time by itself is uniform on all of [0, 1).",
        ),
        Wrong(
            lambda u, n: _offset(u, n).sort().values,
            "you sort the times: then the last clip of a batch is always the noisiest.",
        ),
        Wrong(
            lambda u, n: (u + torch.linspace(0, 1, n, dtype=u.dtype)) % 1,
            "linspace(0, 1, n) has its last point at 1, and n − 1 gaps: neighbours are 1/n apart.",
        ),
        Wrong(lambda u, n: u + 0 * _numbers(u, n), "all clips get the same time."),
        Wrong(
            lambda u, n: (u + (_numbers(u, n) + 1) / n) % 1,
            "you begin one part too late: the first clip's time is u itself.",
        ),
        Wrong(lambda u, n: _numbers(u, n) / n, "your times do not depend on u: most noise levels are never seen."),
        Wrong(lambda u, n: (u - _numbers(u, n) / n) % 1, "you go the other way round: time k is k/n *after* u."),
    ],
)


# ---- three variances, with pen -------------------------------------------------------------------------------


def _count_cases(seed: int) -> Iterator[Case]:
    for n in (1, 2, 3 + seed % 5, 64):
        yield Case(f"n = {n}", (n,))


def _variances(n: int) -> tuple[float, float, float]:
    """By the law of total variance, and the mean of the shifted grid: a shift within one n-th."""
    centres = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    independent = 1 / 12 / n
    return independent, independent - float(centres.var(unbiased=False)) / n, (1 / n) ** 2 / 12


mean_time_variances = Check(
    "mean_time_variances",
    _variances,
    _count_cases,
    [
        Wrong(
            lambda n: (1 / 12, 1 / 12 / n**2, 1 / 12),
            "these are variances of single times; the mean of n independent ones has an n-th of it.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**2, 1 / 12 / n**2),
            "your second result is the variance of one time in its part; the mean of n of them has an n-th of it.",
        ),
        Wrong(
            lambda n: (1 / 12 / n**0.5, 1 / 12 / n**1.5, 1 / 12 / n),
            "variances fall like 1/n; it is standard deviations that fall like its root.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n, 1 / 12 / n**2),
            "your strata do not help: how wide is the interval that a stratified time is uniform on?",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**3, 1 / 12 / n**3),
            "your third result takes the times for independent; they all move with the same u, and averaging does not "
            "help.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**3, 1 / 12),
            "your third result is that of u itself; when u has moved by 1/n, the set of times is the same again.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**3, 0.0),
            "your third result is 0, as if the set of times did not move; it moves within one n-th.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**2, 1 / 12 / n**3),
            "your second and third result are exchanged.",
        ),
        Wrong(
            lambda n: (1 / 3 / n, 1 / 3 / n**3, 1 / 3 / n**2),
            "the variance of a uniform number is the mean of its square less the square of its mean.",
        ),
        Wrong(
            lambda n: ((1 / 12 / n) ** 0.5, (1 / 12 / n**3) ** 0.5, (1 / 12 / n**2) ** 0.5),
            "these are standard deviations; the variances are asked for.",
        ),
    ],
)


# ---- the floor, with pen -------------------------------------------------------------------------------------


def _canvas_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    white = int(uniform(g, 60, 120))
    yield Case(f"{white} of 1024 pixels white", (white, 1024))
    yield Case("half of the pixels white", (8, 16))
    yield Case("all black", (0, 64))
    yield Case("one of four", (1, 4))


blind_floor = Check(
    "blind_floor",
    lambda white, pixels: 1 - (2 * white / pixels - 1) ** 2,
    _canvas_cases,
    [
        Wrong(
            lambda white, pixels: white / pixels * (1 - white / pixels),
            "right for values 0 and 1; here they are two apart, and a variance grows with the square.",
        ),
        Wrong(
            lambda white, pixels: 2 * white / pixels * (1 - white / pixels),
            "values −1 and 1 are twice as far apart as 0 and 1: the variance grows by the square of that.",
        ),
        Wrong(lambda white, pixels: 1.0, "this is the mean square; a blind guess at the mean does better."),
        Wrong(
            lambda white, pixels: (2 * white / pixels - 1) ** 2,
            "this is the square of the mean; the variance is what it leaves of the mean square.",
        ),
        Wrong(
            lambda white, pixels: 4 * white / pixels,
            "you forgot that black pixels are known no better than white ones.",
        ),
        Wrong(
            lambda white, pixels: (4 * white / pixels * (1 - white / pixels)) ** 0.5,
            "this is a standard deviation; the floor of a squared error is a variance.",
        ),
    ],
)
