"""What each trick of the training loop buys, on a problem small enough to repeat: many short runs, several seeds each.

    python benchmarks/training_tricks.py                (four minutes of one idle core)
    python benchmarks/training_tricks.py --seeds 1 --clips 320 --dry
    python benchmarks/training_tricks.py --only "muon 0.064" "muon 0.128"   (these rows, beside those that are there)

A network of 30,000 parameters learns 8-frame clips of one digit on a 16 x 16 canvas with `minivdm.training.Trainer`,
the loop of the real training. Every variant differs from the base recipe in one thing and is given the same number
of frames, which is to say about the same arithmetic. Measured on the same held-out clips and noise for all: the mean
squared error of x_hat at several log-SNR, of the averaged weights and of the raw ones.

Writes benchmarks/results/training_tricks.json, which lesson 09 plots.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from throughput import processor
from torch import Tensor

from minivdm.core.schedules import Schedule
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.training import Trainer, monitor
from minivdm.training.recipe import Phase, Recipe
from minivdm.training.trainer import Draws

RESULTS = Path(__file__).resolve().parent / "results"
FRAMES, BATCH, HELD_OUT_CLIPS, LOOKS = 8, 8, 64, 5
NETWORK = {
    "width": 16,
    "multipliers": [1],
    "patch": 2,
    "labels": 10,
    "middle": 0,
    "spatial": [False],
    "temporal": [True],
    "head_channels": 16,
    "embedding": 32,
}
ENDLESS = 10**9


class IndependentTimes(Trainer):
    """The same loop with each clip's time drawn by itself, uniform on [0, 1]."""

    def draw(self, phase: Phase, shape: torch.Size) -> Draws:
        """As Trainer.draw, but for the times."""
        t, noise, keep = Trainer.draw(self, phase, shape)  # not super(): gradient_spread lends the method
        return Draws(independent_times(len(t), self.schedule, self.generator), noise, keep)


def independent_times(n: int, schedule: Schedule, generator: torch.Generator) -> Tensor:
    """n times uniform on [t_min, 1], float64."""
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    return schedule.t_min + (1 - schedule.t_min) * u


def base(clips: int, seed: int, changes: dict[str, Any]) -> Recipe:
    """The recipe of the shipped weights, scaled down: Muon, warm-up over a tenth, decay, clipping, averaging."""
    recipe = {
        "name": "training-tricks",
        "size": 16,
        "frames": FRAMES,
        "speed": 0.45,
        "network": NETWORK,
        "clips": clips,
        "batch": BATCH,
        "optimizer": "muon",
        "lr": 1.6e-2,
        "warmup": clips // 10,
        "ema_decay": 0.98,
        "seed": seed,
        "data_seed": seed,
        "log_every": ENDLESS,
        "save_every": ENDLESS,
        "preview_every": ENDLESS,
        "milestones": [],
    }
    return Recipe.from_dict({**recipe, **changes})


def curriculum(clips: int) -> dict[str, Any]:
    """Clips of 2, then 4, then 8 frames, with 11, 15 and 74 % of all frames: the shares of the real training."""
    frames = clips * FRAMES
    counts = [round(0.11 * frames / 2), round(0.15 * frames / 4), round(0.74 * frames / 8)]
    phases: list[list[int]] = []
    for share, (length, batch) in zip(counts, ((2, 4 * BATCH), (4, 2 * BATCH), (8, BATCH)), strict=True):
        phases.append([(phases[-1][0] if phases else 0) + share // batch * batch, length, batch])
    return {"frames": phases, "clips": phases[-1][0]}


def variants(clips: int) -> dict[str, tuple[type[Trainer], dict[str, Any]]]:
    """Name -> (trainer, what differs from the base)."""
    found: dict[str, tuple[type[Trainer], dict[str, Any]]] = {"base": (Trainer, {})}
    for optimizer, rates in (("muon", (4e-3, 8e-3, 3.2e-2, 6.4e-2, 0.128)), ("adamw", (4e-3, 8e-3, 1.6e-2, 3.2e-2))):
        found |= {f"{optimizer} {lr:g}": (Trainer, {"optimizer": optimizer, "lr": lr}) for lr in rates}
    # An image costs as much as a frame: with two per clip, as many frames are a fifth fewer clips.
    images = clips * FRAMES // (FRAMES + 2) // BATCH * BATCH
    return found | {
        "no warm-up": (Trainer, {"warmup": 0}),
        "no decay": (Trainer, {"lr_end": 1.0}),
        "no clipping": (Trainer, {"grad_clip": 1e9}),
        "no stratified times": (IndependentTimes, {}),
        "curriculum 2, 4, 8": (Trainer, curriculum(clips)),
        "two joint images": (Trainer, {"images": 2, "clips": images}),
    }


def errors(trainer: Trainer, data: MovingMNIST) -> dict[str, list[float | None]]:
    """Held-out error of x_hat by log-SNR, with averaged and with raw weights."""
    return {
        "ema": monitor.held_out(trainer.ema_denoiser, data, HELD_OUT_CLIPS)["x_error"],
        "raw": monitor.held_out(trainer.denoiser, data, HELD_OUT_CLIPS)["x_error"],
    }


def run(kind: type[Trainer], config: Recipe, data: MovingMNIST, looks: int) -> tuple[Trainer, dict[str, Any]]:
    """Train to the end; the errors at `looks` equally spaced moments, the last of them the end."""
    trainer, seconds, curve = kind(config), 0.0, []
    for k in range(1, looks + 1):
        began = time.process_time()
        while trainer.clips < config.clips * k // looks:
            trainer.step()
        seconds += time.process_time() - began
        curve.append({"clips": trainer.clips, **trainer.tally.read(trainer.world), **errors(trainer, data)})
    keep = ("clips", "loss", "grad_norm", "ema", "raw")
    return trainer, {
        "cpu_seconds": round(seconds, 2),
        "steps": trainer.steps,
        "curve": [{key: row[key] for key in keep} for row in curve],
    }


def gradient_spread(trainer: Trainer, draws: int) -> dict[str, dict[str, float]]:
    """At fixed weights: standard deviation of a batch's loss, and of its gradient, root of the summed variances.

    The same clips and noise for both ways of drawing times.
    """
    phase, found = trainer.config.phases()[-1], {}
    for name, kind in (("stratified", Trainer), ("independent", IndependentTimes)):
        losses, total, squares = [], torch.zeros(0), 0.0
        for k in range(draws):
            trainer.clips = k * phase.batch
            trainer.generator.manual_seed(k)
            video, conditions, _ = trainer.batch(phase)
            labels = conditions["labels"]
            t, noise, keep = kind.draw(trainer, phase, video.shape)  # type: ignore[arg-type]
            loss = trainer.denoiser.loss(video, labels=labels * keep[0, :, None], label_drop=0.0, t=t, noise=noise)
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean, trainer.params)]).double()
            total = gradient if k == 0 else total + gradient
            squares += float(gradient.square().sum())
            losses.append(float(loss.mean.detach()))
        variance = (squares - float(total.square().sum()) / draws) / (draws - 1)
        found[name] = {
            "loss_mean": round(float(torch.tensor(losses).mean()), 5),
            "loss_std": round(float(torch.tensor(losses).std()), 5),
            "gradient_norm_of_mean": round(float(total.norm()) / draws, 5),
            "gradient_std": round(variance**0.5, 5),
        }
    return found


def measure(seeds: int, clips: int, draws: int) -> Iterator[dict[str, Any]]:
    """All variants, seed after seed; yields what is known after each seed."""
    data = MovingMNIST(16, FRAMES, 1, 0.45, split="test", seed=1_000)
    found: dict[str, Any] = {
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__.split("+")[0],
        },
        "held_out": {"clips": HELD_OUT_CLIPS, "log_snr": list(monitor.HELD_OUT_LOG_SNR)},
        "base": base(clips, 0, {}).to_dict(),
        "times": {"draws": draws},
        "variants": {name: {"changes": changes, "runs": []} for name, (_, changes) in variants(clips).items()},
    }
    for seed in range(seeds):
        for name, (kind, changes) in variants(clips).items():
            looks = LOOKS if name in ("base", "no decay") else 1
            trainer, row = run(kind, base(clips, seed, changes), data, looks)
            found["variants"][name]["runs"].append({"seed": seed, **row})
            print(f"{name:20} seed {seed}: {row['curve'][-1]['ema']}  {row['cpu_seconds']:.1f} s", flush=True)
            if name == "base" and seed == 0:
                found["times"] |= gradient_spread(trainer, draws)
        done = {
            "command": f"python benchmarks/training_tricks.py --seeds {seed + 1} --clips {clips} --draws {draws}",
            "seeds": seed + 1,
        }
        yield done | found


def more(names: list[str], found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those variants, for the clips and seeds of what was found before; yields it with each row more."""
    clips, data = found["base"]["clips"], MovingMNIST(16, FRAMES, 1, 0.45, split="test", seed=1_000)
    known = variants(clips)
    if unknown := set(names) - known.keys():
        raise SystemExit(f"--only: expected names of {sorted(known)}, got {sorted(unknown)}")
    for name in names:
        kind, changes = known[name]
        found["variants"][name] = {"changes": changes, "runs": []}
        for seed in range(found["seeds"]):
            _, row = run(kind, base(clips, seed, changes), data, 1)
            found["variants"][name]["runs"].append({"seed": seed, **row})
            print(f"{name:20} seed {seed}: {row['curve'][-1]['ema']}  {row['cpu_seconds']:.1f} s", flush=True)
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=1_280, help="of a run without curriculum and images")
    parser.add_argument("--draws", type=int, default=128, help="batches on which the spread of gradients is measured")
    parser.add_argument("--only", nargs="+", default=[], help="variants to measure anew, with the rest as it is")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    args = parser.parse_args()
    if args.seeds < 1 or args.clips < 160 or args.draws < 2:
        parser.error("--seeds takes a number from 1, --clips from 160, --draws from 2")
    torch.set_num_threads(1)
    file = RESULTS / "training_tricks.json"
    kept = json.loads(file.read_text()) if args.only else {}
    for found in more(args.only, kept) if args.only else measure(args.seeds, args.clips, args.draws):
        if not args.dry:
            RESULTS.mkdir(exist_ok=True)
            file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
