"""How good are few calls after distillation? Students against their teacher, in calls of the network and in quality.

    python benchmarks/distillation.py --clips 64            (first)
    python benchmarks/distillation.py --clips 1024          (goes on from there: about 19 hours of one core, of which
                                                             the two rows of 256 steps take 15)
    python benchmarks/distillation.py --clips 1024 --device cuda   (minutes)
    python benchmarks/distillation.py --clips 64 --rows few-8 "teacher, DDIM, 32 steps"

All rows start from the same noise and labels, each digit equally often. The teacher is guided by labels (w = 1) and
towards frames that belong together (w_f = 0.75): three evaluations of the network a step; the students have learnt that
and take one. Clips are kept in --keep in parts of 64, so that an interrupted row goes on where it stopped, and a
measurement of more clips takes over those that are there.

Distances, intervals and their pairing are those of benchmarks/clip_metrics.py and bootstrap.py. Ratios are to the
teacher's 256 DDIM steps, with the same bootstrap draw of clips in both. (What the students imitate is fewer: 32 steps,
as the first of them, few-16, learns two in each of its own.)
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import devices
import kept
import torch
from bootstrap import Cells, averaged, interval_of
from clip_metrics import REAL, REFERENCE, REFERENCE_FROM, WEIGHTS, distance, ratios, windows
from finished import RESULTS, OtherSettings, as_json, fill, resumed
from torch import Tensor

from minivdm import tasks
from minivdm.core import samplers, time_grids
from minivdm.data.atomic import write_atomic
from minivdm.measure import metrics, tracks
from minivdm.measure.frechet import features
from minivdm.systems import few_steps
from minivdm.training import monitor, pretrained

WEIGHT, TEMPORAL = 1.0, 0.75
LONGEST = "teacher, DDIM, 256 steps"


class Row(NamedTuple):
    """How the clips of a row are made. calls: evaluations of the network for a clip."""

    weights: str
    steps: int
    step: str
    calls: int
    grid: time_grids.Grid = time_grids.uniform_in_t


TEACHER = WEIGHTS
ROWS: dict[str, Row] = {
    **{f"few-{n}": Row(f"few-{n}", n, "ddim", n) for n in (16, 8, 4, 2, 1)},
    **{f"teacher, DDIM, {n} steps": Row(TEACHER, n, "ddim", 3 * n) for n in (8, 16, 32, 64, 256)},
    **{
        f"teacher, times for few, {n} steps": Row(TEACHER, n, "ddim", 3 * n, time_grids.for_few_steps)
        for n in (4, 8, 16)
    },
    "teacher, ancestral, 256 steps": Row(TEACHER, 256, "ancestral", 3 * 256),
}
STEPS = {"ddim": samplers.ddim_step, "ancestral": samplers.ancestral_step}


def found_in(name: str, runs: Path | None) -> Path | None:
    """Where weights lie: those that ship, else those that were made under `runs`; None where there are none."""
    try:
        return pretrained.find(name)
    except pretrained.UnknownWeights:
        made = None if runs is None else runs / name / "weights" / f"{name}.safetensors"
        return made if made is not None and made.exists() else None


def clips_of(name: str, count: int, seed: int, keep: Path, path: Path, device: torch.device) -> tuple[Tensor, float]:
    """The row's clips (count, 1, f, h, w) in [-1, 1], and the CPU seconds that one took."""
    digest = pretrained.card(path.stem, path.parent)["sha256"][:8]
    make = partial(made, ROWS[name], path, seed=seed, device=device)
    return kept.clips(keep, f"{name}-{digest}-{seed}", count, kept.part(device), make)


def made(row: Row, path: Path, start: int, *, seed: int, device: torch.device) -> tuple[Tensor, float]:
    """One part of a row's clips and the seconds that they took (of a CPU, its own), loading left out."""
    model, videos = pretrained.load(path, device), []
    began = devices.clock(device)
    for labels, generator in kept.batches(start, seed, device):
        with torch.autocast(device.type, torch.bfloat16):  # the precision of the training
            if few_steps.student_of(model) is not None:
                clips = few_steps.generate(model, labels, generator=generator)
            else:
                clips = tasks.generate(
                    model,
                    labels,
                    weight=WEIGHT,
                    temporal_weight=TEMPORAL,
                    steps=row.steps,
                    step=STEPS[row.step],
                    grid=row.grid,
                    generator=generator,
                )
        videos.append(clips.float())
    return torch.cat(videos).cpu(), devices.clock(device) - began


def measured(videos: Tensor, labels: Tensor, reference: Tensor) -> dict[str, Any]:
    """All metrics of a row."""
    one_digit = metrics.read(videos).clip.sum(-1) == 1
    every = metrics.same_in_every_frame(videos, labels) & one_digit
    return {
        "frames": distance(features(videos)[0], features(reference)[0]),
        "clips": distance(windows(videos), windows(reference)),
        "legible": averaged(metrics.legible(videos, labels).float(), "share"),
        "every_frame": averaged(every.float(), "share"),
        "rigidity": averaged(tracks.rigidity(videos)),
    }


def cell(name: str, count: int, seed: int, keep: Path, runs: Path | None, device: torch.device) -> dict[str, Any]:
    """A row's figures."""
    data = pretrained.load(TEACHER).config.make_data(split="test")
    reference = data.clips(torch.arange(REFERENCE_FROM, REFERENCE_FROM + max(REFERENCE, count))).video
    made_of: dict[str, Any] = {}
    if name == REAL:
        found = data.clips(torch.arange(count))
        videos, labels = found.video, found.labels
    else:
        path = found_in(ROWS[name].weights, runs)
        assert path is not None  # `main` asks for rows whose weights are there
        labels = torch.eye(10)[torch.arange(count) % 10]
        videos, seconds = clips_of(name, count, seed, keep, path, device)
        about = pretrained.card(path.stem, path.parent)
        made_of = {
            "weights": about["sha256"],
            "calls": ROWS[name].calls,
            "seconds_per_clip": round(seconds, 3),
        }
    return {
        **made_of,
        "hardware": monitor.hardware(device),
        "metrics": measured(videos, labels, reference),
    }


def verdict(rows: list[dict[str, Any]], name: str = "few-8") -> str:
    """Whether the student of 8 steps is within five per cent of 256 steps in both distances, and how sure that is."""
    own = {row["metric"]: row for row in rows if row["row"] == name}
    if len(own) < 2:
        return f"Not yet measured: {name} against {LONGEST}."
    said = ", ".join(f"{m} {r['ratio']:.2f} ({r['interval'][0]:.2f} to {r['interval'][1]:.2f})" for m, r in own.items())
    if all(row["interval"][1] <= 1.05 for row in own.values()):
        return f"{name} is at most 5 % above {LONGEST}, in both distances: ratios {said}."
    if any(row["interval"][0] > 1.05 for row in own.values()):
        return f"{name} is more than 5 % above {LONGEST}: ratios {said}."
    below = "below" if all(row["ratio"] <= 1.05 for row in own.values()) else "not both below"
    return f"{name} against {LONGEST}: ratios {said}; {below} 1.05, but so many clips do not decide it."


def markdown(found: dict[str, Any]) -> str:
    """The table as the README shows it."""
    by_row: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found["ratios"]:
        by_row.setdefault(row["row"], {})[row["metric"]] = row
    lines = [
        "| | evaluations a clip | seconds a clip | distance of frames | its ratio | distance of clips | its ratio "
        "| legible | right in every frame | rigidity |",
        "|---" * 10 + "|",
    ]
    for name, row in found["cells"].items():
        entries = [str(row.get("calls", "")), f"{row['seconds_per_clip']:.2f}" if "calls" in row else ""]
        for metric in ("frames", "clips"):
            low, high = interval_of(row["metrics"][metric])
            entries.append(f"{row['metrics'][metric]['estimate']:.2f} ({low:.2f} to {high:.2f})")
            ratio = by_row.get(name, {}).get(metric)
            shown = f"{ratio['ratio']:.2f} ({ratio['interval'][0]:.2f} to {ratio['interval'][1]:.2f})" if ratio else ""
            entries.append(shown)
        for metric in ("legible", "every_frame", "rigidity"):
            low, high = interval_of(row["metrics"][metric])
            entries.append(f"{row['metrics'][metric]['estimate']:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {name} | " + " | ".join(entries) + " |")
    settings = found["settings"]
    about = (
        f"{settings['clips']} clips a row from the same noise and labels, seed {settings['seed']}, "
        f"{found['hardware']}; the teacher is `{TEACHER}` with w = {WEIGHT:g} and w_f = {TEMPORAL:g}, three "
        "evaluations a step. In brackets 95 % intervals over clips, those of ratios paired. Distances are on this "
        "project's own encoder, to "
        f"{max(REFERENCE, settings['clips'])} real clips. Command: `{found['command']}`."
    )
    return "\n".join([*lines, "", found["verdict"], "", about]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64, help=f"a multiple of {kept.PART}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="only these")
    parser.add_argument("--runs", type=Path, help="where students lie that do not ship (see `recipes --make`)")
    parser.add_argument("--keep", type=Path, default=Path("runs/distillation"), help="where clips are kept")
    parser.add_argument("--again", action="store_true", help="measure finished rows anew")
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    if args.clips < kept.PART or args.clips % kept.PART:
        parser.error(f"--clips: expected a multiple of {kept.PART}, got {args.clips}")
    paths = {name: found_in(ROWS[name].weights, args.runs) for name in args.rows or ROWS}
    names = [REAL, *(name for name, path in paths.items() if path is not None)]
    for name in [name for name, path in paths.items() if path is None]:
        print(f"left out, as there are no weights of it: {name}")
    settings = {"teacher": pretrained.card(TEACHER)["sha256"], "clips": args.clips, "seed": args.seed}
    path = RESULTS / "distillation.json"
    try:
        finished = resumed(path, settings, args.again)
    except OtherSettings:
        finished = {}  # the clips themselves are kept; only figures are computed again
    current = {name: pretrained.card(p.stem, p.parent)["sha256"] for name, p in paths.items() if p is not None}
    finished = {
        name: row for name, row in finished.items() if current.get(name, row.get("weights")) == row.get("weights")
    }
    command = f"python benchmarks/distillation.py --clips {args.clips} --seed {args.seed}{devices.words(device)}"
    order = [name for name in (REAL, *ROWS) if name in names or name in finished]
    for cells in fill(order, finished, lambda name: cell(name, args.clips, args.seed, args.keep, args.runs, device)):
        if cells:
            write(path, cells, settings, command)


def write(path: Path, cells: Cells, settings: dict[str, Any], command: str) -> None:
    """The figures as JSON and as a table, after each row."""
    shown = {name: cells[name] for name in [REAL, *ROWS] if name in cells}
    found = {
        "settings": settings,
        "ratios": ratios(shown, LONGEST),
        "verdict": verdict(ratios(shown, LONGEST)),
        "command": command,
        "hardware": "; ".join(sorted({made["hardware"] for made in shown.values()})),
        "cells": shown,
    }
    write_atomic(path, as_json(found).encode())
    path.with_suffix(".md").write_text(markdown(found))
    print(f"{len(shown)} rows; last {list(cells)[-1]}", flush=True)


if __name__ == "__main__":
    main()
