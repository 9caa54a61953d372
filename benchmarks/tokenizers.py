"""Rate against distortion of tokenizers that differ in one thing each, trained for the same minutes (lesson 16).

    OMP_NUM_THREADS=1 python benchmarks/tokenizers.py [--minutes 2.5] [--clips 48] [--only "KL, 4 channels"]

All take clips of 17 frames of 64x64 as `train_tokenizer.py` does, whose loop and judgement these are. Each row goes to
benchmarks/results/tokenizers.json at once; --only makes one row anew. Minutes are those of this process on one core.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from train_tokenizer import FRAMES, SIZE, SPEED, figures, train

from minivdm.data import MovingMNIST
from minivdm.data.atomic import write_json
from minivdm.networks import Tokenizer
from minivdm.training import monitor

RESULTS = Path(__file__).parent / "results" / "tokenizers.json"
#: Name -> what it changes of `Tokenizer`: Gaussian latents of 8 channels, time and space shrunk by 4 and 8.
ROWS: dict[str, dict[str, Any]] = {
    "KL, 8 channels": {},
    "KL, 2 channels": {"latents": 2},
    "KL, 4 channels": {"latents": 4},
    "KL, 16 channels": {"latents": 16},
    "each frame by itself, 8 channels": {"times": (1, 1), "time_kernel": 1},
    "VQ, 512 codes of 8 channels": {"bottleneck": "vq"},
}


@torch.no_grad()
def in_use(model: Tokenizer, clips: int) -> dict[str, float]:
    """How many codes of a code book test clips use, and the nats per place that their frequencies leave of its log."""
    videos = MovingMNIST(SIZE, FRAMES, speed=SPEED, split="test", seed=9).clips(torch.arange(clips)).video
    codes = [model.code(part).codes for part in videos.split(8)]
    count = torch.bincount(torch.cat([part.flatten() for part in codes if part is not None]))
    share = count[count > 0] / count.sum()
    return {
        "codes in use": int((count > 0).sum()),
        "nats a place": round(-(share * share.log()).sum().item(), 3),
        "log of their number": round(math.log(model.config["codes"]), 3),
    }


def row(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one and judge it."""
    model, length = train(arguments, **ROWS[name])
    shape = model.latent_shape((1, FRAMES, SIZE, SIZE))
    found: dict[str, Any] = {
        "latents": list(shape),
        "numbers": math.prod(shape),
        "parameters": sum(p.numel() for p in model.parameters()),
        **length,
        "on test clips": figures(model, arguments.clips, (0.0, 0.3)),
    }
    if model.config["bottleneck"] == "vq":
        found["code book"] = in_use(model, arguments.clips)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.5, help="of CPU time, for each")
    parser.add_argument("--clips", type=int, default=48, help="test clips to judge with")
    parser.add_argument("--kl", type=float, default=1e-2, help="weight of nats per value beside the squared error")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=tuple(ROWS), help="one row, anew")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    command = f"python benchmarks/tokenizers.py --minutes {arguments.minutes:g} --clips {arguments.clips}"
    for name in [arguments.only] if arguments.only else list(ROWS):
        found = row(name, arguments)
        print(name, json.dumps(found), flush=True)
        kept = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else {}
        rows = kept | {name: found}
        write_json(arguments.out, {"command": command, "hardware": monitor.hardware(torch.device("cpu")),
                                   "rows": {key: rows[key] for key in ROWS if key in rows}})  # fmt: skip


if __name__ == "__main__":
    main()
