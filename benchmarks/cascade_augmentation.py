"""What noise-conditioning augmentation does to a super-resolution stage that begins as the network that ships.

    python benchmarks/cascade_augmentation.py [--minutes 7] [--clips 40] [--steps 6] [--device cuda]

Two stages go on from moving-mnist-32 with the small clip beside, one with augmentation and one without, on the same
batches in turn: as many steps for both; the layers over time stay as they are. Then each enlarges small clips of three
kinds: the small selves of clips that moving-mnist-32 makes in 6 even steps, which are faulty as a base's are; true ones
of the test split; and these with white noise of variance 0.1. Writes benchmarks/results/cascade_augmentation.json.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import devices
import staged
import torch
from torch import Tensor

from minivdm import tasks
from minivdm.core import Denoiser, for_few_steps
from minivdm.data.atomic import write_json
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.measure import metrics, tracks
from minivdm.networks import UNet3D
from minivdm.systems.imagen_video import LOG_SNR, SHAPES, Stage, augmented, make_larger, resized, shrunk
from minivdm.training import checkpoints, monitor, pretrained

RESULTS = Path(__file__).parent / "results" / "cascade_augmentation.json"
WEIGHTS, SPEED = "moving-mnist-32", 0.9
LEVELS = (6.0, 4.0, 1.61, 0.0)


def begun(device: torch.device) -> Denoiser:
    """The network that ships, with a path for the small clip that is silent at first."""
    shipped = pretrained.load(WEIGHTS)
    config: Any = shipped.network.config
    network = UNet3D(**{**config, "low": 1})
    checkpoints.load_weights(network, dict(shipped.network.state_dict()), partly=True)  # type: ignore[union-attr]
    return Denoiser(network.to(device), shipped.schedule, "v", bounds=(-1, 1))


def trained(args: argparse.Namespace, device: torch.device) -> tuple[dict[str, Denoiser], dict[str, Any]]:
    """Both stages after so many minutes, and how many steps that was."""
    arms = {"augmented": begun(device), "plain": begun(device)}
    # The layers over time stay as they are, so that two frames are enough to learn from.
    steppers = {}
    for name, arm in arms.items():
        for key, p in arm.network.named_parameters():  # type: ignore[union-attr]
            p.requires_grad_(".temporal." not in key)
        path, others = (
            [p for key, p in arm.network.named_parameters() if key.startswith("low.") == new and p.requires_grad]  # type: ignore[union-attr]
            for new in (True, False)
        )
        steppers[name] = torch.optim.AdamW([{"params": path}, {"params": others}], betas=(0.9, 0.99), weight_decay=0.0)
    data = MovingMNIST(frames=2, speed=SPEED, device=device)
    start, step, seconds = time.monotonic(), 0, 60 * args.minutes
    torch.manual_seed(args.seed)
    losses: dict[str, list[float]] = {name: [] for name in arms}
    while (spent := (time.monotonic() - start) / seconds) < 1:
        clips = data.clips(torch.arange(step * args.batch, (step + 1) * args.batch, device=device))
        x, low = clips.video, resized(shrunk(clips.video, 1, 2), clips.video.shape[1:])
        given: dict[str, Any] = {**staged.noised(arms["plain"], x), "labels": staged.dropped(clips.labels, 0.15)}
        level = LOG_SNR[0] + (LOG_SNR[1] - LOG_SNR[0]) * torch.rand(args.batch, device=device)
        beside: dict[str, dict[str, Any]] = {
            "plain": {"low": low},
            "augmented": {"low": augmented(low, level), "low_log_snr": level},
        }
        for name, arm in arms.items():
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = arm.loss(**given, **beside[name], label_drop=0.0).mean
            loss.backward()
            torch.nn.utils.clip_grad_norm_(arm.parameters(), 1.0)
            for group, factor in zip(steppers[name].param_groups, (4, 1), strict=True):  # the new path learns faster
                group["lr"] = factor * args.lr * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * spent))
            steppers[name].step()
            steppers[name].zero_grad()
            losses[name].append(float(loss.detach()))
        step += 1
        if step % 25 == 0:
            print(
                step, f"{spent:.0%}", {name: round(sum(row[-25:]) / 25, 4) for name, row in losses.items()}, flush=True
            )
    last = {name: round(sum(row[-25:]) / max(1, len(row[-25:])), 4) for name, row in losses.items()}
    for arm in arms.values():
        arm.eval().requires_grad_(False)
    return arms, {"steps": step, "batch": args.batch, "frames": 2, "minutes": args.minutes, "last losses": last}


def small_clips(args: argparse.Namespace, device: torch.device) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Small clips of three kinds, the true large ones, and the labels."""
    true = MovingMNIST(split="test", speed=SPEED, device=device).clips(torch.arange(args.clips, device=device))
    low = shrunk(true.video, 1, 2)
    dice = torch.Generator().manual_seed(9)
    base: Any = pretrained.load(WEIGHTS, device)
    made = tasks.generate(base, true.labels, weight=1.0, steps=6, generator=dice).clamp(-1, 1)
    noisy = low + 0.1**0.5 * torch.randn(low.shape, generator=dice).to(device)
    return {"true": low, "noisy": noisy, "made": shrunk(made, 1, 2)}, true.video, true.labels


def judged(large: Tensor, labels: Tensor, truth: Tensor | None) -> dict[str, Any]:
    """Figures with their 95 % intervals; the squared error where there is a true large clip."""
    reading = metrics.read(large)
    row: dict[str, Any] = {
        "legible": staged.share(metrics.legible(large, labels, reading)),
        "right in every frame": staged.share(metrics.same_in_every_frame(large, labels, reading)),
        "rigidity": staged.mean(tracks.rigidity(large)),
    }
    if truth is not None:
        row["error"] = staged.mean((large - truth).square().flatten(1).mean(1))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=7.0, help="of training, both stages together")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--steps", type=int, default=6, help="of sampling")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    arms, length = trained(args, device)
    inputs, true, labels = small_clips(args, device)
    bilinear = resized(inputs["true"], SHAPES["ssr"])
    found: dict[str, Any] = {
        "about": {
            "clips": args.clips, "steps": args.steps, "training": length, "hardware": monitor.hardware(device),
            "command": f"python benchmarks/cascade_augmentation.py --minutes {args.minutes:g}{devices.words(device)}",
        },
        "rows": {
            "true, bilinear pixels": judged(bilinear, labels, true),
            "made, bilinear pixels": judged(resized(inputs["made"], SHAPES["ssr"]), labels, None),
            "true large clips": judged(true, labels, true),
        },
    }  # fmt: skip
    for kind in ("made", "true", "noisy"):
        for name, level in (("plain", None), *(("augmented", level) for level in LEVELS)):
            parts, dice = [], torch.Generator().manual_seed(3)
            for low, told in zip(inputs[kind].split(20), labels.split(20), strict=True):
                stage = Stage(arms[name], SHAPES["ssr"], name)
                how: dict[str, Any] = {
                    "steps": args.steps,
                    "grid": for_few_steps,
                    "guide": lambda one, other, times: one,
                }
                parts.append(make_larger(stage, low, told, low_log_snr=level, generator=dice, **how))
            key = f"{kind}, " + ("no augmentation" if level is None else f"log-SNR {level:g}")
            large = torch.cat(parts).clamp(-1, 1)
            found["rows"][key] = judged(large, labels, None if kind == "made" else true)
            print(key, found["rows"][key], flush=True)
            write_json(args.out, found)


if __name__ == "__main__":
    main()
