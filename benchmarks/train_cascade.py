"""Trains the cascade of lesson 14 and a single model in the same time, and measures what each of them makes.

    python benchmarks/train_cascade.py --device cuda --minutes 5 --out gpu-out
    python benchmarks/train_cascade.py --minutes 1.5 --judging 60 --batch 4 --clips 12 --steps 2      (a rehearsal)
    OMP_NUM_THREADS=1 python benchmarks/train_cascade.py --minutes 75 --judging 0 --bf16              (on one core)
    OMP_NUM_THREADS=1 python benchmarks/train_cascade.py --stages --minutes 40 --bf16 --clips 128     (judge those)

base makes 8 frames of 16x16 from a label, tsr 16 of 16x16 of those, ssr 16 of 32x32; ssr-plain learns without
noise-conditioning augmentation; single makes 16 of 32x32 from a label, trained as long as base, tsr and ssr together.
Minutes are those of `devices.clock` and hold for everything, a share of them for the measurement. Writes into --out:

- cascade-32.{safetensors,json}: the three stages in half precision with their card;
- cascade-arms.{safetensors,json}: ssr-plain and single;
- cascade.json: the figures that lesson 14 reads (they belong into benchmarks/results), and cascade.gif.

A stage whose weights are in --out already goes on from them; one that --stages does not name is judged as it is there.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import devices
import staged
import torch
from staged import dropped, noised
from torch import Tensor

from minivdm import tasks
from minivdm.core import CosineSchedule, Denoiser, for_few_steps
from minivdm.data import writing
from minivdm.data.atomic import write_json
from minivdm.data.moving_mnist import Clips, MovingMNIST
from minivdm.networks import UNet3D
from minivdm.systems.imagen_video import (
    LOG_SNR,
    NETWORKS,
    SHAPES,
    STAGES,
    Stage,
    augmented,
    cascade,
    make_larger,
    resized,
    shrunk,
)
from minivdm.training import checkpoints, monitor, stages

#: Parts of the training time. single has those of base, tsr and ssr.
PARTS = {"base": 2.0, "tsr": 1.2, "ssr": 1.8, "ssr-plain": 1.8, "single": 5.0}
#: Clips of a step; on a GPU eight times as many. More would be fewer steps in the same time.
BATCH = {"base": 16, "tsr": 16, "ssr": 8, "single": 8}
STRONG = 3.0  # a weight of guidance, beside --weight
SHIPPED, ARMS = "cascade-32", "cascade-arms"
SPEED = 0.9
LEVELS = (6.0, 1.61, 0.0, -2.0)  # log-SNR of the condition at sampling


def draw(kind: str, plain: bool, model: Denoiser, data: MovingMNIST, batch: int, eager: bool) -> staged.Draw:
    """What a step of a stage learns from."""
    clips = staged.recorded(lambda index: pair(data.clips(index)), device=data.device, eager=eager)
    every, space = {"base": (2, 2), "tsr": (1, 2)}.get(kind, (1, 1))

    def of(step: int) -> dict[str, Tensor]:
        video, labels = clips(step * batch, batch)
        x = shrunk(video, every, space)
        given = {**noised(model, x), "labels": dropped(labels, 0.15)}
        if kind in ("tsr", "ssr"):
            condition = resized(shrunk(x, *{"tsr": (2, 1), "ssr": (1, 2)}[kind]), x.shape[1:])
            if not plain:
                level = LOG_SNR[0] + (LOG_SNR[1] - LOG_SNR[0]) * torch.rand(batch, device=x.device)
                condition, given["low_log_snr"] = augmented(condition, level), level
            given["low"] = condition
        return given

    return of


def pair(clips: Clips) -> tuple[Tensor, Tensor]:
    return clips.video, clips.labels


def trained(args: argparse.Namespace, device: torch.device, seconds: float) -> tuple[dict[str, Denoiser], dict]:
    """All stages, one after the other; the files are written after each."""
    made: dict[str, Denoiser] = {}
    reports: dict[str, dict[str, Any]] = {}
    unit = seconds / max(1e-9, sum(PARTS[name] for name in args.stages))
    for number, name in enumerate(PARTS):
        kind, plain = name.split("-")[0], name.endswith("plain")
        torch.manual_seed(args.seed)
        network = UNet3D(**NETWORKS[kind])
        if network.low is not None:
            staged.open_low(network)
        file = args.out / f"{SHIPPED if name in STAGES else ARMS}.safetensors"
        before: dict[str, Any] = {}
        if not (args.anew and name in args.stages):
            try:
                there = stages.read(file, [name], "this script")[name]
                network.load_state_dict(there.tensors)
                before = there.about
            except stages.MissingStage:
                pass
        model = Denoiser(network.to(device), CosineSchedule(), "v", bounds=(-1, 1))
        if name not in args.stages:
            if before:
                made[name], reports[name] = model.eval().requires_grad_(False), before
            continue
        torch.manual_seed(args.seed + 1 + number)
        data = MovingMNIST(speed=SPEED, seed=args.seed + before.get("rounds", 0), device=device)
        batch = args.batch or BATCH[kind] * (1 if device.type == "cpu" else 8)
        source = draw(kind, plain, model, data, batch, args.eager)
        made[name], report = staged.train(name, model, source, PARTS[name] * unit, device, lr=args.lr, eager=args.eager,
                                           bf16=args.bf16)  # fmt: skip
        for key in ("steps", "clips", "seconds"):
            report[key] = round(report[key] + before.get(key, 0), 1)
        reports[name] = {**report, "batch": batch, "rounds": before.get("rounds", 0) + 1}
        save(args, device, made, reports)
    return made, reports


def save(args: argparse.Namespace, device: torch.device, made: dict[str, Denoiser], reports: dict) -> None:
    """The stages that ship, and the arms of the comparison."""
    about = {
        "what": "stages of the cascade of minivdm.systems.imagen_video",
        "command": args.command, "hardware": monitor.hardware(device),
        "data": f"one of the 4,500 MNIST training digits that ship, {SPEED} pixels a frame",
    }  # fmt: skip
    for file, names in ((SHIPPED, [n for n in made if n in STAGES]), (ARMS, [n for n in made if n not in STAGES])):
        if names:
            stages.write(
                args.out / file,
                {name: (made[name].network.config, made[name].network.state_dict()) for name in names},  # type: ignore
                {**about, "stages": {name: reports[name] for name in names}},
            )


def stage(made: dict[str, Denoiser], name: str) -> Stage:
    return Stage(made[name], SHAPES[name.split("-")[0]], name)


def in_parts(make: Callable[..., Tensor], seed: int, *given: Tensor) -> Tensor:
    """What `make` makes of rows of these tensors, as many at once as the device likes; one generator for all."""
    dice, size = torch.Generator().manual_seed(seed), devices.batch(given[0].device)
    rows = zip(*(tensor.split(size) for tensor in given), strict=True)
    return torch.cat([make(*part, generator=dice) for part in rows])


def measured(args: argparse.Namespace, device: torch.device, made: dict[str, Denoiser], until: float) -> dict:
    """Rows of figures, the most important ones first; none is begun after `until`."""
    k = torch.arange(args.clips)
    labels = torch.eye(10, device=device)[k % 10]
    test = MovingMNIST(split="test", speed=SPEED, device=device)
    true = test.clips(k.to(device))
    reference = test.clips(
        torch.arange(10_000, 10_000 + max(args.clips, 512 if device.type == "cuda" else 64), device=device)
    ).video
    how: dict[str, Any] = {"steps": args.steps, "weight": args.weight, "grid": for_few_steps}
    settings = {
        "clips": args.clips, "seed": args.seed, "levels": list(LEVELS),
        "sampler": f"DDIM, {args.steps} steps a stage, times for few steps, bf16, w = {args.weight:g} unless said",
        "weights": {file: checkpoints.read_sealed(args.out / f"{file}.json")["sha256"] for file in (SHIPPED, ARMS)
                    if (args.out / f"{file}.json").exists()},
    }  # fmt: skip
    path = args.out / "cascade.json"
    found = staged.measured_before(path, settings, ("rows", "from true clips"))
    found["about"] = {"hardware": monitor.hardware(device), "command": args.command}
    shown: list[Tensor] = []

    def of(make: Callable[..., Tensor], *given: Tensor) -> Callable[[], Tensor]:
        return partial(in_parts, make, args.seed, *given)

    def row(name: str, make: Callable[[], Tensor], kept: int = 0) -> None:
        if name in found["rows"]:
            return
        if devices.clock(device) > until:
            print(f"{name}: no time left", flush=True)
            return
        begun = devices.clock(device)
        with devices.half(device, args.bf16):
            videos = make().float().clamp(-1, 1)
        found["rows"][name] = staged.judged(videos, labels, reference)
        if kept:
            shown.append(videos[:kept].cpu())
        print(f"{name} ({devices.clock(device) - begun:.1f} s): {found['rows'][name]}", flush=True)
        write_json(path, found)

    found["rows"]["true clips"] = staged.judged(true.video, true.labels, reference)
    small: dict[str, Tensor] = {}
    if set(STAGES) <= made.keys():
        chain = [stage(made, name) for name in STAGES]
    for weight in (args.weight, STRONG):
        if set(STAGES) <= made.keys():
            run = partial(cascade, chain, **how | {"weight": weight})
            row(f"cascade, w = {weight:g}", of(lambda told, run=run, **dice: run(told, **dice)[-1], labels), 8)
        if "single" in made:
            make = partial(tasks.generate, made["single"], shape=SHAPES["single"], **how | {"weight": weight})
            row(f"single, w = {weight:g}", of(make, labels), 8)
    if not set(STAGES) <= made.keys():
        return found

    # The spatial stage alone: on true small clips, on the same with white noise, and on what base and tsr made.
    with devices.half(device, args.bf16):
        small["made"] = of(lambda told, **dice: cascade(chain[:2], told, **dice, **how)[-1], labels)().float()
    small["made"] = small["made"].clamp(-1, 1)
    small["true"] = shrunk(true.video, 1, 2)
    small["noisy"] = small["true"] + 0.1**0.5 * torch.randn(
        small["true"].shape, generator=torch.Generator().manual_seed(args.seed)
    ).to(device)
    found["floors"] = {
        "empty": staged.mean((true.video + 1).square().flatten(1).mean(1)),
        "bilinear": staged.mean((resized(small["true"], SHAPES["ssr"]) - true.video).square().flatten(1).mean(1)),
    }
    arms: dict[str, tuple[str, float | None]] = {"no augmentation": ("ssr-plain", None)} if "ssr-plain" in made else {}
    arms |= {f"log-SNR {level:g}": ("ssr", level) for level in LEVELS}
    for key, (name, level) in arms.items():
        make = partial(make_larger, stage(made, name), low_log_snr=level, **how)
        row(f"ssr of made clips, {key}", of(make, small["made"], labels), 8 * (level is None))
    for kind in ("true", "noisy"):
        for key, (name, level) in arms.items():
            if f"{kind}, {key}" in found["from true clips"] or devices.clock(device) > until:
                continue
            make = partial(make_larger, stage(made, name), low_log_snr=level, **how)
            with devices.half(device, args.bf16):
                large = of(make, small[kind], true.labels)()
            large = large.float().clamp(-1, 1)
            back = shrunk(large, 1, 2) - small["true"]
            found["from true clips"][f"{kind}, {key}"] = {
                "error": staged.mean((large - true.video).square().flatten(1).mean(1)),
                "disagreement with the small clip": staged.mean(back.square().flatten(1).mean(1)),
                **staged.judged(large, true.labels, reference),
            }
            write_json(path, found)
    if "single" in made:
        make = partial(tasks.generate, made["single"], shape=SHAPES["single"], **how | {"steps": 2 * args.steps})
        row(f"single, w = {args.weight:g}, twice the steps", of(make, labels))
    if shown:
        writing.save(torch.cat(shown), args.out / "cascade.gif")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    staged.arguments(parser, PARTS, Path("runs/cascade"), clips=256)
    parser.add_argument("--judging", type=float, default=45.0, help="seconds of the minutes that are for the figures")
    parser.add_argument("--weight", type=float, default=1.0, help="of guidance in sampling")
    args = parser.parse_args()
    device = devices.chosen(args)
    begun = devices.clock(device)
    args.command = f"python benchmarks/train_cascade.py{devices.changed(parser, args, but=('out',))}"
    args.out.mkdir(parents=True, exist_ok=True)
    whole = 60 * args.minutes
    made, reports = trained(args, device, whole - args.judging)
    if args.stages and not args.judging:
        return
    found = measured(args, device, made, begun + whole - 3)
    found["training"] = reports
    write_json(args.out / "cascade.json", found)


if __name__ == "__main__":
    main()
