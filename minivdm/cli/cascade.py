"""`cascade`: clips by several networks, one after the other.

Show-1 with the networks that ship; with a file of stages Imagen Video (from labels) or Make-A-Video (from sentences).
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from minivdm.cli.options import TEMPORAL, TEXT_WEIGHTS, WEIGHTS, CommandLineError, check_values
from minivdm.cli.sampling import Output, grid
from minivdm.core import for_few_steps
from minivdm.data.captions import CaptionError, parse, tokens
from minivdm.systems import imagen_video, latent_diffusion, make_a_video, show_1
from minivdm.systems.text_to_video import text_to_video
from minivdm.tasks import multi_hot
from minivdm.training import distributed, pretrained


def cascade(args: argparse.Namespace) -> int:
    """Make clips of 64x64, or of 32x32 by Imagen Video's stages, and write them."""
    out = Output(args, "cascade")
    if bool(args.text) == bool(args.labels):
        raise CommandLineError("--labels, --text: expected one of them")
    if args.text and len(args.text) > 1 and args.count not in (1, len(args.text)):
        raise CommandLineError(f"--text: expected 1 or --count {args.count} sentences, got {len(args.text)}")
    digits = [_digit(word) for word in args.labels or ()]
    count, side = args.count, (32 if args.weights and args.labels else 64)
    frames = 16 if args.weights else 17  # which is what the latent model makes
    if args.text:
        try:
            tokens(args.text)
        except CaptionError as error:
            raise CommandLineError(f"--text: {error}") from error
        count = max(count, len(args.text))
    check_values("--count", count, 1, frames, side, side)
    out.check(grid(count, frames, side, side, out.kind))
    _, device = distributed.join(None if args.device == "auto" else args.device)
    dice = torch.Generator().manual_seed(args.seed)
    how = {"weight": args.weight, "steps": args.steps, "generator": dice}
    if not args.weights:
        videos = _show_1(args, digits, count, device, how)
    elif args.text:
        system = make_a_video.load_make_a_video(args.weights, device)
        videos = system(args.text * (count // len(args.text)), **how)
    else:
        stages = imagen_video.load_stages(args.weights, device=device)
        labels = multi_hot(digits).to(device).expand(count, -1)
        how |= {"low_log_snr": args.low_log_snr, "grid": for_few_steps}
        videos = imagen_video.cascade(stages, labels, **how)[-1]
    written = out.write(videos.clamp(-1, 1).cpu())
    print(f"{count} clips of {frames} frames of {side}x{side} in {written}")
    return 0


def _show_1(
    args: argparse.Namespace, digits: list[int], count: int, device: torch.device, how: dict[str, Any]
) -> Tensor:
    """Clips (count, 1, 17, 64, 64): small ones by the pixel model, enlarged and made anew in part by the latent one."""
    latent = latent_diffusion.load(device=device)
    more: dict[str, Any] = {"temporal_weight": TEMPORAL, "grid": for_few_steps}
    if not args.text:
        labels = multi_hot(digits).to(device).expand(count, -1)
        made = show_1.show_1(pretrained.load(WEIGHTS, device), latent, labels, strength=args.strength, **how, **more)
        return made.clip
    sentences = args.text * (count // len(args.text))
    pixels = pretrained.load(TEXT_WEIGHTS, device)
    small = text_to_video(pixels, sentences, shape=(1, latent.shape[1], 32, 32), **how, **more)
    said = [parse(sentence).digit for sentence in sentences]  # the latent model has not learnt to read
    labels = torch.cat([torch.zeros(1, 10) if digit is None else multi_hot([digit]) for digit in said]).to(device)
    large = show_1.enlarged(small.clamp(-1, 1), 2)
    return show_1.translate(latent, large, labels, strength=args.strength, **how)


def _digit(word: str) -> int:
    if not word.isdecimal() or int(word) > 9:
        raise CommandLineError(f"--labels: expected digits 0 to 9, got {word}")
    return int(word)
