"""Training under attack: killed, damaged, starved of disk, doubled; and whether it goes on as if nothing had happened.

The small run of `attacked_run.py` is trained once undisturbed. Then each attack interrupts or damages a run, the run is
continued, and all that it leaves is compared: every tensor of the checkpoint, the rows of metrics but for their
seconds, snapshots and previews byte for byte, and that no half-written file is left.

`attack.py` runs them.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attacked_run import at_operation, differing, forked, left, train, wait  # before torch

from minivdm import training
from minivdm.data.atomic import TEMPORARY
from minivdm.training import checkpoints


@dataclass
class Outcome:
    """What came of one kind of attack. of: how many there are. failed: what went wrong, one line each."""

    name: str
    of: int = 0
    tried: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, what: str, problem: str) -> None:
        """Count one attack; problem: "" if all was well."""
        self.tried += 1
        if problem:
            self.failed.append(f"{what}: {problem}")
            print(f"FAILED {self.name}, {self.failed[-1]}", flush=True)


TimeUp = Callable[[], bool]


def before(time_up: TimeUp, items: Iterable[Any]) -> Iterator[Any]:
    """The items, until the time is up; the first one in any case."""
    for number, item in enumerate(items):
        if number and time_up():
            return
        yield item


# ---- attacks -------------------------------------------------------------------------------------------------


def count_operations(folder: Path) -> int:
    """How many operations on files the undisturbed run makes."""
    return wait(forked(at_operation(folder, 0, lambda: None)))


def killed_at_operations(scratch: Path, expected: dict[str, Any], numbers: list[int], time_up: TimeUp) -> Outcome:
    """SIGKILL before the operations of these numbers, then continue."""
    outcome = Outcome("SIGKILL at a file operation", len(numbers))
    for number in before(time_up, numbers):
        folder = scratch / f"operation-{number}"
        status = wait(forked(at_operation(folder, number, lambda: os.kill(os.getpid(), signal.SIGKILL))))
        again = wait(forked(lambda folder=folder: train(folder)))  # type: ignore[misc]
        problem = differing(folder, expected) if again == 0 else f"cannot be continued ({again})"
        outcome.add(f"operation {number} ({status})", problem)
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def killed_at_random(
    scratch: Path, expected: dict[str, Any], seconds: float, draws: list[float], time_up: TimeUp
) -> Outcome:
    """SIGKILL after a random part of the seconds that a run takes, then continue."""
    outcome = Outcome("SIGKILL at a random moment", len(draws))
    for number, share in enumerate(before(time_up, draws)):
        folder = scratch / f"random-{number}"
        child = forked(lambda folder=folder: train(folder))  # type: ignore[misc]
        time.sleep(share * seconds)
        os.kill(child, signal.SIGKILL)
        wait(child)
        again = wait(forked(lambda folder=folder: train(folder)))  # type: ignore[misc]
        problem = differing(folder, expected) if again == 0 else f"cannot be continued ({again})"
        outcome.add(f"after {share * seconds:.2f} s", problem)
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def stopped_by_signals(scratch: Path, expected: dict[str, Any]) -> Outcome:
    """SIGINT, SIGTERM, SIGHUP: the run saves, says so by its status, and is continued."""
    outcome = Outcome("SIGINT, SIGTERM, SIGHUP", 3)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        folder = scratch / number.name

        def run(folder: Path = folder, number: int = number) -> int:
            # Behind `nohup`, or in a shell's background, some are ignored, and then rightly by a training too.
            signal.signal(number, signal.SIG_DFL)
            step = training.Trainer.step

            def step_and_signal(self: training.Trainer) -> None:
                step(self)
                if self.clips == 10:
                    signal.raise_signal(number)

            training.Trainer.step = step_and_signal  # type: ignore[method-assign]
            return train(folder)

        status = wait(forked(run))
        saved = checkpoints.listed(folder / "checkpoints")
        good = status == number and bool(saved) and checkpoints.number(saved[-1]) == 10
        again = wait(forked(lambda folder=folder: train(folder)))  # type: ignore[misc]
        problem = differing(folder, expected) if again == 0 else f"cannot be continued ({again})"
        outcome.add(number.name, problem if good else f"did not save and stop ({status}, {saved}) {problem}")
    return outcome


def only_looks_are_missing(folder: Path, expected: dict[str, Any]) -> bool:
    """Whether the rows of metrics are the expected ones but for held-out errors."""
    rows = left(folder)["rows"]
    return all(row in expected["rows"] for row in rows) and all(
        row in rows for row in expected["rows"] if row["kind"] != "held_out"
    )


def full_disk(scratch: Path, expected: dict[str, Any], numbers: list[int], time_up: TimeUp) -> Outcome:
    """ENOSPC in the operations of these numbers: an error that names a file, nothing left, and a run that goes on."""
    outcome = Outcome("no space left at a file operation", len(numbers))

    def full() -> None:
        raise OSError(28, "No space left on device")

    for number in before(time_up, numbers):
        folder = scratch / f"full-{number}"
        status = wait(forked(at_operation(folder, number, full)))
        unfinished = [p.name for p in folder.rglob("*") if TEMPORARY.match(p.name)] if folder.exists() else []
        again = wait(forked(lambda folder=folder: train(folder)))  # type: ignore[misc]
        problem = differing(folder, expected) if again == 0 else f"cannot be continued ({again})"
        # A look at the model that cannot be written is a warning, not the end of a run: a preview, or a measurement.
        if status == 0 and (problem == "files" or (problem == "rows" and only_looks_are_missing(folder, expected))):
            problem = ""
        if unfinished:
            problem += f" left {unfinished}"
        outcome.add(f"operation {number} ({status})", problem)
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def two_at_once(scratch: Path, expected: dict[str, Any], rounds: int, time_up: TimeUp) -> Outcome:
    """Two trainings into one folder: one does all of it, the other is refused by name."""
    outcome = Outcome("two processes on one folder", rounds)
    for number in before(time_up, range(rounds)):
        folder = scratch / f"two-{number}"
        children = [forked(lambda folder=folder: train(folder)) for _ in range(2)]  # type: ignore[misc]
        statuses = sorted(wait(child) for child in children)
        # 0 and 0: one had finished before the other began, and there was nothing left to do.
        problem = "" if statuses in ([0, 71], [0, 0]) else f"exit statuses {statuses}"
        outcome.add(f"round {number}", problem or differing(folder, expected))
    return outcome


def damaged(scratch: Path, whole: Path, expected: dict[str, Any], draws: list[float], time_up: TimeUp) -> Outcome:
    """A bit flipped or the end cut off in a file of a finished run, which is then continued.

    Damage has to be noticed (the checkpoint before is used, and leads to the same end) or to be named in an error;
    rows of metrics that were destroyed cannot come back, but no other may change.
    """
    outcome = Outcome("a damaged file of a run", len(draws))
    files = sorted(
        path for path in whole.rglob("*") if path.is_file() and path.parent.name in ("checkpoints", whole.name)
    )
    files = [path for path in files if path.name != ".lock"]
    for number, share in enumerate(before(time_up, draws)):
        folder = scratch / f"damaged-{number}"
        shutil.copytree(whole, folder)
        path = folder / files[number % len(files)].relative_to(whole)
        data = bytearray(path.read_bytes())
        place = int(share * len(data))
        if number // len(files) % 2:
            del data[place:]
        else:
            data[place] ^= 1 << number % 8
        path.write_bytes(data)
        status = wait(forked(lambda folder=folder: train(folder)))  # type: ignore[misc]
        problem = differing(folder, expected) if status == 0 else ""
        if path.name == "metrics.jsonl" and problem == "rows":
            problem = ""
        what = f"{path.relative_to(folder)}, byte {place} of {len(data)}"
        outcome.add(what, problem if status in (0, 74) else f"exit status {status}")
        shutil.rmtree(folder, ignore_errors=True)
    return outcome
