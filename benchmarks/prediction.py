"""10 given frames, 10 predicted: the protocol of Moving-MNIST on clips that the shipped weights know the making of.

    python benchmarks/prediction.py [--weights moving-mnist-32] [--clips 32] [--steps 8] [--seed 0]

One digit of the test pool at the weights' own speed and size: the same protocol as the literature's tables, not the
same numbers. Reconstruction guidance in one block that observes frames 4 to 9 and makes 10 to 19. Rows: the last frame
copied; samples without labels and with the clip's own (w = 1), one and the average of two. Writes
benchmarks/results/prediction.json, which lesson 12 shows, and prediction.md.
"""

import argparse
import json
import math
from functools import partial
from pathlib import Path

import devices
import torch
from torch import Tensor
from tqdm import tqdm

from minivdm import tasks
from minivdm.core import samplers
from minivdm.data.atomic import write_json
from minivdm.measure import metrics, tracks
from minivdm.tasks import orders
from minivdm.training import monitor, pretrained

RESULTS = Path(__file__).parent / "results"


def summary(values: Tensor) -> dict:
    """Mean over clips and its 95 % interval from their spread. values: (b,)."""
    values = values.double()
    mean, half = float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))
    return {"mean": round(mean, 4), "interval": [round(mean - half, 4), round(mean + half, 4)]}


def judged(guess: Tensor, target: Tensor, labels: Tensor) -> dict:
    """The protocol's columns, and two more. guess, target (b, 1, 10, h, w)."""
    guess, pixels = guess.clamp(-1, 1), target.shape[-1] * target.shape[-2]
    right = (metrics.read(guess).logits.argmax(-1) == labels.argmax(-1)[:, None]).double().mean(1)
    return {
        "MSE": summary(metrics.squared_error(guess, target).mean(1) * pixels),
        "MAE": summary(metrics.absolute_error(guess, target).mean(1) * pixels),
        "SSIM": summary(metrics.ssim(guess, target).mean(1)),
        "PSNR": summary(metrics.psnr(guess, target).clamp(max=99).mean(1)),
        "frames read right": summary(right),
        "rigidity": summary(tracks.rigidity(guess)),
    }


def measure(name: str, clips: int, steps: int, seed: int, device: torch.device) -> dict:
    """All rows, as (row -> column -> mean and interval)."""
    denoiser, size = pretrained.load(name, device), devices.batch(device) // 2
    data = denoiser.config.make_data(20, split="test").clips(torch.arange(clips))
    target = data.video[:, :, 10:]
    rows = {"last frame copied": data.video[:, :, 9:10].expand_as(target)}
    for row, weight in (("without labels", None), ("with its label, w = 1", 1.0)):
        generator, parts = torch.Generator().manual_seed(seed), []
        for start in tqdm(range(0, clips, size), desc=row):
            part = slice(start, start + size)
            video = data.video[part, :, :10].repeat(2, 1, 1, 1, 1).to(device)  # two samples of each
            given = {} if weight is None else {"labels": data.labels[part].repeat(2, 1).to(device), "weight": weight}
            made = tasks.extend(
                denoiser,
                video,
                20,
                **given,
                reconstruction_weight=2.0,
                steps=steps,
                order=partial(orders.autoregressive, overlap=6),
                step=partial(samplers.ancestral_step, gamma=0.1),
                generator=generator,
            )
            parts.append(made[:, :, 10:].unflatten(0, (2, -1)).clamp(-1, 1).cpu())
        samples = torch.cat(parts, 1)
        rows[f"one, {row}"], rows[f"mean of 2, {row}"] = samples[0], samples.mean(0)
    return {row: judged(guess, target, data.labels) for row, guess in rows.items()}


def table(found: dict) -> str:
    """The rows in Markdown."""
    columns = list(next(iter(found["rows"].values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row, cells in found["rows"].items():
        shown = [f"{c['mean']:.3g} ({c['interval'][0]:.3g} to {c['interval'][1]:.3g})" for c in cells.values()]
        lines.append(f"| {row} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + f"\n\n{found['settings']}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="moving-mnist-32")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    rows = measure(args.weights, args.clips, args.steps, args.seed, device)
    settings = (
        f"{args.weights}, {args.clips} clips, {args.steps} ancestral steps, seed {args.seed}, "
        f"{monitor.hardware(device)}; in brackets 95 % intervals over clips. Command: "
        f"python benchmarks/prediction.py --weights {args.weights} --clips {args.clips} --steps {args.steps} "
        f"--seed {args.seed}{devices.words(device)}"
    )
    found = {"settings": settings, "rows": rows}
    write_json(RESULTS / "prediction.json", found)
    (RESULTS / "prediction.md").write_text(table(found), encoding="utf-8")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
