r"""Observation operators: what is known of a video, as a differentiable function of it.

Reconstruction guidance (VDM eqs 7 and 8) asks how far `observe(x_hat)` is from what was observed, whatever that
is: some frames, fewer pixels, some pixels, or several of these at once. An operator is any differentiable function
of videos (b, c, f, h, w) that treats each of them by itself; the ones here are linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Observe = Callable[[Tensor], Tensor]


class BadObservation(ValueError):
    """What was observed does not fit the operator or the video: its shape or its range."""


class NotDifferentiable(BadObservation):
    """An observation through which no gradient reaches the video."""


@dataclass(frozen=True)
class Frames:
    """Whole frames: x[:, :, frames], (b, c, n, h, w)."""

    frames: Sequence[int]

    def __call__(self, x: Tensor) -> Tensor:
        _check_frames(self.frames, x.shape[2])
        return x[:, :, list(self.frames)]


@dataclass(frozen=True)
class Downsample:
    """Fewer pixels and fewer frames: the mean of each space x space block, of every `every`-th frame.

    (b, c, f, h, w) -> (b, c, ceil(f / every), h / space, w / space). frames: other frames than every `every`-th.
    """

    space: int = 2
    every: int = 1
    frames: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.space < 1 or self.every < 1:
            raise BadObservation(f"expected space and every to be at least 1, got {self.space} and {self.every}")

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[-1] % self.space or x.shape[-2] % self.space:
            raise BadObservation(f"expected sides that {self.space} divides, got {tuple(x.shape[-2:])}")
        if self.frames is not None:
            _check_frames(self.frames, x.shape[2])
        x = x[:, :, :: self.every] if self.frames is None else x[:, :, list(self.frames)]
        return functional.avg_pool3d(x, (1, self.space, self.space))


@dataclass(frozen=True)
class Pixels:
    """Single values: those where `mask` (bool, one that expands to (c, f, h, w)) is True, flattened: (b, n)."""

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        try:
            mask = self.mask.to(x.device).expand(x.shape[1:])
        except RuntimeError:
            got = tuple(self.mask.shape)
            raise BadObservation(f"expected a mask that expands to {tuple(x.shape[1:])}, got {got}") from None
        if mask.dtype != torch.bool or not bool(mask.any()):
            raise BadObservation(f"expected a mask of booleans, True somewhere, got {self.mask.dtype}")
        return x[:, mask]


class Several:
    """Several observations at once, each flattened, one after the other: (b, n). `join` does it to their values."""

    def __init__(self, *observe: Observe) -> None:
        if not observe:
            raise BadObservation("expected at least one observation, got none")
        self.observe = observe

    def __call__(self, x: Tensor) -> Tensor:
        return self.join(*(observe(x) for observe in self.observe))

    def join(self, *values: Tensor) -> Tensor:
        """What was observed, in the order of the operators, each (b or 1, ...)."""
        if len(values) != len(self.observe):
            raise BadObservation(f"expected {len(self.observe)} observed tensors, got {len(values)}")
        b = max(len(value) for value in values)
        return torch.cat([value.expand(b, *value.shape[1:]).flatten(1) for value in values], dim=1)


def check(
    observed: Tensor,
    observe: Observe,
    shape: tuple[int, ...],
    bounds: tuple[float, float] | None = (-1.0, 1.0),
    gradient: bool = True,
) -> None:
    """Raises, before any network is asked, where `observed` cannot be what `observe` sees of a video.

    observed: (b or 1, ...). shape: (c, f, h, w). bounds: the range of the data; None where there is none. gradient:
    whether reconstruction guidance will need one. Raises BadObservation, or NotDifferentiable for it.
    """
    if not bool(observed.isfinite().all()):
        raise BadObservation("observed: expected finite values, got NaN or infinite ones")
    if bounds is not None and observed.numel():
        low, high = float(observed.min()), float(observed.max())
        if low < bounds[0] - 1e-3 or high > bounds[1] + 1e-3:  # what rounding may leave, not another range
            raise BadObservation(f"observed: expected values in {list(bounds)}, got {low:.3g} to {high:.3g}")
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.zeros(1, *shape, device=observed.device, dtype=observed.dtype, requires_grad=True)
        seen = observe(x)
        if seen.shape[1:] != observed.shape[1:]:
            wanted = f"(b, {', '.join(map(str, seen.shape[1:]))})"
            raise BadObservation(f"observed: expected shape {wanted}, got {tuple(observed.shape)}")
        if not gradient:
            return
        found = torch.autograd.grad(seen.sum(), x, allow_unused=True)[0] if seen.requires_grad else None
    if found is None:
        raise NotDifferentiable(
            "observe: expected a differentiable function of the video, got one whose result carries no gradient "
            "(integers, rounding and .detach() have none)"
        )
    # Rounding and comparisons may carry a gradient that is 0 everywhere; ask at a place that is not special.
    if not bool(found.any()) and not _moves(observe, shape, observed):
        raise NotDifferentiable("observe: expected a result that changes with the video, got a gradient of 0")


def _moves(observe: Observe, shape: tuple[int, ...], like: Tensor) -> bool:
    with torch.enable_grad():
        n = math.prod(shape)
        x = torch.linspace(-0.9, 0.8, n, device=like.device, dtype=like.dtype).reshape(1, *shape).requires_grad_()
        (found,) = torch.autograd.grad(observe(x).square().sum(), x)
    return bool(found.any())


def _check_frames(frames: Sequence[int], f: int) -> None:
    if len(set(frames)) != len(frames) or not all(0 <= frame < f for frame in frames):
        raise BadObservation(f"expected different frames out of 0 to {f - 1}, got {list(frames)}")
