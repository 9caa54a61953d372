"""Checks of exercises 13.1, 13.3 and 13.6: what a network does with a sentence, and whether its clip obeys."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, per_sample, uniform, video

# ---- away from a sentence ------------------------------------------------------------------------------------


def _away_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    w = float(uniform(g, 1.5, 4.0))
    levels = torch.tensor([-3.0, 0.5, 2.0], dtype=torch.float64)
    for dtype in FLOATS:
        pair = video(g, 3, 1, 2, 4, 3, dtype=dtype), video(g, 3, 1, 2, 4, 3, dtype=dtype)
        yield Case(f"{name_of(dtype)}, three clips below and above the limit", (*pair, levels.to(dtype), w, 1.0))
    pair = video(g, 3, 2), video(g, 3, 2)
    yield Case("points, one level at the limit itself", (*pair, levels, w, 0.5))
    yield Case("w = 0", (*pair, levels, 0.0, 9.0))


def _away(
    wanted: Tensor,
    unwanted: Tensor,
    levels: Tensor,
    w: float,
    until: float,
    mix: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda c, n, w: (1 + w) * c - w * n,
    on: Callable[[Tensor, float], Tensor] = lambda levels, until: levels < until,
) -> Tensor:
    weight = torch.where(on(levels, until), torch.full_like(levels, w), torch.zeros_like(levels))
    return mix(wanted, unwanted, per_sample(weight, wanted))


def _away_but(**changes: Any) -> Callable[..., Tensor]:
    return functools.partial(_away, **changes)


away_from = Check(
    "away_from",
    _away,
    _away_cases,
    [
        Wrong(
            _away_but(mix=lambda c, n, w: n + w * (c - n)), "your w is 1 without guidance; in (13.3) w = 0 gives x_c."
        ),
        Wrong(
            _away_but(mix=lambda c, n, w: (1 - w) * c + w * n), "you are drawn towards the sentence that is not wanted."
        ),
        Wrong(
            _away_but(on=lambda a, b: torch.ones_like(a).bool()),
            "you guide at every level; above `until` x_c is left as it is.",
        ),
        Wrong(_away_but(on=lambda a, b: a > b), "you guide where the noise is small; a low log-SNR is much noise."),
        Wrong(_away_but(on=lambda a, b: a <= b), "at `until` itself the guidance has ended."),
    ],
)


# ---- obedience -----------------------------------------------------------------------------------------------


def _obeyed_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for n in (20, 90):
        right, said = uniform(g, 0, 1, n) < 0.7, uniform(g, 0, 1, n) < 0.6
        right[:3], said[:3] = torch.tensor([True, False, True]), torch.tensor([False, True, True])
        yield Case(f"{n} clips, some sentences silent, 95 %", (right, said, 1.96))
    yield Case("all obey", (torch.ones(20).bool(), torch.ones(20).bool(), 1.96))
    yield Case("none obeys, 99 %", (torch.zeros(9).bool(), torch.ones(9).bool(), 2.576))


def _obeyed(
    right: Tensor,
    said: Tensor,
    zeta: float,
    count: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda right, said: ((right & said).sum(), said.sum()),
    slip: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    hits, n = (value.double() for value in count(right, said))
    p, z2 = hits / n, zeta**2
    if slip == "wald":
        half = zeta * (p * (1 - p) / n).sqrt()
        return p, p - half, p + half
    centre, half = p + z2 / (2 * n), zeta * (p * (1 - p) / n + z2 / (4 * n**2)).sqrt()
    whole = torch.ones_like(n) if slip == "undivided" else 1 + z2 / n
    shown = centre / whole if slip == "centre" else p
    return shown, (centre - half) / whole, (centre + half) / whole


obedience_interval = Check(
    "obedience_interval",
    _obeyed,
    _obeyed_cases,
    [
        Wrong(
            functools.partial(_obeyed, slip="wald"),
            "these are the share plus and minus standard errors, 0 where all obey; (13.5) is Wilson's.",
        ),
        Wrong(functools.partial(_obeyed, slip="undivided"), "the divisor 1 + zeta² / n is missing."),
        Wrong(
            functools.partial(_obeyed, slip="centre"),
            "your share is the middle of the interval; the share is hits over count.",
        ),
        Wrong(
            functools.partial(_obeyed, count=lambda r, s: (r.sum(), torch.tensor(len(r)))),
            "you count clips whose sentence says nothing of the attribute.",
        ),
        Wrong(
            functools.partial(_obeyed, count=lambda r, s: ((r & s).sum(), torch.tensor(len(r)))),
            "you divide by all clips; only those whose sentence mentions the attribute count.",
        ),
        Wrong(
            lambda right, said, zeta: tuple(_obeyed(right, said, zeta)[k] for k in (1, 0, 2)),
            "your results are in another order: the share, the lower end, the upper end.",
        ),
    ],
)


# ---- cross-attention -----------------------------------------------------------------------------------------


def _cross_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    for dtype in FLOATS:
        q, k, v = (video(g, 3, n, 8, dtype=dtype) for n in (5, 4, 4))
        yield Case(f"{name_of(dtype)}, two heads, one sentence empty", (q, k, v, mask, 2))
    q, k, v = (video(g, 2, n, 6) for n in (3, 4, 4))
    yield Case("one head, full sentences", (q, k, v, torch.ones(2, 4).bool(), 1))
    yield Case("three heads, nothing said at all", (q, k, v, torch.zeros(2, 4).bool(), 3))


def _cross(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int, slip: str = "") -> Tensor:
    b, places, c = q.shape
    d = c // heads
    if slip == "split":
        q, k, v = (x.reshape(b, -1, d, heads).permute(0, 3, 1, 2) for x in (q, k, v))
    else:
        q, k, v = (x.reshape(b, -1, heads, d).transpose(1, 2) for x in (q, k, v))
    logits = q @ k.mT / {"width": c, "unscaled": 1}.get(slip, d) ** 0.5
    there = mask[:, None, None]
    if slip == "empty":
        weights = logits.masked_fill(~there, -torch.inf).softmax(-1)
    elif slip == "late":
        weights = logits.softmax(-1) * there
    elif slip == "places":
        weights = logits.softmax(-2) * there
    elif slip == "open":
        weights = logits.softmax(-1) * there.any(-1, keepdim=True)
    elif slip == "even":
        weights = logits.masked_fill(~there, -1e9).softmax(-1)
    else:
        weights = logits.masked_fill(~there, -torch.inf).softmax(-1).nan_to_num(0.0)
    return (weights @ v).transpose(1, 2).reshape(b, places, c)


def _cross_but(slip: str) -> Callable[..., Tensor]:
    return functools.partial(_cross, slip=slip)


cross_attention = Check(
    "cross_attention",
    _cross,
    _cross_cases,
    [
        Wrong(
            _cross_but("empty"), "where there is no word at all, your softmax divides 0 by 0; an empty sentence adds 0."
        ),
        Wrong(_cross_but("even"), "an empty sentence is attended to evenly, padding and all; it has to add 0."),
        Wrong(
            _cross_but("late"), "you mask after the softmax: what padding took is lost, and weights do not sum to 1."
        ),
        Wrong(_cross_but("open"), "your places look at padding: it needs a mask before the softmax."),
        Wrong(
            _cross_but("places"), "your softmax runs over the places; each place spreads its attention over the words."
        ),
        Wrong(_cross_but("unscaled"), "your logits are not divided by the root of d."),
        Wrong(_cross_but("width"), "you divide by the root of all channels; d is those of one head."),
        Wrong(_cross_but("split"), "your heads take every heads-th channel; a head has d channels side by side."),
    ],
)
