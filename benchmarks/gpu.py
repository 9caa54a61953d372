"""One run on one NVIDIA GPU: tests, speed, and weights for the settings that a CPU cannot train. Everything in minutes.

    python benchmarks/gpu.py --minutes 9 [--out gpu-out]          on a machine with an NVIDIA GPU
    python benchmarks/gpu.py --minutes 1 --toy                    the same at toy size, on any machine

Needs torch, numpy, einops, safetensors, tqdm, pillow (and pytest for the tests), and no network. In this order, each
part written as soon as it is there, so that nothing is lost when the time is cut:

1. `pytest -m gpu`: bf16 against float32, CPU against GPU, attention in pieces, a run resumed on the other device;
2. clips a second of training, memory, and the share of the rate of a bf16 matrix product measured in the same run, for
   the eager, the compiled and the graph-captured step, at three batch sizes;
3. training, with the faster of the first two: moving-mnist-64 (two digits on 64 x 64), then moving-mnist-32-two; each
   from the weights that ship where they ship; exported with a card, sampled, judged.

The folder holds at most 8 files: table.json, tests.txt, and for each set of weights NAME.safetensors, .json and .gif.
"""

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minivdm import tasks
from minivdm.data import writing
from minivdm.measure import metrics, tracks
from minivdm.training import Trainer, checkpoints, exports, fit, pretrained, recipes
from minivdm.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 16 * 2**20  # bytes of one file
MODES = ("eager", "compiled", "graphs")


class Report:
    """What has been found so far, on the screen and in table.json."""

    def __init__(self, out: Path, minutes: float):
        self.out, self.start, self.seconds = out, time.monotonic(), 60 * minutes
        self.found: dict[str, Any] = {}
        out.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        """Seconds of the time given."""
        return self.seconds - (time.monotonic() - self.start)

    def say(self, key: str, value: Any) -> None:
        """Keep and show a result."""
        self.found[key] = value
        print(f"[{time.monotonic() - self.start:5.0f} s] {key}: {json.dumps(value)}", flush=True)
        (self.out / "table.json").write_text(json.dumps(self.found, indent=1), encoding="utf-8")


def settings(toy: bool) -> list[tuple[Recipe, float]]:
    """What is trained, with its share of the time that is left for training."""
    large, two = recipes.get("moving-mnist-64"), recipes.get("moving-mnist-32-two")
    common: dict[str, Any] = dict(
        optimizer="muon", lr=2e-3, warmup=10_000, ema_decay=0.9995, precision="bf16", compile=False, decay=0.4, seed=1,
        data_seed=1, batch=64, clips=10**9, log_every=6_400, save_every=10**9, preview_every=10**9, milestones=(),
    )  # fmt: skip
    network: dict[str, Any] = {"width": 48, "multipliers": [1, 2, 4], "patch": 4, "labels": 10, "head_channels": 24}
    plans = [
        (dataclasses.replace(large, **common, network=network, images=0, conditions={"labels": 0.2}), 0.62),
        (dataclasses.replace(two, **common, frames=16, conditions={"labels": 0.2}), 1.0),
    ]
    if toy:
        small: dict[str, Any] = dict(batch=2, frames=4, precision="float32", warmup=4, log_every=4)
        plans = [(dataclasses.replace(recipe, **small), share) for recipe, share in plans]
    return plans


def wait(device: torch.device) -> float:
    """The time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


def matrix_rate(device: torch.device, side: int) -> float:
    """Operations a second of a bf16 matrix product."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    begun = wait(device)
    for _ in range(10):
        a @ a
    return 10 * 2 * side**3 / (wait(device) - begun)


def compiled(network: nn.Module, mode: str) -> nn.Module:
    """The network as it is run in a mode: "graphs" are CUDA graphs, which leave no launches to wait for."""
    if mode == "eager":
        return network
    return torch.compile(network, mode="reduce-overhead" if mode == "graphs" else "default")  # type: ignore[return-value]


def made(recipe: Recipe, device: torch.device, mode: str) -> Trainer:
    """A trainer whose network runs in a mode, from the weights that ship where they fit."""
    trainer = Trainer(recipe, device)
    trainer.denoiser.network = compiled(trainer.network, mode)  # type: ignore[assignment]
    if recipe.name in pretrained.available():
        weights, about = checkpoints.read_weights(pretrained.find(recipe.name))
        if about["config"]["network"] == recipe.to_dict()["network"]:
            trainer.start_from(weights)
    return trainer


def speed(recipe: Recipe, device: torch.device, mode: str, steps: int) -> dict[str, float]:
    """Clips a second of whole training steps after a warm-up, and the largest memory."""
    trainer = made(recipe, device, mode)
    for _ in range(4):  # compiling, capturing
        trainer.step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begun = wait(device)
    for _ in range(steps):
        trainer.step()
    rate = steps * recipe.phase_at(0).batch / (wait(device) - begun)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return {"clips/s": round(rate, 2), "GiB": round(memory, 2)}


def operations(recipe: Recipe) -> float:
    """Arithmetic of one clip and training step, in operations, counted on the CPU for one clip."""
    from torch.utils.flop_counter import FlopCounterMode

    trainer = Trainer(dataclasses.replace(recipe, batch=1, precision="float32", accumulate=1))
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    return float(counter.get_total_flops())


def race(recipe: Recipe, device: torch.device, report: Report, toy: bool) -> tuple[str, int]:
    """The fastest mode and batch; every combination that runs is in the report, with its share of the matrix rate."""
    rate = matrix_rate(device, 256 if toy else 8192)
    work = operations(recipe)
    rows: dict[str, Any] = {"bf16 matrix product, TFLOP/s": round(rate / 1e12, 3), "GFLOP a clip": round(work / 1e9, 2)}
    best, chosen = 0.0, ("eager", recipe.phase_at(0).batch)
    batches = (2, 4) if toy else (32, 64, 128)
    for mode in ("eager",) if device.type != "cuda" else MODES:
        for batch in batches:
            try:
                row: dict[str, Any] = speed(dataclasses.replace(recipe, batch=batch), device, mode, 2 if toy else 12)
                row["share of the matrix product"] = round(row["clips/s"] * work / rate, 3)
                if row["clips/s"] > best and mode != "graphs":  # a run trains eager or compiled
                    best, chosen = row["clips/s"], (mode, batch)
            except Exception as error:  # out of memory, or a compiler that is not there: the others still count
                row = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"}
            rows[f"{mode}, batch {batch}"] = row
            report.say(f"speed of {recipe.name}", rows)
            if report.left < 0.6 * report.seconds:
                return chosen
    return chosen


def judged(path: Path, device: torch.device, count: int, steps: int) -> tuple[dict[str, Any], torch.Tensor]:
    """Shares read right and rigidity of clips of every digit (two where the weights know two), and the clips."""
    denoiser = pretrained.load(path, device)
    k = torch.arange(count)
    labels = torch.eye(10)[k % 10]
    if denoiser.config.digits != 1:
        labels = (labels + torch.eye(10)[(k * 7 // 10 + 3) % 10]).clamp(max=1)
    rows, shown = {}, torch.empty(0)
    for name, weight in (("without labels", None), ("w = 0", 0.0), ("w = 1", 1.0), ("w = 2", 2.0)):
        given = {"count": count} if weight is None else {"labels": labels, "weight": weight}
        generator = torch.Generator().manual_seed(0)
        videos = tasks.generate(denoiser, **given, steps=steps, generator=generator).clamp(-1, 1).float().cpu()
        rows[name] = {"identity": metrics.identity(videos), "rigidity": round(float(tracks.rigidity(videos).mean()), 3)}
        if weight is not None:
            rows[name]["legible"] = metrics.legibility(videos, labels)
            every = metrics.same_in_every_frame(videos, labels).double().mean()
            rows[name]["every frame right"] = round(float(every), 3)
        shown = videos[:16] if name == "w = 1" else shown
    return rows, shown


def train(recipe: Recipe, seconds: float, device: torch.device, report: Report, toy: bool) -> None:
    """One set of weights in `seconds`: speed, training, export, clips, figures."""
    begun = time.monotonic()
    mode, batch = race(recipe, device, report, toy)
    recipe = dataclasses.replace(recipe, batch=batch)
    per_second = speed(recipe, device, mode, 2 if toy else 12)["clips/s"]
    rest = max(5.0, seconds - (time.monotonic() - begun) - (2 if toy else 25))  # what comes after takes its part
    clips = max(8 * batch, int(0.93 * per_second * rest) // batch * batch)
    recipe = dataclasses.replace(recipe, clips=clips, warmup=min(recipe.warmup, clips // 10), compile=mode != "eager")
    with tempfile.TemporaryDirectory() as folder:
        start = recipe.name if recipe.name in pretrained.available() else None
        fit(recipe, Path(folder) / "run", init=start, device=str(device), minutes=rest / 60, progress=False)
        exports.export(Path(folder) / "run", recipe.name, Path(folder) / "weights", clips=4 if toy else 64)
        for ending in ("safetensors", "json"):
            made_file = Path(folder) / "weights" / f"{recipe.name}.{ending}"
            if made_file.stat().st_size < LARGEST:
                shutil.copy(made_file, report.out / made_file.name)
            else:
                report.say(f"{made_file.name} left out", f"{made_file.stat().st_size} bytes")
    result = {"mode": mode, "batch": batch, "clips/s": per_second, "clips": clips}
    report.say(recipe.name, result)
    rows, shown = judged(report.out / f"{recipe.name}.safetensors", device, 4 if toy else 128, 4 if toy else 32)
    writing.save(shown, report.out / f"{recipe.name}.gif")
    report.say(recipe.name, result | {"rows": rows})


def tests(report: Report) -> None:
    """The tests that need a GPU, with what pytest says of them in tests.txt."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "tests/training/test_gpu.py",
    ]
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=min(120, report.left / 3))
        text = ran.stdout + ran.stderr
    except (subprocess.TimeoutExpired, OSError) as error:
        text = str(error)
    (report.out / "tests.txt").write_text(text, encoding="utf-8")
    report.say("tests", text.strip().splitlines()[-1] if text.strip() else "nothing said")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, default=Path("gpu-out"))
    parser.add_argument("--toy", action="store_true", help="a rehearsal at toy size, on any machine")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not args.toy:
        parser.error("no NVIDIA GPU is here; --toy rehearses on the CPU")
    report = Report(args.out, args.minutes)
    name = torch.cuda.get_device_name(0) if device.type == "cuda" else "CPU"
    report.say("machine", {"torch": torch.__version__, "device": name})
    tests(report)
    for recipe, share in settings(args.toy):
        try:
            train(recipe, share * report.left, device, report, args.toy)
        except Exception as error:  # the other set still gets its time
            report.say(recipe.name, report.found.get(recipe.name, {}) | {"error": repr(error)})
    report.say("seconds left", round(report.left, 1))


if __name__ == "__main__":
    main()
