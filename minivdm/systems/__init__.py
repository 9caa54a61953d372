"""Published systems, one file each: every one composes the core and changes no contract of it. Lessons 13 and on.

progressive_distillation, then consistency, which builds on it; few_steps samples their students (lesson 15).
"""

from minivdm.systems.consistency import ConsistencyDistillation, ExactConsistency, consistency_step
from minivdm.systems.few_steps import student_of, student_sampling
from minivdm.systems.progressive_distillation import (
    AffineStudent,
    ProgressiveDistillation,
    TooManySteps,
    student_times,
    target_v,
    target_x,
    walk,
)

__all__ = [
    "AffineStudent",
    "ConsistencyDistillation",
    "ExactConsistency",
    "ProgressiveDistillation",
    "TooManySteps",
    "consistency_step",
    "student_of",
    "student_sampling",
    "student_times",
    "target_v",
    "target_x",
    "walk",
]
