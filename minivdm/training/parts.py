"""From a recipe to its parts, by name: network, noise schedule, data, conditions. Registries that others add to.

A source of data is a function `(recipe, frames, split, device) -> clips` whose result has `clips(indices)`, with a
`video` (b, c, f, h, w) and `labels` (b, n), and `images(indices)`, single frames (b, c, 1, h, w) and their labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minivdm.core.schedules import CosineSchedule, FlowSchedule, Schedule
from minivdm.data.captioned_mnist import CaptionedMNIST
from minivdm.data.captions import VOCABULARY
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.data.video_folder import VideoFolder
from minivdm.networks.unet3d import UNet3D
from minivdm.training.validate import RecipeError, between, known, require

#: Values of a batch of videos, beyond which an index no longer fits in 32 bits (and a step no longer in memory).
LARGEST_BATCH = 1 << 31
#: Parameters of a network that is no slip of the keyboard.
LARGEST_NETWORK = 1 << 31


class Settings(Protocol):
    """What a source of data may read in a recipe (`recipes.Recipe` has it)."""

    size: int
    digits: Any
    speed: float
    motion: Any
    data_seed: int
    images: int
    digit_source: str
    path: str
    every: int
    stride: int
    network: dict[str, Any]
    conditions: dict[str, float]


class Source(NamedTuple):
    """A source of clips. build: see above. check: raises RecipeError for settings that cannot be meant, before
    anything is read. labels: length of its label vectors, None where it depends on the files. text: words of the
    vocabulary of its captions, 0 without captions."""

    build: Callable[[Any, int, str, torch.device | str], Any]
    check: Callable[[Any], None]
    labels: int | None
    text: int = 0


def moving_mnist(recipe: Settings, frames: int, split: str, device: torch.device | str) -> MovingMNIST:
    """Clips of moving digits (see `data.moving_mnist.MovingMNIST`)."""
    return MovingMNIST(
        recipe.size,
        frames,
        recipe.digits,
        recipe.speed,
        recipe.motion,
        split,
        recipe.data_seed,
        device,
        digit_source=recipe.digit_source or None,
    )


def check_moving_mnist(recipe: Settings) -> None:
    """Raise RecipeError where MovingMNIST would refuse the settings; reads no digits."""
    low, high = (recipe.digits, recipe.digits) if isinstance(recipe.digits, int) else recipe.digits
    require(0 <= low <= high <= 100 and high >= 1, "digits", "a count, or [lo, hi] with 0 <= lo <= hi", recipe.digits)
    between("speed", recipe.speed, 0, recipe.size)
    between("size", recipe.size, 2, 1024)
    between("network.channels", recipe.network.get("channels", 1), 1, 1)
    require(not recipe.path, "path", "none, as data is 'moving-mnist'", recipe.path)


def captioned_mnist(recipe: Settings, frames: int, split: str, device: torch.device | str) -> CaptionedMNIST:
    """Clips of a digit, slow or fast, with a sentence about each (see `data.captioned_mnist.CaptionedMNIST`)."""
    source = recipe.digit_source or None
    return CaptionedMNIST(recipe.size, frames, recipe.speed, split, recipe.data_seed, device, digit_source=source)


def check_captioned_mnist(recipe: Settings) -> None:
    """Raise RecipeError where CaptionedMNIST has no such clips."""
    check_moving_mnist(recipe)
    require(recipe.digits == 1, "digits", "1, as a caption tells of one", recipe.digits)
    require(recipe.motion == "deterministic", "motion", "'deterministic', as a caption tells of one", recipe.motion)
    require(recipe.images == 0, "images", "0, as a still has no caption", recipe.images)
    between("speed", recipe.speed, 0.01, recipe.size / 2)


def video_folder(recipe: Settings, frames: int, split: str, device: torch.device | str) -> VideoFolder:
    """Clips of one's own videos (see `data.video_folder.VideoFolder`); labels are the names of sub-folders."""
    require(bool(recipe.path), "path", "a folder of videos (--set path=...)", recipe.path)
    channels = recipe.network.get("channels", 1)
    stride = recipe.stride or None
    data = VideoFolder(
        recipe.path, recipe.size, frames, recipe.every, stride, channels, split, recipe.data_seed, device
    )
    if "labels" in recipe.conditions:
        classes = f"{len(data.classes)} ({', '.join(data.classes) or 'no sub-folders'})"
        require(
            recipe.network.get("labels") == len(data.classes), "network.labels", classes, recipe.network.get("labels")
        )
    return data


def check_video_folder(recipe: Settings) -> None:
    """Raise RecipeError for settings that no folder can satisfy; the folder is not read."""
    between("size", recipe.size, 2, 1024)
    require(recipe.network.get("channels", 1) in (1, 3), "network.channels", "1 (grey) or 3 (colour)", recipe.network)


#: name -> source of clips.
DATA: dict[str, Source] = {
    "moving-mnist": Source(moving_mnist, check_moving_mnist, 10),
    "captioned-mnist": Source(captioned_mnist, check_captioned_mnist, 10, len(VOCABULARY)),
    "folder": Source(video_folder, check_video_folder, None),
}

#: name -> noise schedule of (log_snr_min, log_snr_max, shift).
SCHEDULES: dict[str, Callable[[float, float, float], Schedule]] = {
    "cosine": CosineSchedule,
    "flow": lambda low, high, shift: FlowSchedule(),
}

#: name -> the condition that a batch of clips gives, batch first; 0 stands for "not given".
CONDITIONS: dict[str, Callable[[Any], Tensor]] = {
    "labels": lambda clips: clips.labels,
    "text": lambda clips: clips.text.float(),  # tokens: whole numbers, which a row of zeros leaves out
}


def make_network(arguments: dict[str, Any], seed: int) -> UNet3D:
    """An untrained network; the same seed gives the same weights, and the global seed is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU as well
        return UNet3D(**arguments)


def make_schedule(name: str, low: float, high: float, shift: float) -> Schedule:
    """A noise schedule. Raises RecipeError for a range in which it cannot be computed."""
    known("schedule", name, SCHEDULES)
    require(-50 <= low < high <= 50, "log_snr_min, log_snr_max", "-50 <= log_snr_min < log_snr_max <= 50", (low, high))
    between("shift", shift, -20, 20)
    require(name != "flow" or not shift, "shift", "0, as the flow path has none", shift)
    try:
        schedule = SCHEDULES[name](low, high, shift)
        ends = torch.stack([f(torch.tensor([schedule.t_min, 1.0])) for f in (schedule.alpha, schedule.sigma)])
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise RecipeError(f"schedule {name!r}: {error}") from error
    require(bool(ends.isfinite().all()), "log_snr_min, log_snr_max", "a range with finite alpha and sigma", (low, high))
    return schedule


def check_network(arguments: dict[str, Any], frames: int, size: int) -> None:
    """Raise RecipeError for arguments with which there is no network, or none for clips of such a size.

    The network is built without memory or arithmetic (on the "meta" device) and looks at the shape of a clip.
    """
    _checked(json.dumps(arguments, sort_keys=True), frames, size)


class _NothingDrawn(TorchFunctionMode):
    """Leaves weights as they come. Drawing them without memory would import torch's compiler, for a second or two."""

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@lru_cache(maxsize=256)
def _checked(text: str, frames: int, size: int) -> None:
    arguments = json.loads(text)
    for key, value in arguments.items():
        numbers = value if isinstance(value, list) else [value]
        small = all(not isinstance(n, int) or 0 <= n <= 1 << 16 for n in numbers)
        require(small, f"network.{key}", "0 to 65,536", value)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _NothingDrawn():
            network = UNet3D(**arguments)
            clip = torch.empty(2, arguments.get("channels", 1), frames, size, size)
            network.check(clip, torch.empty(2), None)
    except Exception as error:  # whatever a network raises for arguments that make none
        what = f"for clips of {frames} frames of {size}x{size} pixels"
        raise RecipeError(f"network: {type(error).__name__}: {error} ({what}, network={arguments})") from error
    count = sum(p.numel() for p in network.parameters())
    require(count <= LARGEST_NETWORK, "network", f"at most {LARGEST_NETWORK:,} parameters", count)
