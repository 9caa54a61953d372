"""What a video denoiser is used for. A task says which frames are known, which denoiser is asked, and how it samples.

So far: `generate`, videos from labels alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minivdm import samplers
from minivdm.denoiser import Denoiser
from minivdm.guidance import classifier_free


def multi_hot(digits: list[int] | tuple[int, ...], n: int = 10) -> Tensor:
    """Label vector (1, n) with a 1 for every class named. Raises ValueError for a class outside 0 .. n-1."""
    wrong = [digit for digit in digits if not 0 <= digit < n]
    if wrong:
        raise ValueError(f"labels: expected classes 0 to {n - 1}, got {wrong}")
    vector = torch.zeros(1, n)
    vector[0, list(digits)] = 1.0
    return vector


def guided(denoise: Denoiser, labels: Tensor | None, weight: float) -> Any:
    """The denoiser to sample with: conditional, unconditional, or guided with `weight` (VDM eq 6; 0 = no guidance)."""
    if labels is None:
        if weight:
            raise ValueError(f"weight: guidance needs labels; expected weight 0 without them, got {weight}")
        return denoise.given(None)
    if weight == 0:
        return denoise.given(labels)
    return classifier_free(denoise.given(labels), denoise.given(None), weight)


@torch.no_grad()
def generate(denoise: Denoiser, labels: Tensor | None = None, *, count: int | None = None,
             shape: tuple[int, int, int, int] | None = None, weight: float = 0.0, steps: int = 64,
             step: Callable[..., Tensor] = samplers.ddim_step, generator: torch.Generator | None = None,
             **sampling: Any) -> Tensor:
    """Videos (b, c, f, h, w) in about [-1, 1] from noise.

    labels: (b, n) or (1, n) multi-hot, or None for unconditional samples. count: how many, by default as many as there
    are labels. shape: (c, f, h, w), by default what the weights were trained on. weight: guidance, w >= 0.
    steps, step, **sampling: as for samplers.sample. Raises ValueError where these do not fit together.
    """
    shape = shape or getattr(denoise, "shape", None)
    if shape is None:
        raise ValueError("shape: expected (c, f, h, w), which this denoiser does not know by itself, got None")
    rows = 1 if labels is None else len(labels)
    count = rows if count is None else count
    if rows not in (1, count):
        raise ValueError(f"labels: expected 1 or {count} rows, got {rows}")
    device = next(denoise.parameters()).device
    where = generator.device if generator is not None else device
    noise = torch.randn((count, *shape), generator=generator, device=where).to(device)
    if labels is not None:
        labels = labels.to(device).expand(count, *labels.shape[1:])
    return samplers.sample(guided(denoise, labels, weight), noise, steps, step=step, generator=generator, **sampling)
