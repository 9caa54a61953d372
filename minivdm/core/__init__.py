"""The evening: diffusion itself, on any tensor. Knows no network and no video.

Read in this order: schedules, gaussian, targets, denoiser, guidance, autoguidance, observe, time_grids, ode, samplers,
self_conditioning. `minivdm.guards` says what all of them refuse.
"""

# ruff: noqa: I001
# fmt: off
from minivdm.core.autoguidance import FramesApart, Weaker, away_from
from minivdm.core.denoiser import (
    Conditional, Conditioned, DataRangeError, Denoise, Denoiser, Loss, both, drop_labels, schedule_of,
)
from minivdm.core.gaussian import (
    Gaussian, Slopes, Transition, diffuse, eps_from_score, eps_from_v, eps_from_velocity, eps_from_x, expand,
    noise_like, ordered, posterior, score_from_eps, score_from_v, score_from_x, transition, v_from_eps,
    v_from_score, v_from_x, velocity_from_eps, velocity_from_x, x_from_eps, x_from_score, x_from_v, x_from_velocity,
)
from minivdm.core.guidance import (
    Guided, Replacement, classifier, classifier_free, clipped, dynamically_thresholded, reconstruction,
)
from minivdm.core.observe import BadObservation, Downsample, Frames, NotDifferentiable, Pixels, Several, frame_indices
from minivdm.core.ode import DPMSolverPlusPlus2M, Multistep, Past, angular_ddim_step, euler_step, heun_step, velocity
from minivdm.core.samplers import (
    Sampling, ancestral_law, ancestral_step, clean_step, ddim_law, ddim_step, draw, langevin_law, langevin_step,
    reverse_sde_law, reverse_sde_step, sample,
)
from minivdm.core.schedules import (
    CosineSchedule, FlowSchedule, LinearSchedule, Schedule, SubVPSchedule, VESchedule, as_time,
)
from minivdm.core.self_conditioning import SelfConditioned, takes_estimate
from minivdm.core.targets import Preconditioning, loss_weight, preconditioning, stratified_times
from minivdm.core.time_grids import as_grid, for_few_steps, karras, times_of, uniform_in_log_snr, uniform_in_t

__all__ = [
    "BadObservation", "Conditional", "Conditioned", "CosineSchedule", "DPMSolverPlusPlus2M", "DataRangeError",
    "Denoise", "Denoiser", "Downsample", "FlowSchedule", "Frames", "FramesApart", "Gaussian", "Guided",
    "LinearSchedule", "Loss", "Multistep", "NotDifferentiable", "Past", "Pixels", "Preconditioning", "Replacement",
    "Sampling", "Schedule", "SelfConditioned", "Several", "Slopes", "SubVPSchedule", "Transition", "VESchedule",
    "Weaker", "ancestral_law", "ancestral_step", "angular_ddim_step", "as_grid", "as_time", "away_from", "both",
    "classifier", "classifier_free", "clean_step", "clipped", "ddim_law", "ddim_step", "diffuse", "draw", "drop_labels",
    "dynamically_thresholded", "eps_from_score", "eps_from_v", "eps_from_velocity", "eps_from_x", "euler_step",
    "expand", "for_few_steps", "frame_indices", "heun_step", "karras", "langevin_law", "langevin_step", "loss_weight",
    "noise_like", "ordered", "posterior", "preconditioning", "reconstruction", "reverse_sde_law", "reverse_sde_step",
    "sample", "schedule_of", "score_from_eps", "score_from_v", "score_from_x", "stratified_times", "takes_estimate",
    "times_of", "transition", "uniform_in_log_snr", "uniform_in_t", "v_from_eps", "v_from_score", "v_from_x",
    "velocity", "velocity_from_eps", "velocity_from_x", "x_from_eps", "x_from_score", "x_from_v", "x_from_velocity",
]
# fmt: on
