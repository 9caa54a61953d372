"""Clips that are made once and gone through again and again, for sources that are slower than the training."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from minivdm import guards
from minivdm.data.dataset import ClipDataset, checked_indices

PART = 256  # clips made at once


class _Parts(Dataset[dict[str, Tensor]]):
    """The clips of a source, PART at a time, with pixels as bytes."""

    def __init__(self, source: ClipDataset, count: int) -> None:
        self.source, self.count = source, count

    def __len__(self) -> int:
        return -(-self.count // PART)

    def __getitem__(self, part: int) -> dict[str, Tensor]:
        if not 0 <= part < len(self):
            raise IndexError(part)
        made = self.source.clips(torch.arange(part * PART, min((part + 1) * PART, self.count)))
        tensors = {name: value for name, value in vars(made).items() if isinstance(value, Tensor)}
        return tensors | {"video": ((tensors["video"] + 1) * 127.5).round().to(torch.uint8)}


class KeptClips(ClipDataset):
    """The first `count` clips of a source, on a device: pixels as bytes, and of the rest the tensors.

    Args:
        source: on the CPU; its `clips` gives a dataclass with `video` (b, c, f, h, w) in [-1, 1], of 256 levels.
        count: how many; an index beyond them begins anew.
        device: where they are kept. 32,768 clips of 16 frames of 32x32 pixels are half a gigabyte.
    """

    def __init__(self, source: ClipDataset, count: int, device: str | torch.device = "cpu") -> None:
        self.source, self.count, self.device = source, guards.whole("count", count), torch.device(device)
        self._kind = type(source.clips([0]))
        # Beside a GPU there are cores to spare; on a small machine they are what trains.
        workers = min(12, (os.cpu_count() or 1) - 2) if self.device.type == "cuda" else 0
        parts = DataLoader(_Parts(source, count), batch_size=None, num_workers=max(0, workers))
        made = [{name: value.to(self.device) for name, value in part.items()} for part in parts]
        self._kept = {name: torch.cat([part[name] for part in made]) for name in made[0]}

    def clips(self, indices: Tensor | Sequence[int]) -> Any:
        """The clips of these indices, (b,) integers from 0; what is no tensor is None."""
        place = checked_indices(indices).to(self.device) % self.count
        found: dict[str, Any] = {field.name: None for field in dataclasses.fields(self._kind)}
        found |= {name: value[place] for name, value in self._kept.items()}
        found["video"] = found["video"].float().div_(127.5).sub_(1)
        return self._kind(**found)

    def images(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Still images and labels, which are not kept."""
        images: tuple[Tensor, Tensor] = self.source.images(indices)  # type: ignore[attr-defined]
        return images
