"""Checks of assignment 03: Langevin steps, scores of mixtures, losses that need no density, Tweedie's moments."""

from minivdm.course.checks.score_matching.langevin import annealed_langevin, langevin_step
from minivdm.course.checks.score_matching.losses import denoising_loss, implicit_loss, sliced_loss
from minivdm.course.checks.score_matching.mixtures import mixture_score, posterior_moments

CHECKS = (
    langevin_step,
    mixture_score,
    implicit_loss,
    sliced_loss,
    denoising_loss,
    posterior_moments,
    annealed_langevin,
)
