"""Checks of assignment 06: steps from noise to data."""

from minivdm.course.checks.samplers.ddim import clipped_ddim_step, ddim_step
from minivdm.course.checks.samplers.likelihoods import hutchinson_variances, log_likelihood
from minivdm.course.checks.samplers.loop import sample
from minivdm.course.checks.samplers.second_order import karras_step, single_step
from minivdm.course.checks.samplers.stochastic import ancestral_step, any_noise_step, langevin_step

CHECKS = (
    hutchinson_variances,
    log_likelihood,
    sample,
    ddim_step,
    ancestral_step,
    clipped_ddim_step,
    langevin_step,
    karras_step,
    single_step,
    any_noise_step,
)
