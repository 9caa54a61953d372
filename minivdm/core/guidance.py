r"""Guidance turns a denoiser into a denoiser: (z, t) -> x_tilde, with the same schedule.

Every guidance adds w times the gradient of some log-likelihood to the score. As score = (alpha x_hat - z) /
sigma^2, adding a vector u to the score is adding (sigma^2 / alpha) u to x_hat, and that is how each of them
is written here. Where a gradient is needed it is enabled locally, so guided denoisers work inside samplers
that run without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoise, both, schedule_of
from minivdm.core.gaussian import diffuse, expand, noise_like, posterior
from minivdm.core.observe import BadObservation, NotDifferentiable, frame_indices
from minivdm.core.schedules import Schedule, as_time
from minivdm.guards import BadArgument, BadType, batch, check_types, one_of, real, video


def _over(numerator: Tensor, alpha: Tensor) -> Tensor:
    """numerator / alpha, and 0 where alpha is 0: z says nothing of x there, and no gradient in z says more."""
    return (numerator / alpha).where(alpha > 0, 0.0)


def _with_gradient(function: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> tuple[Tensor, Tensor]:
    """For z -> (value, total): the value, and the gradient in z of the scalar total.

    Gradients are switched on here, whatever a sampler around it does. The result stays differentiable where z is
    part of a graph already, as it is in a guidance around a guidance.
    """
    nested = torch.is_grad_enabled() and batch("z", z).requires_grad
    with torch.inference_mode(False), torch.enable_grad():
        z = z if nested else z.detach().clone().requires_grad_()
        value, total = function(z)
        (gradient,) = torch.autograd.grad(total, z, create_graph=nested)
    return (value, gradient) if nested else (value.detach(), gradient)


@dataclass(frozen=True)
class Guided:
    """A guided denoiser: (z, t) -> x_tilde, and the schedule it belongs to."""

    function: Callable[[Tensor, Tensor | float], Tensor]
    schedule: Schedule

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        return self.function(z, t)


def classifier_free(
    conditional: Denoise,
    unconditional: Denoise,
    weight: float,
    interval: tuple[float, float] = (-math.inf, math.inf),
) -> Guided:
    """eps_tilde = (1 + w) eps_hat(z, c) - w eps_hat(z), and the same for x_hat (Ho & Salimans 2021; VDM eq 6).

    Guides by whatever `conditional` knows and `unconditional` does not: any subset of the conditions, as in
    `classifier_free(d.given(text=c, low=l), d.given(low=l), w)`. One network with two conditions is called once, with
    both in one batch.

    weight: w = 0 is unguided; VDM's table 5, and much other code, numbers the same weights from 1, as 1 + w.
    interval: guide only where the log-SNR lies between these two, a remedy for saturation (Kynkäänniemi et
    al. 2024).
    """
    weight, schedule = real("weight", weight), schedule_of(conditional)
    if not interval[0] <= interval[1]:
        raise BadArgument(f"interval: expected two log-SNR, the lower first, got {interval}")

    def guided(z: Tensor, t: Tensor | float) -> Tensor:
        if weight == 0:
            return conditional(z, t)
        log_snr = schedule.log_snr(t)
        w = weight * ((log_snr >= interval[0]) & (log_snr <= interval[1])).double()  # a bool would make it float32
        x_c, x_u = both(conditional, unconditional, z, t)
        if x_c.shape != x_u.shape:
            raise BadArgument(f"unconditional: expected x_hat of shape {tuple(x_c.shape)}, got {tuple(x_u.shape)}")
        return x_c + expand(w, z) * (x_c - x_u)

    return Guided(guided, schedule)


def classifier(denoise: Denoise, log_prob: Callable[[Tensor, Tensor | float], Tensor], weight: float = 1.0) -> Guided:
    """score + w grad_z log p(c | z_t), that is x_hat + w (sigma^2 / alpha) grad_z log p.

    Dhariwal & Nichol 2021.

    log_prob: (z, t) -> (b,), log p(c | z_t) of the wanted class, differentiable in z. weight: 1 is
    Bayes' rule, the score of p(z_t | c).
    """
    weight, schedule = real("weight", weight), schedule_of(denoise)

    def guided(z: Tensor, t: Tensor | float) -> Tensor:
        _, gradient = _with_gradient(lambda z: (z, log_prob(z, t).sum()), z)
        scale = weight * _over(schedule.sigma(t) ** 2, schedule.alpha(t))
        return denoise(z, t) + expand(scale, z) * gradient

    return Guided(guided, schedule)


def reconstruction(
    denoise: Denoise,
    observed: Tensor,
    weight: float,
    observe: Callable[[Tensor], Tensor] | None = None,
    variance: Literal["vdm", "pigdm"] = "vdm",
) -> Guided:
    """x_tilde = x_hat - (w alpha_t / 2) grad_z ||x^a - observe(x_hat(z_t))||^2, the square a sum.

    VDM eqs 7, 8.

    At w = 1 it adds grad log q(x^a | z_t) to the score, under the approximation that x^a given z_t is
    N(observe(x_hat), (sigma^2 / alpha^2) I). Used together with `Replacement` of z^a. Costs one call of the
    denoiser and one backward pass through it.

    observed: x^a, (b or 1, ...), what `observe` returns of clean data.
    observe: x (b, ...) -> like `observed`, differentiable, each sample by itself; by default the leading frames,
        as many as `observed` (b, c, n, h, w) has. A downsampler makes it super-resolution (eq 8). See
        `minivdm.core.observe` for operators, and for several of them at once.
    variance: "vdm" as above; "pigdm" approximates x^a given z_t by N(H x_hat, r^2 H H^T) with r^2 = sigma^2 /
        (alpha^2 + sigma^2), H a linear `observe`: exact at w = 1 where the data are white with variance 1 (Song et
        al. 2023, "Pseudoinverse-guided diffusion models for inverse problems", eqs 7, 8; their sampler multiplies
        the result by r^2 again).
    """
    one_of("variance", variance, ("vdm", "pigdm"))
    batch("observed", observed, axes=3 if observe is None else 1)  # by default the leading frames
    weight, schedule = real("weight", weight), schedule_of(denoise)
    sees = observe or (lambda x: x[:, :, : observed.shape[2]])

    def error(z: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        x_hat = denoise(z, t)
        seen = sees(x_hat)
        if seen.shape[1:] != observed.shape[1:] or observed.shape[0] not in (1, seen.shape[0]):
            raise BadObservation(f"expected observed of shape {tuple(seen.shape)}, got {tuple(observed.shape)}")
        if not seen.requires_grad:
            raise NotDifferentiable("observe: expected a differentiable function, got a result without gradient")
        residual = observed.to(seen) - seen
        if variance == "vdm":
            return x_hat, -residual.square().sum() / 2
        return x_hat, (_whitened(residual, sees, x_hat).detach() * seen).sum()

    def guided(z: Tensor, t: Tensor | float) -> Tensor:
        x_hat, gradient = _with_gradient(lambda z: error(z, t), z)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        scale = alpha if variance == "vdm" else _over(alpha**2 + sigma**2, alpha)  # (sigma^2 / alpha) / variance
        return x_hat + expand(weight * scale, z) * gradient

    return Guided(guided, schedule)


def _whitened(residual: Tensor, observe: Callable[[Tensor], Tensor], like: Tensor, rounds: int = 20) -> Tensor:
    """(H H^T)^{-1} residual for a linear `observe` H, by conjugate gradients: no matrix, no call of the network.

    One round where all values of H H^T x are multiples of x, as for frames, pixels and means of blocks. Where H H^T
    is singular, because one value is observed twice, it finds the solution of least norm.
    """
    with torch.enable_grad():
        x = torch.zeros_like(like, requires_grad=True)
        seen = observe(x)

    def gram(u: Tensor) -> Tensor:  # H H^T u
        (back,) = torch.autograd.grad(seen, x, u, retain_graph=True)
        with torch.no_grad():
            return observe(back)

    def dot(u: Tensor, v: Tensor) -> Tensor:  # of each sample, (b,)
        return (u * v).flatten(1).sum(1)

    r = residual.detach()
    u, direction, size = torch.zeros_like(r), r, dot(r, r)
    enough = torch.finfo(r.dtype).eps ** 2 * size
    for _ in range(rounds):
        if bool((size <= enough).all()):
            break
        image = gram(direction)
        step = size / dot(direction, image).clamp(min=torch.finfo(r.dtype).tiny)
        u, r = u + expand(step, u) * direction, r - expand(step, r) * image
        size, last = dot(r, r), size
        direction = r + expand(size / last.clamp(min=torch.finfo(r.dtype).tiny), r) * direction
    return u


def clipped(denoise: Denoise, low: float = -1.0, high: float = 1.0) -> Guided:
    """x_hat confined to [low, high]; steps derive eps_hat from x_hat, so the noise follows."""
    if not real("low", low) < real("high", high):
        raise BadArgument(f"expected low < high, got {low} and {high}")
    return Guided(lambda z, t: denoise(z, t).clamp(low, high), schedule_of(denoise))


def dynamically_thresholded(denoise: Denoise, quantile: float = 0.995) -> Guided:
    """x_hat clipped to [-m, m] and divided by m, with m = max(1, a quantile of |x_hat|) per sample.

    Saharia et al. 2022, "Imagen", section 2.3: a remedy for the saturation that large guidance weights bring.
    """
    real("quantile", quantile, 0, 1, above=True)

    def thresholded(z: Tensor, t: Tensor | float) -> Tensor:
        x_hat = denoise(z, t)
        sizes = x_hat.abs().flatten(1).sort(dim=1).values  # (b, n); torch.quantile stops at 16 million values
        rank = math.ceil(quantile * sizes.shape[1]) - 1
        bound = expand(sizes[:, rank].clamp(min=1), x_hat)
        return x_hat.clamp(-bound, bound) / bound

    return Guided(thresholded, schedule_of(denoise))


class Replacement:
    """A `project` for `samplers.sample`: overwrites the observed frames of z_t (Song et al. 2021).

    observed: (b or 1, c, n, h, w), clean frames x^a in [-1, 1].
    frames: their n indices, by default the leading ones.
    draw: "fresh" takes z^a_s from q(z_s | x^a); "posterior" from q(z_s | x^a, z^a_t), with z^a_t the value it
    set at the level before. At t = 0 the frames are x^a itself. Raises BadObservation where the observed frames do
    not have the latent's batch, channels or pixels.
    """

    def __init__(
        self,
        observed: Tensor,
        schedule: Schedule,
        frames: Sequence[int] | None = None,
        draw: Literal["fresh", "posterior"] = "fresh",
        generator: torch.Generator | None = None,
    ) -> None:
        one_of("draw", draw, ("fresh", "posterior"))
        if not isinstance(schedule, Schedule):
            raise BadType(f"schedule: expected a Schedule, got {type(schedule).__name__}")
        video("observed", observed)
        self.frames = frame_indices(range(observed.shape[2]) if frames is None else frames)
        if len(self.frames) != observed.shape[2]:
            raise BadArgument(f"frames: expected {observed.shape[2]} frame indices, got {len(self.frames)}")
        self.observed, self.schedule, self.draw, self.generator = observed, schedule, draw, generator
        self.level: tuple[Tensor, Tensor] | None = None  # the last time, and z^a there

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        t = as_time(t)
        if t.numel() != 1:
            raise BadArgument(f"t: expected one time for all samples, got shape {tuple(t.shape)}")
        b, *rest = self.observed.shape
        if video("z", z).ndim != 5 or b not in (1, z.shape[0]) or rest != [z.shape[1], len(self.frames), *z.shape[3:]]:
            raise BadObservation(
                f"expected observed of shape {(z.shape[0], z.shape[1], len(self.frames), *z.shape[3:])}, "
                f"got {tuple(self.observed.shape)}"
            )
        if not max(self.frames) < z.shape[2]:
            raise BadObservation(f"frames: expected indices below {z.shape[2]}, got {self.frames}")
        x_a = self.observed.to(z).expand(z.shape[0], *self.observed.shape[1:])
        if t == 0:
            z_a = x_a
        elif self.draw == "posterior" and self.level is not None and t == self.level[0]:
            z_a = self.level[1]  # asked again at the same level, after a corrector
        elif self.draw == "posterior" and self.level is not None and t < self.level[0]:
            mean, variance = posterior(self.level[1], x_a, t, self.level[0], self.schedule)
            z_a = mean + expand(variance.sqrt(), z) * noise_like(mean, self.generator)
        else:
            z_a = diffuse(x_a, t, self.schedule, generator=self.generator)
        self.level = (t, z_a)
        z = z.clone()
        z[:, :, self.frames] = z_a
        return z


check_types(globals())
