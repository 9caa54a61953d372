"""Arguments that cannot be meant, and what may become of them: a named error, or a result that can be relied on."""

from __future__ import annotations

import dataclasses
import inspect
import math
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from functions import Case
from torch import Tensor

from minivdm.guards import BadArgument, BadFile, BadRun

#: What a function may say, besides that a file is, or is not, there.
NAMED = (BadArgument, BadFile, BadRun, FileNotFoundError, FileExistsError)
#: Seconds of one core after which a call counts as one that does not come back.
LIMIT = 10.0

#: Verdicts that are faults, and what they mean.
FAULTS = {
    "internal": "an error from inside, which does not say what was wrong with the argument",
    "limit": f"more than {LIMIT:g} s",
    "NaN": "NaN or infinite values from clean input",
    "integers": "integers, bytes or complex numbers taken for data",
    "broadcast": "another shape taken than that of the argument it belongs to",
}

#: What comes out although it looks like a fault, and why: (function, argument, replacement) by their beginnings.
EXPECTED = {
    ("LinearSchedule.sigma_slope", "t", ""): "infinite at t = 0, as t_min says",
    ("LinearSchedule.log_snr", "t", ""): "infinite at t = 0, as t_min says",
    ("SubVPSchedule.log_snr", "t", ""): "infinite at t = 0, as t_min says",
    ("FlowSchedule.", "t", ""): "infinite at both ends, as t_min and t_max say",
    ("annealed_langevin", "step_size", "1e10"): "diverges, as any explicit step of such a size",
    ("GaussianMixture", "means", "whole numbers"): "parameters of a law may be whole",
    ("frechet", "", ""): "two sets may differ in number",
    ("frame_distance", "", ""): "two sets may differ in number",
    ("clip_distance", "", ""): "two sets may differ in number",
    ("fvd", "", ""): "two sets may differ in number",
    ("kernel_distance", "", ""): "two sets may differ in number",
    ("precision_recall", "", ""): "two sets may differ in number",
    ("UNet3D", "multipliers", "a list of 99"): "a network of 792 channels: slow, but meant",
}


class Verdict(NamedTuple):
    """What became of a call. kind: "named", "returned", or a key of FAULTS. said: the error, or the shapes."""

    kind: str
    said: str


class TooLong(BaseException):
    """No error that a function under attack could catch."""


def replacements(value: Any) -> Iterator[tuple[str, Any]]:
    """Values to put in the place of `value`, each with a name."""
    yield from {
        "None": None,
        "a string": "seven",
        "an object": object(),
        "an array": np.zeros((2, 3)),
        "NaN": math.nan,
        "infinity": math.inf,
        "-1": -1,
        "0": 0,
        "1e10": 10**10,
        "1.5": 1.5,
        "an empty list": [],
        "a list of halves": [0.5],
        "a list of 99": [99],
        "True": True,
        "complex": torch.zeros(2, 3, dtype=torch.complex64),
        "a scalar tensor": torch.tensor(0.5),
        "points": torch.full((7, 2), 0.25),
        "bytes": torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint8),
        "a video of 7": torch.full((7, 1, 4, 4, 4), 0.25),
        "one frame": torch.full((2, 1, 1, 4, 4), 0.25),
        "an empty batch": torch.zeros(0, 1, 4, 4, 4),
    }.items()
    if isinstance(value, Tensor) and value.ndim:
        floating = value.is_floating_point()
        yield from {
            "whole numbers": value.long(),
            "no batch": value[0],
            "one axis more": value[None],
            "one sample less": value[:-1],
            "one sample more": torch.cat([value, value[:1]]),
            "an axis cut": value[..., :-1],
            "half precision": value.half() if floating else value,
            "double precision": value.double() if floating else value,
            "all NaN": value * math.nan if floating else value,
            "complex like it": value.to(torch.complex64),
            "no values": value[:0],
            "pixels of 0 to 255": (value + 1) * 127.5 if floating else value,
        }.items()


def numbers(result: Any) -> Iterator[Tensor | float]:
    """All tensors and numbers of a result, however it holds them."""
    if isinstance(result, (Tensor, float)):
        yield result
    elif isinstance(result, np.ndarray) and result.dtype.kind == "f":
        yield torch.from_numpy(result)
    elif isinstance(result, Mapping):
        yield from numbers(list(result.values()))
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from numbers(part)
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        yield from numbers(list(vars(result).values()))


def is_clean(value: Any) -> bool:
    """Whether no number of an argument is NaN or infinite."""
    return all(
        bool(part.isfinite().all()) if isinstance(part, Tensor) else math.isfinite(part)
        for part in numbers(value)
        if not isinstance(part, Tensor) or part.is_floating_point()
    )


def shapes(result: Any) -> list[tuple[int, ...]]:
    """The shapes of the tensors of a result."""
    return [tuple(part.shape) for part in numbers(result) if isinstance(part, Tensor)]


def is_default(function: Callable[..., Any], name: str, value: Any) -> bool:
    """Whether a value is what the argument has where nobody gives it: nothing can be wrong with that."""
    if value is None and name in ("steps", "generator", "device", "grid"):
        return True  # also where the signature hides it in **named
    try:
        return inspect.signature(function).parameters[name].default is value
    except (KeyError, ValueError):
        return False


def is_expected(case: str, argument: str, kind: str) -> str:
    """Why a call may end as it does, "" where there is no reason."""
    called = (case, argument, kind)
    found = (why for key, why in EXPECTED.items() if all(map(str.startswith, called, key)))
    return next(found, "")


def calls(case: Case) -> Iterator[tuple[str, str, Any]]:
    """All wrong calls of a case: argument, name of the replacement, replacement."""
    for argument, value in case.arguments.items():
        for kind, other in replacements(value):
            if not is_default(case.function, argument, other):
                yield argument, kind, other


def verdict(case: Case, name: str, value: Any) -> Verdict:
    """What becomes of the case with another value for one argument."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = _within(LIMIT, lambda: case.function(**{**case.arguments, name: value}))
        except NAMED as error:
            return Verdict("named", str(error))
        except TooLong:
            return Verdict("limit", "")
        except Exception as error:  # whatever comes from inside
            said = str(error).splitlines()[0][:110] if str(error) else ""
            return Verdict("internal", f"{type(error).__name__}: {said}")
    return Verdict(_fault(case, name, value, result) or "returned", f"shapes {shapes(result)}")


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call that may use so many seconds of its process."""
    if not hasattr(signal, "setitimer"):
        return call()

    def stop(number: int, frame: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _fault(case: Case, name: str, value: Any, result: Any) -> str:
    original = case.arguments[name]
    if is_clean(value) and not is_clean(result):
        return "NaN"
    if not isinstance(value, Tensor) or not isinstance(original, Tensor):
        return ""
    data = original.is_floating_point() and original.ndim > 1 and name not in ("labels", "mask", "frame_mask")
    if data and not value.is_floating_point():
        return "integers"
    if value.shape == original.shape or value.ndim == 0:
        return ""
    others = {other: v for other, v in case.arguments.items() if isinstance(v, Tensor) and other != name}
    paired = original.ndim > 1 and any(other.shape == original.shape for other in others.values())
    leads = name == next(key for key, v in case.arguments.items() if isinstance(v, Tensor))
    if paired or (not leads and shapes(result) != usual(case)):
        return "broadcast"
    return ""


_USUAL: dict[str, list[tuple[int, ...]]] = {}


def usual(case: Case) -> list[tuple[int, ...]]:
    """The shapes of the case's result as it is."""
    if case.name not in _USUAL:
        _USUAL[case.name] = shapes(case.function(**case.arguments))
    return _USUAL[case.name]


def outcome(case: Case, name: str, value: Any) -> str | None:
    """What is wrong with calling the case with another value for one argument; None where nothing is."""
    found = verdict(case, name, value)
    return f"{FAULTS[found.kind]} ({found.said})" if found.kind in FAULTS else None
