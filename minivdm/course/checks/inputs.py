"""Inputs for checks: seeded random videos, numbers and times, and ways to call an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: The dtypes that an answer is asked for.
FLOATS = (torch.float64, torch.float32)


def generator(seed: int) -> torch.Generator:
    """A seeded generator for a check's inputs."""
    return torch.Generator().manual_seed(1_000_003 + 97 * seed)


def video(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random values of a shape, by default (2, 1, 3, 4, 4): standard normal, drawn alike for every dtype."""
    return torch.randn(shape or (2, 1, 3, 4, 4), generator=g, dtype=torch.float64).to(dtype)


def uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers in [low, high], float64."""
    return low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)


def integer(g: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=g))


def ordered_pair(g: torch.Generator, low: float = 0.05, high: float = 0.95) -> tuple[float, float]:
    """Times s < t in [low, high], at least a tenth of the way apart."""
    width = high - low
    s = low + 0.4 * width * float(torch.rand((), generator=g, dtype=torch.float64))
    t = s + width * (0.1 + 0.5 * float(torch.rand((), generator=g, dtype=torch.float64)))
    return s, t


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """A value for each sample, (b,), in a shape that multiplies x, (b, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def name_of(dtype: torch.dtype) -> str:
    """A dtype in a learner's words, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def while_sampling(answer: Callable[..., Any], *arguments: Any) -> Any:
    """A probe that calls the answer without gradients, as `samplers.sample` does."""
    with torch.no_grad():
        return answer(*arguments)


class Counted:
    """A denoiser, or any other function, that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self.function(*arguments)

    def __getattr__(self, name: str) -> Any:  # such as a denoiser's schedule
        return getattr(self.function, name)


def counting(answer: Callable[..., Any], function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """A probe: what the answer returns, and how often it called its first argument."""
    counted = Counted(function)
    return {"": answer(counted, *arguments), "calls of its first argument": counted.calls}


def counting_while_sampling(answer: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Both: gradients are switched off around the answer, and the calls of its first argument are counted."""
    with torch.no_grad():
        return counting(answer, *arguments)
