"""All weights that ship, made one after the other: each recipe trained, continued where it stopped, and exported."""

from __future__ import annotations

import time
from pathlib import Path

from minivdm.training import distributed, exports, recipes
from minivdm.training.checkpoints import load
from minivdm.training.recipe import Recipe
from minivdm.training.run import fit


def make(names: list[str] | None, runs: Path, device: str | None = None, minutes: float | None = None) -> int:
    """Make the weights of these recipes (all by default) and of those they start from, in order.

    A finished recipe is left alone and an unfinished one continued, so that the same call again goes on where this one
    stopped. The weights lie in runs/NAME/weights.

    Args:
        names: of the recipes.
        runs: where the folders of the runs lie.
        device: "cpu", "cuda" or "mps".
        minutes: stop, and save, after so long in all.

    Returns:
        The exit status: 0, or 128 and the number of the signal that stopped it.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    try:
        for recipe in recipes.in_order(names):
            left = None if end is None else (end - time.monotonic()) / 60
            if left is not None and left <= 0:
                return 0
            folder = runs / recipe.name
            if not finished(recipe, folder):
                init, teacher = _made(recipe.init, runs), _made(recipe.teacher, runs)
                run, ending = fit(recipe, folder, resume=True, init=init, teacher=teacher, device=device, minutes=left)
                if ending:
                    return 128 + ending
                if not run.trainer.world.first or run.trainer.clips < recipe.clips:
                    continue
            if not (folder / "weights" / f"{recipe.name}.json").exists():
                print(f"{recipe.name}: {exports.export(folder)}")
    finally:
        distributed.leave()
    return 0


def finished(recipe: Recipe, folder: Path) -> bool:
    """Whether the run in a folder has seen all the recipe's clips."""
    found = load(folder / "checkpoints")
    return found is not None and found[1]["clips"] >= recipe.clips


def _made(name: str, runs: Path) -> Path | None:
    """The weights of that recipe, which another starts or learns from, where they were made here; else `fit` looks for
    them."""
    made = runs / name / "weights" / f"{name}.safetensors"
    return made if name and made.exists() else None
