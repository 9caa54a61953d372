r"""Observation operators: what is known of a video, as a differentiable function of it.

Reconstruction guidance (VDM eqs 7 and 8) asks how far `observe(x_hat)` is from what was observed, whatever that
is: some frames, fewer pixels, some pixels, or several of these at once. An operator is any differentiable function
of videos (b, c, f, h, w) that treats each of them by itself; the ones here are linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from minivdm.guards import BadArgument, check_types, floating, video

Observe = Callable[[Tensor], Tensor]


class BadObservation(BadArgument):
    """What was observed does not fit the operator or the video: its shape or its range."""


class NotDifferentiable(BadObservation):
    """An observation through which no gradient reaches the video."""


@dataclass(frozen=True)
class Frames:
    """Whole frames: x[:, :, frames], (b, c, n, h, w)."""

    frames: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", tuple(frame_indices(self.frames)))

    def __call__(self, x: Tensor) -> Tensor:
        return video("x", x)[:, :, frame_indices(self.frames, x.shape[2])]


@dataclass(frozen=True)
class Downsample:
    """Fewer pixels and fewer frames: the mean of each space x space block, of every `every`-th frame.

    (b, c, f, h, w) -> (b, c, ceil(f / every), h / space, w / space). frames: other frames than every `every`-th.
    """

    space: int = 2
    every: int = 1
    frames: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("space", "every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BadObservation(f"{name}: expected a whole number of at least 1, got {value!r}")
        if self.frames is not None:
            object.__setattr__(self, "frames", tuple(frame_indices(self.frames)))

    def __call__(self, x: Tensor) -> Tensor:
        video("x", x)
        if x.shape[-1] % self.space or x.shape[-2] % self.space:
            raise BadObservation(f"expected sides that {self.space} divides, got {tuple(x.shape[-2:])}")
        x = x[:, :, :: self.every] if self.frames is None else x[:, :, frame_indices(self.frames, x.shape[2])]
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # CPUs pool no half precision
        return functional.avg_pool3d(wide, (1, self.space, self.space)).to(x.dtype)


@dataclass(frozen=True)
class Pixels:
    """Single values: those where `mask` (bool, one that expands to (c, f, h, w)) is True, flattened: (b, n)."""

    mask: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.mask, Tensor) or self.mask.dtype != torch.bool or not bool(self.mask.any()):
            got = self.mask.dtype if isinstance(self.mask, Tensor) else type(self.mask).__name__
            raise BadObservation(f"mask: expected a tensor of booleans, True somewhere, got {got}")

    def __call__(self, x: Tensor) -> Tensor:
        floating("x", x)
        try:
            mask = self.mask.to(x.device).expand(x.shape[1:])
        except RuntimeError:
            got = tuple(self.mask.shape)
            raise BadObservation(f"expected a mask that expands to {tuple(x.shape[1:])}, got {got}") from None
        return x[:, mask]


class Several:
    """Several observations at once, each flattened, one after the other: (b, n). `join` does it to their values."""

    def __init__(self, *observe: Observe) -> None:
        if not observe or not all(map(callable, observe)):
            raise BadObservation(f"observe: expected functions of the video, one or more, got {observe!r}")
        self.observe = observe

    def __call__(self, x: Tensor) -> Tensor:
        return self.join(*(observe(x) for observe in self.observe))

    def join(self, *values: Tensor) -> Tensor:
        """What was observed, in the order of the operators, each (b or 1, ...)."""
        if len(values) != len(self.observe):
            raise BadObservation(f"expected {len(self.observe)} observed tensors, got {len(values)}")
        b = max(len(value) for value in values)
        if any(len(value) not in (1, b) for value in values):
            raise BadObservation(f"values: expected 1 or {b} samples in each, got {[len(value) for value in values]}")
        return torch.cat([value.expand(b, *value.shape[1:]).flatten(1) for value in values], dim=1)


def frame_indices(frames: Sequence[int], f: int | None = None) -> list[int]:
    """Different indices of frames, below f where it is known; BadObservation for anything else."""
    found = list(frames) if isinstance(frames, Iterable) else []
    whole_numbers = all(isinstance(frame, int) and not isinstance(frame, bool) and frame >= 0 for frame in found)
    if not found or not whole_numbers or len(set(found)) != len(found) or (f is not None and max(found) >= f):
        span = "from 0 on" if f is None else f"out of 0 to {f - 1}"
        raise BadObservation(f"frames: expected different frames {span}, got {frames!r}")
    return found


check_types(globals())
