"""Kernels recorded once and played at once: CUDA graphs (Nguyen et al. 2021, "Accelerating PyTorch with CUDA graphs").

A training step of the U-Net is some three thousand kernels, most of them over before Python has launched the next: on a
fast GPU the launches take most of the time, whatever the batch. A function that always does the same with tensors of
the same shapes can be recorded instead, and a step is then a handful of launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

WARM_UP = 3  # calls before a recording, in which libraries choose their kernels and take their memory


class _Recording(NamedTuple):
    """A graph, the tensors that it reads and writes, and the gradients that it leaves behind."""

    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    outputs: Any
    grads: list[Tensor | None]


class Recorded:
    """A function of named tensors, recorded on the first call with tensors of these shapes and played from then on.

    The function must do the same at each call: no random numbers, no look at values, no tensors of the CPU. What it
    returns lies in the same memory at every call, so a result holds until the next one. On a device other than an
    NVIDIA GPU, or where `eager`, the function itself is called.

    Args:
        function: called with tensors by name; returns tensors in any form.
        params: whose gradients it makes. They are overwritten at each call, not added up, and must not be set to None
            between calls.
        eager: whether nothing is recorded.
    """

    def __init__(self, function: Callable[..., Any], params: Sequence[Tensor] = (), eager: bool = False) -> None:
        self.function, self.params, self.eager = function, list(params), eager
        self.recordings: dict[Any, _Recording] = {}

    def __call__(self, **given: Tensor) -> Any:
        if self.eager or not all(value.is_cuda for value in given.values()):
            self._forget()
            return self.function(**given)
        key = tuple((name, value.shape, value.dtype) for name, value in given.items())
        if key not in self.recordings:
            self.recordings[key] = self._record(given)
        graph, inputs, outputs, grads = self.recordings[key]
        with torch.no_grad():
            for name, value in given.items():
                inputs[name].copy_(value)
        graph.replay()
        for parameter, grad in zip(self.params, grads, strict=True):
            parameter.grad = grad
        return outputs

    def _forget(self) -> None:
        for parameter in self.params:
            parameter.grad = None

    def _record(self, given: dict[str, Tensor]) -> _Recording:
        inputs = {name: value.clone() for name, value in given.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._forget()
                self.function(**inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._forget()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.function(**inputs)
        return _Recording(graph, inputs, outputs, [parameter.grad for parameter in self.params])
