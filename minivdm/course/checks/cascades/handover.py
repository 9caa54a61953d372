"""Checks of exercises 14.1, 14.2 and 14.6: what a stage is handed, and what an exact one makes of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, uniform, video

# ---- a small clip --------------------------------------------------------------------------------------------


def _small_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, every second frame, 2x2", (video(g, 2, 1, 4, 6, 4, dtype=dtype), 2, 2))
    yield Case("every third of seven frames, 3x3", (video(g, 1, 2, 7, 3, 9), 3, 3))
    yield Case("all frames, 2x2", (video(g, 2, 1, 3, 4, 4), 1, 2))
    yield Case("every second frame, all pixels", (video(g, 2, 1, 4, 4, 4), 2, 1))


def _small(x: Tensor, every: int, space: int, first: int = 0) -> Tensor:
    b, c, _, h, w = x.shape
    kept = x[:, :, first::every]
    return kept.reshape(b, c, -1, h // space, space, w // space, space).mean((4, 6))


small_clip = Check(
    "small_clip",
    _small,
    _small_cases,
    [
        Wrong(
            lambda x, n, k: _small(x, 1, k)[:, :, : x.shape[2] // n * n].unflatten(2, (-1, n)).mean(3),
            "you average frames; they are left out, so that what moves stays sharp.",
        ),
        Wrong(lambda x, n, k: x[:, :, ::n, ::k, ::k], "you leave out pixels; small pixels are means of blocks."),
        Wrong(lambda x, n, k: _small(x, n, k) * k * k, "you add up the pixels of a block; asked is their mean."),
        Wrong(lambda x, n, k: _small(x, n, k, n - 1), "you keep the last frame of each group; asked is the first."),
        Wrong(lambda x, n, k: _small(x, 1, k), "you keep all frames."),
        Wrong(lambda x, n, k: _small(x, n, 1), "you keep all pixels."),
    ],
)


# ---- augmentation --------------------------------------------------------------------------------------------


def _augment_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        clips = (
            video(g, 3, 1, 2, 4, 3, dtype=dtype),
            uniform(g, -4, 8, 3).to(dtype),
            video(g, 3, 1, 2, 4, 3, dtype=dtype),
        )
        yield Case(f"{name_of(dtype)}, three clips, levels of their own", clips)
    one = torch.zeros(2, dtype=torch.float64)
    yield Case("as much noise as signal", (video(g, 2, 1, 1, 3, 3), one, video(g, 2, 1, 1, 3, 3)))
    far = torch.tensor([-30.0, 30.0], dtype=torch.float64)
    yield Case("points, all noise and all signal", (video(g, 2, 5), far, video(g, 2, 5)))


def _augment(low: Tensor, log_snr: Tensor, noise: Tensor, slip: str = "") -> Tensor:
    level = log_snr.reshape(-1, *[1] * (low.ndim - 1))
    alpha, sigma = level.sigmoid().sqrt(), (-level).sigmoid().sqrt()
    if slip == "squares":
        alpha, sigma = alpha**2, sigma**2
    if slip == "exchanged":
        alpha, sigma = sigma, alpha
    if slip == "exploding":
        alpha, sigma = torch.ones_like(alpha), sigma / alpha
    if slip == "sum":
        alpha, sigma = alpha**2, 1 - alpha**2
        sigma = sigma.sqrt()
    if slip == "amplitude":
        alpha, sigma = (2 * level).sigmoid().sqrt(), (-2 * level).sigmoid().sqrt()
    if slip == "first":
        alpha, sigma = alpha[:1], sigma[:1]
    return alpha * low + sigma * noise


def _augmented(slip: str) -> Callable[..., Tensor]:
    return functools.partial(_augment, slip=slip)


augment = Check(
    "augment",
    _augment,
    _augment_cases,
    [
        Wrong(_augmented("squares"), "your scales are alpha^2 and sigma^2: take the roots."),
        Wrong(_augmented("exchanged"), "signal and noise are exchanged: a large log-SNR is little noise."),
        Wrong(_augmented("exploding"), "you add noise to a clip of full size; alpha^2 + sigma^2 = 1."),
        Wrong(_augmented("sum"), "your alpha lacks a root: alpha^2 + sigma^2 has to be 1."),
        Wrong(_augmented("amplitude"), "the log-SNR is that of alpha^2 / sigma^2, not of alpha / sigma."),
        Wrong(_augmented("first"), "every clip has the first one's level."),
    ],
)


# ---- the exact second stage ----------------------------------------------------------------------------------


def _stage_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for d, m in ((4, 2), (6, 3)):
        root = video(g, d, d)
        covariance = root @ root.T / d + 0.3 * torch.eye(d, dtype=torch.float64)
        mean, operator, y = video(g, d), video(g, m, d), video(g, 5, m)
        yield Case(f"{d} values, {m} seen", (covariance, mean, operator, y, float(uniform(g, -2, 3))))
    centred = torch.zeros(4, dtype=torch.float64)
    yield Case("mean 0, hardly any noise", (torch.eye(4).double(), centred, video(g, 2, 4), video(g, 2, 2), 9.0))


def _second(
    covariance: Tensor, mean: Tensor, operator: Tensor, y: Tensor, log_snr: float, slip: str = ""
) -> tuple[Tensor, Tensor]:
    alpha, sigma = math.sqrt(1 / (1 + math.exp(-log_snr))), math.sqrt(1 / (1 + math.exp(log_snr)))
    if slip == "unscaled":
        alpha = 1.0
    prior = torch.linalg.inv(covariance)
    seen = operator.T @ operator * (alpha / sigma) ** (1 if slip == "ratio" else 2)
    precision = seen if slip == "flat" else prior + seen
    if slip == "flat":
        precision = precision + 1e-6 * torch.eye(len(mean), dtype=mean.dtype)
    spread = precision if slip == "precision" else torch.linalg.inv(precision)
    weight = alpha / sigma if slip == "sigma" else (alpha / sigma) ** 2 if slip == "squared" else alpha / sigma**2
    told = y @ operator * weight
    if slip != "centred":
        told = told + (mean if slip == "mean" else prior @ mean)
    where = told @ (spread if slip != "precision" else torch.linalg.inv(precision))
    return (where[:1].expand_as(where) if slip == "first" else where), spread


def _seconded(slip: str) -> Callable[..., tuple[Tensor, Tensor]]:
    return functools.partial(_second, slip=slip)


second_stage = Check(
    "second_stage",
    _second,
    _stage_cases,
    [
        Wrong(_seconded("unscaled"), "y holds alpha D x, not D x: your alpha is missing."),
        Wrong(_seconded("ratio"), "precisions have (alpha / sigma)^2."),
        Wrong(_seconded("flat"), "the precision of x itself, the inverse of its covariance, is missing."),
        Wrong(_seconded("precision"), "your second result is the precision; asked is its inverse."),
        Wrong(_seconded("sigma"), "y counts with alpha / sigma^2, not alpha / sigma."),
        Wrong(_seconded("squared"), "y counts with alpha / sigma^2: it has one alpha in it already."),
        Wrong(_seconded("centred"), "the mean of x is missing: without y it is what is left."),
        Wrong(_seconded("mean"), "the mean of x counts with its precision."),
    ],
)
