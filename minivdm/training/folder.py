"""The folder of a run: who may write into it, what it is a run of, and what a killed process left in it.

config.json (the recipe), checkpoints/, snapshots/, previews/, metrics.jsonl; weights/ once it is exported.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from minivdm.data.atomic import exclusive, remove_unfinished
from minivdm.guards import BadRun
from minivdm.training import checkpoints
from minivdm.training.recipe import FIXED, REPORTING, Recipe

LOCK = ".lock"


class RunFolderError(BadRun, ValueError):
    """The output folder holds something else than what the command is about, or another process writes into it."""


class ConfigurationMismatch(BadRun, ValueError):
    """A run is to be continued with another recipe than it was started with."""


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only process that writes into a run's folder, which is made if need be. Raises RunFolderError.

    The lock ends with the process, however it ends. A folder in which nothing was written is removed again.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(folder / LOCK) as mine:
            if not mine:
                raise RunFolderError(f"another process is training into {folder}; wait for it, or give another folder")
            yield
    finally:
        if made and [path.name for path in folder.iterdir()] == [LOCK]:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()
                folder.rmdir()


def saved_recipe(folder: Path) -> Recipe | None:
    """The recipe of the run in a folder, None if there is no run; from its checkpoints where config.json is lost.

    Raises DamagedCheckpoint where something is there that cannot be read.
    """
    path = folder / "config.json"
    try:
        if path.exists():
            return Recipe.from_dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        damage = f"{path} is no recipe ({error})"
    else:
        damage = ""
    found = checkpoints.load(folder / "checkpoints", say=lambda line: None)
    if found is not None:
        return Recipe.from_dict(found[1]["config"])
    if damage:
        raise checkpoints.DamagedCheckpoint(f"{damage}, and there is no checkpoint that knows it")
    return None


def check(recipe: Recipe, folder: Path, resume: bool, reconfigure: bool) -> Recipe | None:
    """The recipe with which the folder's run was started, None for a new one; nothing is changed.

    Raises RunFolderError, ConfigurationMismatch, DamagedCheckpoint where the run cannot go on in this folder.
    """
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"expected a folder for the run, got the file {folder}")
    saved = saved_recipe(folder)
    if saved is None:
        # Files whose names begin with a dot are not the user's: a desktop's, a lock, what a killed process left.
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise RunFolderError(f"{folder} holds files but no training run; give an empty or new folder")
        return None
    if not resume:
        raise RunFolderError(f"{folder} holds another run; continue it with --resume, or give another folder")
    differing = {key: pair for key, pair in saved.difference(recipe).items() if key not in REPORTING}
    rows = "; ".join(f"{key}: {old!r} there, {new!r} here" for key, (old, new) in differing.items())
    if fixed := [key for key in differing if key in FIXED]:
        raise ConfigurationMismatch(
            f"{folder} was started with another recipe ({rows}), and its {' and '.join(fixed)} cannot change: start a "
            f"new run from its weights, --init {folder} --out ANOTHER"
        )
    if differing and not reconfigure:
        raise ConfigurationMismatch(
            f"{folder} was started with another recipe ({rows}). Give the same one, or --reconfigure to go on with "
            f"this one"
        )
    return saved


def tidy(folder: Path, say: Callable[[str], None]) -> None:
    """Remove what killed processes left: half-written files, and tensors of a checkpoint that never became valid."""
    gone = [path for part in ("", "checkpoints", "snapshots", "previews") for path in remove_unfinished(folder / part)]
    saved = folder / "checkpoints"
    for path in saved.glob("clips-*.safetensors"):
        if checkpoints.NAME.fullmatch(path.name) and not path.with_suffix(".json").exists():
            path.unlink()
            gone.append(path)
    if gone:
        say(f"removed {len(gone)} unfinished files of an interrupted process, {gone[0].name} among them")
