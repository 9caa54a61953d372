"""Checks of assignment 07: louder questions, and what they are answered with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, gaussian, guidance, samplers
from minivdm.course.checks.guided_denoiser import guided_denoiser as guided_denoiser
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video, while_sampling
from minivdm.exact import GaussianMixture, GaussianVideo, Propagation

COSINE, LINEAR = CosineSchedule(-12.0, 12.0), LinearSchedule()
FLOATS = (torch.float64, torch.float32)


def _scales(t: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return COSINE.alpha(t).to(dtype), COSINE.sigma(t).to(dtype)


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 1))


# ---- classifier-free guidance --------------------------------------------------------------------------------


def _free_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t, w = uniform(g, 0.2, 0.8, 2).tolist()
    for dtype in FLOATS:
        z, c, u = (video(g, dtype=dtype) for _ in range(3))
        yield Case(f"{name_of(dtype)}, clips of 3 frames, w = {1 + w:.2f}", (z, c, u, 1 + w, *_scales(t, dtype)))
    z, c, u = (video(g, 5, 2) for _ in range(3))
    yield Case("points of a plane, w = 0", (z, c, u, 0.0, *_scales(t)))
    yield Case("points of a plane, w = -1", (z, c, u, -1.0, *_scales(t)))
    z, c, u = (video(g, 1, 1, 1, 2, 2) for _ in range(3))
    alpha, sigma = torch.tensor([1.0, 3.0], dtype=torch.float64)
    yield Case("one frame, variance exploding, w = 7", (z, c, u, 7.0, alpha, sigma))


def _free(z: Tensor, c: Tensor, u: Tensor, w: float, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    eps = c + w * (c - u)
    return eps, gaussian.x_from_eps(z, eps, alpha, sigma)


def _mixed(mix: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    def answer(z: Tensor, c: Tensor, u: Tensor, w: float, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        eps = mix(c, u, w)
        return eps, (z - sigma * eps) / alpha

    return answer


classifier_free = Check(
    "classifier_free",
    _free,
    _free_cases,
    [
        Wrong(
            _mixed(lambda c, u, w: u + w * (c - u)),
            'your w is the "guidance scale" of libraries, 1 without guidance; in (7.5) w = 0 gives the conditional '
            "estimate.",
        ),
        Wrong(
            _mixed(lambda c, u, w: (1 + w) * u - w * c),
            "you exchanged the two estimates: guidance moves away from the unconditional one.",
        ),
        Wrong(
            _mixed(lambda c, u, w: (1 + w) * c + w * u),
            "your two weights do not sum to one; what is subtracted from the conditional estimate?",
        ),
        Wrong(
            lambda z, c, u, w, a, s: _free(z, c, u, w, a, s)[::-1],
            "your two results are in the other order: eps_tilde first, then x_tilde.",
        ),
        Wrong(
            lambda z, c, u, w, a, s: (c + w * (c - u), (z - s * c) / a),
            "your eps_tilde is right, but your x_tilde does not follow it: it comes from the conditional noise.",
        ),
        Wrong(
            lambda z, c, u, w, a, s: (c + w * (c - u), z - s * (c + w * (c - u))),
            "your eps_tilde is right; in your x_tilde the signal still has scale alpha.",
        ),
        Wrong(
            lambda z, c, u, w, a, s: (c + w * (c - u), (z - s**2 * (c + w * (c - u))) / a),
            "your eps_tilde is right; your x_tilde scales the noise by a variance, not by a standard deviation.",
        ),
    ],
)


# ---- a weight for each level ---------------------------------------------------------------------------------


def _weight_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    low, high = float(uniform(g, -4.0, -1.0)), float(uniform(g, 1.0, 4.0))
    scale = float(uniform(g, 2.0, 9.0))
    levels = torch.cat([uniform(g, -12.0, 12.0, 6), torch.tensor([-8.0, 0.0, 8.0], dtype=torch.float64)])
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, levels below, in and above the interval", (levels.to(dtype), scale, low, high))
    yield Case("levels at the ends of the interval", (torch.tensor([-2.0, 3.0]).double(), scale, -2.0, 3.0))
    yield Case("an interval without upper end", (levels, scale, low, math.inf))
    yield Case("one level, scale 1", (torch.tensor(0.25).double(), 1.0, low, high))
    yield Case("one level, scale 0", (torch.tensor(0.25).double(), 0.0, low, high))


def _inside(levels: Tensor, low: float, high: float) -> Tensor:
    return ((levels >= low) & (levels <= high)).to(levels.dtype)


weight_at = Check(
    "weight_at",
    lambda levels, scale, low, high: torch.where(
        (levels < low) | (levels > high), torch.zeros_like(levels), torch.full_like(levels, scale - 1)
    ),
    _weight_cases,
    [
        Wrong(
            lambda levels, scale, low, high: scale * _inside(levels, low, high),
            "inside the interval you return the paper's own number. There 1 is no guidance, in (7.5) it is 0.",
        ),
        Wrong(
            lambda levels, scale, low, high: scale * _inside(levels, low, high) - 1,
            "your weight is -1 outside the interval: that is the unconditional estimate, not the unguided one.",
        ),
        Wrong(
            lambda levels, scale, low, high: (scale - 1) * (1 - _inside(levels, low, high)),
            "you guide outside of the interval, and not inside.",
        ),
        Wrong(
            lambda levels, scale, low, high: (scale - 1) * ((levels > low) & (levels < high)).to(levels.dtype),
            "the ends of the interval belong to it: your comparison leaves them out.",
        ),
        Wrong(
            lambda levels, scale, low, high: (scale - 1) * (levels >= low).to(levels.dtype),
            "you do not stop guiding above the upper end of the interval.",
        ),
    ],
)


# ---- classifier guidance -------------------------------------------------------------------------------------


def _classifier_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t, w = uniform(g, 0.3, 0.6, 2).tolist()
    for dtype in FLOATS:
        direction = video(g, 1, 1, 3, 4, 4, dtype=dtype)
        log_prob = _reader(direction)
        z, x_hat = video(g, dtype=dtype), video(g, dtype=dtype)
        yield Case(f"{name_of(dtype)}, clips of 3 frames", (z, x_hat, log_prob, 1 + w, *_scales(t, dtype)))
    mixture, (alpha, sigma) = GaussianMixture.ring(4, 1.0, 0.4), _scales(t)
    classify = mixture.log_class(1, COSINE)
    z = video(g, 6, 2)
    x_hat = mixture.posterior_mean(z, alpha, sigma)
    arguments = z, x_hat, lambda z: classify(z, t), 1.0, alpha, sigma
    yield Case("points of a mixture, its exact classifier, w = 1", arguments)
    z, x_hat = video(g, 1, 1, 1, 4, 4), video(g, 1, 1, 1, 4, 4)
    yield Case("one clip of one frame", (z, x_hat, _reader(video(g, 1, 1, 1, 4, 4)), 3.0, *_scales(t)))
    yield Case("w = 0", (z, x_hat, _reader(video(g, 1, 1, 1, 4, 4)), 0.0, *_scales(t)))


def _reader(direction: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: logsigmoid((z * direction - 0.1 * z.square()).flatten(1).sum(1))


def _nudged(nudge: Callable[..., Any], total: Callable[[Tensor], Tensor] = torch.sum) -> Callable[..., Tensor]:
    def answer(z: Tensor, x_hat: Tensor, log_prob: Callable, w: float, alpha: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            points = z.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(total(log_prob(points)), points)
        return x_hat + nudge(w, alpha, sigma) * gradient

    return answer


_classifier = _nudged(lambda w, alpha, sigma: w * sigma**2 / alpha)


def _without_graph(z: Tensor, x_hat: Tensor, log_prob: Callable, w: float, alpha: Tensor, sigma: Tensor) -> Tensor:
    points = z.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_prob(points).sum(), points)
    return x_hat + w * sigma**2 / alpha * gradient


guided_by_classifier = Check(
    "guided_by_classifier",
    _classifier,
    _classifier_cases,
    [
        Wrong(
            _without_graph,
            "there is no graph to differentiate: samplers run under torch.no_grad(). Switch gradients on around the "
            "call of log_prob, and call it with a leaf that requires them.",
        ),
        Wrong(
            _nudged(lambda w, a, s: w * s / a),
            "you scale the gradient by sigma/alpha; a score turns into x by way of a variance, not its root.",
        ),
        Wrong(_nudged(lambda w, a, s: w * s**2), "you forgot alpha: x_hat enters the score with a factor alpha."),
        Wrong(
            _nudged(lambda w, a, s: w),
            "you add the gradient to x_hat as if it were a score: which factor takes scores to clean data?",
        ),
        Wrong(
            _nudged(lambda w, a, s: -w * s**2 / a),
            "your sign is wrong: the estimate should move to where the class is more probable.",
        ),
        Wrong(
            _nudged(lambda w, a, s: (1 + w) * s**2 / a),
            "your weight is 1 + w, as in (7.5). Here w multiplies the classifier itself, and w = 0 does nothing.",
        ),
        Wrong(
            _nudged(lambda w, a, s: w * s**2 / a, torch.mean),
            "a mean over the batch divides each clip's own gradient by the number of clips.",
        ),
    ],
    probe=while_sampling,
)


# ---- rescaling -----------------------------------------------------------------------------------------------


def _rescale_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    phi = float(uniform(g, 0.55, 0.9))
    for dtype in FLOATS:
        x_c = video(g, 3, 2, 3, 4, 4, dtype=dtype)
        x_c = x_c * _per_sample(torch.tensor([0.4, 0.7, 1.0], dtype=dtype), x_c) - 0.3
        x_w = 2 * x_c + video(g, 3, 2, 3, 4, 4, dtype=dtype)
        yield Case(f"{name_of(dtype)}, clips of 3 frames in two channels", (x_w, x_c, phi))
    x_w, x_c = video(g, 4, 6) + 1, video(g, 4, 6) - 1
    yield Case("points, phi = 1", (x_w, x_c, 1.0))
    yield Case("points, phi = 0", (x_w, x_c, 0.0))
    yield Case("one clip of one frame", (3 * video(g, 1, 1, 1, 4, 4), video(g, 1, 1, 1, 4, 4), phi))


def _spread(x: Tensor) -> Tensor:
    return _per_sample(x.flatten(1).var(1).sqrt(), x)


def _rescaled(ratio: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x_w, x_c, phi: x_w * (1 + phi * (ratio(x_w, x_c) - 1))


def _frame_std(x: Tensor) -> Tensor:
    return x.std(dim=tuple(range(max(1, x.ndim - 2), x.ndim)), keepdim=True)


rescaled = Check(
    "rescaled",
    _rescaled(lambda x_w, x_c: _spread(x_c) / _spread(x_w)),
    _rescale_cases,
    [
        Wrong(
            _rescaled(lambda x_w, x_c: x_c.std() / x_w.std()),
            "your standard deviations are of the whole batch: each sample has a ratio of its own.",
        ),
        Wrong(
            _rescaled(lambda x_w, x_c: _frame_std(x_c) / _frame_std(x_w)),
            "your standard deviations are of single frames; the ratio is one number for all of a sample.",
        ),
        Wrong(
            _rescaled(lambda x_w, x_c: _spread(x_w) / _spread(x_c)),
            "your ratio is upside down: the guided estimate is the one that has become too large.",
        ),
        Wrong(
            _rescaled(lambda x_w, x_c: _per_sample(x_c.flatten(1).norm(dim=1) / x_w.flatten(1).norm(dim=1), x_w)),
            "you compare root mean squares; a standard deviation is taken around the sample's own mean.",
        ),
        Wrong(
            lambda x_w, x_c, phi: x_w * (phi + (1 - phi) * _spread(x_c) / _spread(x_w)),
            "phi = 1 should be the rescaled estimate and phi = 0 the plain one: you have them exchanged.",
        ),
    ],
)


# ---- dynamic thresholding ------------------------------------------------------------------------------------


def _threshold_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    sizes = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    for dtype in FLOATS:
        x = video(g, 3, 1, 3, 4, 4)
        x = (x * _per_sample(sizes, x) - 0.2).to(dtype)
        yield Case(f"{name_of(dtype)}, a quiet, a loud and a louder clip", (x, 0.9))
    yield Case("points, quantile 0.5", (2 * video(g, 4, 10), 0.5))
    yield Case("one clip of one frame, quantile 1", (2 * video(g, 1, 1, 1, 4, 4), 1.0))
    yield Case("values within [-1, 1]", (video(g, 2, 1, 2, 3, 3).tanh(), 0.995))
    x = 1.5 * torch.linspace(-1, 1, 40, dtype=torch.float64)[None] + uniform(g, 0.1, 0.3)
    yield Case("largest value between 1 and 2", (x, 0.995))
    yield Case("11 sizes, quantile 0.57", (3 * video(g, 3, 11), 0.57))
    yield Case("11 sizes, quantile 0.59", (3 * video(g, 3, 11), 0.59))


def _threshold(bound: Callable[[Tensor, float], Tensor], shrink: bool = True) -> Callable[..., Tensor]:
    def answer(x: Tensor, quantile: float) -> Tensor:
        m = bound(x, quantile)
        return x.minimum(m).maximum(-m) / (m if shrink else 1)

    return answer


def _at_rank(x: Tensor, rank: Callable[[int], int]) -> Tensor:
    sizes = x.flatten(1).sort(dim=1).values
    return _per_sample(sizes[:, rank(sizes.shape[1])], x)


def _ranked(x: Tensor, quantile: float) -> Tensor:
    return _at_rank(x, lambda n: math.ceil(quantile * n) - 1)


dynamic_threshold = Check(
    "dynamic_threshold",
    lambda x, quantile: guidance.dynamically_thresholded(guidance.Guided(lambda z, t: x, COSINE), quantile)(x, 0.5),  # type: ignore[arg-type]
    _threshold_cases,
    [
        Wrong(
            _threshold(lambda x, q: _ranked(x.abs(), q)),
            "your m falls below 1 where a sample is within the range already, and enlarges it: m is at least 1.",
        ),
        Wrong(
            _threshold(lambda x, q: _ranked(x.abs().reshape(1, -1), q).reshape(()).clamp(min=1)),
            "your quantile is one of the whole batch: each sample has an m of its own.",
        ),
        Wrong(
            _threshold(lambda x, q: _ranked(x.abs(), q).clamp(min=1), shrink=False),
            "you clip to [-m, m], but do not divide by m afterwards: values beyond 1 are left.",
        ),
        Wrong(
            _threshold(lambda x, q: _ranked(x, q).clamp(min=1)),
            "your quantile is of the values, not of their sizes: very dark counts as much as very bright.",
        ),
        Wrong(
            _threshold(lambda x, q: torch.ones_like(x)),
            "you clip to [-1, 1], which is static clipping; (7.12) clips at m, and then divides.",
        ),
        Wrong(
            _threshold(lambda x, q: _per_sample(x.abs().flatten(1).quantile(q, dim=1), x).clamp(min=1)),
            "your m lies between two sizes: torch.quantile interpolates. Take the size of the rank named.",
        ),
        Wrong(
            _threshold(lambda x, q: _at_rank(x.abs(), lambda n: min(math.ceil(q * n), n - 1)).clamp(min=1)),
            "your rank is one too high: counted from 1, the k-th smallest has the index k − 1.",
        ),
        Wrong(
            _threshold(lambda x, q: _at_rank(x.abs(), lambda n: max(int(q * n) - 1, 0)).clamp(min=1)),
            "you round the rank down; it is the smallest whole number that is at least q n.",
        ),
        Wrong(
            _threshold(lambda x, q: _at_rank(x.abs(), lambda n: max(round(q * n) - 1, 0)).clamp(min=1)),
            "you round the rank to the nearest number; it is the smallest whole number that is at least q n.",
        ),
        Wrong(
            lambda x, q: x / _ranked(x.abs(), q).clamp(min=1),
            "you divide by m without clipping first: values beyond the quantile stay beyond 1.",
        ),
    ],
)


# ---- two Gaussians: the flow, and the random sampler -------------------------------------------------------------


def _flow_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    a, b, w = float(uniform(g, 0.2, 0.5)), float(uniform(g, 0.8, 1.5)), float(uniform(g, 1.2, 3.0))
    yield Case("noise not much larger than the data", (w, a, b, 1.5))
    yield Case("weight 0", (0.0, a, b, 2.0))
    yield Case("weight -1", (-1.0, a, b, 2.0))
    yield Case("sigma_max = 80", (w, a, b, 80.0))
    yield Case("many weights at once", (torch.linspace(0, 3, 5, dtype=torch.float64), a, b, 3.0))


def _flow(w: Any, a: float, b: float, sigma_max: float) -> Any:
    log_v = 2 * math.log(sigma_max) + (1 + w) * math.log(a / (a + sigma_max**2)) - w * math.log(b / (b + sigma_max**2))
    return log_v.exp() if isinstance(log_v, Tensor) else math.exp(log_v)


flow_variance = Check(
    "flow_variance",
    _flow,
    _flow_cases,
    [
        Wrong(
            lambda w, a, b, m: a ** (1 + w) * b**-w + 0 * w,
            "yours is (7.9) for S_a and S_b alike at t = 1. Here they differ there: keep them.",
        ),
        Wrong(
            lambda w, a, b, m: (a / (a + m**2)) ** (1 + w) * (b / (b + m**2)) ** -w,
            "the factor is right, but of what? The flow starts from noise, whose variance is not 1 here.",
        ),
        Wrong(
            lambda w, a, b, m: m**2 * (a / (a + m**2)) ** ((1 + w) / 2) * (b / (b + m**2)) ** (-w / 2),
            "you multiply the variance by the factor that scales z; a variance is scaled by its square.",
        ),
        Wrong(
            lambda w, a, b, m: m**2 * (b / (b + m**2)) ** (1 + w) * (a / (a + m**2)) ** -w,
            "you have a and b exchanged: a is the variance of the class, whose score has weight 1 + w.",
        ),
        Wrong(
            lambda w, a, b, m: m**2 * (a / (a + m**2)) ** (1 + w) * (b / (b + m**2)) ** w,
            "the unconditional score is subtracted: its exponent has the other sign.",
        ),
        Wrong(
            lambda w, a, b, m: 1 / ((1 + w) / a - w / b),
            "that is the variance of the tilted density, which the guided flow does not sample.",
        ),
    ],
)


def _chain_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    a, b, w = float(uniform(g, 0.2, 0.4)), float(uniform(g, 0.8, 1.3)), float(uniform(g, 1.0, 2.0))
    middle = torch.linspace(0.7, 0.3, 4, dtype=torch.float64)
    yield Case("three steps in the middle", (w, a, b, middle, COSINE))
    yield Case("one step", (w, a, b, torch.tensor([0.8, 0.5]).double(), COSINE))
    yield Case("weight 0, from t = 1, linear schedule", (0.0, a, b, torch.linspace(1, 0.1, 9).double(), LINEAR))
    yield Case("weight 3, from t = 1", (3.0, 0.25, 1.0, torch.linspace(1, 0, 13, dtype=torch.float64)[:-1], COSINE))


def _chain(w: float, a: float, b: float, times: Tensor, schedule: Schedule) -> Tensor:
    narrow, wide = (GaussianVideo(1, covariance=torch.tensor([[v]], dtype=torch.float64)) for v in (a, b))
    asked, plain = narrow.denoiser(schedule), wide.denoiser(schedule)
    guided = guidance.Guided(lambda z, t: (1 + w) * asked(z, t) - w * plain(z, t), schedule)
    walk = Propagation(wide, schedule, lambda _: guided)
    law = walk.start(1.0)
    for t, s in zip(times[:-1], times[1:], strict=True):
        law = walk.step(law, lambda d, z, t=t, s=s: samplers.ancestral_law(d, z, t, s))  # type: ignore[misc]
    return law.covariance[0, 0]


def _stepped(step: Callable[..., Tensor], gain: Callable[..., Tensor] | None = None) -> Callable[..., Tensor]:
    """step: (v, k, r, alphas and sigmas of t and s) -> v at s, for an estimate k z."""

    def answer(w: float, a: float, b: float, times: Tensor, schedule: Schedule) -> Tensor:
        v = torch.tensor(1.0, dtype=torch.float64)
        for t, s in zip(times[:-1], times[1:], strict=True):
            at, st, as_, ss = schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)
            k_a, k_b = (x / (at**2 * x + st**2) for x in (a, b))
            k = at * ((1 + w) * k_a - w * k_b) if gain is None else gain(w, at, k_a, k_b)
            v = step(v, k, (schedule.log_snr(t) - schedule.log_snr(s)).exp(), at, st, as_, ss)
        return v

    return answer


def _ancestral(v: Tensor, k: Tensor, r: Tensor, at: Tensor, st: Tensor, as_: Tensor, ss: Tensor) -> Tensor:
    return (r * as_ / at + (1 - r) * as_ * k) ** 2 * v + (1 - r) * ss**2


ancestral_variance = Check(
    "ancestral_variance",
    _chain,
    _chain_cases,
    [
        Wrong(
            _stepped(lambda v, k, r, at, st, as_, ss: (r * as_ / at + (1 - r) * as_ * k) ** 2 * v),
            "you follow the mean of each step alone: the fresh noise of a step adds its own variance.",
        ),
        Wrong(
            _stepped(lambda v, k, r, at, st, as_, ss: (r * as_ / at + (1 - r) * as_ * k) ** 2 * v + (1 - r) * st**2),
            "the noise you add is that of the transition from s to t; the posterior's is smaller.",
        ),
        Wrong(
            _stepped(lambda v, k, r, at, st, as_, ss: (r * as_ / at + (1 - r) * as_ * k) * v + (1 - r) * ss**2),
            "a step multiplies z by a number, and the variance of z by its square: you forgot the square.",
        ),
        Wrong(
            _stepped(lambda v, k, r, at, st, as_, ss: (as_ * k + ss * (1 - at * k) / st) ** 2 * v),
            "that is the variance under DDIM: an ancestral step has another mean, and adds noise.",
        ),
        Wrong(
            _stepped(_ancestral, lambda w, at, k_a, k_b: (1 + w) * k_a - w * k_b),
            "your estimate lacks a factor alpha_t: E[x|z] of a Gaussian of variance a is alpha_t a z / S_a.",
        ),
        Wrong(
            _stepped(_ancestral, lambda w, at, k_a, k_b: at * k_a),
            "you sample the class without guidance: w does not enter your estimate.",
        ),
    ],
)
