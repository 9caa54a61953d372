"""Frames and pixels that were not given, made by reconstruction guidance: what lessons 10 and 11 measure, clip by clip.

    python benchmarks/guided.py [--weights moving-mnist-32] [--clips 12] [--steps 12] [--seed 1] [--only extend ...]

One digit of the test pool at the weights' own speed and size. `extend`: 8 frames given, 8 made, with the digit's label;
by replacement, by guidance with w_r = 2, and the last given frame copied. `interpolate`: every fourth frame given, the
three between made, by both and by a linear blend. `upscale`: 16x16 block means given, 32x32 made without a label, with
w_r = 1 and w_r = 4, and by bilinear interpolation. `long`: 16 frames given, 48 made block by block, with the digit's
label, as `extend --frames 64` does it. Writes benchmarks/results/guided.json, a part as soon as it is done;
`--only` leaves the other parts of the file as they are. `--bf16` takes about half of the time on a CPU that has units
for it.
"""

import argparse
import json
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import devices
import torch
import torch.nn.functional as F
from torch import Tensor

from minivdm import tasks
from minivdm.core import Denoiser, Downsample, Frames, samplers
from minivdm.data.atomic import write_json
from minivdm.data.moving_mnist import Clips
from minivdm.measure import metrics, seams, tracks
from minivdm.training import monitor, pretrained

RESULTS = Path(__file__).parent / "results" / "guided.json"
Half: TypeAlias = AbstractContextManager  #: in it, networks compute in half precision; figures are made outside
FULL = nullcontext()
METHODS: dict[str, dict[str, Any]] = {
    "replacement": {"method": "replacement"},
    "guided, w_r = 2": {"reconstruction_weight": 2.0},
}


def listed(values: Tensor) -> list:
    """Nested lists of numbers with six digits after the point."""
    return [listed(row) if row.ndim else round(float(row), 6) for row in values.detach().double().cpu()]


def extend(denoiser: Denoiser, clips: Clips, steps: int, seed: int, half: Half = FULL) -> dict:
    """Of every method: squared error of each new frame (b, 8), share of new frames read right (b,), seam score (b,)."""
    video, digit = clips.video, clips.labels.argmax(-1)[:, None]
    given = [(Frames(range(8)), video[:, :, :8])]
    how: dict[str, Any] = {"labels": clips.labels, "steps": steps, "step": samplers.ancestral_step}
    with half:
        made = {
            name: tasks.restore(denoiser, given, generator=torch.Generator().manual_seed(seed), **how, **method)
            for name, method in METHODS.items()
        }
    made["last frame copied"] = torch.cat([video[:, :, :8], video[:, :, 7:8].expand_as(video[:, :, 8:])], 2)
    made["real clips"] = video
    return {
        name: {
            "error": listed(metrics.squared_error(one.clamp(-1, 1), video)[:, 8:]),
            "right": listed((metrics.read(one[:, :, 8:].clamp(-1, 1)).logits.argmax(-1) == digit).double().mean(1)),
            "seam": listed(seams.block_seam(one.clamp(-1, 1), [8])),
        }
        for name, one in made.items()
    }


def interpolate(denoiser: Denoiser, clips: Clips, steps: int, seed: int, half: Half = FULL) -> dict:
    """Of every method: mean squared error of a clip of 13 frames, of which 0, 4, 8 and 12 are given; (b,)."""
    truth, known = clips.video[:, :, :13], clips.video[:, :, 0:13:4]
    share = (torch.arange(1, 4, device=known.device) / 4).view(1, 1, 1, 3, 1, 1)
    ends = known[:, :, :-1, None], known[:, :, 1:, None]  # b c 3 1 h w
    inner = ((1 - share) * ends[0] + share * ends[1]).clone()  # b c 3 3 h w
    blend = torch.cat([torch.cat([ends[0], inner], 3).flatten(2, 3), known[:, :, -1:]], 2)
    made = {"linear blend": blend}
    for name, method in METHODS.items():
        generator = torch.Generator().manual_seed(seed)
        how: dict[str, Any] = {"labels": clips.labels, "steps": steps, "step": samplers.ancestral_step}
        with half:
            made[name] = tasks.interpolate(denoiser, known, 3, generator=generator, **how, **method).clamp(-1, 1)
    return {name: {"error": listed(metrics.squared_error(one, truth).mean(1))} for name, one in made.items()}


def upscale(denoiser: Denoiser, clips: Clips, steps: int, seed: int, half: Half = FULL) -> dict:
    """Of every method, (b,): PSNR of a clip, root mean square off the observation, edges as a share of the clip's."""
    video, look = clips.video, Downsample(2)
    low = look(video)
    b, c, f, h, w = low.shape
    frames = F.interpolate(low.transpose(1, 2).reshape(b * f, c, h, w), scale_factor=2, mode="bilinear")
    made = {"bilinear": frames.view(b, f, c, 2 * h, 2 * w).transpose(1, 2)}
    for weight in (1.0, 4.0):
        with half:
            made[f"eq 8, w_r = {weight:g}"] = tasks.super_resolve(
                denoiser,
                low,
                2,
                frames=f,
                reconstruction_weight=weight,
                steps=steps,
                step=partial(samplers.ancestral_step, gamma=0.1),
                generator=torch.Generator().manual_seed(seed),
            ).clamp(-1, 1)

    def edges(one: Tensor) -> Tensor:
        return (one[..., 1:] - one[..., :-1]).abs().mean((1, 2, 3, 4))

    return {
        name: {
            "psnr": listed(metrics.psnr(one, video, of="clip")),
            "off": listed((look(one) - low).square().mean((1, 2, 3, 4)).sqrt()),
            "edges": listed(edges(one) / edges(video)),
        }
        for name, one in made.items()
    }


def long(denoiser: Denoiser, clips: Clips, steps: int, seed: int, half: Half = FULL) -> dict:
    """Of clips of 64 frames: share of the new ones read right in each block, (b, blocks), and their rigidity, (b,)."""
    how: dict[str, Any] = {"labels": clips.labels, "weight": 1.0, "steps": steps}
    how["step"] = partial(samplers.ancestral_step, gamma=0.1)
    generator = torch.Generator().manual_seed(seed)
    with half:
        made = tasks.extend(denoiser, clips.video[:, :, :16], 64, reconstruction_weight=2.0, generator=generator, **how)
    found = {}
    for name, one in {"guided, w_r = 2": made, "real clips": clips.video}.items():
        new = one[:, :, 16:].clamp(-1, 1)
        right = (metrics.read(new).logits.argmax(-1) == clips.labels.argmax(-1)[:, None]).double()  # b 48
        found[name] = {"right": listed(right.view(len(new), 6, 8).mean(2)), "rigidity": listed(tracks.rigidity(new))}
    return found


PARTS = {"extend": extend, "interpolate": interpolate, "upscale": upscale, "long": long}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="moving-mnist-32")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    devices.argument(parser)
    devices.bf16_argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    denoiser = pretrained.load(args.weights, device)
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for part in args.only:
        data = denoiser.config.make_data(64 if part == "long" else 16, split="test", device=device)
        clips = data.clips(torch.arange(args.clips))
        rows = PARTS[part](denoiser, clips, args.steps, args.seed, devices.half(device, args.bf16))
        found[part] = {
            "settings": f"{args.weights}, {args.clips} clips, {args.steps} ancestral steps, seed {args.seed}, "
            f"{devices.precision(device, args.bf16)}, {monitor.hardware(device)}",
            "command": f"python benchmarks/guided.py --weights {args.weights} --clips {args.clips} "
            f"--steps {args.steps} --seed {args.seed}{' --bf16' if args.bf16 else ''}{devices.words(device)}",
            "rows": rows,
        }
        write_json(RESULTS, found)
        print(part, "done", flush=True)


if __name__ == "__main__":
    main()
