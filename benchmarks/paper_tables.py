"""Tables 6, 5 and 3 of "Video Diffusion Models" (Ho et al. 2022), at Moving-MNIST's scale, with the shipped weights.

    python benchmarks/paper_tables.py                       (all three: about two hours of one core)
    python benchmarks/paper_tables.py 6 --clips 96 --steps 16 --seed 0
    python benchmarks/paper_tables.py --clips 256 --device cuda
    OMP_NUM_THREADS=1 python benchmarks/paper_tables.py --bf16     (in little more than half of the time)

Table 6: extension of real clips from 16 to 64 frames, by replacement and by reconstruction guidance of several w_r,
with the clips' labels and classifier-free guidance, as in the paper.
Table 5: the guidance weight w (w = 0 is unguided; the paper counts from 1) against fidelity and diversity.
Table 3: prediction 6 -> 10 frames by reconstruction guidance, ancestral and with Langevin correctors, at equal numbers
of network calls. Table 4, images joined to clips, takes training runs of its own: benchmarks/joint_training.py.

Distances are those of `minivdm.measure.frechet`, on its own small encoder: neither FID nor FVD. They are too large for
small sets, equally in all rows of a table, because all have equally many clips. Intervals are 95 % bootstrap
intervals over clips, about a fixed reference; row i of a bootstrap is the same draw of clips in every cell, so that
differences are paired. Each finished cell is written to benchmarks/results/paper_N.json at once and not computed
again (--again does); benchmarks/results/paper_N.md is what the README shows.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import devices
import torch
from bootstrap import DRAWS, Cells, Metric, averaged, compare, verdict
from clip_metrics import REAL, REFERENCE, REFERENCE_FROM, WEIGHTS, distance, diversity, reader_score, track, windows
from finished import RESULTS, as_json, fill, resumed
from table_text import markdown
from torch import Tensor

from minivdm import tasks
from minivdm.core import Frames, samplers
from minivdm.data.atomic import write_atomic
from minivdm.measure import metrics
from minivdm.measure.frechet import features
from minivdm.measure.seams import block_seam
from minivdm.training import monitor, pretrained

CLIPS, STEPS = {6: 96, 5: 48, 3: 24}, 16
CALLS, GUIDANCE, RECONSTRUCTION = (8, 32, 128), (0.0, 0.5, 1.0, 2.0, 4.0), (2.0, 5.0)
OVERLAP, PREDICT_FROM, DELTA = 8, 6, 0.1
EXTENSION_WEIGHT = 1.0  # of classifier-free guidance in table 6; the paper's caption counts it from 1 and says 2
CLAIM = {
    6: "reconstruction beats replacement",
    5: "guidance trades fidelity to the data and diversity for legibility",
    3: "Langevin-corrected sampling beats ancestral",
}


class Table:
    """One table: its cells by name, how each makes its videos, and how these are measured."""

    def __init__(self, number: int, clips: int, steps: int, seed: int, device: torch.device, bf16: bool) -> None:
        self.device, self.number, self.n, self.steps, self.seed, self.bf16 = device, number, clips, steps, seed, bf16
        self.denoise = pretrained.load(WEIGHTS, device)
        data = self.denoise.config.make_data(frames=64 if number == 6 else None, split="test")
        self.real, self.reference = (
            data.clips(torch.arange(clips)),
            data.clips(torch.arange(REFERENCE_FROM, REFERENCE_FROM + REFERENCE)).video,
        )
        self.labels = torch.eye(10)[torch.arange(clips) % 10] if number == 5 else self.real.labels
        self.sampler = {
            6: f"w = {EXTENSION_WEIGHT:g}, ancestral, {steps} steps a block, overlap {OVERLAP}",
            5: f"DDIM, {steps} steps",
            3: f"reconstruction guidance with w_r = 2, Langevin δ = {DELTA}",
        }[number]

    def jobs(self) -> dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]]:
        """Cell -> (real videos, labels, generator) -> videos, of a batch."""
        jobs: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {REAL: lambda real, labels, g: real}
        if self.number == 6:
            jobs["replacement"] = partial(self.extended, method="replacement")
            for w in RECONSTRUCTION:
                jobs[f"reconstruction, w_r = {w:g}"] = partial(self.extended, reconstruction_weight=w)
        elif self.number == 5:
            for w in GUIDANCE:
                jobs[f"w = {w:g}"] = partial(self.guided, weight=w)
        else:
            for calls in CALLS:
                jobs[f"ancestral, {calls} calls"] = partial(self.predicted, steps=calls)
                half = (calls + 1) // 2  # a corrector at every level but the last: 2 steps - 1 calls
                langevin = partial(samplers.langevin_step, delta=DELTA)
                jobs[f"Langevin, {2 * half - 1} calls"] = partial(self.predicted, steps=half, corrector=langevin)
        return jobs

    def extended(self, real: Tensor, labels: Tensor, generator: torch.Generator, **how: Any) -> Tensor:
        """16 real frames and 48 new ones."""
        order = partial(tasks.autoregressive, overlap=OVERLAP)
        return tasks.extend(
            self.denoise,
            real[:, :, :16],
            64,
            order=order,
            labels=labels,
            weight=EXTENSION_WEIGHT,
            steps=self.steps,
            step=samplers.ancestral_step,
            generator=generator,
            **how,
        )

    def guided(self, real: Tensor, labels: Tensor, generator: torch.Generator, weight: float) -> Tensor:
        """Clips from labels alone."""
        return tasks.generate(self.denoise, labels, weight=weight, steps=self.steps, generator=generator)

    def predicted(self, real: Tensor, labels: Tensor, generator: torch.Generator, **how: Any) -> Tensor:
        """6 real frames and 10 new ones."""
        return tasks.restore(
            self.denoise,
            [(Frames(range(PREDICT_FROM)), real[:, :, :PREDICT_FROM])],
            labels=labels,
            step=samplers.ancestral_step,
            generator=generator,
            **how,
        )

    def measure(self, videos: Tensor) -> dict[str, Metric]:
        """All metrics of the table's clips."""
        start = {6: 16, 5: 0, 3: PREDICT_FROM}[self.number]  # the frames before are given
        new, reference = videos[:, :, start:], self.reference[:, :, start:]
        found = {"frames": distance(features(new)[0], features(reference)[0])}
        if self.number == 3:  # whole clips: does the future belong to the past?
            found["clips"] = distance(windows(videos), windows(self.reference))
            found["psnr"] = averaged(metrics.psnr(new, self.real.video[:, :, start:]).clamp(max=99).mean(1))
            found["seam"] = averaged(block_seam(videos, [start]))
            return found
        found["clips"] = distance(windows(new), windows(reference))
        if self.number == 6:
            found["seam"] = averaged(block_seam(videos, range(start, 64, 16 - OVERLAP)))
        else:
            found["score"] = reader_score(videos)
        labels = self.real.labels if torch.equal(videos, self.real.video) else self.labels
        found["legible"] = averaged(metrics.legible(new, labels).float(), "share")
        if self.number == 5:
            return found | {"diversity": diversity(videos, labels)}
        return found | {"identity": averaged(metrics.keeps_identity(videos).float(), "share"), "track": track(videos)}

    def cell(self, name: str) -> dict[str, Any]:
        """Make the videos of a cell and measure them."""
        make, generator, parts, began = self.jobs()[name], torch.Generator().manual_seed(self.seed), [], time.time()
        cpu, size = time.process_time(), devices.batch(self.device)
        for start in range(0, self.n, size):
            rows = slice(start, start + size)
            real, labels = (whole[rows].to(self.device) for whole in (self.real.video, self.labels))
            with devices.half(self.device, self.bf16):
                parts.append(make(real, labels, generator).float().clamp(-1, 1).cpu())
        seconds = {"seconds": round(time.time() - began, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
        return seconds | {"hardware": monitor.hardware(self.device), "metrics": self.measure(torch.cat(parts))}


def comparisons(number: int, cells: Cells) -> list[dict[str, Any]]:
    """The differences in which the paper's direction would show, as far as their cells are measured."""
    made = [name for name in cells if name != REAL]
    asked: list[tuple[str, str, str, int]] = []
    if number == 6:
        asked = [
            (metric, "replacement", name, 1)
            for name in made
            if name != "replacement"
            for metric in ("frames", "clips", "seam")
        ]
    elif number == 5 and len(made) > 1:
        asked = [
            (metric, made[-1], made[0], sign)
            for metric, sign in (("frames", 1), ("clips", 1), ("score", 1), ("legible", 1), ("diversity", -1))
        ]
    elif number == 3:
        pairs = [(f"ancestral, {calls} calls", f"Langevin, {(calls + 1) // 2 * 2 - 1} calls") for calls in CALLS]
        pairs += [(pairs[k + 1][0], pairs[k][1]) for k in range(len(pairs) - 1)]  # with fewer calls, as in the paper
        asked = [(metric, a, b, sign) for a, b in pairs for metric, sign in (("frames", 1), ("clips", 1), ("psnr", -1))]
    rows = [compare(cells, metric, more, less, sign) for metric, more, less, sign in asked]
    return [row for row in rows if row is not None]


def run(number: int, clips: int, steps: int, seed: int, device: torch.device, bf16: bool, again: bool) -> None:
    precision = devices.precision(device, bf16)
    settings = {"weights": pretrained.card(WEIGHTS)["sha256"], "clips": clips, "steps": steps, "seed": seed}
    settings |= {"precision": precision}
    path = RESULTS / f"paper_{number}.json"
    finished = resumed(path, settings, again)
    table = Table(number, clips, steps, seed, device, bf16)
    names = list(table.jobs())
    for cells in fill(names, finished, table.cell):
        rows = comparisons(number, cells)
        about = f"`{WEIGHTS}`, {clips} clips a row, {table.sampler}, {precision}, seed {seed}, "
        found = {
            "table": number,
            "settings": settings,
            "about": about,
            "names": names,
            "command": f"python benchmarks/paper_tables.py {number} --clips {clips} --steps {steps} --seed {seed}"
            + (" --bf16" if bf16 else "")
            + devices.words(device),
            "hardware": "; ".join(sorted({cell["hardware"] for cell in cells.values()})),
            "bootstrap": {"draws": DRAWS, "seed": 0},
            "verdict": verdict(CLAIM[number], rows),
            "comparisons": rows,
            "cells": cells,
        }
        if cells:
            write_atomic(path, as_json(found).encode())
            path.with_suffix(".md").write_text(markdown(found))
            print(f"table {number}: {len(cells)} of {len(names)} cells; last {list(cells)[-1]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", type=int, help="6, 5 or 3; by default all")
    parser.add_argument("--clips", type=int, help=f"a row; by default {CLIPS}")
    parser.add_argument("--steps", type=int, default=STEPS, help="of tables 6 and 5; table 3 has its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure finished cells anew")
    devices.bf16_argument(parser)
    devices.argument(parser)
    args = parser.parse_args()
    if not set(args.tables) <= set(CLIPS):
        parser.error(f"tables: expected 6, 5 or 3, got {args.tables}")
    if (args.clips is not None and args.clips < 2) or args.steps < 1:
        parser.error("--clips takes a number from 2, --steps from 1")
    device = devices.chosen(args)
    for number in args.tables or (6, 5, 3):
        run(number, args.clips or CLIPS[number], args.steps, args.seed, device, args.bf16, args.again)


if __name__ == "__main__":
    main()
