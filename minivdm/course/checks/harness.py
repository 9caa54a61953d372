"""How a check works: it calls the learner's function on many inputs and says what is right or what is probably wrong.

A `Check` knows the right answer, the inputs to try, and typical wrong answers with a sentence for each. Where the
learner gives something else than the right answer, it looks for the typical wrong answer that gives the same, and says
its sentence; where there is none, it says on which input, what came and what was expected. It never shows the solution,
refuses an answer that calls it, and depends on nothing but the function and the seed it is given. An answer that is
right to single precision is right, unless a check asks for more.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.compare import changed, copied, differs, tensors
from minivdm.course.checks.inputs import (
    FLOATS,
    Counted,
    counting,
    counting_while_sampling,
    generator,
    integer,
    name_of,
    ordered_pair,
    per_sample,
    uniform,
    video,
    while_sampling,
)
from minivdm.course.checks.limits import SECRET, Borrowed, codes, conceal, limit, sealed

__all__ = [
    "FLOATS",
    "Case",
    "Check",
    "CheckFailed",
    "Counted",
    "Unfinished",
    "Wrong",
    "counting",
    "counting_while_sampling",
    "generator",
    "integer",
    "name_of",
    "ordered_pair",
    "per_sample",
    "uniform",
    "video",
    "while_sampling",
]


class CheckFailed(AssertionError):
    """An answer that is not right. `kind` says in which way, in a word or two; the message is for the learner.

    Kinds: "not a function", "borrowed", "raised", "time", "changed its input", "not new", "graph", "random",
    "nothing", "numpy", "type", "shape", "dtype", "not finite", "value"; and "named" where a typical mistake was
    recognised.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message alone, without the lines of this file."""
        return [f"{type(self).__name__}: {self}"]


class Unfinished(CheckFailed):
    """The stub is still there: not a wrong answer."""


@dataclass(frozen=True)
class Case:
    """One input. name: what is special about it, in a learner's words, such as "float32, t = 1"."""

    name: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Wrong:
    """A typical wrong answer, called as the right one is, and the sentence for somebody who gave it."""

    answer: Callable[..., Any]
    says: str


@dataclass(frozen=True)
class Outcome:
    """What a call gave: a value, or the exception it raised."""

    value: Any = None
    error: Exception | None = None


class Check:
    """`check(answer)` prints what is right, or raises CheckFailed, or Unfinished for a stub.

    Args:
        name: of the function that the learner writes.
        right: the right answer.
        cases: seed -> inputs, made anew at each call, so that no answer can spoil them for the next. Random inputs of
            several shapes and dtypes, and the edges.
        wrong: typical wrong answers, at least three; each differs from the right one on some case.
        probe: (answer, *arguments) -> what is compared; by default what the answer returns. For classes, gradients,
            numbers of calls, and functions of functions. A dictionary is compared by its names.
        relative: largest error as a share of the largest expected value, instead of the dtype's own.
        new: whether the results have to be tensors of their own, which share no memory with the inputs.
        detached: whether the results must not keep a graph.
        seconds: time limit for all calls of the answer together.
    """

    def __init__(
        self,
        name: str,
        right: Callable[..., Any],
        cases: Callable[[int], Iterable[Case]],
        wrong: Sequence[Wrong],
        *,
        probe: Callable[..., Any] | None = None,
        relative: float | None = None,
        new: bool = False,
        detached: bool = False,
        seconds: float = 20.0,
    ) -> None:
        self.name, self._right, self.cases, self.wrong = name, right, cases, tuple(wrong)
        self.probe, self.relative, self.seconds = probe, relative, seconds
        self.new, self.detached = new, detached
        conceal(right)

    def __repr__(self) -> str:
        return f"<check of {self.name}>"

    def __call__(self, answer: Callable[..., Any], seed: int = 0) -> None:
        """Try `answer` on inputs drawn from `seed`; print a line if all is right. Raises CheckFailed or Unfinished."""
        if not callable(answer):
            got = type(answer).__name__
            self._fail(
                "not a function",
                f"expected the function itself, got a {got}: write `{self.name}` without brackets behind it",
            )
        if codes(answer) & SECRET:
            self._borrowed()
        if str(getattr(answer, "__module__", "")).startswith("minivdm."):
            self._fail("borrowed", "this is the package's own. Write one of yours")
        names = self.compare(answer, seed)
        print(f"✓ {self.name} is right on {len(names)} inputs: {'; '.join(names)}.")

    def compare(self, answer: Callable[..., Any], seed: int) -> list[str]:
        """The names of the inputs, on all of which `answer` is right. Raises CheckFailed or Unfinished."""
        names, expected = [], []
        for case in self.cases(seed):
            names.append(case.name)
            expected.append(self._call(self._right, case))
        if broken := next((e.error for e in expected if e.error is not None), None):
            raise broken  # of the check, not of the learner
        found = self._tried(answer, seed)
        for i, (name, wanted, got) in enumerate(zip(names, expected, found, strict=True)):
            self._unfinished(got)
            complaint = _complaint(wanted.value, got, self.relative)
            if complaint is None:
                continue
            where = f'on the input "{name}"' + (f"; right on: {'; '.join(names[:i])}" if i else "")
            if complaint[0] == "value" and self._draws(answer, got, i, seed):
                self._fail(
                    "random",
                    "called twice on the same input, it gives two different results: it draws random numbers of its "
                    f"own. All randomness that a function here needs is among its arguments\n  ({where})",
                )
            if says := self._named(found, i, seed):
                self._fail("named", f"{says}\n  (seen {where})", got.error)
            self._fail(complaint[0], f"{complaint[1]}\n  ({where})", got.error)
        return names

    # ---- calling -------------------------------------------------------------------------------------------

    def _call(self, answer: Callable[..., Any], case: Case) -> Outcome:
        try:
            if self.probe is not None:
                return Outcome(self.probe(answer, *case.arguments))
            return Outcome(answer(*case.arguments))
        except Exception as error:  # whatever a learner's function raises
            return Outcome(error=error)

    def _tried(self, answer: Callable[..., Any], seed: int) -> list[Outcome]:
        found = []
        state = torch.get_rng_state()  # a function that seeds or draws globally must not steer what comes after it
        try:
            with limit(self.seconds), sealed() as seal:
                for case in self.cases(seed):
                    before = copied(case.arguments)
                    found.append(self._call(answer, case))
                    if seal.broken or isinstance(found[-1].error, Borrowed):
                        self._borrowed()
                    if said := changed(before, case.arguments):
                        self._fail("changed its input", f'{said}\n  (on the input "{case.name}")')
                    self._clean(found[-1].value, case)
        except TimeoutError:
            self._fail("time", f"no answer within {self.seconds:g} seconds; does a loop never end?")
        finally:
            torch.set_rng_state(state)
        return found

    def _clean(self, value: Any, case: Case) -> None:
        """Fails where a result is not new, or keeps a graph, though it should."""
        results = tensors(value)
        if self.new:
            taken = {tensor.untyped_storage().data_ptr() for tensor in tensors(case.arguments) if tensor.numel()}
            if any(tensor.untyped_storage().data_ptr() in taken for tensor in results):
                self._fail(
                    "not new",
                    "it returns a tensor that it was given, or a view of one: whoever changes the result changes the "
                    f'input too. New tensors are asked for\n  (on the input "{case.name}")',
                )
        if self.detached and any(tensor.requires_grad for tensor in results):
            self._fail(
                "graph",
                "its result still carries a graph, which would grow with every step and fill the memory: return "
                f'x.detach(), or compute the result outside of torch.enable_grad()\n  (on the input "{case.name}")',
            )

    def _draws(self, answer: Callable[..., Any], got: Outcome, i: int, seed: int) -> bool:
        """Does a second call on input i, with other random numbers at hand, give something else?"""
        state = torch.get_rng_state()
        try:
            torch.rand(7)
            with limit(self.seconds):
                again = self._call(answer, list(self.cases(seed))[i])
        except TimeoutError:
            return False
        finally:
            torch.set_rng_state(state)
        return again.error is None and not _agree(got, again, self.relative)

    def _named(self, found: list[Outcome], i: int, seed: int) -> str | None:
        """The sentence of the wrong answer that agrees with the learner's on input i, and on most others."""
        best, most = None, 0
        for wrong in self.wrong:
            theirs = [self._call(wrong.answer, case) for case in self.cases(seed)]
            if _agree(theirs[i], found[i], self.relative):
                agreed = sum(_agree(a, b, self.relative) for a, b in zip(theirs, found, strict=True))
                if agreed > most:
                    best, most = wrong.says, agreed
        return best

    def _unfinished(self, got: Outcome) -> None:
        if isinstance(got.error, NotImplementedError):
            raise Unfinished(
                f"{self.name} is not written yet: replace `raise NotImplementedError()` by your code.", "unfinished"
            ) from None

    def _borrowed(self) -> None:
        self._fail("borrowed", "it calls this check's own answer. Write one of yours")

    def _fail(self, kind: str, message: str, cause: BaseException | None = None) -> None:
        raise CheckFailed(f"{self.name} is not right yet: {message}", kind) from cause


conceal(Check.__call__)
conceal(Check.compare)


def _complaint(wanted: Any, got: Outcome, relative: float | None) -> tuple[str, str] | None:
    """(kind, text) of what is wrong with an outcome, or None."""
    if got.error is not None:
        line = next(
            (
                f" (line {frame.lineno} of {frame.name}: {frame.line})"
                for frame in reversed(traceback.extract_tb(got.error.__traceback__))
                if "minivdm" not in frame.filename and "torch" not in frame.filename
            ),
            "",
        )
        return "raised", f"it raised {type(got.error).__name__}: {got.error}{line}"
    return differs(wanted, got.value, relative)


def _agree(a: Outcome, b: Outcome, relative: float | None) -> bool:
    """Did two answers give the same, be it a wrong shape or an exception?"""
    if a.error is not None or b.error is not None:
        return type(a.error) is type(b.error) and str(a.error) == str(b.error)
    if a.value is None or b.value is None:
        return a.value is b.value
    if isinstance(a.value, Tensor) and isinstance(b.value, Tensor) and a.value.is_floating_point():
        if a.value.shape != b.value.shape or a.value.dtype != b.value.dtype:
            return False
        if not torch.equal(a.value.isfinite(), b.value.isfinite()):
            return False
    return differs(a.value, b.value, relative) is None
