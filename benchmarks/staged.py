"""What systems of several networks have in common: one is trained for so many seconds, and clips are judged.

On an NVIDIA GPU a step runs in bf16 and is recorded once (`minivdm.training.graphs`); nothing in it waits.
"""

import argparse
import copy
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import devices
import torch
from torch import Tensor, nn

from minivdm.core import Denoiser
from minivdm.core.targets import stratified_times
from minivdm.measure import frechet, metrics, tracks
from minivdm.measure.obedience import wilson
from minivdm.training import muon
from minivdm.training.graphs import Recorded

Draw = Callable[[int], dict[str, Tensor]]


def arguments(parser: argparse.ArgumentParser, stages: Iterable[str], out: Path, clips: int) -> None:
    """What the scripts that train such a system are told alike."""
    parser.add_argument("--minutes", type=float, default=5.0, help="of everything")
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--stages", nargs="*", choices=tuple(stages), default=list(stages), help="to train")
    parser.add_argument("--batch", type=int, help="clips of a step, by default what fills the device")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--clips", type=int, default=clips, help="for each row of figures")
    parser.add_argument("--steps", type=int, default=24, help="of sampling, for each stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--anew", action="store_true", help="start from nothing, whatever lies in --out")
    parser.add_argument("--eager", action="store_true", help="do not record steps on a GPU")
    devices.bf16_argument(parser)
    devices.argument(parser)


def open_low(network: nn.Module) -> None:
    """Lets a network that is trained from nothing hear of the clip of the stage before from the first step on. Zeros,
    with which that path starts, are for networks that could do without."""
    with torch.no_grad():
        nn.init.kaiming_uniform_(network.get_parameter("low.stem.weight"), a=5**0.5)


def optimizers(network: nn.Module, learns: Callable[[str], bool], lr: float) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices; AdamW for the rest, to which the layers that let a condition in belong."""
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    matrices = {id(p) for p in muon.split(network)[0]}
    for name, p in network.named_parameters():
        p.requires_grad_(learns(name))
        if learns(name):
            (hidden if id(p) in matrices and not name.startswith("low.") else rest).append(p)
    fused = bool(rest) and rest[0].is_cuda
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0, fused=fused)]
    return [*made, muon.Muon(hidden, lr=lr, record=fused)] if hidden else made


def train(
    name: str,
    model: Denoiser,
    draw: Draw,
    seconds: float,
    device: torch.device,
    *,
    learns: Callable[[str], bool] = lambda name: True,
    lr: float = 2e-3,
    eager: bool = False,
    bf16: bool = False,
) -> tuple[Denoiser, dict[str, Any]]:
    """The moving average of the weights after so many seconds, and what to say of it.

    draw: of the step's number, the arguments of `Denoiser.loss`: x, t and noise among them, all of them tensors.
    learns: of the name of a weight, whether it is trained. eager: launch every kernel anew, also on a GPU. bf16: half
    precision on a CPU as well. Seconds are those of `devices.clock`.
    """
    network: Any = model.network
    network.train()
    steppers = optimizers(network, learns, lr)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    weights: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
    pairs = zip(average.network.parameters(), network.parameters(), strict=True)  # type: ignore[union-attr]
    averaged: list[Tensor] = [mean for mean, p in pairs if p.requires_grad]

    def gradients(x: Tensor, **given: Tensor) -> Tensor:
        with devices.half(device, bf16):
            loss = model.loss(x, label_drop=0.0, **given).mean  # type: ignore[arg-type]
        loss.backward()
        return loss.detach()

    learn = Recorded(gradients, weights, eager)
    begun, step, losses = devices.clock(device), 0, torch.zeros(2, device=device)
    clips = 0
    while (spent := (devices.clock(device) - begun) / seconds) < 1:
        given = draw(step)
        loss = learn(**given)
        nn.utils.clip_grad_norm_(weights, 1.0)
        rate = lr * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * spent)))
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = rate
            stepper.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, weights, 1 - min(0.995, (1 + step) / (10 + step)))
        losses = torch.stack([losses[0] + loss, losses[1] + 1])
        clips += len(given["x"])
        step += 1
        if step % 10 == 0 and device.type == "cuda":
            torch.cuda.synchronize()  # the clock would tell when steps are asked for, not when they are done
        if step % 200 == 0:
            print(f"{name}: step {step}, {spent:.0%}, loss {float(losses[0] / losses[1]):.4f}", flush=True)
            losses = torch.zeros_like(losses)
    taken = devices.clock(device) - begun
    report = {"steps": step, "clips": clips, "seconds": round(taken, 1),
              "loss": round(float(losses[0] / losses[1].clamp(min=1)), 5)}  # fmt: skip
    print(f"{name}: {report}", flush=True)
    return average, report


def recorded(
    make: Callable[[Tensor], tuple[Tensor, ...]], device: torch.device, eager: bool = False
) -> Callable[[int, int], tuple[Tensor, ...]]:
    """(first, count) -> what `make` makes of these indices; recorded on a GPU. It holds until the next call."""
    made = Recorded(lambda index: make(index), eager=eager)

    def of(first: int, count: int) -> tuple[Tensor, ...]:
        return made(index=torch.arange(first, first + count, device=device))

    return of


def noised(model: Denoiser, x: Tensor) -> dict[str, Tensor]:
    """Clips with the times and the noise of a step."""
    return {"x": x, "t": stratified_times(len(x), model.schedule, device=x.device), "noise": torch.randn_like(x)}


def dropped(condition: Tensor, share: float) -> Tensor:
    """A condition (b, n), zeroed for a share of the samples."""
    return condition * (torch.rand(len(condition), 1, device=condition.device) >= share)


def measured_before(path: Path, settings: dict[str, Any], parts: Iterable[str]) -> dict[str, Any]:
    """What a file holds that was measured with these settings, so that an interrupted measurement goes on; else empty
    parts."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found if found.get("settings") == settings else {"settings": settings, **{part: {} for part in parts}}


def share(hits: Tensor) -> list[float]:
    """A share of clips with its 95 % interval (Wilson)."""
    found = wilson(int(hits.sum()), len(hits))
    return [round(value, 4) for value in (found.rate, found.low, found.high)]


def mean(values: Tensor) -> list[float]:
    """A mean over clips with its 95 % interval (normal)."""
    values = values.double()
    half = 1.96 * float(values.std()) / len(values) ** 0.5
    middle = float(values.mean())
    return [round(value, 5) for value in (middle, middle - half, middle + half)]


def distances(videos: Tensor, reference: Tensor, draws: int = 40) -> dict[str, list[float]]:
    """Fréchet distances of frames and of clips to real ones, with 95 % intervals by bootstrap over clips.

    The draws are moved so that their mean is the estimate: a drawn set has fewer different clips.
    """
    dice, found = torch.Generator().manual_seed(0), {}
    clouds = {
        "frames": lambda v: frechet.features(v)[0].cpu(),
        "clips": lambda v: frechet.clip_features(v)[:, None].cpu(),
    }
    for name, cloud in clouds.items():
        made, real = cloud(videos), cloud(reference).flatten(0, 1)
        value = frechet.frechet(made.flatten(0, 1), real)
        rows = [torch.randint(len(made), (len(made),), generator=dice) for _ in range(draws)]
        drawn = torch.tensor([frechet.frechet(made[row].flatten(0, 1), real) for row in rows])
        low, high = torch.quantile(drawn - drawn.mean() + value, torch.tensor([0.025, 0.975])).tolist()
        found[f"distance of {name}"] = [round(v, 4) for v in (value, max(0.0, low), high)]
    return found


def judged(videos: Tensor, labels: Tensor, reference: Tensor) -> dict[str, Any]:
    """Clips (b, 1, f, 32, 32) of one digit: each figure with the ends of its 95 % interval."""
    videos = videos.float().clamp(-1, 1)
    reading = metrics.read(videos)
    legible = metrics.legible(videos, labels, reading)
    row: dict[str, Any] = {
        "clips": len(videos),
        "legible": share(legible),
        "right in every frame": share(metrics.same_in_every_frame(videos, labels, reading)),
        "rigidity": mean(tracks.rigidity(videos)),
        **distances(videos, reference),
    }
    if bool(legible.any()):
        found = tracks.fit_track(videos[legible])
        row["from straight motion, px: median"] = round(float(found.deviation.median()), 3)
        row["speed, px a frame: median"] = round(float(found.velocity.norm(dim=-1).median()), 3)
    return row
