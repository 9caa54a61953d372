"""Checks of exercises 15.1, 15.4 and 15.6: where a student is asked, and what it makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Counted, Wrong, generator, name_of, uniform, video

QUARTER = math.pi / 2


# ---- the times of a student ----------------------------------------------------------------------------------


def _times_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    yield Case("a student of 4 steps, 12 numbers", (uniform(g, 0, 1, 12), 4))
    yield Case("of 32 steps, in a table", (uniform(g, 0, 1, 3, 5), 32))
    yield Case("of one step", (uniform(g, 0, 1, 4), 1))
    ends = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    yield Case("of 4 steps, numbers at the borders, 0 and 1 among them", (ends, 4))


def _times(
    u: Tensor,
    steps: int,
    up: Callable[[Tensor], Tensor] = lambda k: k.floor() + 1,
    back: tuple[float, float] = (0.5, 1.0),
    most: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    k = up(u * steps)
    k = k.clamp(max=steps) if most else k
    return k / steps, (k - back[0]) / steps, (k - back[1]) / steps


walk_times = Check(
    "walk_times",
    _times,
    _times_cases,
    [
        Wrong(
            lambda u, n: _times(u, n, torch.floor),
            "your first time can be 0, where nothing is left to do, and is never 1.",
        ),
        Wrong(
            lambda u, n: _times(u, n, torch.round),
            "you round; each of the N times has to get an equal share of [0, 1].",
        ),
        Wrong(lambda u, n: (u, u - 0.5 / n, u - 1 / n), "you do not bring u onto the N times that the student knows."),
        Wrong(lambda u, n: _times(u, n, most=False), "u = 1 leads beyond the last time: it belongs to the N-th part."),
        Wrong(
            lambda u, n: _times(u, n, back=(1.0, 2.0)),
            "your teacher takes two steps of 1/N; both together are as long as one step of the student.",
        ),
        Wrong(lambda u, n: _times(u, n)[::-1], "your times are in the other order: noisier first."),
        Wrong(
            lambda u, n: _times(u, n, torch.ceil), "at a border, and at u = 0, the part above counts: floor, plus one."
        ),
    ],
)


# ---- consistency ---------------------------------------------------------------------------------------------


def _noises(g: torch.Generator, n: int, *shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [video(g, *shape, dtype=dtype) for _ in range(n)]


def _bent(z: Tensor, phi: float) -> Tensor:
    """A network of sorts: not linear, and another one at each angle."""
    return torch.sin(1.3 * z) + math.cos(2 * phi) * z.tanh()


def _sampling_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    high, low = float(uniform(g, 1.0, 1.3)), float(uniform(g, 0.3, 0.7))
    for dtype in FLOATS:
        noises = _noises(g, 3, 2, 1, 3, 2, 2, dtype=dtype)
        yield Case(f"{name_of(dtype)}, three calls", (_bent, noises, [QUARTER, high, low]))
    yield Case("one call", (_bent, _noises(g, 1, 3, 2), [QUARTER]))
    yield Case("four calls, the first not from pure noise", (_bent, _noises(g, 4, 5), [1.4, high, 0.9, low]))


def _sampled(
    network: Callable[..., Tensor],
    noises: Sequence[Tensor],
    angles: Sequence[float],
    end: Callable[[Tensor, Tensor, float], Tensor] = lambda z, v, phi: math.cos(phi) * z - math.sin(phi) * v,
    renew: str = "fresh",
) -> Tensor:
    z = noises[0]
    for k, phi in enumerate(angles):
        v = network(z, phi)
        x = end(z, v, phi)
        if k + 1 == len(angles):
            return x if renew != "noisy end" else math.cos(phi) * x + math.sin(phi) * noises[k]
        psi = angles[k + 1]
        said = math.sin(phi) * z + math.cos(phi) * v
        noise = {"DDIM": said, "first": noises[0]}.get(renew, noises[k + 1])
        if renew == "unscaled":
            z = x + math.sin(psi) * noise
        elif renew == "exchanged":
            z = math.sin(psi) * x + math.cos(psi) * noise
        elif renew == "late":
            z = math.cos(phi) * x + math.sin(phi) * noise
        else:
            z = math.cos(psi) * x + math.sin(psi) * noise
    raise AssertionError("no angles")


def _renewed(**changes: Any) -> Callable[..., Tensor]:
    return lambda *given: _sampled(*given, **changes)


def _counted(answer: Callable[..., Any], network: Callable[..., Tensor], *given: Any) -> dict[str, Any]:
    counted = Counted(network)
    return {"": answer(counted, *given), "calls of the network": counted.calls}


consistency_sample = Check(
    "consistency_sample",
    _sampled,
    _sampling_cases,
    [
        Wrong(
            _renewed(renew="DDIM"),
            "you go on with the noise that the network saw, as DDIM does; each call has fresh noise.",
        ),
        Wrong(_renewed(renew="first"), "you take the first noise every time; each call has one of its own."),
        Wrong(
            _renewed(renew="unscaled"), "your renewed clip keeps the end at full size; at psi the signal has cos(psi)."
        ),
        Wrong(_renewed(renew="exchanged"), "sine and cosine are exchanged where you renew the noise."),
        Wrong(_renewed(renew="late"), "you renew the noise at the angle that was asked before, not at the next one."),
        Wrong(_renewed(renew="noisy end"), "you renew the noise after the last call too; its end is the clip."),
        Wrong(_renewed(end=lambda z, v, phi: v), "you take the network's answer for the end; it is v."),
        Wrong(
            _renewed(end=lambda z, v, phi: math.cos(phi) * z + math.sin(phi) * v),
            "x = cos(phi) z − sin(phi) v: check the sign.",
        ),
    ],
    probe=_counted,
)


# ---- a student that can be written down ----------------------------------------------------------------------


def _affine_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    kappa = torch.cat([uniform(g, 0.05, 0.9, 2), torch.ones(1).double(), uniform(g, 2, 9, 2)])
    yield Case("two steps of the teacher", (kappa, torch.tensor([1.3, 0.9, 0.4], dtype=torch.float64)))
    yield Case("five steps, uneven", (kappa, torch.tensor([1.5, 1.1, 1.0, 0.6, 0.3, 0.1], dtype=torch.float64)))
    yield Case("64 steps from noise to data", (kappa, torch.linspace(QUARTER, 0, 65, dtype=torch.float64)))
    yield Case("one step", (kappa, torch.tensor([1.2, 0.7], dtype=torch.float64)))


def _affine(kappa: Tensor, angles: Tensor, slip: str = "") -> Tensor:
    """c_N, or one with a slip: the teacher's own map, from the exact estimate of x."""
    gain = torch.ones_like(kappa)
    for phi, psi in zip(angles[:-1], angles[1:], strict=True):
        at = angles[0] if slip == "first" else phi
        x = at.cos() * kappa / (kappa * at.cos() ** 2 + at.sin() ** 2)  # x_hat of z = 1
        v = x if slip == "x" else (at.cos() - x) / at.sin()
        turn = phi - psi if slip == "turn" else psi - phi
        step = turn.cos() + turn.sin() * v
        gain = gain + step - 1 if slip == "sum" else gain * step
    whole = angles[-1] - angles[0]
    if slip == "gain":
        return gain
    if slip == "target x":
        return angles[0].cos() - angles[0].sin() * (gain - whole.cos()) / whole.sin()
    if slip == "last":
        whole = angles[-1] - angles[-2]
    if slip == "teacher":
        phi = angles[0]
        return phi.sin() * phi.cos() * (1 - kappa) / (kappa * phi.cos() ** 2 + phi.sin() ** 2)
    return (gain - whole.cos()) / whole.sin()


def _affine_but(slip: str) -> Callable[..., Tensor]:
    return lambda kappa, angles: _affine(kappa, angles, slip)


student_coefficient = Check(
    "student_coefficient",
    _affine,
    _affine_cases,
    [
        Wrong(
            _affine_but("gain"),
            "you return what the teacher's steps multiply by; asked is the coefficient of v that does it.",
        ),
        Wrong(_affine_but("teacher"), "you return the teacher's own coefficient, that of infinitely short steps."),
        Wrong(_affine_but("first"), "every step of your teacher has the coefficient of the first angle."),
        Wrong(_affine_but("sum"), "you add the steps up; one after the other, they multiply."),
        Wrong(
            _affine_but("turn"),
            "your teacher turns away from the data: each step goes by psi − phi, which is negative.",
        ),
        Wrong(_affine_but("last"), "the student's step is the whole way, from the first angle to the last."),
        Wrong(_affine_but("x"), "your c is that of x_hat = c z; the steps of (15.5) have that of v."),
        Wrong(_affine_but("target x"), "you return the coefficient of x; asked is that of v."),
    ],
)
