"""What a run has to know of the other processes under torchrun: its rank, their number, and when all stop.

A signal to torchrun reaches all processes: they save and end, and the first says "stopped: ... saved in ...". torchrun
itself then ends with status 1 and a traceback of its own (SignalException), as it does after any signal and whatever
its processes did; a script that starts a job again should look at the run's folder, or simply `--resume`.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from minivdm import guards

TIME_UP = 1_000  # no signal has this number


@dataclass(frozen=True)
class World:
    """Rank of this process, number of processes, and rank on this host (which GPU to take)."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """True in the one process that writes files and speaks."""
        return self.rank == 0


def join(device: str | torch.device | None = None) -> tuple[World, torch.device]:
    """Join the process group that torchrun announces in the environment, if any, and choose the device.

    device: "cpu", "cuda", "mps", or None for a CUDA GPU if there is one and the CPU if not. Raises BadArgument for a
    device that is not there.
    """
    world = World(
        *(int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    )
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"  # an Apple GPU only by name: nothing is tested on one
    chosen = guards.device("device", device)
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(chosen.type, False):
        usable = ", ".join(kind for kind, usable in here.items() if usable)
        raise guards.BadArgument(f"device: expected one of {usable} on this machine, got {chosen.type}")
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", world.local_rank)
        torch.cuda.set_device(chosen)
    if world.size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return world, chosen


ALONE = World()


def leave() -> None:
    """Leave the process group, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier(world: World) -> None:
    """Wait until every process is here."""
    if world.size > 1:
        dist.barrier()


class ProcessLost(guards.BadRun):
    """Another process of the run has ended, and this one cannot go on alone."""


@contextlib.contextmanager
def together(world: World) -> Iterator[None]:
    """Context in which the end of another process is named, instead of what gloo or NCCL say of it."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))
        if world.size == 1 or not lost:
            raise
        first = str(error).splitlines()[0][:200]
        raise ProcessLost(
            f"another of the run's {world.size} processes has ended; start all of them again with --resume, from the "
            f"newest checkpoint on ({first})"
        ) from error


def add_up(tensor: torch.Tensor, world: World) -> torch.Tensor:
    """Sum over all processes, a new tensor."""
    total = tensor.clone()
    if world.size > 1:
        dist.all_reduce(total)
    return total


class StopRequest:
    """Context in which Ctrl-C, SIGTERM and SIGHUP (a closed terminal) ask to stop after the current step; a second
    Ctrl-C interrupts at once. A signal that is ignored (`nohup`) stays ignored.

    seconds: ask to stop after so long as well.
    """

    def __init__(self, world: World, device: torch.device, seconds: float | None = None):
        self.world, self.device = world, device
        self.deadline = math.inf if seconds is None else time.monotonic() + seconds
        self.signal = 0
        self._calls, self._every, self._asked = 0, 1, time.monotonic()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # signals cannot be caught elsewhere
            for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):  # not every system has all
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: object) -> None:
        if self.signal and number == signal.SIGINT and self.world.size == 1:  # torchrun repeats every Ctrl-C
            raise KeyboardInterrupt
        self.signal = number

    def agreed(self) -> int:
        """The signal to stop for, TIME_UP, or 0; the same answer in every process. That costs a message, so several
        processes ask each other every second or so, at every 8th call at the latest."""
        mine = self.signal or (TIME_UP if time.monotonic() > self.deadline else 0)
        if self.world.size == 1:
            return mine
        self._calls += 1
        if self._calls % self._every:
            return 0
        seconds = (time.monotonic() - self._asked) / self._every  # a step's, in this process
        asked = torch.tensor([mine, seconds], device=self.device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        # The slowest process's step says for all of them when to ask again.
        self._calls, self._every = 0, max(1, min(8, int(1 / max(1e-6, float(asked[1])))))
        self._asked = time.monotonic()
        return int(asked[0])
