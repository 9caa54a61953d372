"""Checks of assignment 01: Brownian steps, linear SDEs, and the way between (f, g) and (alpha, sigma)."""

from minivdm.course.checks.forward_sdes.moments import moment_rates, power_diffusion, straight_line_sde
from minivdm.course.checks.forward_sdes.paths import brownian_path, euler_maruyama_step, solution_along_a_path

CHECKS = (brownian_path, euler_maruyama_step, straight_line_sde, solution_along_a_path, moment_rates, power_diffusion)
