"""What the commands' options have in common: numbers with bounds, groups of options, errors of one line.

Nothing here imports torch: `--help` and a wrong number answer at once.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

WEIGHTS = "moving-mnist-32"
#: Those that read sentences; taken where --text is given without --weights.
TEXT_WEIGHTS = "text-32"
#: Of clips made from noise alone; frames that are given hold the others together by themselves.
TEMPORAL = 0.75
#: Of clips for which nothing is asked: away from the same network earlier in its training.
AUTOGUIDANCE = 0.5
AUTOGUIDED = (-3.0, math.inf)  # log-SNR: not while what is shown is undecided, or clips become ones
STEPS = 64  # of the edits
#: Of `sample`, at times for few steps.
FEW_STEPS = 24
LATENT_STEPS = 48  # of `sample` by a latent model, even ones
TIMES = ("few", "even")
COUNT = 8
LARGEST_SEED = 2**62  # torch takes a little more; a batch counts on from here
#: Values of all clips of a command together, 4 bytes each.
MOST_VALUES = 1 << 28
SAMPLERS = ("ddim", "ancestral")
ORDERS = ("autoregressive", "hierarchical")
METHODS = ("reconstruction", "replacement")


class CommandLineError(ValueError):
    """An option that cannot be meant; found before anything is loaded."""


class Formatter(argparse.HelpFormatter):
    """Every default that is a value is shown; where there is none, the help itself says what happens."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.help or ""
        if action.default in (None, False, argparse.SUPPRESS) or action.default == [] or "%(default)" in shown:
            return shown
        words = " ".join(map(str, action.default)) if isinstance(action.default, list) else "%(default)s"
        return f"{shown} (default: {words})"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and that shows every default."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", Formatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints in one line."""
        raise CommandLineError(f"{message.removeprefix('argument ')} (`{self.prog} --help` lists the options)")


def whole(least: int, most: int) -> Callable[[str], int]:
    """A type of argparse: a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text) if len(text) < 40 else most + 1
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text[:40]!r}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected {least:,} to {most:,}, got {text[:40]}")
        return value

    return read


def real(least: float, most: float) -> Callable[[str], float]:
    """A type of argparse: a number from `least` to `most`; NaN and infinity are none."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a number, got {text[:40]!r}") from None
        if not least <= value <= most or math.isinf(value):
            raise argparse.ArgumentTypeError(f"expected {least:g} to {most:g}, got {text[:40]}")
        return value

    return read


def device() -> Parser:
    """Where to compute."""
    group = Parser(add_help=False)
    group.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1, mps, or the best there is")
    return group


def picture(name: str) -> Parser:
    """How a result is written."""
    group = Parser(add_help=False)
    add = group.add_argument
    add(
        "--out",
        metavar="FILE",
        help="NAME.gif, .webp, .mp4 (animations) or .png (filmstrips); "
        f"if not given, {name}.gif, or {name}-2.gif and so on where that is there",
    )
    add("--force", action="store_true", help="replace FILE if it is there")
    add("--fps", type=real(0.1, 50), default=8.0, help="frames per second of an animation, 0.1 to 50")
    add("--zoom", type=whole(1, 64), default=2, help="side of a pixel in the picture")
    return group


def sampling(
    sampler: str, labels: str, temporal: float, times: str, steps: int | None, eta: float | None = 0.0
) -> Parser:
    """Which weights, how many steps, what is asked for. labels: what happens without --labels. steps, eta: None where
    they depend on the weights and on what is asked."""
    group = Parser(add_help=False)
    add = group.add_argument
    add("--weights", default=WEIGHTS, metavar="NAME", help="weights that ship, a file, or the folder of a run")
    asked = group.add_mutually_exclusive_group()
    asked.add_argument(
        "--labels", nargs="+", metavar="LABEL", help=f"what each clip shall show, such as 3 or 3 7; {labels}"
    )
    asked.add_argument("--unconditional", action="store_true", help="leave to the network what the clips show")
    add("--weight", type=real(0, 1000), default=1.0, help="of the guidance towards labels or text, 0 = none")
    add(
        "--temporal",
        type=real(0, 1000),
        default=temporal,
        metavar="W",
        help="weight w_f of the guidance towards frames that belong together, 0 = none, which is faster",
    )
    several = f"; if not given, {FEW_STEPS}, of a student what it knows, of a latent model {LATENT_STEPS}"
    add(
        "--steps",
        type=whole(1, 100_000),
        default=steps,
        help=f"denoising steps{several if steps is None else ' (of each block)'}",
    )
    add("--times", choices=TIMES, default=times, help="of the steps: where few of them do most, or even in t")
    add("--sampler", choices=SAMPLERS, default=sampler, help="how a step is made")
    unsaid = "; if not given, 1 with --unconditional, which corrects slips, else 0" if eta is None else ""
    add("--eta", type=real(0, 1), default=eta, help=f"noise of a ddim step{unsaid}")
    add("--gamma", type=real(0, 1), default=0.1, help="variance of an ancestral step, from the smaller to the larger")
    add("--seed", type=whole(0, LARGEST_SEED), default=0, help="clip i of a batch is the only one of seed + i")
    return group


def edited() -> Parser:
    """Which clips to start from, and how they condition the result."""
    group = Parser(add_help=False)
    add = group.add_argument
    add(
        "--video",
        metavar="FILE",
        help="clips to start from: .npy, GIF, MP4, or a folder of pictures; if not given, the weights' own test clips",
    )
    add("--count", type=whole(1, 4096), default=4, help="how many test clips")
    add("--langevin", action="store_true", help="a Langevin correction after each step")
    add("--only-result", action="store_true", help="write the result alone, without the truth and a baseline beside it")
    return group


def check_values(what: str, *factors: int) -> None:
    """Raise CommandLineError where a result has more than `MOST_VALUES` values."""
    values = math.prod(factors)
    if values > MOST_VALUES:
        shape = " x ".join(f"{n:,}" for n in factors)
        raise CommandLineError(
            f"{what}: expected at most {MOST_VALUES:,} pixel values in all, got {shape} = {values:.3g}"
        )
