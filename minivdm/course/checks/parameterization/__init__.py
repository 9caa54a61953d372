"""Checks of assignment 05: the names of a prediction, what an error becomes, and what is left to learn."""

from minivdm.course.checks.parameterization.conversions import convert, from_velocity, turned
from minivdm.course.checks.parameterization.errors import best_v, exchange, min_snr_weight
from minivdm.course.checks.parameterization.preconditioning import edm_coefficients

CHECKS = (exchange, convert, turned, min_snr_weight, from_velocity, best_v, edm_coefficients)
