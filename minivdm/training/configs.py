"""What a training run is made of: one frozen dataclass with a JSON round trip, and the named presets.

Everything that changes the numbers of a run is a field here, so that a resumed run can be compared with the
run it continues. Amounts of training are counted in clips, never in steps: that way a change of batch size
leaves warm-up, decay and milestones where they were.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from dataclasses import dataclass, field
from typing import Any

#: Fields that may differ between a run and its continuation: they change what is written, not what is learned.
REPORTING = ("log_every", "save_every", "preview_every", "milestones")


class ConfigError(ValueError):
    """A training configuration that cannot be meant; the message names the field and what it takes."""


@dataclass(frozen=True)
class Phase:
    """Part of a curriculum: up to `until` clips, batches of `batch` clips with `frames` frames each."""

    until: int
    frames: int
    batch: int


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `frames` is a number, or a curriculum [[clips_until, frames, batch], ...] that replaces
    `batch`; `images` still frames of other clips are appended to each clip (joint training, VDM section 3)."""

    name: str = "moving-mnist-32"
    # data (see moving_mnist.MovingMNIST)
    size: int = 32
    frames: Any = 16
    digits: Any = 1
    speed: float = 1.8  # pixels per frame
    motion: str = "deterministic"
    data_seed: int = 0
    digit_source: str = ""  # the digits that ship; or "mnist", "fashion-mnist" (fetched), or a folder of IDX files
    images: int = 0
    # network: keyword arguments of unet3d.UNet3D
    network: dict = field(default_factory=lambda: {"width": 32, "multipliers": [1, 2, 4], "patch": 2, "labels": 10})
    # diffusion
    target: str = "v"
    weighting: str = "v"
    label_drop: float = 0.1
    log_snr_min: float = -20.0
    log_snr_max: float = 20.0
    shift: float = 0.0  # of the log-SNR: 2 log(32 / size) gives larger frames as much noise as size 32 has
    # optimisation
    clips: int = 300_000
    batch: int = 8
    optimizer: str = "adamw"
    lr: float = 1.5e-3
    lr_end: float = 0.02  # as a share of lr, reached at the last clip
    warmup: int = 4_000  # clips
    betas: Any = (0.9, 0.99)
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    ema_decay: float = 0.9995
    seed: int = 0
    precision: str = "float32"  # or "bf16" (autocast)
    compile: bool = False
    # reporting, in clips
    log_every: int = 400
    save_every: int = 4_000
    preview_every: int = 20_000
    milestones: Any = (1_000, 3_000, 10_000, 30_000, 100_000)

    def __post_init__(self) -> None:
        for name in ("frames", "digits", "betas", "milestones"):
            object.__setattr__(self, name, _tuples(getattr(self, name)))
        for item in dataclasses.fields(self):
            _check_type(item.name, getattr(self, item.name), item.type)
        self._check_values()

    def _check_values(self) -> None:
        for name in ("size", "clips", "batch", "log_every", "save_every", "preview_every"):
            _require(getattr(self, name) >= 1, name, "an integer >= 1", getattr(self, name))
        for name in ("images", "warmup", "seed", "data_seed"):
            _require(getattr(self, name) >= 0, name, "an integer >= 0", getattr(self, name))
        for name in ("lr", "grad_clip"):
            _require(0 < getattr(self, name) < math.inf, name, "a finite number > 0", getattr(self, name))
        for name in ("label_drop", "lr_end"):
            _require(0 <= getattr(self, name) <= 1, name, "a number in [0, 1]", getattr(self, name))
        _require(self.weight_decay >= 0, "weight_decay", "a number >= 0", self.weight_decay)
        _require(0 <= self.ema_decay < 1, "ema_decay", "a number in [0, 1)", self.ema_decay)
        _require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", "two numbers in [0, 1)", self.betas
        )
        for name, allowed in (
            ("precision", ("float32", "bf16")),
            ("optimizer", ("adamw", "muon")),
            ("motion", ("deterministic", "stochastic")),
        ):
            _require(getattr(self, name) in allowed, name, " or ".join(allowed), getattr(self, name))
        self.phases()

    @property
    def labels(self) -> int:
        """Length of the label vector; 0 for an unconditional network."""
        return int(self.network.get("labels", 10))

    def phases(self) -> list[Phase]:
        """The curriculum in order; one phase if `frames` is a number."""
        if isinstance(self.frames, int):
            _require(self.frames >= 1, "frames", "an integer >= 1 or a curriculum", self.frames)
            return [Phase(self.clips, self.frames, self.batch)]
        rows = self.frames
        good = (
            isinstance(rows, tuple)
            and len(rows) > 0
            and all(
                isinstance(row, tuple) and len(row) == 3 and all(type(n) is int and n >= 1 for n in row) for row in rows
            )
        )
        _require(good, "frames", "an integer, or a list of [clips_until, frames, batch] of integers >= 1", rows)
        _require(
            all(a[0] < b[0] for a, b in zip(rows, rows[1:], strict=False)),
            "frames",
            "phases whose clips_until rise",
            rows,
        )
        # The last phase lasts to the end, so that a longer run needs another number of clips and nothing else.
        return [*(Phase(*row) for row in rows[:-1]), Phase(max(rows[-1][0], self.clips), *rows[-1][1:])]

    def phase_at(self, clips: int) -> Phase:
        """The phase to which the next clip belongs after `clips` clips."""
        phases = self.phases()
        return next((phase for phase in phases if clips < phase.until), phases[-1])

    def lr_at(self, clips: int) -> float:
        """Learning rate after `clips` clips: linear warm-up, then half a cosine down to `lr * lr_end`."""
        if clips < self.warmup:
            return self.lr * (clips + 1) / self.warmup
        done = min(1.0, (clips - self.warmup) / max(1, self.clips - self.warmup))
        return self.lr * (self.lr_end + (1 - self.lr_end) * 0.5 * (1 + math.cos(math.pi * done)))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary with lists for tuples, as JSON has it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Inverse of `to_dict`. Raises ConfigError for an unknown field or a wrong value."""
        for key in values:
            _known(key)
        return cls(**values)

    def override(self, assignments: list[str]) -> TrainConfig:
        """A copy with `key=value` assignments applied; values are JSON or plain words, `network.width=48` reaches
        into the network's arguments. Raises ConfigError."""
        values = self.to_dict()
        for text in assignments:
            key, equals, raw = text.partition("=")
            _require(bool(equals), "--set", "key=value", text)
            try:
                value = json.loads(raw)
            except json.JSONDecodeError:
                value = {"True": True, "False": False}.get(raw, raw)
            head, _, inner = key.partition(".")
            _known(head)
            if inner:
                _require(head == "network", "--set", "a dot only after 'network'", text)
                values[head][inner] = value
            else:
                values[head] = value
        return TrainConfig.from_dict(values)

    def difference(self, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
        """Fields in which two configurations differ, as {name: (own value, other's value)}."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}

    def command(self) -> str:
        """The shell command that starts this run (without its output folder)."""
        base = CONFIGS.get(self.name)
        if base is None:
            base = TrainConfig()
        words = [f"--set '{key}={json.dumps(new)}'" for key, (_, new) in base.difference(self).items()]
        return " ".join([f"python -m minivdm train {base.name}", *words])


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _require(condition: bool, name: str, expected: str, got: Any) -> None:
    if not condition:
        raise ConfigError(f"{name}: expected {expected}, got {got!r}")


def _known(key: str) -> None:
    names = [item.name for item in dataclasses.fields(TrainConfig)]
    if key not in names:
        close = difflib.get_close_matches(key, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"
        raise ConfigError(f"no field {key!r} in a training configuration{hint}")


def _check_type(name: str, value: Any, declared: Any) -> None:
    kinds = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "dict": (dict,)}.get(declared)
    if kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and declared != "bool")):
        raise ConfigError(f"{name}: expected {declared}, got {value!r}")


CONFIGS: dict[str, TrainConfig] = {
    config.name: config
    for config in (
        # One digit at half the canonical speed: what two cores learn in an hour and a half. Short clips first: four
        # frames show four times as many digits for the same arithmetic.
        TrainConfig(
            name="moving-mnist-32",
            speed=0.9,
            clips=62_400,
            warmup=1_600,
            optimizer="muon",
            lr=2e-3,
            ema_decay=0.999,
            frames=((24_000, 4, 16), (34_000, 8, 8), (62_400, 16, 8)),
            milestones=(1_000, 3_000, 10_000, 30_000, 50_000),
        ),
        # The harder one: one or two digits at canonical speed.
        TrainConfig(
            name="moving-mnist-32-two",
            digits=(1, 2),
            speed=1.8,
            clips=300_000,
            optimizer="muon",
            lr=2e-3,
            ema_decay=0.999,
            frames=((60_000, 4, 16), (100_000, 8, 8), (300_000, 16, 8)),
        ),
        TrainConfig(
            name="moving-mnist-64",
            size=64,
            frames=20,
            digits=2,
            speed=3.6,
            images=4,
            network={"width": 64, "multipliers": [1, 2, 4], "patch": 2, "labels": 10},
            clips=2_000_000,
            batch=64,
            lr=1e-3,
            warmup=50_000,
            ema_decay=0.9998,
            precision="bf16",
            compile=True,
            log_every=6_400,
            save_every=64_000,
            preview_every=128_000,
            milestones=(10_000, 50_000, 200_000, 1_000_000),
        ),
    )
}


def get(name: str) -> TrainConfig:
    """The preset of that name. Raises ConfigError with the list of presets."""
    if name not in CONFIGS:
        raise ConfigError(f"no configuration {name!r}; there are {', '.join(CONFIGS)}")
    return CONFIGS[name]
