"""Checks of exercises 05.1, 05.2 and 05.6: the names of a prediction, and the way from one to another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import gaussian
from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, uniform, video
from minivdm.course.checks.parameterization.levels import COSINE, NAMES, SUB_VP, VE, numbers, scales_at

# ---- turning -----------------------------------------------------------------------------------------------------


def _turn_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    low, high = uniform(g, 0.2, 0.5).item(), uniform(g, 0.9, 1.3).item()
    for dtype in FLOATS:
        z, v = video(g, dtype=dtype), video(g, dtype=dtype)
        yield Case(f"{name_of(dtype)}, to a cleaner level", (z, v, *numbers(high, low, dtype=dtype)))
    yield Case("points of a plane, to a noisier level", (video(g, 6, 2), video(g, 6, 2), *numbers(low, high)))
    yield Case("one frame, to the clean end", (video(g, 1, 1, 1, 3, 3), video(g, 1, 1, 1, 3, 3), *numbers(high, 0.0)))
    yield Case("from end to end", (video(g, 2, 3), video(g, 2, 3), *numbers(0.0, math.pi / 2)))
    yield Case("no turn at all", (video(g, 2, 3), video(g, 2, 3), *numbers(low, low)))


def _turned(z: Tensor, v: Tensor, phi: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    x, eps = phi.cos() * z - phi.sin() * v, phi.sin() * z + phi.cos() * v
    return other.cos() * x + other.sin() * eps, other.cos() * eps - other.sin() * x


def _by(
    angle: Callable[[Tensor, Tensor], Tensor] = lambda phi, other: other - phi,
    velocity: Callable[..., Tensor] = lambda z, v, c, s: c * v - s * z,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """angle: (phi, other) -> the turn; velocity: (z, v, cos, sin) -> the new v."""

    def answer(z: Tensor, v: Tensor, phi: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        c, s = angle(phi, other).cos(), angle(phi, other).sin()
        return c * z + s * v, velocity(z, v, c, s)

    return answer


turned = Check(
    "turned",
    _turned,
    _turn_cases,
    [
        Wrong(
            _by(lambda phi, other: phi - other),
            "you turn the wrong way: to a noisier level the angle grows, and z moves along v.",
        ),
        Wrong(
            _by(lambda phi, other: other),
            "you turn by the new angle; z is already at the old one, so how far is it still to go?",
        ),
        Wrong(
            _by(velocity=lambda z, v, c, s: v),
            "your z is right, but v turns along with it: (5.5) at the new angle gives another v.",
        ),
        Wrong(
            _by(velocity=lambda z, v, c, s: c * v + s * z),
            "your z is right, but v is turned the wrong way: a turn keeps |z|² + |v|², yours does not.",
        ),
        Wrong(
            _by(velocity=lambda z, v, c, s: c * v - s * (c * z + s * v)),
            "you overwrite z before you compute v: both results are made of the *old* z and v.",
        ),
        Wrong(
            _by(velocity=lambda z, v, c, s: s * z - c * v),
            "your z is right, but your v points the other way; with no turn at all it must stay what it is.",
        ),
    ],
)


# ---- twelve conversions ------------------------------------------------------------------------------------------


def _convert_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    times = uniform(g, 0.25, 0.45, 3).tolist()
    pairs = [(a, b) for a in NAMES for b in NAMES if a != b]
    for given, wanted in pairs:
        yield Case(f"from {given} to {wanted}", (video(g), video(g), *scales_at(SUB_VP, times[0]), given, wanted))
    yield Case("from v to v", (video(g, 3, 2), video(g, 3, 2), *scales_at(SUB_VP, times[1]), "v", "v"))
    yield Case(
        "variance exploding, from v to score",
        (video(g, 1, 3, 1, 2, 2), video(g, 1, 3, 1, 2, 2), *scales_at(VE, 1 - times[1]), "v", "score"),
    )
    yield Case(
        "float32, cosine, from score to v",
        (
            video(g, dtype=torch.float32),
            video(g, dtype=torch.float32),
            *scales_at(COSINE, times[2], torch.float32),
            "score",
            "v",
        ),
    )


def _convert(prediction: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor, given: str, wanted: str) -> Tensor:
    if given == wanted:
        return prediction.clone()
    return getattr(gaussian, f"{wanted}_from_{given}")(z, prediction, alpha, sigma)


def _hub(
    enter: Callable[..., dict[str, Tensor]] = lambda *_: {}, leave: Callable[..., dict[str, Tensor]] = lambda *_: {}
) -> Callable[..., Tensor]:
    """Through x and eps. enter: (prediction, z, alpha, sigma) -> x by given name; leave: (x, eps, alpha, sigma) -> what
    is returned by wanted name; each where it differs from the right one."""

    def answer(p: Tensor, z: Tensor, a: Tensor, s: Tensor, given: str, wanted: str) -> Tensor:
        x = (
            {"x": p, "eps": (z - s * p) / a, "v": (a * z - s * p) / (a**2 + s**2), "score": (z + s**2 * p) / a}
            | enter(p, z, a, s)
        )[given]
        eps = (z - a * x) / s
        return ({"x": x, "eps": eps, "v": a * eps - s * x, "score": -eps / s} | leave(x, eps, a, s))[wanted]

    return answer


convert = Check(
    "convert",
    _convert,
    _convert_cases,
    [
        Wrong(
            _hub(lambda p, z, a, s: {"v": a * z - s * p}),
            "your way back from v holds where α² + σ² = 1; see step 1 above (5.2) for the factor that is missing.",
        ),
        Wrong(
            _hub(lambda p, z, a, s: {"score": (z - s**2 * p) / a}, lambda x, e, a, s: {"score": e / s}),
            "the sign of your score is wrong: the density rises towards less noise.",
        ),
        Wrong(
            _hub(lambda p, z, a, s: {"score": (z + s * p) / a}, lambda x, e, a, s: {"score": -e}),
            "your score is minus eps; see (5.1) for what it is divided by.",
        ),
        Wrong(
            _hub(lambda p, z, a, s: {"v": (a * z + s * p) / (a**2 + s**2)}, lambda x, e, a, s: {"v": s * x - a * e}),
            "your v points the other way: as the noise is turned up, v adds noise and removes signal.",
        ),
        Wrong(
            _hub(lambda p, z, a, s: {"eps": z - s * p, "score": z + s**2 * p}),
            "what is left of z without its noise is α x, not yet x.",
        ),
        Wrong(
            _hub(leave=lambda x, e, a, s: {"eps": s * e, "v": a * s * e - s * x, "score": -e}),
            "what is left of z without its signal is σ eps, not yet eps.",
        ),
    ],
)


# ---- any velocity, with pen --------------------------------------------------------------------------------------


def _velocity_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t = uniform(g, 0.2, 0.45).item()
    for dtype in FLOATS:
        yield Case(
            f"{name_of(dtype)}, flow matching",
            (video(g, dtype=dtype), video(g, dtype=dtype), *numbers(1 - t, t, -1.0, 1.0, dtype=dtype)),
        )
    yield Case(
        "flow matching, t = 1, one frame",
        (video(g, 1, 1, 1, 3, 3), video(g, 1, 1, 1, 3, 3), *numbers(0.0, 1.0, -1.0, 1.0)),
    )
    angle, speed = t * math.pi / 2, math.pi / 2
    yield Case(
        "cosine, time from 0 to 1",
        (
            video(g, 6, 2),
            video(g, 6, 2),
            *numbers(math.cos(angle), math.sin(angle), -speed * math.sin(angle), speed * math.cos(angle)),
        ),
    )
    yield Case(
        "variance exploding, sigma = 5 t²", (video(g, 4, 3), video(g, 4, 3), *numbers(1.0, 5 * t**2, 0.0, 10 * t))
    )
    yield Case("alpha = 1 - t², sigma = 2 t", (video(g), video(g), *numbers(1 - t**2, 2 * t, -2 * t, 2.0)))


def _velocity(z: Tensor, u: Tensor, alpha: Tensor, sigma: Tensor, d_alpha: Tensor, d_sigma: Tensor) -> Any:
    matrix = torch.stack([torch.stack([alpha, sigma]), torch.stack([d_alpha, d_sigma])])
    (a, b), (c, d) = torch.linalg.inv(matrix)
    return a * z + b * u, c * z + d * u, b**-2


def _solved(find: Callable[..., Any]) -> Callable[..., Any]:
    """find: (z, u, alpha, sigma, d_alpha, d_sigma, determinant) -> (x, eps, weight)."""
    return lambda z, u, a, s, da, ds: find(z, u, a, s, da, ds, a * ds - s * da)


from_velocity = Check(
    "from_velocity",
    _velocity,
    _velocity_cases,
    [
        Wrong(
            lambda z, u, a, s, da, ds: (z - s * u, z + a * u, s**-2),
            "this is right for flow matching, where z moves on a straight line; other processes have other slopes.",
        ),
        Wrong(
            lambda z, u, a, s, da, ds: (
                (ds * z - s * u) / (a * ds + s * da),
                (a * u - da * z) / (a * ds + s * da),
                ((a * ds + s * da) / s) ** 2,
            ),
            "the factor that you divide by has a wrong sign inside: multiply your elimination out once more.",
        ),
        Wrong(
            _solved(lambda z, u, a, s, da, ds, w: (ds * z - s * u, a * u - da * z, (w / s) ** 2)),
            "your combinations of z and u remove the other unknown, but leave a factor before x and eps.",
        ),
        Wrong(
            _solved(lambda z, u, a, s, da, ds, w: ((ds * z - s * u) / w, (a * u - da * z) / w, (s / w) ** 2)),
            "your x and eps are right; your weight is upside down: it multiplies the error of x to give that of u.",
        ),
        Wrong(
            _solved(lambda z, u, a, s, da, ds, w: ((ds * z - s * u) / w, (a * u - da * z) / w, w / s)),
            "your x and eps are right; the loss is of squared errors, and your weight is a ratio of plain ones.",
        ),
        Wrong(
            _solved(lambda z, u, a, s, da, ds, w: ((ds * z + s * u) / w, (-a * u - da * z) / w, (w / s) ** 2)),
            "you took u for the velocity towards the data; it is dz/dt, and t grows towards noise.",
        ),
    ],
)
