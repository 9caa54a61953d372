"""How good are a few network calls? Clips made with at most ten, against clips made with 256 ancestral steps.

    python benchmarks/few_calls.py                      (64 clips: half an hour of one core)
    python benchmarks/few_calls.py --clips 1024 --device cuda

All samplers start from the same noise and labels, without guidance, so that a step of a first-order sampler is one
call of the network. "Times for few steps" are `core.for_few_steps`: t = 1, then those of Karras et al. 2022, eq 5,
with rho = 3 from sigma / alpha = 10 to 0.2, three numbers that were chosen among six on other noise.

Distances, intervals, and how an interrupted measurement goes on, are those of benchmarks/clip_metrics.py, bootstrap.py
and finished.py. Ratios are to the ancestral row, with the same bootstrap draw of clips in both.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import argparse
import time
from collections.abc import Callable
from typing import Any

import devices
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


def cell(name: str, clips: int, seed: int, device: torch.device) -> dict[str, Any]:
    denoise, size = pretrained.load(WEIGHTS, device), devices.batch(device)
    data, cpu = denoise.config.make_data(split="test"), time.process_time()
    reference = data.clips(torch.arange(REFERENCE_FROM, REFERENCE_FROM + REFERENCE)).video
    if name == REAL:
        found = data.clips(torch.arange(clips))
        made, labels = found.video, found.labels
    else:
        labels = torch.eye(10)[torch.arange(clips) % 10]
        made = torch.cat(
            [
                generated(denoise, name, part.to(device), seed + start).cpu()
                for start, part in enumerate(labels.split(size))
            ]
        )
    return {
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "hardware": monitor.hardware(device),
        "metrics": {
            "frames": distance(features(made)[0], features(reference)[0]),
            "clips": distance(windows(made), windows(reference)),
            "legible": averaged(metrics.legible(made, labels).float(), "share"),
            "identity": averaged(metrics.keeps_identity(made).float(), "share"),
        },
    }


def generated(denoise: pretrained.TrainedDenoiser, name: str, labels: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)  # one noise for a batch, whatever the sampler draws after it
    # On a GPU as in training; on a CPU in float32, which is faster there.
    with torch.autocast(labels.device.type, torch.bfloat16, enabled=labels.is_cuda):
        made = tasks.generate(denoise, labels, generator=generator, **SAMPLERS[name]())
    return made.float().clamp(-1, 1)


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
                    f"{REFERENCE} real clips. Times for few steps: t = 1, then Karras' with ρ = 3 from "
                    "σ/α = 10 to 0.2. "
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
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    settings = {"weights": pretrained.card(WEIGHTS)["sha256"], "clips": args.clips, "seed": args.seed}
    path = RESULTS / "few_calls.json"
    names = [REAL, *SAMPLERS]
    finished = resumed(path, settings, args.again)
    for cells in fill(names, finished, lambda name: cell(name, args.clips, args.seed, device)):
        if not cells:
            continue
        found = {
            "settings": settings,
            "names": names,
            "ratios": ratios(cells, REFERENCE_ROW),
            "verdict": verdict(ratios(cells, REFERENCE_ROW)),
            "command": f"python benchmarks/few_calls.py --clips {args.clips} --seed {args.seed}{devices.words(device)}",
            "hardware": "; ".join(sorted({made["hardware"] for made in cells.values()})),
            "cells": cells,
        }
        write_atomic(path, as_json(found).encode())
        path.with_suffix(".md").write_text(markdown(found))
        print(f"{len(cells)} of {len(names)} rows; last {list(cells)[-1]}", flush=True)


if __name__ == "__main__":
    main()
