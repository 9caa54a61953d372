"""Checks of exercises 06.1 and 06.3: a DDIM step, and one with a clipped estimate."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, ordered_pair, video
from minivdm.course.checks.samplers.levels import COSINE, scales_at

# ---- DDIM ----------------------------------------------------------------------------------------------------


def _ddim_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in (torch.float64, torch.float32):
        z, x_hat = video(g, dtype=dtype), video(g, dtype=dtype)
        scales = [*scales_at(COSINE, t), *scales_at(COSINE, s)]
        yield Case(f"{name_of(dtype)}, clips of 3 frames", (z, x_hat, *scales))
    z, x_hat = video(g, 5, 1, 1, 2, 2), video(g, 5, 1, 1, 2, 2)
    yield Case("one frame, from t = 1", (z, x_hat, *scales_at(COSINE, 1.0), *scales_at(COSINE, t)))
    yield Case("to t = 0", (z, x_hat, *scales_at(COSINE, t), *scales_at(COSINE, 0.0)))
    yield Case(
        "points of a plane, variance exploding",
        (video(g, 6, 2), video(g, 6, 2), *torch.tensor([1.0, 1.0 + t, 1.0, s], dtype=torch.float64)),
    )


def _ddim(z: Tensor, x_hat: Tensor, alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> Tensor:
    eps_hat = (z - alpha_t * x_hat) / sigma_t
    return alpha_s * x_hat + sigma_s * eps_hat


ddim_step = Check(
    "ddim_step",
    _ddim,
    _ddim_cases,
    [
        Wrong(
            lambda z, x, at, st, as_, ss: at * x + st * (z - as_ * x) / ss,
            "your step ends at t, not at s: did you swap s and t?",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + ss * (z - at * x),
            "your eps_hat is not divided by sigma_t: solve z = alpha_t x_hat + sigma_t eps_hat for it.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + ss * (z - at * x) / st**2,
            "your eps_hat is divided by sigma_t²; that is minus the score. The noise is divided by sigma_t.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x - ss * (z - at * x) / st,
            "the sign of your eps_hat is wrong: what is left of z when the signal alpha_t x_hat is taken away?",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + ss**2 * (z - at * x) / st,
            "you scale the noise by sigma_s²; a standard deviation, sigma_s, belongs there.",
        ),
        Wrong(
            lambda z, eps, at, st, as_, ss: as_ * (z - st * eps) / at + ss * eps,
            "you take x_hat for eps_hat: here the denoiser's answer is the clean clip.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + (1 - as_**2).clamp(min=0).sqrt() * (z - at * x) / st,
            "you wrote √(1 − alpha_s²) for sigma_s; that holds where variance is preserved, and not here always.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: as_ * x + at * ss**2 / (as_ * st**2) * (z - at * x),
            "this is the mean of the posterior, with which an *ancestral* step begins; DDIM keeps all of the noise.",
        ),
        Wrong(
            lambda z, x, at, st, as_, ss: x + ss * (z - at * x) / st,
            "the signal has scale alpha_s at time s; you left it at scale 1.",
        ),
    ],
)


# ---- clipping ------------------------------------------------------------------------------------------------


def _clip_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    scales = [*scales_at(COSINE, t), *scales_at(COSINE, s)]
    for dtype in (torch.float64, torch.float32):
        z, x_hat = video(g, dtype=dtype), 3 * video(g, dtype=dtype)
        yield Case(f"{name_of(dtype)}, values in [-1, 1]", (z, x_hat, -1.0, 1.0, *scales))
    z, x_hat = video(g, 1, 3, 1, 3, 3), 3 * video(g, 1, 3, 1, 3, 3)
    yield Case("one frame, values in [0, 1], to t = 0", (z, x_hat, 0.0, 1.0, *scales[:2], *scales_at(COSINE, 0.0)))
    yield Case("nothing to clip", (z, x_hat.tanh(), -1.0, 1.0, *scales))
    z, x_hat = video(g, 6, 2), 3 * video(g, 6, 2)
    yield Case("points of a plane, from t = 1", (z, x_hat, -2.0, 2.0, *scales_at(COSINE, 1.0), *scales[2:]))


clipped_ddim_step = Check(
    "clipped_ddim_step",
    lambda z, x, low, high, *scales: _ddim(z, x.clamp(low, high), *scales),
    _clip_cases,
    [
        Wrong(
            lambda z, x, low, high, *scales: _ddim(z, x, *scales) + scales[2] * (x.clamp(low, high) - x),
            "your eps_hat is that of x_hat before it was clipped: they no longer add up to z_t.",
        ),
        Wrong(lambda z, x, low, high, *scales: _ddim(z, x, *scales), "this is DDIM without any clipping."),
        Wrong(
            lambda z, x, low, high, *scales: _ddim(z, x, *scales).clamp(low, high),
            "you clip z_s, which is noisy and may have any value; only the estimate of clean values has a range.",
        ),
        Wrong(
            lambda z, x, low, high, *scales: _ddim(z, x.clamp(-1, 1), *scales),
            "you clip to [-1, 1] whatever low and high are.",
        ),
        Wrong(
            lambda z, x, low, high, *scales: _ddim(z, x.clamp(-high, high), *scales),
            "you clip to [-high, high]; the lower end is `low`.",
        ),
        Wrong(
            lambda z, x, low, high, *scales: (
                _ddim(z, x.clamp(low, high), *scales) + scales[2] * (x - x.clamp(low, high))
            ),
            "your eps_hat belongs to the clipped estimate, but the signal of your z_s is still the old one.",
        ),
    ],
)
