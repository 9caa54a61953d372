"""Checks of assignment 15: what a student is told, where it is asked, and what it makes."""

from minivdm.course.checks.few_steps.targets import guided_target, student_loss, target_x
from minivdm.course.checks.few_steps.walks import consistency_sample, student_coefficient, walk_times

CHECKS = (walk_times, target_x, student_loss, consistency_sample, guided_target, student_coefficient)
