"""How a check works: it calls the learner's function on many inputs and says what is right or what is probably wrong.

A `Check` knows the right answer, the inputs to try, and typical wrong answers with a sentence for each. Where the
learner gives something else than the right answer, it looks for the typical wrong answer that gives the same, and says
its sentence; where there is none, it says on which input, what came and what was expected. It never shows the solution,
and depends on nothing but the function and the seed it is given.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Largest error allowed, as a share of the largest expected value, and for values that should be 0.
RELATIVE = {torch.float64: 1e-8, torch.float32: 2e-4}
ABSOLUTE = {torch.float64: 1e-10, torch.float32: 1e-6}


class CheckFailed(AssertionError):
    """An answer that is not right. `kind` says in which way, in a word or two; the message is for the learner.

    Kinds: "not a function", "raised", "time", "changed its input", "nothing", "numpy", "type", "shape", "dtype",
    "not finite", "value"; and "named" where a typical mistake was recognised.
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
        probe: (answer, *arguments) -> what is compared; by default what the answer returns. For classes, gradients, and
            functions of functions.
        relative: largest error as a share of the largest expected value, instead of the dtype's own.
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
        seconds: float = 20.0,
    ) -> None:
        self.name, self.right, self.cases, self.wrong = name, right, cases, tuple(wrong)
        self.probe, self.relative, self.seconds = probe, relative, seconds

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
        names, expected = [], []
        for case in self.cases(seed):
            names.append(case.name)
            expected.append(self._call(self.right, case))
        if broken := next((e.error for e in expected if e.error is not None), None):
            raise broken  # of the check, not of the learner
        found = self._tried(answer, seed)
        for i, (name, wanted, got) in enumerate(zip(names, expected, found, strict=True)):
            self._unfinished(got)
            complaint = _complaint(wanted.value, got, self.relative)
            if complaint is None:
                continue
            where = f'on the input "{name}"' + (f"; right on: {'; '.join(names[:i])}" if i else "")
            if says := self._named(found, i, seed):
                self._fail("named", f"{says}\n  (seen {where})", got.error)
            self._fail(complaint[0], f"{complaint[1]}\n  ({where})", got.error)
        print(f"✓ {self.name} is right on {len(names)} inputs: {'; '.join(names)}.")

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
            with _limit(self.seconds):
                for case in self.cases(seed):
                    before = _copied(case.arguments)
                    found.append(self._call(answer, case))
                    if not _identical(before, case.arguments):
                        self._fail(
                            "changed its input",
                            "your function changes a tensor that it was given; make a new "
                            "one instead (x = x + 1, not x += 1; or x.clone())\n  "
                            f'(on the input "{case.name}")',
                        )
        except TimeoutError:
            self._fail("time", f"no answer within {self.seconds:g} seconds; does a loop never end?")
        finally:
            torch.set_rng_state(state)
        return found

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

    def _fail(self, kind: str, message: str, cause: BaseException | None = None) -> None:
        raise CheckFailed(f"{self.name} is not right yet: {message}", kind) from cause


# ---- comparing -----------------------------------------------------------------------------------------------


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
    return _differs(wanted, got.value, relative, "")


def _differs(wanted: Any, got: Any, relative: float | None, part: str) -> tuple[str, str] | None:
    """What makes `got` another answer than `wanted`; part: which part of a tuple, for the message."""
    of = f"{part}: " if part else ""
    if got is None and wanted is not None:
        return "nothing", f"{of}it returned None; is there a `return`?"
    if isinstance(got, np.ndarray) or (isinstance(got, np.generic) and isinstance(wanted, Tensor)):
        return "numpy", f"{of}it returned a NumPy {type(got).__name__}; expected {_described(wanted)}: stay in torch"
    if isinstance(wanted, Tensor) and wanted.ndim == 0 and _is_number(got):
        got = torch.as_tensor(got, dtype=wanted.dtype)  # a Python number is as good as a scalar tensor
    if _is_number(wanted) and not isinstance(wanted, bool) and isinstance(got, Tensor) and got.ndim == 0:
        got = got.item()
    if isinstance(wanted, Tensor):
        if not isinstance(got, Tensor):
            return "type", f"{of}it returned a {type(got).__name__}; expected {_described(wanted)}"
        return _tensors_differ(wanted, got, relative, of)
    if isinstance(wanted, float) and _is_number(got):
        return _tensors_differ(
            torch.tensor(wanted, dtype=torch.float64), torch.tensor(float(got), dtype=torch.float64), relative, of
        )
    if isinstance(wanted, (tuple, list)):
        if not isinstance(got, (tuple, list)):
            return "type", f"{of}it returned a {type(got).__name__}; expected {_described(wanted)}"
        if len(wanted) != len(got):
            return "shape", f"{of}it returned {len(got)} values, expected {len(wanted)}{_lists(wanted, got)}"
        for i, (a, b) in enumerate(zip(wanted, got, strict=True)):
            if found := _differs(a, b, relative, f"{part}, item {i + 1}" if part else f"result {i + 1}"):
                return found
        return None
    if type(wanted) is not type(got) and not (_is_number(wanted) and _is_number(got)):
        return "type", f"{of}it returned a {type(got).__name__}; expected {_described(wanted)}"
    return None if wanted == got else ("value", f"{of}expected {wanted!r}, got {got!r}")


def _tensors_differ(wanted: Tensor, got: Tensor, relative: float | None, of: str) -> tuple[str, str] | None:
    if wanted.shape != got.shape:
        return "shape", f"{of}expected shape {tuple(wanted.shape)}, got {tuple(got.shape)}"
    if wanted.dtype != got.dtype:
        why = (
            ": the schedule computes in float64; cast its numbers to the video's dtype before they meet"
            if wanted.dtype == torch.float32 and got.dtype == torch.float64
            else ""
        )
        return "dtype", f"{of}expected {wanted.dtype}, got {got.dtype}{why}"
    if not wanted.is_floating_point():
        same = torch.equal(wanted, got)
        return None if same else ("value", f"{of}expected {_numbers(wanted)}, got {_numbers(got)}")
    got, wanted = got.detach(), wanted.detach()
    if bool((~got.isfinite() & wanted.isfinite()).any()):
        n = int((~got.isfinite()).sum())
        return "not finite", f"{of}{n} of {got.numel()} values are NaN or infinite; is something divided by 0?"
    if wanted.numel() == 0:
        return None
    error = (got - wanted).nan_to_num(0.0, 0.0, 0.0).abs()
    scale = float(wanted[wanted.isfinite()].abs().max()) if bool(wanted.isfinite().any()) else 1.0
    share = relative if relative is not None else RELATIVE.get(wanted.dtype, 1e-2)
    alike = bool((got.isnan() == wanted.isnan()).all() and (got.isinf() == wanted.isinf()).all())
    if alike and float(error.max()) <= share * scale + ABSOLUTE.get(wanted.dtype, 1e-3):
        return None
    place = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    at = f" at index {place}" if place else ""
    return "value", (
        f"{of}expected {_numbers(wanted)}, got {_numbers(got)}; largest difference {float(error.max()):.4g}{at}"
    )


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
    return _differs(a.value, b.value, relative, "") is None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number))


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a torch tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _numbers(value: Tensor) -> str:
    """The first few numbers of a tensor, readable."""
    flat = value.flatten()
    shown = [f"{v:.5g}" if isinstance(v, float) else str(v) for v in flat[:4].tolist()]
    if value.ndim == 0:
        return shown[0]
    return f"[{', '.join(shown)}{', …' if flat.numel() > 4 else ''}]"


def _lists(wanted: Any, got: Any) -> str:
    """Both lists, where they are short enough to be read."""
    short = all(len(repr(values)) < 200 for values in (wanted, got))
    return f": expected {wanted!r}, got {got!r}" if short and not any(isinstance(v, Tensor) for v in wanted) else ""


def _copied(value: Any) -> Any:
    """A copy of the tensors and lists in an argument; other objects are what they are."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (tuple, list)):
        return [_copied(item) for item in value]
    return value


def _identical(before: Any, after: Any) -> bool:
    if isinstance(after, Tensor):
        return before.shape == after.shape and torch.equal(before.nan_to_num(), after.detach().nan_to_num())
    if isinstance(after, (tuple, list)):
        return len(before) == len(after) and all(map(_identical, before, after))
    return before is after


# ---- time limit ----------------------------------------------------------------------------------------------


class _limit:
    """`with _limit(seconds):` raises TimeoutError inside, where it runs in the main thread, as a notebook's code does.

    The alarm is an interrupt, as Ctrl-C is: it ends endless Python loops and sleeps on every system. A call that never
    returns to Python is out of its reach, and has to be stopped with the kernel.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.lock = seconds, threading.Lock()
        self.over = self.rang = False

    def __enter__(self) -> None:
        self.timer = threading.Timer(self.seconds, self._ring)
        self.timer.daemon = True
        self.handler = None
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                self.handler = signal.signal(signal.SIGINT, signal.default_int_handler)
            self.timer.start()

    def _ring(self) -> None:
        with self.lock:
            if self.over:
                return
            self.rang = True
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
            else:
                _thread.interrupt_main()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            with self.lock:
                self.over = True
            self.timer.cancel()
            if self.rang and not isinstance(error, KeyboardInterrupt):
                time.sleep(1.0)  # it rang at the last moment: the interrupt is on its way
        except KeyboardInterrupt:
            kind = KeyboardInterrupt
        finally:
            if self.handler is not None:
                signal.signal(signal.SIGINT, self.handler)
        if self.rang and (kind is None or issubclass(kind, KeyboardInterrupt)):
            raise TimeoutError(f"more than {self.seconds:g} seconds") from None


# ---- inputs and probes ---------------------------------------------------------------------------------------


def generator(seed: int) -> torch.Generator:
    """A seeded generator for a check's inputs."""
    return torch.Generator().manual_seed(1_000_003 + 97 * seed)


def video(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random values of a shape, by default (2, 1, 3, 4, 4): standard normal, drawn alike for every dtype."""
    return torch.randn(shape or (2, 1, 3, 4, 4), generator=g, dtype=torch.float64).to(dtype)


def uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers in [low, high], float64."""
    return low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)


def ordered_pair(g: torch.Generator, low: float = 0.05, high: float = 0.95) -> tuple[float, float]:
    """Times s < t in [low, high], at least a tenth of the way apart."""
    width = high - low
    s = low + 0.4 * width * float(torch.rand((), generator=g, dtype=torch.float64))
    t = s + width * (0.1 + 0.5 * float(torch.rand((), generator=g, dtype=torch.float64)))
    return s, t


def name_of(dtype: torch.dtype) -> str:
    """A dtype in a learner's words, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def while_sampling(answer: Callable[..., Any], *arguments: Any) -> Any:
    """A probe that calls the answer without gradients, as `samplers.sample` does."""
    with torch.no_grad():
        return answer(*arguments)
