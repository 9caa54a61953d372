"""Students at work: which ship, how many steps each knows, and clips from them.

The weights few-N know N steps from noise to clip, at the times i / N, and the guidance that their teacher had: one call
a step, and nothing to guide.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minivdm import tasks
from minivdm.core.samplers import Sampling
from minivdm.guards import BadArgument, check_types, whole
from minivdm.systems.progressive_distillation import TooManySteps
from minivdm.training import pretrained
from minivdm.training.objectives import Student

NAME = re.compile(r"few-(\d+)")


def shipped(folder: Path | None = None) -> list[int]:
    """The numbers of steps of the students that ship, most first. folder: where the weights lie."""
    found = [NAME.fullmatch(name) for name in pretrained.available(folder)]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def load(few: int, device: str | torch.device = "cpu", folder: Path | None = None) -> pretrained.TrainedDenoiser:
    """The student of `few` steps. Raises TooManySteps, before anything is loaded, where none of so many ships."""
    known = shipped(folder)
    if whole("few", few) not in known:
        wanted = ", ".join(map(str, known)) or "none yet: `python -m minivdm train few-16`, then few-8, makes them"
        raise TooManySteps(f"few: expected a number of steps that a student knows, {wanted}; got {few}")
    return pretrained.load(f"few-{few}", device, folder)


def student_of(model: Any) -> Student | None:
    """How trained weights are to be sampled, if they are a student's; else None."""
    student = getattr(getattr(model, "config", None), "student", None)
    return Student(**student) if student else None


def student_sampling(model: Any, steps: int | None = None) -> Sampling:
    """The sampling of a student: DDIM at as many steps as it knows, or, at a loss, at a divisor of them.

    An estimate of a student is right for a step of 1/N; a longer one along it ends elsewhere. Raises TooManySteps
    before anything is computed, BadArgument for weights that are no student's.
    """
    student = student_of(model)
    if student is None:
        raise BadArgument("model: expected the weights of a student, such as few-8, got others")
    steps = student.steps if steps is None else whole("steps", steps)
    if student.steps % steps:
        divisors = ", ".join(str(n) for n in range(1, student.steps + 1) if student.steps % n == 0)
        raise TooManySteps(f"steps: expected {divisors}, as this student knows {student.steps} steps, got {steps}")
    return Sampling(steps=steps)


def generate(
    model: pretrained.TrainedDenoiser,
    labels: Tensor | None = None,
    *,
    steps: int | None = None,
    weight: float = 0.0,
    temporal_weight: float = 0.0,
    **named: Any,
) -> Tensor:
    """Videos (b, c, f, h, w) in about [-1, 1] from a student, one call of the network a step.

    Args:
        model: the weights of a student.
        labels: (b, n) or (1, n) multi-hot, or None, as for `tasks.generate`.
        steps: as many as the student knows, or a divisor of them.
        weight, temporal_weight: 0; the student has learnt its guidance, and another is refused.
        named: `count`, `shape`, `generator`, `clip`, `progress`, `callback`, as for `tasks.generate`.

    Raises:
        TooManySteps, BadArgument: before anything is computed.
    """
    sampling = student_sampling(model, steps)
    if weight or temporal_weight:
        got = f"{weight}, {temporal_weight}"
        raise BadArgument(f"weight, temporal_weight: expected 0, as a student has learnt its guidance, got {got}")
    return tasks.generate(model, labels, sampling=sampling, **named)


check_types(globals())
