"""Checks of assignment 14: what a stage is handed, what it makes of it, and a network that starts as another one."""

from minivdm.course.checks.cascades.handover import augment, second_stage, small_clip
from minivdm.course.checks.cascades.stages import pseudo_3d, run_cascade, threshold

CHECKS = (small_clip, augment, threshold, pseudo_3d, run_cascade, second_stage)
