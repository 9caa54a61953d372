"""Small races of transformers on pixels, in four of the directions of W.A.L.T's tables: minutes of one core.

    python benchmarks/transformer_races.py [--clips 640] [--seeds 3]

Clips are 8 frames of 32x32 with one digit at half the canonical speed, read as patches of 2x4x4 pixels: a grid of
4x8x8 tokens. In a race all arms see the same clips in the same order, and are compared on the same test clips at the
same times and noise, seed by seed. Writes benchmarks/results/transformer_races.json, a row as soon as it is done.
`benchmarks/transformers.py` does it with latents, and asks samples as well.
"""

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any

import devices
import torch

from minivdm.core import CosineSchedule, Denoiser
from minivdm.data import MovingMNIST
from minivdm.data.atomic import write_json
from minivdm.networks.window_transformer import Transformer, WindowTransformer
from minivdm.systems import walt
from minivdm.training import monitor
from minivdm.training.muon import Muon, split

RESULTS = Path(__file__).parent / "results" / "transformer_races.json"
SHAPE, PATCH = (1, 8, 32, 32), (2, 4, 4)


def clips(split: str, device: torch.device) -> MovingMNIST:
    """One digit, half the canonical speed."""
    return MovingMNIST(32, SHAPE[1], speed=0.9, split=split, device=device)


def network(kind: str = "windows", width: int = 96, depth: int = 4, **more: Any) -> Transformer:
    """A transformer over these clips; windows of one frame's 8x8 tokens, and of all frames' 4x4."""
    common = {"patch": PATCH, "embedding": 96, "modulation": "lora", **more}
    if kind == "full":
        return Transformer(1, width, depth, **common)
    side = SHAPE[2] // common["patch"][1]
    halves = (SHAPE[1] // common["patch"][0], min(4, side), min(4, side))
    return WindowTransformer(1, width, depth, spatial=(side, side), temporal=halves, **common)


def matched_rank() -> tuple[dict[str, Any], dict[str, Any]]:
    """AdaLN-LoRA, and separate AdaLN in narrower blocks with as many parameters, within 3 %."""
    count = lambda net: sum(p.numel() for p in net.parameters())  # noqa: E731
    wanted = count(network(width=96))
    narrow = min((8 * k for k in range(6, 13)), key=lambda w: abs(count(network(width=w, modulation="separate",
                 head_channels=w // 2)) - wanted))  # fmt: skip
    return {"head_channels": 48}, {"width": narrow, "modulation": "separate", "head_channels": narrow // 2}


def arms() -> dict[str, tuple[dict[str, Any], dict[str, float]]]:
    """Name -> arguments of the network, and of the loss."""
    lora, separate = matched_rank()
    return {
        "windows": ({}, {}),
        "full attention": ({"kind": "full"}, {}),
        "patch 2x8x8": ({"patch": (2, 8, 8)}, {}),
        "self-conditioning 0.5": ({"self_conditioning": True}, {"self_conditioning": 0.5}),
        "two heads, AdaLN-LoRA": (lora, {}),
        "two heads, separate AdaLN": (separate, {}),
    }


def optimizers(net: torch.nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the rest."""
    hidden, rest = split(net)
    return [Muon(hidden, lr=lr), torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.01)]


def step(made: list[torch.optim.Optimizer], net: torch.nn.Module, lr: float) -> None:
    """One update at that learning rate."""
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    for optimizer in made:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def held_out(model: Denoiser, count: int, device: torch.device) -> dict[str, list[float]]:
    """v-loss of each test clip, times and noise fixed; with its own estimate as well, if the network takes one."""
    x = clips("test", device)
    found: dict[str, list[float]] = {"loss": [], "loss with estimate": []}
    taken = bool(getattr(model.network, "config", {})["self_conditioning"])
    for start in range(0, count, 32):
        batch = x.clips(torch.arange(start, start + 32))
        for name, share in (("loss", 0.0), *((("loss with estimate", 1.0),) if taken else ())):
            generator = torch.Generator().manual_seed(start)
            rows = walt.loss(model, batch.video, batch.labels, self_conditioning=share, label_drop=0.0,
                             generator=generator)  # fmt: skip
            found[name] += rows.per_sample.tolist()
    return {name: values for name, values in found.items() if values}


def race(name: str, clips_seen: int, seed: int, device: torch.device, batch: int = 16, lr: float = 3e-3) -> dict:
    """Train one arm; its loss on 128 test clips and CPU (or GPU wall) seconds a clip."""
    how, shares = arms()[name]
    torch.manual_seed(seed)
    model = Denoiser(network(**how).to(device), CosineSchedule(-12, 12), bounds=(-1.0, 1.0))
    average, data = copy.deepcopy(model).requires_grad_(False), clips("train", device)
    made, generator = optimizers(model.network, lr), torch.Generator().manual_seed(seed)
    steps, clock = clips_seen // batch, time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    for i in range(steps):
        found = data.clips(torch.arange(i * batch, (i + 1) * batch) + seed * 1_000_000)
        part: dict[str, Any] = {"self_conditioning": 0.0, **shares}
        walt.loss(model, found.video, found.labels, generator=generator, **part).mean.backward()
        step(made, model.network, lr * min(1, (i + 1) / 10) * 0.5 * (1 + math.cos(math.pi * i / steps)))
        for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1 - min(0.98, (1 + i) / (10 + i)))
    seconds = (clock() - began) / (steps * batch)
    return {"seconds a clip": round(seconds, 5), "parameters": sum(p.numel() for p in model.network.parameters()),
            **{k: [round(v, 5) for v in values] for k, values in held_out(average, 128, device).items()}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=640, help="of a race")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    command = f"python benchmarks/transformer_races.py --clips {args.clips} --seeds {args.seeds}{devices.words(device)}"
    found: dict[str, Any] = {"command": command, "hardware": monitor.hardware(device), "clips": args.clips, "arms": {}}
    for seed in range(args.seeds):
        for name in arms():
            row = {"seed": seed, **race(name, args.clips, seed, device)}
            found["arms"].setdefault(name, []).append(row)
            print(seed, name, sum(row["loss"]) / len(row["loss"]), row["seconds a clip"], flush=True)
            write_json(args.out, found)


if __name__ == "__main__":
    main()
