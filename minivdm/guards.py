"""What is refused, in one place: numbers that are no counts, tensors that are no videos, times outside [0, 1].

Each guard takes the argument's name first, returns the value as the caller wants it, and raises an error that says
the argument, what came and what was expected. Values on an accelerator are not read: that would stall the device.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class BadArgument(ValueError):
    """An argument that cannot be meant: its value, shape or range."""


class BadType(BadArgument, TypeError):
    """An argument of a wrong type or dtype."""


class BadFile(ValueError):
    """A file that cannot be used: missing, damaged, or of another kind."""


class BadRun(RuntimeError):
    """A run that cannot go on: its folder, its configuration, or its numbers."""


def whole(name: str, value: Any, least: int = 1, most: int = 1_000_000_000) -> int:
    """A whole number from `least` to `most`, as an int; bools and floats are none. More than 1e9 is a slip."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise BadType(f"{name}: expected a whole number, got {value!r}")
    if not least <= value <= most:
        wanted = f"at least {least}" if value < least else f"{least} to {most}"
        raise BadArgument(f"{name}: expected {wanted}, got {value}")
    return int(value)


def real(name: str, value: Any, least: float = -math.inf, most: float = math.inf, above: bool = False) -> float:
    """A finite number in [least, most], or in (least, most] where `above`, as a float."""
    number = float(value) if getattr(value, "ndim", None) == 0 and not getattr(value, "is_complex", bool)() else value
    if isinstance(number, bool) or not isinstance(number, (int, float, np.number)):
        raise BadType(f"{name}: expected a number, got {value!r}")
    if not math.isfinite(number) or number < least or number > most or (above and number == least):
        bounds = f"{'(' if above or least == -math.inf else '['}{least}, {most}{')' if most == math.inf else ']'}"
        raise BadArgument(f"{name}: expected a finite number in {bounds}, got {value}")
    return float(number)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """One of the names."""
    if not isinstance(value, str) or value not in choices:
        raise BadArgument(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def floating(name: str, value: Any) -> Tensor:
    """A tensor of real floating-point numbers; integers, bytes, bools, arrays and complex numbers are none."""
    if not isinstance(value, Tensor):
        raise BadType(f"{name}: expected a tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        hint = "; 8-bit pixels become x / 127.5 - 1" if value.dtype == torch.uint8 else ""
        raise BadType(f"{name}: expected floating-point values, got {value.dtype}{hint}")
    return value


def batch(name: str, value: Any, axes: int = 1) -> Tensor:
    """A floating-point tensor (b, ...) of `axes` axes or more, none of them empty."""
    if floating(name, value).ndim < axes or value.numel() == 0:
        got = tuple(value.shape)
        raise BadArgument(f"{name}: expected the batch first, {axes} axes or more, none of them 0, got shape {got}")
    return value


def span(name: str, value: Any) -> tuple[float, float]:
    """Two numbers, the lower first."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2 or not all(map(_is_number, value)):
        raise BadType(f"{name}: expected two numbers, the lower first, got {value!r}")
    if not value[0] < value[1]:
        raise BadArgument(f"{name}: expected two numbers, the lower first, got {value}")
    return value[0], value[1]


def finite(name: str, value: Tensor) -> Tensor:
    """A tensor without NaN and infinite values, looked for on the CPU alone: elsewhere one would have to wait."""
    if value.device.type == "cpu" and not bool(value.isfinite().all()):
        raise BadArgument(f"{name}: expected finite values, got NaN or infinite ones")
    return value


def path(name: str, value: Any) -> Path:
    """A path, of a text or of what the operating system takes for one."""
    if not isinstance(value, (str, os.PathLike)) or "\0" in os.fsdecode(value):
        raise BadType(f"{name}: expected a path, got {reprlib.repr(value)}")
    return Path(value)


def device(name: str, value: Any) -> torch.device:
    """A device of torch, which may yet be absent from this machine."""
    if not isinstance(value, (str, torch.device)):
        raise BadType(f"{name}: expected cpu, cuda or mps, got {reprlib.repr(value)}")
    try:
        return torch.device(value)
    except RuntimeError as error:
        raise BadArgument(f"{name}: expected cpu, cuda or mps, got {str(value)!r}") from error


def video(name: str, value: Any, channels: int | None = None) -> Tensor:
    """A floating-point tensor (b, c, f, h, w) without an empty axis, of `channels` channels where they are known."""
    floating(name, value)
    if value.ndim != 5 or 0 in value.shape or channels not in (None, value.shape[1]):
        c = "c" if channels is None else f"c={channels}"
        raise BadArgument(f"{name}: expected a video (b, {c}, f, h, w), none of them 0, got shape {tuple(value.shape)}")
    return value


# ---- types: a function's signature says them, once -----------------------------------------------------------


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_complex() and value.dtype != torch.bool
    return isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.complexfloating))


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _of_class(name: str) -> Callable[[Any], bool]:
    return lambda value: any(kind.__name__ == name for kind in type(value).__mro__)


#: What an annotation asks of a value, and its words. Annotations that are not here are not checked.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "None": (lambda value: value is None, "None"),
    "Tensor": (lambda value: isinstance(value, Tensor) and not value.is_complex(), "a real tensor"),
    "float": (_is_number, "a number"),
    "int": (_is_whole, "a whole number"),
    "bool": (lambda value: isinstance(value, (bool, np.bool_)), "True or False"),
    "str": (lambda value: isinstance(value, str), "a name"),
    "Path": (lambda value: isinstance(value, os.PathLike), "a path"),
    "torch.device": (lambda value: isinstance(value, torch.device), "a device"),
    "torch.Generator": (lambda value: isinstance(value, torch.Generator), "a torch.Generator"),
    "Schedule": (_of_class("Schedule"), "a Schedule"),
    "Law": (_of_class("Law"), "a Law"),
    "Gaussian": (_of_class("Gaussian"), "a Gaussian"),
    "Reading": (_of_class("Reading"), "a Reading"),
    "Denoise": (
        lambda value: callable(value) and _of_class("Schedule")(getattr(value, "schedule", None)),
        "a denoiser, (z, t) -> x_hat, that carries its noise schedule as .schedule",
    ),
    "Slopes": (
        lambda value: isinstance(value, Sequence) and len(value) == 2 and not isinstance(value, str),
        "the two slopes (alpha', sigma')",
    ),
    "dict": (lambda value: isinstance(value, dict), "a dictionary"),
    "Mapping": (lambda value: isinstance(value, Mapping), "a mapping"),
    **dict.fromkeys(
        ["Callable", "Step", "Grid", "Score", "Field", "Observe", "Times", "Order"], (callable, "a function")
    ),
}


def _kind(annotation: str) -> tuple[Callable[[Any], bool], str] | None:
    """The check of one member of a union, `Sequence[int]` and `tuple[float, float]` by their elements."""
    outer, _, inner = annotation.partition("[")
    if outer in ("Sequence", "tuple") and inner[:-1].split(",")[0] in _KINDS:
        elements = [part.strip() for part in inner[:-1].split(",")]
        fits, words = _KINDS[elements[0]]
        count = len(elements) if outer == "tuple" and elements[-1] != "..." else None

        def sequence(value: Any) -> bool:
            is_one = isinstance(value, Sequence) and not isinstance(value, str)
            return is_one and count in (None, len(value)) and all(map(fits, value))

        return sequence, f"{'a sequence' if count is None else count} of {words.removeprefix('a ')}s"
    return _KINDS.get(outer)


def _typed(function: Callable[..., Any]) -> Callable[..., Any]:
    checks: dict[str, list[tuple[Callable[[Any], bool], str]]] = {}
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        members = re.split(r" \| (?![^\[]*\])", str(parameter.annotation))  # not within brackets
        kinds = [_kind(member) for member in members]
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and None not in kinds:
            checks[parameter.name] = kinds  # type: ignore[assignment]
    names = [parameter.name for parameter in parameters]

    @functools.wraps(function)
    def checked(*args: Any, **named: Any) -> Any:
        for name, value in [*zip(names, args, strict=False), *named.items()]:
            if name in checks and not any(fits(value) for fits, _ in checks[name]):
                wanted = " or ".join(words for _, words in checks[name])
                got = type(value).__name__ if isinstance(value, (Tensor, np.ndarray)) else reprlib.repr(value)
                raise BadType(f"{name}: expected {wanted}, got {got}")
        return function(*args, **named)

    return checked


def check_types(module: dict[str, Any]) -> None:
    """Makes the public functions and methods that a module defines refuse arguments of other types than they say.

    module: its globals(). Networks are left out: they are compiled, and look at their input themselves.
    """
    own = [(name, value) for name, value in module.items() if getattr(value, "__module__", 0) == module["__name__"]]
    for name, value in own:
        if inspect.isfunction(value) and not name.startswith("_"):
            module[name] = _typed(value)
        elif inspect.isclass(value) and not issubclass(value, (torch.nn.Module, BaseException, tuple)):
            for key, method in list(vars(value).items()):
                if inspect.isfunction(method) and (key in ("__init__", "__call__") or not key.startswith("_")):
                    setattr(value, key, _typed(method))
                elif isinstance(method, classmethod):
                    setattr(value, key, classmethod(_typed(method.__func__)))
