"""Checks of assignment 04: the terms of the variational bound, and what a squared error costs in nats."""

from minivdm.course.checks.elbo.covariances import full_kl
from minivdm.course.checks.elbo.diffusion import diffusion_term, elbo_weight, gaussian_diffusion
from minivdm.course.checks.elbo.terms import bits_per_value, both_ends, step_price

CHECKS = (step_price, both_ends, bits_per_value, diffusion_term, gaussian_diffusion, elbo_weight, full_kl)
