"""Check of exercise 02.7, with pen: at which log-SNR training spends its time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm.core import CosineSchedule
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform


def _density_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, 64 pixels a side, cut at -3 and 2",
            (uniform(g, -3.5, 0.0, 8).to(dtype), -3.0, 2.0, 64, 32),
        )
    yield Case("the base size, cut at -20 and 20", (uniform(g, -8, 8, 2, 4), -20.0, 20.0, 32, 32))
    yield Case(
        "beyond both ends, 128 pixels a side",
        (torch.linspace(-20, 20, 17, dtype=torch.float64) + 0.1 * uniform(g, -1, 1), -6.0, 7.0, 128, 32),
    )
    yield Case("a small frame", (uniform(g, -2.0, 4.0, 5), -2.0, 4.0, 16, 24))
    yield Case("exactly at both ends", (torch.tensor([-2.0, 4.0], dtype=torch.float64), -2.0, 4.0, 32, 32))


def _density(log_snr: Tensor, log_snr_min: float, log_snr_max: float, size: int, base: int) -> Tensor:
    schedule = CosineSchedule.for_size(size, base, log_snr_min, log_snr_max)
    t = schedule.time(log_snr).clamp(0, 1)
    unshifted = log_snr.double() - schedule.shift
    inside = (log_snr_min <= unshifted) & (unshifted <= log_snr_max)
    return torch.where(inside, -1 / schedule._slope(t), 0.0).to(log_snr.dtype)


def _bell(
    shift: Callable[[float], float] = lambda ratio: 2 * math.log(ratio),
    factor: float = 1.0,
    whole: bool = False,
    cut: bool = True,
    unmoved: bool = False,
) -> Callable[..., Tensor]:
    """The density with something changed.

    shift: of base / size; whole: angles from 0 to pi / 2; cut: 0 outside; unmoved: of the range before the shift.
    """

    def answer(log_snr: Tensor, low: float, high: float, size: int, base: int) -> Tensor:
        span = math.pi / 2 if whole else math.atan(math.exp(-low / 2)) - math.atan(math.exp(-high / 2))
        u = log_snr - shift(base / size)
        density = factor / (4 * span * torch.cosh(u / 2))
        where = log_snr if unmoved else u
        return torch.where((low <= where) & (where <= high), density, 0.0) if cut else density

    return answer


cosine_density = Check(
    "cosine_density",
    _density,
    _density_cases,
    [
        Wrong(
            _bell(whole=True),
            "your angle runs from 0 to π/2; the truncated schedule spends all its time on a part of that.",
        ),
        Wrong(_bell(cut=False), "λ never leaves the truncated range, so its density is 0 outside; yours goes on."),
        Wrong(
            _bell(lambda ratio: -2 * math.log(ratio)),
            "your shift has the wrong sign: larger frames need more noise, a lower λ at every t.",
        ),
        Wrong(
            _bell(math.log),
            "your shift is half of what it should be: averaging n × n pixels divides the noise's variance by n².",
        ),
        Wrong(
            _bell(lambda ratio: 0.0),
            "your density does not depend on the frame size; by (2.18) all of λ moves, and the range of λ with it.",
        ),
        Wrong(
            _bell(factor=2.0),
            "your density is twice too large: it should integrate to 1. Did you differentiate the exponent λ/2?",
        ),
        Wrong(
            _bell(unmoved=True),
            "your bell is right, but cut at the ends before the shift: the range of λ moves along with it.",
        ),
    ],
)
