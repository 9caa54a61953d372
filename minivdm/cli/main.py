"""The command line, `python -m minivdm`: its commands and options, and what becomes of an error."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings

from minivdm.cli import options
from minivdm.cli.options import Parser, real, whole

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: idle threads otherwise spin and slow each other

#: command -> module and function that carry it out; imported when it is called, for `--help` to need no torch.
CALLS = {
    "train": "runs",
    "sample": "sample",
    "cascade": "cascade",
    "extend": "edit",
    "interpolate": "edit",
    "upscale": "edit",
    "recipes": "runs",
    "export": "runs",
    "progress": "runs",
    "doctor": "doctor",
}


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = Parser(prog="python -m minivdm", description="Video diffusion from scratch.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command", parser_class=Parser)
    _train(commands)
    _recipes(commands)
    _sample(commands)
    _cascade(commands)
    _edits(commands)
    _weights(commands)
    commands.add_parser("doctor", help="what machine, packages, data and weights there are, and what is missing")
    return top


def _train(commands: argparse._SubParsersAction) -> None:
    add = commands.add_parser(
        "train", help="train a network on Moving-MNIST, or continue a run", parents=[options.device()]
    ).add_argument
    add(
        "config",
        nargs="?",
        metavar="RECIPE",
        help="`python -m minivdm recipes` lists them; moving-mnist-32 is the first",
    )
    add("--out", metavar="DIR", help="folder of the run; if not given, runs/ and the name of the configuration")
    add("--resume", action="store_true", help="continue what DIR holds, bit for bit")
    add("--clips", type=whole(1, 10**12), help="length of the training in clips (the same as --set clips=N)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a field of the configuration; VALUE is JSON or a word (lr=1e-3, network.width=48, optimizer=muon)",
    )
    add("--init", metavar="WEIGHTS", help="start from these weights (a file, a run, a name that ships)")
    add(
        "--teacher",
        metavar="WEIGHTS",
        help="what a student learns from; if not given, what its recipe names",
    )
    add("--minutes", type=real(0, 1e6), help="stop, and save, after so many minutes")
    add("--reconfigure", action="store_true", help="with --resume: go on with a changed configuration")


def _recipes(commands: argparse._SubParsersAction) -> None:
    add = commands.add_parser(
        "recipes", help="list what can be trained, or make all weights", parents=[options.device()]
    ).add_argument
    add("names", nargs="*", metavar="NAME", help="of recipes; if none is given, all")
    add("--make", action="store_true", help="train and export them in order of dependence; made ones are left")
    add("--out", default="runs", metavar="DIR", help="where the runs' folders lie, with --make")
    add("--minutes", type=real(0, 1e6), help="stop, and save, after so many minutes; made again, it goes on there")


def _sample(commands: argparse._SubParsersAction) -> None:
    parents = [
        options.sampling(
            "ddim",
            "if neither is given, each clip's are drawn at random",
            options.TEMPORAL,
            "few",
            steps=None,
            eta=None,
        ),
        options.picture("samples"),
        options.device(),
    ]
    add = commands.add_parser("sample", help="generate clips from trained weights", parents=parents).add_argument
    add("--count", type=whole(1, 4096), default=options.COUNT, help="how many clips")
    add("--frames", type=whole(1, 65_536), help="frames per clip; if not given, as in training")
    add(
        "--text",
        nargs="+",
        metavar="SENTENCE",
        help='what the clips shall show, such as "a slow three moving up and left": one sentence for all, or '
        f"one for each; by {options.TEXT_WEIGHTS} unless --weights names others; if not given, --labels say it",
    )
    add(
        "--negative",
        metavar="SENTENCE",
        help="with --text: what clips shall not show; if not given, nothing special",
    )
    add(
        "--few",
        type=whole(1, 4096),
        metavar="N",
        help="N calls in all, by the student few-N, which has learnt guidance; if not given, --steps of --weights",
    )
    add(
        "--autoguidance",
        type=real(0, 1000),
        metavar="W",
        help="weight of the guidance away from the same network earlier in its training, where that ships; if not "
        f"given, {options.AUTOGUIDANCE:g} with --unconditional, else none",
    )
    add("--bf16", action="store_true", help="compute in half precision: faster where the processor has units for it")


def _cascade(commands: argparse._SubParsersAction) -> None:
    add = commands.add_parser(
        "cascade",
        help="generate clips by several networks in turn",
        parents=[options.picture("cascade"), options.device()],
    ).add_argument
    add(
        "--labels",
        nargs="+",
        metavar="DIGIT",
        help="what each clip shall show; if not given, --text says it",
    )
    add(
        "--text",
        nargs="+",
        metavar="SENTENCE",
        help="sentences that say it; if not given, --labels",
    )
    add(
        "--weights",
        metavar="NAME",
        help="a file of Imagen Video's stages, for labels, or of Make-A-Video's parts, for sentences; if not given, "
        "Show-1: the pixel model that ships, and the latent one, which makes the enlarged clip anew in part",
    )
    add("--strength", type=real(0, 1), default=0.3, help="of Show-1: how much is made anew, from nothing to everything")
    add("--count", type=whole(1, 4096), default=1, help="how many clips")
    add("--weight", type=real(0, 1000), default=1.0, help="of the guidance, 0 = none")
    add("--steps", type=whole(1, 100_000), default=options.FEW_STEPS, help="denoising steps of each stage")
    add(
        "--low-log-snr",
        type=real(-20, 20),
        default=1.61,
        help="of Imagen Video: to which small clips are noised before the next stage",
    )
    add("--seed", type=whole(0, options.LARGEST_SEED), default=0, help="of the noise")


def _edits(commands: argparse._SubParsersAction) -> None:
    for name, what in {
        "extend": "make clips longer, block by block",
        "interpolate": "make the frames between frames",
        "upscale": "make the pixels, and frames, that small clips lack",
    }.items():
        parents = [
            options.edited(),
            options.sampling(
                "ancestral", "test clips are asked for their own, where neither is given", 0.0, "even", options.STEPS
            ),
            options.picture(name),
            options.device(),
        ]
        add = commands.add_parser(name, help=what, parents=parents).add_argument
        if name == "extend":
            add("--frames", type=whole(1, 65_536), default=64, help="length of the result")
            add("--backwards", action="store_true", help="make what came before")
            add("--order", choices=options.ORDERS, default=options.ORDERS[0], help="in which blocks are made")
            add("--overlap", type=whole(0, 65_536), help="known frames that a block begins with; if not given, half")
        elif name == "interpolate":
            add("--between", type=whole(1, 4096), default=2, help="new frames between any two known")
        else:
            add("--space", type=whole(1, 64), default=2, help="times as many pixels along each side")
            add("--every", type=whole(1, 4096), default=1, help="times as many frames")
        if name != "upscale":
            add("--method", choices=options.METHODS, default=options.METHODS[0], help="how known frames are held")
        natural = "the square of --space" if name == "upscale" else "2"
        add("--reconstruction", type=real(0, 1000), metavar="W", help=f"weight w_r; if not given, {natural}")


def _weights(commands: argparse._SubParsersAction) -> None:
    add = commands.add_parser("export", help="make a run's weights small, with a card").add_argument
    add("run", metavar="DIR", help="folder of the run")
    add("--name", help="name of the weights; if not given, that of the configuration")
    add("--to", metavar="FOLDER", help="where to; if not given, weights/ in the run's own folder")
    add("--force", action="store_true", help="replace weights of that name that were not made of this run")
    add("--metrics", metavar="FILE.json", help="measured figures for the card")
    add("--precision", choices=("float16", "int8"), help="if not given, int8 for students and float16 for all others")

    add = commands.add_parser("progress", help="what a run's snapshots generate, from noise to digits").add_argument
    add("run", metavar="DIR", help="folder of the run")
    add("--name", help="name of the weights it belongs to; if not given, that of the configuration")
    add("--to", metavar="FOLDER", help="where to; if not given, weights/ in the run's own folder")
    add("--force", action="store_true", help="replace a file that was not made of this run")
    add("--digits", type=whole(0, 999), nargs="+", default=[2, 3, 7], metavar="DIGIT", help="one clip of each")
    add("--steps", type=whole(1, 100_000), default=32, help="denoising steps")
    add("--weight", type=real(0, 1000), default=1.0, help="of the guidance, 0 = none")
    add("--seed", type=whole(0, options.LARGEST_SEED), default=0, help="of the noise")


def main(argv: list[str] | None = None) -> int:
    """Run a command; errors that a user can mend are one line on stderr and exit status 2."""
    words = sys.argv[1:] if argv is None else argv
    command = words[0] if words and words[0] in CALLS else ""
    try:
        args = parser().parse_args(words)
        call = getattr(importlib.import_module(f"minivdm.cli.{CALLS[args.command]}"), args.command)
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return call(args)
    except ModuleNotFoundError as error:
        said = f"{error}; `python -m minivdm doctor` says what is missing"
    except MemoryError as error:
        said = f"MemoryError: {error or 'not enough memory'}; ask for fewer or smaller clips"
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError) as error:
        if os.environ.get("MINIVDM_TRACEBACK"):
            raise
        said = f"{type(error).__name__}: {_one_line(str(error))}"
    print(f"minivdm {command}: {said}".replace("minivdm :", "minivdm:"), file=sys.stderr)
    return 2


def _warn(message: Warning | str, *place: object, **more: object) -> None:
    """A warning in one line; where in the code it comes from tells a user nothing."""
    print(f"minivdm: {_one_line(str(message))}", file=sys.stderr)


def _one_line(text: str) -> str:
    """The first line that says something, and that there are more; MINIVDM_TRACEBACK=1 shows everything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or len(text) < 1000:
        return " ".join(lines)
    return f"{lines[0]} ... (MINIVDM_TRACEBACK=1 shows all {len(lines)} lines)"


if __name__ == "__main__":
    sys.exit(main())
