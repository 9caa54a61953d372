"""`sample --text`: clips that sentences ask for."""

from __future__ import annotations

import argparse

from torch import Tensor

from minivdm.cli import options
from minivdm.cli.options import CommandLineError
from minivdm.core.denoiser import Denoise
from minivdm.data.captions import CaptionError, tokens
from minivdm.systems.text_to_video import read
from minivdm.tasks import guided
from minivdm.training.pretrained import TrainedDenoiser


def settle(args: argparse.Namespace) -> None:
    """What follows from --text, before weights are read: which these are, how many clips, and whether it can be meant.

    Raises:
        CommandLineError: a sentence outside the language, or options that do not go with sentences.
    """
    if not args.text:
        if args.negative is not None:
            raise CommandLineError("--negative: expected only with --text")
        return
    if args.labels or args.unconditional or args.few is not None or args.autoguidance is not None:
        raise CommandLineError("--text: expected without --labels, --unconditional, --few and --autoguidance")
    for option, sentences in {"--text": args.text, "--negative": [args.negative] if args.negative else []}.items():
        try:
            tokens(sentences)
        except CaptionError as error:
            raise CommandLineError(f"{option}: {error}") from error
    if len(args.text) > 1 and args.count not in (options.COUNT, len(args.text)):
        raise CommandLineError(f"--text: expected 1 or --count {args.count} sentences, got {len(args.text)}")
    args.count = len(args.text) if len(args.text) > 1 else args.count
    if args.weights == options.WEIGHTS:
        args.weights = options.TEXT_WEIGHTS


def asked(args: argparse.Namespace, denoise: TrainedDenoiser) -> tuple[Tensor, Tensor | None] | None:
    """Tokens (count, n) of --text and (1, n) of --negative, each None where it is not given.

    Raises:
        CommandLineError: weights that read no sentences.
    """
    if not args.text:
        return None
    if not denoise.config.network.get("text"):
        raise CommandLineError("--text: expected weights that were trained with sentences, got others")
    negative = None if args.negative is None else read(denoise, args.negative)
    return read(denoise, args.text).expand(args.count, -1), negative


def wanted(denoise: TrainedDenoiser, rows: Tensor, negative: Tensor | None, weight: float, temporal: float) -> Denoise:
    """The denoiser to sample with: guided towards the sentences, or away from the negative one towards them."""
    unwanted = None if negative is None else {"text": negative}
    return guided(denoise, None, weight, temporal_weight=temporal, conditions={"text": rows}, negative=unwanted)
