r"""Closed-form worlds: data whose denoiser, score and likelihood are formulas.

Both worlds are Gaussian at heart, and noise keeps them so: if x ~ N(mu, S) then z_t = alpha x + sigma eps is
N(alpha mu, alpha^2 S + sigma^2 I), and

    E[x | z] = mu + alpha S (alpha^2 S + sigma^2 I)^{-1} (z - alpha mu).

In the eigenvectors of S this is a shrinkage of each coordinate by itself, which is how it is computed: one
decomposition serves every noise level. All of it runs in float64, is differentiable, and returns z's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from minivdm.core.gaussian import score_from_x
from minivdm.core.schedules import Schedule


class Law(NamedTuple):
    """Mean (d,) and covariance (d, d) of a Gaussian, float64."""

    mean: Tensor
    covariance: Tensor


def _column(coefficient: Tensor | float, z: Tensor) -> Tensor:
    """A scalar or (b,) coefficient as float64, shaped (1 or b, 1, 1) against (b, components, dimensions)."""
    coefficient = torch.as_tensor(coefficient, dtype=torch.float64, device=z.device)
    if coefficient.ndim > 1 or (coefficient.ndim == 1 and len(coefficient) not in (1, len(z))):
        raise ValueError(f"expected a scalar or {len(z)} coefficients, got shape {tuple(coefficient.shape)}")
    return coefficient.reshape(-1, 1, 1)


class World(Protocol):
    """What a closed-form world has to offer."""

    def posterior_mean(self, z: Tensor, alpha: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor: ...


class ExactDenoiser:
    """(z, t) -> E[x | z_t = z] of a closed-form world; carries `.schedule`, binds labels with `.given`."""

    def __init__(self, world: World, schedule: Schedule, labels: Tensor | None = None):
        self.world, self.schedule, self.labels = world, schedule, labels

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        return self.world.posterior_mean(z, self.schedule.alpha(t), self.schedule.sigma(t), self.labels)

    def given(self, labels: Tensor | None) -> ExactDenoiser:
        """The denoiser of p(x | labels), (b or 1, components) multi-hot; None or a zero row: no condition."""
        return ExactDenoiser(self.world, self.schedule, labels)


class GaussianMixture:
    """x ~ sum_k weights_k N(means_k, covariances_k), in any number of dimensions d (2 in the lessons).

    weights: (k,), positive, normalised here. means: (k, d). covariances: (k, d, d), or a standard deviation,
    one for all or (k,). Noise coefficients alpha and sigma are scalars or (b,); alpha = 1, sigma = 0 is the
    clean law. `labels` (b or 1, k), multi-hot, restrict the mixture to the components marked 1, sample by
    sample; an all-zero row restricts nothing.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor | float) -> None:
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.means = torch.as_tensor(means, dtype=torch.float64)
        covariances = torch.as_tensor(covariances, dtype=torch.float64)
        if self.means.ndim != 2 or self.weights.shape != self.means.shape[:1]:
            raise ValueError(
                f"expected weights (k,) and means (k, d), got {tuple(self.weights.shape)} and {tuple(self.means.shape)}"
            )
        if not bool((self.weights > 0).all()):
            raise ValueError(f"expected positive weights, got {self.weights.tolist()}")
        k, d = self.means.shape
        if covariances.ndim < 2:  # standard deviations
            covariances = covariances.expand(k)[:, None, None] ** 2 * torch.eye(d, dtype=torch.float64)
        if covariances.shape != (k, d, d):
            raise ValueError(f"expected covariances of shape {(k, d, d)}, got {tuple(covariances.shape)}")
        self.covariances = covariances
        self.weights = self.weights / self.weights.sum()
        self._variances, self._axes = torch.linalg.eigh(covariances)  # (k, d), (k, d, d): axes in columns
        if not bool((self._variances > 0).all()):
            raise ValueError("expected positive definite covariances")

    @classmethod
    def ring(cls, components: int = 8, radius: float = 1.0, std: float = 0.1) -> GaussianMixture:
        """Equal round components on a circle."""
        angles = torch.arange(components, dtype=torch.float64) * (2 * math.pi / components)
        means = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
        return cls(torch.ones(components), means, std)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n draws (n, d) in float64 and the component of each (n,), on the CPU."""
        labels = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        scaled = self._variances[labels].sqrt() * eps
        return self.means[labels] + torch.einsum("nij,nj->ni", self._axes[labels], scaled), labels

    def _component_terms(self, z: Tensor, alpha, sigma, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """log(weight_k q_k(z)) (b, k), and E[x | z, component k] (b, k, d)."""
        if z.ndim != 2 or z.shape[1] != self.means.shape[1]:
            raise ValueError(f"expected points of shape (b, {self.means.shape[1]}), got {tuple(z.shape)}")
        alpha, sigma = _column(alpha, z), _column(sigma, z)
        means, axes, variances, weights = (
            part.to(z.device) for part in (self.means, self._axes, self._variances, self.weights)
        )
        noisy = alpha**2 * variances + sigma**2  # (b, k, d)
        along = torch.einsum("bkd,kde->bke", z[:, None] - alpha * means, axes)  # z - alpha mu in each one's own axes
        log_q = -(along**2 / noisy + noisy.log() + math.log(2 * math.pi)).sum(-1) / 2
        x_hat = means + torch.einsum("kde,bke->bkd", axes, alpha * variances / noisy * along)
        log_weights = weights.log().expand(len(z), -1)
        if labels is not None:
            labels = labels.to(z.device).expand(len(z), -1)
            allowed = (labels > 0) | (labels == 0).all(dim=1, keepdim=True)
            log_weights = torch.where(allowed, log_weights, -math.inf).log_softmax(dim=1)
        return log_weights + log_q, x_hat

    def log_prob(self, z: Tensor, alpha=1.0, sigma=0.0, labels: Tensor | None = None) -> Tensor:
        """log q_t(z), (b,): the density of the mixture after noising. z: (b, d)."""
        return self._component_terms(z.double(), alpha, sigma, labels)[0].logsumexp(dim=1).to(z.dtype)

    def responsibilities(self, z: Tensor, alpha=1.0, sigma=0.0) -> Tensor:
        """p(component k | z_t = z), (b, k)."""
        return self._component_terms(z.double(), alpha, sigma, None)[0].softmax(dim=1).to(z.dtype)

    def posterior_mean(self, z: Tensor, alpha=1.0, sigma=0.0, labels: Tensor | None = None) -> Tensor:
        """E[x | z_t = z], (b, d): the components' own answers, weighted by their responsibilities."""
        log_joint, x_hat = self._component_terms(z.double(), alpha, sigma, labels)
        return torch.einsum("bk,bkd->bd", log_joint.softmax(dim=1), x_hat).to(z.dtype)

    def score(self, z: Tensor, alpha=1.0, sigma=0.0, labels: Tensor | None = None) -> Tensor:
        """grad_z log q_t(z), (b, d), by differentiating the density: holds at sigma = 0 too."""
        with torch.enable_grad():
            points = z.detach().double().requires_grad_()
            log_q = self._component_terms(points, alpha, sigma, labels)[0].logsumexp(dim=1)
            return torch.autograd.grad(log_q.sum(), points)[0].to(z.dtype)

    def log_class(self, label: int, schedule: Schedule):
        """(z, t) -> log p(component = label | z_t), (b,): the exact classifier, for `guidance.classifier`."""

        def log_prob(z: Tensor, t: Tensor | float) -> Tensor:
            terms, _ = self._component_terms(z.double(), schedule.alpha(t), schedule.sigma(t), None)
            return terms.log_softmax(dim=1)[:, label].to(z.dtype)

        return log_prob

    def denoiser(self, schedule: Schedule) -> ExactDenoiser:
        """(z, t) -> E[x | z_t]; `.given(labels)` restricts it to some components."""
        return ExactDenoiser(self, schedule)


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
        if frames < 1 or not -1 <= correlation <= 1 or not -1 <= pixel_correlation <= 1:
            raise ValueError(
                "expected at least one frame and correlations in [-1, 1], "
                f"got {frames}, {correlation} and {pixel_correlation}"
            )
        self.shape = (1, frames, *size)  # c f h w
        d = math.prod(self.shape)
        if covariance is None:
            covariance = _decaying(frames, correlation)
            for n in size:
                covariance = torch.kron(covariance, _decaying(n, pixel_correlation))
        self.covariance = torch.as_tensor(covariance, dtype=torch.float64)
        if self.covariance.shape != (d, d) or not torch.allclose(self.covariance, self.covariance.T):
            raise ValueError(f"expected a symmetric covariance {(d, d)}, got {tuple(self.covariance.shape)}")
        self.mean = torch.zeros(d, dtype=torch.float64) if mean is None else torch.as_tensor(mean).double()
        if self.mean.shape[-1:] != (d,) or self.mean.ndim > 2:
            raise ValueError(f"expected a mean of shape {(d,)} or (b, {d}), got {tuple(self.mean.shape)}")
        variances, self._axes = torch.linalg.eigh(self.covariance)
        if variances.min() < -1e-9 * variances.max():
            raise ValueError(f"expected a covariance without negative eigenvalues, got {variances.min():.3g}")
        self._variances = variances.clamp(min=0)

    @property
    def law(self) -> Law:
        """Mean and covariance of x, flattened."""
        return Law(self.mean, self.covariance)

    def _flat(self, z: Tensor) -> Tensor:
        if z.shape[1:] != self.shape:
            raise ValueError(f"expected videos (b, {', '.join(map(str, self.shape))}), got {tuple(z.shape)}")
        return z.flatten(1).double()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n videos (n, 1, f, h, w), float64, on the CPU."""
        eps = torch.randn(n, len(self._variances), generator=generator, dtype=torch.float64)
        return (self.mean + (eps * self._variances.sqrt()) @ self._axes.T).reshape(n, *self.shape)

    def _whitened(self, z: Tensor, alpha, sigma) -> tuple[Tensor, Tensor]:
        """z - alpha mean along the eigenvectors (b, d), and its variances there (1 or b, d)."""
        alpha, sigma = _column(alpha, z)[..., 0], _column(sigma, z)[..., 0]
        along = (self._flat(z) - alpha * self.mean.to(z.device)) @ self._axes.to(z.device)
        return along, alpha**2 * self._variances.to(z.device) + sigma**2

    def posterior_mean(self, z: Tensor, alpha=1.0, sigma=0.0, labels: Tensor | None = None) -> Tensor:
        """E[x | z_t = z], like z. There are no labels in this world."""
        along, noisy = self._whitened(z, alpha, sigma)
        gain = _column(alpha, z)[..., 0] * self._variances.to(z.device) / noisy
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
        values = observed.flatten(1).double()
        if operator is None:
            indices = range(observed.shape[2]) if frames is None else frames
            selected = torch.arange(len(self.covariance)).reshape(self.shape)[:, list(indices)].flatten()
            operator = torch.eye(self.covariance.shape[0], dtype=torch.float64)[selected]
        operator = operator.double()
        if operator.shape != (values.shape[1], self.covariance.shape[0]):
            raise ValueError(f"expected {operator.shape[0]} observed values, got {tuple(observed.shape)}")
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
            flat = self._flat(other)
            other = Law(flat.mean(0), torch.cov(flat.T).reshape(flat.shape[1], flat.shape[1]))
        return wasserstein(self.law, other)


def _decaying(n: int, correlation: float) -> Tensor:
    """correlation^|i - j|, (n, n)."""
    i = torch.arange(n)
    return torch.as_tensor(float(correlation), dtype=torch.float64) ** (i[:, None] - i).abs()


def _root(covariance: Tensor) -> Tensor:
    variances, axes = torch.linalg.eigh(covariance)
    return axes * variances.clamp(min=0).sqrt() @ axes.T


def wasserstein(first: Law, second: Law) -> float:
    """W2^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^{1/2} C2 C1^{1/2})^{1/2}) (Olkin & Pukelsheim 1982)."""
    root = _root(first.covariance)
    cross = _root(root @ second.covariance @ root)
    squared = (first.mean - second.mean).square().sum()
    squared = squared + (first.covariance + second.covariance - 2 * cross).trace()
    return math.sqrt(max(0.0, float(squared)))
