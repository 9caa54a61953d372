"""Checks of assignment 10: what a model of videos says about frames that are given."""

from minivdm.course.checks.extending.blocks import blocks_before, seam_score
from minivdm.course.checks.extending.continuation import extend
from minivdm.course.checks.extending.reconstruction import guided_by_reconstruction, right_weight, two_frames
from minivdm.course.checks.extending.replacement import masked_replacement, path_replacement

CHECKS = (
    extend,
    seam_score,
    masked_replacement,
    path_replacement,
    two_frames,
    right_weight,
    guided_by_reconstruction,
    blocks_before,
)
