"""What a training on one's own videos costs: reading them, and steps by size and colour against grey 32 x 32.

python benchmarks/own_videos.py          (prints the table of lessons/your_own_videos.md)

Steps are timed in turn, each setting once a round, so that what else the machine does hits all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = ((32, 1), (32, 3), (64, 1), (64, 3))  # size, channels


def step(size: int, channels: int, batch: int):
    """A function that makes one training step of the default network and optimizer on random clips of 16 frames."""
    import torch

    from minivdm.core.denoiser import Denoiser
    from minivdm.training import recipes

    assignments = [f"size={size}", f"network.channels={channels}", f"batch={batch}", "frames=16", "network.labels=0"]
    recipe = recipes.get("moving-mnist-32").override(["data=folder", "path=none", "conditions={}", *assignments])
    network, schedule = recipe.make_network().to(memory_format=torch.channels_last), recipe.make_schedule()
    denoiser = Denoiser(network, schedule, target=recipe.target)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    clips = torch.rand(batch, channels, 16, size, size) * 2 - 1

    def once() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        denoiser.loss(clips).mean.backward()
        optimizer.step()
        return time.perf_counter() - start

    return once


def memory(size: int, channels: int, batch: int) -> float:
    """Peak MiB of a process that makes two steps, above what its imports take."""
    code = (
        "import resource, sys, torch; sys.path.insert(0, sys.argv[1]); import own_videos; import minivdm.training\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak(); once = own_videos.step(*map(int, sys.argv[2:])); once(); once(); print(peak() - before)"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parent), str(size), str(channels), str(batch)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def reading(frames: int = 240) -> dict[str, float]:
    """Frames a second that are decoded, cropped and resized to 32 x 32, of an MP4 and a GIF of 320 x 240."""
    import torch

    from minivdm.data import video_files, writing

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        ramp = torch.linspace(-1, 1, 320).expand(1, 3, frames, 240, 320).clone()
        ramp += 0.2 * torch.randn(ramp.shape, generator=torch.Generator().manual_seed(0))
        for ending in ("mp4", "gif"):
            path = writing.save(ramp.clamp(-1, 1), Path(folder) / f"film.{ending}", zoom=1)
            start = time.perf_counter()
            video_files.read(path, 32, 3)
            found[ending] = frames / (time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    steps = {setting: step(*setting, args.batch) for setting in SETTINGS}
    for once in steps.values():
        once()
    times: dict[tuple[int, int], list[float]] = {setting: [] for setting in SETTINGS}
    for _ in range(args.rounds):
        for setting, once in steps.items():
            times[setting].append(once())
    grey = times[SETTINGS[0]]
    print("| frames | time of a step, grey 32×32 = 1 (quartiles) | peak memory above the imports |")
    print("|---|---|---|")
    for (size, channels), own in times.items():
        ratios = [a / b for a, b in zip(own, grey, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if (size, channels) != SETTINGS[0] else (1.0, 1.0, 1.0)
        name = f"{size}×{size}, {'grey' if channels == 1 else 'colour'}"
        room = memory(size, channels, args.batch)
        print(f"| {name} | {middle:.2f} ({low:.2f}–{high:.2f}) | {room:,.0f} MiB |", flush=True)
    print(json.dumps({"rounds": args.rounds, "batch": args.batch, "median seconds": statistics.median(grey),
                      "cores": os.cpu_count(), "frames read a second": reading()}))  # fmt: skip


if __name__ == "__main__":
    main()
