"""Train the digit reader that ships as minivdm/weights/digit-reader-32: a few minutes on one core.

    python benchmarks/train_digit_reader.py [--steps 3000] [--out minivdm/weights]

Frames are made from the 4,500 training digits: none to three of them at random places of a 32x32 canvas, bent,
thickened, thinned, blurred and noisy, so that the slightly imperfect strokes of a generated clip are read as well.
One digit in ten that is alone has its pieces in wrong order, and some frames are noise: to be read as nothing. The
card has the accuracy on the 500 test digits.
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

from minivdm.data.files import Digits, load_digits
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.measure.readers import DigitReader

NAME = "digit-reader-32"


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def bent(images: Tensor, generator: torch.Generator) -> Tensor:
    """Digits (n, 28, 28) in [0, 1] under random affine maps and smooth displacements, at half size: (n, 1, 14, 14)."""
    n = len(images)
    angle = uniform((n,), -0.26, 0.26, generator)  # 15 degrees
    scale = uniform((n, 2), 0.87, 1.15, generator)
    shear = uniform((n,), -0.25, 0.25, generator)
    cos, sin = angle.cos(), angle.sin()
    affine = torch.stack([cos, shear - sin, sin, cos], -1).view(n, 2, 2) / scale[:, :, None]
    shift = uniform((n, 2, 1), -0.06, 0.06, generator)
    grid = functional.affine_grid(torch.cat([affine, shift], -1), [n, 1, 28, 28], align_corners=False)
    coarse = torch.randn((n, 2, 6, 6), generator=generator) * uniform((n, 1, 1, 1), 0, 0.09, generator)
    warp = functional.interpolate(coarse, (28, 28), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    full = functional.grid_sample(images[:, None], grid + warp, align_corners=False)
    full = torch.where(uniform((n, 1, 1, 1), 0, 1, generator) < 0.15, functional.max_pool2d(full, 3, 1, 1), full)
    return functional.avg_pool2d(full, 2)


def scrambled(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Patches (n, 1, 14, 14) cut into four tiles that are flipped and put back in another order."""
    tiles = patches.unfold(2, 7, 7).unfold(3, 7, 7).reshape(len(patches), 4, 7, 7)
    order = torch.tensor([[1, 2, 3, 0], [3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2]])
    order = order[torch.randint(4, (len(tiles),), generator=generator)]
    tiles = tiles.gather(1, order[:, :, None, None].expand_as(tiles))
    tiles = torch.where(uniform((len(tiles), 4, 1, 1), 0, 1, generator) < 0.5, tiles.flip(-1), tiles)
    return tiles.view(-1, 2, 2, 7, 7).transpose(2, 3).reshape(-1, 1, 14, 14)


def clouds(n: int, cells: int, generator: torch.Generator) -> Tensor:
    """Frames (n, 1, 32, 32) of random light that is no digit: noise smoothed over 32 / cells pixels."""
    noise = torch.randn((n, 1, cells, cells), generator=generator)
    smooth = functional.interpolate(noise, (32, 32), mode="bicubic") if n else torch.zeros(0, 1, 32, 32)
    return smooth * uniform((n, 1, 1, 1), 0.2, 1.5, generator) - uniform((n, 1, 1, 1), 0, 1, generator)


def batch_of_frames(digits: Digits, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Frames (n, 1, 32, 32) in [-1, 1] and targets (n, 11): multi-hot classes and whether there is any."""
    canvas, targets = torch.zeros(n, 1, 32, 32), torch.zeros(n, 11)
    share = torch.tensor([0.10, 0.50, 0.33, 0.07])  # of frames with 0, 1, 2, 3 digits
    counts = torch.multinomial(share, n, replacement=True, generator=generator)
    row = torch.arange(14)
    for i in range(3):
        which = torch.nonzero(counts > i).flatten()
        if not len(which):
            continue
        chosen = torch.randint(len(digits.labels), (len(which),), generator=generator)
        patches = bent(digits.images[chosen].float() / 255, generator)
        broken = (uniform((len(which),), 0, 1, generator) < 0.1) & (counts[which] == 1)
        patches[broken] = scrambled(patches[broken], generator)
        y, x = torch.randint(19, (2, len(which), 1, 1), generator=generator)
        place = (which[:, None, None], 0, y + row[:, None], x + row)
        canvas[place] = torch.maximum(canvas[place], patches[:, 0])
        targets[which[~broken], digits.labels[chosen[~broken]]] = 1
    targets[:, 10] = targets[:, :10].amax(1)

    blurred = functional.avg_pool2d(functional.pad(canvas, (1, 1, 1, 1)), 3, 1)
    canvas = torch.lerp(canvas, blurred, uniform((n, 1, 1, 1), -0.4, 0.6, generator))  # below 0 sharpens
    canvas = canvas * uniform((n, 1, 1, 1), 0.7, 1.1, generator)
    level = uniform((n, 1, 1, 1), 0, 0.12, generator) * (uniform((n, 1, 1, 1), 0, 1, generator) < 0.5)
    canvas = canvas + level * torch.randn(canvas.shape, generator=generator)
    empty = torch.nonzero(counts == 0).flatten()
    canvas[empty[::4]] = clouds(len(empty[::4]), 32, generator)
    canvas[empty[1::4]] = uniform((len(empty[1::4]), 1, 32, 32), -0.5, 1.2, generator)
    canvas[empty[2::4]] = clouds(len(empty[2::4]), 8, generator)
    return canvas.clamp(0, 1) * 2 - 1, targets


@torch.no_grad()
def accuracy(reader: DigitReader, digits: int, split: str) -> dict[str, float]:
    """Share of frames, and of clips by their averaged logits, whose digits are read exactly."""
    clips = MovingMNIST(digits=digits, split=split, seed=1).clips(range(400))
    logits = reader(clips.video.transpose(1, 2).flatten(0, 1)).view(400, -1, 11)[..., :10]
    frames = ((logits > 0) == clips.labels[:, None].bool()).all(-1).float().mean()
    whole = ((logits.mean(1) > 0) == clips.labels.bool()).all(-1).float().mean()
    return {"frames": round(float(frames), 4), "clips": round(float(whole), 4)}


@torch.no_grad()
def accuracy_on_test_digits(reader: DigitReader) -> float:
    """Share of the 500 test digits whose class has the largest logit, each once, in the middle of the canvas."""
    digits = load_digits(split="test")
    patches = functional.avg_pool2d(digits.images[:, None].float(), 2)
    frames = functional.pad(patches, (9, 9, 9, 9)) / 127.5 - 1
    return float((reader(frames)[:, :10].argmax(1) == digits.labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "minivdm" / "weights")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the sums are in the same order on every machine then, and nothing waits for a busy core
    torch.set_flush_denormal(True)  # where the reader is sure, most gradients of the smooth maximum are denormal
    generator = torch.Generator().manual_seed(arguments.seed)
    digits = load_digits(split="train")
    with torch.random.fork_rng():
        reader = DigitReader().to(memory_format=torch.channels_last)
    for parameter in reader.parameters():  # from the generator, as everything random is
        if parameter.ndim == 4:
            fan_in = parameter[0].numel()
            parameter.data = torch.randn(parameter.shape, generator=generator) * math.sqrt(2 / fan_in)
    reader.head.weight.data *= 0.1
    torch.nn.init.constant_(reader.head.bias, -math.log(64))  # 64 places: the sum of all begins at 1
    optimizer = torch.optim.AdamW(reader.parameters(), lr=4e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=arguments.steps, pct_start=0.15)

    start = time.time()
    average = 0.7
    bar = trange(arguments.steps, unit="step", mininterval=1)
    for _ in bar:
        frames, targets = batch_of_frames(digits, arguments.batch, generator)
        logits = reader(frames.to(memory_format=torch.channels_last))
        loss = functional.binary_cross_entropy_with_logits(logits, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
        average += 0.02 * (loss.item() - average)
        bar.set_postfix(loss=f"{average:.4f}", refresh=False)

    reader.eval().half().float()  # judged as it ships
    state = {k: v.half() if v.is_floating_point() else v for k, v in reader.state_dict().items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"{NAME}.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, file)
    card = {
        "name": NAME,
        "what": "reads which digits are in a 32x32 frame: logits of ten classes and of presence (measure.metrics)",
        "command": "python benchmarks/train_digit_reader.py"
        f" --steps {arguments.steps} --batch {arguments.batch} --seed {arguments.seed}",
        "data": "4,500 MNIST training digits that ship with the package, placed and distorted at random",
        "parameters": sum(p.numel() for p in reader.parameters()),
        "frames_seen": arguments.steps * arguments.batch,
        "seconds": round(time.time() - start),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss": round(average, 4),
        "accuracy_on_500_test_digits": round(accuracy_on_test_digits(reader), 4),
        "exactly_read_of_400_clips": {
            f"{split}, {n} digits a clip": accuracy(reader, n, split) for split in ("test", "train") for n in (1, 2)
        },
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    file.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
