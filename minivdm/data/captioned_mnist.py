"""Moving-MNIST with captions: clips of one digit, slow or fast, and a sentence about each, made from its own truth.

Two things are arranged so that a sentence is true to what can be seen. A clip keeps its first direction for at least
half of its frames: a digit that starts at the wall towards which it moves would be seen moving away from it. And the
two speeds lie apart, at 2/3 and 4/3 of the mean.

A quarter of the combinations of digit and direction never occurs in the training split, so that a model can be asked
for what it was never told of: a nine and a motion to the right, each known from others, put together.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from minivdm.data.captions import Caption, say, tokens
from minivdm.data.dataset import ClipDataset, checked_indices
from minivdm.data.files import Digits
from minivdm.data.moving_mnist import Clips, MovingMNIST
from minivdm.guards import BadArgument, whole

#: Slow and fast, as shares of the mean speed.
SPEEDS = (2 / 3, 4 / 3)
#: Clips that are looked at for each that is given out.
CANDIDATES = 8
#: How often a sentence mentions each attribute.
MENTIONED = {"digit": 0.9, "direction": 0.9, "speed": 0.6, "bounce": 0.25}


@dataclass
class CaptionedClips(Clips):
    """Clips (see there), and what is said of them.

    Attributes:
        captions: the whole truth about each clip.
        sentences: a sentence for each, which may leave attributes out.
        text: (b, LENGTH) int64, the tokens of the sentences.
    """

    captions: list[Caption]
    sentences: list[str]
    text: Tensor


def held_out(digit: int, direction: int) -> bool:
    """Whether this combination is kept from the training split: two opposite directions of every digit."""
    return (direction - 3 * digit) % 4 == 0


class CaptionedMNIST(ClipDataset):
    """Captioned clips of one moving digit, by index; clip i depends on (seed, split, i) alone. Even ones are slow.

    Args:
        size: height and width of the canvas in pixels.
        frames: frames per clip.
        speed: mean speed in pixels per frame; clips move at 2/3 and 4/3 of it. By default 0.9 at size 32.
        split: "train", without the combinations that are `held_out`, or "test", with all of them.
        seed: another seed, other clips and sentences.
        device: where clips are returned; they are made on the CPU, where their truth is put into words.
        digit_source: as for `MovingMNIST`.

    Raises:
        BadArgument: as MovingMNIST does.
    """

    def __init__(
        self,
        size: int = 32,
        frames: int = 16,
        speed: float | None = None,
        split: str = "train",
        seed: int = 0,
        device: str | torch.device = "cpu",
        *,
        digit_source: Digits | str | Path | None = None,
    ) -> None:
        speed = 0.9 * whole("size", size, 1, 4096) / 32 if speed is None else speed
        self.speed, self.split, self.seed, self.device = speed, split, seed, torch.device(device)
        self.frames = frames
        self._sources = [
            MovingMNIST(size, frames, 1, speed * share, split=split, seed=seed, digit_source=digit_source)
            for share in SPEEDS
        ]

    def clips(self, indices: Tensor | Sequence[int]) -> CaptionedClips:
        """The clips of these indices, (b,) integers from 0."""
        index = checked_indices(indices).cpu()
        if not len(index):
            raise BadArgument("indices: expected at least one, got none")
        fast = index % 2
        made = [self._of_speed(index[fast == which], which) for which in (0, 1) if bool((fast == which).any())]
        back = torch.cat([torch.nonzero(fast == which)[:, 0] for which in (0, 1)]).argsort()
        parts = {
            name: torch.cat([getattr(part, name) for part in made])[back].to(self.device)
            for name in ("video", "labels", "digits", "positions", "velocities")
        }
        captions = describe(parts["digits"], parts["velocities"], self.speed)
        sentences = [self._sentence(caption, int(i)) for caption, i in zip(captions, index, strict=True)]
        return CaptionedClips(**parts, captions=captions, sentences=sentences, text=tokens(sentences).to(self.device))

    def images(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Independent single frames and their labels, as of MovingMNIST; a frame has no caption."""
        image, labels = self._sources[0].images(indices)
        return image.to(self.device), labels.to(self.device)

    def _of_speed(self, index: Tensor, which: int) -> Clips:
        """The first candidates that go straight for half of the clip and may be shown; else the straightest of them."""
        tried = (index[:, None] * CANDIDATES + torch.arange(CANDIDATES)).flatten()
        made = self._sources[which].clips(tried)
        straight = first_leg(made.velocities[:, 0])  # (b k,)
        good = straight.clamp(max=self.frames // 2).float()
        if self.split == "train":
            pairs = zip(made.digits[:, 0].tolist(), directions(made.velocities[:, 0, 0]).tolist(), strict=True)
            good -= self.frames * torch.tensor([held_out(*pair) for pair in pairs])
        best = good.view(len(index), CANDIDATES).max(1).indices  # of several, the first
        chosen = torch.arange(len(index)) * CANDIDATES + best
        return Clips(*(getattr(made, name)[chosen] for name in Clips.__dataclass_fields__))

    def _sentence(self, caption: Caption, index: int) -> str:
        draw = random.Random((self.seed * 2 + (self.split == "test")) << 64 | index)
        left_out = {name: None for name, share in MENTIONED.items() if draw.random() >= share}
        return say(replace(caption, **left_out), draw.getrandbits(40))  # type: ignore[arg-type]


def directions(velocity: Tensor) -> Tensor:
    """Places in `captions.COMPASS` nearest to velocities (..., 2) as (y, x), y pointing down; int64 of shape (...)."""
    angle = torch.atan2(-velocity[..., 0], velocity[..., 1])
    return (angle / (math.pi / 4)).round().long() % 8


def first_leg(velocities: Tensor) -> Tensor:
    """Steps from one frame to the next until the velocity changes, (b,), for velocities (b, f, 2) of one digit."""
    same = (velocities[:, :-1] == velocities[:, :1]).all(-1)  # b f-1; how it leaves the last frame is not seen
    return same.long().cumprod(1).sum(1)


def describe(digits: Tensor, velocities: Tensor, speed: float) -> list[Caption]:
    """The whole truth about clips of one digit.

    Args:
        digits: (b, 1), as of `Clips`.
        velocities: (b, 1, f, 2), as of `Clips`.
        speed: the mean speed; what moves faster is fast.
    """
    path = velocities[:, 0].cpu()
    fast = path[:, 0].norm(dim=-1) > speed
    bounced = first_leg(path) < path.shape[1] - 1
    rows = zip(
        digits[:, 0].tolist(), directions(path[:, 0]).tolist(), fast.long().tolist(), bounced.tolist(), strict=True
    )
    return [Caption(*row) for row in rows]
