"""Whether a clip does what a sentence asked for: each attribute by itself, and the share of clips with its interval.

No judge is needed, as the sentences are of a closed language (`minivdm.data.captions`): the digit is what the reader
reads, direction and speed are those of the straight path that fits the clip best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from minivdm.data.captioned_mnist import directions
from minivdm.data.captions import Caption
from minivdm.guards import BadArgument, check_types, real, whole
from minivdm.measure.metrics import read
from minivdm.measure.tracks import fit_track

ATTRIBUTES = ("digit", "direction", "speed", "bounce")


@dataclass(frozen=True)
class Share:
    """A share of clips: `hits` of `count`, and the ends of its interval."""

    hits: int
    count: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """hits / count; NaN of none."""
        return self.hits / self.count if self.count else float("nan")

    def __str__(self) -> str:
        return f"{self.rate:.1%} ({self.low:.1%} to {self.high:.1%}, {self.count} clips)"


@dataclass(frozen=True)
class Obedience:
    """What clips do, beside what was asked for.

    Attributes:
        right: (b,) bool for each attribute, whether the clip does what its sentence says.
        said: (b,) bool for each attribute, whether the sentence says anything of it.
    """

    right: dict[str, Tensor]
    said: dict[str, Tensor]

    def share(self, attribute: str, among: Tensor | None = None, level: float = 0.95) -> Share:
        """Of the clips whose sentence mentions the attribute, the share that obeys.

        Args:
            attribute: one of `ATTRIBUTES`, or "all": every attribute that a sentence mentions at once.
            among: (b,) bool, the clips to count; by default all.
            level: of the interval.
        """
        if attribute not in (*ATTRIBUTES, "all"):
            raise BadArgument(f"attribute: expected one of {', '.join(ATTRIBUTES)}, all, got {attribute!r}")
        if attribute == "all":
            said = torch.stack(list(self.said.values())).any(0)
            right = torch.stack([self.right[name] | ~self.said[name] for name in ATTRIBUTES]).all(0)
        else:
            said, right = self.said[attribute], self.right[attribute]
        if among is not None:
            if among.shape != said.shape or among.dtype != torch.bool:
                raise BadArgument(f"among: expected bool of shape {tuple(said.shape)}, got {tuple(among.shape)}")
            said = said & among
        return wilson(int((right & said).sum()), int(said.sum()), level)


@torch.no_grad()
def obedience(videos: Tensor, captions: Sequence[Caption], speed: float = 0.9) -> Obedience:
    """Hold clips of one digit against what was asked of them.

    A digit is right if the clip is read as exactly this digit (as `metrics.legible`). A direction is right if the
    fitted path sets out nearest to it, of the eight; a speed, if it is on its side of `speed`; a bounce, if the fitted
    path turns back somewhere. Of true clips near the border of two directions, some are called wrong too: what true
    clips reach is the ceiling, to be measured beside.

    Args:
        videos: (b, 1, f, 32, 32) in about [-1, 1].
        captions: one per clip.
        speed: pixels per frame between slow and fast.
    """
    if len(captions) != len(videos):
        raise BadArgument(f"captions: expected one for each of {len(videos)} clips, got {len(captions)}")
    real("speed", speed, least=0, above=True)
    found = read(videos).clip  # b 10
    track = fit_track(videos)
    there = track.deviation.isfinite()
    steps = track.fitted.diff(dim=1)  # b f-1 2
    turned = (steps * steps[:, :1] < -1e-3).any(-1).any(-1)
    does = {
        "digit": torch.where(found.sum(1) == 1, found.int().argmax(1), -1),
        "direction": torch.where(there, directions(track.velocity), -1),
        "speed": torch.where(there, (track.velocity.norm(dim=-1) > speed).long(), -1),
        "bounce": torch.where(there, turned.long(), -1),
    }
    right, said = {}, {}
    for name in ATTRIBUTES:
        asked = [getattr(caption, name) for caption in captions]
        said[name] = torch.tensor([value is not None for value in asked])
        right[name] = does[name].cpu() == torch.tensor([-2 if value is None else int(value) for value in asked])
    return Obedience(right, said)


def wilson(hits: int, count: int, level: float = 0.95) -> Share:
    """Wilson's interval (1927) for a share: the p whose own spread sqrt(p (1 - p) / n) still reaches what was seen.

    Unlike the share plus and minus its standard error, it stays inside [0, 1] and does not shrink to nothing at
    either end.
    """
    whole("count", count, 0)
    whole("hits", hits, 0, count)
    z = NormalDist().inv_cdf((1 + real("level", level, 0, 1, above=True)) / 2) if level < 1 else float("inf")
    if not count or level == 1:
        return Share(hits, count, 0.0, 1.0)
    p, shrink = hits / count, 1 + z**2 / count
    centre = (p + z**2 / (2 * count)) / shrink
    half = z / shrink * (p * (1 - p) / count + z**2 / (4 * count**2)) ** 0.5
    return Share(hits, count, max(0.0, centre - half), min(1.0, centre + half))


check_types(globals())
