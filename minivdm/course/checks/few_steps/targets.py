"""Checks of exercises 15.2, 15.3 and 15.5: what a student is told, and what a mistake costs it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule
from minivdm.course.checks.harness import (
    FLOATS,
    Case,
    Check,
    Counted,
    Wrong,
    generator,
    name_of,
    per_sample,
    uniform,
    video,
)

SHORT, LINEAR = CosineSchedule(-5.0, 5.0), LinearSchedule()  # noise of e^-2.5 at t = 0: who forgets it is seen
QUARTER = math.pi / 2


# ---- the target in x -----------------------------------------------------------------------------------------


def _pair(phi: Tensor) -> tuple[Tensor, Tensor]:
    return phi.cos(), phi.sin()


def _target_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        phi, psi = uniform(g, 0.9, 1.4, 3).to(dtype), uniform(g, 0.2, 0.7, 3).to(dtype)
        z, after = video(g, 3, 1, 2, 4, 3, dtype=dtype), video(g, 3, 1, 2, 4, 3, dtype=dtype)
        yield Case(f"{name_of(dtype)}, three clips, times of their own", (z, after, *_pair(phi), *_pair(psi)))
    phi, psi = uniform(g, 0.9, 1.4, 4), uniform(g, 0.2, 0.7, 4)
    yield Case("points of a plane", (video(g, 4, 2), video(g, 4, 2), *_pair(phi), *_pair(psi)))
    one, zero = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    yield Case("from pure noise to data", (video(g, 2, 1, 1, 3, 3), video(g, 2, 1, 1, 3, 3), zero, one, one, zero))
    scales = torch.tensor([2.0, 3.0], dtype=torch.float64)
    exploding = (one, scales, one, scales / 4)
    yield Case("variance exploding", (video(g, 2, 1, 1, 3, 3), video(g, 2, 1, 1, 3, 3), *exploding))


def _target(
    z: Tensor,
    after: Tensor,
    alpha_t: Tensor,
    sigma_t: Tensor,
    alpha_s: Tensor,
    sigma_s: Tensor,
    slip: str = "",
) -> Tensor:
    a, b, c, d = (per_sample(value, z) for value in (alpha_t, sigma_t, alpha_s, sigma_s))
    ratio = b / d if slip == "upside down" else d / b
    if slip == "DDIM":
        return c * after + ratio * (z - a * after)
    if slip == "signal":
        return (after - ratio * z) / c
    if slip == "undivided":
        return after - ratio * z
    if slip == "all noise":
        return (after - d * z) / (c - d * a)
    if slip == "sign":
        return (after - ratio * z) / (c + ratio * a)
    if slip == "end":
        return after
    return (after - ratio * z) / (c - ratio * a)


def _slipped(slip: str) -> Callable[..., Tensor]:
    return functools.partial(_target, slip=slip)


target_x = Check(
    "target_x",
    _target,
    _target_cases,
    [
        Wrong(_slipped("DDIM"), "you take a DDIM step along `after`; asked is the estimate whose step ends there."),
        Wrong(
            _slipped("upside down"),
            "your ratio of the sigmas is upside down: a step leaves sigma_s / sigma_t of the noise.",
        ),
        Wrong(
            _slipped("signal"), "you divide by alpha_s alone; the estimate is also in the noise (z − alpha x) / sigma."
        ),
        Wrong(_slipped("undivided"), "the divisor of (15.2) is missing."),
        Wrong(_slipped("all noise"), "you keep sigma_s of z itself, not sigma_s / sigma_t of it."),
        Wrong(
            _slipped("sign"),
            "the sign in your divisor is wrong: what z has of the signal is taken away with the noise.",
        ),
        Wrong(_slipped("end"), "you return the walk's end; it is the target only where no noise is left at s."),
    ],
)


# ---- the loss ------------------------------------------------------------------------------------------------


def _loss_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        phi, psi = uniform(g, 0.85, 1.4, 3).to(dtype), uniform(g, 0.1, 0.6, 3).to(dtype)
        phi[0], psi[0] = 0.5, 0.2  # more signal than noise
        clips = (video(g, 3, 1, 2, 3, 4, dtype=dtype) for _ in range(3))
        yield Case(f"{name_of(dtype)}, three clips at several levels", (*clips, phi, psi))
    points = (video(g, 4, 2) for _ in range(3))
    yield Case("points, near data", (*points, uniform(g, 0.4, 0.7, 4), uniform(g, 0.1, 0.3, 4)))
    ends = torch.tensor([QUARTER, QUARTER], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    yield Case("from pure noise", (*(video(g, 2, 1, 1, 2, 2) for _ in range(3)), *ends))


def _loss(
    v_hat: Tensor,
    z: Tensor,
    after: Tensor,
    phi: Tensor,
    psi: Tensor,
    weight: Callable[[Tensor, Tensor], Tensor] = lambda a, b: torch.maximum(a, b),
    turn: Callable[[Tensor, Tensor], Tensor] = lambda phi, psi: psi - phi,
    total: Callable[[Tensor], Tensor] = lambda e: e.mean(1),
) -> Tensor:
    """weight: of signal^2 and noise^2, on the error of v."""
    angle = per_sample(turn(phi, psi), z)
    goal = after / angle.sin() - z / angle.tan()
    return weight(phi.cos().square(), phi.sin().square()) * total((goal - v_hat).square().flatten(1))


def _but(**changes: Any) -> Callable[..., Tensor]:
    return lambda *given: _loss(*given, **changes)


student_loss = Check(
    "student_loss",
    _loss,
    _loss_cases,
    [
        Wrong(
            _but(weight=lambda a, b: torch.maximum(a / b, torch.ones_like(a))),
            "your weight is that on the error of x; an error of v is sigma times as large in x.",
        ),
        Wrong(_but(weight=lambda a, b: a), "your weight is e^λ on the error of x: at t = 1 nothing would be learnt."),
        Wrong(_but(weight=lambda a, b: torch.ones_like(a)), "your loss has no weight."),
        Wrong(_but(weight=lambda a, b: torch.minimum(a, b)), "you take the smaller of e^λ and 1, not the larger."),
        Wrong(
            _but(turn=lambda phi, psi: phi - psi),
            "you turn the wrong way: the step goes by psi − phi, which is negative.",
        ),
        Wrong(_but(total=lambda e: e.sum(1)), "you add up over a clip's values; the loss is their mean."),
        Wrong(
            lambda *given: _loss(*given).mean(),
            "you average over the batch; each clip keeps its own loss here.",
        ),
        Wrong(
            lambda *given: _loss(*given).sqrt(),
            "your loss is a root; the error is squared.",
        ),
    ],
)


# ---- a guided teacher ----------------------------------------------------------------------------------------


class _Asked:
    """(z, t) -> an estimate that is not linear in z, and another one at each time."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def __call__(self, z: Tensor, t: float) -> Tensor:
        return torch.tanh(0.8 * z + self.shift * (1 + float(t)))


def _guided_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    w, t, s = float(uniform(g, 1, 3)), float(uniform(g, 0.7, 0.9)), float(uniform(g, 0.2, 0.4))
    teachers = _Asked(0.7), _Asked(-0.2)
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, w = {w:.2f}", (*teachers, video(g, dtype=dtype), w, t, s, SHORT))
    yield Case("a step that ends in data", (*teachers, video(g), w, t / 2, 0.0, SHORT))
    yield Case("the only step of a student of one", (*teachers, video(g, 4, 2), w, 1.0, 0.0, SHORT))
    yield Case("w = 0, another schedule", (*teachers, video(g, 1, 1, 1, 3, 3), 0.0, t, s, LINEAR))


def _scales(schedule: Schedule, t: float, z: Tensor, clean: bool = True) -> tuple[Tensor, Tensor]:
    one = torch.tensor(t, dtype=torch.float64)
    if t == 0 and clean:
        return torch.ones((), dtype=z.dtype), torch.zeros((), dtype=z.dtype)
    return schedule.alpha(one).to(z), schedule.sigma(one).to(z)


@dataclass(frozen=True)
class _Slip:
    """What a student may get wrong about the target; by default nothing."""

    mix: Callable[[Tensor, Tensor, float, int], Tensor] = lambda c, u, w, k: c + w * (c - u)
    clean: bool = True
    stale: bool = False
    steps: int = 2
    end: str = "x"


NO_SLIP = _Slip()


def _guided(
    asked: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    z: Tensor,
    w: float,
    t: float,
    s: float,
    schedule: Schedule,
    *,
    slip: _Slip = NO_SLIP,
) -> Tensor:
    now, here, x = t, z, z
    for k in range(slip.steps):
        then = s if k + 1 == slip.steps else (t + s) / 2
        at = t if slip.stale else now
        x = slip.mix(asked(here, at), plain(here, at), w, k)
        (a, b), (c, d) = _scales(schedule, now, z), _scales(schedule, then, z, slip.clean)
        here, now = c * x + d * (here - a * x) / b, then
    if slip.end == "after":
        return here
    if slip.end == "last":
        return x
    (a, b), (c, d) = _scales(schedule, t, z), _scales(schedule, s, z, slip.clean)
    return (b * here - d * z) / (b * c - d * a)


def _guided_but(**changes: Any) -> Callable[..., Tensor]:
    return lambda *given: _guided(*given, slip=_Slip(**changes))


def _both_counted(
    answer: Callable[..., Any], asked: Callable[..., Tensor], plain: Callable[..., Tensor], *given: Any
) -> dict[str, Any]:
    """A probe: gradients are off, and the calls of both teachers are counted."""
    one, other = Counted(asked), Counted(plain)
    with torch.no_grad():
        found = answer(one, other, *given)
    return {"": found, "calls with the condition": one.calls, "calls without it": other.calls}


guided_target = Check(
    "guided_target",
    _guided,
    _guided_cases,
    [
        Wrong(_guided_but(mix=lambda c, u, w, k: c), "your teacher is not guided: where is w?"),
        Wrong(
            _guided_but(mix=lambda c, u, w, k: u + w * (c - u)),
            "your w is 1 without guidance; in (15.6) w = 0 gives the conditional estimate.",
        ),
        Wrong(
            _guided_but(mix=lambda c, u, w, k: c if k else c + w * (c - u)),
            "you guide the first of the two steps alone; the teacher is guided in both.",
        ),
        Wrong(
            _guided_but(steps=1),
            "you use the teacher's first estimate alone; two steps along it are one. Ask again in the middle.",
        ),
        Wrong(
            _guided_but(stale=True), "your second question has the first one's time; in the middle it is (t + s) / 2."
        ),
        Wrong(_guided_but(clean=False), "at s = 0 you keep the schedule's last noise; there alpha is 1 and sigma 0."),
        Wrong(
            _guided_but(end="after"),
            "you return where the walk ends; asked is the estimate that leads there in one step.",
        ),
        Wrong(_guided_but(end="last"), "you return the teacher's last estimate; it is the target only where s = 0."),
    ],
    probe=_both_counted,
)
