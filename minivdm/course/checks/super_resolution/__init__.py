"""Checks of assignment 11: what an observation fixes, and who fills in the rest."""

from minivdm.course.checks.super_resolution.camera import long_exposure, project
from minivdm.course.checks.super_resolution.guided import natural_weight, super_resolve
from minivdm.course.checks.super_resolution.posterior import condition, posterior_covariance

CHECKS = (long_exposure, project, super_resolve, posterior_covariance, natural_weight, condition)
