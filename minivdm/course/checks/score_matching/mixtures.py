"""Checks of exercises 03.2 and 03.6: the score of a mixture, and what Tweedie's formula reads from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

# ---- the score of a mixture ------------------------------------------------------------------------------------


def random_mixture(
    g: torch.Generator, k: int, d: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and standard deviations of k round Gaussians."""
    weights = uniform(g, 0.2, 1.0, k)
    parts = weights / weights.sum(), 1.5 * video(g, k, d), uniform(g, 0.5, 1.2, k)
    return tuple(part.to(dtype) for part in parts)  # type: ignore[return-value]


def _mixture_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        points = video(g, 6, 2, dtype=dtype)
        yield Case(f"{name_of(dtype)}, three components in a plane", (points, *random_mixture(g, 3, 2, dtype)))
    yield Case("two components in 5 dimensions", (video(g, 2, 5), *random_mixture(g, 2, 5)))
    points = video(g, 4, 2)
    yield Case("one component", (points, *random_mixture(g, 1, 2)))
    weights, means, stds = random_mixture(g, 3, 2)
    alike = torch.full_like(weights, 1 / 3), means, torch.full_like(stds, 0.6)
    yield Case("equal weights and widths, as in (3.15)", (points, *alike))
    yield Case("very far from all components", (200 + points, weights, means, stds))


def mixture_score_of(
    z: Tensor, weights: Tensor, means: Tensor, stds: Tensor, log: Any = None, power: int = 2
) -> Tensor:
    """log: (weights, stds, squared distance, d) -> log of weight times density, up to a constant."""
    pull = means - z[:, None]
    log = _log_density if log is None else log
    share = log(weights, stds, pull.square().sum(2), z.shape[1]).softmax(1)
    return (share[:, :, None] * pull / stds[:, None] ** power).sum(1)


def _log_density(weights: Tensor, stds: Tensor, squares: Tensor, d: int) -> Tensor:
    return weights.log() - d * stds.log() - squares / (2 * stds**2)


def _shares(log: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda z, weights, means, stds: mixture_score_of(z, weights, means, stds, log)


def _by_densities(z: Tensor, weights: Tensor, means: Tensor, stds: Tensor, small: float = 0.0) -> Tensor:
    pull = means - z[:, None]
    density = _log_density(weights, stds, pull.square().sum(2), z.shape[1]).exp()
    return (density[:, :, None] * pull / stds[:, None] ** 2).sum(1) / (density.sum(1, keepdim=True) + small)


mixture_score = Check(
    "mixture_score",
    mixture_score_of,
    _mixture_cases,
    [
        Wrong(
            lambda z, weights, means, stds: _by_densities(z, weights, means, stds, 1e-12),
            "a small number in the denominator hides the problem: far away all densities are 0 in floating point, and "
            "your score with them. Normalise the logarithms instead.",
        ),
        Wrong(
            _by_densities,
            "right near the data, but far away all densities are 0 in floating point and you divide 0 by 0: "
            "normalise the logarithms instead.",
        ),
        Wrong(
            _shares(lambda w, s, sq, d: w.log() - sq / (2 * s**2)),
            "your responsibilities leave out that a wide Gaussian is lower: its density is divided by a power of s.",
        ),
        Wrong(
            _shares(lambda w, s, sq, d: w.log() - s.log() - sq / (2 * s**2)),
            "you normalise each density as if it lived on a line; in d dimensions there are d factors.",
        ),
        Wrong(
            _shares(lambda w, s, sq, d: -d * s.log() - sq / (2 * s**2)),
            "the weights do not occur in your responsibilities.",
        ),
        Wrong(lambda *a: -mixture_score_of(*a), "your score points away from the means: check the sign."),
        Wrong(
            lambda z, weights, means, stds: mixture_score_of(z, weights, means, stds, power=1),
            "you divide the pull towards a mean by s; the derivative of −|z − m|²/(2s²) has another power.",
        ),
    ],
)


# ---- Tweedie's moments, with pen -------------------------------------------------------------------------------


class _NoisyMixture:
    """The score of a noised mixture, as a learner sees it; what it is made of is for the right answer alone."""

    def __init__(self, world: tuple[Tensor, Tensor, Tensor], alpha: float, sigma: float) -> None:
        self.world, self.noisy = world, (world[0], alpha * world[1], (alpha**2 * world[2] ** 2 + sigma**2).sqrt())

    def __call__(self, z: Tensor) -> Tensor:
        return mixture_score_of(z, *self.noisy)


def _moment_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        score = _NoisyMixture(random_mixture(g, 3, 2, dtype), 0.8, 0.6)
        yield Case(f"{name_of(dtype)}, three components in a plane", (score, video(g, 5, 2, dtype=dtype), 0.8, 0.6))
    yield Case(
        "4 dimensions, variance exploding", (_NoisyMixture(random_mixture(g, 2, 4), 1.0, 2.0), video(g, 3, 4), 1.0, 2.0)
    )
    yield Case("one Gaussian, one point", (_NoisyMixture(random_mixture(g, 1, 3), 0.5, 0.9), video(g, 1, 3), 0.5, 0.9))
    yield Case("a line, little noise", (_NoisyMixture(random_mixture(g, 2, 1), 0.98, 0.2), video(g, 6, 1), 0.98, 0.2))


def _moments(score: _NoisyMixture, z: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    """By Bayes in each component and the law of total covariance."""
    _, means, stds = score.world
    noisy = score.noisy[2]
    share = _log_density(score.noisy[0], noisy, (z[:, None] - score.noisy[1]).square().sum(2), z.shape[1]).softmax(1)
    each = means + (alpha * stds**2 / noisy**2)[:, None] * (z[:, None] - score.noisy[1])
    mean = torch.einsum("bk,bkd->bd", share, each)
    off = each - mean[:, None]
    within = torch.einsum("bk,k->b", share, (stds * sigma / noisy) ** 2)
    eye = torch.eye(z.shape[1], dtype=z.dtype)
    return mean, torch.einsum("bk,bki,bkj->bij", share, off, off) + within[:, None, None] * eye


def _tweedie(find: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """find: (z, s, Hessian, identity, alpha, sigma, the right moments) -> (mean, covariance)."""

    def answer(score: _NoisyMixture, z: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        mean, covariance = _moments(score, z, alpha, sigma)
        eye = torch.eye(z.shape[1], dtype=z.dtype)
        hessian = (covariance * alpha**2 / sigma**2 - eye) / sigma**2
        return find(z, score(z), hessian, eye, alpha, sigma, mean)

    return answer


posterior_moments = Check(
    "posterior_moments",
    _moments,
    _moment_cases,
    [
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, o**2 / a**2 * (eye - o**2 * h))),
            "the sign of your second derivative is wrong; where log q curves down, is x known better or worse?",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, o**2 / a**2 * (eye + h))),
            "in your covariance the second derivative of log q is not scaled: which units does it have?",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, eye + o**2 * h)),
            "your covariance lacks the factor in front: a pure number cannot be the variance of x.",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, (eye + o**2 * h) / a)),
            "your second result is the Jacobian of the mean; the covariance is a multiple of it.",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, o**2 / a**2 * (eye + o**2 * h) + m[:, :, None] * m[:, None])),
            "your second result is E[x xᵀ | z]; for the covariance the mean's own square is still to be taken off.",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: ((z + o * s) / a, o**2 / a**2 * (eye + o**2 * h))),
            "in your mean the score is multiplied by σ; compare (3.11).",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, o**2 / a * (eye + o**2 * h))),
            "in your covariance α is not squared: a scale divides x, its square a covariance.",
        ),
    ],
    detached=True,
)
