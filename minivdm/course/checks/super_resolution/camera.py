"""Checks of exercises 11.1 and 11.2: a slower camera, and an estimate that agrees with what it saw."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from minivdm.core import observe
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, video

# ---- the camera ----------------------------------------------------------------------------------------------


def _camera_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, 2x2 pixels, every frame by itself", (video(g, 2, 1, 3, 4, 6, dtype=dtype), 2, 1))
    yield Case("2x2 pixels of three channels, 6 frames in pairs", (video(g, 2, 3, 6, 4, 6), 2, 2))
    yield Case("4x4 pixels, 6 frames in threes", (video(g, 1, 1, 6, 8, 4), 4, 3))
    yield Case("all pixels, 4 frames in pairs", (video(g, 3, 1, 4, 3, 5), 1, 2))
    yield Case("a block that is the whole clip", (video(g, 2, 2, 2, 3, 3), 3, 2))


def _camera(x: Tensor, space: int, shutter: int) -> Tensor:
    """Frame by frame through the package's camera, then averaged over each group."""
    small = observe.Downsample(space)(x)
    groups = [small[:, :, k : k + shutter].sum(2) / shutter for k in range(0, x.shape[2], shutter)]
    return torch.stack(groups, 2)


long_exposure = Check(
    "long_exposure",
    _camera,
    _camera_cases,
    [
        Wrong(
            lambda x, k, n: _camera(x, k, n) * k**2 * n,
            "you add the values of a block up; this camera takes their mean.",
        ),
        Wrong(lambda x, k, n: _camera(x, k, n) * n, "you add up the frames of a group; the camera takes their mean."),
        Wrong(
            lambda x, k, n: _camera(x[..., ::k, ::k], 1, n),
            "you keep one pixel of each block; this camera takes the mean of all of them.",
        ),
        Wrong(
            lambda x, k, n: observe.Downsample(k, n)(x),
            "you keep the first frame of each group, as the lesson's camera does; with its shutter open, this one sees "
            "the mean of all of them.",
        ),
        Wrong(
            lambda x, k, n: _camera(x.unflatten(2, (n, -1)).transpose(2, 3).flatten(2, 3), k, n),
            "your groups are made of frames that are far apart; those of a group follow one another.",
        ),
        Wrong(
            lambda x, k, n: functional.avg_pool3d(x, (n, k, k), (1, k, k)),
            "your groups overlap: a frame belongs to one group only.",
        ),
    ],
)


# ---- projection ----------------------------------------------------------------------------------------------


def _project_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        x_hat, x = (video(g, 2, 1, 3, 4, 6, dtype=dtype) for _ in range(2))
        yield Case(f"{name_of(dtype)}, 2x2 pixels, every frame by itself", (x_hat, _camera(x, 2, 1), 2, 1))
    for name, shape, space, shutter in (
        ("2x2 pixels, 6 frames in pairs", (2, 3, 6, 4, 6), 2, 2),
        ("4x4 pixels, 6 frames in threes", (1, 1, 6, 8, 4), 4, 3),
        ("all pixels, 4 frames in pairs", (3, 1, 4, 3, 5), 1, 2),
    ):
        yield Case(name, (video(g, *shape), _camera(video(g, *shape), space, shutter), space, shutter))
    x_hat = video(g, 2, 1, 2, 4, 4)
    yield Case("an estimate that agrees with y already", (x_hat, _camera(x_hat, 2, 2), 2, 2))


def _written(values: Tensor, space: int, shutter: int) -> Tensor:
    """Each value into all pixels of its block, in all frames of its group."""
    return functional.interpolate(values, scale_factor=(shutter, space, space), mode="nearest")


def _residual(x_hat: Tensor, y: Tensor, space: int, shutter: int) -> Tensor:
    return y - _camera(x_hat, space, shutter)


def _project(x_hat: Tensor, y: Tensor, space: int, shutter: int) -> Tensor:
    return x_hat + _written(_residual(x_hat, y, space, shutter), space, shutter)


def _corner(x_hat: Tensor, y: Tensor, space: int, shutter: int) -> Tensor:
    made = x_hat.clone()
    made[..., ::space, ::space] += _written(_residual(x_hat, y, space, shutter), 1, shutter) * space**2
    return made


def _first(x_hat: Tensor, y: Tensor, space: int, shutter: int, factor: int = 1) -> Tensor:
    made = x_hat.clone()
    made[:, :, ::shutter] += _written(_residual(x_hat, y, space, shutter), space, 1) * factor
    return made


project = Check(
    "project",
    _project,
    _project_cases,
    [
        Wrong(
            lambda x, y, k, n: x + _written(_residual(x, y, k, n), k, n) / (n * k**2),
            "you write with the transpose of D, a share of the residual; the pseudo-inverse writes a block's mean into "
            "each of its pixels.",
        ),
        Wrong(
            lambda x, y, k, n: x + _written(_residual(x, y, k, n), k, n) / n,
            "you divide the residual among the frames of a group; for their *mean* to change by it, each has to.",
        ),
        Wrong(
            lambda x, y, k, n: x - _written(_residual(x, y, k, n), k, n),
            "the sign is wrong: after the projection D x must be y, but you go away from it.",
        ),
        Wrong(
            lambda x, y, k, n: _written(y, k, n), "that is the seen part alone; the unseen part of x_hat is missing."
        ),
        Wrong(
            lambda x, y, k, n: x + _written(y, k, n),
            "you add what was seen, without taking away what the estimate would show in its place.",
        ),
        Wrong(
            _corner,
            "D x is y now, but you changed one pixel of each block alone; the pseudo-inverse spreads the "
            "residual evenly, the smallest change that does it.",
        ),
        Wrong(
            lambda x, y, k, n: _first(x, y, k, n, n),
            "D x is y now, but you changed the first frame of each group alone; the smallest change that does it is "
            "spread over all of them.",
        ),
        Wrong(_first, "you write into the first frame of each group; this camera has seen all of them."),
    ],
)
