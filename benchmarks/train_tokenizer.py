"""Train the tokenizer that ships as minivdm/weights/tokenizer-64: minutes on one core.

    python benchmarks/train_tokenizer.py [--minutes 4] [--kl 0.01] [--out minivdm/weights] [--name tokenizer-64]

Crops of 9 frames of 40x40 around the digit come first, as they cost a fifth of a clip and hold all that is hard; the
last part is whole clips of 17 frames of 64x64. The card has the rate (nats per clip), the error (PSNR) and what the
digit reader makes of reconstructions: it reads 32x32, so frames of 64x64 are averaged over squares of 2x2 for it.
"""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from minivdm.data import MovingMNIST
from minivdm.measure.metrics import legible, psnr, same_in_every_frame
from minivdm.measure.obedience import wilson
from minivdm.networks import Tokenizer, tokenizer_loss
from minivdm.training.muon import Muon, split

SPEED = 1.8  # pixels a frame, half the canonical speed at this size
SIZE, FRAMES = 64, 17


def crops(data: MovingMNIST, indices: torch.Tensor, side: int, frames: int) -> torch.Tensor:
    """The first frames of clips, cut to a square around where the digit is in the middle of them."""
    clips = data.clips(indices)
    corner = clips.positions[:, 0, frames // 2] - (side - data.digit_size) / 2  # b 2
    corner = (corner.clamp(0, data.size - side) / 4).round().long() * 4  # on the grid of patches
    cut = [v[:, :frames, y : y + side, x : x + side] for v, (y, x) in zip(clips.video, corner.tolist(), strict=True)]
    return torch.stack(cut)


def small(videos: torch.Tensor) -> torch.Tensor:
    """Frames of 64x64 as the reader wants them, 32x32: means of 2x2."""
    return F.avg_pool3d(videos, (1, 2, 2))


@torch.no_grad()
def figures(model: Tokenizer, clips: int = 48, noises: tuple[float, ...] = (0.0, 0.3, 0.5)) -> dict[str, Any]:
    """Rate, error and legibility on clips of the test digits, of the clips themselves and with noise on latents."""
    x = MovingMNIST(SIZE, FRAMES, speed=SPEED, split="test", seed=9).clips(torch.arange(clips))
    coded = [model.code(part, torch.Generator().manual_seed(0)) for part in x.video.split(8)]
    latents = torch.cat([part.latents for part in coded])
    spread = latents.std((0, 2, 3, 4), keepdim=True)
    found: dict[str, Any] = {
        "clips": clips,
        "nats per clip": round(torch.cat([part.nats for part in coded]).mean().item(), 1),
        "the clips themselves": right(x.video, x.labels),
    }
    for noise in noises:
        more = noise * spread * torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
        made = torch.cat([model.reconstruct(part).float().clamp(-1, 1) for part in (latents + more).split(8)])
        decibels = psnr(made, x.video, of="clip")
        found[f"noise of {noise} standard deviations on the latents"] = {
            "PSNR, dB": round(decibels.mean().item(), 2),
            **right(made, x.labels),
        }
    return found


def right(videos: torch.Tensor, labels: torch.Tensor) -> dict[str, list[float]]:
    """Shares of clips, with 95 % intervals, that the reader finds right as a whole, and right in every frame."""
    seen = {
        "legible: share, low, high": legible(small(videos), labels),
        "right in every frame: share, low, high": same_in_every_frame(small(videos), labels),
    }
    shares = {name: wilson(int(hits.sum()), len(hits)) for name, hits in seen.items()}
    return {name: [round(n, 4) for n in (s.rate, s.low, s.high)] for name, s in shares.items()}


def train(arguments: argparse.Namespace, **config: Any) -> tuple[Tokenizer, dict[str, object]]:
    """Minutes of this process's CPU time: crops first, whole clips in the last 15 %; then the latents' scale.

    config: arguments of `Tokenizer`.
    """
    torch.manual_seed(arguments.seed)
    data, generator = MovingMNIST(SIZE, FRAMES, speed=SPEED), torch.Generator().manual_seed(arguments.seed)
    model = Tokenizer(**config)
    with torch.no_grad():
        model.get_parameter("head.2.bias").fill_(-1.0)  # the background
    hidden, rest = split(model)
    optimizers = [Muon(hidden, lr=4e-3), torch.optim.AdamW(rest, lr=4e-3, weight_decay=0.0)]
    begun, seen, step, errors = time.process_time(), 0, 0, []
    while (spent := (time.process_time() - begun) / 60 / arguments.minutes) < 1:
        whole = spent > 0.85
        count = 4 if whole else 16
        indices = torch.arange(seen, seen + count)
        x = data.clips(indices).video if whole else crops(data, indices, 40, 9)
        kl = arguments.kl * min(1.0, max(0.01, 2 * spent))  # a decoder that has learnt to listen is not put off again
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = tokenizer_loss(model, x, kl, generator)
        loss.mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 4e-3 * (0.03 + 0.97 * (1 + math.cos(math.pi * spent)) / 2)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen, step = seen + count, step + 1
        errors.append(loss.error.item())
        if step % 50 == 0:
            mean = sum(errors[-50:]) / len(errors[-50:])
            print(f"{spent:.2f} step {step} error {mean:.4f} nats {loss.nats:.0f}", flush=True)
    model.eval().requires_grad_(False)
    some = data.clips(torch.arange(1_000_000, 1_000_064)).video
    model.calibrate(torch.cat([model.code(part, sample=False).latents for part in some.split(8)]))
    return model, {"steps": step, "clips": seen, "minutes_of_cpu": round((time.process_time() - begun) / 60, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4.0, help="of CPU time")
    parser.add_argument("--kl", type=float, default=1e-2, help="weight of nats per value beside the squared error")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="tokenizer-64")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "minivdm" / "weights")
    arguments = parser.parse_args()

    model, length = train(arguments)
    model.half().float()  # judged as it ships
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"{arguments.name}.safetensors"
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, file)
    card = {
        "name": arguments.name,
        "what": "causal tokenizer (minivdm.networks.Tokenizer), 17 frames of 64x64 to 5x8x8 places of 8 numbers",
        "command": f"python benchmarks/train_tokenizer.py --minutes {arguments.minutes:g} --kl {arguments.kl:g}"
        f" --seed {arguments.seed}",
        "data": f"one of the 4,500 MNIST training digits that ship, {SPEED} pixels a frame; the frames for the digit"
        " reader, which reads 32x32, are means of 2x2",
        "parameters": sum(p.numel() for p in model.parameters()),
        **length,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "on test clips": figures(model),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    file.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
