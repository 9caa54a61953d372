"""Train the clip encoder that ships as minivdm/weights/clip-encoder-32: a few minutes on one core.

    python benchmarks/train_clip_encoder.py [--steps 5000] [--out minivdm/weights]

Clips of one or two training digits, at four speeds from rest to half as fast again as usual, and with random
bounces, are read by two small heads: which classes are there, where each is, and how fast it moves. The card
has the errors on clips of the 500 test digits, and what two sets of real clips measure between them.
"""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from tqdm import trange

from minivdm.data.moving_mnist import Clips, MovingMNIST
from minivdm.measure.frechet import clip_distance, features, frame_distance
from minivdm.measure.readers import SPAN, ClipEncoder

NAME = "clip-encoder-32"
EDGE = SPAN // 2


def worlds(split: str, frames: int, seed: int) -> list[MovingMNIST]:
    """The kinds of clips that the encoder learns from, all on 32x32."""
    common = {"frames": frames, "digits": (1, 2), "split": split, "seed": seed}
    moving = [MovingMNIST(speed=speed, **common) for speed in (0.0, 0.9, 1.8, 2.7)]  # type: ignore[arg-type]
    return [*moving, MovingMNIST(motion="stochastic", **common)]  # type: ignore[arg-type]


def targets(clips: Clips) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (b, f, 10, 2) and velocities (b, f, 10, 2) per class, about in [-1, 1], and where they count, (b, 10).

    They count for classes that are in the clip once: of two equal digits neither could be named.
    """
    b, n, f, _ = clips.positions.shape
    where, speed, count = (torch.zeros(b, 11, f, 2), torch.zeros(b, 11, f, 2), torch.zeros(b, 11))
    row = torch.arange(b)
    for i in range(n):
        slot = clips.digits[:, i] + 1  # class -1, no digit, goes to slot 0
        where[row, slot] = clips.positions[:, i].nan_to_num() / 9 - 1
        speed[row, slot] = clips.velocities[:, i].nan_to_num() / 2
        count[row, slot] += 1
    return where[:, 1:].transpose(1, 2), speed[:, 1:].transpose(1, 2), (count[:, 1:] == 1).float()


def losses(encoder: ClipEncoder, clips: Clips) -> dict[str, Tensor]:
    """Cross-entropies of presence, mean squared errors of position and velocity where they count."""
    frames, motion = encoder(clips.video)
    frames = encoder.read_frame(frames * encoder.frame_scale)
    motion = encoder.read_motion(motion * encoder.motion_scale)
    where, speed, counts = targets(clips)
    inner = slice(EDGE, where.shape[1] - EDGE)

    def presence(logits: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, clips.labels[:, None].expand_as(logits))

    def error(guess: Tensor, truth: Tensor) -> Tensor:
        weight = counts[:, None, :, None].expand_as(truth)
        return ((guess.reshape(truth.shape) - truth).square() * weight).sum() / weight.sum().clamp(min=1)

    return {
        "presence in a frame": presence(frames[..., :10]),
        "position in a frame": error(frames[..., 10:], where),
        "presence": presence(motion[..., :10]),
        "position": error(motion[..., 10:30], where[:, inner]),
        "velocity": error(motion[..., 30:], speed[:, inner]),
    }


@torch.no_grad()
def errors(encoder: ClipEncoder, split: str) -> dict[str, float]:
    """Share of digits read exactly, root mean square errors in pixels and pixels per frame, one digit a clip."""
    clips = MovingMNIST(split=split, seed=7).clips(range(500))
    frames, motion = encoder(clips.video)
    frames = encoder.read_frame(frames * encoder.frame_scale)
    motion = encoder.read_motion(motion * encoder.motion_scale)
    right = (frames[..., :10].argmax(-1) == clips.digits).float().mean()
    found = {name: float(value) for name, value in losses(encoder, clips).items()}
    return {
        "digits of frames": round(float(right), 4),
        "position, pixels": round(9 * math.sqrt(found["position"]), 3),
        "velocity, pixels per frame": round(2 * math.sqrt(found["velocity"]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "minivdm" / "weights")
    arguments = parser.parse_args()

    generator = torch.Generator().manual_seed(arguments.seed)
    encoder = ClipEncoder()
    for parameter in encoder.parameters():  # from the generator, as everything random is
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        scale = math.sqrt(2 / fan_in) if parameter.ndim > 1 else 0.0
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    kinds = worlds("train", 8, seed=1)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=1e-2, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=arguments.steps, pct_start=0.1)

    start, cpu = time.time(), time.process_time()
    average: dict[str, float] = {}
    for step in (bar := trange(arguments.steps, unit="step", mininterval=5)):
        first = step // len(kinds) * arguments.batch
        parts = losses(encoder, kinds[step % len(kinds)].clips(range(first, first + arguments.batch)))
        optimizer.zero_grad(set_to_none=True)
        sum(parts.values(), torch.zeros(())).backward()
        optimizer.step()
        rate.step()
        for name, value in parts.items():
            average[name] = average.get(name, value.item()) * 0.98 + 0.02 * value.item()
        if step % 50 == 0:
            bar.set_postfix({name[:9]: f"{value:.3f}" for name, value in average.items()}, refresh=False)
    seconds, cpu = time.time() - start, time.process_time() - cpu

    encoder.eval().half().float()  # judged as it ships
    real = MovingMNIST(seed=2).clips(range(1024)).video
    frames, motion = features(real, encoder)
    encoder.frame_scale.copy_(frames.flatten(0, 1).var(0).mean().sqrt().half())
    encoder.motion_scale.copy_(motion.flatten(0, 1).var(0).mean().sqrt().half())
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"{NAME}.safetensors"
    save_file({name: value.half().contiguous() for name, value in encoder.state_dict().items()}, file)
    others = {split: MovingMNIST(split=split, seed=3).clips(range(1024)).video for split in ("train", "test")}
    card = {
        "name": NAME,
        "what": "features of frames and of clips for Fréchet distances (minivdm.measure.frechet); trained here to read "
        "digits, positions and velocities of Moving-MNIST; "
        "not Inception, not I3D: its distances are neither FID nor FVD",
        "command": "python benchmarks/train_clip_encoder.py"
        f" --steps {arguments.steps} --batch {arguments.batch} --seed {arguments.seed}",
        "data": "clips of 8 frames, one or two of the 4,500 MNIST training digits that ship with the package",
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "clips_seen": arguments.steps * arguments.batch,
        "seconds": round(seconds),
        "seconds_of_cpu": round(cpu),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss": {name: round(value, 4) for name, value in average.items()},
        "errors_on_500_clips": {split: errors(encoder, split) for split in ("train", "test")},
        "distances_between_1024_real_clips": {
            split: {
                "frames": round(frame_distance(video, real, encoder), 4),
                "clips": round(clip_distance(video, real, encoder), 4),
            }
            for split, video in others.items()
        },
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    file.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(card, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
