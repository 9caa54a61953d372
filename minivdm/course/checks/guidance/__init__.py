"""Checks of assignment 07: louder questions, and what they are answered with."""

from minivdm.course.checks.guidance.conditions import composed, guided_by_classifier, weight_at
from minivdm.course.checks.guidance.denoiser import guided_denoiser
from minivdm.course.checks.guidance.gaussians import ancestral_variance, flow_variance
from minivdm.course.checks.guidance.saturation import projected, rescaled

CHECKS = (
    guided_denoiser,
    composed,
    weight_at,
    guided_by_classifier,
    rescaled,
    projected,
    flow_variance,
    ancestral_variance,
)
