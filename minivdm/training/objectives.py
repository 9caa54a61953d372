"""What a network learns from a batch: to denoise it, unless the recipe says otherwise.

An objective says at which times the network is asked, and what the loss of a batch is. Those of published systems live
in `minivdm.systems`, a room that comes after this one: a recipe says their names, and they are looked up when a
training begins.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoiser, Loss
from minivdm.core.schedules import Schedule
from minivdm.core.targets import stratified_times
from minivdm.training.validate import between, check_arguments, known, require

#: name -> the class of the objective, "module:class", called (teacher, student, weighting); "" for `Denoising`.
OBJECTIVES: dict[str, str] = {
    "denoising": "",
    "progressive": "minivdm.systems.progressive_distillation:ProgressiveDistillation",
    "consistency": "minivdm.systems.consistency:ConsistencyDistillation",
}


class Batch(NamedTuple):
    """What one pass through the network learns from. video (b c f h w); conditions, batch first; frame mask (f f);
    times t (b,); noise like video."""

    video: Tensor
    conditions: dict[str, Any]
    mask: Tensor | None
    t: Tensor
    noise: Tensor


class Objective(Protocol):
    """What a network learns from a batch."""

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        """The times of n samples, (n,), float64."""

    def __call__(self, denoiser: Denoiser, average: Denoiser, batch: Batch) -> Loss:
        """The loss of a batch, whose `mean` is differentiated. average: the moving average of the denoiser."""


class Denoising:
    """The objective of all models that learn from data: VDM eq 2."""

    def __init__(self, schedule: Schedule, weighting: str, logit_normal: tuple[float, float] | None = None) -> None:
        self.schedule, self.weighting, self.logit_normal = schedule, weighting, logit_normal

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        """Stratified over the whole batch (see targets.stratified_times)."""
        return stratified_times(n, self.schedule, generator, logit_normal=self.logit_normal)

    def __call__(self, denoiser: Denoiser, average: Denoiser, batch: Batch) -> Loss:
        """The loss of a batch whose conditions are already left out where they shall be."""
        video, conditions, mask, t, noise = batch
        return denoiser.loss(
            video, t=t, noise=noise, weighting=self.weighting, label_drop=0.0, frame_mask=mask, **conditions
        )


@dataclass(frozen=True)
class Student:
    """How a student is to be sampled, and how its teacher is asked: the field `student` of a recipe.

    steps: that it takes from noise to clip. teacher_steps: of the teacher, in one of the student's. weight,
    temporal_weight: of the teacher's guidance, which the student learns with all else (see `tasks.guided`).
    own_estimate: whether a teacher made for self-conditioning first makes an estimate at the same z, which costs a
    call; else it gets none for its first step.
    """

    steps: int = 8
    teacher_steps: int = 2
    weight: float = 0.0
    temporal_weight: float = 0.0
    own_estimate: bool = False


def check(name: str, student: dict[str, Any], teacher: str, plain: bool) -> None:
    """Raise RecipeError for an objective that cannot be meant; looks at no weights.

    plain: whether the recipe has neither self-conditioning nor still images in its batches.
    """
    known("objective", name, OBJECTIVES)
    if not OBJECTIVES[name]:
        require(not student, "student", "nothing, as the objective is denoising", student)
        require(not teacher, "teacher", "none, as the objective is denoising", teacher)
        return
    check_arguments(Student, student, "student")
    how = Student(**student)
    for field, most in (("steps", 4096), ("teacher_steps", 4096)):
        between(f"student.{field}", getattr(how, field), 1, most)
    for field in ("weight", "temporal_weight"):
        between(f"student.{field}", getattr(how, field), 0, 100)
    require(bool(teacher), "teacher", "weights to learn from: those of another recipe, a file, a run", teacher)
    require(plain, "self_conditioning, images", "0, as a student learns from its teacher's steps alone", "more")


def make(
    name: str,
    student: dict[str, Any],
    teacher: Denoiser | None,
    schedule: Schedule,
    weighting: str,
    times: tuple[float, float] | None = None,
) -> Objective:
    """The objective of a recipe. teacher: its weights, where the recipe has one. times: see `stratified_times`."""
    if not OBJECTIVES[name]:
        return Denoising(schedule, weighting, times)
    module, _, of_class = OBJECTIVES[name].partition(":")
    objective: Objective = getattr(importlib.import_module(module), of_class)(teacher, Student(**student), weighting)
    return objective
