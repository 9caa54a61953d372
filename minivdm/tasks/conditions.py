"""What is wanted of a clip, as the denoiser to sample it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from minivdm.core.autoguidance import FramesApart, Weaker, as_weaker, away_from
from minivdm.core.denoiser import Conditional, Denoise, schedule_of
from minivdm.core.self_conditioning import SelfConditioned, takes_estimate
from minivdm.guards import BadArgument, BadType, check_types, real, whole

#: A worse network, the weight of the guidance away from it, and possibly between which two log-SNR (`core.Weaker`).
Away: TypeAlias = tuple[Conditional, float] | tuple[Conditional, float, tuple[float, float]]


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


def guided(
    denoise: Denoise,
    labels: Tensor | None,
    weight: float,
    *,
    temporal_weight: float = 0.0,
    self_conditioned: bool = True,
    conditions: Mapping[str, Tensor] | None = None,
    negative: Mapping[str, Tensor] | None = None,
    weaker: Away | None = None,
) -> Denoise:
    """The denoiser to sample with: conditional, unconditional, or guided with `weight` (VDM eq 6; 0 = no guidance).

    conditions: others than labels, by name. Guidance goes from none of them to all; for a subset, guide with
    `minivdm.core.classifier_free` and hand in the result. temporal_weight: of the guidance towards frames that belong
    together, away from the same network's answer for each frame by itself (`minivdm.core.FramesApart`); it needs no
    condition, and costs a further evaluation. negative: conditions by name in place of none, such as what a clip shall
    not show; guidance then moves away from what they say. self_conditioned: a network made for it is handed its own
    last estimate. weaker: a worse network, such as the same one earlier in its training, and the weight w_a >= 0 of
    the guidance away from what it says of the same conditions (autoguidance, Karras et al. 2024), possibly in an
    interval of log-SNR alone (`core.autoguidance.Weaker`); a further evaluation there.
    """
    schedule = schedule_of(denoise)
    real("weight", weight, least=0)
    real("temporal_weight", temporal_weight, least=0)
    wanted = {name: value for name, value in {"labels": labels, **(conditions or {})}.items() if value is not None}
    if weight and not wanted:
        raise BadArgument(f"weight: guidance needs labels; expected weight 0 without them, got {weight}")
    if not isinstance(denoise, Conditional):
        if wanted or negative:
            raise BadType(
                "labels: expected a denoiser that takes them by .given(labels), got one that is bound already"
            )
        if temporal_weight:
            raise BadType("temporal_weight: expected a denoiser that takes a frame_mask, got one that is bound already")
        if weaker is not None:
            raise BadType("weaker: expected none beside a denoiser that is bound already, got one")
        return denoise
    if weaker is not None and not isinstance(as_weaker(weaker).denoise, Conditional):
        raise BadType("weaker: expected a denoiser that takes conditions by .given, got one that is bound already")

    def of(estimate: Tensor | None) -> Denoise:
        return answer(denoise, wanted, weight, temporal_weight, negative=negative, weaker=weaker, estimate=estimate)

    if not (self_conditioned and takes_estimate(denoise)):
        return of(None)
    return SelfConditioned(of, schedule, getattr(denoise, "bounds", None) or (-1.0, 1.0))


def answer(
    denoise: Conditional,
    conditions: Mapping[str, Tensor],
    weight: float,
    temporal_weight: float = 0.0,
    *,
    negative: Mapping[str, Tensor] | None = None,
    weaker: Away | None = None,
    estimate: Tensor | None = None,
) -> Denoise:
    """The denoiser of one step of `guided`, whose arguments these are. estimate: that it is handed, if any."""
    own = {} if estimate is None else {"estimate": estimate}
    asked = denoise.given(**{"labels": None, **conditions, **own})
    away: list[tuple[Denoise, float] | Weaker] = []
    if weight:
        away.append((denoise.given(**{"labels": None, **(negative or {}), **own}), weight))
    if temporal_weight:
        away.append((FramesApart(denoise, {**conditions, **own}), temporal_weight))
    if weaker is not None and weaker[1]:
        told = own if takes_estimate(weaker[0]) else {}
        away.append(Weaker(weaker[0].given(**{"labels": None, **conditions, **told}), *weaker[1:]))
    return away_from(asked, *away) if away else asked


check_types(globals())
