"""Checks of exercises 01.1, 01.2 and 01.5: Brownian paths, a step of an SDE, and a solution along one path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, ordered_pair, uniform, video

VP, SUB_VP, VE, COSINE = LinearSchedule(), SubVPSchedule(), VESchedule(0.02, 8.0), CosineSchedule()


def _grid(g: torch.Generator, steps: int, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Unequal times from `start` to `end`, (steps + 1,): each step at least a third of the longest."""
    lengths = uniform(g, 0.5, 1.5, steps).cumsum(0)
    return torch.cat([torch.zeros(1, dtype=torch.float64), lengths / lengths[-1]]) * (end - start) + start


# ---- Brownian motion at unequal times --------------------------------------------------------------------------


def _brownian_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, 6 unequal steps, 4 paths", (_grid(g, 6).to(dtype), video(g, 6, 4, dtype=dtype)))
    yield Case("equal steps, one path", (torch.linspace(0, 1, 9, dtype=torch.float64), video(g, 8, 1)))
    yield Case(
        "steps of very different length",
        (torch.tensor([0.0, 1e-4, 0.02, 0.5, 0.51], dtype=torch.float64), video(g, 4, 3)),
    )
    yield Case("one step", (_grid(g, 1, end=0.3), video(g, 1, 5)))


def _path(increments: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(increments[:1]), increments.cumsum(0)])


def _brownian(times: Tensor, noise: Tensor) -> Tensor:
    w = [torch.zeros_like(noise[0])]
    for before, after, eps in zip(times[:-1], times[1:], noise, strict=True):
        w.append(w[-1] + (after - before).sqrt() * eps)
    return torch.stack(w)


brownian_path = Check(
    "brownian_path",
    _brownian,
    _brownian_cases,
    [
        Wrong(
            lambda times, noise: _path(times.diff()[:, None] * noise),
            "your steps are too small: you scale the noise by the length of a step, which is the step's variance.",
        ),
        Wrong(
            lambda times, noise: _path(noise * (times[-1] / len(noise)) ** 0.5),
            "you give every step the same standard deviation, but these times are not equally far apart.",
        ),
        Wrong(
            lambda times, noise: _path(times[1:, None].sqrt() * noise),
            "each of your steps is as large as if it began at time 0: its variance is the time that passes in it.",
        ),
        Wrong(
            lambda times, noise: torch.cat([0 * noise[:1], times.diff().sqrt()[:, None] * noise]),
            "these are the increments, not the path: what is w at the end of the second step?",
        ),
        Wrong(
            lambda times, noise: _path(times.diff().sqrt()[:, None] * noise)[1:],
            "the first row is missing: there is one time more than there are steps, and w starts at 0.",
        ),
        Wrong(
            lambda times, noise: torch.cat([0 * noise[:1], times[1:, None].sqrt() * noise]),
            "each row alone has the right variance, but your rows are independent of each other; a path goes on from "
            "where it is.",
        ),
        Wrong(
            lambda times, noise: torch.cat([0 * noise[:1], (times.diff().sqrt()[:, None] * noise).cumsum(-1)]),
            "you add up over the paths; time runs along the first axis.",
        ),
    ],
)


# ---- one step of Euler-Maruyama --------------------------------------------------------------------------------


def _step_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g, 0.1, 0.8)
    dt = t - s
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, clips of 3 frames, VP", (video(g, dtype=dtype), s, dt, VP, video(g, dtype=dtype))
        )
    yield Case("points of a plane, VE", (video(g, 6, 2), s, dt, VE, video(g, 6, 2)))
    yield Case("one frame, cosine, a short step", (video(g, 1, 1, 1, 4, 4), t, 1e-3, COSINE, video(g, 1, 1, 1, 4, 4)))
    yield Case("sub-VP from t = 0", (video(g), 0.0, dt, SUB_VP, video(g)))


def _euler(z: Tensor, t: float, dt: float, schedule: Schedule, noise: Tensor) -> Tensor:
    mean = z * (1 + dt * float(schedule.drift(t)))
    return mean + float((schedule.diffusion(t) ** 2 * dt).sqrt()) * noise


euler_maruyama_step = Check(
    "euler_maruyama_step",
    _euler,
    _step_cases,
    [
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t) * z * dt + sde.diffusion(t) * dt * eps,
            "your noise is multiplied by dt, so its variance is dt²: what is the variance of a Brownian step?",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t) * z * dt + sde.diffusion(t) * eps,
            "your noise is as large whatever dt is: a Brownian step depends on the time it takes.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z - sde.drift(t) * z * dt + sde.diffusion(t) * dt**0.5 * eps,
            "the sign of your drift is wrong: f carries its own sign, and the equation adds f z dt.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t) * dt + sde.diffusion(t) * dt**0.5 * eps,
            "your drift does not depend on z: f is a rate, and a pixel fades in proportion to what it has.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t + dt) * z * dt + sde.diffusion(t + dt) * dt**0.5 * eps,
            "you read f and g at the end of the step; this scheme, as Itô's sums do, reads them where it begins.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: z + sde.drift(t) * z * dt + sde.diffusion(t) ** 2 * dt**0.5 * eps,
            "you multiply the noise by g²: that is a rate of variance, and noise is scaled by a standard deviation.",
        ),
        Wrong(
            lambda z, t, dt, sde, eps: sde.drift(t) * z * dt + sde.diffusion(t) * dt**0.5 * eps,
            "this is dz, the change in the step; return the state after it.",
        ),
    ],
)


# ---- the solution, along a path --------------------------------------------------------------------------------


def _solution_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    start, _ = ordered_pair(g, 0.1, 0.9)
    for name, schedule, first, last, paths in (
        ("VP, 4 paths", LinearSchedule(0.1, 8.0), 0.0, 1.0, 4),
        ("sub-VP, from a later time", SUB_VP, start, 0.9, 3),
        ("VE, one path", VE, 0.0, 1.0, 1),
        ("cosine, up to t = 0.9", COSINE, 0.0, 0.9, 2),
    ):
        times = _grid(g, 7, first, last)
        yield Case(name, (video(g, paths), _brownian(times, video(g, 7, paths)), times, schedule))


def _solution(z: Tensor, w: Tensor, times: Tensor, schedule: Schedule) -> Tensor:
    weight = schedule.diffusion(times) / schedule.alpha(times)
    rows = []
    for k, alpha in enumerate(schedule.alpha(times)):
        rows.append(alpha * z / schedule.alpha(times[0]) + alpha * (weight[:k] @ w[: k + 1].diff(dim=0)))
    return torch.stack(rows)


def _variant(sums: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """sums: (alpha, g, dw, z) -> the answer; alpha and g are (n + 1, 1)."""

    def answer(z: Tensor, w: Tensor, times: Tensor, schedule: Schedule) -> Tensor:
        return sums(schedule.alpha(times)[:, None], schedule.diffusion(times)[:, None], w.diff(dim=0), z)

    return answer


def _integral(weight: Tensor, dw: Tensor) -> Tensor:
    return _path(weight[:-1] * dw)


solution_along_a_path = Check(
    "solution_along_a_path",
    _solution,
    _solution_cases,
    [
        Wrong(
            _variant(lambda a, g, dw, z: a * (z / a[0] + _path((g / a)[1:] * dw))),
            "you read g/α at the right end of each step; Itô's sums read it at the left end.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * (z / a[0] + _path(((g / a)[1:] + (g / a)[:-1]) / 2 * dw))),
            "you average g/α over both ends of a step; that is not Itô's convention.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * z / a[0] + _integral(g, dw)),
            "your noise never fades: what arrived early has been scaled by the drift ever since, as the signal has.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * z / a[0] + a * _integral(g, dw)),
            "noise that arrives at τ fades only from τ on; yours fades as if all of it had been there from time 0.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * (z + _integral(g / a, dw))),
            "you scale the start by α_t, but at the first time z has faded already; only what came after counts.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: a * (z / a[0] + torch.cat([0 * dw[:1], (g / a)[:-1] * dw]))),
            "your integral holds the last step alone; it runs over all steps up to t.",
        ),
        Wrong(
            _variant(lambda a, g, dw, z: z / a[0] + _integral(g / a, dw)),
            "this is y = z/α of the derivation; multiply by α at the same time to have z again.",
        ),
    ],
)
