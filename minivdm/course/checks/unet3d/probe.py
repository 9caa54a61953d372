"""How the checks of assignment 08 compare modules: by the shapes of their weights, and by what they make.

The package's own modules are the right answers: an answer has to have weights of the same names and shapes, so that
weights that ship can be loaded into it, and to compute the same with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from minivdm.course.checks.harness import generator


def filled(module: nn.Module, seed: int) -> nn.Module:
    """The module with random weights, drawn name by name: alike for all modules with the same names and shapes."""
    g = generator(seed)
    with torch.no_grad():
        for _, weight in sorted(module.state_dict().items()):
            size = max(1, weight[0].numel()) if weight.ndim > 1 else 4
            weight.copy_(torch.randn(weight.shape, generator=g) / size**0.5)
    return module


def _shapes(module: Any) -> list[str]:
    if not isinstance(module, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got a {type(module).__name__}")
    return [f"{name} {tuple(weight.shape)}" for name, weight in sorted(module.state_dict().items())]


def compared(answer: Callable[..., Any], arguments: tuple[Any, ...], inputs: tuple[Any, ...]) -> dict[str, Any]:
    """A probe: the weights' names and shapes, which of them start from zero, and the output with given weights."""
    module: Any = answer(*arguments)
    found = {"its weights": _shapes(module), "weights that start from zero": _silent(module)}
    with torch.no_grad():
        return {**found, "": filled(module, 5)(*inputs)}


def _silent(module: nn.Module) -> list[str]:
    return sorted(name for name, weight in module.state_dict().items() if not bool(weight.any()))
