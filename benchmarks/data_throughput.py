"""How fast Moving-MNIST clips are made, beside how long a training step may take.

    python benchmarks/data_throughput.py [--device cuda] [--threads 2] [--step-seconds 0.9]

Prints frames per second for the settings that the course uses, and the share of a training step that the
batch costs.
"""

import argparse
import time

import torch

from minivdm.data.moving_mnist import MovingMNIST

SETTINGS: list[tuple[str, dict]] = [
    ("moving-mnist-32, one digit", {"size": 32, "frames": 16, "digits": 1}),
    ("moving-mnist-32, one or two digits", {"size": 32, "frames": 16, "digits": (1, 2)}),
    ("moving-mnist-32, stochastic", {"size": 32, "frames": 16, "digits": 1, "motion": "stochastic"}),
    ("moving-mnist-64, two digits", {"size": 64, "frames": 20, "digits": 2}),
]


def seconds_per_batch(data: MovingMNIST, batch: int, seconds: float) -> float:
    """The median time of a batch over about this many seconds."""
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        data.clips(range(len(times) * batch, (len(times) + 1) * batch))
        if data.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each setting")
    parser.add_argument("--step-seconds", type=float, help="a training step of batch 8, to compare with")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    print(f"{'setting':36} {'batch':>5} {'ms/batch':>9} {'frames/s':>10}")
    for name, keywords in SETTINGS:
        data = MovingMNIST(**keywords, device=arguments.device)
        for batch in (8, 256):
            seconds = seconds_per_batch(data, batch, arguments.seconds)
            share = ""
            if arguments.step_seconds and batch == 8:
                share = f"   {seconds / arguments.step_seconds:.2%} of a training step"
            print(f"{name:36} {batch:5} {seconds * 1e3:9.2f} {batch * data.frames / seconds:10,.0f}{share}")


if __name__ == "__main__":
    main()
