"""Larger videos: more pixels, more frames, or both at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoise
from minivdm.core.observe import BadObservation, Downsample
from minivdm.guards import check_types, whole
from minivdm.tasks.extension import Blockwise, BlockwiseFields, fill
from minivdm.tasks.orders import NoNewFrames, ObservedAndNew, Order, autoregressive, plan
from minivdm.tasks.restoration import placed, window_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


@torch.no_grad()
def super_resolve(
    denoise: Denoise,
    video: Tensor,
    space: int = 2,
    every: int = 1,
    *,
    frames: int | None = None,
    first: Tensor | None = None,
    order: Order | Iterable[ObservedAndNew] = autoregressive,
    window: int | None = None,
    labels: Tensor | None = None,
    **named: Unpack[BlockwiseFields],
) -> Tensor:
    """The video (b, c, f, h * space, w * space) whose block means `video` (b, c, n, h, w) shows (VDM eq 8).

    space: pixels along a block's side. every: `video` has every `every`-th frame alone; those between are made.
    frames: how many the result has, by default the fewest, (n - 1) every + 1.
    first: (b, c, m, h * space, w * space), leading frames that are there at full size already.
    Where it has more frames than the network holds, each block observes its own part of `video` and the full-size
    frames before it: super-resolution and extension at once, as in VDM's figure 2. Further arguments and errors: as
    for `extend`, but that the order begins without known frames unless `first` is given.
    """
    options = Blockwise.of(dict(named))
    video = placed(denoise, video)
    low = Downsample(space, every)  # checks both
    frames = (video.shape[2] - 1) * every + 1 if frames is None else whole("frames", frames)
    if video.shape[2] != -(-frames // every):
        raise BadObservation(
            f"video: expected {-(-frames // every)} frames, every {every}th of {frames}, got {video.shape[2]}"
        )
    if space == every == 1:
        raise NoNewFrames("expected space or every above 1, got 1 and 1: nothing to make")
    b, c, _, h, w = video.shape
    known: list[int] = []
    if first is not None:
        first = placed(denoise, first, "first")
        known = list(range(first.shape[2]))
        if len(first) not in (1, b) or first.shape[1] != c or first.shape[3:] != (h * space, w * space):
            wanted = f"(1 or {b}, {c}, m, {h * space}, {w * space})"
            raise BadObservation(f"first: expected {wanted}, got {tuple(first.shape)}")
    blocks = plan(order, known, frames, window_of(denoise, window))
    canvas = video.new_zeros(b, c, frames, h * space, w * space)
    if first is not None:
        canvas[:, :, known] = first.to(canvas)
    return fill(denoise, canvas, blocks, options, labels, (low, video))


check_types(globals())
