"""What a user starts with: load weights, make and edit videos, write them. `import minivdm` offers these names.

Every function is the task of the same name in `minivdm.tasks`, asked in digits and with a seed instead of a label
tensor and a generator; whatever else a task takes is handed on by its name, and checked by the task.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minivdm import tasks
from minivdm.core import ancestral_step, for_few_steps
from minivdm.data import writing
from minivdm.guards import BadArgument, whole
from minivdm.networks import UNet3D
from minivdm.systems import few_steps, latent_diffusion
from minivdm.systems.latent_diffusion import LatentDiffusion
from minivdm.systems.text_to_video import text_to_video
from minivdm.training import pretrained

#: Weight of the guidance towards frames that belong together, where a network can be asked for it; as `sample` has it.
TEMPORAL_WEIGHT = 0.75
#: Weight of the guidance away from the same network earlier in its training, where nothing is asked; likewise.
AUTOGUIDANCE = 0.5
#: log-SNR between which that is done: while it is undecided what a clip shows, it would become a one.
AUTOGUIDED = (-3.0, math.inf)
#: Steps of `generate`, as `sample` has them.
STEPS = 24
#: Steps of a latent model, as `benchmarks/train_latent.py` judges it.
LATENT_STEPS = 48
#: Seeds that torch.Generator takes on every device.
LARGEST_SEED = 2**63 - 1


def load(
    name: str | Path = "moving-mnist-32", device: str | torch.device = "cpu"
) -> pretrained.TrainedDenoiser | LatentDiffusion:
    """A trained denoiser, ready to sample; of latents, together with its tokenizer (`systems.latent_diffusion`).

    Args:
        name: weights that ship (`minivdm.available()` lists them), a .safetensors file, or the folder of a run.
        device: "cpu", "cuda" or "mps".

    Raises:
        pretrained.UnknownWeights, pretrained.DamagedWeights: no such weights, or not as they were written.
    """
    latent = latent_diffusion.weights_of(name)
    return pretrained.load(name, device) if latent is None else latent_diffusion.load(latent, device)


def available() -> list[str]:
    """Names of the weights that ship."""
    here = [path.stem for path in latent_diffusion.WEIGHTS.parent.glob("*.json")]
    return sorted([*pretrained.available(), *(name for name in here if latent_diffusion.weights_of(name))])


def generate(
    model: pretrained.TrainedDenoiser | LatentDiffusion,
    digits: Sequence[int] | None = None,
    *,
    text: str | Sequence[str] | None = None,
    negative: str | Sequence[str] | None = None,
    count: int = 1,
    weight: float | None = None,
    few: int | None = None,
    seed: int = 0,
    **task: Any,
) -> Tensor:
    """New videos (count, c, f, h, w) in [-1, 1].

    Args:
        model: what `load` returns.
        digits: what each clip shall show, such as [3] or [3, 7]; None leaves it to the network.
        text: or in words, such as "a slow three moving up and left", for a model that reads them, such as
            load("text-32"): one sentence for all clips, or one for each (`minivdm.systems.text_to_video`).
        negative: with text, what the clips shall not show.
        count: how many clips; with several sentences as many as they are.
        weight: of the guidance towards digits or text, 0 for none (VDM eq 6); by default 1 where there are any.
        few: so many calls of the network in all, by the student few-N, in place of the model, which it has learnt from
            with its guidance (`minivdm.systems.few_steps`).
        seed: the same seed makes the same clips.
        **task: further arguments of `minivdm.tasks.generate`, by name. `temporal_weight`, of the guidance towards
            frames that belong together, is 0.75 where it is not given; steps are 24, at times for few steps
            (`core.for_few_steps`). Without digits and text, `weaker`, of autoguidance, is the same network earlier in
            its training, with 0.5, where that ships (None for none), and steps are ancestral. A latent model takes 48
            even steps and none of these.
    """
    whole("count", count)
    if isinstance(model, LatentDiffusion):
        if text is not None or negative is not None or few is not None:
            raise BadArgument("model: expected one of pixels for text, negative and few, got a latent one")
        asked = _asked(tasks.generate, model, digits, weight, seed, {"steps": LATENT_STEPS, **task})
        return model.sample(count=count, **asked)
    if text is not None or negative is not None:
        if text is None or digits is not None or few is not None:
            raise BadArgument("text: expected without digits and few, and with any negative")
        sentences = [text] * count if isinstance(text, str) else text
        _by_default(task)
        asked = _asked(tasks.generate, model, None, 1.0 if weight is None else weight, seed, task)
        return text_to_video(model, sentences, negative=negative, **asked).clamp(-1, 1)
    if few is not None:
        device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else "cpu"
        model = few_steps.load(few, device)
    if few_steps.student_of(model) is not None:  # another guidance than it has learnt is refused there
        asked = _asked(tasks.generate, model, digits, 0.0 if weight is None else weight, seed, task)
        return few_steps.generate(model, count=count, **asked).clamp(-1, 1)
    if isinstance(getattr(model, "network", None), UNet3D):
        _by_default(task)
        if digits is None:
            _free(model, task)
    made = tasks.generate(model, count=count, **_asked(tasks.generate, model, digits, weight, seed, task))
    return made.clamp(-1, 1)


def _free(model: object, task: dict[str, Any]) -> None:
    """And where nothing is asked of the clips: autoguidance, noise in each step, which corrects slips."""
    if "weaker" not in task:
        earlier = pretrained.weaker(model)
        task["weaker"] = None if earlier is None else (earlier, AUTOGUIDANCE, AUTOGUIDED)
    if "sampling" not in task:
        task.setdefault("step", ancestral_step)


def _by_default(task: dict[str, Any]) -> None:
    """What `generate` asks of a task unless it is told otherwise: guidance between frames, few steps."""
    task.setdefault("temporal_weight", TEMPORAL_WEIGHT)
    if not {"grid", "sampling"} & set(task):
        task.setdefault("steps", STEPS)
        task["grid"] = for_few_steps


def extend(
    model: pretrained.TrainedDenoiser,
    video: Tensor,
    frames: int,
    digits: Sequence[int] | None = None,
    *,
    weight: float | None = None,
    seed: int = 0,
    **task: Any,
) -> Tensor:
    """The videos (b, c, n, h, w) continued to `frames` frames, block by block.

    digits, weight, seed: as for `generate`. **task: further arguments of `minivdm.tasks.extend`, by name.
    """
    return tasks.extend(model, video, frames, **_asked(tasks.extend, model, digits, weight, seed, task))


def interpolate(
    model: pretrained.TrainedDenoiser,
    video: Tensor,
    between: int,
    digits: Sequence[int] | None = None,
    *,
    weight: float | None = None,
    seed: int = 0,
    **task: Any,
) -> Tensor:
    """`between` new frames between any two neighbours of the videos (b, c, n, h, w).

    digits, weight, seed: as for `generate`. **task: further arguments of `minivdm.tasks.interpolate`, by name.
    """
    return tasks.interpolate(model, video, between, **_asked(tasks.interpolate, model, digits, weight, seed, task))


def super_resolve(
    model: pretrained.TrainedDenoiser,
    video: Tensor,
    space: int = 2,
    every: int = 1,
    digits: Sequence[int] | None = None,
    *,
    weight: float | None = None,
    seed: int = 0,
    **task: Any,
) -> Tensor:
    """The small videos (b, c, n, h, w) with `space` times the pixels along each side and `every` times the frames.

    digits, weight, seed: as for `generate`. **task: further arguments of `minivdm.tasks.super_resolve`, by name.
    """
    asked = _asked(tasks.super_resolve, model, digits, weight, seed, task)
    return tasks.super_resolve(model, video, space, every, **asked)


def save(video: Tensor, path: str | Path, **options: Any) -> Path:
    """Write videos (b, c, f, h, w) as .gif, .png, .webp or .mp4: `minivdm.data.writing.save`, which has the options."""
    return writing.save(video, path, **options)


def save_gif(video: Tensor, path: str | Path, **options: Any) -> Path:
    """Write videos (b, c, f, h, w) as an animation; options as for `minivdm.data.writing.save`.

    Raises:
        BadArgument: a name that does not end in .gif, and what is no video.
    """
    if Path(path).suffix.lower() != ".gif":
        raise BadArgument(f"path: expected a name ending in .gif, got {str(path)!r}; `save` writes other formats")
    return writing.save(video, path, **options)


def _asked(
    function: Callable[..., Any],
    model: pretrained.TrainedDenoiser | LatentDiffusion,
    digits: Sequence[int] | None,
    weight: float | None,
    seed: int,
    task: dict[str, Any],
) -> dict[str, Any]:
    """The task's arguments: labels, weight, generator, and the rest, whose names are held against its signature."""
    taken = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    unknown = [name for name in task if name not in taken and not open_ended]
    if unknown:
        raise BadArgument(f"{function.__name__}: no argument named {', '.join(unknown)}; there are {', '.join(taken)}")
    found = dict(task)
    if digits is not None:
        if "labels" in found:
            raise BadArgument("expected digits or labels, got both")
        if not isinstance(digits, Sequence) or not digits:
            raise BadArgument(f"digits: expected a list of digits such as [3], got {digits!r}")
        found["labels"] = tasks.multi_hot([whole("digits", digit, 0) for digit in digits], _labels(model))
    labelled = found.get("labels") is not None
    found["weight"] = (1.0 if labelled else 0.0) if weight is None else weight
    if "generator" not in found:
        device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else "cpu"
        found["generator"] = torch.Generator(device).manual_seed(whole("seed", seed, 0, LARGEST_SEED))
    return found


def _labels(model: pretrained.TrainedDenoiser | LatentDiffusion) -> int:
    """How many classes the model knows."""
    classes = getattr(getattr(model, "config", None), "labels", 10)
    if not classes:
        raise BadArgument("digits: expected a model that was trained with labels, got one without")
    return int(classes)
