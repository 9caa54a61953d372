"""`train`, `export`, `progress`, `recipes`: what makes weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minivdm.cli import folders


def train(args: argparse.Namespace) -> int:
    """Train a configuration, or continue a run."""
    from minivdm import training
    from minivdm.training import distributed, folder, recipes

    of_folder = folders.settings(args.set)
    named = [text.partition("=")[2] for text in of_folder if text.startswith("name=")]
    out = Path(args.out or f"runs/{json.loads(named[0]) if named else args.config or 'moving-mnist-32'}")
    saved = folder.saved_recipe(out) if args.config is None and args.resume else None
    config = saved or recipes.get(args.config or "moving-mnist-32")
    config = config.override(args.set + of_folder + ([f"clips={args.clips}"] if args.clips is not None else []))
    try:
        run, ending = training.fit(
            config,
            out,
            resume=args.resume,
            init=args.init,
            teacher=args.teacher,
            device=None if args.device == "auto" else args.device,
            minutes=args.minutes,
            reconfigure=args.reconfigure,
        )
    finally:
        distributed.leave()
    if run.trainer.world.first:
        done = run.trainer.clips >= config.clips
        where = f"{run.trainer.clips:,} of {config.clips:,} clips in {run.seconds / 60:.1f} min, saved in {out}"
        again = f"; continue with: {recipes.command(config)} --out {out} --resume"
        print(f"{'done' if done else 'stopped'}: {where}{'' if done else again}")
    return 128 + ending if ending else 0


def export(args: argparse.Namespace) -> int:
    """Write a run's averaged weights in 16 or 8 bits, with a card."""
    from minivdm.training import exports

    metrics = json.loads(Path(args.metrics).read_text()) if args.metrics else None
    folder = Path(args.to) if args.to else None
    path = exports.export(args.run, args.name, folder, metrics, force=args.force, precision=args.precision)
    print(f"{path.stat().st_size / 1e6:.2f} MB in {path}, card beside it")
    return 0


def progress(args: argparse.Namespace) -> int:
    """Record what a run's snapshots generate from the same noise."""
    from minivdm.training import milestones as history

    path = history.record(
        args.run,
        Path(args.to) if args.to else None,
        args.name,
        tuple(args.digits),
        args.steps,
        args.weight,
        args.seed,
        force=args.force,
    )
    print(f"{len(history.read(path).clips)} stages, {path.stat().st_size / 1e3:.0f} kB in {path}")
    return 0


def recipes(args: argparse.Namespace) -> int:
    """List the recipes, or make the weights of all of them (or of those named), one after the other."""
    from minivdm.training import recipes as registry

    if args.make:
        from minivdm.training.make import make

        return make(args.names or None, Path(args.out), None if args.device == "auto" else args.device, args.minutes)
    for recipe in registry.in_order(args.names or None):
        frames = ", then ".join(f"{phase.frames} to {phase.until:,} clips" for phase in recipe.phases())
        print(f"{recipe.name}\n    {recipe.size}x{recipe.size} {recipe.data}, frames: {frames}")
        print(f"    {recipe.optimizer}, lr {recipe.lr:g}, {recipe.precision}, {recipe.clips:,} clips")
        if recipe.init:
            print(f"    starts from {recipe.init}")
    return 0
