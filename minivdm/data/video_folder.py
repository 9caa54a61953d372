"""A folder of one's own videos as a source of clips, with the same methods as Moving-MNIST.

    films/                      films/
        swing.gif                   cats/one.mp4
        run.mp4                     cats/two/0001.png, 0002.png, ...
        jump/0001.png ...           dogs/three.npy

On the right the sub-folders are the labels. Frames are resized and centre-cropped once, and kept in a cache as bytes;
clips are cut out of it, so that memory holds a batch and no more.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from minivdm import guards
from minivdm.data import video_files
from minivdm.data.atomic import write_atomic
from minivdm.data.cache import cache_folder
from minivdm.data.dataset import ClipDataset, checked_indices
from minivdm.data.video_files import VideoFileError
from minivdm.guards import BadArgument, one_of, whole

TEST_SHARE = 0.1  # of the videos, or of the one video's frames


@dataclass
class LabelledClips:
    """A batch: video (b, c, f, h, w) float32 in [-1, 1], labels (b, n) float32, 1 for the clip's class."""

    video: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.video.shape[0]


class Source(NamedTuple):
    """One video: its path, and the class that its sub-folder names ("" without one)."""

    path: Path
    label: str


class Piece(NamedTuple):
    """Frames start to stop of a decoded video (f, h, w, c) in a file of the cache; label: number of its class."""

    file: Path
    start: int
    stop: int
    label: int


def find_videos(path: str | Path) -> list[Source]:
    """The videos in a folder and its sub-folders, in order.

    Where videos lie in sub-folders and none beside these, the first level of sub-folders are the labels.

    Raises:
        FileNotFoundError: no such folder. VideoFileError: no video in it.
    """
    folder = guards.path("path", path)
    if not folder.is_dir():
        there = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(f"path: expected a folder of videos, found {there} at {folder}")
    found: list[Path] = []
    todo, seen = [folder], set()
    while todo:
        here = todo.pop()
        if here.resolve() in seen:  # links may lead in a circle
            continue
        seen.add(here.resolve())
        for child in here.iterdir():
            if child.name.startswith("."):
                continue
            if child.is_dir() and not video_files.is_video(child):
                todo.append(child)
            elif video_files.is_video(child):
                found.append(child)
    if not found:
        kinds = ", ".join((*video_files.ANIMATIONS, *video_files.MOVIES, *video_files.ARRAYS))
        hint = "; pictures count in sub-folders, one for each video" if video_files.is_video(folder) else ""
        raise VideoFileError(f"{folder}: expected videos ({kinds}, or sub-folders of pictures), found none{hint}")
    found.sort(key=lambda p: [video_files.natural(Path(part)) for part in p.relative_to(folder).parts])
    parts = [p.relative_to(folder).parts for p in found]
    labelled = all(len(names) > 1 for names in parts)
    return [Source(p, names[0] if labelled else "") for p, names in zip(found, parts, strict=True)]


def find_channels(sources: Sequence[Source], most: int = 64) -> int:
    """1 if the first frames of the videos are grey, 3 if they are coloured, looking at `most` of them.

    Raises:
        VideoFileError: some are grey and some coloured.
    """
    grey: dict[bool, Path] = {}
    for source in sources[:: max(1, len(sources) // most)]:
        try:
            first = next(iter(video_files.frames(source.path)))
        except (OSError, ValueError, StopIteration, SyntaxError) as error:
            raise VideoFileError(f"{source.path}: damaged, or not a video ({error})") from error
        grey.setdefault(video_files.is_grey(first), source.path)
    if len(grey) == 2:
        raise VideoFileError(
            f"channels: expected videos that are all grey or all coloured, got {grey[True].name} (grey) and "
            f"{grey[False].name} (coloured); say which you want: channels 1 or 3"
        )
    return 1 if True in grey else 3


class VideoFolder(ClipDataset):
    """Clips out of a folder of videos, drawn by index.

    Clip i depends on (seed, i) alone: of every epoch of `len(self)` indices, each clip comes once, in an order of its
    own. A tenth of the videos, chosen by their names among the longer half,
    is the test split; of a single video it is the last tenth.

    Args:
        path: the folder; see `find_videos` for what may be in it.
        size: side of the square frames. The middle of each frame is cut out and resized.
        frames: frames per clip.
        every: takes each n-th frame of a video alone.
        stride: frames (of those taken) from the beginning of one clip to that of the next; by default half a clip.
        channels: 1 for grey, 3 for colour, None for what the videos are.
        split: "train" or "test".
        seed: another seed, another order.
        device: where clips are returned.

    Attributes:
        classes: names of the labels, in order.

    Raises:
        FileNotFoundError, VideoFileError: no folder, no video, a damaged one, or none that is long enough.
        BadArgument: an argument out of range.
    """

    def __init__(
        self,
        path: str | Path,
        size: int = 32,
        frames: int = 16,
        every: int = 1,
        stride: int | None = None,
        channels: int | None = None,
        split: str = "train",
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.path, self.size = guards.path("path", path), whole("size", size, 1, 4096)
        self.frames, self.every = whole("frames", frames), whole("every", every)
        self.stride = max(1, frames // 2) if stride is None else whole("stride", stride)
        self.split, self.seed = one_of("split", split, ("train", "test")), whole("seed", seed, 0, 2**61)
        self.device = guards.device("device", device)
        if channels is not None and whole("channels", channels, 1, 3) == 2:
            raise BadArgument("channels: expected 1, 3 or None, got 2")
        sources = find_videos(path)
        self.channels = find_channels(sources) if channels is None else channels
        self.classes = sorted({source.label for source in sources} - {""})
        files = decoded(self.path, sources, self.size, self.channels)
        lengths = [_open(file).shape[0] for file in files]
        labels = [self.classes.index(source.label) if source.label else -1 for source in sources]
        self._pieces = self._split([Piece(*row) for row in zip(files, [0] * len(files), lengths, labels, strict=True)])
        # (clips, 2): the piece and the first frame of every clip
        self._clips = np.array([(i, start) for i, piece in enumerate(self._pieces) for start in self._starts(piece)])
        if not len(self._clips):
            wanted = (frames - 1) * every + 1
            longest = max((piece.stop - piece.start for piece in self._pieces), default=0)
            raise VideoFileError(
                f"{path}: expected videos of at least {wanted} frames for clips of {frames} (every={every}) in the "
                f"{split} split; the longest of {len(self._pieces)} has {longest}"
            )
        short = sum(not self._starts(piece) for piece in self._pieces)
        if short:
            warnings.warn(
                f"{path}: {short} of {len(self._pieces)} videos are too short for {frames} frames", stacklevel=2
            )
        self.length = len(self._clips)

    def clips(self, indices: Tensor | Sequence[int]) -> LabelledClips:
        """The clips of these indices, (b,) integers from 0."""
        rows = [self._clips[self._place(int(i))] for i in checked_indices(indices).tolist()]
        steps = np.arange(self.frames) * self.every
        return self._made([(self._pieces[piece], start + steps) for piece, start in rows])

    def images(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Single frames, for joint training: video (b, c, 1, h, w) and labels (b, n). Image i is no frame of clip i."""
        chosen = []
        for i in checked_indices(indices).tolist():
            random = np.random.default_rng((self.seed, 1, int(i)))
            piece = self._pieces[int(random.integers(len(self._pieces)))]
            chosen.append((piece, random.integers(piece.start, piece.stop, 1)))
        made = self._made(chosen)
        return made.video, made.labels

    def _made(self, chosen: list[tuple[Piece, np.ndarray]]) -> LabelledClips:
        labels = torch.zeros(len(chosen), len(self.classes))
        for row, (piece, _) in zip(labels, chosen, strict=True):
            if piece.label >= 0:
                row[piece.label] = 1
        if not chosen:
            shape = (0, self.channels, self.frames, self.size, self.size)
            return LabelledClips(torch.empty(shape, device=self.device), labels.to(self.device))
        pixels = np.stack([_open(piece.file)[which] for piece, which in chosen])  # b f h w c
        video = torch.from_numpy(pixels).to(self.device).permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)
        return LabelledClips(video.contiguous(), labels.to(self.device))

    def _starts(self, piece: Piece) -> range:
        last = piece.stop - (self.frames - 1) * self.every - 1
        return range(piece.start, last + 1, self.stride * self.every)

    def _place(self, index: int) -> int:
        """Where clip `index` stands in the list: the epochs are permutations."""
        epoch, place = divmod(index, self.length)
        return int(_permutation(self.length, self.seed, epoch)[place])

    def _split(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces of this split. Which videos are tests does not depend on the length of the clips."""
        test = self.split == "test"
        if len(pieces) == 1:
            one, needed = pieces[0], (self.frames - 1) * self.every + 1
            cut = round((1 - TEST_SHARE) * one.stop)
            if test and one.stop - cut < needed:
                warnings.warn(f"{self.path}: one short video: the test clips are training clips too", stacklevel=4)
                cut = max(0, one.stop - needed)
            return [one._replace(start=cut) if test else one._replace(stop=cut if cut >= needed else one.stop)]
        longer = sorted(pieces, key=lambda piece: (-piece.stop, piece.file.name))[: -(-len(pieces) // 2)]
        # Names of files are hashes: an order that is fixed and has no meaning.
        chosen = set(sorted(longer, key=lambda piece: piece.file.name)[: max(1, round(TEST_SHARE * len(pieces)))])
        return [piece for piece in pieces if (piece in chosen) == test]


def decoded(folder: Path, sources: Sequence[Source], size: int, channels: int) -> list[Path]:
    """The files of the cache with the videos' frames, (f, size, size, channels) bytes, decoded where they are missing.

    A file's name follows from the video's name, size and time of change: a video that changes is decoded again, and
    what is left of old ones is removed.
    """
    key = hashlib.sha256(f"{folder.resolve()}\0{size}\0{channels}".encode()).hexdigest()[:16]
    cache = cache_folder("videos") / key
    files = [cache / f"{_fingerprint(source.path, folder)}.npy" for source in sources]
    missing = [(source, file) for source, file in zip(sources, files, strict=True) if not file.exists()]
    for source, file in tqdm(missing, desc="reading videos", unit="video", disable=None if missing else True):
        buffer = io.BytesIO()
        np.save(buffer, video_files.read(source.path, size, channels))
        write_atomic(file, buffer.getvalue())
    if missing:
        for old in set(cache.glob("*.npy")) - set(files):
            old.unlink(missing_ok=True)
    return files


def _fingerprint(path: Path, folder: Path) -> str:
    name = hashlib.sha256(str(path.relative_to(folder)).encode()).hexdigest()[:16]
    parts = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(part.name, part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    return f"{name}-{hashlib.sha256(repr(stats).encode()).hexdigest()[:16]}"


@lru_cache(maxsize=4096)
def _open(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise VideoFileError(f"{file}: damaged file of the cache, remove it ({error})") from error


@lru_cache(maxsize=8)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, epoch)).permutation(length)
