"""The small run that is attacked, in processes that can be killed, and all that it leaves.

24 clips in three phases, with previews and snapshots. The processes are forked, so that a killed one is really killed;
this needs Linux or macOS, and a machine without an accelerator.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable
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
