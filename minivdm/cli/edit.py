"""`extend`, `interpolate`, `upscale`: clips of which something is known, with the truth and a baseline beside them."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from minivdm import tasks
from minivdm.cli.options import CommandLineError, check_values
from minivdm.cli.sampling import Output, asked, grid, load, settings, shared_step, times
from minivdm.core import samplers
from minivdm.core.observe import Downsample
from minivdm.data import video_files
from minivdm.data.video_files import VideoFileError
from minivdm.training import pretrained


class Start(NamedTuple):
    """What an edit starts from: clips (b, c, f, h, w) and their labels (b, n), or None where nobody knows them."""

    video: Tensor
    labels: Tensor | None
    are_truth: bool  # test clips, which show what the result should be


def extend(args: argparse.Namespace) -> int:
    """Make clips longer, block by block."""
    out, denoise, start = _begin(args, args.frames)
    window = denoise.shape[1]
    total, n = args.frames, start.video.shape[2]
    given = start.video
    if start.are_truth:
        n = min(window, n)
        given = start.video[:, :, -n:] if args.backwards else start.video[:, :, :n]
    b, c, _, h, w = given.shape
    check_values("--frames", b, c, total, h, w)
    out.check(grid(b, total, h, w, out.kind, 1 if args.only_result else 3))
    order = functools.partial(getattr(tasks, args.order), overlap=args.overlap)
    made = _each(
        args,
        denoise,
        given,
        start.labels,
        lambda clip, options: tasks.extend(
            denoise, clip, total, backwards=args.backwards, order=order, method=args.method, **options
        ),
        2.0,
    )
    known = range(total - n, total) if args.backwards else range(n)
    edge = given[:, :, :1] if args.backwards else given[:, :, -1:]
    rest = edge.expand(-1, -1, total - n, -1, -1)
    baseline = torch.cat([rest, given] if args.backwards else [given, rest], 2)
    return _finish(args, out, start, made, {"same frame": baseline}, list(known))


def interpolate(args: argparse.Namespace) -> int:
    """Make the frames between frames."""
    out, denoise, start = _begin(args)
    apart = args.between + 1
    given = start.video[:, :, ::apart] if start.are_truth else start.video
    b, c, n, h, w = given.shape
    total = n + (n - 1) * args.between
    check_values("--between", b, c, total, h, w)
    out.check(grid(b, total, h, w, out.kind, 1 if args.only_result else 3))
    made = _each(
        args,
        denoise,
        given,
        start.labels,
        lambda clip, options: tasks.interpolate(denoise, clip, args.between, method=args.method, **options),
        2.0,
    )
    blend = functional.interpolate(given, (total, h, w), mode="trilinear", align_corners=True)
    return _finish(args, out, start, made, {"cross-fade": blend}, list(range(0, total, apart)))


def upscale(args: argparse.Namespace) -> int:
    """Make the pixels, and the frames, that small clips lack."""
    out, denoise, start = _begin(args)
    space, every = args.space, args.every
    low = Downsample(space, every)  # test clips are made small first
    given = low(start.video) if start.are_truth else start.video
    b, c, n, h, w = given.shape
    total = (n - 1) * every + 1
    check_values("--space, --every", b, c, total, h * space, w * space)
    out.check(grid(b, total, h * space, w * space, out.kind, 1 if args.only_result else 4))
    made = _each(
        args,
        denoise,
        given,
        start.labels,
        lambda clip, options: tasks.super_resolve(denoise, clip, space, every, **options),
        float(space**2),
    )
    size = (total, h * space, w * space)
    frames = given.repeat_interleave(every, 2)[:, :, :total]
    blocks = frames.repeat_interleave(space, 3).repeat_interleave(space, 4)
    # Between block centres in space, from frame to frame in time.
    smooth = functional.interpolate(given, (n, *size[1:]), mode="trilinear", align_corners=False)
    smooth = functional.interpolate(smooth, size, mode="trilinear", align_corners=True)
    return _finish(args, out, start, made, {"given": blocks, "bilinear": smooth}, [])


def _begin(args: argparse.Namespace, frames: int | None = None) -> tuple[Output, Any, Start]:
    out = Output(args, args.command)
    denoise, device = load(args)
    labels = asked(args, denoise)
    if args.video:
        start = Start(_from_file(args, denoise).to(device), None, False)
    else:
        check_values("--count, --frames", args.count, denoise.shape[0], frames or 1, *denoise.shape[2:])
        recipe, window = settings(denoise), denoise.shape[1]
        indices = range(args.seed, args.seed + args.count)
        try:
            clips, are_truth = recipe.make_data(max(frames or 0, window), "test").clips(indices), True
        except VideoFileError:  # a folder whose videos are not so long
            clips, are_truth = recipe.make_data(window, "test").clips(indices), frames is None or frames <= window
        start = Start(clips.video.to(device), clips.labels if recipe.labels else None, are_truth)
    if labels is not None:
        start = start._replace(labels=labels.expand(len(start.video), -1))
    elif args.unconditional:
        start = start._replace(labels=None)
    return out, denoise, start


def _from_file(args: argparse.Namespace, denoise: pretrained.TrainedDenoiser) -> Tensor:
    """The clips of --video; those of a film are made as small as the network knows them."""
    channels, _, height, width = denoise.shape
    if Path(args.video).suffix.lower() == ".npy":
        video = video_files.load(args.video)
    else:
        shrunk = args.space if args.command == "upscale" else 1
        if height % shrunk:
            raise CommandLineError(f"--space: expected a divisor of the frames' side of {height}, got {shrunk}")
        video = video_files.load(args.video, height // shrunk, channels)
    if video.shape[1] != channels:
        got = f"{video.shape[1]} in {args.video}"
        raise CommandLineError(f"--video: expected clips of {channels} channels, as the weights, got {got}")
    return video


def _each(
    args: argparse.Namespace,
    denoise: pretrained.TrainedDenoiser,
    given: Tensor,
    labels: Tensor | None,
    run: Any,
    weight: float,
) -> Tensor:
    """The result of each clip by itself, with a generator of its own: a batch changes no clip of it."""
    made = []
    for i, clip in enumerate(given.split(1)):
        options = {
            "labels": None if labels is None else labels[i : i + 1].to(given.device),
            "weight": 0.0 if labels is None else args.weight,
            "temporal_weight": args.temporal,
            "steps": args.steps,
            "grid": times(args),
            "step": shared_step(args),
            "corrector": samplers.langevin_step if args.langevin else None,
            "reconstruction_weight": weight if args.reconstruction is None else args.reconstruction,
            "progress": True,
            "generator": torch.Generator(given.device).manual_seed(args.seed + i),
        }
        made.append(run(clip, options))
    return torch.cat(made)


def _finish(
    args: argparse.Namespace, out: Output, start: Start, made: Tensor, beside: dict[str, Tensor], known: list[int]
) -> int:
    """Write the result, and what it is to be compared with."""
    name = {"extend": "extended", "interpolate": "interpolated", "upscale": "upscaled"}[args.command]
    if args.only_result:
        written = out.write(made, known)
        print(f"{len(made)} clips of {made.shape[2]} frames in {written}")
        return 0
    panels = {"truth": start.video[:, :, : made.shape[2]]} if start.are_truth else {}
    first, *rest = beside.items()
    if args.command == "upscale":  # the given pixels come before what was made of them
        panels = {**panels, first[0]: first[1], name: made, **dict(rest)}
    else:
        panels = {**panels, name: made, **beside}
    marks = {panel: known for panel in panels if panel != "truth"} if known else {}
    written = out.write(panels, marks)
    marked = ", given frames in orange" if known else ""
    print(f"{len(made)} clips of {made.shape[2]} frames in {written}: {' | '.join(panels)}{marked}")
    return 0
