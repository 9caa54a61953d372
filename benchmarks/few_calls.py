"""How good are a few network calls? Clips made with at most ten, against clips made with 256 ancestral steps.

    python benchmarks/few_calls.py                      (64 clips: half an hour of one core)
    python benchmarks/few_calls.py --clips 1024 --device cuda
    OMP_NUM_THREADS=1 python benchmarks/few_calls.py --clips 1024 --bf16    (2.5 hours of one core a row of 256 calls)

All samplers start from the same noise and labels, without guidance, so that a step of a first-order sampler is one
call of the network. "Times for few steps" are `core.for_few_steps`: t = 1, then those of Karras et al. 2022, eq 5,
with rho = 3 from sigma / alpha = 10 to 0.2, three numbers that were chosen among six on other noise.

Distances, intervals, and how an interrupted measurement goes on, are those of benchmarks/clip_metrics.py, bootstrap.py,
finished.py and kept.py (clips are kept in --keep). Ratios are to the ancestral row, with the same bootstrap draw of
clips in both.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import devices
import kept
import torch
from bootstrap import averaged, interval_of
from clip_metrics import REAL, REFERENCE, REFERENCE_FROM, WEIGHTS, distance, ratios, windows
from finished import RESULTS, as_json, fill, resumed
from torch import Tensor

from minivdm import tasks
from minivdm.core import samplers
from minivdm.data.atomic import write_atomic
from minivdm.measure import metrics
from minivdm.measure.frechet import features
from minivdm.training import monitor, pretrained

REFERENCE_ROW = "ancestral, 256 calls"
#: Row -> how `samplers.sample` is called. Heun's method calls the network twice in every step but the last.
SAMPLERS: dict[str, Callable[[], dict[str, Any]]] = {
    REFERENCE_ROW: lambda: {"steps": 256, "step": samplers.ancestral_step},
    "ancestral, 10 calls": lambda: {"steps": 10, "step": samplers.ancestral_step},
    "ancestral, times for few steps, 10 calls": lambda: {
        "steps": 10,
        "step": samplers.ancestral_step,
        "grid": samplers.for_few_steps,
    },
    "DDIM, times for few steps, 10 calls": lambda: {
        "steps": 10,
        "step": samplers.ddim_step,
        "grid": samplers.for_few_steps,
    },
    "DDIM, 10 calls": lambda: {"steps": 10, "step": samplers.ddim_step},
    "Heun, 9 calls": lambda: {"steps": 5, "step": samplers.heun_step},
    "DPM-Solver++(2M), 10 calls": lambda: {"steps": 10, "step": samplers.DPMSolverPlusPlus2M()},
    "DPM-Solver++(2M), Karras' times, 10 calls": lambda: {
        "steps": 10,
        "step": samplers.DPMSolverPlusPlus2M(),
        "grid": samplers.karras,
    },
    "DPM-Solver++(2M), 6 calls": lambda: {"steps": 6, "step": samplers.DPMSolverPlusPlus2M()},
    "DDIM, 256 calls": lambda: {"steps": 256, "step": samplers.ddim_step},
}


def cell(name: str, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    denoise = pretrained.load(WEIGHTS, device)
    data, made_of = denoise.config.make_data(split="test"), {}
    reference = data.clips(torch.arange(REFERENCE_FROM, REFERENCE_FROM + max(REFERENCE, args.clips))).video
    if name == REAL:
        found = data.clips(torch.arange(args.clips))
        made, labels = found.video, found.labels
    else:
        labels = torch.eye(10)[torch.arange(args.clips) % 10]
        digest, precision = pretrained.card(WEIGHTS)["sha256"][:8], devices.precision(device, args.bf16)
        made, seconds = kept.clips(
            args.keep,
            f"{name}-{digest}-{precision}-{args.seed}",
            args.clips,
            kept.part(device),
            lambda start: generated(denoise, name, start, args, device),
        )
        made_of = {"seconds_per_clip": round(seconds, 3)}
    return {
        **made_of,
        "hardware": monitor.hardware(device),
        "metrics": {
            "frames": distance(features(made)[0], features(reference)[0]),
            "clips": distance(windows(made), windows(reference)),
            "legible": averaged(metrics.legible(made, labels).float(), "share"),
            "identity": averaged(metrics.keeps_identity(made).float(), "share"),
        },
    }


def generated(
    denoise: pretrained.TrainedDenoiser, name: str, start: int, args: argparse.Namespace, device: torch.device
) -> tuple[Tensor, float]:
    """The part that begins with clip `start`, and its seconds. Samplers draw after the noise, so that all share it."""
    videos, begun = [], devices.clock(device)
    for labels, generator in kept.batches(start, args.seed, device):
        with devices.half(device, args.bf16):
            videos.append(tasks.generate(denoise, labels, generator=generator, **SAMPLERS[name]()).float())
    return torch.cat(videos).cpu(), devices.clock(device) - begun


def verdict(rows: list[dict[str, Any]]) -> str:
    """Which row comes nearest, and whether it is within five per cent."""
    if not rows:
        return "Not yet measured against 256 ancestral steps."
    worst: dict[str, float] = {}
    for row in rows:
        worst[row["row"]] = max(worst.get(row["row"], 0.0), row["ratio"])
    best = min(worst, key=lambda name: worst[name])
    within = "at most 5 % above" if worst[best] <= 1.05 else "nearest to, but not within 5 % of,"
    return f"{best} is {within} 256 ancestral steps in both distances: its larger ratio is {worst[best]:.2f}."


def markdown(found: dict[str, Any]) -> str:
    """The table as the README shows it."""
    by_row: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found["ratios"]:
        by_row.setdefault(row["row"], {})[row["metric"]] = row
    lines = [
        "| | distance of frames | its ratio | distance of clips | its ratio | legible | same digit all along |",
        "|---" * 7 + "|",
    ]
    for name, made in found["cells"].items():
        entries = []
        for metric in ("frames", "clips"):
            low, high = interval_of(made["metrics"][metric])
            entries.append(f"{made['metrics'][metric]['estimate']:.2f} ({low:.2f} to {high:.2f})")
            row = by_row.get(name, {}).get(metric)
            entries.append(f"{row['ratio']:.2f} ({row['interval'][0]:.2f} to {row['interval'][1]:.2f})" if row else "")
        entries += [f"{made['metrics'][share]['estimate']:.2f}" for share in ("legible", "identity")]
        lines.append(f"| {name} | " + " | ".join(entries) + " |")
    settings = found["settings"]
    return (
        "\n".join(
            [
                *lines,
                "",
                found["verdict"],
                "",
                (
                    f"`{WEIGHTS}`, {settings['clips']} clips a row, labels without guidance, "
                    f"seed {settings['seed']}, "
                    f"{found['hardware']}; in brackets 95 % intervals over clips. Distances are on this project's "
                    "own encoder, to "
                    f"{max(REFERENCE, settings['clips'])} real clips. Times for few steps: t = 1, then Karras' with "
                    "ρ = 3 from σ/α = 10 to 0.2. "
                    f"Command: `{found['command']}`."
                ),
            ]
        )
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure finished cells anew")
    parser.add_argument("--rows", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS), help="only these")
    parser.add_argument("--keep", type=Path, default=Path("runs/few-calls"), help="where clips are kept")
    devices.bf16_argument(parser)
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    settings = {"weights": pretrained.card(WEIGHTS)["sha256"], "clips": args.clips, "seed": args.seed}
    path = RESULTS / "few_calls.json"
    finished = resumed(path, settings, args.again)
    names = [name for name in (REAL, *SAMPLERS) if name in (REAL, *args.rows) or name in finished]
    for cells in fill(names, finished, lambda name: cell(name, args, device)):
        if not cells:
            continue
        found = {
            "settings": settings,
            "ratios": ratios(cells, REFERENCE_ROW),
            "verdict": verdict(ratios(cells, REFERENCE_ROW)),
            "command": f"python benchmarks/few_calls.py{devices.changed(parser, args, but=('keep', 'again', 'rows'))}",
            "hardware": "; ".join(sorted({made["hardware"] for made in cells.values()})),
            "cells": cells,
        }
        write_atomic(path, as_json(found).encode())
        path.with_suffix(".md").write_text(markdown(found))
        print(f"{len(cells)} of {len(names)} rows; last {list(cells)[-1]}", flush=True)


if __name__ == "__main__":
    main()
