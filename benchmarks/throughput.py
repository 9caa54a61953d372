"""One training step of minivdm's network against one of video-diffusion-pytorch's, in time and memory.

    make bench                                  (installs the other package first)
    python benchmarks/throughput.py --rounds 30 --threads 1

Both networks are factorized 3D U-Nets with about as many parameters, on clips of 16 x 32 x 32, four at a time. A
step is the package's own training loss, its gradient, and the same AdamW. The steps alternate (ours, theirs, ours,
...), so that whatever else the machine does meets both; medians are compared. Between them a matrix product
measures what float32 arithmetic the machine gives at that time. Memory is measured in a process of its own for each:
the peak of the resident set over three steps, above what it was after the imports.

Writes benchmarks/results/throughput.json and .md, and the README's copy of the table.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import argparse
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import tables
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minivdm.core.denoiser import Denoiser
from minivdm.core.schedules import CosineSchedule
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.networks.unet3d import UNet3D
from minivdm.training import recipes

BATCH, FRAMES, SIZE = 4, 16, 32
PEER = "video-diffusion-pytorch"
MATRIX = 1024  # side of the matrices whose product is timed
MAX_PARAMETER_DIFFERENCE = 0.15


class MissingPeerError(RuntimeError):
    """The package to compare with is not installed."""


@dataclasses.dataclass
class Contender:
    """A network and its training loss: `loss()` draws noise and times anew at each call."""

    name: str
    network: torch.nn.Module
    loss: Callable[[], torch.Tensor]

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())


def ours() -> Contender:
    """The network that `moving-mnist-32` trains, with labels."""
    config = recipes.get("moving-mnist-32")
    clips = MovingMNIST(size=SIZE, frames=FRAMES, digits=1).clips(range(BATCH))
    network = UNet3D(**config.network)
    denoiser = Denoiser(network, CosineSchedule(), target=config.target)
    generator = torch.Generator().manual_seed(0)
    return Contender(
        "minivdm", network, lambda: denoiser.loss(clips.video, labels=clips.labels, generator=generator).mean
    )


def import_peer() -> types.ModuleType:
    """The other package, with a stand-in for torchvision, which it imports at its start and its network never calls."""
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        sys.modules["torchvision"] = MagicMock()
    try:
        return importlib.import_module(PEER.replace("-", "_"))
    except ImportError as error:
        raise MissingPeerError(f"{PEER} is not installed ({error}); `make bench` installs it") from error


def theirs() -> Contender:
    """`Unet3D` of the other package, without text, in its own GaussianDiffusion."""
    peer = import_peer()
    clips = MovingMNIST(size=SIZE, frames=FRAMES, digits=1).clips(range(BATCH))
    network = peer.Unet3D(dim=32, channels=1, dim_mults=(1, 2, 4))
    diffusion = peer.GaussianDiffusion(network, image_size=SIZE, num_frames=FRAMES, channels=1)
    video = (clips.video + 1) / 2  # it expects [0, 1]
    return Contender(PEER, network, lambda: diffusion(video))


CONTENDERS = {"ours": ours, "theirs": theirs}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def gflop_per_clip(contender: Contender) -> float:
    """Floating-point operations of a loss and its gradient, convolutions, matrix products and attention alike."""
    # Written-out attention is a pair of matrix products that the counter knows; the fused CPU kernel is not.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        contender.loss().backward()
    return counter.get_total_flops() / BATCH / 1e9


def memory(field: str) -> int:
    """Bytes this process holds now ("VmRSS") or held at most ("VmHWM")."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss also remembers the process that started this one
        return int(status.read_text().split(field + ":")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of_three_steps(name: str) -> int:
    """Peak over the resident set after the imports, in bytes; meant for a process that does nothing else."""
    if name == "theirs":
        import_peer()
    before = memory("VmRSS")
    contender = CONTENDERS[name]()
    for _ in range(3):
        contender.step()
    return memory("VmHWM") - before


def measure(rounds: int, threads: int) -> dict:
    command = [sys.executable, __file__, "--threads", str(threads), "--memory-of"]
    peak = {
        name: int(subprocess.run([*command, name], check=True, capture_output=True, text=True).stdout)
        for name in CONTENDERS
    }
    torch.set_num_threads(threads)
    torch.manual_seed(0)  # their loss draws from the global generator
    our, their = ours(), theirs()
    square = torch.randn(MATRIX, MATRIX)
    product = torch.empty_like(square)
    gflop = {name: gflop_per_clip(c) for name, c in (("ours", our), ("theirs", their))}
    times: dict[str, list[float]] = {"ours": [], "theirs": [], "product": []}
    for round_ in range(rounds + 1):
        taken = {
            "product": [seconds(lambda: torch.mm(square, square, out=product)) for _ in range(10)],
            "ours": [seconds(our.step) for _ in range(5)],
            "theirs": [seconds(their.step)],
        }
        if round_ > 0:  # the first round warms up
            for name, values in taken.items():
                times[name] += values
    median = {name: statistics.median(values) for name, values in times.items()}
    parameters = {"ours": our.parameters, "theirs": their.parameters}
    if abs(parameters["ours"] / parameters["theirs"] - 1) > MAX_PARAMETER_DIFFERENCE:
        raise RuntimeError(f"not comparable: {parameters} parameters")
    product_rate = 2 * MATRIX**3 / median["product"] / 1e9
    rate = {name: gflop[name] * BATCH / median[name] for name in CONTENDERS}
    return {
        "command": f"python benchmarks/throughput.py --rounds {rounds} --threads {threads}",
        "peer": f"{PEER} {importlib.metadata.version(PEER)}, Unet3D(dim=32, channels=1, dim_mults=(1, 2, 4))",
        "machine": {"processor": processor(), "threads": threads, "torch": torch.__version__.split("+")[0]},
        "clips": {"batch": BATCH, "frames": FRAMES, "size": SIZE},
        "rounds": rounds,
        "parameters": parameters,
        "seconds_per_step": {name: round(median[name], 5) for name in CONTENDERS},
        "quartiles_of_seconds": {
            name: [round(q, 5) for q in statistics.quantiles(times[name], n=4)[::2]] for name in CONTENDERS
        },
        "gflop_per_clip": {name: round(value, 2) for name, value in gflop.items()},
        "gflop_per_second": {name: round(value, 1) for name, value in rate.items()},
        "matrix_product_gflop_per_second": round(product_rate, 1),
        "share_of_matrix_product": {name: round(rate[name] / product_rate, 3) for name in CONTENDERS},
        "peak_memory_mib": {name: round(value / 2**20) for name, value in peak.items()},
        "times_faster": round(median["theirs"] / median["ours"], 1),
        "memory_ratio": round(peak["ours"] / peak["theirs"], 3),
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    named = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return named[0].split(":")[1].strip() if named else platform.processor() or platform.machine()


def markdown(found: dict) -> str:
    """The table that the README shows."""
    unit = found["seconds_per_step"]["ours"]  # seconds of a shared machine mean little; ratios of one run hold
    relative = {
        name: "{:.1f} ({:.2f}–{:.2f})".format(
            found["seconds_per_step"][name] / unit, *(q / unit for q in found["quartiles_of_seconds"][name])
        )
        for name in CONTENDERS
    }
    rows = [
        ("parameters", "parameters", "{:,}"),
        ("time per training step, median (quartiles), ours = 1", "relative", "{}"),
        ("arithmetic per clip and step", "gflop_per_clip", "{:.1f} GFLOP"),
        ("share of the rate of a float32 matrix product", "share_of_matrix_product", "{:.0%}"),
        ("peak memory above the imports", "peak_memory_mib", "{:,} MiB"),
    ]
    lines = ["| | minivdm | " + found["peer"].split(",")[0] + " |", "|---|---|---|"]
    figures = found | {"relative": relative}
    lines += [
        f"| {title} | {form.format(figures[key]['ours'])} | {form.format(figures[key]['theirs'])} |"
        for title, key, form in rows
    ]
    machine, clips = found["machine"], found["clips"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    lines += [
        "",
        f"**{found['times_faster']:.1f} times faster** per step with **{found['memory_ratio']:.2f} of the "
        f"memory**, at {clips['frames']} × {clips['size']} × {clips['size']}, batch {clips['batch']}, float32, "
        f"torch {machine['torch']}, {threads} of {machine['processor']}, {found['rounds']} rounds "
        f"in turn; the matrix product has side {MATRIX}. Command: `make bench`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="steps of theirs; five times as many of ours")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dry", action="store_true", help="print the result, write nothing")
    parser.add_argument("--memory-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rounds < 2 or args.threads < 1:
        parser.error("--rounds takes a number from 2, --threads from 1")
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(memory_of_three_steps(args.memory_of))
        return
    found = measure(args.rounds, args.threads)
    if args.dry:
        print(json.dumps(found, indent=2))
        return
    tables.RESULTS.mkdir(exist_ok=True)
    (tables.RESULTS / "throughput.json").write_text(json.dumps(found, indent=2) + "\n")
    (tables.RESULTS / "throughput.md").write_text(markdown(found))
    tables.main()
    print(markdown(found))


if __name__ == "__main__":
    main()
