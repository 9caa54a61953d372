"""Checks of assignment 13: sentences, what a network does with them, and whether a clip obeys."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video
from minivdm.data.captions import COMPASS, DIGITS

FLOATS = (torch.float64, torch.float32)


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 1))


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
    return mix(wanted, unwanted, _per_sample(weight, wanted))


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


# ---- the mean of the words -----------------------------------------------------------------------------------


def _words_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    rows = torch.tensor([[4, 9, 2, 0, 0], [7, 0, 0, 0, 0], [3, 3, 1, 8, 5], [0, 0, 0, 0, 0]])
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, long and short sentences, one empty", (video(g, 4, 5, 6, dtype=dtype) + 1, rows))
    yield Case("one full sentence", (video(g, 1, 3, 2), torch.tensor([[1, 2, 3]])))
    yield Case("nothing but empty ones", (video(g, 2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)))


def _words(features: Tensor, tokens: Tensor) -> Tensor:
    there = (tokens != 0).to(features.dtype)
    return torch.einsum("bne,bn->be", features, there) / there.sum(1).clamp(min=1)[:, None]


def _unguarded(features: Tensor, tokens: Tensor) -> Tensor:
    there = (tokens > 0).to(features.dtype)[..., None]
    return (features * there).sum(1) / there.sum(1)


mean_of_words = Check(
    "mean_of_words",
    _words,
    _words_cases,
    [
        Wrong(lambda f, t: f.mean(1), "you average over all places; where the token is 0 there is no word."),
        Wrong(
            lambda f, t: (f * (t > 0)[..., None]).mean(1),
            "you leave the empty places out of the sum, but divide by them too.",
        ),
        Wrong(lambda f, t: (f * (t > 0)[..., None]).sum(1), "you add the words up; asked is their mean."),
        Wrong(_unguarded, "an empty sentence divides 0 by 0; its mean is 0."),
        Wrong(
            lambda f, t: (f * t[..., None]).sum(1) / t.sum(1).clamp(min=1)[:, None],
            "you weigh each word by its number in the vocabulary.",
        ),
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


# ---- reading -------------------------------------------------------------------------------------------------

GRAMMAR = re.compile(
    rf"(?:a )?(?:(slow|fast) )?({'|'.join(DIGITS)})(?: moving ((?:up|down)(?: and (?:left|right))?|left|right))?"
)


def _read(sentence: str) -> tuple[int, int, int]:
    match = GRAMMAR.fullmatch(sentence)
    if not match:
        raise ValueError("outside the grammar")
    speed = -1 if match[1] is None else ("slow", "fast").index(match[1])
    return speed, DIGITS.index(match[2]), -1 if match[3] is None else COMPASS.index(match[3])


def _said(speed: int, digit: int, direction: int, article: bool) -> str:
    parts = ["a"] * article + [("slow", "fast")[speed]] * (speed >= 0) + [DIGITS[digit]]
    return " ".join(parts + ([f"moving {COMPASS[direction]}"] if direction >= 0 else []))


def _sentences(seed: int) -> Iterator[Case]:
    g = generator(seed)
    every = []
    for speed in (-1, 0, 1):
        for direction in range(-1, 8):
            digit, article = (int(torch.randint(n, (), generator=g)) for n in (10, 2))
            every.append(_said(speed, digit, direction, bool(article)))
    yield Case("one sentence of each kind", (every,))
    yield Case("every digit", ([_said(-1, k, -1, False) for k in range(10)],))
    yield Case("with an end that is missing", (["a", "a slow", "a three moving", "a three moving up and", "slow", ""],))
    yield Case(
        "outside the grammar",
        (
            [
                "three a",
                "a thirteen",
                "a three moving up and down",
                "a three moving up up",
                "a three moving left and up",
            ]
            + [
                "a slow fast three",
                "a three slow",
                "a three moving up left",
                "a three moving up and left left",
                "moving up",
            ]
            + ["a a three", "a three jumping up", "three three", "a three moving up then left", "a three and left"],
        ),
    )


def _each_read(answer: Callable[..., Any], sentences: Sequence[str]) -> list[Any]:
    """A probe: what the answer makes of each sentence, -9 for a ValueError."""
    found: list[Any] = []
    for sentence in sentences:
        try:
            found.append(answer(sentence))
        except ValueError:
            found.append((-9, -9, -9))
    return found


def _searched(sentence: str) -> tuple[int, int, int]:
    """Looks for words wherever they stand."""
    words = sentence.split()
    speed = next((k for k, word in enumerate(("slow", "fast")) if word in words), -1)
    points = " and ".join(word for word in words if word in ("up", "down", "left", "right"))
    digit = next((k for k, word in enumerate(DIGITS) if word in words), -1)
    return speed, digit, COMPASS.index(points) if points in COMPASS else -1


def _after(found: Callable[[int, int, int], tuple[int, int, int]]) -> Callable[[str], tuple[int, int, int]]:
    return lambda sentence: found(*_read(sentence))


read_caption = Check(
    "read_caption",
    _read,
    _sentences,
    [
        Wrong(
            _searched,
            "you look for words wherever they stand; what the grammar does not allow has to raise ValueError.",
        ),
        Wrong(_after(lambda s, k, d: (s, k + 1, d)), "your digits are one too large: zero is 0."),
        Wrong(_after(lambda s, k, d: (s, k, max(d, 0))), "a sentence without a direction gets one; return -1 there."),
        Wrong(_after(lambda s, k, d: (max(s, 0), k, d)), "a sentence without a speed gets one; return -1 there."),
        Wrong(_after(lambda s, k, d: (k, s, d)), "your results are in another order: speed, digit, direction."),
        Wrong(
            _after(lambda s, k, d: (s, k, d if d < 0 else (8 - d) % 8)),
            "your compass runs clockwise; use the places in COMPASS.",
        ),
    ],
    probe=_each_read,
)


# ---- sentences that are true of several clips ----------------------------------------------------------------


def _pairs_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    several = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [1, 1, 0, 1]]).bool()
    for dtype in FLOATS:
        a, b = (torch.nn.functional.normalize(video(g, 4, 6, dtype=dtype), dim=1) for _ in range(2))
        yield Case(f"{name_of(dtype)}, sentences true of one to three clips", (a, b, several, 0.3))
    a, b = (torch.nn.functional.normalize(video(g, n, 5), dim=1) for n in (3, 2))
    yield Case("three clips, two sentences", (a, b, torch.tensor([[1, 0], [1, 1], [0, 1]]).bool(), 0.7))
    a, b = (torch.nn.functional.normalize(video(g, 5, 8), dim=1) for _ in range(2))
    yield Case("each with its own alone, as in CLIP", (a, b, torch.eye(5).bool(), 0.07))


def _pairs(a: Tensor, b: Tensor, fits: Tensor, tau: float, slip: str = "") -> Tensor:
    s = a @ b.T * (tau if slip == "tau" else 1 if slip == "cold" else 1 / tau)
    true = torch.eye(*fits.shape, dtype=torch.bool) if slip == "own" else fits
    halves = []
    for axis in (1, 0):
        logs = s - s.logsumexp(axis, keepdim=True)
        each = (logs * true).sum(axis)
        if slip == "inside":
            each = (s.masked_fill(~true, -torch.inf).logsumexp(axis)) - s.logsumexp(axis)
        elif slip != "sum":
            each = each / true.sum(axis).clamp(min=1)
        halves.append(-each.mean())
    if slip in ("clips", "added"):
        return halves[0] if slip == "clips" else halves[0] + halves[1]
    return (halves[0] + halves[1]) / 2


def _pairs_but(slip: str) -> Callable[..., Tensor]:
    return functools.partial(_pairs, slip=slip)


contrastive_loss = Check(
    "contrastive_loss",
    _pairs,
    _pairs_cases,
    [
        Wrong(
            _pairs_but("own"),
            "you call every sentence but a clip's own wrong, as (13.6) does; `fits` says which are true.",
        ),
        Wrong(_pairs_but("sum"), "the mean over the true sentences is missing: divide by their number."),
        Wrong(
            _pairs_but("inside"), "you add probabilities before the logarithm; (13.7) has the mean of the logarithms."
        ),
        Wrong(_pairs_but("clips"), "clips pick sentences here; sentences have to pick their clips too."),
        Wrong(_pairs_but("added"), "you add the two halves; asked is their mean."),
        Wrong(_pairs_but("tau"), "you multiply by tau; cosines are divided by it."),
        Wrong(_pairs_but("cold"), "the temperature is missing."),
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
