r"""A cascade in the Gaussian video: what super-resolution with noise-conditioning augmentation does, without sampling.

x ~ N(mu, S), the true low-resolution clip is low = D x, and the second stage is given y = alpha_s low + sigma_s eps.
Then x | y is Gaussian, and so is x | z_t, y: the precisions add,

    E[x | z, y] = (S^{-1} + (alpha_t / sigma_t)^2 I + (alpha_s / sigma_s)^2 D'D)^{-1}
                  (S^{-1} mu + alpha_t z / sigma_t^2 + alpha_s D'y / sigma_s^2).

A base stage that makes another law than that of D x is carried through exactly as well.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minivdm.core.schedules import Schedule
from minivdm.exact.gaussian_video import GaussianVideo
from minivdm.exact.laws import ExactDenoiser, Law
from minivdm.guards import BadArgument, check_types, floating, real, whole


def block_means(values: int, block: int = 2) -> Tensor:
    """D (values / block, values): the mean of each `block` neighbours."""
    if whole("values", values) % whole("block", block):
        raise BadArgument(f"values: expected a multiple of block={block}, got {values}")
    return torch.kron(torch.eye(values // block, dtype=torch.float64), torch.full((1, block), 1 / block).double())


class GaussianCascade:
    """The exact second stage over a Gaussian video whose covariance has an inverse. operator: D (m, d)."""

    def __init__(self, video: GaussianVideo, operator: Tensor) -> None:
        d = len(video.covariance)
        if floating("operator", operator).ndim != 2 or operator.shape[1] != d:
            raise BadArgument(f"operator: expected shape (m, {d}), got {tuple(operator.shape)}")
        if float(torch.linalg.eigvalsh(video.covariance)[0]) < 1e-10 or video.mean.ndim != 1:
            raise BadArgument("video: expected a covariance with an inverse and one mean for all")
        self.video, self.operator = video, operator.double()
        self.precision = torch.linalg.inv(video.covariance)
        self.low = Law(self.operator @ video.mean, self.operator @ video.covariance @ self.operator.T)

    def affine(self, log_snr: float) -> tuple[Tensor, Tensor, Tensor]:
        """Gain G (d, m), offset (d,) and covariance (d, d) of x | y ~ N(G y + offset, C)."""
        alpha, sigma = _levels(log_snr)
        seen = self.operator.T @ self.operator * (alpha / sigma) ** 2
        covariance = torch.linalg.inv(self.precision + seen)
        covariance = (covariance + covariance.T) / 2
        return (
            covariance @ self.operator.T * (alpha / sigma**2),
            covariance @ self.precision @ self.video.mean,
            covariance,
        )

    def given(self, y: Tensor, log_snr: float) -> GaussianVideo:
        """The law of x given y (b, m) at that log-SNR: what a perfect second stage draws from."""
        if floating("y", y).ndim != 2 or y.shape[1] != len(self.operator):
            raise BadArgument(f"y: expected shape (b, {len(self.operator)}), got {tuple(y.shape)}")
        gain, offset, covariance = self.affine(log_snr)
        shape = self.video.shape
        return GaussianVideo(shape[1], size=shape[2:], covariance=covariance, mean=y.double() @ gain.T + offset)

    def denoiser(self, schedule: Schedule, y: Tensor, log_snr: float) -> ExactDenoiser:
        """(z, t) -> E[x | z_t = z, y]: what a network with the conditions low and low_log_snr learns."""
        return self.given(y, log_snr).denoiser(schedule)

    def made(self, base: Law, log_snr: float) -> Law:
        """The law of x that a perfect second stage makes of a base stage's clips, whose law is `base` (m)."""
        alpha, sigma = _levels(log_snr)
        gain, offset, covariance = self.affine(log_snr)
        noisy = alpha**2 * base.covariance + sigma**2 * torch.eye(len(self.operator), dtype=torch.float64)
        return Law(gain @ (alpha * base.mean) + offset, gain @ noisy @ gain.T + covariance)

    def distance(self, base: Law, log_snr: float) -> float:
        """W2 between what the cascade makes and the data."""
        return self.video.wasserstein(self.made(base, log_snr))

    def disagreement(self, base: Law, log_snr: float) -> float:
        """E |D x - low|^2 per value of low: how far the result is from the clip it was made of."""
        alpha, sigma = _levels(log_snr)
        gain, offset, covariance = self.affine(log_snr)
        m = len(self.operator)
        seen = alpha * self.operator @ gain - torch.eye(m, dtype=torch.float64)  # of low itself
        noise = sigma * self.operator @ gain
        bias = seen @ base.mean + self.operator @ offset
        spread = seen @ base.covariance @ seen.T + noise @ noise.T + self.operator @ covariance @ self.operator.T
        return float((spread.trace() + bias.square().sum()) / m)


def _levels(log_snr: float) -> tuple[float, float]:
    real("log_snr", log_snr, -100, 100)
    return math.sqrt(1 / (1 + math.exp(-log_snr))), math.sqrt(1 / (1 + math.exp(log_snr)))


check_types(globals())
