"""Checks of assignment 16: the scale and the rate of latents, code books, causal layers, time in an image model."""

from minivdm.course.checks.latent_video.latents import nearest_code, normalised, rate_and_error
from minivdm.course.checks.latent_video.layers import align, causal_convolution
from minivdm.course.checks.latent_video.revision import remade

CHECKS = (normalised, rate_and_error, nearest_code, causal_convolution, align, remade)
