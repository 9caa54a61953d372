"""What is known of a clip: pairs of an observation and what it saw, held against each other before any network runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from minivdm.core.observe import BadObservation, NotDifferentiable, Observe
from minivdm.guards import check_types, floating

#: Pairs of an observation (`minivdm.core.observe`) and what it saw, (b or 1, ...).
Observations = Sequence[tuple[Observe, Tensor]]


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
    if not bool(floating("observed", observed).isfinite().all()):
        raise BadObservation("observed: expected finite values, got NaN or infinite ones")
    if bounds is not None and observed.numel():
        low, high = float(observed.min()), float(observed.max())
        if low < bounds[0] - 1e-3 or high > bounds[1] + 1e-3:  # what rounding may leave, not another range
            raise BadObservation(f"observed: expected values in {list(bounds)}, got {low:.3g} to {high:.3g}")
    if observed.ndim == 0 or observed.numel() == 0:
        raise BadObservation(f"observed: expected values with a batch first, got shape {tuple(observed.shape)}")
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.zeros(1, *shape, device=observed.device, dtype=observed.dtype, requires_grad=True)
        seen = observe(x)
        if not isinstance(seen, Tensor):
            raise BadObservation(f"observe: expected a function that returns a tensor, got {type(seen).__name__}")
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


def pairs(observations: Observations) -> list[tuple[Observe, Tensor]]:
    wanted = "observations: expected pairs of an operator and what it saw, as in [(Frames(range(8)), video[:, :, :8])]"
    if not isinstance(observations, Sequence) or not len(observations):
        got = "none" if isinstance(observations, Sequence) else type(observations).__name__
        raise BadObservation(f"{wanted}, got {got}")
    for pair in observations:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not callable(pair[0]) or not isinstance(pair[1], Tensor):
            raise BadObservation(f"{wanted}, got {type(pair).__name__}")
    return [(observe, value) for observe, value in observations]


check_types(globals())
