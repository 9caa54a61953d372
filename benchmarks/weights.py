"""Measure shipped weights: are the requested digits there, do they stay themselves, do they move straight?

    python benchmarks/weights.py [--weights moving-mnist-32] [--clips 256] [--steps 32] [--seed 0]

Generates clips with every digit asked for equally often, at guidance w = 0 and w = 1, and reads them with the digit
reader of `minivdm.measure.metrics`; real test clips go through the same reader as the yardstick. Writes the figures
into the weights' card and benchmarks/results/weights.json, and the README's table to benchmarks/results/weights.md
(`make tables` copies it).
"""

import argparse
import json
import math
import os
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from minivdm import tasks
from minivdm.measure import metrics, tracks
from minivdm.data.atomic import write_json
from minivdm.training import checkpoints, monitor, pretrained

RESULTS = Path(__file__).parent / "results"
BATCH = 32


def interval(share: float, n: int, z: float = 1.96) -> list[float]:
    """Wilson's 95 % interval of a share seen in n draws: sensible at 0 and 1 too."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)]


def judged(videos: Tensor, labels: Tensor) -> dict:
    """Legibility, identity and track deviation of clips (b, 1, f, h, w) in [-1, 1]; the last one of legible clips."""
    legible, same = metrics.legible(videos, labels), metrics.keeps_identity(videos)
    out: dict = {"clips": len(videos)}
    for name, flags in (("legible", legible), ("keeps_identity", same), ("both", legible & same)):
        share = flags.float().mean().item()
        out[name] = {"share": round(share, 4), "interval": interval(share, len(videos))}
    if legible.any():
        deviation = tracks.track_deviation(videos[legible])
        low, middle, high = torch.quantile(deviation, torch.tensor([0.25, 0.5, 0.75], dtype=deviation.dtype)).tolist()
        out["track_deviation_px"] = {"median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
    return out


def measure(name: str, clips: int, steps: int, seed: int, weights: tuple[float, ...] = (0.0, 1.0)) -> dict:
    """The figures of the weights called `name`, as the card has them."""
    denoiser = pretrained.load(name)
    labels = torch.eye(10)[torch.arange(clips) % 10]
    # Clips of exactly this length and speed that the network has not seen.
    real = denoiser.config.make_data(frames=denoiser.shape[1], split="test").clips(torch.arange(clips))
    rows = {"real test clips": judged(real.video, real.labels)}
    for w in weights:
        generator, parts = torch.Generator().manual_seed(seed), []
        for start in tqdm(range(0, clips, BATCH), desc=f"w = {w:g}"):
            videos = tasks.generate(denoiser, labels[start : start + BATCH], weight=w, steps=steps, generator=generator)
            parts.append(videos.clamp(-1, 1))
        rows[f"generated, w = {w:g}"] = judged(torch.cat(parts), labels)
    command = f"python benchmarks/weights.py --weights {name} --clips {clips} --steps {steps} --seed {seed}"
    return {
        "command": command,
        "sampler": f"DDIM, {steps} steps",
        "seed": seed,
        "hardware": monitor.hardware(torch.device("cpu")),
        "rows": rows,
    }


def table(name: str, figures: dict) -> str:
    """The figures as the README shows them."""

    def share(entry: dict) -> str:
        low, high = entry["interval"]
        return f"{100 * entry['share']:.1f} % ({100 * low:.0f}–{100 * high:.0f})"

    lines = [
        "| | requested digit found | same digit in every frame | distance from straight motion, px |",
        "|---|---|---|---|",
    ]
    for row, entry in figures["rows"].items():
        track = entry.get("track_deviation_px")
        far = f"{track['median']:.2f} ({track['quartiles'][0]:.2f}–{track['quartiles'][1]:.2f})" if track else ""
        lines.append(f"| {row} | {share(entry['legible'])} | {share(entry['keeps_identity'])} | {far} |")
    count = next(iter(figures["rows"].values()))["clips"]
    return "\n".join(lines) + (
        f"\n\n`{name}`, {count} clips a row, {figures['sampler']}, seed {figures['seed']}; in brackets 95 % intervals, "
        f"in the last column quartiles of the legible clips. Digits drawn at whole pixels leave 0.4 px by themselves. "
        f"Command: `{figures['command']}`.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="moving-mnist-32")
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(os.cpu_count() or 1)
    figures = measure(args.weights, args.clips, args.steps, args.seed)
    path = pretrained.FOLDER / f"{args.weights}.json"
    write_json(path, checkpoints.sealed(pretrained.card(args.weights) | {"metrics": figures}))
    write_json(RESULTS / "weights.json", figures)
    (RESULTS / "weights.md").write_text(table(args.weights, figures))
    print(json.dumps(figures["rows"], indent=1))


if __name__ == "__main__":
    main()
