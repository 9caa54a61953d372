"""What an exercise calls to learn whether it is right, and if not, why not.

One folder for each lesson: an assignment says ``from minivdm.course.checks import samplers as checks`` and then
``checks.ddim_step(ddim_step)``. The folder's own module hands on what its files hold, each about one idea, and lists it
in CHECKS. `minivdm.course.checks.harness` says how a check works.
"""

import importlib

from minivdm.course.checks.harness import Check, CheckFailed, Unfinished

#: Assignment -> the folder of this package with its checks.
MODULES = {
    "01_forward_sdes": "forward_sdes",
    "02_noise_schedules": "noise_schedules",
    "03_score_matching": "score_matching",
    "04_from_elbo_to_mse": "elbo",
    "05_v_parameterization": "parameterization",
    "06_samplers": "samplers",
    "07_guidance": "guidance",
    "08_factorized_3d_unet": "unet3d",
    "09_training_on_moving_mnist": "training",
    "10_extending_videos": "extending",
    "11_super_resolution": "super_resolution",
    "12_evaluating_video": "evaluation",
    "13_text_to_video": "text_to_video",
    "14_cascades": "cascades",
    "15_few_steps": "few_steps",
    "16_latent_video": "latent_video",
    "17_transformers": "transformers",
}

__all__ = ["MODULES", "Check", "CheckFailed", "Unfinished", "checks_of"]


def checks_of(assignment: str) -> dict[str, Check]:
    """The checks of an assignment, such as "06_samplers", by name. Raises ValueError for one that is not there."""
    if assignment not in MODULES:
        raise ValueError(f"no assignment {assignment!r}; there are {', '.join(MODULES)}")
    module = importlib.import_module(f"minivdm.course.checks.{MODULES[assignment]}")
    return {check.name: check for check in module.CHECKS}
