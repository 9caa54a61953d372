"""Two sets of features, without the assumption that they are Gaussian; and sets of forecasts against what came.

Features are clouds (n, d), such as `frechet.clip_features` gives. What is computed is float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from minivdm import guards


def _clouds(first: Tensor, second: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both clouds in float64 on the CPU; BadArgument for other shapes, too few rows or values that are not finite."""
    made = []
    for name, cloud in (("first", first), ("second", second)):
        guards.finite(name, guards.floating(name, cloud))
        if cloud.ndim != 2 or cloud.shape[1] != first.shape[-1] or len(cloud) < least:
            got = f"{tuple(first.shape)} and {tuple(second.shape)}"
            raise guards.BadArgument(
                f"{name}: expected features (n, d) and (m, d), at least {least} of each, got {got}"
            )
        made.append(cloud.detach().cpu().double())
    return made[0], made[1]


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """The squared maximum mean discrepancy of two clouds under k(a, b) = (a . b / d + 1)^3, estimated without bias.

    Binkowski, Sutherland, Arbel & Gretton 2018, "Demystifying MMD GANs", section 3.2: the kernel inception distance
    (KID), on features of one's own. Its mean over samples is the distance of the laws at every n, so it may be negative
    where they agree; sets of different size can be compared.

    Args:
        first, second: (n, d) and (m, d), n and m at least 2.
    """
    x, y = _clouds(first, second, 2)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def apart(k: Tensor) -> Tensor:  # mean over pairs of different samples
        return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))

    return float(apart(kernel(x, x)) + apart(kernel(y, y)) - 2 * kernel(x, y).mean())


class PrecisionRecall(NamedTuple):
    """precision: share of the generated samples that look real; recall: share of the real ones that are covered."""

    precision: float
    recall: float


def precision_recall(generated: Tensor, real: Tensor, neighbours: int = 3) -> PrecisionRecall:
    """Is each sample of one set within the other set's support? (Kynkaanniemi et al. 2019, eqs 1 and 2.)

    The support of a set is taken to be the union of balls around its samples, each as large as the distance to the
    sample's `neighbours`-th nearest neighbour within the set.

    Args:
        generated, real: (n, d) and (m, d), each with more than `neighbours` samples.
        neighbours: k of their eq 1.
    """
    guards.whole("neighbours", neighbours)
    y, x = _clouds(generated, real, neighbours + 1)

    def within(samples: Tensor, support: Tensor) -> float:
        radius = torch.cdist(support, support).kthvalue(neighbours + 1, dim=1).values  # itself is the nearest
        return float((torch.cdist(samples, support) <= radius).any(1).double().mean())

    return PrecisionRecall(within(y, x), within(x, y))


def energy_score(samples: Tensor, target: Tensor) -> Tensor:
    """E|y - x| - (1/2) E|y - y'| of forecasts y against what came, (b,): lower is better, and proper.

    Gneiting & Raftery 2007, "Strictly proper scoring rules", eq 22 with beta = 1 (in one dimension it is CRPS). In
    expectation it is least for the forecaster who draws from the very law of x, unlike squared error of a sample or
    best of n. The second mean is over pairs of different samples, so that it has no bias in their number.

    Args:
        samples: (k, b, ...), k at least 2.
        target: (b, ...).
    """
    guards.finite("samples", guards.floating("samples", samples))
    guards.finite("target", guards.floating("target", target))
    if samples.ndim < 2 or samples.shape[1:] != target.shape or len(samples) < 2:
        got = f"{tuple(samples.shape)} and {tuple(target.shape)}"
        raise guards.BadArgument(f"samples, target: expected (k, b, ...) with k at least 2, and (b, ...), got {got}")
    y = samples.double().flatten(2) if samples.ndim > 2 else samples.double()[..., None]  # k b n
    x = target.double().flatten(1) if target.ndim > 1 else target.double()[:, None]
    k = len(y)
    between = torch.cdist(y.transpose(0, 1), y.transpose(0, 1)).sum((1, 2)) / (k * (k - 1))  # b
    return (y - x).norm(dim=-1).mean(0) - between / 2


guards.check_types(globals())
