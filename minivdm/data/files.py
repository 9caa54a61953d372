"""Digits and clips from files: what ships with the package, IDX files, and the canonical Moving-MNIST test file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SHIPPED = Path(__file__).with_name("mnist-5000.npz")


@dataclass(frozen=True)
class Digits:
    """A pool of pictures: images (n, h, h) uint8 and labels (n,) int64 in 0..9."""

    images: Tensor
    labels: Tensor


def load_digits(source: Digits | str | Path | None = None, split: str = "train") -> Digits:
    """The digits of a split, from `source`: None for those that ship (4,500 train, 500 test)."""
    if split not in ("train", "test"):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    if isinstance(source, Digits):
        return source
    if source is not None:
        raise NotImplementedError("IDX files follow")
    try:
        with np.load(SHIPPED) as arrays:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{SHIPPED}: expected the arrays {split}_images and {split}_labels, but: {error}") from error
    return Digits(torch.from_numpy(images), torch.from_numpy(labels).long())
