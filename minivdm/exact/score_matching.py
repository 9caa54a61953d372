r"""Learning a score, grad log q(z), from samples alone: four objectives and a sampler.

A score model is a function s: (b, ...) -> (b, ...). Every objective returns one value per sample, (b,),
summed over the sample's values, whose mean over q is, up to a constant that does not depend on s, (1/2) E ||s
- grad log q||^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minivdm.core.gaussian import expand, noise_like, same_shape, x_from_score
from minivdm.exact.jacobian import divergence
from minivdm.exact.likelihood import signs_like
from minivdm.guards import BadArgument, check_types, finite, floating, real, whole

Score = Callable[[Tensor], Tensor]


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def explicit(score: Score, z: Tensor, true_score: Tensor) -> Tensor:
    """(1/2) ||s(z) - grad log q(z)||^2, which needs the answer (Hyvärinen 2005, eq 2)."""
    same_shape(z, true_score, "the true score")
    value = score(floating("z", z))
    same_shape(z, value, "the score")
    return _sum((value - true_score) ** 2) / 2


def implicit(score: Score, z: Tensor) -> Tensor:
    """tr(grad s(z)) + (1/2) ||s(z)||^2: the same by parts, without the answer (Hyvärinen 2005, theorem 1).

    Differentiable in the score's parameters, also where gradients are off. It holds where q s vanishes at infinity,
    and costs a backward pass a value.
    """
    with torch.inference_mode(False), torch.enable_grad():
        value, trace = divergence(score, z)
        return trace + _sum(value**2) / 2


def sliced(
    score: Score,
    z: Tensor,
    probes: int = 1,
    variance_reduction: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """e^T grad s(z) e + (1/2) ||s(z)||^2 over random signs e: one backward pass a probe (Song et al. 2019, eqs 7, 8).

    Without `variance_reduction` the second term is (1/2) (e^T s)^2, equal to it on average.
    """
    with torch.inference_mode(False), torch.enable_grad():
        signs = signs_like(floating("z", z), probes, generator)
        value, trace = divergence(score, z, signs)
        size = _sum(value**2) if variance_reduction else torch.stack([_sum(value * e) ** 2 for e in signs]).mean(0)
        return trace + size / 2


def denoising(
    score: Score,
    x: Tensor,
    sigma: Tensor | float,
    alpha: Tensor | float = 1.0,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(1/2) ||s(z) + (z - alpha x) / sigma^2||^2 at z = alpha x + sigma eps (Vincent 2011, eq 9).

    Minimised by the score of the noisy z, not of x. Raises ValueError unless sigma > 0.
    """
    if not bool((torch.as_tensor(sigma) > 0).all()):
        raise BadArgument(f"sigma: expected sigma > 0, got {sigma}")
    noise = noise_like(x, generator) if noise is None else noise
    same_shape(x, noise, "noise")
    alpha, sigma = expand(alpha, x), expand(sigma, x)
    z = alpha * x + sigma * noise
    return _sum((score(z) + noise / sigma) ** 2) / 2  # (z - alpha x) / sigma^2 = eps / sigma


def tweedie(z: Tensor, score: Tensor, sigma: Tensor | float, alpha: Tensor | float = 1.0) -> Tensor:
    """E[x | z] = (z + sigma^2 grad log q(z)) / alpha (Robbins 1956; Efron 2011)."""
    return x_from_score(z, score, alpha, sigma)


def geometric_ladder(sigma_max: float, sigma_min: float, levels: int) -> Tensor:
    """Noise levels (levels,) with one ratio between neighbours, largest first (Song & Ermon 2019)."""
    if not 0 < sigma_min < sigma_max < math.inf:
        raise BadArgument(f"expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    whole("levels", levels, least=2, most=1_000_000)
    return sigma_max * (sigma_min / sigma_max) ** torch.linspace(0, 1, levels, dtype=torch.float64)


@torch.no_grad()
def annealed_langevin(
    score: Callable[[Tensor, Tensor], Tensor],
    z: Tensor,
    sigmas: Tensor,
    steps: int = 100,
    step_size: float = 2e-5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Langevin dynamics on ever less noisy densities (Song & Ermon 2019, algorithm 1).

    z <- z + (a / 2) s(z, sigma) + sqrt(a) eps, `steps` times a level, with a = step_size sigma^2 /
    sigma_last^2.
    score: (z, sigma 0-d) -> like z. sigmas: (levels,), strictly decreasing.
    """
    sigmas = floating("sigmas", sigmas)
    if sigmas.ndim != 1 or len(sigmas) == 0 or not bool((sigmas[1:] < sigmas[:-1]).all() and (sigmas > 0).all()):
        raise BadArgument(f"sigmas: expected positive, strictly decreasing ones, got {sigmas.tolist()}")
    finite("z", floating("z", z))
    whole("steps", steps, most=1_000_000)
    real("step_size", step_size, least=0, above=True)
    for sigma in sigmas:
        a = step_size * float(sigma / sigmas[-1]) ** 2
        for _ in range(steps):
            z = z + a / 2 * score(z, sigma) + a**0.5 * noise_like(z, generator)
    return z


check_types(globals())
