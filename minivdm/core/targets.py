r"""What a network is asked to predict, how its errors are weighed, and at which times it is asked.

Whatever a network F is asked to predict, the denoiser is an affine map around it (Karras et al. 2022, "EDM",
eq 7):

    x_hat = skip z + out F(in z, lambda)

    target    skip                             out                                  F learns
    x         0                                1                                    x
    eps       1 / alpha                        -sigma / alpha                       eps
    v         alpha / (alpha^2 + sigma^2)      -sigma / (alpha^2 + sigma^2)         alpha eps - sigma x
    score     1 / alpha                        sigma^2 / alpha                      -eps / sigma
    velocity  sigma' / W                       -sigma / W, W = alpha sigma' - sigma alpha'    alpha' x + sigma' eps
    edm       Karras's, for z / alpha with noise sigma / alpha: a v with unit variance in and out

An error of F is thus an error of x_hat over `out`: ||F - F*||^2 = ||x - x_hat||^2 / out^2, and the choice of
a target is, as far as the loss goes, the choice of a weight (Salimans & Ho 2022, section 4). On the flow path
W = 1 and velocity is eps - x (Lipman et al. 2023).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from minivdm.core.gaussian import Slopes
from minivdm.core.schedules import Schedule
from minivdm.guards import BadArgument, check_types, real, whole

TARGETS = ("x", "eps", "v", "score", "velocity", "edm")
WEIGHTINGS = (*TARGETS, "truncated_snr", "min_snr", "elbo")


class Preconditioning(NamedTuple):
    """x_hat = skip z + out F(scale z): float64 coefficients of the shape of alpha and sigma."""

    skip: Tensor
    out: Tensor
    scale: Tensor


def preconditioning(
    target: str, alpha: Tensor, sigma: Tensor, sigma_data: float = 1.0, slopes: Slopes | None = None
) -> Preconditioning:
    """The three coefficients of a target at signal `alpha` and noise `sigma`.

    sigma_data: the standard deviation of the clean data, which matters to "edm" alone (Karras et al. 2022, table 1:
        c_skip, c_out, c_in for y = z / alpha, whose noise has standard deviation sigma / alpha).
    slopes: (alpha', sigma'), which "velocity" needs.
    Raises BadArgument for another target, and for "eps" and "score" where alpha = 0: there they say nothing of x.
    """
    real("sigma_data", sigma_data, 0, above=True)
    if alpha.shape != sigma.shape:
        raise BadArgument(f"sigma: expected alpha's shape {tuple(alpha.shape)}, got {tuple(sigma.shape)}")
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    if target in ("eps", "score") and alpha.device.type == "cpu" and bool((alpha == 0).any()):
        wanted = "start below t = 1, or predict x, v or velocity"
        raise BadArgument(f"target: {target} divides by alpha, which is 0 where all is noise; {wanted}")
    if target == "x":
        return Preconditioning(zero, one, one)
    if target == "eps":
        return Preconditioning(1 / alpha, -sigma / alpha, one)
    if target == "v":
        norm = alpha**2 + sigma**2  # 1 where variance is preserved
        return Preconditioning(alpha / norm, -sigma / norm, one)
    if target == "score":
        return Preconditioning(1 / alpha, sigma**2 / alpha, one)
    if target == "edm":
        std = (alpha**2 * sigma_data**2 + sigma**2).sqrt()  # of z
        return Preconditioning(alpha * sigma_data**2 / std**2, sigma * sigma_data / std, 1 / std)
    if target == "velocity" and slopes is not None:
        alpha_slope, sigma_slope = (torch.as_tensor(slope).to(alpha) for slope in slopes)
        norm = alpha * sigma_slope - sigma * alpha_slope  # 1 on the flow path
        return Preconditioning(sigma_slope / norm, -sigma / norm, one)
    raise BadArgument(f"expected a target out of {TARGETS}, velocity with its slopes, got {target!r}")


def loss_weight(
    weighting: str, t: Tensor, schedule: Schedule, sigma_data: float = 1.0, min_snr_gamma: float = 5.0
) -> Tensor:
    """w(lambda_t) in E[w ||x - x_hat||^2] (VDM eq 2), float64, of t's shape.

    "x": 1. "eps": SNR. "v": SNR + 1 in VP. "score", "velocity", "edm": likewise the weight under which that
    target has weight 1. "truncated_snr": max(SNR, 1) (Salimans & Ho 2022). "min_snr": min(SNR, gamma) (Hang et al.
    2023; for v-prediction it amounts to min(SNR, gamma) / (SNR + 1) on the error of v). "elbo": -(1/2) SNR dlambda/dt,
    whose expectation over uniform t, times the number of values in x, is the variational bound's diffusion part in
    nats (Kingma et al. 2021).
    """
    real("sigma_data", sigma_data, least=0, above=True)
    real("min_snr_gamma", min_snr_gamma, least=0, above=True)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    snr = (alpha / sigma) ** 2
    if weighting in TARGETS:
        slopes = (schedule.alpha_slope(t), schedule.sigma_slope(t)) if weighting == "velocity" else None
        return preconditioning(weighting, alpha, sigma, sigma_data, slopes).out ** -2
    if weighting == "truncated_snr":
        return snr.clamp(min=1)
    if weighting == "min_snr":
        return snr.clamp(max=min_snr_gamma)
    if weighting == "elbo":
        return snr * (schedule.diffusion(t) / sigma) ** 2 / 2  # g^2 = -sigma^2 dlambda/dt
    raise BadArgument(f"expected a weighting out of {WEIGHTINGS}, got {weighting!r}")


def stratified_times(
    n: int,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    logit_normal: tuple[float, float] | None = None,
) -> Tensor:
    """n times on [t_min, t_max], one in each n-th part of it, in float64 on the generator's device.

    They vary less than independent ones; Kingma et al. 2021, appendix I.1, share one offset to the same end.
    logit_normal: uniform times where None; else the mean m and standard deviation s of log(t / (1 - t)), whose parts
        hold the same probability: times in the middle for (0, 1), noisier ones for m > 0 (Esser et al. 2024, eq 19).
    """
    whole("n", n, least=0)
    device = device if generator is None else generator.device
    where = "cpu" if device is None or torch.device(device).type == "mps" else device  # mps has no float64
    u = torch.rand(n, generator=generator, device=device).to(where, torch.float64)
    u = (torch.arange(n, device=u.device) + u) / n
    if logit_normal is not None:
        mean, std = logit_normal
        u = torch.sigmoid(real("mean", mean) + real("std", std, least=0, above=True) * torch.special.ndtri(u))
    return schedule.t_min + (schedule.t_max - schedule.t_min) * u


check_types(globals())
