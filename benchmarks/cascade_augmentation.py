"""What noise-conditioning augmentation does to a super-resolution stage, on clips whose faults are known.

    python benchmarks/cascade_augmentation.py [--clips 64] [--steps 8] [--weights runs/cascade]

Both stages of benchmarks/train_cascade.py, ssr and ssr-plain, are given small test clips: true ones, and true ones with
white noise of variance 0.1. Mean squared error to the true large clip, for each clip; the same noise for all. Writes
benchmarks/results/cascade_augmentation.json, with 95 % intervals of paired differences (normal, over clips).
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from minivdm.core import CosineSchedule, Denoiser
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.networks import UNet3D
from minivdm.systems.imagen_video import SHAPES, Stage, make_larger, resized, shrunk

RESULTS = Path(__file__).parent / "results" / "cascade_augmentation.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--weights", type=Path, default=Path("runs/cascade"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = MovingMNIST(split="test", speed=0.9, frames=4).clips(range(args.clips))
    x, low = clips.video, shrunk(clips.video, 1, 2)
    noise = torch.randn(low.shape, generator=torch.Generator().manual_seed(9))
    inputs = {"true": low, "noisy": low + 0.1**0.5 * noise}
    errors, cards = {}, {}
    # What a stage has to beat before a comparison of two of them means anything.
    floors = {
        "empty": float((x + 1).square().mean()),
        "bilinear": float((resized(low, x.shape[1:]) - x).square().mean()),
    }
    print(floors, flush=True)
    for name, level in (("ssr-plain", None), ("ssr", 6.0), ("ssr", 1.61), ("ssr", 0.0)):
        card = cards[name] = json.loads((args.weights / f"{name}.json").read_text())
        network = UNet3D(**card["network"])
        network.load_state_dict({k: v.float() for k, v in load_file(args.weights / f"{name}.safetensors").items()})
        stage = Stage(Denoiser(network, CosineSchedule(), "v").eval(), SHAPES["ssr"], name)
        for kind, given in inputs.items():
            options = {"low_log_snr": level, "steps": args.steps, "generator": torch.Generator().manual_seed(3)}
            made = make_larger(stage, given, clips.labels, **options)
            key = f"{name}, log-SNR {level}, {kind}"
            errors[key] = (made - x).square().flatten(1).mean(1)
            print(f"{key}: {errors[key].mean():.4f}", flush=True)
    rows = {}
    for key, error in errors.items():
        gap = error - errors[f"ssr-plain, log-SNR None, {key.split(', ')[-1]}"]
        half = 1.96 * float(gap.std()) / len(gap) ** 0.5
        mean = float(gap.mean())
        rows[key] = {"error": float(error.mean()), "against plain": [mean, mean - half, mean + half]}
    found = {"clips": args.clips, "steps": args.steps, "floors": floors, "rows": rows, "cards": cards}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
