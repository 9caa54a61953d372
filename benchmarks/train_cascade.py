"""Trains the stages of the cascade of lesson 14, each for a share of processor time.

    python benchmarks/train_cascade.py base|tsr|ssr|tsr-plain|ssr-plain|single [--seconds N] [--out FOLDER]

base makes 8 frames of 16x16, tsr 16 of 16x16 of those, ssr 16 of 32x32; the plain ones learn without noise-conditioning
augmentation, in the same time; single makes 16 of 32x32 from labels, in the time of base, tsr and ssr together. One
thread. The time is that of the process, so that what else runs does not count; the number of steps is in the card.
Writes NAME.safetensors (half precision) and NAME.json.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from minivdm.core import CosineSchedule, Denoiser
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.networks import UNet3D
from minivdm.systems import imagen_video
from minivdm.training import muon

SECONDS = {"base": 180, "tsr": 90, "ssr": 180, "tsr-plain": 90, "ssr-plain": 180, "single": 450}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=SECONDS)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=16, help="of a clip: a few are enough for ssr, and cheaper")
    parser.add_argument("--out", type=Path, default=Path("runs/cascade"))
    args = parser.parse_args()
    budget = args.seconds or SECONDS[args.stage]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind, plain = args.stage.split("-")[0], args.stage.endswith("plain")
    network = UNet3D(**imagen_video.NETWORKS[kind])
    denoiser = Denoiser(network, CosineSchedule(), "v", bounds=(-1, 1))
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    hidden, rest = muon.split(network)
    optimizers = [torch.optim.AdamW(rest, lr=2e-3, betas=(0.9, 0.99)), muon.Muon(hidden, lr=2e-3)]
    data, dice = MovingMNIST(speed=0.9, frames=args.frames), torch.Generator().manual_seed(1)
    begun, step, losses = time.process_time(), 0, []
    while (spent := (time.process_time() - begun) / budget) < 1:
        clips = data.clips(range(step * args.batch, (step + 1) * args.batch))
        every, space = {"base": (2, 2), "tsr": (1, 2)}.get(kind, (1, 1))
        x = imagen_video.shrunk(clips.video, every, space)
        named: dict[str, Any] = {"labels": clips.labels, "label_drop": 0.2, "generator": dice}
        if kind in ("tsr", "ssr"):
            low = imagen_video.shrunk(x, *{"tsr": (2, 1), "ssr": (1, 2)}[kind])
            loss = imagen_video.stage_loss(denoiser, x, low, augment=not plain, **named).mean
        else:
            loss = denoiser.loss(x, **named).mean
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * spent))
            optimizer.step()
            optimizer.zero_grad()
        rate = 1 - min(0.99, (1 + step) / (10 + step))
        for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(weight.detach(), rate)
        losses.append(loss.item())
        step += 1
        if step % 50 == 0:
            print(f"{args.stage} step {step}, {spent:.0%}: loss {sum(losses[-50:]) / 50:.4f}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    halves = {name: value.half().contiguous() for name, value in average.network.state_dict().items()}
    save_file(halves, args.out / f"{args.stage}.safetensors")
    card = {
        "stage": args.stage, "network": imagen_video.NETWORKS[kind], "seconds": budget, "steps": step,
        "batch": args.batch, "frames": args.frames, "loss": sum(losses[-50:]) / len(losses[-50:]),
    }  # fmt: skip
    (args.out / f"{args.stage}.json").write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
