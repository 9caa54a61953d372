"""A recipe says how one set of weights is made: one frozen dataclass with a JSON round trip (`recipes` names some).

Everything that changes the numbers of a run is a field here, so that a resumed run can be compared with the run it
continues. Amounts of training are counted in clips, never in steps: that way a change of batch size leaves warm-up,
decay and milestones where they were. A recipe is checked as a whole when it is made, before a file is touched.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

import torch

from minivdm.core.schedules import Schedule
from minivdm.core.targets import TARGETS, WEIGHTINGS
from minivdm.data.kept import KeptClips
from minivdm.networks.unet3d import UNet3D
from minivdm.networks.unet3d_config import UNet3DConfig
from minivdm.training import objectives, parts
from minivdm.training.validate import between, check_arguments, check_types, fits, known, require, tuples

#: Fields that may differ between a run and its continuation: they change what is written, not what is learned.
REPORTING = ("log_every", "save_every", "preview_every", "milestones")
#: Fields that no continuation can change, as the state of the run belongs to them.
FIXED = ("network", "optimizer", "seed", "init", "objective", "teacher")

MOST = 10**12  # clips, of anything


@dataclass(frozen=True)
class Phase:
    """Part of a curriculum: up to `until` clips, batches of `batch` clips with `frames` frames each."""

    until: int
    frames: int
    batch: int


@dataclass(frozen=True)
class Recipe:
    """How one set of weights is made. `frames` is a number, or a curriculum [[clips_until, frames, batch], ...] that
    replaces `batch`; `images` still frames of other clips are appended to each clip (joint training, VDM section 3).

    Raises RecipeError, which names the field, for whatever cannot be meant.
    """

    name: str = "moving-mnist-32"
    # data: a name in parts.DATA; what follows up to `path` is for some of them
    data: str = "moving-mnist"
    size: int = 32
    frames: int | tuple[tuple[int, int, int], ...] = 16
    digits: int | tuple[int, int] = 1
    speed: float = 1.8  # pixels per frame
    motion: Literal["deterministic", "stochastic"] = "deterministic"
    data_seed: int = 0
    digit_source: str = ""  # the digits that ship; or "mnist", "fashion-mnist" (fetched), or a folder of IDX files
    path: str = ""  # of one's own videos, with data="folder"; then each `every`-th of their frames is taken, and a clip
    every: int = 1  # begins `stride` frames after the one before it (0: half a clip)
    stride: int = 0
    images: int = 0
    keep: int = 0  # clips that are made once and gone through again and again; 0: each clip is new
    # network: fields of networks.UNet3DConfig; conditions: how often each is left out in training
    network: dict[str, Any] = field(
        default_factory=lambda: {"width": 32, "multipliers": [1, 2, 4], "patch": 2, "labels": 10}
    )
    conditions: dict[str, float] = field(default_factory=lambda: {"labels": 0.1})
    self_conditioning: float = 0.0  # share of the clips that come with the network's own first estimate
    init: str = ""  # weights to start from: those of another recipe, a file, the folder of a run
    # what is learnt: a name in objectives.OBJECTIVES; a student's teacher, and how it is asked (objectives.Student)
    objective: str = "denoising"
    teacher: str = ""
    student: dict[str, Any] = field(default_factory=dict)
    # diffusion
    target: str = "v"
    weighting: str = "v"
    times: tuple[float, ...] = ()  # mean and deviation of log(t / (1 - t)) where times are not uniform
    schedule: str = "cosine"
    log_snr_min: float = -20.0
    log_snr_max: float = 20.0
    shift: float = 0.0  # of the log-SNR: 2 log(32 / size) gives larger frames as much noise as size 32 has
    # optimisation
    clips: int = 300_000
    batch: int = 8
    accumulate: int = 1  # pieces in which a batch is computed, where it does not fit in memory
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = 1.5e-3
    lr_end: float = 0.02  # as a share of lr, reached at the last clip
    decay: float = 0.0  # 0: half a cosine; else constant, then linear over this last share of the clips
    warmup: int = 4_000  # clips
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    ema_decay: float = 0.9995
    seed: int = 0
    precision: Literal["float32", "bf16"] = "float32"  # bf16: autocast
    compile: bool = False
    graphs: bool = False  # on an NVIDIA GPU: kernels are recorded and played (see `training.graphs`)
    # reporting, in clips
    log_every: int = 400
    save_every: int = 4_000
    preview_every: int = 20_000
    milestones: tuple[int, ...] = (1_000, 3_000, 10_000, 30_000, 100_000)

    def __post_init__(self) -> None:
        for name in ("frames", "digits", "betas", "milestones", "times"):
            object.__setattr__(self, name, tuples(getattr(self, name)))
        words = "an integer, or a list of [clips_until, frames, batch] of integers"
        require(fits(self.frames, _HINTS["frames"]), "frames", words, self.frames)
        check_types(vars(self), _HINTS)
        self._check_ranges()
        self._check_parts()

    def _check_ranges(self) -> None:
        for name in ("clips", "batch", "accumulate", "log_every", "save_every", "preview_every"):
            between(name, getattr(self, name), 1, MOST)
        counts = {
            "images": 10_000,
            "warmup": MOST,
            "seed": 2**63 - 1,
            "data_seed": 2**61 - 1,
            "stride": 1_000_000,
            "keep": 1 << 24,
        }
        for name, most in counts.items():
            between(name, getattr(self, name), 0, most)
        between("every", self.every, 1, 10_000)
        for name in ("lr", "grad_clip"):
            require(0 < getattr(self, name) <= 1e6, name, "a number above 0, at most 1e6", getattr(self, name))
        for name in ("self_conditioning", "lr_end", "decay"):
            between(name, getattr(self, name), 0, 1)
        between("weight_decay", self.weight_decay, 0, 100)
        for name, values in {"ema_decay": (self.ema_decay,), "betas": self.betas}.items():
            require(all(0 <= value < 1 for value in values), name, "values in [0, 1)", getattr(self, name))
        # What a teacher is asked depends on values, at which no recording looks.
        alone = self.accumulate == 1 and not self.compile and self.objective == "denoising"
        words = "false, as accumulate is not 1, compile is true or there is a teacher"
        require(alone or not self.graphs, "graphs", words, self.graphs)
        rising = all(a < b for a, b in zip((0, *self.milestones), self.milestones, strict=False))
        require(rising, "milestones", "rising numbers of clips, from 1", self.milestones)
        require(bool(self.name) and not set(self.name) & set("/\\\0") and self.name[0] != ".", "name",
                "a name without path separators", self.name)  # fmt: skip
        _check_curriculum(self.frames)
        for phase in self.phases():
            between("batch", phase.batch, 1, 1 << 20)
            uneven = phase.batch % self.accumulate
            require(not uneven, "batch", f"a multiple of accumulate={self.accumulate}", phase.batch)

    def _check_parts(self) -> None:
        """The network with its arguments, conditions, size and data; targets; noise."""
        check_arguments(UNet3DConfig, self.network, "network")
        known("data", self.data, parts.DATA)
        parts.DATA[self.data].check(self)
        known("target", self.target, TARGETS)
        known("weighting", self.weighting, WEIGHTINGS)
        if self.times:
            require(len(self.times) == 2, "times", "nothing, or mean and deviation", self.times)
            between("times: mean", self.times[0], -10, 10)
            between("times: deviation", self.times[1], 0.01, 10)
            require(self.objective == "denoising", "times", "none, as a student's are those of its steps", self.times)
        parts.make_schedule(self.schedule, self.log_snr_min, self.log_snr_max, self.shift)
        plain = not self.self_conditioning and not self.images
        objectives.check(self.objective, self.student, self.teacher, plain)
        for name, share in self.conditions.items():
            known("condition", name, parts.CONDITIONS)
            between(f"conditions.{name}", share, 0, 1)
        labels, wanted = self.labels, parts.DATA[self.data].labels
        if "labels" in self.conditions:
            fitting = labels == wanted if wanted is not None else labels > 0
            require(fitting, "network.labels", f"{wanted or 'a number'}, as conditions has labels", labels)
        else:
            require(labels == 0, "network.labels", "0, as conditions has no labels", labels)
        text = parts.DATA[self.data].text if "text" in self.conditions else 0
        captioned = "text" not in self.conditions or text > 0
        require(captioned, "data", "a source with captions, as conditions has text", self.data)
        wanted_text = f"{text}, as conditions has {'' if text else 'no '}text"
        require(self.network.get("text", 0) == text, "network.text", wanted_text, self.network.get("text", 0))
        takes = bool(self.network.get("self_conditioning", False)) or not self.self_conditioning
        require(takes, "network.self_conditioning", f"true, as self_conditioning={self.self_conditioning:g}", False)
        longest = max(phase.frames for phase in self.phases()) + self.images
        parts.check_network(self.network, longest, self.size)
        for phase in self.phases():
            values = phase.batch // self.accumulate * (phase.frames + self.images) * self.size**2
            require(values <= parts.LARGEST_BATCH, "batch", f"at most {parts.LARGEST_BATCH:,} pixels at once", values)

    @property
    def labels(self) -> int:
        """Length of the label vector; 0 for a network without labels."""
        return int(self.network.get("labels", 10))

    @property
    def logit_normal(self) -> tuple[float, float] | None:
        """Mean and deviation of the law of times, None where they are uniform."""
        return (self.times[0], self.times[1]) if self.times else None

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """(c, f, h, w) of the clips that the trained network makes."""
        return (self.network.get("channels", 1), self.phases()[-1].frames, self.size, self.size)

    def make_network(self) -> UNet3D:
        """The untrained network; the same seed gives the same weights, and the global seed is left alone."""
        return parts.make_network(self.network, self.seed)

    def make_schedule(self) -> Schedule:
        """The noise schedule."""
        return parts.make_schedule(self.schedule, self.log_snr_min, self.log_snr_max, self.shift)

    def make_data(self, frames: int | None = None, split: str = "train", device: torch.device | str = "cpu") -> Any:
        """The clips of a run, with as many frames as its last phase unless said otherwise."""
        build, frames = parts.DATA[self.data].build, frames or self.phases()[-1].frames
        if self.keep and split == "train":
            return KeptClips(build(self, frames, split, "cpu"), self.keep, device)
        return build(self, frames, split, device)

    def phases(self) -> list[Phase]:
        """The curriculum in order; one phase if `frames` is a number."""
        if isinstance(self.frames, int):
            return [Phase(self.clips, self.frames, self.batch)]
        rows = [Phase(*row) for row in self.frames]
        # The last phase lasts to the end, so that a longer run needs another number of clips and nothing else.
        return [*rows[:-1], dataclasses.replace(rows[-1], until=max(rows[-1].until, self.clips))]

    def phase_at(self, clips: int) -> Phase:
        """The phase to which the next clip belongs after `clips` clips."""
        phases = self.phases()
        return next((phase for phase in phases if clips < phase.until), phases[-1])

    def lr_at(self, clips: int) -> float:
        """Learning rate after `clips` clips: linear warm-up; then half a cosine down to `lr * lr_end`, or with `decay`
        a constant and a line down to it (a trapezoid; Hägele et al. 2024, arXiv:2405.18392)."""
        if clips < self.warmup:
            return self.lr * (clips + 1) / self.warmup
        if self.decay:
            fallen = min(1.0, max(0.0, (clips / self.clips - (1 - self.decay)) / self.decay))
        else:
            done = min(1.0, (clips - self.warmup) / max(1, self.clips - self.warmup))
            fallen = 1 - 0.5 * (1 + math.cos(math.pi * done))
        return self.lr * (self.lr_end + (1 - self.lr_end) * (1 - fallen))

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary with lists for tuples, as JSON has it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Inverse of `to_dict`; reads what earlier versions wrote. Raises RecipeError."""
        require(isinstance(values, dict), "recipe", "an object of fields and values", values)
        values = dict(values)
        if "label_drop" in values:  # the one condition there was
            share, network = values.pop("label_drop"), values.get("network", {})
            unlabelled = isinstance(network, dict) and network.get("labels", 10) == 0
            values.setdefault("conditions", {} if unlabelled else {"labels": share})
        for key in values:
            known("field of a recipe", str(key), _HINTS)
        return cls(**values)

    def override(self, assignments: list[str]) -> Recipe:
        """A copy with `key=value` assignments applied; values are JSON or plain words, `network.width=48` and
        `conditions.labels=0.3` reach into a field. Raises RecipeError."""
        values = self.to_dict()
        for text in assignments if isinstance(assignments, (list, tuple)) else [assignments]:
            require(isinstance(text, str), "--set", "a list of key=value", assignments)
            key, equals, raw = text.partition("=")
            require(bool(equals), "--set", "key=value", text)
            try:
                value = json.loads(raw)
            except (json.JSONDecodeError, RecursionError):
                value = {"True": True, "False": False}.get(raw, raw)
            head, _, inner = key.partition(".")
            known("field of a recipe", head, _HINTS)
            if inner:
                require(isinstance(values[head], dict), "--set", "a dot only after a field of fields", text)
                values[head][inner] = value
            else:
                values[head] = value
        if values["self_conditioning"] and isinstance(values["network"], dict):
            values["network"].setdefault("self_conditioning", True)  # a network given anew takes what it is trained on
        return Recipe.from_dict(values)

    def difference(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Fields in which two recipes differ, as {name: (own value, other's value)}."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}


_HINTS = {name: hint for name, hint in get_type_hints(Recipe).items() if not name.startswith("_")}


def _check_curriculum(rows: Any) -> None:
    if isinstance(rows, int):
        between("frames", rows, 1, 10_000)
        return
    good = len(rows) > 0 and all(1 <= row[0] <= MOST and 1 <= row[1] <= 10_000 and row[2] >= 1 for row in rows)
    require(good, "frames", "an integer >= 1, or a list of [clips_until, frames, batch] of integers >= 1", rows)
    rising = all(a[0] < b[0] for a, b in zip(rows, rows[1:], strict=False))
    require(rising, "frames", "phases whose clips_until rise", rows)
