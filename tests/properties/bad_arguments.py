"""Arguments that cannot be meant, and what may become of them: a named error, or a result without NaN."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from functions import Case
from torch import Tensor

from minivdm.core.guards import BadArgument


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
        yield from {
            "whole numbers": value.long(),
            "no batch": value[0],
            "one axis more": value[None],
            "one sample less": value[:-1],
            "one sample more": torch.cat([value, value[:1]]),
            "an axis cut": value[..., :-1],
            "half precision": value.half() if value.is_floating_point() else value,
            "double precision": value.double() if value.is_floating_point() else value,
            "all NaN": value * math.nan if value.is_floating_point() else value,
        }.items()


def tensors(result: Any) -> Iterator[Tensor]:
    """All tensors of a result, however it holds them."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from tensors(part)


def is_clean(value: Any) -> bool:
    """Whether no number of an argument is NaN or infinite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    return not isinstance(value, float) or math.isfinite(value)


def accepts(function: Callable[..., Any], name: str, value: Any) -> bool:
    """Whether a value is a documented default of the argument: None for an option, say."""
    try:
        parameter = inspect.signature(function).parameters[name]
    except (KeyError, ValueError):
        return False
    return parameter.default is value


def outcome(case: Case, name: str, value: Any) -> str | None:
    """What is wrong with calling the case with another value for one argument; None where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = case.function(**{**case.arguments, name: value})
        except BadArgument:
            return None
        except Exception as error:  # whatever comes from inside
            return f"{type(error).__name__}: {str(error).splitlines()[0][:110] if str(error) else ''}"
    if is_clean(value) and not all(is_clean(part) for part in tensors(result)):
        return "NaN or infinite values from clean input"
    return None
