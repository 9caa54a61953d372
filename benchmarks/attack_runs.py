"""Training under attack: killed, damaged, starved of disk, doubled; and whether it goes on as if nothing had happened.

A small run (24 clips, three phases, previews, snapshots) is trained once undisturbed. Then each attack interrupts or
damages a run, the run is continued, and all that it leaves is compared: every tensor of the checkpoint, the rows of
metrics but for their seconds, snapshots and previews byte for byte, and that no half-written file is left. The attacks
fork, so that a killed process is really killed; this needs Linux or macOS, and a machine without an accelerator.

`attack.py` runs them.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a process with other threads cannot be forked safely

from minivdm import training
from minivdm.data.atomic import TEMPORARY
from minivdm.training import Recipe, checkpoints, monitor

NETWORK = {"width": 8, "multipliers": [1], "spatial": [False], "temporal": [True], "patch": 4, "head_channels": 8,
           "embedding": 8, "middle": 0, "labels": 10}  # fmt: skip
RECIPE = Recipe(
    name="attacked",
    size=16,
    speed=1.0,
    network=NETWORK,
    clips=24,
    frames=((8, 2, 4), (16, 4, 2), (24, 3, 4)),
    optimizer="muon",
    warmup=8,
    log_every=4,
    save_every=6,
    preview_every=12,
    milestones=(10,),
)
MAKE_DATA = Recipe.make_data
PREVIEW = functools.partial(monitor.preview, clips=2, steps=2)
HELD_OUT = functools.partial(monitor.held_out, clips=2, batch=2)
#: What counts as an operation on files: the audit events of Python that change a folder, and fsync.
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod")


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


# ---- a run, and what it leaves -------------------------------------------------------------------------------


@functools.cache
def _data(frames: int, split: str) -> Any:
    return MAKE_DATA(RECIPE, frames, split)


def make_data(recipe: Recipe, frames: int | None = None, split: str = "train", device: Any = "cpu") -> Any:
    """Sources of clips, each made once; they have no state."""
    return _data(frames or recipe.phases()[-1].frames, split)


def train(folder: Path, resume: bool = True) -> int:
    """Train the small run; 0, or the number of the signal that stopped it. It looks at few samples and makes its data
    once, as otherwise most of its time would go there."""
    with (
        mock.patch.multiple(monitor, preview=PREVIEW, held_out=HELD_OUT),
        mock.patch.object(Recipe, "make_data", make_data),
    ):
        return training.fit(RECIPE, folder, resume=resume, device="cpu", progress=False)[1]


def left(folder: Path) -> dict[str, Any]:
    """All that has to be the same, however the run was interrupted."""
    found = checkpoints.load(folder / "checkpoints", lambda line: None)
    assert found is not None, "no checkpoint"
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in monitor.rows(folder / "metrics.jsonl")]
    files = {
        f"{part}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("snapshots", "previews")
        for path in (folder / part).iterdir()
    }
    tensors = {name: hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for name, t in found[0].items()}
    listed = [path.name for path in checkpoints.listed(folder / "checkpoints")]
    unfinished = [path.name for path in folder.rglob("*") if TEMPORARY.match(path.name)]
    return {"tensors": tensors, "rows": rows, "files": files, "listed": listed, "unfinished": unfinished}


def differing(folder: Path, expected: dict[str, Any]) -> str:
    """In what a run differs from the undisturbed one; "" if in nothing."""
    try:
        found = left(folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ", ".join(key for key in expected if found[key] != expected[key])


def forked(call: Callable[[], Any]) -> int:
    """Run `call` in a process of its own, in silence; its exit status, or minus the signal that killed it."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            status = int(call() or 0)
        except training.RunFolderError:
            status = 71
        except OSError as error:
            status = 72 if error.filename else 73  # an error that names its file, or does not
        except BaseException:
            status = 74
        finally:
            os._exit(status)
    return child


def wait(child: int) -> int:
    """The exit status of a forked process, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_operation(folder: Path, number: int, act: Callable[[], None]) -> Callable[[], int]:
    """A training that does `act` before the operation of that number on the folder's files."""

    def run() -> int:
        count = [0]

        def operation(handle: int | None = None) -> None:
            count[0] += 1
            if count[0] == number:
                if handle is not None and number % 2:  # a file of which half has reached the disk
                    os.ftruncate(handle, os.fstat(handle).st_size // 2)
                act()

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            ours = event in EVENTS and str(arguments[0]).startswith(str(folder))
            reading = event == "open" and arguments[1] is not None and not set(str(arguments[1])) & set("wax+")
            if ours and not reading:
                operation()

        sync = os.fsync

        def fsync(handle: int) -> None:
            operation(handle)
            sync(handle)

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(hook)
        train(folder)
        return 0 if number else min(count[0], 255)

    return run


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
