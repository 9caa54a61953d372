"""The named recipes: every set of weights that ships is made by one of them. `python -m minivdm recipes` lists them."""

from __future__ import annotations

import json
from typing import Any

from minivdm.data.captions import VOCABULARY
from minivdm.training.recipe import Recipe
from minivdm.training.validate import known, require


def few(steps: int, teacher: str, clips: int, **student: Any) -> Recipe:
    """A student of `steps` steps, which starts from its teacher and learns to do in one step what that does in two.

    Batches are small and few, as each target costs several calls of the teacher; the rate falls along a line to 0, as
    in each halving of Salimans & Ho 2022. The student gets no estimate of its own (self-conditioning): one call, one
    answer, and nothing to hand on.
    """
    return Recipe(
        name=f"few-{steps}",
        speed=0.9,
        network={"width": 32, "multipliers": [1, 2, 4], "patch": 2, "labels": 10},
        conditions={"labels": 0.1},
        init=teacher,
        objective="progressive",
        teacher=teacher,
        student={"steps": steps, **student},
        weighting="truncated_snr",
        clips=clips,
        warmup=160,
        optimizer="muon",
        lr=5e-4,
        lr_end=0.0,
        decay=1.0,
        ema_decay=0.99,
        precision="bf16",
        save_every=400,
        milestones=(),
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        # One digit at half the canonical speed: what two cores learn in about four hours. Short clips first: four
        # frames show four times as many digits for the same arithmetic. The weights that ship were made in four runs,
        # as the recipe grew; their card has the commands, and this is the straight way to them.
        Recipe(
            name="moving-mnist-32",
            speed=0.9,
            network={"width": 32, "multipliers": [1, 2, 4], "patch": 2, "labels": 10, "self_conditioning": True},
            conditions={"labels": 0.3},
            self_conditioning=0.5,
            clips=110_000,
            warmup=1_600,
            optimizer="muon",
            lr=2e-3,
            ema_decay=0.999,
            precision="bf16",
            frames=((24_000, 4, 16), (34_000, 8, 8), (110_000, 16, 8)),
            milestones=(1_000, 3_000, 10_000, 30_000, 50_000, 100_000),
        ),
        # The harder one: one or two digits at canonical speed. It starts from the network of one slow digit, which
        # knows glyphs and paths; from there it takes an hour and a half of one core.
        Recipe(
            name="moving-mnist-32-two",
            digits=(1, 2),
            speed=1.8,
            init="moving-mnist-32",
            network={"width": 32, "multipliers": [1, 2, 4], "patch": 2, "labels": 10, "self_conditioning": True},
            conditions={"labels": 0.2},
            self_conditioning=0.5,
            clips=44_000,
            warmup=800,
            optimizer="muon",
            lr=2e-3,
            decay=0.6,
            ema_decay=0.999,
            precision="bf16",
            frames=((16_000, 4, 32), (44_000, 16, 8)),
        ),
        # Fewer and fewer steps (lesson 15). The first halving learns guidance with it: three calls become one.
        few(16, "moving-mnist-32", 3_400, weight=1.0, temporal_weight=0.75, own_estimate=True),
        few(8, "few-16", 4_000),
        few(4, "few-8", 4_000),
        few(2, "few-4", 4_000),
        few(1, "few-2", 4_000),
        # Text to video: the label model goes on with captions; its labels stay, in one clip of five.
        Recipe(
            name="text-32",
            data="captioned-mnist",
            speed=0.9,
            init="moving-mnist-32",
            network={
                "width": 32,
                "multipliers": [1, 2, 4],
                "patch": 2,
                "labels": 10,
                "self_conditioning": True,
                "text": len(VOCABULARY),
            },
            conditions={"labels": 0.8, "text": 0.15},
            self_conditioning=0.5,
            times=(1.5, 1.5),  # where a clip goes is decided in much noise: even times leave the direction at chance
            clips=12_000,
            frames=16,
            warmup=400,
            optimizer="muon",
            lr=1.5e-3,
            decay=0.4,
            ema_decay=0.998,
            seed=3,
            data_seed=3,
            precision="bf16",
            save_every=2_000,
            preview_every=6_000,
            milestones=(),
        ),
        # One's own videos, in colour and without labels: python -m minivdm train own-videos --set path=FOLDER
        Recipe(
            name="own-videos",
            data="folder",
            network={"channels": 3, "width": 32, "multipliers": [1, 2, 4], "patch": 2, "labels": 0},
            conditions={},
            clips=100_000,
            warmup=1_600,
            optimizer="muon",
            lr=2e-3,
            ema_decay=0.999,
            frames=((30_000, 4, 16), (45_000, 8, 8), (100_000, 16, 8)),
        ),
        # The canonical setting, two digits on 64 x 64, for a GPU.
        Recipe(
            name="moving-mnist-64",
            size=64,
            digits=2,
            speed=3.6,
            network={
                "width": 48,
                "multipliers": [1, 2, 4],
                "patch": 4,
                "labels": 10,
                "head_channels": 24,
                "self_conditioning": True,
            },
            conditions={"labels": 0.2},
            self_conditioning=0.5,
            clips=2_000_000,
            frames=((400_000, 4, 512), (2_000_000, 20, 128)),
            optimizer="muon",
            lr=2e-3,
            decay=0.5,
            warmup=12_800,
            ema_decay=0.999,
            precision="bf16",
            compile=True,
            log_every=6_400,
            save_every=64_000,
            preview_every=128_000,
            milestones=(10_000, 50_000, 200_000, 1_000_000),
        ),
    )
}


def get(name: str) -> Recipe:
    """The recipe of that name. Raises RecipeError with the list of names."""
    require(isinstance(name, str), "recipe", "a name", name)
    known("recipe", name, RECIPES)
    return RECIPES[name]


def command(recipe: Recipe) -> str:
    """The shell command that starts a run of this recipe (without its output folder)."""
    base = RECIPES.get(recipe.name) or next(iter(RECIPES.values()))
    words = [f"--set '{key}={json.dumps(new)}'" for key, (_, new) in base.difference(recipe).items()]
    return " ".join([f"python -m minivdm train {base.name}", *words])


def in_order(names: list[str] | None = None) -> list[Recipe]:
    """The recipes of these names and those whose weights they start or learn from, which come first; by default all
    but those of one's own videos.

    Raises RecipeError for an unknown name and for recipes that wait for each other.
    """
    done: list[str] = []

    def add(name: str, waiting: tuple[str, ...] = ()) -> None:
        require(name not in waiting, "init", "weights that do not start from these", " <- ".join((name, *waiting)))
        if name in done:
            return
        for before in (get(name).init, get(name).teacher):
            if before in RECIPES:
                add(before, (name, *waiting))
        done.append(name)

    for name in names or [name for name, recipe in RECIPES.items() if recipe.data != "folder"]:
        add(name)
    return [RECIPES[name] for name in done]
