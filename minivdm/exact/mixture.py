r"""A mixture of Gaussians, whose denoiser, score and class probabilities are formulas.

Noise keeps a Gaussian one: if x ~ N(mu, S) then z_t = alpha x + sigma eps is N(alpha mu, alpha^2 S + sigma^2 I), and

    E[x | z] = mu + alpha S (alpha^2 S + sigma^2 I)^{-1} (z - alpha mu).

In the eigenvectors of S this is a shrinkage of each coordinate by itself, which is how it is computed: one
decomposition serves every noise level. A mixture answers with its components' means, weighted by their
responsibilities. All of it runs in float64, is differentiable, and returns z's dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minivdm.core.schedules import Schedule
from minivdm.exact.laws import ExactDenoiser, column
from minivdm.guards import BadArgument, check_types, floating, whole


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
        if self.means.ndim != 2 or self.weights.shape != self.means.shape[:1] or 0 in self.means.shape:
            got = f"{tuple(self.weights.shape)} and {tuple(self.means.shape)}"
            raise BadArgument(f"weights, means: expected shapes (k,) and (k, d), got {got}")
        if not bool((self.weights > 0).all()) or not bool(self.weights.isfinite().all()):
            raise BadArgument(f"weights: expected positive weights, got {self.weights.tolist()}")
        if not bool(self.means.isfinite().all() and covariances.isfinite().all()):
            raise BadArgument("means, covariances: expected finite values, got NaN or infinite ones")
        k, d = self.means.shape
        if covariances.ndim < 2:  # standard deviations
            if not bool((covariances > 0).all()) or covariances.numel() not in (1, k):
                raise BadArgument(f"covariances: expected 1 or {k} positive deviations, got {covariances.tolist()}")
            covariances = covariances.expand(k)[:, None, None] ** 2 * torch.eye(d, dtype=torch.float64)
        if covariances.shape != (k, d, d) or not torch.allclose(covariances, covariances.mT):
            raise BadArgument(f"covariances: expected symmetric ones {(k, d, d)}, got {tuple(covariances.shape)}")
        self.covariances = covariances
        self.weights = self.weights / self.weights.sum()
        self._variances, self._axes = torch.linalg.eigh(covariances)  # (k, d), (k, d, d): axes in columns
        if not bool((self._variances > 0).all()):
            raise BadArgument("covariances: expected positive definite ones")

    @classmethod
    def ring(cls, components: int = 8, radius: float = 1.0, std: float = 0.1) -> GaussianMixture:
        """Equal round components on a circle."""
        whole("components", components)
        angles = torch.arange(components, dtype=torch.float64) * (2 * math.pi / components)
        means = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
        return cls(torch.ones(components), means, std)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """n draws (n, d) in float64 and the component of each (n,), on the CPU."""
        whole("n", n)
        labels = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        scaled = self._variances[labels].sqrt() * eps
        return self.means[labels] + torch.einsum("nij,nj->ni", self._axes[labels], scaled), labels

    def _component_terms(self, z: Tensor, alpha, sigma, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """log(weight_k q_k(z)) (b, k), and E[x | z, component k] (b, k, d)."""
        if z.ndim != 2 or z.shape[1] != self.means.shape[1]:
            raise BadArgument(f"z: expected points of shape (b, {self.means.shape[1]}), got {tuple(z.shape)}")
        alpha, sigma = column(alpha, z), column(sigma, z)
        means, axes, variances, weights = (
            part.to(z.device) for part in (self.means, self._axes, self._variances, self.weights)
        )
        noisy = alpha**2 * variances + sigma**2  # (b, k, d)
        along = torch.einsum("bkd,kde->bke", z[:, None] - alpha * means, axes)  # z - alpha mu in each one's own axes
        log_q = -(along**2 / noisy + noisy.log() + math.log(2 * math.pi)).sum(-1) / 2
        x_hat = means + torch.einsum("kde,bke->bkd", axes, alpha * variances / noisy * along)
        log_weights = weights.log().expand(len(z), -1)
        if labels is not None:
            k = len(self.weights)
            if labels.ndim != 2 or labels.shape[1] != k or len(labels) not in (1, len(z)):
                raise BadArgument(f"labels: expected shape (1 or {len(z)}, {k}), got {tuple(labels.shape)}")
            labels = labels.to(z.device).expand(len(z), -1)
            allowed = (labels > 0) | (labels == 0).all(dim=1, keepdim=True)
            log_weights = torch.where(allowed, log_weights, -math.inf).log_softmax(dim=1)
        return log_weights + log_q, x_hat

    def log_prob(self, z: Tensor, alpha=1.0, sigma=0.0, labels: Tensor | None = None) -> Tensor:
        """log q_t(z), (b,): the density of the mixture after noising. z: (b, d)."""
        return self._component_terms(floating("z", z).double(), alpha, sigma, labels)[0].logsumexp(dim=1).to(z.dtype)

    def responsibilities(self, z: Tensor, alpha=1.0, sigma=0.0) -> Tensor:
        """p(component k | z_t = z), (b, k)."""
        return self._component_terms(floating("z", z).double(), alpha, sigma, None)[0].softmax(dim=1).to(z.dtype)

    def posterior_mean(self, z: Tensor, alpha=1.0, sigma=0.0, labels: Tensor | None = None) -> Tensor:
        """E[x | z_t = z], (b, d): the components' own answers, weighted by their responsibilities."""
        log_joint, x_hat = self._component_terms(floating("z", z).double(), alpha, sigma, labels)
        return torch.einsum("bk,bkd->bd", log_joint.softmax(dim=1), x_hat).to(z.dtype)

    def score(self, z: Tensor, alpha=1.0, sigma=0.0, labels: Tensor | None = None) -> Tensor:
        """grad_z log q_t(z), (b, d), by differentiating the density: holds at sigma = 0 too."""
        with torch.inference_mode(False), torch.enable_grad():
            points = floating("z", z).detach().double().clone().requires_grad_()
            log_q = self._component_terms(points, alpha, sigma, labels)[0].logsumexp(dim=1)
            return torch.autograd.grad(log_q.sum(), points)[0].to(z.dtype)

    def log_class(self, label: int, schedule: Schedule):
        """(z, t) -> log p(component = label | z_t), (b,): the exact classifier, for `guidance.classifier`."""
        whole("label", label, least=0, most=len(self.weights) - 1)

        def log_prob(z: Tensor, t: Tensor | float) -> Tensor:
            terms, _ = self._component_terms(floating("z", z).double(), schedule.alpha(t), schedule.sigma(t), None)
            return terms.log_softmax(dim=1)[:, label].to(z.dtype)

        return log_prob

    def denoiser(self, schedule: Schedule) -> ExactDenoiser:
        """(z, t) -> E[x | z_t]; `.given(labels)` restricts it to some components."""
        return ExactDenoiser(self, schedule)


check_types(globals())
