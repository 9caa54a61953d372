"""Where a measurement runs: `--device cuda` takes minutes for what takes a CPU hours. The figures say where."""

import argparse
import os
import time
from collections.abc import Iterable

import torch


def argument(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where clips are made")


def chosen(args: argparse.Namespace) -> torch.device:
    """The device that was asked for, ready for use: on a CPU with all cores unless the environment says otherwise."""
    if args.device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("--device cuda: no NVIDIA GPU is here")
        torch.set_float32_matmul_precision("high")  # TF32, as in training
    elif not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(os.cpu_count() or 1)
    return torch.device(args.device)


def clock(device: torch.device | str) -> float:
    """Seconds by which trainings are held equal: those of work on a CPU, where other programs take turns with this one
    (so with one thread), and of the wall beside a GPU."""
    return time.process_time() if torch.device(device).type == "cpu" else time.monotonic()


def bf16_argument(parser: argparse.ArgumentParser) -> None:
    """Add --bf16."""
    parser.add_argument("--bf16", action="store_true", help="on a CPU, if it has units for it; a GPU has it anyway")


def precision(device: torch.device, on_cpu: bool) -> str:
    """bf16 always on a GPU, as in training; on a CPU where asked for, as it helps only those that have units for it."""
    return "bf16" if on_cpu or device.type == "cuda" else "float32"


def half(device: torch.device, on_cpu: bool) -> torch.autocast:
    """Half precision where `precision` says so. Weights cast in one pass are not kept for the next."""
    enabled = precision(device, on_cpu) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def batch(device: torch.device | str) -> int:
    """Clips at once: few stay in a CPU's cache, a GPU waits for launches unless there are many."""
    return 8 if torch.device(device).type == "cpu" else 256


def changed(parser: argparse.ArgumentParser, args: argparse.Namespace, but: Iterable[str] = ()) -> str:
    """The arguments of a command that are not its defaults, to be written behind its name; without those of `but`."""
    said = ""
    for name, value in vars(args).items():
        if name not in but and value != parser.get_default(name):
            said += f" --{name.replace('_', '-')}"
            values = [] if value is True else value if isinstance(value, list) else [value]
            said += "".join(f" {v:g}" if isinstance(v, float) else f" {v}" for v in values)
    return said


def words(device: torch.device | str) -> str:
    """What belongs to a command beside its other arguments: nothing for the default."""
    return "" if torch.device(device).type == "cpu" else f" --device {torch.device(device).type}"
