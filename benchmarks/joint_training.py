"""Table 4 of "Video Diffusion Models" (Ho et al. 2022), at Moving-MNIST's scale: images joined to clips in training.

    python benchmarks/joint_training.py                 (six training runs: an hour and a half of one core)
    python benchmarks/joint_training.py --clips 8000 --seeds 0 1

Trains the same network with 0, 4 and 8 independent images appended to every clip of 16 frames, with equally many steps,
the same clips, noise and first weights for the same seed, and measures clips that each of them makes. The network is
the shipped one at half its width, so that six runs fit into a morning. A run that was stopped goes on from its last
checkpoint in runs/joint_training, and a finished cell is not measured again (--again does).

Distances, intervals and what is written are those of benchmarks/clip_metrics.py, bootstrap.py and table_text.py.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from bootstrap import DRAWS, Cells, averaged, compare, verdict
from clip_metrics import REFERENCE, REFERENCE_FROM, distance, reader_score, windows
from finished import RESULTS, as_json, fill, resumed
from table_text import markdown

from minivdm import tasks, training
from minivdm.core.denoiser import Denoiser
from minivdm.data.atomic import write_atomic
from minivdm.measure import metrics
from minivdm.measure.frechet import features
from minivdm.training import monitor
from minivdm.training.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
IMAGES, FRAMES, BATCH, MADE, WEIGHT, STEPS = (0, 4, 8), 16, 8, 96, 1.0, 32
NETWORK = {"width": 16, "multipliers": [1, 2, 4], "patch": 2, "labels": 10, "head_channels": 16}
CLAIM = "images joined to clips make better clips"


def config(images: int, clips: int, seed: int) -> Recipe:
    """The recipe of one run."""
    return Recipe(
        name="joint-training",
        size=32,
        frames=FRAMES,
        speed=0.9,
        images=images,
        network=NETWORK,
        clips=clips,
        batch=BATCH,
        optimizer="muon",
        lr=2e-3,
        warmup=clips // 10,
        ema_decay=0.99,
        seed=seed,
        data_seed=seed,
        save_every=1_000,
        log_every=400,
        preview_every=10**9,
        milestones=(),
    )


def name_of(images: int, seed: int) -> str:
    return f"{images} images, seed {seed}"


def cell(name: str, clips: int) -> dict[str, Any]:
    """Train a run to its end, and measure what it makes."""
    images, seed = int(name.split()[0]), int(name.split()[-1])
    cfg, cpu = config(images, clips, seed), time.process_time()
    run, ending = training.fit(
        cfg, ROOT / "runs" / "joint_training" / f"{clips}-{images}-{seed}", resume=True, device="cpu", progress=False
    )
    if ending:
        raise SystemExit(128 + ending)  # asked to stop; the checkpoint is written
    trainer = run.trainer
    denoise: Denoiser = trainer.ema_denoiser
    labels = torch.eye(10)[torch.arange(MADE) % 10]
    generator = torch.Generator().manual_seed(0)
    made = torch.cat(
        [
            tasks.generate(denoise, part, shape=cfg.video_shape, weight=WEIGHT, steps=STEPS, generator=generator).clamp(
                -1, 1
            )
            for part in labels.split(BATCH)
        ]
    )
    held_out = monitor.held_out(denoise, cfg.make_data(split="test"), 64)
    return {
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "training_seconds": round(run.seconds, 1),
        "steps": trainer.steps,
        "hardware": monitor.hardware(torch.device("cpu")),
        "held_out": held_out,
        "metrics": measured(made, labels, cfg.make_data(split="test")),
    }


def measured(made: torch.Tensor, labels: torch.Tensor, data: Any) -> dict[str, Any]:
    reference = data.clips(torch.arange(REFERENCE_FROM, REFERENCE_FROM + REFERENCE)).video
    return {
        "frames": distance(features(made)[0], features(reference)[0]),
        "clips": distance(windows(made), windows(reference)),
        "score": reader_score(made),
        "legible": averaged(metrics.legible(made, labels).float(), "share"),
        "identity": averaged(metrics.keeps_identity(made).float(), "share"),
    }


def comparisons(cells: Cells, seeds: list[int]) -> list[dict[str, Any]]:
    """Without images against with them, seed by seed."""
    rows = []
    for seed in seeds:
        for images in IMAGES[1:]:
            none, some = name_of(0, seed), name_of(images, seed)
            rows += [
                compare(cells, metric, none, some, sign)
                for metric, sign in (("frames", 1), ("clips", 1), ("score", -1))
            ]
    return [row for row in rows if row is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8_000, help="clips a run is trained on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--again", action="store_true", help="measure finished cells anew")
    args = parser.parse_args()
    settings = {"training_clips": args.clips, "clips": MADE, "steps": STEPS, "seeds": args.seeds}
    path = RESULTS / "paper_4.json"
    finished = resumed(path, settings, args.again)
    names = [name_of(images, seed) for seed in args.seeds for images in IMAGES]
    command = f"python benchmarks/joint_training.py --clips {args.clips} --seeds {' '.join(map(str, args.seeds))}"
    for cells in fill(names, finished, lambda name: cell(name, args.clips)):
        if not cells:
            continue
        rows = comparisons(cells, args.seeds)
        cost = [
            sum(made["cpu_seconds"] for name, made in cells.items() if name.startswith(f"{images} images"))
            for images in IMAGES
        ]
        footer = (
            f"A network of {next(iter(cells.values()))['steps']:,} training steps with {BATCH} clips of {FRAMES} "
            f"frames each, `moving-mnist-32` at half its width; {MADE} clips a row, DDIM, {STEPS} steps, "
            f"w = {WEIGHT:g}. Images cost time as well: with 8 of them training and sampling took "
            f"{cost[2] / cost[0]:.2f} times as long as with none. The spread between training runs shows in the "
            "two seeds alone. "
        )
        found = {
            "table": 4,
            "settings": settings,
            "names": names,
            "command": command,
            "about": footer,
            "hardware": "; ".join(sorted({made["hardware"] for made in cells.values()})),
            "bootstrap": {"draws": DRAWS, "seed": 0},
            "verdict": verdict(CLAIM, rows),
            "comparisons": rows,
            "cells": cells,
        }
        write_atomic(path, as_json(found).encode())
        path.with_suffix(".md").write_text(markdown(found))
        print(f"table 4: {len(cells)} of {len(names)} cells; last {list(cells)[-1]}", flush=True)


if __name__ == "__main__":
    main()
