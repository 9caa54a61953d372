"""Retrieval: what a model draws comes from a data base that can be exchanged without training.

Blattmann et al. 2022, "Semi-parametric neural image synthesis" (RDM), section 3. The k nearest neighbours of a clip in
a data base, in an embedding that stays as it is, are the condition of training; the data base is disjoint from the
training set, or a clip would find itself. At sampling neighbours come from any data base, for example that of a label.
They enter a network as tokens by cross-attention, in no order (`neighbour_tokens` gives none of them a place).

The ideal of such a model is known (`MemoryDenoiser`): E[x | z_t] over the data base as a mixture of points, by Bayes'
rule, which draws nothing but what it holds. A trained model lies between this and one without memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from minivdm.core.schedules import Schedule
from minivdm.exact.laws import column
from minivdm.guards import BadArgument, batch, check_types, real, whole


class Neighbours(NamedTuple):
    """rows: (b, k) rows of the data base, nearest first. cosine: (b, k)."""

    rows: Tensor
    cosine: Tensor


def nearest(queries: Tensor, database: Tensor, k: int = 4, leave_out: float = 2.0) -> Neighbours:
    """The k rows of a data base (n, d) with the largest cosine to each query (b, d).

    leave_out: neighbours of a larger cosine than this are passed over; 0.9999 keeps a clip from finding itself where
    training set and data base are not disjoint. Above 1: none is.
    """
    if batch("queries", queries, 2).ndim != 2 or batch("database", database, 2).ndim != 2:
        raise BadArgument(f"queries, database: expected (b, d) and (n, d), got {queries.shape} and {database.shape}")
    if queries.shape[1] != database.shape[1]:
        raise BadArgument(f"database: expected rows of {queries.shape[1]} numbers, got {database.shape[1]}")
    whole("k", k, 1, len(database))
    cosine = F.normalize(queries, dim=1) @ F.normalize(database, dim=1).T
    kept = cosine.masked_fill(cosine > real("leave_out", leave_out), -torch.inf)
    values, rows = kept.topk(k, dim=1)
    if bool(values.isinf().any()):
        raise BadArgument(f"leave_out: expected to keep at least k={k} neighbours of each query, got {leave_out}")
    return Neighbours(rows, values)


def neighbour_tokens(found: Neighbours, database: Tensor) -> Tensor:
    """Condition (b, k, d): unit vectors of the neighbours. A set: their order says nothing, and attention sees none."""
    return F.normalize(database, dim=1)[found.rows]


class MemoryDenoiser:
    """(z, t) -> E[x | z_t] where x is one of the clips of a data base, all as likely: the ideal of a pure memory.

    clips: (n, ...), any shape. `swapped(clips)` is the same with another data base.
    """

    def __init__(self, clips: Tensor, schedule: Schedule) -> None:
        self.clips, self._schedule = batch("clips", clips, 2), schedule

    @property
    def schedule(self) -> Schedule:
        """The noise that z has."""
        return self._schedule

    def swapped(self, clips: Tensor) -> MemoryDenoiser:
        """The same model with another data base."""
        return MemoryDenoiser(clips, self.schedule)

    def weights(self, z: Tensor, t: Tensor | float) -> Tensor:
        """How likely each clip of the data base is, (b, n), given z: softmax of -|z - alpha x|^2 / (2 sigma^2)."""
        if z.shape[1:] != self.clips.shape[1:]:
            raise BadArgument(f"z: expected (b, {tuple(self.clips.shape[1:])}), got {tuple(z.shape)}")
        flat, held = z.flatten(1).double(), self.clips.flatten(1).double()
        alpha = column(self.schedule.alpha(torch.as_tensor(t)), z)[..., 0]  # 1 or b, 1
        sigma = column(self.schedule.sigma(torch.as_tensor(t)), z)[..., 0]
        squares = flat.square().sum(1, keepdim=True) + alpha**2 * held.square().sum(1) - 2 * alpha * (flat @ held.T)
        return (-squares / (2 * sigma**2)).softmax(1)

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        return (self.weights(z, t) @ self.clips.flatten(1).double()).view(z.shape).to(z.dtype)


check_types(globals())
