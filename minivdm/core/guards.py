"""What is refused, in one place: numbers that are no counts, tensors that are no videos, times outside [0, 1].

Each guard takes the argument's name first, returns the value as the caller wants it, and raises an error that says
the argument, what came and what was expected. Values on an accelerator are not read: that would stall the device.
"""

from __future__ import annotations

import math
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


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number of at least `least` and at most `most`, as an int; bools and floats are none."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise BadType(f"{name}: expected a whole number, got {value!r}")
    if value < least or (most is not None and value > most):
        wanted = f"at least {least}" if most is None else f"{least} to {most}"
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
    if value not in choices:
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


def finite(name: str, value: Tensor) -> Tensor:
    """A tensor without NaN and infinite values, looked for on the CPU alone: elsewhere one would have to wait."""
    if value.device.type == "cpu" and not bool(value.isfinite().all()):
        raise BadArgument(f"{name}: expected finite values, got NaN or infinite ones")
    return value


def video(name: str, value: Any, channels: int | None = None) -> Tensor:
    """A floating-point tensor (b, c, f, h, w) without an empty axis, of `channels` channels where they are known."""
    floating(name, value)
    if value.ndim != 5 or 0 in value.shape or channels not in (None, value.shape[1]):
        c = "c" if channels is None else f"c={channels}"
        raise BadArgument(f"{name}: expected a video (b, {c}, f, h, w), none of them 0, got shape {tuple(value.shape)}")
    return value
