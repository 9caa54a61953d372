"""What closed-form worlds have in common: Gaussian laws, the distance between two of them, and the denoiser."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from minivdm.core.schedules import Schedule
from minivdm.guards import BadArgument, BadType, check_types


class Law(NamedTuple):
    """Mean (d,) and covariance (d, d) of a Gaussian, float64."""

    mean: Tensor
    covariance: Tensor


def column(coefficient: Tensor | float, z: Tensor) -> Tensor:
    """A scalar or (b,) coefficient as float64, shaped (1 or b, 1, 1) against (b, components, dimensions)."""
    coefficient = torch.as_tensor(coefficient, dtype=torch.float64, device=z.device)
    if coefficient.ndim > 1 or (coefficient.ndim == 1 and len(coefficient) not in (1, len(z))):
        raise BadArgument(f"expected a scalar or {len(z)} coefficients, got shape {tuple(coefficient.shape)}")
    return coefficient.reshape(-1, 1, 1)


class World(Protocol):
    """What a closed-form world has to offer."""

    def posterior_mean(self, z: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor: ...


class ExactDenoiser:
    """(z, t) -> E[x | z_t = z] of a closed-form world; carries `.schedule`, binds labels with `.given`."""

    def __init__(self, world: World, schedule: Schedule, labels: Tensor | None = None):
        self.world, self.schedule, self.labels = world, schedule, labels

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        return self.world.posterior_mean(z, self.schedule.alpha(t), self.schedule.sigma(t), self.labels)

    def given(self, labels: Tensor | None = None, **conditions: Tensor | None) -> ExactDenoiser:
        """The denoiser of p(x | labels), (b or 1, components) multi-hot; None or a zero row: no condition."""
        if others := [name for name, value in conditions.items() if value is not None]:
            raise BadType(f"conditions: this world takes labels; got {', '.join(others)}")
        return ExactDenoiser(self.world, self.schedule, labels)


def _root(covariance: Tensor) -> Tensor:
    variances, axes = torch.linalg.eigh(covariance)
    return axes * variances.clamp(min=0).sqrt() @ axes.T


def wasserstein(first: Law, second: Law) -> float:
    """W2^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^{1/2} C2 C1^{1/2})^{1/2}) (Olkin & Pukelsheim 1982).

    A mean may be (d,) or (1, d), as that of a law given one observation is.
    """
    m1, m2 = (law.mean[0] if law.mean.ndim == 2 and len(law.mean) == 1 else law.mean for law in (first, second))
    if first.covariance.shape != second.covariance.shape or m1.shape != m2.shape:
        got = ", ".join(f"{tuple(law.mean.shape)} and {tuple(law.covariance.shape)}" for law in (first, second))
        raise BadArgument(f"expected two laws of one size, got means and covariances {got}")
    root = _root(first.covariance)
    cross = _root(root @ second.covariance @ root)
    squared = (m1 - m2).square().sum()
    squared = squared + (first.covariance + second.covariance - 2 * cross).trace()
    return math.sqrt(max(0.0, float(squared)))


check_types(globals())
