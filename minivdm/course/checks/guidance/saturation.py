"""Checks of exercises 07.5 and 07.6: guidance that does not saturate, rescaled and projected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, per_sample, uniform, video

# ---- rescaling -----------------------------------------------------------------------------------------------


def _rescale_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    phi = float(uniform(g, 0.55, 0.9))
    for dtype in FLOATS:
        x_c = video(g, 3, 2, 3, 4, 4, dtype=dtype)
        x_c = x_c * per_sample(torch.tensor([0.4, 0.7, 1.0], dtype=dtype), x_c) - 0.3
        x_w = 2 * x_c + video(g, 3, 2, 3, 4, 4, dtype=dtype)
        yield Case(f"{name_of(dtype)}, clips of 3 frames in two channels", (x_w, x_c, phi))
    x_w, x_c = video(g, 4, 6) + 1, video(g, 4, 6) - 1
    yield Case("points, phi = 1", (x_w, x_c, 1.0))
    yield Case("points, phi = 0", (x_w, x_c, 0.0))
    yield Case("one clip of one frame", (3 * video(g, 1, 1, 1, 4, 4), video(g, 1, 1, 1, 4, 4), phi))


def _spread(x: Tensor) -> Tensor:
    return per_sample(x.flatten(1).var(1).sqrt(), x)


def _rescaled(ratio: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x_w, x_c, phi: x_w * (1 + phi * (ratio(x_w, x_c) - 1))


def _frame_std(x: Tensor) -> Tensor:
    return x.std(dim=tuple(range(max(1, x.ndim - 2), x.ndim)), keepdim=True)


rescaled = Check(
    "rescaled",
    _rescaled(lambda x_w, x_c: _spread(x_c) / _spread(x_w)),
    _rescale_cases,
    [
        Wrong(
            _rescaled(lambda x_w, x_c: x_c.std() / x_w.std()),
            "your standard deviations are of the whole batch: each sample has a ratio of its own.",
        ),
        Wrong(
            _rescaled(lambda x_w, x_c: _frame_std(x_c) / _frame_std(x_w)),
            "your standard deviations are of single frames; the ratio is one number for all of a sample.",
        ),
        Wrong(
            _rescaled(lambda x_w, x_c: _spread(x_w) / _spread(x_c)),
            "your ratio is upside down: the guided estimate is the one that has become too large.",
        ),
        Wrong(
            _rescaled(lambda x_w, x_c: per_sample(x_c.flatten(1).norm(dim=1) / x_w.flatten(1).norm(dim=1), x_w)),
            "you compare root mean squares; a standard deviation is taken around the sample's own mean.",
        ),
        Wrong(
            lambda x_w, x_c, phi: x_w * (phi + (1 - phi) * _spread(x_c) / _spread(x_w)),
            "phi = 1 should be the rescaled estimate and phi = 0 the plain one: you have them exchanged.",
        ),
    ],
)


# ---- projected guidance --------------------------------------------------------------------------------------


def _projected_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    eta, w = float(uniform(g, 0.2, 0.6)), float(uniform(g, 1.5, 4.0))
    sizes = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    for dtype in FLOATS:
        x_c = video(g, 3, 1, 3, 4, 4, dtype=dtype).tanh() - 0.4
        x_u = (x_c + per_sample(sizes, x_c) * (0.4 * x_c + video(g, 3, 1, 3, 4, 4, dtype=dtype))).to(dtype)
        yield Case(f"{name_of(dtype)}, clips that differ a little, more, and most; radius 4", (x_c, x_u, w, eta, 4.0))
    pair = video(g, 4, 10), video(g, 4, 10)
    yield Case("points, eta = 0, no radius", (*pair, w, 0.0, math.inf))
    yield Case("points, eta = 1, no radius", (*pair, w, 1.0, math.inf))
    yield Case("points, w = 0", (*pair, 0.0, eta, 1.0))
    yield Case("one clip of one frame, a small radius", (*(video(g, 1, 1, 1, 4, 4) for _ in range(2)), w, eta, 0.5))
    yield Case("both estimates agree", (pair[0], pair[0].clone(), w, eta, 1.0))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return per_sample((a * b).flatten(1).sum(1), a)


def _shortened(push: Tensor, radius: float) -> Tensor:
    return push * (radius / _dot(push, push).sqrt().clamp(min=1e-30)).clamp(max=1.0)


def _along(push: Tensor, line: Tensor) -> Tensor:
    return _dot(push, line) / _dot(line, line) * line


def _projected(x_c: Tensor, x_u: Tensor, w: float, eta: float, radius: float) -> Tensor:
    push = _shortened(x_c - x_u, radius)
    return x_c + w * (push - (1 - eta) * _along(push, x_c))


def _pushed(push: Callable[..., Tensor], along: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """push: (difference, radius) -> what is added; along: (push, x_c, x_u) -> its part along an estimate."""

    def answer(x_c: Tensor, x_u: Tensor, w: float, eta: float, radius: float) -> Tensor:
        change = push(x_c - x_u, radius)
        return x_c + w * (change - (1 - eta) * along(change, x_c, x_u))

    return answer


def _exchanged(x_c: Tensor, x_u: Tensor, w: float, eta: float, radius: float) -> Tensor:
    push = _shortened(x_c - x_u, radius)
    return x_c + w * (eta * push + (1 - eta) * _along(push, x_c))


def _on_c(push: Tensor, x_c: Tensor, x_u: Tensor) -> Tensor:
    return _along(push, x_c)


projected = Check(
    "projected",
    _projected,
    _projected_cases,
    [
        Wrong(
            _pushed(lambda d, r: d, _on_c),
            "your difference may be as long as it likes: where it is longer than the radius, it is shortened to it.",
        ),
        Wrong(
            _pushed(lambda d, r: d * min(1.0, r / max(float(d.norm()), 1e-30)), _on_c),
            "your length is that of the whole batch: each sample's difference has one of its own.",
        ),
        Wrong(
            _pushed(lambda d, r: d * min(r, 1e30) / _dot(d, d).sqrt().clamp(min=1e-30), _on_c),
            "you lengthen short differences as well: the radius is an upper limit.",
        ),
        Wrong(
            _pushed(lambda d, r: d.clamp(-r, r), _on_c),
            "you clip the values of the difference, which turns it; it is to be shortened as a whole.",
        ),
        Wrong(
            _pushed(_shortened, lambda d, x_c, x_u: _along(d, x_u)),
            "you project on the unconditional estimate; the direction that saturates is that of the conditional one.",
        ),
        Wrong(
            _pushed(_shortened, lambda d, x_c, x_u: _dot(d, x_c) * x_c),
            "your projection is not divided by the squared length of the estimate.",
        ),
        Wrong(
            _pushed(_shortened, lambda d, x_c, x_u: _dot(d, x_c) / _dot(x_c, x_c).sqrt() * x_c),
            "your projection is divided by the length of the estimate; a length enters once for each factor, squared.",
        ),
        Wrong(
            _pushed(_shortened, lambda d, x_c, x_u: (d * x_c).sum() / x_c.square().sum() * x_c),
            "your projection runs over the whole batch: each sample has a line of its own.",
        ),
        Wrong(
            _exchanged,
            "you have the two parts exchanged: eta belongs to the part along the estimate, the other counts in full.",
        ),
        Wrong(
            lambda x_c, x_u, w, eta, r: _projected(x_c, x_u, w - 1, eta, r),
            'your w is the "guidance scale" of papers, 1 without guidance; here w = 0 gives the conditional estimate.',
        ),
        Wrong(
            lambda x_c, x_u, w, eta, r: _projected(x_c, x_u, w, eta, r) - x_c + x_u,
            "you begin from the unconditional estimate; what is added belongs to the conditional one.",
        ),
    ],
)
