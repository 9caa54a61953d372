"""Checks of exercises 06.9 and 06.10: how likely a video is, and how noisy an estimate of that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

# ---- change of variables ---------------------------------------------------------------------------------------


def _flow_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)

    def swirl(z: Tensor, t: float) -> Tensor:
        return torch.sin(z) * (1 + t) - 0.3 * z

    def swirl_divergence(z: Tensor, t: float) -> Tensor:
        return (torch.cos(z) * (1 + t) - 0.3).flatten(1).sum(1)

    for dtype in (torch.float64, torch.float32):
        times = uniform(g, 0, 1, 7).sort().values.tolist()
        x = video(g, dtype=dtype)
        yield Case(f"{name_of(dtype)}, clips, 6 uneven steps", (swirl, swirl_divergence, x, times, 1.0))
    yield Case("points, one step, standard deviation 3", (swirl, swirl_divergence, video(g, 5, 2), [0.1, 0.7], 3.0))
    yield Case(
        "one frame, nothing moves",
        (lambda z, t: 0 * z, lambda z, t: 0 * z.flatten(1).sum(1), video(g, 1, 1, 1, 3, 3), [0.0, 0.5, 1.0], 0.5),
    )
    yield Case(
        "a flow that shrinks, in 40 steps",
        (
            lambda z, t: -z,
            lambda z, t: -torch.full_like(z[:, 0], z.shape[1]),
            video(g, 4, 3),
            torch.linspace(0, 1, 41).tolist(),
            1.0,
        ),
    )


def _normal(z: Tensor, std: float) -> Tensor:
    flat = z.flatten(1).double() / std
    per_value = flat.square() / 2 + math.log(std * math.sqrt(2 * math.pi))  # in float64 throughout
    return -per_value.sum(1).to(z.dtype)


@dataclass(frozen=True)
class _Slip:
    """What a student may get wrong about the integral; by default nothing."""

    sign: float = 1.0
    prior: Callable[[Tensor, float], Tensor] = _normal
    late: bool = False  # the divergence where a step ends
    start: bool = False  # the prior at x
    step: float = 1.0  # power of a step's length


NO_SLIP = _Slip()


def _walked(
    velocity: Callable[..., Tensor],
    divergence: Callable[..., Tensor],
    x: Tensor,
    times: list[float],
    std: float,
    *,
    slip: _Slip = NO_SLIP,
) -> Tensor:
    """Euler's method, or one with a slip."""
    z, change = x, torch.zeros_like(x.flatten(1)[:, 0])
    for s, t in zip(times[:-1], times[1:], strict=True):
        new = z + (t - s) * velocity(z, s)
        change = change + (t - s) ** slip.step * (divergence(new, t) if slip.late else divergence(z, s))
        z = new
    return slip.prior(x if slip.start else z, std) + slip.sign * change


def _but(**changes: Any) -> Callable[..., Tensor]:
    return lambda *given: _walked(*given, slip=_Slip(**changes))


log_likelihood = Check(
    "log_likelihood",
    _walked,
    _flow_cases,
    [
        Wrong(
            _but(sign=-1.0),
            "the sign of your integral is wrong: where the flow towards noise spreads points apart, they were denser "
            "at the data.",
        ),
        Wrong(_but(sign=0.0), "you leave the divergence out: a flow that squeezes space changes densities."),
        Wrong(_but(start=True), "your prior is asked about x; it belongs to where the path of x ends, at noise."),
        Wrong(_but(step=0.0), "you add up divergences without the lengths of the steps: it is an integral over t."),
        Wrong(
            _but(prior=lambda z, std: -(z / std).square().flatten(1).sum(1) / 2),
            "your prior lacks its normalising constant; a likelihood needs it.",
        ),
        Wrong(
            _but(
                prior=lambda z, std: (
                    -(z / std).square().flatten(1).sum(1) / 2 - z[0].numel() * math.log(2 * math.pi) / 2
                )
            ),
            "your prior is normalised as if its standard deviation were 1.",
        ),
        Wrong(
            _but(
                prior=lambda z, std: (
                    -(z / std).square().flatten(1).sum(1) / 2 - z[0].numel() * math.log(2 * math.pi) / 2 - math.log(std)
                )
            ),
            "you take the logarithm of the standard deviation off once; there is one factor for each value.",
        ),
        Wrong(
            _but(late=True),
            "you read the divergence where a step ends, and the velocity where it begins: Euler reads both at the "
            "beginning.",
        ),
    ],
)


# ---- Hutchinson -----------------------------------------------------------------------------------------------


def _matrices(seed: int) -> Iterator[Case]:
    g = generator(seed)
    matrix = video(g, 4, 4)
    yield Case("symmetric, 4 by 4", (matrix + matrix.T,))
    yield Case("not symmetric, 5 by 5", (video(g, 5, 5),))
    yield Case("float32, not symmetric, 3 by 3", (video(g, 3, 3, dtype=torch.float32),))
    yield Case("antisymmetric, 4 by 4", (matrix - matrix.T,))
    yield Case("diagonal, 3 by 3", (torch.diag(video(g, 3)),))
    yield Case("1 by 1", (video(g, 1, 1),))


def _variances(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """By weighted sums over all signs, and over nodes that integrate a normal's moments up to the fifth exactly."""
    found = []
    for nodes, weights in (((-1.0, 1.0), (0.5, 0.5)), ((-(3**0.5), 0.0, 3**0.5), (1 / 6, 2 / 3, 1 / 6))):
        d = len(jacobian)
        e = torch.cartesian_prod(*[torch.tensor(nodes, dtype=torch.float64)] * d).reshape(-1, d)
        w = torch.cartesian_prod(*[torch.tensor(weights, dtype=torch.float64)] * d).reshape(-1, d).prod(1)
        forms = torch.einsum("ni,ij,nj->n", e, jacobian.double(), e)
        found.append((w * (forms - (w * forms).sum()) ** 2).sum().to(jacobian.dtype))
    return found[0], found[1]


def _squares(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the squares outside of the diagonal, and of all."""
    squares = jacobian**2
    return squares.sum() - squares.diagonal().sum(), squares.sum()


hutchinson_variances = Check(
    "hutchinson_variances",
    _variances,
    _matrices,
    [
        Wrong(
            lambda j: tuple(2 * v for v in _squares(j)),
            "right for a symmetric J only: J_ij and J_ji multiply the same e_i e_j, so look at their sum.",
        ),
        Wrong(
            lambda j: _squares((j + j.T) / 2),
            "half of the right answer: how often does a pair of different i and j occur in the double sum?",
        ),
        Wrong(
            lambda j: (2 * _squares((j + j.T) / 2)[1],) * 2,
            "right for normal probes; with signs the diagonal is multiplied by e_i² = 1, which does not vary.",
        ),
        Wrong(
            lambda j: (2 * _squares((j + j.T) / 2)[0],) * 2,
            "right for signs; the square of a normal number varies, with variance E[e⁴] − 1 = 2.",
        ),
        Wrong(
            lambda j: _variances(j)[::-1],
            "your two results are in the other order: signs first, normal probes second.",
        ),
        Wrong(
            lambda j: (_variances(j)[0], _variances(j)[0] + 3 * j.diagonal().square().sum()),
            "for normal probes the diagonal counts with Var[e²] = E[e⁴] − 1, which is 2 and not 3.",
        ),
        Wrong(
            lambda j: tuple((2 * v).sqrt() for v in _squares((j + j.T) / 2)),
            "these are standard deviations; the variances are asked for.",
        ),
    ],
)
