"""What a training step on one's own videos costs, by size and colour, against grey 32 x 32: counted, not timed.

python benchmarks/own_videos.py          (prints the table of lessons/your_own_videos.md)

The network of the default recipe is run on torch's "meta" device, which does no arithmetic: floating-point operations
of forward and backward pass are counted, and the bytes kept from the one to the other, for clips of 16 frames.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from minivdm.training import recipes

SETTINGS = ((32, 1), (32, 3), (64, 1), (64, 3))  # size, channels


def cost(size: int, channels: int) -> tuple[float, float]:
    """(GFLOP, MiB kept for the backward pass) of one clip in one training step."""
    changes = ["data=folder", "path=films", "conditions={}", "network.labels=0", f"size={size}", "frames=16"]
    recipe = recipes.get("moving-mnist-32").override([*changes, f"network.channels={channels}"])
    with torch.device("meta"):
        network = recipe.make_network()
        clip, log_snr = torch.empty(1, channels, 16, size, size), torch.empty(1)
    kept: dict[int, torch.UntypedStorage] = {}  # views share their storage, which counts once

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = network(clip, log_snr).sum()
        loss.backward()
    return counter.get_total_flops() / 1e9, sum(storage.nbytes() for storage in kept.values()) / 2**20


def table() -> str:
    """The table of the page."""
    base = cost(*SETTINGS[0])
    rows = [
        "| frames | GFLOP a clip and step | grey 32×32 = 1 | memory a clip, MiB | grey 32×32 = 1 |",
        "|---|---|---|---|---|",
    ]
    for size, channels in SETTINGS:
        flops, room = cost(size, channels)
        name = f"{size}×{size}, {'grey' if channels == 1 else 'colour'}"
        rows.append(f"| {name} | {flops:.1f} | {flops / base[0]:.2f} | {room:.0f} | {room / base[1]:.2f} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
