"""What a `UNet3D` is built from: its sizes, its attention, and the conditions that it takes, checked together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from minivdm.guards import BadArgument, BadType, whole

#: Conditions that came after the first weights: written down only where a network takes them, so that cards stay as
#: they were.
_LATER = ("self_conditioning", "text", "text_layers", "text_frozen", "low")


@dataclass(frozen=True)
class UNet3DConfig:
    """The arguments of `UNet3D`, by the same names.

    Args:
        channels: colour channels c of the clip.
        width: channels of the finest level.
        multipliers: channel multipliers M_1 ... M_K, one per resolution.
        patch: side of the squares folded into channels before the first convolution (pixel-unshuffle). With 2,
            a 32x32 frame enters as 16x16 with four times the channels, a quarter of the cost.
        labels: length of the label vector; 0 for a network without condition.
        blocks: cells per resolution on the way down; the way up has one more.
        middle: cells at the coarsest resolution between the two ways.
        spatial, temporal: which resolutions have that attention, finest first.
        head_channels: channels per attention head; every width is a multiple of it and of 8.
        embedding: width of the embedding of noise level and labels, even.
        self_conditioning: whether the network takes an `estimate`, its own earlier answer for x (Chen et al. 2022,
            "Analog bits", section 3.2).
        text: words of the vocabulary whose sentences the network takes as `text`; 0 for a network without. They enter
            by cross-attention after each spatial attention, and by their mean, beside the labels.
        text_layers: layers of the text encoder.
        text_frozen: whether the text encoder stays as it is in training, as Imagen's does.
        low: channels of the clip of another stage that the network takes as `low` (`LowResolution`); 0 for none.

    Raises:
        BadArgument: a ValueError that names the argument, for counts out of range and for widths or lengths that do
            not fit together.
    """

    channels: int = 1
    width: int = 32
    multipliers: Sequence[int] = (1, 2, 4)
    patch: int = 2
    labels: int = 10
    blocks: int = 1
    middle: int = 2
    spatial: Sequence[bool] = (False, True, True)
    temporal: Sequence[bool] = (True, True, True)
    head_channels: int = 32
    embedding: int = 128
    self_conditioning: bool = False
    text: int = 0
    text_layers: int = 2
    text_frozen: bool = False
    low: int = 0

    def __post_init__(self) -> None:
        for name in ("channels", "width", "patch", "blocks"):
            whole(name, getattr(self, name))
        for name in ("labels", "middle", "text", "low"):
            whole(name, getattr(self, name), least=0)
        if whole("embedding", self.embedding) % 2:  # half of it sines, half cosines
            raise BadArgument(f"embedding: expected an even number, got {self.embedding}")
        if whole("head_channels", self.head_channels) % 4:
            raise BadArgument(f"head_channels: expected a multiple of 4, got {self.head_channels}")
        for name in ("multipliers", "spatial", "temporal"):
            if not isinstance(value := getattr(self, name), Sequence):
                raise BadType(f"{name}: expected a sequence, got {value!r}")
        lengths = [len(self.multipliers), len(self.spatial), len(self.temporal)]
        if not lengths[0] or len(set(lengths)) > 1:
            got = "{}, {} and {}".format(*lengths)
            raise BadArgument(f"multipliers, spatial, temporal: expected one entry per resolution in each, got {got}")
        if bad := [w for w in self.widths if w % self.head_channels or w % 8]:
            wanted = f"multiples of 8 and of head_channels={self.head_channels}"
            raise BadArgument(f"width, multipliers: expected products that are {wanted}, got {bad}")

    @property
    def widths(self) -> list[int]:
        """Channels of each resolution, finest first."""
        return [self.width * whole("multipliers", m) for m in self.multipliers]

    def as_dict(self) -> dict[str, Any]:
        """The arguments as a card has them: JSON, without later ones that the network does not use."""
        found = {k: list(v) if isinstance(v, Sequence) else v for k, v in asdict(self).items()}
        unused = {name for name in _LATER if not found[name]} | (set() if self.text else {"text_layers", "text_frozen"})
        return {name: value for name, value in found.items() if name not in unused}
