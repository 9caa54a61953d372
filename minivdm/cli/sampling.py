"""`sample`: clips from noise. And what `sample` shares with the edits: weights, labels, seeds, a name to write to."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minivdm import tasks
from minivdm.cli import folders, options, text
from minivdm.cli.options import CommandLineError, check_values
from minivdm.core import Denoise, samplers, time_grids
from minivdm.core.gaussian import expand, noise_like
from minivdm.data import atomic, writing
from minivdm.systems import few_steps
from minivdm.training import distributed, pretrained


def sample(args: argparse.Namespace) -> int:
    """Generate clips from trained weights and write them as GIF, WebP, MP4 or PNG."""
    out = Output(args, "samples")
    text.settle(args)
    denoise, device = load(args)
    sentences = text.asked(args, denoise)
    if few_steps.student_of(denoise) is not None:
        _as_a_student(args, denoise)
    c, f, h, w = denoise.shape
    f = f if args.frames is None else args.frames
    check_values("--count, --frames", args.count, c, f, h, w)
    out.check(grid(args.count, f, h, w, out.kind))
    labels = asked(args, denoise)
    if labels is None and sentences is None and not args.unconditional and classes(denoise):
        labels = drawn(denoise, args.count, args.seed)
        names = classes(denoise)
        words = " ".join("+".join(names[i] for i in row.nonzero()[:, 0].tolist()) or "none" for row in labels)
        print(f"labels drawn at random: {words}; --labels chooses, --unconditional leaves them to the network")
    args.steps = args.steps or options.FEW_STEPS
    if args.eta is None:
        args.eta = 1.0 if labels is None and sentences is None and few_steps.student_of(denoise) is None else 0.0
    generators = [torch.Generator(device).manual_seed(args.seed + i) for i in range(args.count)]
    noise = torch.cat([torch.randn(1, c, f, h, w, generator=g, device=device) for g in generators])
    noise = noise * denoise.schedule.prior_std()
    if labels is not None:
        labels = labels.to(device).expand(args.count, -1)
    temporal = args.temporal if f > 1 else 0.0
    if sentences is not None:
        wanted = text.wanted(denoise, *sentences, args.weight, temporal)
    else:
        weight = args.weight if labels is not None else 0.0
        wanted = tasks.guided(
            denoise, labels, weight, temporal_weight=temporal, weaker=_weaker(args, denoise, labels is None)
        )
    with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
        videos = samplers.sample(
            wanted,
            noise,
            args.steps,
            step=clip_by_clip(args, generators),
            grid=times(args),
            progress=True,
        )
    written = out.write(videos.float())
    print(f"{args.count} clips of {f} frames in {written}")
    return 0


# ---- shared with the edits ---------------------------------------------------------------------------------------


class Output:
    """Where a result goes: the name given, which has to be free or --force, or the first free one of the default."""

    def __init__(self, args: argparse.Namespace, name: str) -> None:
        self.args, self.default = args, Path(f"{name}.gif")
        self.path = Path(args.out) if args.out else atomic.free_name(self.default)
        self.kind = writing.check(self.path, args.fps, args.zoom, replace=args.force)

    def check(self, shape: tuple[int, int, int, int]) -> None:
        """Raise PictureError where a sheet (rows, columns, h, w) would be too large."""
        writing.check(self.path, self.args.fps, self.args.zoom, replace=self.args.force, shape=shape)

    def write(self, result: Tensor | dict[str, Tensor], known: Any = ()) -> Path:
        """Write videos, or panels beside each other; a default name that was taken meanwhile gives way to the next."""
        function: Callable[..., Path] = writing.save_comparison if isinstance(result, dict) else writing.save
        while True:
            try:
                return function(result, self.path, self.args.fps, self.args.zoom, known=known, replace=self.args.force)
            except FileExistsError:
                if self.args.out:
                    raise
                self.path = atomic.free_name(self.default)


def grid(count: int, frames: int, height: int, width: int, kind: str, panels: int = 1) -> tuple[int, int, int, int]:
    """(rows, columns, h, w) of the frames of one picture."""
    if kind == ".png":
        return (count * panels * -(-frames // writing.WRAP), min(frames, writing.WRAP), height, width)
    return (count, panels, height, width) if panels > 1 else (-(-count // 8), min(count, 8), height, width)


def load(args: argparse.Namespace) -> tuple[pretrained.TrainedDenoiser, torch.device]:
    """The weights, or the student of so many steps, on the device that was asked for."""
    _, device = distributed.join(None if args.device == "auto" else args.device)
    few = getattr(args, "few", None)
    return (pretrained.load(args.weights, device) if few is None else few_steps.load(few, device)), device


def _weaker(
    args: argparse.Namespace, denoise: pretrained.TrainedDenoiser, free: bool
) -> tuple[pretrained.TrainedDenoiser, float, tuple[float, float]] | None:
    """The network for autoguidance and its weight, or None. free: whether nothing is asked of the clips."""
    weight = args.autoguidance
    if weight is None:
        weight = options.AUTOGUIDANCE if free else 0.0
    other = pretrained.weaker(denoise) if weight else None  # a student has none, as it has learnt its guidance
    if args.autoguidance and other is None:
        got = args.weights if args.few is None else f"few-{args.few}"
        raise CommandLineError(
            f"--autoguidance: expected weights whose earlier ones ship, such as {options.WEIGHTS}, got {got}"
        )
    return None if other is None else (other, weight, options.AUTOGUIDED)


def _as_a_student(args: argparse.Namespace, denoise: pretrained.TrainedDenoiser) -> None:
    """As many steps as the student knows unless --steps divides them, and no guidance: it was learnt."""
    args.steps = few_steps.student_sampling(denoise, args.steps).steps
    args.weight, args.temporal, args.times = 0.0, 0.0, "even"
    if args.sampler != "ddim" or args.eta:
        raise CommandLineError("--sampler, --eta: expected ddim without noise, which is what a student has learnt")
    print(f"a student: {args.steps} calls of the network, guidance as it learnt it")


def settings(denoise: pretrained.TrainedDenoiser) -> Any:
    """The recipe that the weights were made by."""
    return denoise.config


def classes(denoise: pretrained.TrainedDenoiser) -> list[str]:
    """Names of the labels that the network knows, their numbers unless the data has others; none if it knows none."""
    recipe = settings(denoise)
    if recipe.data == "folder":
        return folders.labels(recipe.path, recipe.labels)
    return list(map(str, range(recipe.labels)))


def asked(args: argparse.Namespace, denoise: pretrained.TrainedDenoiser) -> Tensor | None:
    """The label vector (1, n) of --labels, None without it."""
    return None if args.labels is None else named(args, classes(denoise))


def named(args: argparse.Namespace, names: list[str]) -> Tensor:
    """The label vector (1, n) of --labels among n names."""
    unknown = [label for label in args.labels if label not in names]
    if not names:
        raise CommandLineError("--labels: expected none, as these weights were trained without labels")
    if unknown:
        span = f"{names[0]} to {names[-1]}" if names == list(map(str, range(len(names)))) else ", ".join(names)
        raise CommandLineError(f"--labels: expected some of {span}, got {' '.join(unknown)}")
    return tasks.multi_hot([names.index(label) for label in args.labels], len(names))


def drawn(denoise: pretrained.TrainedDenoiser, count: int, seed: int) -> Tensor:
    """Label vectors (count, n) like those of the training data: as many classes in a clip, each drawn at random.

    That of clip i depends on seed + i alone.
    """
    n = len(classes(denoise))
    recipe = settings(denoise)
    digits = recipe.digits if recipe.data == "moving-mnist" else 1
    low, high = (digits, digits) if isinstance(digits, int) else digits
    rows = []
    for i in range(count):
        generator = torch.Generator().manual_seed(seed + i)
        several = int(torch.randint(low, high + 1, (1,), generator=generator))
        rows.append(tasks.multi_hot(torch.randint(n, (several,), generator=generator).tolist(), n))
    return torch.cat(rows)


def clip_by_clip(args: argparse.Namespace, generators: Sequence[torch.Generator]) -> Callable[..., Tensor]:
    """The step of --sampler, with each clip's noise from its own generator: a batch changes no clip of it."""
    if args.sampler == "ancestral":
        law: Callable[..., Any] = functools.partial(samplers.ancestral_law, gamma=args.gamma)
    else:
        law = functools.partial(samplers.ddim_law, eta=args.eta)

    def step(denoise: Denoise, z: Tensor, t: Any, s: Any, generator: torch.Generator | None = None) -> Tensor:
        mean, variance = law(denoise, z, t, s)
        if args.sampler == "ddim" and args.eta == 0:
            return mean
        noise = torch.cat([noise_like(row[None], own) for row, own in zip(mean, generators, strict=True)])
        return mean + expand(variance.sqrt(), mean) * noise

    return step


def times(args: argparse.Namespace) -> time_grids.Grid:
    """The times of --times, as a function of the number of steps."""
    return time_grids.for_few_steps if args.times == "few" else time_grids.uniform_in_t


def shared_step(args: argparse.Namespace) -> Callable[..., Tensor]:
    """The step of --sampler, for one clip."""
    if args.sampler == "ancestral":
        return functools.partial(samplers.ancestral_step, gamma=args.gamma)
    return functools.partial(samplers.ddim_step, eta=args.eta)
