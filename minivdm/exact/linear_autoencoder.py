r"""The autoencoder whose best weights are known: a linear one, of Gaussian data.

Without noise, encoder W_e (k, d) and decoder W_d (d, k) minimize E|x - mu - W_d W_e (x - mu)|^2. The best product is
the projection on the k principal axes, W_d W_e = U_k U_k^T, and its error the sum of the variances that are left out.
The weights themselves are known only up to an invertible C, as W_d C and C^-1 W_e do the same: latents have no scale
of their own, which is why diffusion wants each channel brought to variance 1 first.

A Gaussian rate, KL(q(latents | x) || N(0, I)), settles that. With a decoder of variance s^2 the bound on log p(x) is
best where each axis of variance kappa > s^2 is a latent of its own (probabilistic principal components; Lucas et al.
2019, "Don't blame the ELBO!"), and axes below are dropped:

    rate = sum over kept axes of 1/2 log(kappa / s^2) nats,    error = sum of min(kappa, s^2),

the rate-distortion function of a Gaussian, found by turning s^2 (Cover & Thomas, "Elements of information theory",
theorem 10.3.3, where s^2 is the water's level).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from minivdm.exact.gaussian_video import GaussianVideo
from minivdm.guards import BadArgument, check_types, floating, real, whole


class Subspace(NamedTuple):
    """axes: (d, k), orthonormal. variances: (d,), all of them, falling. error: squared error per clip that is left."""

    axes: Tensor
    variances: Tensor
    error: float


class Rate(NamedTuple):
    """nats and error (squared, summed over values) of a clip, and how many latents are in use."""

    nats: float
    error: float
    kept: int


def principal_subspace(world: GaussianVideo, k: int) -> Subspace:
    """The best k latents of a linear autoencoder: the principal axes."""
    variances, axes = torch.linalg.eigh(world.covariance)
    order = torch.arange(len(variances) - 1, -1, -1)
    variances, axes = variances[order].clamp(min=0), axes[:, order]
    k = whole("k", k, 1, len(variances))
    return Subspace(axes[:, :k], variances, float(variances[k:].sum()))


def linear_error(world: GaussianVideo, encoder: Tensor, decoder: Tensor) -> Tensor:
    """E|x - mu - W_d W_e (x - mu)|^2, a differentiable scalar. encoder: (k, d). decoder: (d, k)."""
    d = len(world.covariance)
    if floating("encoder", encoder).ndim != 2 or encoder.shape[1] != d or decoder.shape != encoder.shape[::-1]:
        got = f"{tuple(encoder.shape)} and {tuple(decoder.shape)}"
        raise BadArgument(f"encoder, decoder: expected shapes (k, {d}) and ({d}, k), got {got}")
    left = torch.eye(d, dtype=torch.float64) - decoder.double() @ encoder.double()
    return (left @ world.covariance * left).sum()


def train_linear(
    world: GaussianVideo, k: int, steps: int = 300, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Encoder (k, d) and decoder (d, k) that minimize `linear_error` from a random start, by L-BFGS, in float64."""
    d = len(world.covariance)
    k, steps = whole("k", k, 1, d), whole("steps", steps)
    encoder, decoder = weights = _start(d, k, generator)
    _minimize(lambda: linear_error(world, encoder, decoder), weights, steps)
    return encoder.detach(), decoder.detach()


def _start(d: int, k: int, generator: torch.Generator | None) -> list[Tensor]:
    """A random encoder (k, d) and decoder (d, k) that want gradients."""
    drawn = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((k, d), (d, k)))
    return [(weights / d**0.5).requires_grad_() for weights in drawn]


def _minimize(loss: Callable[[], Tensor], weights: list[Tensor], steps: int) -> None:
    """L-BFGS on all weights at once, in place, to the last digits."""
    optimizer = torch.optim.LBFGS(
        weights, max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def rate_distortion(world: GaussianVideo, decoder_variance: float) -> Rate:
    """The best Gaussian linear autoencoder for a decoder of this variance s^2: see above."""
    level = real("decoder_variance", decoder_variance, least=0, above=True)
    variances = torch.linalg.eigvalsh(world.covariance).clamp(min=0)
    kept = variances > level
    nats = (variances[kept] / level).log().sum() / 2
    return Rate(float(nats), float(variances.clamp(max=level).sum()), int(kept.sum()))


def linear_bound(world: GaussianVideo, encoder: Tensor, decoder: Tensor, noise: Tensor, variance: float) -> Tensor:
    """-E[log p(x | z)] + E KL(q(z | x) || N(0, I)), nats per clip, of a linear Gaussian autoencoder; differentiable.

    q(z | x) = N(W_e (x - mu), diag(noise)), p(x | z) = N(mu + W_d z, variance I). encoder: (k, d). decoder: (d, k).
    noise: (k,) variances.
    """
    encoder, decoder, noise = encoder.double(), decoder.double(), noise.double()
    d = len(world.covariance)
    if noise.shape != encoder.shape[:1]:
        raise BadArgument(f"noise: expected shape ({len(encoder)},), got {tuple(noise.shape)}")
    error = linear_error(world, encoder, decoder) + (decoder.square() * noise).sum()
    spread = (encoder @ world.covariance * encoder).sum()
    rate = (spread + (noise - 1 - noise.log()).sum()) / 2
    level = torch.as_tensor(real("variance", variance, least=0, above=True), dtype=torch.float64)
    return error / (2 * level) + d / 2 * (2 * torch.pi * level).log() + rate


check_types(globals())


def train_bound(world: GaussianVideo, variance: float, k: int, generator: torch.Generator | None = None) -> Rate:
    """Nats and error of a linear Gaussian autoencoder of k latents that is trained on `linear_bound`, with a decoder of
    this variance, from a random start by L-BFGS: what `rate_distortion` says in closed form."""
    d = len(world.covariance)
    k = whole("k", k, 1, d)
    encoder, decoder = weights = _start(d, k, generator)
    log_noise = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    _minimize(lambda: linear_bound(world, encoder, decoder, log_noise.exp(), variance), [*weights, log_noise], 500)
    with torch.no_grad():
        noise = log_noise.exp()
        error = linear_error(world, encoder, decoder) + (decoder.square() * noise).sum()
        nats = ((encoder @ world.covariance * encoder).sum() + (noise - 1 - log_noise).sum()) / 2
    return Rate(float(nats), float(error), int((noise < 0.99).sum()))
