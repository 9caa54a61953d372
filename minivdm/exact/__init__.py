"""Worlds with a known truth, and what follows from them without sampling noise.

Read in this order: laws, gaussian_video, mixture, propagate (the law of a sampler's output), jacobian, score_matching,
bound, likelihood, linear_autoencoder, gaussian_cascade.
"""

from minivdm.exact.bound import (
    Bound,
    ByImportance,
    by_log_snr,
    by_time,
    continuous_bound,
    discrete_bound,
    gaussian_kl,
    nats_per_log_snr,
    prior_term,
    reconstruction_term,
    step_term,
)
from minivdm.exact.gaussian_cascade import GaussianCascade, block_means
from minivdm.exact.gaussian_video import GaussianVideo
from minivdm.exact.jacobian import divergence, pullback
from minivdm.exact.laws import ExactDenoiser, Law, World, wasserstein
from minivdm.exact.likelihood import (
    exact_divergence,
    hutchinson_divergence,
    log_likelihood,
    normal_log_prob,
    signs_like,
)
from minivdm.exact.linear_autoencoder import (
    linear_bound,
    linear_error,
    principal_subspace,
    rate_distortion,
    train_bound,
    train_linear,
)
from minivdm.exact.mixture import GaussianMixture
from minivdm.exact.propagate import Propagation, push
from minivdm.exact.score_matching import (
    annealed_langevin,
    denoising,
    explicit,
    geometric_ladder,
    implicit,
    sliced,
    tweedie,
)

__all__ = [
    "Bound",
    "ByImportance",
    "ExactDenoiser",
    "GaussianCascade",
    "GaussianMixture",
    "GaussianVideo",
    "Law",
    "Propagation",
    "World",
    "annealed_langevin",
    "block_means",
    "by_log_snr",
    "by_time",
    "continuous_bound",
    "denoising",
    "discrete_bound",
    "divergence",
    "exact_divergence",
    "explicit",
    "gaussian_kl",
    "geometric_ladder",
    "hutchinson_divergence",
    "implicit",
    "linear_bound",
    "linear_error",
    "log_likelihood",
    "nats_per_log_snr",
    "normal_log_prob",
    "principal_subspace",
    "prior_term",
    "pullback",
    "push",
    "rate_distortion",
    "reconstruction_term",
    "signs_like",
    "sliced",
    "step_term",
    "train_bound",
    "train_linear",
    "tweedie",
    "wasserstein",
]
