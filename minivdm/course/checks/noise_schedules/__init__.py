"""Checks of assignment 02: the log-SNR, transitions and posteriors, and schedules that end where they should."""

from minivdm.course.checks.noise_schedules.density import cosine_density
from minivdm.course.checks.noise_schedules.schedules import alpha_sigma, log_linear_schedule, rescaled_betas
from minivdm.course.checks.noise_schedules.transitions import posterior, transition

CHECKS = (alpha_sigma, transition, log_linear_schedule, posterior, rescaled_betas, cosine_density)
