"""Clips by index, as a torch data set: what a DataLoader asks of one."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minivdm.guards import BadArgument, BadType


class BadIndex(BadArgument, IndexError):
    """An index beyond a data set's end, by which Python knows that it was gone through."""


class ClipDataset:
    """Adds `len`, `[]` and a batched read to a source of clips, so that a torch DataLoader takes it.

    A source has `clips(indices)`, whose result has `video` (b, c, f, h, w) and `labels` (b, n). An item is the pair
    (video (c, f, h, w), labels (n,)). With workers, make the source on the CPU.
    """

    #: Clips of an epoch; `clips` goes on beyond it.
    length: int = 60_000
    #: Whether clips are made on their device alone, so that the making can be recorded (`training.graphs`).
    recordable: bool = False

    def clips(self, indices: Tensor | Sequence[int]) -> Any:
        """The clips of these indices."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if isinstance(index, bool) or not isinstance(index, (int, np.integer, Tensor)) or np.ndim(index):
            raise BadType(f"index: expected a whole number, got {reprlib.repr(index)}")
        if not 0 <= index < len(self):
            raise BadIndex(f"index: expected 0 to {len(self) - 1}, got {index}")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Several items at once, which is faster; DataLoader finds it by its name."""
        made = self.clips(torch.as_tensor(indices))
        return list(zip(made.video, made.labels, strict=True))


def checked_indices(indices: Tensor | Sequence[int]) -> Tensor:
    """Indices as an int64 tensor (b,).

    Raises:
        BadType, BadArgument: for what is no list of integers from 0. Values on an accelerator are not read.
    """
    try:
        index = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise BadType(f"indices: expected a list of integers, got {reprlib.repr(indices)}") from error
    if index.ndim == 1 and index.numel() == 0 and not isinstance(indices, Tensor):
        index = index.long()  # of an empty list, torch makes floats
    if index.ndim != 1 or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise BadType(f"indices: expected a list of integers, got shape {tuple(index.shape)}, {index.dtype}")
    if index.device.type == "cpu" and index.numel() and int(index.min()) < 0:
        raise BadArgument(f"indices: expected integers from 0, got {int(index.min())}")
    return index.long()
