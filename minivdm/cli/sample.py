"""`sample`: by a network of pixels (`sampling`), or by a latent model, which makes a small code and decodes it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from minivdm.cli import options, sampling
from minivdm.cli.options import CommandLineError, check_values
from minivdm.systems import latent_diffusion
from minivdm.tasks import multi_hot
from minivdm.training import distributed


def sample(args: argparse.Namespace) -> int:
    """Generate clips from trained weights and write them, whatever these are weights of."""
    latent = latent_diffusion.weights_of(args.weights)
    return sampling.sample(args) if latent is None else _by_code(args, latent)


def _by_code(args: argparse.Namespace, weights: Path) -> int:
    """Generate clips from the latent model in that file, and write them."""
    for name in ("text", "negative", "few", "frames", "autoguidance"):
        if getattr(args, name) is not None:
            raise CommandLineError(f"--{name}: expected none with a latent model, {args.weights}")
    if args.temporal not in (0.0, options.TEMPORAL):
        raise CommandLineError("--temporal: expected 0 with a latent model, which has not learnt frames by themselves")
    out = sampling.Output(args, "samples")
    _, device = distributed.join(None if args.device == "auto" else args.device)
    model = latent_diffusion.load(weights, device)
    _, f, h, w = model.shape
    check_values("--count", args.count, *model.shape)
    out.check(sampling.grid(args.count, f, h, w, out.kind))
    config: Any = model.denoiser.network.config  # type: ignore[union-attr]
    known = config["labels"]
    labels = _labels(args, known)
    args.eta = args.eta or 0.0
    steps = args.steps or options.LATENT_STEPS  # even ones, with which the model was judged
    with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
        videos = model.sample(
            None if labels is None else labels.to(device), count=args.count, steps=steps,
            weight=0.0 if labels is None else args.weight, step=sampling.shared_step(args),
            generator=torch.Generator().manual_seed(args.seed), progress=True,
        )  # fmt: skip
    written = out.write(videos.float())
    print(f"{args.count} clips of {f} frames of {h}x{w} in {written}")
    return 0


def _labels(args: argparse.Namespace, known: int) -> torch.Tensor | None:
    """Label vectors (count, n): those asked for, or one digit at random for each clip."""
    if args.unconditional:
        return None
    if args.labels is None:
        drawn = [torch.randint(known, (1,), generator=torch.Generator().manual_seed(args.seed + i)).item()
                 for i in range(args.count)]  # fmt: skip
        print(f"labels drawn at random: {' '.join(map(str, drawn))}; --labels chooses")
        return torch.cat([multi_hot([int(digit)], known) for digit in drawn])
    return sampling.named(args, list(map(str, range(known)))).expand(args.count, -1)
