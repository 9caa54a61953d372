"""Checks of exercises 11.4 and 11.6: the covariance that a denoiser knows, and what an observation leaves open."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, VESchedule
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video
from minivdm.exact import GaussianMixture, GaussianVideo

COSINE = CosineSchedule()


# ---- the covariance that a denoiser knows --------------------------------------------------------------------


def _covariance_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t = float(uniform(g, 0.3, 0.6))
    for dtype in (torch.float64, torch.float32):
        world = GaussianVideo(2, 0.9, (2, 3), 0.7)
        z = video(g, 1, 1, 2, 2, 3, dtype=dtype)
        yield Case(f"{name_of(dtype)}, Gaussian videos", (world.denoiser(COSINE), z, t))
    ring = GaussianMixture.ring()
    z = COSINE.alpha(t) * ring.sample(1, g)[0] + COSINE.sigma(t) * video(g, 1, 2)
    yield Case("a point of a plane, data on a ring", (ring.denoiser(COSINE), z, t))
    yield Case("the same, variance exploding", (ring.denoiser(VESchedule(0.1, 2.0)), z, t))
    yield Case("one value", (GaussianVideo(1).denoiser(COSINE), video(g, 1, 1, 1, 1, 1), t))


def _covariance(denoise: Any, z: Tensor, t: float) -> Tensor:
    """Cov[x | z] by the formulas of the world that the denoiser is exact for, without a derivative."""
    world, alpha, sigma = denoise.world, denoise.schedule.alpha(t), denoise.schedule.sigma(t)
    if isinstance(world, GaussianVideo):
        noisy = alpha**2 * world.covariance + sigma**2 * torch.eye(len(world.covariance), dtype=torch.float64)
        return torch.linalg.solve(noisy, sigma**2 * world.covariance).to(z.dtype)
    noisy = alpha**2 * world.covariances + sigma**2 * torch.eye(z.shape[1], dtype=torch.float64)
    gains = alpha * torch.linalg.solve(noisy, world.covariances)  # (k, d, d), symmetric: round components
    means = world.means + torch.einsum("kij,kj->ki", gains, z - alpha * world.means)
    weights = world.responsibilities(z, alpha, sigma)[0]
    within = torch.einsum("k,kij->ij", weights, torch.linalg.solve(noisy, sigma**2 * world.covariances))
    off = means - weights @ means
    return within + torch.einsum("k,ki,kj->ij", weights, off, off)


def _scaled(factor: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The Jacobian of the denoiser, times some factor."""

    def answer(denoise: Any, z: Tensor, t: float) -> Tensor:
        alpha, sigma = denoise.schedule.alpha(t), denoise.schedule.sigma(t)
        return _covariance(denoise, z, t) * (alpha / sigma**2 * factor(alpha, sigma)).to(z.dtype)

    return answer


posterior_covariance = Check(
    "posterior_covariance",
    _covariance,
    _covariance_cases,
    [
        Wrong(
            _scaled(lambda a, s: torch.ones_like(a)),
            "that is the Jacobian itself; (11.4) is to be solved for the covariance.",
        ),
        Wrong(
            _scaled(lambda a, s: a / s**2),
            "you multiply by the factor of (11.4); to get C alone you have to divide by it.",
        ),
        Wrong(_scaled(lambda a, s: s**2), "alpha_t is missing: look at the factor of (11.4) again."),
        Wrong(_scaled(lambda a, s: s**2 / a**2), "you divide by alpha_t squared; (11.4) has alpha_t once."),
        Wrong(_scaled(lambda a, s: s / a), "you have sigma_t where the variance sigma_t² belongs."),
        Wrong(
            lambda d, z, t: _covariance(d, z, t).sum(0).reshape(z.shape),
            "you get one number per value: the gradient of the *sum* of x_hat. A Jacobian has a row for each value "
            "of x_hat and a column for each of z.",
        ),
        Wrong(
            lambda d, z, t: torch.diag(_covariance(d, z, t).diagonal()),
            "you have the variances alone; what carries an observation to other places is off the diagonal.",
        ),
    ],
)


# ---- what remains open ---------------------------------------------------------------------------------------


def _condition_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        factors = video(g, 6, 8)
        parts = video(g, 6), factors @ factors.T / 8, video(g, 2, 6), video(g, 2)
        yield Case(
            f"{name_of(dtype)}, 6 values, 2 observed with noise",
            (*(part.to(dtype) for part in parts), float(uniform(g, 0.3, 0.8))),
        )
    world = GaussianVideo(3, 0.9, (2, 2), 0.5)
    means = torch.zeros(2, 12, dtype=torch.float64)
    means[0, :4] = means[1, 8:] = 0.25
    yield Case(
        "three frames of 2x2 pixels, block means of the first and the last, no noise",
        (video(g, 12), world.covariance, means, video(g, 2), 0.0),
    )
    line = video(g, 5)
    yield Case(
        "values that all move together, one of them observed with noise",
        (video(g, 5), torch.outer(line, line), torch.eye(5, dtype=torch.float64)[:1], video(g, 1), 0.4),
    )
    yield Case(
        "values that are independent of each other, one of them observed, no noise",
        (video(g, 4), torch.diag(uniform(g, 0.5, 2, 4)), torch.eye(4).double()[2:3], video(g, 1), 0.0),
    )


def _condition(
    x_hat: Tensor,
    covariance: Tensor,
    operator: Tensor,
    y: Tensor,
    tau: float,
    gain: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Through the joint covariance of (x, y) and Joseph's form, which is a covariance for any gain."""
    c, d = covariance.double(), operator.double()
    seen = d @ c @ d.T + tau**2 * torch.eye(len(d), dtype=torch.float64)
    k = torch.linalg.solve(seen, d @ c).T if gain is None else gain(c, d)
    rest = torch.eye(len(c), dtype=torch.float64) - k @ d
    left = rest @ c @ rest.T + tau**2 * k @ k.T
    return (x_hat.double() + k @ (y.double() - d @ x_hat.double())).to(x_hat.dtype), left.to(x_hat.dtype)


def _with_tau(noise: Callable[[float], float]) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda x, c, d, y, tau: _condition(x, c, d, y, noise(tau))


def _reduced(amount: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """The right mean, and C less something: (C, C left) -> C left."""

    def answer(x: Tensor, c: Tensor, d: Tensor, y: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        mean, left = _condition(x, c, d, y, tau)
        return mean, amount(c, left)

    return answer


def _gain(c: Tensor, d: Tensor, tau: float) -> Tensor:
    return torch.linalg.solve(d @ c @ d.mT + tau**2 * torch.eye(len(d), dtype=c.dtype), d @ c).mT


def _projected(x: Tensor, c: Tensor, d: Tensor, y: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    return _condition(x, c, d, y, tau, lambda c, d: torch.linalg.pinv(d))


condition = Check(
    "condition",
    _condition,
    _condition_cases,
    [
        Wrong(_with_tau(lambda tau: 0.0), "the noise of the observation is missing: Cov[y | z] is larger by tau² I."),
        Wrong(_with_tau(math.sqrt), "you add tau; the noise of y has the variance tau²."),
        Wrong(
            _reduced(lambda c, left: c),
            "the mean is right, but your covariance is still that before the observation; what was learned has to be "
            "taken off.",
        ),
        Wrong(
            _reduced(lambda c, left: c - left),
            "the mean is right; your covariance is what the observation explains. Asked is what it leaves open.",
        ),
        Wrong(
            _reduced(lambda c, left: 2 * c - left),
            "the mean is right, but your covariance has grown: an observation can only take uncertainty away.",
        ),
        Wrong(
            lambda x, c, d, y, tau: (2 * x - _condition(x, c, d, y, tau)[0], _condition(x, c, d, y, tau)[1]),
            "the sign of the residual is wrong: it is y - D x_hat.",
        ),
        Wrong(
            lambda x, c, d, y, tau: (
                _condition(x, c, d, y, tau)[0],
                _condition(x, c, d, y, tau)[1] - tau**2 * _gain(c, d, tau) @ _gain(c, d, tau).mT,
            ),
            "your covariance is (I − KD) C (I − KD)ᵀ alone; in that form the noise of the observation enters too, as "
            "tau² K Kᵀ.",
        ),
        Wrong(_projected, "your gain is the pseudo-inverse of D, which does not know C: it moves nothing unseen."),
    ],
)
