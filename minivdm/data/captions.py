"""Captions of Moving-MNIST clips: a small closed language, written from a clip's own truth and read back.

"a slow three moving up and left then bouncing" says which digit, how fast, where to, and whether it meets a wall. Every
sentence of the language can be parsed, so that a generated clip can be held against the sentence that asked for it, one
attribute at a time and without a judge. An attribute that a sentence does not mention is left open.

    caption   = [subject] [motion] [bounce]                     at least one of them
    subject   = [article] [slow | fast] (digit word | "digit" | "number")
    motion    = verb [slowly | quickly] [direction] [slowly | quickly]
    direction = point [["and"] point]                           one of up, down and one of left, right; or one of them
    point     = ["to" "the"] word
    bounce    = ("and" | "then") "bouncing" ["off" article "wall"]  |  ("without" | "never") "bouncing"
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TypeVar

import torch
from torch import Tensor

from minivdm.guards import BadArgument, check_types, whole

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: The eight directions, counter-clockwise from the right, 45 degrees apart; the canvas' y axis points down.
COMPASS = ("right", "up and right", "up", "up and left", "left", "down and left", "down", "down and right")
SPEEDS = ("slow", "fast")

ARTICLES = ("a", "an", "the")
ADJECTIVES = {"slow": ("slow", "lazy", "calm"), "fast": ("fast", "quick", "rapid")}
ADVERBS = {"slow": ("slowly", "calmly"), "fast": ("quickly", "rapidly")}
ANY_DIGIT = ("digit", "number")
VERBS = ("moving", "going", "drifting", "gliding", "heading")
POINTS = {
    "up": ("up", "upwards", "north"),
    "down": ("down", "downwards", "south"),
    "left": ("left", "leftwards", "west"),
    "right": ("right", "rightwards", "east"),
}
BOUNCES = ("bouncing", "rebounding")
NEGATIONS = ("without", "never")

_OF_ADJECTIVE = {word: speed for speed, words in ADJECTIVES.items() for word in words}
_OF_ADVERB = {word: speed for speed, words in ADVERBS.items() for word in words}
_OF_POINT = {word: point for point, words in POINTS.items() for word in words}
#: Every word; a word's token is its place here plus one, as 0 stands for no word.
VOCABULARY: tuple[str, ...] = (
    *ARTICLES, *_OF_ADJECTIVE, *_OF_ADVERB, *DIGITS, *ANY_DIGIT, *VERBS, *_OF_POINT, *BOUNCES, *NEGATIONS,
    "and", "then", "to", "off", "wall",
)  # fmt: skip
#: Other spellings, replaced before a sentence is read.
SPELLINGS = {str(n): word for n, word in enumerate(DIGITS)} | {
    f"{y}{x}": f"{y} {x}" for y in ("north", "south") for x in ("west", "east")
}
#: Tokens of a sentence. The longest, "a slow three moving up and to the left then bouncing off the wall", has 14.
LENGTH = 16


Option = TypeVar("Option")


class CaptionError(BadArgument):
    """A sentence outside the language; the message names the word, and the nearest one that there is."""


@dataclass(frozen=True)
class Caption:
    """What a sentence says of a clip; None where it says nothing.

    Attributes:
        digit: 0 to 9.
        direction: 0 to 7, a place in `COMPASS`.
        speed: 0 for slow, 1 for fast.
        bounce: whether the digit meets a wall.
    """

    digit: int | None = None
    direction: int | None = None
    speed: int | None = None
    bounce: bool | None = None

    def __post_init__(self) -> None:
        for name, most in dict(digit=9, direction=7, speed=1).items():
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 0, most)

    def agrees(self, other: Caption) -> bool:
        """Whether nothing that this caption says is otherwise in the other one."""
        return all(a is None or a == b for a, b in zip(astuple(self), astuple(other), strict=True))

    def __str__(self) -> str:
        return say(self)


def say(caption: Caption, variant: int = 0) -> str:
    """A sentence that says what a caption does; "a digit" says nothing.

    variant: any whole number from 0; each chooses other synonyms, and 0 the plainest.
    """
    choose = _Chooser(whole("variant", variant, 0, 2**62))
    c, words = caption, list[str]()
    alone = c.direction is None and c.bounce is None or choose((True, False))  # whether there has to be a subject
    speed = None if c.speed is None else SPEEDS[c.speed]
    as_adverb = speed is not None and c.direction is not None and choose((False, False, True))
    if speed is not None or c.digit is not None or alone:
        subject = [choose(ADJECTIVES[speed])] if speed is not None and not as_adverb else []
        subject += [DIGITS[c.digit] if c.digit is not None else choose(ANY_DIGIT)]
        article = "an" if subject[0] == "eight" else "a"
        words += [choose((article, article, article, "the")), *subject]
    if c.direction is not None:
        points = [choose(POINTS[point]) for point in COMPASS[c.direction].split(" and ")]
        if len(points) == 2:
            points = points[::-1] if choose((False, False, True)) else points
            joint: list[str] = choose((["and"], ["and"], []))
            points = [points[0], *joint, points[1]]
        if points[-1] in ("left", "right") and choose((False, False, True)):
            points[-1:] = ["to", "the", points[-1]]
        adverb = [choose(ADVERBS[speed])] if as_adverb and speed is not None else []
        before = bool(adverb) and choose((True, False))
        words += [choose(VERBS), *(adverb if before else []), *points, *([] if before else adverb)]
    if c.bounce is not None:
        walls: tuple[list[str], ...] = ([], ["off", "a", "wall"], ["off", "the", "wall"])
        wall = choose(walls) if c.bounce else []
        words += [choose(("and", "then") if c.bounce else NEGATIONS), choose(BOUNCES), *wall]
    return " ".join(words)


class _Chooser:
    """Choices that a whole number decides, by its digits in a mixed base; from 0 on, always the first."""

    def __init__(self, variant: int) -> None:
        self.left = variant

    def __call__(self, options: Sequence[Option]) -> Option:
        self.left, place = divmod(self.left, len(options))
        return options[place]


def split(text: str) -> list[str]:
    """The words of a sentence, lower case, numerals and compound points written out.

    Raises:
        CaptionError: no words, a word that the language does not have, too many words.
    """
    raw = re.sub(r"[.,;!-]", " ", text.lower()).split()
    words = [word for part in raw for word in SPELLINGS.get(part, part).split()]
    if not words:
        raise CaptionError(f"caption: expected a sentence such as 'a slow three moving up and left', got {text!r}")
    for word in words:
        if word not in VOCABULARY:
            near = difflib.get_close_matches(word, [*VOCABULARY, *SPELLINGS], n=1, cutoff=0.0)
            raise CaptionError(f"caption: expected a word of the language, got {word!r}; the nearest is {near[0]!r}")
    if len(words) > LENGTH:
        raise CaptionError(f"caption: expected at most {LENGTH} words, got {len(words)}")
    return words


def parse(text: str) -> Caption:
    """What a sentence says, the inverse of `say`. Raises CaptionError, which names the word that does not fit."""
    return _Parser(split(text)).caption()


def tokens(texts: str | Sequence[str]) -> Tensor:
    """Sentences as tokens (b, LENGTH) int64, 0 after the last word: what a network with text takes as `text`.

    An empty row, all 0, stands for no sentence. Raises CaptionError for a sentence outside the language.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    rows = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        parse(text)
        words = split(text)
        row[: len(words)] = torch.tensor([VOCABULARY.index(word) + 1 for word in words])
    return rows


def words(row: Tensor) -> list[str]:
    """The words of one row of `tokens`, (LENGTH,)."""
    return [VOCABULARY[int(token) - 1] for token in row if token > 0]


class _Parser:
    """One pass over the words, with one word looked ahead; a rule of the grammar is a method."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.at = words, 0
        self.speed: int | None = None

    def next(self, ahead: int = 0) -> str:
        return self.words[self.at + ahead] if self.at + ahead < len(self.words) else ""

    def take(self, *wanted: str) -> str:
        """The next word if it is one of these, else nothing."""
        if self.next() and self.next() in wanted:
            self.at += 1
            return self.words[self.at - 1]
        return ""

    def need(self, what: str, *wanted: str) -> str:
        return self.take(*wanted) or self.fail(what)

    def fail(self, expected: str) -> str:
        after = f" after {' '.join(self.words[: self.at])!r}" if self.at else ""
        got = repr(self.next()) if self.next() else "the end"
        raise CaptionError(f"caption: expected {expected}{after}, got {got}")

    def said(self, speed: str) -> None:
        """Note a speed; two that differ cannot both be meant."""
        place = SPEEDS.index(speed)
        if self.speed not in (None, place):
            self.at -= 1
            self.fail(f"no word against {SPEEDS[1 - place]!r}")
        self.speed = place

    def caption(self) -> Caption:
        digit, direction = self.subject(), self.motion()
        bounce = self.bounce()
        if self.at < len(self.words):
            self.fail("a motion, 'and bouncing' or the end" if self.at else "an article, a digit or a verb")
        return Caption(digit, direction, self.speed, bounce)

    def subject(self) -> int | None:
        article = self.take(*ARTICLES)
        adjective = self.take(*_OF_ADJECTIVE)
        if adjective:
            self.said(_OF_ADJECTIVE[adjective])
        if word := self.take(*DIGITS):
            return DIGITS.index(word)
        if not self.take(*ANY_DIGIT) and (article or adjective):
            self.fail("a digit such as 'three', or 'digit'")
        return None

    def motion(self) -> int | None:
        if not self.take(*VERBS):
            return None
        self.adverb()
        direction = self.direction()
        self.adverb()
        return direction

    def adverb(self) -> None:
        if word := self.take(*_OF_ADVERB):
            self.said(_OF_ADVERB[word])

    def direction(self) -> int | None:
        points = [point] if (point := self.point()) else []
        if points and (self.next() in (*_OF_POINT, "to") or (self.next() == "and" and self.next(1) not in BOUNCES)):
            self.take("and")
            points.append(self.point() or self.fail("a direction"))
        found = [place for place, name in enumerate(COMPASS) if set(name.split(" and ")) == set(points)]
        if points and (not found or len(points) != len(set(points))):
            self.at -= 1
            self.fail("a direction that goes with the one before")
        return found[0] if points else None

    def point(self) -> str:
        if self.take("to"):
            self.need("'the'", "the")
            return _OF_POINT[self.need("a direction", *_OF_POINT)]
        return _OF_POINT.get(self.take(*_OF_POINT), "")

    def bounce(self) -> bool | None:
        if self.take(*NEGATIONS):
            self.need("'bouncing'", *BOUNCES)
            return False
        if not self.take("and", "then"):
            return None
        self.need("'bouncing'", *BOUNCES)
        if self.take("off"):
            self.need("an article", *ARTICLES)
            self.need("'wall'", "wall")
        return True


check_types(globals())
