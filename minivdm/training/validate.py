"""Values against type hints, in one place: what a recipe's fields and a network's arguments may be."""

from __future__ import annotations

import difflib
import inspect
import math
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from minivdm.guards import BadArgument


class RecipeError(BadArgument):
    """A recipe that cannot be meant; the message names the field, what came and what was expected."""


def shortened(value: Any) -> str:
    """A value as it came, without the middle of a long one."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:120]} ... {text[-20:]}"


def require(condition: bool, name: str, expected: str, got: Any) -> None:
    """Raise RecipeError unless the condition holds."""
    if not condition:
        raise RecipeError(f"{name}: expected {expected}, got {shortened(got)}")


def between(name: str, value: float, least: float, most: float) -> None:
    """Raise RecipeError unless least <= value <= most."""
    require(least <= value <= most, name, f"a value from {least:g} to {most:g}", value)


def known(kind: str, key: str, names: Iterable[str]) -> None:
    """Raise RecipeError, with a guess at what was meant, unless `key` is one of the names."""
    names = list(names)
    if key not in names:
        close = difflib.get_close_matches(key, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"
        raise RecipeError(f"no {kind} {shortened(key)}{hint}")


def tuples(value: Any) -> Any:
    """Lists as tuples, all the way down: what JSON gives back, made hashable and constant."""
    return tuple(tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def check_types(values: dict[str, Any], hints: dict[str, Any], prefix: str = "") -> None:
    """Raise RecipeError for the first value that is not of its hint's type; numbers have to be finite."""
    for name, value in values.items():
        if name in hints:
            require(fits(value, hints[name]), prefix + name, describe(hints[name]), value)


def check_arguments(function: Callable[..., Any], arguments: dict[str, Any], name: str) -> None:
    """Raise RecipeError for an argument that `function` does not have, or whose value is not of its type."""
    for key in arguments:
        known(f"argument of {name}", key, inspect.signature(function).parameters)
    target = function.__init__ if inspect.isclass(function) else function  # type: ignore[misc]
    check_types({key: tuples(value) for key, value in arguments.items()}, get_type_hints(target), f"{name}.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a hint's type: int, float (an int will do), bool, str, Literal, unions, tuples, dicts."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return isinstance(value, tuple({type(arg) for arg in args})) and value in args
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    if origin is Sequence or (origin is tuple and args[-1] is Ellipsis):
        return isinstance(value, tuple) and all(fits(item, args[0]) for item in value)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(args) and all(map(fits, value, args))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf
    if hint is int:
        return type(value) is int
    return isinstance(value, hint)


def describe(hint: Any) -> str:
    """What a hint asks for, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is Sequence or (origin is tuple and args[-1] is Ellipsis):
        return f"[{describe(args[0])}, ...]"
    if origin is tuple:
        return f"[{', '.join(map(describe, args))}]"
    if origin is dict:
        return f"{{{describe(args[0])}: {describe(args[1])}}}"
    words = {int: "an integer", float: "a finite number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
