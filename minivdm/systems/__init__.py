"""Published systems, one file each: every one composes the core and changes no contract of it. Lessons 13 and on.

progressive_distillation (lesson 15); consistency (lesson 15).
"""

from minivdm.systems.progressive_distillation import (
    ProgressiveDistillation,
    TooManySteps,
    student_times,
    target_v,
    target_x,
    walk,
)

__all__ = ["ProgressiveDistillation", "TooManySteps", "student_times", "target_v", "target_x", "walk"]
