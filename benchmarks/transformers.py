"""The transformer of lesson 17: small races in the directions of W.A.L.T's tables, and one longer training.

    python benchmarks/transformers.py races [--clips 2400] [--seeds 3]
    python benchmarks/transformers.py train [--minutes 11] [--width 128] [--depth 6]
    python benchmarks/transformers.py judge [--clips 64] [--steps 32] [--w 0 1 3]

Clips are 8 frames of 32x32 with one digit at half the canonical speed, read as patches of 2x4x4 pixels: a grid of
4x8x8 tokens, about that of W.A.L.T's latents (5x8x8 here, where the tokenizer makes them). In a race all arms see the
same clips in the same order, and are compared on the same test clips at the same times and noise, seed by seed.
Writes benchmarks/results/transformers.json, a row as soon as it is done, and with `train` minivdm/weights/walt-32.
On a GPU: --device cuda, and more of everything.
"""

import argparse
import copy
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import devices
import torch
from safetensors.torch import load, save
from torch import Tensor

from minivdm.core import CosineSchedule, Denoiser
from minivdm.data import MovingMNIST
from minivdm.data.atomic import write_atomic, write_json
from minivdm.measure.metrics import legible, read
from minivdm.measure.obedience import wilson
from minivdm.networks.window_transformer import Transformer, WindowTransformer
from minivdm.systems import walt
from minivdm.training import monitor
from minivdm.training.muon import Muon, split

RESULTS = Path(__file__).parent / "results" / "transformers.json"
WEIGHTS = Path(__file__).parents[1] / "minivdm" / "weights" / "walt-32.safetensors"
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


def train(args: argparse.Namespace, device: torch.device) -> None:
    """One training of that many CPU minutes; its average ships in half precision."""
    torch.manual_seed(0)
    net = network("full", args.width, args.depth, embedding=args.width, self_conditioning=True, frames_known=True)
    model = Denoiser(net.to(device), CosineSchedule(-12, 12, shift=-1.0), bounds=(-1.0, 1.0))
    average, data = copy.deepcopy(model).requires_grad_(False), clips("train", device)
    made, generator = optimizers(net, 3e-3), torch.Generator().manual_seed(0)
    clock, rows, i = time.process_time, [], 0
    began, wall, total, recent = clock(), time.time(), 60 * args.minutes, []
    while (spent := clock() - began) < total:
        found = data.clips(torch.arange(i * 32, (i + 1) * 32))
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            loss = walt.loss(model, found.video, found.labels, prediction=0.25, self_conditioning=0.5,
                             given=(2, 4), generator=generator).mean  # fmt: skip
        loss.backward()
        share = spent / total
        step(made, net, 3e-3 * min(1, (i + 1) / 20) * min(1.0, max(0.02, 2 * (1 - share))))
        for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1 - min(0.998, (1 + i) / (10 + i)))
        recent.append(loss.item())
        i += 1
        if i % 50 == 0:
            rows.append({"clips": i * 32, "minutes": round((clock() - began) / 60, 2),
                         "loss": round(sum(recent) / len(recent), 4)})  # fmt: skip
            print(rows[-1], f"wall {(time.time() - wall) / 60:.1f}", flush=True)
            recent = []
            write_weights(average, rows, args, i * 32, device)
    write_weights(average, rows, args, i * 32, device)


def write_weights(average: Denoiser, rows: list, args: argparse.Namespace, seen: int, device: torch.device) -> None:
    """The weights in half precision, and their card."""
    data = save({name: value.half().cpu().contiguous() for name, value in average.network.state_dict().items()})
    write_atomic(args.weights, data)
    card = {"name": "walt-32", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "precision": "float16",
            "command": f"python benchmarks/transformers.py train --minutes {args.minutes:g} --width {args.width} "
                       f"--depth {args.depth}{' --bf16' if args.bf16 else ''}{devices.words(device)}",
            "network": average.network.config, "clips": seen, "hardware": monitor.hardware(device),
            "shape": list(SHAPE), "shift": -1.0, "training": rows[-1:] and rows}  # fmt: skip
    write_json(args.weights.with_suffix(".json"), card)


def judge(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Shares of clips that are legible, and show the digit that was asked for, in every frame; true clips beside."""
    model = read_weights(args.weights).to(device)
    labels = torch.eye(10, device=device)[torch.arange(args.clips, device=device) % 10]
    true = clips("test", device).clips(torch.arange(args.clips))
    rows = {"true clips": shares(true.video, true.labels)}
    for w in args.w:
        parts = [walt.sampled(model, (len(some), *SHAPE), {"labels": some}, w, args.steps,
                              torch.Generator().manual_seed(k)).clamp(-1, 1)
                 for k, some in enumerate(labels.split(16))]  # fmt: skip
        rows[f"w = {w:g}"] = shares(torch.cat(parts), labels)
        print(f"w = {w:g}", rows[f"w = {w:g}"])
    return rows


def read_weights(path: Path) -> Denoiser:
    """The trained model of a file and the card beside it."""
    card = json.loads(path.with_suffix(".json").read_text())
    config = card["network"]
    net = Transformer(**config)
    net.load_state_dict({name: value.float() for name, value in load(path.read_bytes()).items()})
    return Denoiser(net.eval().requires_grad_(False), CosineSchedule(-12, 12, card["shift"]), bounds=(-1.0, 1.0))


def shares(videos: Tensor, labels: Tensor) -> dict[str, list]:
    """Clips, hits and Wilson's interval of each measure."""
    found = {
        "legible": legible(videos, labels),
        "right in every frame": (read(videos).frames == labels[:, None].bool()).all(-1).all(-1),
    }
    out = {}
    for name, rows in found.items():
        share = wilson(int(rows.sum()), len(rows))
        out[name] = [share.hits, share.count, round(share.low, 4), round(share.high, 4)]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("races", "train", "judge"))
    parser.add_argument("--clips", type=int, default=0, help="of a race, or to judge")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=11)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--w", type=float, nargs="*", default=[0, 1, 3])
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    if args.what == "train":
        train(args, device)
        return
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    found.setdefault("hardware", monitor.hardware(device))
    if args.what == "judge":
        args.clips = args.clips or 64
        found["judged"] = judge(args, device)
        write_json(args.out, found)
        return
    args.clips = args.clips or 2400
    found["races"] = {"clips": args.clips, "arms": {}}
    for seed in range(args.seeds):
        for name in arms():
            row = race(name, args.clips, seed, device)
            found["races"]["arms"].setdefault(name, []).append(row)
            print(seed, name, sum(row["loss"]) / len(row["loss"]), row["seconds a clip"], flush=True)
            write_json(args.out, found)


if __name__ == "__main__":
    main()
