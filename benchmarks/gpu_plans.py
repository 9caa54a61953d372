"""What `gpu.py` trains: recipes, fitted to a device that is fast and to a time that is short."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from minivdm.training import recipes
from minivdm.training.recipe import Recipe


class Plan(NamedTuple):
    """How a recipe is trained here. share: of the time of all parts. short: frames and batch of the clips that come
    first, for a fifth of the recipe's time; none by default."""

    recipe: Recipe
    share: float
    short: tuple[int, int] | None = None


#: What is common: a batch that fills the device, reports that do not hold it up.
COMMON: dict[str, Any] = dict(precision="bf16", optimizer="muon", batch=256, clips=10**9, log_every=6_400,
                              save_every=10**9, preview_every=10**9, milestones=())  # fmt: skip
#: A student's batches are small, as each of their targets takes several calls of the teacher.
STUDENT: dict[str, Any] = dict(COMMON, batch=128, lr=1e-3, warmup=1_280, ema_decay=0.99)


def plans() -> dict[str, Plan]:
    """Every recipe that can be trained here."""

    def of(name: str, share: float, short: tuple[int, int] | None = None, **fields: Any) -> Plan:
        return Plan(dataclasses.replace(recipes.get(name), **{**COMMON, **fields}), share, short)

    known = {
        "moving-mnist-32": of("moving-mnist-32", 3.0, frames=16, init="moving-mnist-32", lr=2e-3, decay=0.5,
                              warmup=12_800, seed=4, data_seed=4),
        "moving-mnist-64": of("moving-mnist-64", 3.0, (4, 512), frames=20, batch=128, compile=False, seed=1,
                              data_seed=1),
        "moving-mnist-32-two": of("moving-mnist-32-two", 2.0, frames=16, lr=2e-3, warmup=12_800, decay=0.5, seed=1,
                                  data_seed=1),
    }  # fmt: skip
    for steps, share in {16: 0.9, 8: 0.5, 4: 0.5, 2: 0.5, 1: 0.5}.items():
        known[f"few-{steps}"] = of(f"few-{steps}", share, **STUDENT)
    # Sentences are made by the CPU, more slowly than the GPU learns them; where a clip goes is decided in much noise.
    known["text-32"] = of("text-32", 2.0, init="text-32", lr=2e-3, warmup=6_400, decay=0.5, ema_decay=0.999,
                          keep=32_768, times=(1.5, 1.5), seed=1)  # fmt: skip
    return known
