"""The directions of W.A.L.T's tables 3 and 4 on Moving-MNIST: latent transformers that differ in one thing each.

    python benchmarks/transformers.py train --device cuda --minutes 4          (a GPU's minutes)
    python benchmarks/transformers.py train --minutes 0.5 --toy                (the same at toy size, on any machine)

Clips are 17 frames of 64x64 with one digit at half the canonical speed, as latents of tokenizer-64: 5x8x8 places of 8
numbers, made once. Each arm is trained several times, from seeds 0, 1, ...; all arms of a seed see the same clips in
the same order for the same number of updates, which is chosen so that all fit into --minutes. Arms are compared by
held-out v-loss at fixed noise levels, and by clips that they make: what the digit reader finds, and their distance from
true clips. Writes transformers.json into --out, a row as soon as it is done, and transformers.npz with some clips of
each arm. A second call with the same settings takes as many updates as the first, and adds the rows that are missing.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import argparse
import copy
import json
import queue
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import devices
import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional

from minivdm.core import CosineSchedule, Denoiser
from minivdm.core.gaussian import diffuse
from minivdm.core.targets import stratified_times
from minivdm.data import MovingMNIST
from minivdm.data.atomic import write_json
from minivdm.measure.frechet import clip_features, frechet
from minivdm.measure.metrics import legible, same_in_every_frame
from minivdm.networks.transformer import Transformer
from minivdm.networks.window_transformer import WindowTransformer
from minivdm.systems import walt
from minivdm.systems.latent_diffusion import load_tokenizer
from minivdm.training import monitor
from minivdm.training.graphs import Recorded
from minivdm.training.muon import Muon, split

RESULTS = Path(__file__).parent / "results"
SIZE, FRAMES, SPEED = 64, 17, 1.8
SHAPE = (8, 5, 8, 8)
LEVELS = (-4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # log-SNRs of the held-out loss, inside all schedules
SHOWN = 6  # clips of each arm that are kept to be looked at
BASE = "W.A.L.T"


class Arm(NamedTuple):
    """What one row changes: arguments of the network, its kind, what is told in training, the schedule, the data."""

    network: dict[str, Any] = {}
    windows: bool = True
    self_conditioning: float = 0.0
    prediction: float = 0.0
    log_snr_min: float = -20.0
    normalised: bool = True


def arms(width: int = 128, depth: int = 6) -> dict[str, Arm]:
    """Name -> arm; the first is what all others change one thing of."""
    return {
        BASE: Arm(),
        "patch 2": Arm({"patch": (1, 2, 2)}),
        "patch 4": Arm({"patch": (1, 4, 4)}),
        "full attention": Arm(windows=False),
        "self-conditioning 0.6": Arm({"self_conditioning": True}, self_conditioning=0.6),
        "separate AdaLN, as many parameters": Arm(narrower(width, depth)),
        "ends at log-SNR -5": Arm(log_snr_min=-5.0),
        "latents not normalised": Arm(normalised=False),
        "first frames given": Arm({"frames_known": True}, prediction=0.5),
    }


def build(arm: Arm, width: int, depth: int) -> Denoiser:
    """The untrained model of an arm: windows of one frame's 8x8 places, and of all frames' 4x4."""
    common: dict[str, Any] = {"width": width, "head_channels": width // 4, "modulation": "lora"} | arm.network
    common |= {"depth": depth, "embedding": width, "patch": common.get("patch", (1, 1, 1))}
    side = SHAPE[2] // common["patch"][1]
    if arm.windows:
        net: Transformer = WindowTransformer(8, spatial=(side, side), temporal=(5, side // 2, side // 2), **common)
    else:
        net = Transformer(8, **common)
    return Denoiser(net, CosineSchedule(arm.log_snr_min, 12.0))


def narrower(width: int, depth: int) -> dict[str, Any]:
    """Separate AdaLN for each block, in blocks so narrow that there are as many parameters as with AdaLN-LoRA."""

    def parameters(arm: Arm) -> int:
        return sum(p.numel() for p in build(arm, width, depth).parameters())

    def candidate(w: int) -> dict[str, Any]:
        return {"width": w, "head_channels": w // 4, "modulation": "separate"}

    wanted = parameters(Arm())
    return min((candidate(w) for w in range(8, width + 1, 4)), key=lambda c: abs(parameters(Arm(c)) - wanted))


class Data(NamedTuple):
    """Normalised latents and labels of training and test clips, and features of true clips."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    features: Tensor


def encode(args: argparse.Namespace, device: torch.device) -> tuple[Data, dict[str, Any]]:
    """All latents, and what the judges make of true and of reconstructed clips."""
    tokenizer, made = load_tokenizer(device), {}
    for name, count in (("train", args.clips), ("test", args.judged)):
        data = MovingMNIST(SIZE, FRAMES, speed=SPEED, split=name, device=device)
        parts = [data.clips(part) for part in torch.arange(count).split(args.batch)]
        with torch.no_grad():
            made[name] = torch.cat([tokenizer.encode(part.video) for part in parts])
        made[f"{name}_labels"] = torch.cat([part.labels for part in parts])
    other = MovingMNIST(SIZE, FRAMES, speed=SPEED, split="test", seed=1, device=device)  # others than those judged
    made["features"] = torch.cat([clip_features(other.clips(part).video)
                                  for part in torch.arange(4 * args.judged).split(args.batch)])  # fmt: skip
    found = Data(**made)
    true = torch.cat([part.video for part in parts])
    judged = {"true clips": judge(true, found), "reconstructed": judge(decode(found.test), found)}
    return found, judged


@torch.no_grad()
def decode(latents: Tensor) -> Tensor:
    """Clips of normalised latents, in parts."""
    tokenizer = load_tokenizer(latents.device)
    return torch.cat([tokenizer.decode(part) for part in latents.split(64)])


def judge(videos: Tensor, data: Data) -> dict[str, float]:
    """Share that is legible, share right in every frame, and distance from true clips."""
    labels = data.test_labels
    return {
        "legible": round(legible(videos, labels).float().mean().item(), 4),
        "right in every frame": round(same_in_every_frame(videos, labels).float().mean().item(), 4),
        "distance": round(frechet(clip_features(videos), data.features), 4),
    }


class Training:
    """One arm from one seed: its model, the average of its weights, and its updates."""

    def __init__(self, arm: Arm, seed: int, data: Data, args: argparse.Namespace) -> None:
        torch.manual_seed(seed)
        self.arm, self.data = arm, data
        self.model = build(arm, args.width, args.depth).to(data.train.device)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        cuda = data.train.is_cuda
        hidden, rest = split(self.model.network)
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(hidden, lr=args.lr, record=cuda),
            torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=cuda),
        ]
        self.weights = list(self.model.parameters())
        self.learn: Any = Recorded(self.gradients, self.weights)
        order = torch.Generator().manual_seed(seed)  # of clips, the same for all arms
        self.rows = torch.randint(len(data.train), (1000, args.batch), generator=order).to(data.train.device)

    def units(self, latents: Tensor) -> Tensor:
        """Normalised latents as the arm has them."""
        if self.arm.normalised:
            return latents
        tokenizer = load_tokenizer(latents.device)
        return latents * tokenizer.scale[:, None, None, None] + tokenizer.shift[:, None, None, None]

    def normalised(self, latents: Tensor) -> Tensor:
        """Inverse of `units`."""
        if self.arm.normalised:
            return latents
        tokenizer = load_tokenizer(latents.device)
        return (latents - tokenizer.shift[:, None, None, None]) / tokenizer.scale[:, None, None, None]

    def draw(self, number: int) -> dict[str, Tensor]:
        """Clips of that update and its random numbers, on the device."""
        rows = self.rows[number % len(self.rows)]
        x, labels, b = self.units(self.data.train[rows]), self.data.train_labels[rows], len(rows)
        order = torch.randperm(b, device=x.device)  # the first clips see an estimate, whatever their times
        drawn = {"x": x, "t": stratified_times(b, self.model.schedule, device=x.device)[order]}
        drawn |= {"noise": torch.randn_like(x), "labels": labels * (torch.rand(b, 1, device=x.device) >= 0.1)}
        if self.arm.prediction:  # one or two latent frames, for that share of the clips
            count = torch.randint(1, 3, (b,), device=x.device)
            count = count * (torch.rand(b, device=x.device) < self.arm.prediction)
            mask = (torch.arange(SHAPE[1], device=x.device) < count[:, None]).to(x)[:, None, :, None, None]
            drawn["known"] = torch.cat((x * mask, mask.expand(b, 1, *x.shape[2:])), 1)
        return drawn

    def gradients(self, x: Tensor, t: Tensor, noise: Tensor, labels: Tensor, **known: Tensor) -> Tensor:
        """The loss and its gradients: `walt.loss` with all that is random drawn before, so that it can be recorded."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda, cache_enabled=False):
            n = round(self.arm.self_conditioning * len(x))
            if n:
                z = diffuse(x[:n], t[:n], self.model.schedule, noise[:n])
                with torch.no_grad():
                    seen = self.model(z, t[:n], labels=labels[:n]).to(x.dtype)
                known["estimate"] = torch.cat((seen, torch.zeros_like(x[n:])))
            loss = self.model.loss(x, labels=labels, label_drop=0.0, t=t, noise=noise, **known).mean  # type: ignore[arg-type]
        loss.backward()
        return loss.detach()

    def update(self, number: int, rate: float) -> None:
        """One step; nothing in it waits for the device."""
        drawn = self.draw(number)
        try:
            self.learn(**drawn)
        except RuntimeError as error:
            if self.learn == self.gradients:
                raise
            print(f"not recorded, as {str(error)[:300]}", flush=True)  # then every kernel is launched anew
            self.learn = self.gradients
        if self.learn == self.gradients:
            for p in self.weights:
                p.grad = None
            self.learn(**drawn)
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        weights = [p.detach() for p in self.weights]
        torch._foreach_lerp_(list(self.average.parameters()), weights, 1 - min(0.99, (1 + number) / (10 + number)))

    def timed(self, updates: int = 6) -> float:
        """Seconds of an update, after three that warm up; of a training that is thrown away."""
        for number in range(3 + updates):
            if number == 3:
                synchronized(self.data.train.device)
                began = time.perf_counter()
            self.update(number, 1e-4)
        synchronized(self.data.train.device)
        return (time.perf_counter() - began) / updates

    def run(self, updates: int, lr: float, deadline: float) -> bool:
        """All updates, the rate falling in a straight line after a short rise; False where time runs out before."""
        for number in range(updates):
            if time.time() > deadline:
                return False
            self.update(number, lr * min(1.0, (number + 1) / 20, 1.02 - number / updates))
        return True

    @torch.no_grad()
    def held_out(self) -> list[float]:
        """v-loss of the test latents at each of `LEVELS`, labels given, noise fixed; with its own estimate if any."""
        found, x, labels = [], self.units(self.data.test), self.data.test_labels
        for level in LEVELS:
            t, errors = self.average.schedule.time(level), []
            for k, (part, some) in enumerate(zip(x.split(256), labels.split(256), strict=True)):
                noise = torch.randn(part.shape, generator=torch.Generator().manual_seed(k)).to(part)
                own = {}
                if self.arm.self_conditioning:
                    own["estimate"] = self.average(diffuse(part, t, self.average.schedule, noise), t, labels=some)
                loss = self.average.loss(part, labels=some, label_drop=0.0, t=t, noise=noise, **own)
                errors.append(loss.per_sample)
            found.append(round(torch.cat(errors).mean().item(), 5))
        return found

    @torch.no_grad()
    def row(self, args: argparse.Namespace, seed: int) -> tuple[dict[str, Any], np.ndarray]:
        """All measures of the trained average, and some of its clips."""
        x, labels, generator = self.data.test, self.data.test_labels, torch.Generator().manual_seed(seed)
        with half(x.device):
            made = walt.sampled(self.average, (len(x), *SHAPE), {"labels": labels}, args.w, args.steps, generator)
        clips = decode(self.normalised(made))
        row: dict[str, Any] = {"seed": seed, "loss": self.held_out(), **judge(clips, self.data)}
        if self.arm.prediction:
            clips, row["given"] = self.predicted(args, seed)
        small = functional.avg_pool3d(clips[:SHOWN], (1, 2, 2))
        return row, ((small[:, 0] + 1) * 127.5).round().byte().cpu().numpy()

    def predicted(self, args: argparse.Namespace, seed: int) -> tuple[Tensor, dict[str, Any]]:
        """Clips that go on from their first two latents (5 frames), and what became of the 12 frames after them, for
        one and two latents given, with and without guidance. Errors are per pixel, in [-1, 1]."""
        x, labels = self.data.test, self.data.test_labels
        true, found, clips = decode(x), {}, x
        for given in (1, 2):
            for w in (0.0, 1.0):
                generator = torch.Generator().manual_seed(seed)
                with half(x.device):
                    made = walt.predict(self.average, self.units(x[:, :, :given]), SHAPE[1], labels, weight=w,
                                        steps=args.steps, generator=generator)  # fmt: skip
                clips = decode(self.normalised(made))
                name = f"{given} latent{'s' if given > 1 else ''}, w = {w:g}"
                found[name] = judge(clips, self.data) | {"error": error(clips, true, 4 * given - 3)}
            last = 4 * given - 4
            still = true[:, :, last : last + 1].expand_as(true)
            found[f"{given} latent{'s' if given > 1 else ''}, the last frame again"] = {
                "error": error(still, true, last + 1)
            }
        return clips, found


def error(clips: Tensor, true: Tensor, start: int) -> float:
    """Mean squared error of the frames from `start` on."""
    return round((clips - true)[:, :, start:].square().mean().item(), 5)


def half(device: torch.device) -> torch.autocast:
    """bfloat16 where it is faster."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def synchronized(device: torch.device) -> None:
    """Wait for the device, to read a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def work(seeds: list[int], args: argparse.Namespace, cache: str, done: list, out: Any, orders: Any) -> None:
    """A process: train all arms of some seeds. Says how long an update of the base takes among the others, hears how
    many updates there will be and until when, and hands over each row."""
    device = devices.chosen(args)
    if device.type == "cpu":
        torch.set_num_threads(1)
    data = Data(*(part.to(device) for part in torch.load(cache, weights_only=True)))
    out.put(("ready", Training(Arm(), seeds[0], data, args).timed(), None, None))
    updates, deadline = orders.get()
    for seed in seeds:
        for name, arm in arms(args.width, args.depth).items():
            if [name, seed] in done:
                continue
            training = Training(arm, seed, data, args)
            if not training.run(updates, args.lr, deadline):
                return
            out.put(("row", name, *training.row(args, seed)))


def train(args: argparse.Namespace, device: torch.device) -> None:
    """All rows, as far as they fit into the time."""
    began, deadline = time.time(), time.time() + 60 * args.minutes
    settings = {
        name: getattr(args, name) for name in ("width", "depth", "batch", "clips", "judged", "lr", "steps", "w")
    }
    file = args.out / "transformers.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if found.get("settings") != settings or (args.updates and args.updates != found.get("updates")):
        found = {"settings": settings, "arms": {}}
    pictures = dict(np.load(file.with_suffix(".npz"))) if found["arms"] and file.with_suffix(".npz").exists() else {}
    done = [[name, row["seed"]] for name, rows in found["arms"].items() for row in rows]
    data, judged = encode(args, device)
    print(f"{args.clips} clips encoded after {time.time() - began:.0f} s", judged, flush=True)
    every = arms(args.width, args.depth)
    seconds = {name: Training(arm, 0, data, args).timed() for name, arm in every.items()}
    print("milliseconds an update:", {name: round(1000 * s, 1) for name, s in seconds.items()}, flush=True)
    found |= {
        "command": f"python benchmarks/transformers.py train{args.words}",
        "hardware": monitor.hardware(device), "judged": judged, "levels": LEVELS, "speed": {
            name: {"seconds an update": round(s, 5),
                   "parameters": sum(p.numel() for p in build(every[name], args.width, args.depth).parameters())}
            for name, s in seconds.items()},
    }  # fmt: skip
    shares = [share for k in range(args.jobs) if (share := list(range(args.seeds))[k :: args.jobs])]
    context = mp.get_context("spawn")
    out, orders = context.Queue(), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        cache = str(Path(folder) / "latents.pt")
        torch.save([part.cpu() for part in data], cache)
        workers = [context.Process(target=work, args=(share, args, cache, done, out, orders)) for share in shares]
        for worker in workers:
            worker.start()
        ready: list[float] = []
        while any(worker.is_alive() for worker in workers) or not out.empty():
            try:
                what, name, row, clips = out.get(timeout=1)
            except queue.Empty:
                continue
            if what == "ready":
                ready.append(name)
                if len(ready) == len(workers):
                    slower = max(1.0, max(ready) / seconds[BASE])
                    found.setdefault("updates", args.updates or fitting(deadline, slower, seconds, shares))
                    print(f"{found['updates']} updates; beside the others one takes {slower:.2f} times as long")
                    for _ in workers:
                        orders.put((found["updates"], deadline))
                continue
            print(f"{time.time() - began:.0f} s", name, row, flush=True)
            found["arms"].setdefault(name, []).append(row)
            if row["seed"] == 0:
                pictures[name] = clips
            write_json(file, found)
            np.savez_compressed(file.with_suffix(".npz"), **pictures)


def fitting(deadline: float, slower: float, seconds: dict[str, float], shares: list[list[int]]) -> int:
    """Updates of each training, so that all of the largest share end in time; judging a row costs about 30 updates."""
    left = 0.85 * (deadline - time.time())
    of_all_arms = slower * sum(seconds.values()) * max(len(share) for share in shares)
    return int(min(4000, max(10, left / of_all_arms - 30)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train",))
    parser.add_argument("--minutes", type=float, default=4.0, help="of the whole, encoding and judging included")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument(
        "--jobs", type=int, default=0, help="processes beside each other; by default 2 on a GPU, else 1"
    )
    parser.add_argument("--updates", type=int, default=0, help="of each training, in place of what fits")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--clips", type=int, default=16384, help="training clips, encoded once")
    parser.add_argument("--judged", type=int, default=256, help="test clips, and clips that each arm makes")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, default=32, help="of DDIM")
    parser.add_argument("--w", type=float, default=1.0, help="of guidance")
    parser.add_argument("--toy", action="store_true", help="all of it small, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    devices.argument(parser)
    args = parser.parse_args()
    args.words = devices.changed(parser, args, but=("out", "jobs", "what"))
    if args.toy:
        args.batch, args.clips, args.judged, args.width, args.depth, args.steps = 4, 16, 16, 32, 2, 2
        args.seeds = min(args.seeds, 2)
    for name in ("seeds", "batch", "clips", "judged", "steps"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(args, name)}")
    device = devices.chosen(args)
    args.jobs = args.jobs or (2 if device.type == "cuda" else 1)
    args.out.mkdir(parents=True, exist_ok=True)
    train(args, device)


if __name__ == "__main__":
    main()
