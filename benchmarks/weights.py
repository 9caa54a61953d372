"""Measure shipped weights: are the requested digits there, do they stay themselves, do they move straight and whole?

    python benchmarks/weights.py [--weights moving-mnist-32] [--clips 256] [--steps 32] [--seed 0] [--row "w = 1"]
    python benchmarks/weights.py --clips 1024 --device cuda
    python benchmarks/weights.py --times few --steps 24 --row "w = 1, w_f = 0.75"      (as `sample` does it)

Generates clips without labels, and with every digit asked for equally often at guidance w = 0, 1 and 2, and some of it
with guidance towards frames that belong together (w_f) and away from the same network earlier in its training (w_a, at
log-SNR above -3), and reads them with the digit reader of `minivdm.measure`; real
test clips go through the same reader as the yardstick. Each finished row is written at once, as JSON and as a table of
the README, to benchmarks/results/weights.* (`make tables` copies it), or weights_few.* for --times few, which also go
into the weights' card; --row measures one row alone, anew. Other weights than the first have files of their own
(weights_NAME...).

Where clips may have more than one digit, the digits of the test clips are asked for, and what supposes a single shape
is left out: rigidity, the distance from straight motion, and every frame by itself, in which two digits may overlap.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import devices
import torch
from torch import Tensor
from tqdm import tqdm

from minivdm import tasks
from minivdm.api import AUTOGUIDANCE, AUTOGUIDED, TEMPORAL_WEIGHT
from minivdm.core import samplers, time_grids
from minivdm.data.atomic import write_json
from minivdm.measure import metrics, tracks
from minivdm.measure.obedience import wilson
from minivdm.training import Recipe, exports, monitor, pretrained

RESULTS = Path(__file__).parent / "results"
REAL = "real test clips"
FIRST = "moving-mnist-32"
TIMES: dict[str, time_grids.Grid] = {"even": time_grids.uniform_in_t, "few": time_grids.for_few_steps}
#: What a table says below itself, of clips of one digit and of several.
ONE = (
    ", in the last column quartiles of the legible clips (digits drawn at whole pixels leave 0.4 px by themselves). "
    "Without labels a clip is held against what it is read as. Rigidity is the share of the ink that changes between "
    "neighbouring frames after the best shift: 0 for a shape that is carried along."
)
SEVERAL = (
    ". The digits asked for are those of the test clips; two that cross hide each other, from the reader too: compare "
    "with the first row. Without labels a clip is held against what it is read as."
)
FREE = f"without labels, w_f = {TEMPORAL_WEIGHT:g}"


class Row(NamedTuple):
    """How clips are made. weight: of the guidance towards labels, None without any; frames: towards frames that belong
    together; auto: away from the same network earlier in its training, as `sample --unconditional` has it."""

    weight: float | None
    frames: float = 0.0
    auto: float = 0.0
    step: samplers.Step = samplers.ddim_step


ROWS: dict[str, Row] = {
    "without labels": Row(None),
    FREE: Row(None, TEMPORAL_WEIGHT),
    f"{FREE}, ancestral": Row(None, TEMPORAL_WEIGHT, step=samplers.ancestral_step),
    f"{FREE}, w_a = {AUTOGUIDANCE:g}, ancestral": Row(None, TEMPORAL_WEIGHT, AUTOGUIDANCE, samplers.ancestral_step),
    "w = 0": Row(0.0),
    "w = 1": Row(1.0),
    "w = 2": Row(2.0),
    f"w = 1, w_f = {TEMPORAL_WEIGHT:g}": Row(1.0, TEMPORAL_WEIGHT),
}


def interval(share: float, n: int) -> list[float]:
    """Wilson's 95 % interval of a share seen in n draws (`obedience.wilson`), as it is written down."""
    found = wilson(round(share * n), n)
    return [round(found.low, 4), round(found.high, 4)]


def quartiles(values: Tensor) -> dict:
    """Median and quartiles."""
    low, middle, high = torch.quantile(values.double(), torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
    return {"median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}


def judged(videos: Tensor, labels: Tensor | None, most: int = 1) -> dict:
    """What is measured of clips (b, 1, f, h, w) in [-1, 1]; distances from straight motion of legible clips alone.

    labels: (b, 10), what was asked for, or None: then a clip is held against what it is read as.
    most: how many digits a clip may have.
    """
    reading = metrics.read(videos)
    some = (reading.clip.sum(-1) >= 1) & (reading.clip.sum(-1) <= most)
    legible = some if labels is None else metrics.legible(videos, labels)
    flags = {"legible": legible, "windows": metrics.keeps_identity(videos) & legible}
    if most == 1:
        flags["every_frame"] = metrics.same_in_every_frame(videos, labels) & some
    out: dict = {"clips": len(videos)}
    if labels is None:
        out["digits"] = reading.clip[some].sum(0).tolist()  # how often each of them is read
    for name, flag in flags.items():
        share = flag.double().mean().item()
        out[name] = {"share": round(share, 4), "interval": interval(share, len(videos))}
    if most > 1:
        return out
    rigidity = tracks.rigidity(videos).double()
    spread = 1.96 * float(rigidity.std()) / math.sqrt(len(videos))
    mean = float(rigidity.mean())
    out["rigidity"] = {"mean": round(mean, 4), "interval": [round(mean - spread, 4), round(mean + spread, 4)]}
    if legible.any():
        out["track_deviation_px"] = quartiles(tracks.track_deviation(videos[legible]))
    return out


def generated(
    name: str, row: str, labels: Tensor, steps: int, seed: int, device: torch.device, grid: time_grids.Grid
) -> tuple[Tensor, Tensor | None]:
    """Clips (b, 1, f, h, w) clamped to [-1, 1], and those of the labels (b, 10) that were asked for."""
    denoiser, how = pretrained.load(name, device), ROWS[row]
    earlier = pretrained.weaker(denoiser) if how.auto else None  # `main` asks for it where it ships
    more: dict[str, Any] = {} if earlier is None else {"weaker": (earlier, how.auto, AUTOGUIDED)}
    generator, parts, size = torch.Generator().manual_seed(seed), [], devices.batch(device)
    for start in tqdm(range(0, len(labels), size), desc=row):
        asked = labels[start : start + size].to(device)
        given = {"count": len(asked)} if how.weight is None else {"labels": asked, "weight": how.weight}
        with torch.autocast(device.type, torch.bfloat16):  # as in training
            videos = tasks.generate(
                denoiser, **given, **more, temporal_weight=how.frames, steps=steps, step=how.step, grid=grid,
                generator=generator,
            )  # fmt: skip
        parts.append(videos.float().clamp(-1, 1).cpu())
    return torch.cat(parts), None if how.weight is None else labels


def table(name: str, figures: dict) -> str:
    """The figures as the README shows them."""

    def share(entry: dict | None) -> str:
        if not entry:
            return ""
        low, high = entry["interval"]
        return f"{100 * entry['share']:.1f} % ({100 * low:.0f}–{100 * high:.0f})"

    def number(entry: dict | None, spread: str, value: str) -> str:
        return f"{entry[value]:.2f} ({entry[spread][0]:.2f}–{entry[spread][1]:.2f})" if entry else ""

    several = all("rigidity" not in entry for entry in figures["rows"].values())
    columns = ["exactly the requested digits" if several else "one digit, the requested one"]
    columns += ["the same in windows of 5 frames"]
    columns += [] if several else [
        "right in every single frame", "rigidity", "distance from straight motion, px"
    ]  # fmt: skip
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for row, entry in figures["rows"].items():
        cells = [share(entry.get(key)) for key in ("legible", "windows", "every_frame")]
        cells += [number(entry.get("rigidity"), "interval", "mean")]
        cells += [number(entry.get("track_deviation_px"), "quartiles", "median")]
        lines.append(f"| {row} | {' | '.join(cells[: len(columns)])} |")
    count = next(iter(figures["rows"].values()))["clips"]
    about = f"`{name}`, {count} clips a row, {figures['sampler']}, seed {figures['seed']}; in brackets 95 % intervals"
    about += SEVERAL if several else ONE
    return "\n".join(lines) + f"\n\n{about} Command: `{figures['command']}`.\n"


def write(name: str, figures: dict, times: str) -> None:
    """JSON and table, with the rows in their order; and the card, for the times at which `sample` takes its steps."""
    order = [REAL, *ROWS]
    figures["rows"] = dict(sorted(figures["rows"].items(), key=lambda item: order.index(item[0])))
    if times == "few":
        exports.annotate(name, figures)
    write_json(results(name, times), figures)
    results(name, times).with_suffix(".md").write_text(table(name, figures), encoding="utf-8")


def results(name: str, times: str) -> Path:
    """Where the figures of these weights lie, with steps at these times."""
    of = [] if name == FIRST else [name]
    return RESULTS / f"{'_'.join(['weights', *of, *([] if times == 'even' else [times])])}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=FIRST)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--row", choices=[REAL, *ROWS], help="measure this row alone")
    parser.add_argument("--times", choices=list(TIMES), default="even", help="of the steps")
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    command = (
        f"python benchmarks/weights.py --weights {args.weights} --clips {args.clips} --steps {args.steps} "
        f"--seed {args.seed}{devices.words(device)}"
    ) + ("" if args.times == "even" else f" --times {args.times}")
    sampler = f"DDIM, {args.steps} steps{', times for few' if args.times == 'few' else ''}, bf16"
    settings = {"command": command, "sampler": sampler, "seed": args.seed}
    card = pretrained.card(args.weights)
    hardware = monitor.hardware(device)
    figures = {**settings, "sha256": card["sha256"], "hardware": hardware, "rows": {}}
    data = Recipe.from_dict(card["config"]).make_data(split="test")
    real, most = data.clips(torch.arange(args.clips)), data.digits_range[1]
    labels = torch.eye(10)[torch.arange(args.clips) % 10] if most == 1 else real.labels
    early = f"{args.weights}{pretrained.EARLY}" in pretrained.available()
    rows = [row for row in (REAL, *ROWS) if early or row == REAL or not ROWS[row].auto]
    if args.row and args.row not in rows:
        parser.error(f"--row: {args.weights}{pretrained.EARLY} does not ship, so that there is no {args.row!r}")
    for row in [args.row] if args.row else rows:
        if row == REAL:  # clips of exactly this length and speed that the network has not seen
            found = judged(real.video, real.labels, most)
        else:
            made = generated(args.weights, row, labels, args.steps, args.seed, device, TIMES[args.times])
            found = judged(*made, most)
        path = results(args.weights, args.times)  # read again: two processes may share the rows between them
        kept = json.loads(path.read_text()) if path.exists() else {}
        same = kept.get("command") == command and kept.get("sha256") == card["sha256"]
        figures["rows"] = {**(kept["rows"] if same else {}), row: found}
        write(args.weights, figures, args.times)
    print(json.dumps(figures["rows"], indent=1))


if __name__ == "__main__":
    main()
