"""The command line: python -m minivdm train | sample | export | doctor."""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: idle threads otherwise spin and slow each other


def train(args: argparse.Namespace) -> int:
    """Train a configuration, or continue a run."""
    import json
    from pathlib import Path

    from minivdm import configs, distributed, training

    saved = Path(args.out) / "config.json"
    if args.config is None and args.resume and saved.exists():
        config = configs.TrainConfig.from_dict(json.loads(saved.read_text()))
    else:
        config = configs.get(args.config or "moving-mnist-32")
    config = config.override(args.set + ([f"clips={args.clips}"] if args.clips is not None else []))
    try:
        run, ending = training.fit(config, args.out, resume=args.resume, init=args.init, device=args.device,
                                   minutes=args.minutes, reconfigure=args.reconfigure)
    finally:
        distributed.leave()
    if run.trainer.world.first:
        done = run.trainer.clips >= config.clips
        where = f"{run.trainer.clips:,} of {config.clips:,} clips in {run.seconds / 60:.1f} min, saved in {args.out}"
        again = f"; continue with: {config.command()} --out {args.out} --resume"
        print(f"{'done' if done else 'stopped'}: {where}{'' if done else again}")
    return 128 + ending if ending else 0


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="python -m minivdm", description="Video diffusion from scratch.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    add = commands.add_parser("train", help="train a network on Moving-MNIST, or continue a run")
    add.set_defaults(call=train)
    add.add_argument("config", nargs="?", help="moving-mnist-32 (default), moving-mnist-32-two, moving-mnist-64")
    add.add_argument("--out", required=True, metavar="DIR", help="folder of the run: checkpoints, metrics, previews")
    add.add_argument("--resume", action="store_true", help="continue what DIR holds, bit for bit")
    add.add_argument("--clips", type=int, help="length of the training in clips (the same as --set clips=N)")
    add.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the "
                     "configuration; VALUE is JSON or a word (lr=1e-3, network.width=48, optimizer=muon)")
    add.add_argument("--init", metavar="WEIGHTS", help="start from these weights (a file, or a name that ships)")
    add.add_argument("--minutes", type=float, help="stop, and save, after so many minutes")
    add.add_argument("--reconfigure", action="store_true", help="with --resume: go on with a changed configuration")
    add.add_argument("--device", help="cpu, cuda or mps (default: the best there is)")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command; errors that a user can mend are one line on stderr and exit status 2."""
    args = parser().parse_args(argv)
    try:
        return args.call(args)
    except (ValueError, TypeError, OSError) as error:
        print(f"minivdm {args.command}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
