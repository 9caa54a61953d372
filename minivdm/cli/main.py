"""The command line: python -m minivdm train | sample | extend | interpolate | upscale | export | progress | doctor."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: idle threads otherwise spin and slow each other


def train(args: argparse.Namespace) -> int:
    """Train a configuration, or continue a run."""
    import json
    from pathlib import Path

    from minivdm import training
    from minivdm.training import configs, distributed, pretrained

    out = Path(args.out or f"runs/{args.config or 'moving-mnist-32'}")
    saved = out / "config.json"
    if args.config is None and args.resume and saved.exists():
        config = configs.TrainConfig.from_dict(json.loads(saved.read_text()))
    else:
        config = configs.get(args.config or "moving-mnist-32")
    config = config.override(args.set + ([f"clips={args.clips}"] if args.clips is not None else []))
    init = pretrained.find(args.init) if args.init else None
    try:
        run, ending = training.fit(
            config,
            out,
            resume=args.resume,
            init=init,
            device=args.device,
            minutes=args.minutes,
            reconfigure=args.reconfigure,
        )
    finally:
        distributed.leave()
    if run.trainer.world.first:
        done = run.trainer.clips >= config.clips
        where = f"{run.trainer.clips:,} of {config.clips:,} clips in {run.seconds / 60:.1f} min, saved in {out}"
        again = f"; continue with: {config.command()} --out {out} --resume"
        print(f"{'done' if done else 'stopped'}: {where}{'' if done else again}")
    return 128 + ending if ending else 0


def sample(args: argparse.Namespace) -> int:
    """Generate clips from trained weights and write them as GIF or PNG."""
    import functools
    from pathlib import Path

    import torch

    from minivdm import tasks
    from minivdm.core import samplers
    from minivdm.data import writing
    from minivdm.training import distributed, pretrained

    writing.check(args.out, args.fps, args.zoom)  # before the work, not after it
    if args.count < 1:
        raise ValueError(f"--count: expected at least 1, got {args.count}")
    steppers = {
        "ddim": functools.partial(samplers.ddim_step, eta=args.eta),
        "ancestral": functools.partial(samplers.ancestral_step, gamma=args.gamma),
    }
    _, device = distributed.join(args.device)
    denoise = pretrained.load(args.weights, device)
    labels = tasks.multi_hot(args.labels, denoise.config.labels) if args.labels is not None else None
    c, f, h, w = denoise.shape
    f = f if args.frames is None else args.frames
    if f < 1:
        raise ValueError(f"--frames: expected at least 1, got {f}")
    videos = tasks.generate(
        denoise,
        labels,
        count=args.count,
        shape=(c, f, h, w),
        progress=True,
        weight=args.weight if labels is not None else 0.0,
        steps=args.steps,
        step=steppers[args.sampler],
        generator=torch.Generator(device).manual_seed(args.seed),
    )
    written = writing.save(videos, Path(args.out), fps=args.fps, zoom=args.zoom)
    print(f"{args.count} clips of {f} frames in {written}")
    return 0


def edit(args: argparse.Namespace) -> int:
    """Extend, interpolate or upscale clips, and write them as GIF or PNG."""
    import functools
    from pathlib import Path

    import torch

    from minivdm import tasks
    from minivdm.core import samplers
    from minivdm.core.observe import Downsample
    from minivdm.data import writing
    from minivdm.training import distributed, pretrained

    writing.check(args.out, args.fps, args.zoom)  # before the work, not after it
    _, device = distributed.join(args.device)
    denoise = pretrained.load(args.weights, device)
    labels = tasks.multi_hot(args.labels, denoise.config.labels) if args.labels is not None else None
    steps = {"ddim": samplers.ddim_step, "ancestral": functools.partial(samplers.ancestral_step, gamma=args.gamma)}
    options = {
        "labels": labels,
        "weight": args.weight if labels is not None else 0.0,
        "steps": args.steps,
        "step": steps[args.sampler],
        "corrector": samplers.langevin_step if args.langevin else None,
        "reconstruction_weight": args.reconstruction,
        "progress": True,
        "generator": torch.Generator(device).manual_seed(args.seed),
    }
    video = _given(args, denoise).to(device)
    if args.command == "extend":
        order = functools.partial(getattr(tasks, args.order), overlap=args.overlap)
        done = tasks.extend(
            denoise, video, args.frames, backwards=args.backwards, order=order, method=args.method, **options
        )
    elif args.command == "interpolate":
        known = video if args.video else video[:, :, :: args.between + 1]
        done = tasks.interpolate(denoise, known, args.between, method=args.method, **options)
    else:  # without a file, test clips are made small first
        known = video if args.video else Downsample(args.space, args.every)(video)
        done = tasks.super_resolve(denoise, known, args.space, args.every, **options)
    written = writing.save(done, Path(args.out), fps=args.fps, zoom=args.zoom)
    print(f"{len(done)} clips of {done.shape[2]} frames in {written}")
    return 0


def _given(args: argparse.Namespace, denoise: Any) -> Any:
    """The clips to start from: a file's, or Moving-MNIST's test clips as the weights know them."""
    from minivdm.data import video_files
    from minivdm.training import build

    if args.video:
        return video_files.load(args.video)
    if args.count < 1:
        raise ValueError(f"--count: expected at least 1, got {args.count}")
    clips = build.data(denoise.config, denoise.shape[1], split="test")
    return clips.clips(range(args.seed * args.count, (args.seed + 1) * args.count)).video


def export(args: argparse.Namespace) -> int:
    """Write a run's averaged weights in half precision, with a card."""
    import json
    from pathlib import Path

    from minivdm.training import pretrained

    metrics = json.loads(Path(args.metrics).read_text()) if args.metrics else None
    path = pretrained.export(args.run, args.name, Path(args.to) if args.to else None, metrics)
    print(f"{path.stat().st_size / 1e6:.2f} MB in {path}, card beside it")
    return 0


def progress(args: argparse.Namespace) -> int:
    """Record what a run's snapshots generate from the same noise."""
    from pathlib import Path

    from minivdm.training import milestones as history

    path = history.record(
        args.run, Path(args.to) if args.to else None, args.name, tuple(args.digits), args.steps, args.weight, args.seed
    )
    print(f"{len(history.read(path).clips)} stages, {path.stat().st_size / 1e3:.0f} kB in {path}")
    return 0


def doctor(args: argparse.Namespace) -> int:
    """Say what is there and what is missing."""
    from minivdm.cli import doctor as diagnosis

    lines, healthy = diagnosis.report()
    print("\n".join(lines))
    return 0 if healthy else 1


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="python -m minivdm", description="Video diffusion from scratch.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    add = commands.add_parser("train", help="train a network on Moving-MNIST, or continue a run")
    add.set_defaults(call=train)
    add.add_argument("config", nargs="?", help="moving-mnist-32 (default), moving-mnist-32-two, moving-mnist-64")
    add.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the run: checkpoints, metrics, previews (default: runs/ and the name of the configuration)",
    )
    add.add_argument("--resume", action="store_true", help="continue what DIR holds, bit for bit")
    add.add_argument("--clips", type=int, help="length of the training in clips (the same as --set clips=N)")
    add.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a field of the configuration; VALUE is JSON or a word (lr=1e-3, network.width=48, optimizer=muon)",
    )
    add.add_argument("--init", metavar="WEIGHTS", help="start from these weights (a file, a run, a name that ships)")
    add.add_argument("--minutes", type=float, help="stop, and save, after so many minutes")
    add.add_argument("--reconfigure", action="store_true", help="with --resume: go on with a changed configuration")
    add.add_argument("--device", help="cpu, cuda or mps (default: the best there is)")

    add = commands.add_parser("sample", help="generate clips from trained weights")
    add.set_defaults(call=sample)
    add.add_argument(
        "--weights",
        default="moving-mnist-32",
        help="a name that ships, a file, or the folder of a run (default: moving-mnist-32)",
    )
    add.add_argument(
        "--labels",
        type=int,
        nargs="+",
        metavar="DIGIT",
        help="digits that each clip shall show (default: whatever the network likes)",
    )
    add.add_argument("--count", type=int, default=8, help="how many clips (default: 8)")
    add.add_argument("--frames", type=int, help="frames per clip (default: as in training)")
    add.add_argument("--weight", type=float, default=1.0, help="guidance weight, 0 = none (default: 1)")
    add.add_argument("--steps", type=int, default=64, help="denoising steps (default: 64)")
    add.add_argument("--sampler", choices=("ddim", "ancestral"), default="ddim")
    add.add_argument("--eta", type=float, default=0.0, help="noise of ddim, 0 to 1 (default: 0)")
    add.add_argument("--gamma", type=float, default=0.1, help="variance of ancestral, 0 to 1 (default: 0.1)")
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--fps", type=float, default=8.0, help="frames per second of a GIF (default: 8)")
    add.add_argument("--zoom", type=int, default=2, help="size of a pixel in the picture (default: 2)")
    add.add_argument("--out", default="samples.gif", help="NAME.gif (animation) or NAME.png (filmstrips)")
    add.add_argument("--device", help="cpu, cuda or mps (default: the best there is)")

    for name, what in {
        "extend": "make clips longer, block by block",
        "interpolate": "make the frames between frames",
        "upscale": "make the pixels, and frames, that small clips lack",
    }.items():
        add = commands.add_parser(name, help=what)
        add.set_defaults(call=edit)
        _edit_options(add, name)

    add = commands.add_parser("export", help="make a run's weights small, with a card")
    add.set_defaults(call=export)
    add.add_argument("run", metavar="DIR", help="folder of the run")
    add.add_argument("--name", help="name of the weights (default: that of the configuration)")
    add.add_argument("--to", metavar="FOLDER", help="where to (default: the package's own weights)")
    add.add_argument("--metrics", metavar="FILE.json", help="measured figures for the card")

    add = commands.add_parser("progress", help="what a run's snapshots generate, from noise to digits")
    add.set_defaults(call=progress)
    add.add_argument("run", metavar="DIR", help="folder of the run")
    add.add_argument("--name", help="name of the weights it belongs to (default: that of the configuration)")
    add.add_argument("--to", metavar="FOLDER", help="where to (default: the package's own weights)")
    add.add_argument(
        "--digits", type=int, nargs="+", default=[2, 3, 7], metavar="DIGIT", help="one clip of each (default: 2 3 7)"
    )
    add.add_argument("--steps", type=int, default=32, help="denoising steps (default: 32)")
    add.add_argument("--weight", type=float, default=1.0, help="guidance weight, 0 = none (default: 1)")
    add.add_argument("--seed", type=int, default=0)

    add = commands.add_parser("doctor", help="what machine, packages, data and weights there are, and what is missing")
    add.set_defaults(call=doctor)
    return top


def _edit_options(add: argparse.ArgumentParser, name: str) -> None:
    add.add_argument("--weights", default="moving-mnist-32", help="as for sample (default: moving-mnist-32)")
    add.add_argument(
        "--video",
        metavar="FILE.npy",
        help="clips to start from: bytes, or values in [-1, 1], "
        "(f, h, w), (b, f, h, w) or (b, c, f, h, w) (default: test clips of Moving-MNIST)",
    )
    add.add_argument("--count", type=int, default=4, help="how many test clips (default: 4)")
    if name == "extend":
        add.add_argument("--frames", type=int, default=64, help="length of the result (default: 64)")
        add.add_argument("--backwards", action="store_true", help="make what came before")
        add.add_argument("--order", choices=("autoregressive", "hierarchical"), default="autoregressive")
        add.add_argument("--overlap", type=int, help="known frames that a block begins with (default: half a block)")
    elif name == "interpolate":
        add.add_argument("--between", type=int, default=2, help="new frames between any two known (default: 2)")
    else:
        add.add_argument("--space", type=int, default=2, help="times as many pixels along each side (default: 2)")
        add.add_argument("--every", type=int, default=1, help="times as many frames (default: 1)")
    if name != "upscale":
        add.add_argument("--method", choices=("reconstruction", "replacement"), default="reconstruction")
    add.add_argument("--reconstruction", type=float, default=2.0, metavar="W", help="weight w_r (default: 2)")
    add.add_argument("--labels", type=int, nargs="+", metavar="DIGIT", help="digits that each clip shall show")
    add.add_argument("--weight", type=float, default=1.0, help="guidance weight of the labels (default: 1)")
    add.add_argument("--steps", type=int, default=64, help="denoising steps per block (default: 64)")
    add.add_argument("--sampler", choices=("ddim", "ancestral"), default="ancestral")
    add.add_argument("--gamma", type=float, default=0.1, help="variance of ancestral, 0 to 1 (default: 0.1)")
    add.add_argument("--langevin", action="store_true", help="a Langevin correction after each step")
    add.add_argument("--seed", type=int, default=0, help="of the noise, and of which test clips (default: 0)")
    add.add_argument("--fps", type=float, default=8.0, help="frames per second of a GIF (default: 8)")
    add.add_argument("--zoom", type=int, default=2, help="size of a pixel in the picture (default: 2)")
    add.add_argument("--out", default=f"{name}.gif", help="NAME.gif (animation) or NAME.png (filmstrips)")
    add.add_argument("--device", help="cpu, cuda or mps (default: the best there is)")


def main(argv: list[str] | None = None) -> int:
    """Run a command; errors that a user can mend are one line on stderr and exit status 2."""
    args = parser().parse_args(argv)
    try:
        return args.call(args)
    except ModuleNotFoundError as error:
        print(f"minivdm {args.command}: {error}; `python -m minivdm doctor` says what is missing", file=sys.stderr)
        return 2
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"minivdm {args.command}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
