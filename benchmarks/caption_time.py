"""How long a sentence takes to become a clip, and what it then still says: few steps against 64, in one run.

    OMP_NUM_THREADS=2 python benchmarks/caption_time.py [--clips 80] [--steps 8 12 24 64] [--weight 2]

For each batch of sentences every number of steps takes its turn, so that whatever else the machine does meets all of
them; seconds are wall time per clip, and their ratio to the largest number of steps is what can be compared between
machines. Arithmetic is bf16, as in training. Clips are judged as by `text_to_video.py`, whose sentences these are.
Writes benchmarks/results/caption_time.json.
"""

import argparse
import time
from pathlib import Path

import devices
import torch
from text_to_video import asked

from minivdm.core import for_few_steps
from minivdm.data.atomic import write_json
from minivdm.measure.obedience import obedience
from minivdm.systems.text_to_video import text_to_video
from minivdm.training import monitor, pretrained

RESULTS = Path(__file__).parent / "results" / "caption_time.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="text-32")
    parser.add_argument("--clips", type=int, default=80)
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 12, 24, 64])
    parser.add_argument("--weight", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    model = pretrained.load(args.weights, device)
    wanted, sentences = asked(args.clips)
    size = 2 * devices.batch(device)
    seconds: dict[int, list[float]] = {steps: [] for steps in args.steps}
    made: dict[int, list[torch.Tensor]] = {steps: [] for steps in args.steps}
    for start in range(0, args.clips, size):
        some = sentences[start : start + size]
        for steps in args.steps:
            generator, begun = torch.Generator().manual_seed(args.seed + start), time.monotonic()
            with torch.autocast(device.type, torch.bfloat16):
                clips = text_to_video(
                    model, some, weight=args.weight, steps=steps, grid=for_few_steps, generator=generator
                )
            made[steps].append(clips.float().clamp(-1, 1).cpu())
            seconds[steps].append((time.monotonic() - begun) / len(some))
    slowest = torch.tensor(seconds[max(args.steps)]).double()
    rows = {}
    for steps in args.steps:
        taken = torch.tensor(seconds[steps]).double()
        result = obedience(torch.cat(made[steps]), wanted)
        everyone = torch.ones(args.clips, dtype=torch.bool)
        rows[f"{steps} steps"] = {
            "seconds a clip: median": round(taken.median().item(), 3),
            "share of the largest number's time: median": round((taken / slowest).median().item(), 3),
            **{
                name: [round(v, 4) for v in (share.rate, share.low, share.high)]
                for name in ("digit", "direction", "speed", "all")
                for share in [result.share(name, everyone)]
            },
        }
        print(steps, rows[f"{steps} steps"], flush=True)
    words = " ".join(map(str, args.steps))
    write_json(args.out, {
        "command": f"python benchmarks/caption_time.py --clips {args.clips} --steps {words}{devices.words(device)}",
        "weights": model.card["sha256"], "weight": args.weight, "seed": args.seed, "clips": args.clips,
        "hardware": monitor.hardware(device), "threads": torch.get_num_threads(), "rows": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main()
