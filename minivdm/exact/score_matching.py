r"""Learning a score, grad log q(z), from samples alone: four objectives and a sampler.

A score model is a function s: (b, ...) -> (b, ...). Every objective returns one value per sample, (b,),
summed over the sample's values, whose mean over q is, up to a constant that does not depend on s, (1/2) E ||s
- grad log q||^2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minivdm.core.gaussian import expand, noise_like, x_from_score
from minivdm.exact.likelihood import signs_like

Score = Callable[[Tensor], Tensor]


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def explicit(score: Score, z: Tensor, true_score: Tensor) -> Tensor:
    """(1/2) ||s(z) - grad log q(z)||^2, which needs the answer (Hyvärinen 2005, eq 2)."""
    return _sum((score(z) - true_score) ** 2) / 2


def implicit(score: Score, z: Tensor) -> Tensor:
    """tr(grad s(z)) + (1/2) ||s(z)||^2: the same by parts, without the answer (Hyvärinen 2005, theorem 1).

    Differentiable in the score's parameters. It holds where q s vanishes at infinity, and costs a backward
    pass a value.
    """
    z = z.detach().requires_grad_()
    value = score(z)
    trace = torch.zeros(len(z), dtype=z.dtype, device=z.device)
    for i in range(z[0].numel()):
        (row,) = torch.autograd.grad(value.flatten(1)[:, i].sum(), z, create_graph=True)
        trace = trace + row.flatten(1)[:, i]
    return trace + _sum(value**2) / 2


def sliced(
    score: Score,
    z: Tensor,
    probes: int = 1,
    variance_reduction: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """e^T grad s(z) e + (1/2) ||s(z)||^2 over random signs e: one backward pass a probe.

    Song et al. 2019, eqs 7, 8.

    Without `variance_reduction` the second term is (1/2) (e^T s)^2, equal to it on average.
    """
    z = z.detach().requires_grad_()
    value = score(z)
    total = torch.zeros(len(z), dtype=z.dtype, device=z.device)
    for e in signs_like(z, probes, generator):
        along = _sum(value * e)
        (product,) = torch.autograd.grad(along.sum(), z, create_graph=True)
        size = _sum(value**2) if variance_reduction else along**2
        total = total + _sum(product * e) + size / 2
    return total / probes


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
        raise ValueError(f"expected sigma > 0, got {sigma}")
    noise = noise_like(x, generator) if noise is None else noise
    alpha, sigma = expand(alpha, x), expand(sigma, x)
    z = alpha * x + sigma * noise
    return _sum((score(z) + noise / sigma) ** 2) / 2  # (z - alpha x) / sigma^2 = eps / sigma


def tweedie(z: Tensor, score: Tensor, sigma: Tensor | float, alpha: Tensor | float = 1.0) -> Tensor:
    """E[x | z] = (z + sigma^2 grad log q(z)) / alpha (Robbins 1956; Efron 2011)."""
    return x_from_score(z, score, alpha, sigma)


def geometric_ladder(sigma_max: float, sigma_min: float, levels: int) -> Tensor:
    """Noise levels (levels,) with one ratio between neighbours, largest first (Song & Ermon 2019)."""
    if not (0 < sigma_min < sigma_max and levels >= 2):
        raise ValueError(f"expected 0 < sigma_min < sigma_max and 2 levels, got {sigma_min}, {sigma_max}, {levels}")
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
    if sigmas.ndim != 1 or not bool((sigmas[1:] < sigmas[:-1]).all()) or not bool((sigmas > 0).all()):
        raise ValueError(f"expected positive, strictly decreasing sigmas, got {sigmas.tolist()}")
    for sigma in sigmas:
        a = step_size * float(sigma / sigmas[-1]) ** 2
        for _ in range(steps):
            z = z + a / 2 * score(z, sigma) + a**0.5 * noise_like(z, generator)
    return z
