r"""A video whose values are jointly Gaussian: its denoiser, likelihood and conditional laws are formulas.

If x ~ N(mu, S) then z_t = alpha x + sigma eps is N(alpha mu, alpha^2 S + sigma^2 I), and

    E[x | z] = mu + alpha S (alpha^2 S + sigma^2 I)^{-1} (z - alpha mu),

a shrinkage of each coordinate by itself in the eigenvectors of S. All of it runs in float64, is differentiable, and
returns z's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from minivdm.core.gaussian import score_from_x
from minivdm.core.observe import frame_indices
from minivdm.core.schedules import Schedule
from minivdm.exact.laws import ExactDenoiser, Law, column, wasserstein
from minivdm.guards import BadArgument, BadType, check_types, finite, floating, real, whole


class GaussianVideo:
    """x ~ N(mean, covariance) over the values of a one-channel video, (b, 1, f, h, w).

    By default every value has variance 1, and two values have correlation `correlation`^|frames apart| times
    `pixel_correlation`^(rows apart + columns apart). `covariance` (d, d) with d = f h w, frames outermost,
    and `mean` (d,) or (b, d) replace that; the covariance may be singular.
    """

    def __init__(
        self,
        frames: int,
        correlation: float = 0.9,
        size: tuple[int, int] = (1, 1),
        pixel_correlation: float = 0.0,
        covariance: Tensor | None = None,
        mean: Tensor | None = None,
    ) -> None:
        whole("frames", frames)
        real("correlation", correlation, -1, 1)
        real("pixel_correlation", pixel_correlation, -1, 1)
        for n in size:
            whole("size", n)
        self.shape = (1, frames, *size)  # c f h w
        d = math.prod(self.shape)
        if covariance is None:
            covariance = _decaying(frames, correlation)
            for n in size:
                covariance = torch.kron(covariance, _decaying(n, pixel_correlation))
        self.covariance = torch.as_tensor(covariance, dtype=torch.float64)
        if self.covariance.shape != (d, d) or not torch.allclose(self.covariance, self.covariance.T):
            raise BadArgument(f"expected a symmetric covariance {(d, d)}, got {tuple(self.covariance.shape)}")
        self.mean = torch.zeros(d, dtype=torch.float64) if mean is None else torch.as_tensor(mean).double()
        if self.mean.shape[-1:] != (d,) or self.mean.ndim > 2:
            raise BadArgument(f"expected a mean of shape {(d,)} or (b, {d}), got {tuple(self.mean.shape)}")
        variances, self._axes = torch.linalg.eigh(self.covariance)
        if variances.min() < -1e-9 * variances.max():
            raise BadArgument(f"expected a covariance without negative eigenvalues, got {variances.min():.3g}")
        self._variances = variances.clamp(min=0)

    @property
    def law(self) -> Law:
        """Mean and covariance of x, flattened."""
        return Law(self.mean, self.covariance)

    def _flat(self, z: Tensor) -> Tensor:
        if floating("z", z).shape[1:] != self.shape:
            raise BadArgument(f"z: expected videos (b, {', '.join(map(str, self.shape))}), got {tuple(z.shape)}")
        return z.flatten(1).double()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n videos (n, 1, f, h, w), float64, on the CPU."""
        whole("n", n)
        eps = torch.randn(n, len(self._variances), generator=generator, dtype=torch.float64)
        return (self.mean + (eps * self._variances.sqrt()) @ self._axes.T).reshape(n, *self.shape)

    def _whitened(self, z: Tensor, alpha, sigma) -> tuple[Tensor, Tensor]:
        """z - alpha mean along the eigenvectors (b, d), and its variances there (1 or b, d)."""
        alpha, sigma = column(alpha, z)[..., 0], column(sigma, z)[..., 0]
        along = (self._flat(z) - alpha * self.mean.to(z.device)) @ self._axes.to(z.device)
        return along, alpha**2 * self._variances.to(z.device) + sigma**2

    def posterior_mean(self, z: Tensor, alpha=1.0, sigma=0.0, labels: Tensor | None = None) -> Tensor:
        """E[x | z_t = z], like z. There are no labels in this world."""
        along, noisy = self._whitened(z, alpha, sigma)
        gain = column(alpha, z)[..., 0] * self._variances.to(z.device) / noisy
        x_hat = self.mean.to(z.device) + (gain * along) @ self._axes.to(z.device).T
        return x_hat.reshape(z.shape).to(z.dtype)

    def log_prob(self, z: Tensor, alpha=1.0, sigma=0.0) -> Tensor:
        """log q_t(z), (b,), in nats."""
        along, noisy = self._whitened(z, alpha, sigma)
        return (-(along**2 / noisy + noisy.log() + math.log(2 * math.pi)).sum(-1) / 2).to(z.dtype)

    def score(self, z: Tensor, alpha=1.0, sigma=0.0) -> Tensor:
        """grad_z log q_t(z), like z, for sigma > 0."""
        return score_from_x(z, self.posterior_mean(z, alpha, sigma), alpha, sigma)

    def given(
        self, observed: Tensor, frames: Sequence[int] | None = None, operator: Tensor | None = None
    ) -> GaussianVideo:
        """The law of x once `observed` is known: again Gaussian, with a mean per observation.

        observed: (b, 1, n, h, w), the frames at the indices `frames` (by default the first n). With an
        `operator` (m, d), observed (b, ...) holds the m values operator @ x instead, e.g. of a downsampled
        video.
        """
        if finite("observed", floating("observed", observed)).ndim < 2:
            raise BadArgument(f"observed: expected (b, ...), got shape {tuple(observed.shape)}")
        values = observed.flatten(1).double()
        if operator is None:
            if observed.ndim != 5:
                raise BadArgument(f"observed: expected frames (b, 1, n, h, w), got shape {tuple(observed.shape)}")
            indices = frame_indices(range(observed.shape[2]) if frames is None else frames, self.shape[1])
            selected = torch.arange(len(self.covariance)).reshape(self.shape)[:, list(indices)].flatten()
            operator = torch.eye(self.covariance.shape[0], dtype=torch.float64)[selected]
        operator = operator.double()
        if operator.shape != (values.shape[1], self.covariance.shape[0]):
            raise BadArgument(f"expected {operator.shape[0]} observed values, got {tuple(observed.shape)}")
        cross = self.covariance @ operator.T  # (d, m)
        gain = torch.linalg.solve(operator @ cross, cross.T).T
        mean = self.mean + (values - self.mean @ operator.T) @ gain.T  # (b, d)
        covariance = self.covariance - gain @ cross.T
        return GaussianVideo(self.shape[1], size=self.shape[2:], covariance=(covariance + covariance.T) / 2, mean=mean)

    def denoiser(self, schedule: Schedule) -> ExactDenoiser:
        """(z, t) -> E[x | z_t]."""
        return ExactDenoiser(self, schedule)

    def conditional_denoiser(
        self,
        schedule: Schedule,
        observed: Tensor,
        frames: Sequence[int] | None = None,
        operator: Tensor | None = None,
    ) -> ExactDenoiser:
        """(z, t) -> E[x | z_t, observed], which the guidances approximate; arguments as for `given`."""
        return self.given(observed, frames, operator).denoiser(schedule)

    def wasserstein(self, other: Law | Tensor) -> float:
        """2-Wasserstein distance to another law, given by its moments or by samples (n, 1, f, h, w)."""
        if isinstance(other, Tensor):
            flat = finite("other", self._flat(other))
            whole("the number of samples", len(flat), least=2)
            other = Law(flat.mean(0), torch.cov(flat.T).reshape(flat.shape[1], flat.shape[1]))
        if not isinstance(other, Law):
            raise BadType(f"other: expected a Law or samples, got {type(other).__name__}")
        return wasserstein(self.law, other)


def _decaying(n: int, correlation: float) -> Tensor:
    """correlation^|i - j|, (n, n)."""
    i = torch.arange(n)
    return torch.as_tensor(float(correlation), dtype=torch.float64) ** (i[:, None] - i).abs()


check_types(globals())
