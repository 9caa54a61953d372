"""Minutes on one NVIDIA GPU: tests, speed, and the weights that a CPU would take days for.

    python benchmarks/gpu.py --minutes 9 --out gpu-out                  everything, one part after the other
    python benchmarks/gpu.py --parts moving-mnist-64 --minutes 4        one set of weights
    python benchmarks/gpu.py --parts few-16 few-8 --minutes 2           students of what lies in --out, or ships
    python benchmarks/gpu.py --minutes 1 --toy                          the same at toy size, on any machine

Needs torch, numpy, einops, safetensors, tqdm, pillow (and pytest for the tests), and no network. Each part is written
as soon as it is there, so that nothing is lost when the time is cut:

- `tests`: `pytest -m gpu`: bf16 against float32, CPU against GPU, attention in pieces, runs that change the device;
- `speed`: clips a second of training moving-mnist-64, memory, and the share of the rate of a bf16 matrix product
  measured in the same run, for the eager, the compiled and the graph-captured step;
- the name of a recipe: as many clips as the time allows, with the falling learning rate that belongs to a run of that
  length; then an export with its card, clips, and a first judgement (`benchmarks/weights.py` is the thorough one).

moving-mnist-32 and text-32 go on from the weights that ship; moving-mnist-64 (two digits on 64 x 64) starts from
nothing, with short clips first, or goes on from those of an earlier call in the same folder. The folder gets
table.json, tests.txt, and for each recipe NAME.{safetensors,json,metrics.jsonl,gif}.
"""

import argparse
import dataclasses
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import devices
import torch
from gpu_plans import Plan, plans
from torch import Tensor

from minivdm import tasks
from minivdm.data import writing
from minivdm.measure import metrics, tracks
from minivdm.systems import few_steps
from minivdm.training import Trainer, checkpoints, exports, fit, pretrained, recipes
from minivdm.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
PYTEST = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider")
MODES = ("eager", "graphs", "compiled")
FRAMES = 0.75  # w_f, the default of `sample`


class Report:
    """What has been found so far, on the screen and in table.json."""

    def __init__(self, out: Path, minutes: float):
        self.out, self.start, self.seconds = out, time.monotonic(), 60 * minutes
        out.mkdir(parents=True, exist_ok=True)
        self.file = out / "table.json"
        self.found: dict[str, Any] = {}

    @property
    def left(self) -> float:
        """Seconds of the time given."""
        return self.seconds - (time.monotonic() - self.start)

    def say(self, key: str, value: Any) -> None:
        """Keep and show a result; what other processes found in the meantime stays."""
        self.found[key] = value
        print(f"[{time.monotonic() - self.start:5.0f} s] {key}: {json.dumps(value)}", flush=True)
        others = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        self.file.write_text(json.dumps(others | self.found, indent=1), encoding="utf-8")


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


def in_mode(recipe: Recipe, mode: str) -> Recipe:
    """The recipe whose steps run in a mode: "graphs" are recorded kernels, which leave no launches to wait for; a
    student's are launched all the same (see `Recipe.graphs`)."""
    graphs = mode == "graphs" and recipe.objective == "denoising"
    return dataclasses.replace(recipe, compile=mode == "compiled", graphs=graphs)


def speed(recipe: Recipe, device: torch.device, mode: str, steps: int, teacher: Path | None = None) -> dict[str, float]:
    """Clips a second of whole training steps after a warm-up, the warm-up's seconds, and the largest memory."""
    trainer, begun = Trainer(in_mode(recipe, mode), device, teacher=teacher), time.monotonic()
    for _ in range(4):  # compiling, capturing
        trainer.step()
    warm = wait(device) - begun
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begun = wait(device)
    for _ in range(steps):
        trainer.step()
    rate = steps * recipe.phase_at(0).batch / (wait(device) - begun)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    del trainer
    gc.collect()  # a recording holds its memory, and a trainer holds itself
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return {"clips/s": round(rate, 2), "warm-up, s": round(warm, 1), "GiB": round(memory, 2)}


def operations(recipe: Recipe) -> float:
    """Arithmetic of one clip and training step, in operations, counted on the CPU for one clip."""
    from torch.utils.flop_counter import FlopCounterMode

    trainer = Trainer(dataclasses.replace(recipe, batch=1, precision="float32", accumulate=1))
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    return float(counter.get_total_flops())


def race(recipe: Recipe, device: torch.device, report: Report, toy: bool) -> None:
    """Every mode and batch that runs, with its share of the matrix rate."""
    rate, work = matrix_rate(device, 256 if toy else 8192), operations(recipe)
    rows: dict[str, Any] = {"bf16 matrix product, TFLOP/s": round(rate / 1e12, 3), "GFLOP a clip": round(work / 1e9, 2)}
    ways = [(mode, b) for b in ((2, 4) if toy else (64, 256)) for mode in MODES[:2]]
    for mode, batch in ways + ([("compiled", 64)] if device.type == "cuda" else []):
        if report.left < 0:
            return
        try:
            row: dict[str, Any] = speed(dataclasses.replace(recipe, batch=batch), device, mode, 2 if toy else 12)
            row["share of the matrix product"] = round(row["clips/s"] * work / rate, 3)
        except Exception as error:  # out of memory, or a compiler that is not there: the others still count
            row = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"}
        rows[f"{mode}, batch {batch}"] = row
        report.say(f"speed of {recipe.name}", rows)


def judged(path: Path, device: torch.device, count: int, steps: int) -> tuple[dict[str, Any], Tensor]:
    """Shares read right and rigidity of clips of every digit (two where the weights know two), and the clips."""
    denoiser = pretrained.load(path, device)
    k = torch.arange(count)
    labels = torch.eye(10)[k % 10]
    if denoiser.config.digits != 1:
        labels = (labels + torch.eye(10)[(k * 7 // 10 + 3) % 10]).clamp(max=1)
    student = few_steps.student_of(denoiser) is not None
    rows, shown = {}, torch.empty(0)
    for name, weight in (("without labels", None), ("w = 0", 0.0), ("w = 1", 1.0), ("w = 2", 2.0)):
        given: dict[str, Any] = {"count": count} if weight is None else {"labels": labels.to(device)}
        generator = torch.Generator().manual_seed(0)
        if student:
            videos = few_steps.generate(denoiser, **given, generator=generator)
        else:
            how: dict[str, Any] = dict(weight=weight or 0.0, temporal_weight=FRAMES, steps=steps)
            videos = tasks.generate(denoiser, **given, **how, generator=generator)
        videos = videos.clamp(-1, 1).float().cpu()
        row = {"rigidity": round(float(tracks.rigidity(videos).mean()), 3)}
        if denoiser.config.size == 32:  # the reader's size
            row["identity"] = metrics.identity(videos)
            if weight is not None:
                every = metrics.same_in_every_frame(videos, labels).double().mean()
                row |= {"legible": metrics.legibility(videos, labels), "every frame right": round(float(every), 3)}
        rows[name] = row
        shown = videos[:16] if len(shown) == 0 or name == "w = 1" else shown
        if student and weight is not None:
            break
    return rows, shown


def planned(plan: Plan, seconds: float, device: torch.device, mode: str, toy: bool, teacher: Path | None) -> Recipe:
    """The recipe with as many clips as it trains in `seconds`, by a measurement of a few steps.

    Where other processes use the device as well, they have to use it during the measurement too, or the clips will be
    too many: the run then ends before its learning rate has fallen.
    """
    recipe, steps = plan.recipe, 2 if toy else 12
    begun = time.monotonic()
    rate = speed(recipe, device, mode, steps, teacher)["clips/s"]
    first = 0
    if plan.short:
        frames, batch = (2, 4) if toy else plan.short
        short = dataclasses.replace(recipe, frames=frames, batch=batch)
        first = batch * max(1, int(0.2 * seconds * speed(short, device, mode, steps)["clips/s"]) // batch)
    rest = max(3.0, 0.93 * ((0.8 if plan.short else 1.0) * seconds - (time.monotonic() - begun)))
    clips = first + max(4 * recipe.batch, int(rate * rest) // recipe.batch * recipe.batch)
    if plan.short:
        long = recipe.phases()[-1]
        recipe = dataclasses.replace(recipe, frames=((first, frames, batch), (clips, long.frames, long.batch)))
    return dataclasses.replace(in_mode(recipe, mode), clips=clips, warmup=min(recipe.warmup, clips // 10))


def earlier(name: str, out: Path) -> Path | None:
    """Weights of that name that were made into `out`; None, for those that ship, where there are none."""
    path = out / f"{name}.safetensors"
    return path if name and path.exists() else None


def train(plan: Plan, seconds: float, device: torch.device, report: Report, mode: str, toy: bool) -> None:
    """One set of weights in `seconds`: speed, training, export, clips, figures."""
    begun, out, name = time.monotonic(), report.out, plan.recipe.name
    after = 2 if toy else 15  # seconds of what comes after the training
    teacher = earlier(plan.recipe.teacher, out)
    recipe = planned(plan, seconds - after, device, mode, toy, teacher)
    report.say(f"plan of {name}", {"command": recipes.command(recipe), "clips": recipe.clips})
    left = max(5.0, seconds - after - (time.monotonic() - begun))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fit(recipe, run, init=earlier(recipe.init, out), teacher=teacher, device=str(device), minutes=left / 60,
            progress=False)  # fmt: skip
        with tempfile.TemporaryDirectory() as exported:
            exports.export(run, name, Path(exported), clips=4 if toy else 64)
            for file in Path(exported).iterdir():
                (out / file.name).write_bytes(file.read_bytes())
        state = checkpoints.load(run / "checkpoints")
    mode = "graphs" if recipe.graphs else "compiled" if recipe.compile else "eager"
    report.say(name, {"mode": mode, "clips": state[1]["clips"] if state else 0, "seconds": time.monotonic() - begun})
    rows, shown = judged(out / f"{name}.safetensors", device, 4 if toy else 64, 4 if toy else 32)
    writing.save(shown, out / f"{name}.gif")
    report.say(name, report.found[name] | {"rows": rows})


def tests(report: Report) -> None:
    """The tests that need a GPU, with what pytest says of them in tests.txt."""
    command = [sys.executable, *PYTEST, "tests/training/test_gpu.py"]
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=min(180, report.left))
        text = ran.stdout + ran.stderr
    except (subprocess.TimeoutExpired, OSError) as error:
        text = str(error)
    (report.out / "tests.txt").write_text(text, encoding="utf-8")
    report.say("tests", text.strip().splitlines()[-1] if text.strip() else "nothing said")


def main() -> None:
    known = plans()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="of all parts together")
    parser.add_argument("--out", type=Path, default=Path("gpu-out"))
    parser.add_argument("--parts", nargs="+", choices=("tests", "speed", *known), default=["tests", "speed", *known])
    parser.add_argument("--mode", choices=MODES, default="graphs", help="how networks are run in training")
    parser.add_argument("--toy", action="store_true", help="a rehearsal at toy size, on any machine")
    args = parser.parse_args()
    device = devices.chosen(argparse.Namespace(device="cuda" if torch.cuda.is_available() else "cpu"))
    if device.type != "cuda" and not args.toy:
        parser.error("no NVIDIA GPU is here; --toy rehearses on the CPU")
    report = Report(args.out, args.minutes)
    name = torch.cuda.get_device_name(0) if device.type == "cuda" else "CPU"
    if (args.out / "moving-mnist-64.safetensors").exists():  # of an earlier call: it goes on with them
        plan = known["moving-mnist-64"]
        onward = dataclasses.replace(plan.recipe, init="moving-mnist-64", batch=256, frames=20, seed=2, data_seed=2)
        known["moving-mnist-64"] = plan._replace(recipe=onward, short=None)
    report.say("machine", {"torch": torch.__version__, "device": name})
    if args.toy:
        small: dict[str, Any] = dict(batch=2, frames=4, precision="float32", warmup=4, log_every=4)
        known = {name: plan._replace(recipe=dataclasses.replace(plan.recipe, **small)) for name, plan in known.items()}
    if "tests" in args.parts:
        tests(report)
    if "speed" in args.parts:
        race(known["moving-mnist-64"].recipe, device, report, args.toy)
    wanted = [name for name in known if name in args.parts]
    for position, name in enumerate(wanted):
        share = known[name].share / sum(known[later].share for later in wanted[position:])
        try:
            train(known[name], share * report.left, device, report, args.mode, args.toy)
        except Exception as error:  # the others still get their time
            report.say(name, report.found.get(name, {}) | {"error": repr(error)})
    report.say(f"seconds left of {'+'.join(args.parts)}", round(report.left, 1))


if __name__ == "__main__":
    main()
