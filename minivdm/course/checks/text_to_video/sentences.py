"""Checks of exercises 13.2, 13.4 and 13.5: a sentence's mean, what it says, and the clips that it is true of."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, video
from minivdm.data.captions import COMPASS, DIGITS

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
