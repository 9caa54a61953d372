"""Tables 6, 5 and 3 of "Video Diffusion Models" (Ho et al. 2022), at Moving-MNIST's scale, with the shipped weights.

    python benchmarks/paper_tables.py                       (all three: about two hours of one core)
    python benchmarks/paper_tables.py 6 --clips 96 --steps 16 --seed 0
    python benchmarks/paper_tables.py --clips 256 --device cuda

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
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import devices
import torch
from torch import Tensor
from weights import interval as wilson

from minivdm import tasks
from minivdm.core import Frames, samplers
from minivdm.data.atomic import write_atomic
from minivdm.measure import metrics, tracks
from minivdm.measure.frechet import clip_features, features, frechet
from minivdm.measure.seams import block_seam
from minivdm.training import monitor, pretrained

RESULTS = Path(__file__).resolve().parent / "results"
WEIGHTS, DRAWS, REFERENCE = "moving-mnist-32", 400, 256
REFERENCE_FROM = 10_000  # index of the first reference clip, far from those that are continued
CLIPS, STEPS = {6: 96, 5: 48, 3: 24}, 16
CALLS, GUIDANCE, RECONSTRUCTION = (8, 32, 128), (0.0, 0.5, 1.0, 2.0, 4.0), (2.0, 5.0)
OVERLAP, PREDICT_FROM, DELTA = 8, 6, 0.1
EXTENSION_WEIGHT = 1.0  # of classifier-free guidance in table 6; the paper's caption counts it from 1 and says 2
REAL = "real test clips"
CLAIM = {
    6: "reconstruction beats replacement",
    5: "guidance trades fidelity to the data and diversity for legibility",
    3: "Langevin-corrected sampling beats ancestral",
}
# The metrics of each table: column title and decimals.
COLUMNS = {
    "frames": ("distance of frames", 2),
    "clips": ("distance of clips", 2),
    "seam": ("seam score", 2),
    "score": ("reader score", 2),
    "legible": ("legible", 2),
    "identity": ("same digit all along", 2),
    "diversity": ("diversity", 2),
    "track": ("off straight motion, px", 2),
    "psnr": ("PSNR, dB", 1),
}
MARKS = {"appears": "✓", "opposite": "✗", "open": "·"}

Metric = dict[str, Any]  # "estimate", and either "per_clip" and "of" (mean, median or share), or bootstrap "draws"
Cells = dict[str, dict[str, Any]]


# ---- bootstrap ---------------------------------------------------------------------------------------------------


def resamples(n: int, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Indices (draws, n) of n clips drawn with replacement, the same for the same n."""
    return torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))


def averaged(values: Tensor, of: str = "mean") -> Metric:
    """A metric that is the mean, median or share of one value per clip."""
    values = values.detach().double()
    estimate = values.median() if of == "median" else values.mean()
    return {"estimate": round(float(estimate), 5), "of": of, "per_clip": [round(v, 5) for v in values.tolist()]}


def pooled(statistic: Callable[[Tensor], float], n: int) -> Metric:
    """A metric of a whole set of n clips: a function of the indices (n,) of those that are in it."""
    draws = [float(f"{statistic(row):.5g}") for row in resamples(n)]
    return {"estimate": float(f"{statistic(torch.arange(n)):.5g}"), "draws": draws}


def bootstrapped(metric: Metric) -> Tensor:
    """The metric's value for every bootstrap draw of clips, (draws,).

    A drawn set has fewer different clips, which shifts a metric of whole sets: its draws are moved back, so that their
    mean is the estimate.
    """
    if "draws" in metric:
        draws = torch.tensor(metric["draws"], dtype=torch.float64)
        return draws - draws.mean() + metric["estimate"]
    values = torch.tensor(metric["per_clip"], dtype=torch.float64)
    drawn = values[resamples(len(values))]
    return drawn.median(1).values if metric["of"] == "median" else drawn.mean(1)


def bounds(draws: Tensor) -> list[float]:
    """The middle 95 %."""
    return [round(v, 4) for v in torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()]


def interval_of(metric: Metric) -> list[float]:
    """95 % interval; Wilson's for a share, where the bootstrap knows no uncertainty at 0 and 1."""
    if metric.get("of") == "share":
        return wilson(metric["estimate"], len(metric["per_clip"]))
    low, high = bounds(bootstrapped(metric))
    return [max(0.0, low), high]  # no metric here is negative, as a centred interval may be


def compare(cells: Cells, metric: str, more: str, less: str, sign: int = 1) -> dict[str, Any] | None:
    """`more` minus `less` in a metric, paired; sign: what the paper's direction would be. None where one is missing."""
    if more not in cells or less not in cells:
        return None
    a, b = cells[more]["metrics"][metric], cells[less]["metrics"][metric]
    low, high = bounds(bootstrapped(a) - bootstrapped(b))
    near, far = sorted((sign * low, sign * high))
    found = "appears" if near > 0 else "opposite" if far < 0 else "open"
    return {
        "metric": metric,
        "more": more,
        "less": less,
        "expected": "> 0" if sign > 0 else "< 0",
        "difference": round(a["estimate"] - b["estimate"], 4),
        "interval": [low, high],
        "direction": found,
    }


def verdict(claim: str, comparisons: list[dict[str, Any]]) -> str:
    """What the comparisons say about the paper's claim, in a sentence."""
    if not comparisons:
        return f"Whether {claim}, as in the paper, is not yet measured."

    n, counts = len(comparisons), dict.fromkeys(MARKS, 0)
    for row in comparisons:
        counts[row["direction"]] += 1
    where = f"in {'all' if counts['appears'] == n else counts['appears']} of {n} paired comparisons"
    text = f"The paper's direction, {claim}, appears beyond the 95 % interval {where}"
    text += f"; the opposite does in {counts['opposite']}" if counts["opposite"] else ""
    return text + (f"; undecided: {counts['open']}. {why(comparisons)}" if counts["open"] else ".")


def why(comparisons: list[dict[str, Any]]) -> str:
    """How many clips the undecided differences would take, were they and the spread over clips as found."""
    wide = [
        ((row["interval"][1] - row["interval"][0]) / 2 / max(abs(row["difference"]), 1e-9)) ** 2
        for row in comparisons
        if row["direction"] == "open"
    ]
    times = max(1.0, min(wide))  # intervals shrink as the root of the number of clips
    return (
        f"The undecided ones are small against the spread over clips: the nearest to a decision would take about "
        f"{times:.1f} times as many clips, were it as large as found."
        if times < 100
        else "The undecided ones are below a tenth of their intervals."
    )


# ---- what is measured --------------------------------------------------------------------------------------------


def distance(found: Tensor, reference: Tensor) -> Metric:
    """Fréchet distance of features (n, k, d), k of each clip, to those of the reference, (m, k, d)."""
    cloud = reference.flatten(0, 1).double()
    return pooled(lambda index: frechet(cloud, found[index].flatten(0, 1)), len(found))


def windows(videos: Tensor, size: int = 16) -> Tensor:
    """Clip features (n, k, 64) of the k windows of `size` frames, one after the other."""
    return torch.stack([clip_features(part) for part in videos.split(size, 2)], 1)


def track(videos: Tensor) -> Metric:
    """Median deviation from straight motion; a clip with an empty frame counts as off by the whole canvas."""
    return averaged(tracks.track_deviation(videos).clamp(max=videos.shape[-1]), "median")


def reader_score(videos: Tensor) -> Metric:
    """As `minivdm.measure.frechet.reader_score`, bootstrapped."""
    log_p = metrics.read(videos).logits.mean(1).double().log_softmax(-1)  # (n, 10)

    def score(index: Tensor) -> float:
        p = log_p[index].exp()
        return float((p * (log_p[index] - p.mean(0).log())).sum(-1).mean().exp())

    return pooled(score, len(videos))


def diversity(videos: Tensor, labels: Tensor) -> Metric:
    """Mean distance of each clip's features to those of the other clips of the same label."""
    far = torch.cdist(clip_features(videos), clip_features(videos))
    same = (labels @ labels.T > 0) & ~torch.eye(len(videos), dtype=torch.bool)
    return averaged((far * same).sum(1) / same.sum(1).clamp(min=1))


class Table:
    """One table: its cells by name, how each makes its videos, and how these are measured."""

    def __init__(self, number: int, clips: int, steps: int, seed: int, device: torch.device) -> None:
        self.device, self.number, self.n, self.steps, self.seed = device, number, clips, steps, seed
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
            parts.append(make(real, labels, generator).clamp(-1, 1).cpu())
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


# ---- files -------------------------------------------------------------------------------------------------------


class OtherSettings(ValueError):
    """Finished cells that were measured with other settings."""


def resumed(path: Path, settings: dict[str, Any], again: bool = False) -> Cells:
    """The finished cells of a results file. Raises OtherSettings where they do not belong to these settings."""
    if again or not path.exists():
        return {}
    found = json.loads(path.read_text())
    if found["settings"] != settings:
        raise OtherSettings(
            f"{path.name}: expected cells measured with {settings}, found {found['settings']}; "
            "--again measures them anew"
        )
    return found["cells"]


def fill(names: list[str], cells: Cells, cell: Callable[[str], dict[str, Any]]) -> Iterator[Cells]:
    """Measures the cells that are missing; yields all finished ones, in the table's order, after each."""
    yield cells
    for name in names:
        if name not in cells:
            cells[name] = cell(name)
            cells = {known: cells[known] for known in names if known in cells}
            yield cells


def as_json(found: dict[str, Any]) -> str:
    """JSON with one line per cell and comparison."""
    lines = []
    for key, value in found.items():
        text = json.dumps(value, ensure_ascii=False)
        if key == "cells":
            rows = [f"  {json.dumps(name)}: {json.dumps(cell, ensure_ascii=False)}" for name, cell in value.items()]
            text = "{\n" + ",\n".join(rows) + "\n }"
        elif key == "comparisons" and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in value) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def differences(comparisons: list[dict[str, Any]]) -> list[str]:
    """The comparisons as a table: a row per pair of cells, a column per metric."""
    columns = list(dict.fromkeys(row["metric"] for row in comparisons))
    pairs: dict[str, dict[str, str]] = {}
    for row in comparisons:
        low, high = row["interval"]
        text = f"{MARKS[row['direction']]} {row['difference']:.2f} ({low:.2f} to {high:.2f})"
        pairs.setdefault(f"{row['more']} − {row['less']}", {})[row["metric"]] = text
    if not pairs:
        return []
    expected = {row["metric"]: row["expected"] for row in comparisons}
    titles = " | ".join(f"{COLUMNS[c][0]} (paper: {expected[c]})" for c in columns)
    lines = ["", f"| paired difference | {titles} |", "|---" * (len(columns) + 1) + "|"]
    return (
        lines
        + [f"| {name} | " + " | ".join(pair[c] for c in columns) + " |" for name, pair in pairs.items()]
        + [
            "",
            ", ".join(
                f"{mark} {what}"
                for what, mark in zip(
                    ("as in the paper, beyond the interval", "the opposite, beyond the interval", "undecided"),
                    MARKS.values(),
                    strict=True,
                )
            )
            + ".",
        ]
    )


def markdown(found: dict[str, Any]) -> str:
    """The table as the README shows it."""
    cells, n = found["cells"], found["settings"]["clips"]
    columns = list(next(iter(cells.values()))["metrics"]) if cells else []

    def entry(column: str, metric: Metric) -> str:
        if column == "psnr" and metric["estimate"] >= 99:
            return ""
        digits = COLUMNS[column][1]
        low, high = interval_of(metric)
        high = min(high, 10.0) if column == "score" else high  # which it cannot exceed
        return f"{metric['estimate']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    lines = ["| | " + " | ".join(COLUMNS[c][0] for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, cell in cells.items():
        lines.append(f"| {name} | " + " | ".join(entry(c, cell["metrics"][c]) for c in columns) + " |")
    missing = [name for name in found["names"] if name not in cells]
    lines += ["", found["verdict"]]
    lines += differences(found["comparisons"])
    if missing:
        lines += ["", f"Not yet measured: {'; '.join(missing)}."]
    return "\n".join(lines) + (
        f"\n\n{found['about']}{found['hardware']}; in brackets 95 % intervals over clips. Distances are on this "
        f"project's own encoder, to {REFERENCE} real clips, and too large at {n} clips: compare rows. "
        f"Command: `{found['command']}`.\n"
    )


def run(number: int, clips: int, steps: int, seed: int, device: torch.device, again: bool) -> None:
    settings = {"weights": pretrained.card(WEIGHTS)["sha256"], "clips": clips, "steps": steps, "seed": seed}
    path = RESULTS / f"paper_{number}.json"
    finished = resumed(path, settings, again)
    table = Table(number, clips, steps, seed, device)
    names = list(table.jobs())
    for cells in fill(names, finished, table.cell):
        rows = comparisons(number, cells)
        about = f"`{WEIGHTS}`, {clips} clips a row, {table.sampler}, seed {seed}, "
        found = {
            "table": number,
            "settings": settings,
            "about": about,
            "names": names,
            "command": f"python benchmarks/paper_tables.py {number} --clips {clips} --steps {steps} --seed {seed}"
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
    devices.argument(parser)
    args = parser.parse_args()
    if not set(args.tables) <= set(CLIPS):
        parser.error(f"tables: expected 6, 5 or 3, got {args.tables}")
    if (args.clips is not None and args.clips < 2) or args.steps < 1:
        parser.error("--clips takes a number from 2, --steps from 1")
    device = devices.chosen(args)
    for number in args.tables or (6, 5, 3):
        run(number, args.clips or CLIPS[number], args.steps, args.seed, device, args.again)


if __name__ == "__main__":
    main()
