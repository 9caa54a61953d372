"""What is wanted of a clip, as the denoiser to sample it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from minivdm.core.denoiser import Conditional, Denoise, schedule_of
from minivdm.core.guards import BadArgument, BadType, real, whole
from minivdm.core.guidance import classifier_free
from minivdm.core.self_conditioning import SelfConditioned, takes_estimate


def multi_hot(digits: Sequence[int], n: int = 10) -> Tensor:
    """Label vector (1, n) with a 1 for every class named. Raises BadArgument for a class outside 0 .. n-1."""
    whole("n", n)
    digits = list(digits)
    wrong = [digit for digit in digits if isinstance(digit, (bool, float)) or not 0 <= digit < n]
    if wrong:
        raise BadArgument(f"labels: expected classes 0 to {n - 1}, got {wrong}")
    vector = torch.zeros(1, n)
    vector[0, digits] = 1.0
    return vector


def guided(denoise: Denoise, labels: Tensor | None, weight: float, **conditions: Tensor) -> Denoise:
    """The denoiser to sample with: conditional, unconditional, or guided with `weight` (VDM eq 6; 0 = no guidance).

    A network with self-conditioning is handed its own last estimate at every call. conditions: others than labels, by
    name. Guidance goes from none of them to all; for a subset, guide with
    `minivdm.core.classifier_free` and hand in the result.
    """
    schedule_of(denoise)
    real("weight", weight, least=0)
    if labels is None and not conditions:
        if weight:
            raise BadArgument(f"weight: guidance needs labels; expected weight 0 without them, got {weight}")
        if not isinstance(denoise, Conditional):
            return denoise
    elif not isinstance(denoise, Conditional):
        raise BadType("labels: expected a denoiser that takes them by .given(labels), got one that is bound already")
    if takes_estimate(denoise):
        return SelfConditioned(lambda x_hat: _guided(denoise, labels, weight, x_hat, conditions), denoise.schedule)
    return _guided(denoise, labels, weight, None, conditions)


def _guided(
    denoise: Conditional,
    labels: Tensor | None,
    weight: float,
    estimate: Tensor | None,
    conditions: Mapping[str, Tensor],
) -> Denoise:
    """As `guided`, with the network's last estimate, or None, as a condition of both branches."""
    again = {} if estimate is None else {"estimate": estimate}
    asked = denoise.given(labels, **conditions, **again)
    return asked if weight == 0 else classifier_free(asked, denoise.given(None, **again), weight)
