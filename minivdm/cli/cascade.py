"""`cascade`: clips by several networks, one after the other, from labels (Imagen Video) or sentences (Make-A-Video)."""

from __future__ import annotations

import argparse

import torch

from minivdm.cli.options import CommandLineError, check_values
from minivdm.cli.sampling import Output, grid
from minivdm.core import for_few_steps
from minivdm.data.captions import CaptionError, tokens
from minivdm.systems import imagen_video, make_a_video
from minivdm.tasks import multi_hot
from minivdm.training import distributed


def cascade(args: argparse.Namespace) -> int:
    """Make clips of 32x32 from labels, or of 64x64 from sentences, and write them."""
    out = Output(args, "cascade")
    if bool(args.text) == bool(args.labels):
        raise CommandLineError("--labels, --text: expected one of them")
    if args.text and len(args.text) > 1 and args.count not in (1, len(args.text)):
        raise CommandLineError(f"--text: expected 1 or --count {args.count} sentences, got {len(args.text)}")
    digits = [_digit(word) for word in args.labels or ()]
    side, count = (64 if args.text else 32), args.count
    if args.text:
        try:
            tokens(args.text)
        except CaptionError as error:
            raise CommandLineError(f"--text: {error}") from error
        count = max(count, len(args.text))
    check_values("--count", count, 1, 16, side, side)
    out.check(grid(count, 16, side, side, out.kind))
    _, device = distributed.join(None if args.device == "auto" else args.device)
    dice = torch.Generator().manual_seed(args.seed)
    how = {"weight": args.weight, "steps": args.steps, "generator": dice}
    if args.text:
        system = make_a_video.load_make_a_video(args.weights or "make-a-video-32", device)
        videos = system(args.text * (count // len(args.text)), **how)
    else:
        stages = imagen_video.load_stages(args.weights or "cascade-32", device=device)
        labels = multi_hot(digits).to(device).expand(count, -1)
        how |= {"low_log_snr": args.low_log_snr, "grid": for_few_steps}
        videos = imagen_video.cascade(stages, labels, **how)[-1]
    written = out.write(videos.clamp(-1, 1).cpu())
    print(f"{count} clips of 16 frames of {side}x{side} in {written}")
    return 0


def _digit(word: str) -> int:
    if not word.isdecimal() or int(word) > 9:
        raise CommandLineError(f"--labels: expected digits 0 to 9, got {word}")
    return int(word)
