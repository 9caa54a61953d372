"""Digits and clips from files: what ships with the package, IDX files, the canonical Moving-MNIST test clips."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minivdm import guards

SHIPPED = Path(__file__).with_name("mnist-5000.npz")
SHIPPED_SHA256 = "45ac59fe3fe3aff2a7a3a1f240112e45bdbdfd0e4d3af61412bbcbf432de33df"
CANONICAL_SHAPE = (20, 10000, 64, 64)  # f b h w


class DataFileError(guards.BadFile):
    """A data file is truncated, or holds something else than expected."""


@dataclass(frozen=True)
class Digits:
    """A pool of pictures: images (n, h, h) uint8, labels (n,) integers in 0..9."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        shape, n = tuple(self.images.shape), self.labels.shape[0] if self.labels.ndim else 0
        if len(shape) != 3 or shape[1] != shape[2] or self.images.dtype != torch.uint8 or not shape[0]:
            raise DataFileError(f"images: expected (n, h, h) uint8, got {shape} {self.images.dtype}")
        if self.labels.ndim != 1 or n != shape[0] or self.labels.is_floating_point():
            got = f"{tuple(self.labels.shape)} {self.labels.dtype}"
            raise DataFileError(f"labels: expected one integer for each of {shape[0]} images, got {got}")
        if self.labels.min() < 0 or self.labels.max() > 9:
            raise DataFileError(f"labels: expected 0..9, got {self.labels.min()}..{self.labels.max()}")


def load_digits(source: Digits | str | Path | None = None, split: str = "train") -> Digits:
    """The digits of a split ("train" or "test").

    Args:
        source: None for those that ship (4,500 and 500 of MNIST); "mnist" or "fashion-mnist" to fetch the
            whole data set; a folder with its four IDX files, plain or .gz; or `Digits`, returned as they are.
    Raises:
        FileNotFoundError, DataFileError, fetch.FetchError: each says which file, what was expected and what
        is there.
    """
    guards.one_of("split", split, ("train", "test"))
    if isinstance(source, Digits):
        return source
    if source is not None:
        guards.path("source", source)
    if source in ("mnist", "fashion-mnist"):
        from minivdm.data.fetch import fetch  # pulls in requests, which nobody needs offline

        source = fetch(str(source))
    if source is not None:
        return _idx_digits(Path(source), split)
    try:
        with np.load(SHIPPED) as arrays:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise DataFileError(f"{SHIPPED}: expected {split}_images and {split}_labels in it, but: {error}") from error
    return Digits(torch.from_numpy(images), torch.from_numpy(labels).long())


def _idx_digits(folder: Path, split: str) -> Digits:
    prefix = {"train": "train", "test": "t10k"}[split]
    images = read_idx(_find(folder, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte"))
    try:
        return Digits(torch.from_numpy(images), torch.from_numpy(labels).long())
    except DataFileError as error:
        raise DataFileError(f"{folder}, {split} split: {error}") from error


def _find(folder: Path, name: str) -> Path:
    """The IDX file in either of its usual spellings, unpacked or not."""
    names = [name + end for name in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise FileNotFoundError(f"{folder}: expected one of {', '.join(names)}")


def read_idx(path: str | Path) -> np.ndarray:
    """An IDX file of bytes, plain or .gz, as a uint8 array of the shape that its header names.

    The format (LeCun, Cortes & Burges, the MNIST page): two zero bytes, the type (8: unsigned byte), the
    number of axes, the length of each as a big-endian 32-bit integer, then the values.
    """
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataFileError(f"{path}: truncated or damaged gzip file ({error})") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise DataFileError(f"{path}: expected an IDX file of bytes (it begins 00 00 08), found {raw[:4].hex(' ')}")
    header = 4 + 4 * raw[3]
    if len(raw) < header:
        raise DataFileError(f"{path}: truncated, {len(raw)} bytes of a header of {header}")
    shape = struct.unpack(f">{raw[3]}I", raw[4:header])
    expected = int(np.prod(shape, dtype=object))
    if len(raw) - header != expected:
        problem = "truncated" if len(raw) - header < expected else "too long"
        raise DataFileError(f"{path}: {problem}, {len(raw) - header} values where {shape} needs {expected}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy()


class MovingMNISTTest:
    """The canonical test set: 10,000 clips of two digits, 20 frames of 64x64 (Srivastava et al. 2015).

    Args:
        path: `mnist_test_seq.npy`, (20, 10000, 64, 64) uint8; None fetches it (819 MB).
    The file stays on disk and is read clip by clip.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        if path is None:
            from minivdm.data.fetch import fetch

            path = fetch("moving-mnist-test") / "mnist_test_seq.npy"
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: expected the file mnist_test_seq.npy")
        try:
            self._frames = np.load(path, mmap_mode="r")  # f b h w
        except (ValueError, EOFError, OSError) as error:
            raise DataFileError(f"{path}: truncated, or not an npy file ({error})") from error
        if self._frames.shape != CANONICAL_SHAPE or self._frames.dtype != np.uint8:
            got = f"{self._frames.shape} {self._frames.dtype}"
            raise DataFileError(f"{path}: expected {CANONICAL_SHAPE} (f, b, h, w) uint8, got {got}")

    def __len__(self) -> int:
        return self._frames.shape[1]

    def videos(self, indices: Tensor | Sequence[int]) -> Tensor:
        """The clips of these indices as (b, 1, 20, 64, 64) float32 in [-1, 1]."""
        index = np.asarray(indices)
        if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
            raise guards.BadType(f"indices: expected a list of integers, got shape {index.shape}, {index.dtype}")
        if index.size and not 0 <= index.min() <= index.max() < len(self):
            raise guards.BadArgument(f"indices: expected 0..{len(self) - 1}, got {index.min()}..{index.max()}")
        clips = np.ascontiguousarray(self._frames[:, index].swapaxes(0, 1))  # b f h w
        return torch.from_numpy(clips)[:, None].float().div_(127.5).sub_(1)
