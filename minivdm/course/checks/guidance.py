"""Checks of assignment 07: louder questions, and what they are answered with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, gaussian, guidance, samplers
from minivdm.course.checks.guided_denoiser import guided_denoiser as guided_denoiser
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video, while_sampling
from minivdm.exact import GaussianVideo, Propagation

COSINE, LINEAR = CosineSchedule(-12.0, 12.0), LinearSchedule()
FLOATS = (torch.float64, torch.float32)


def _scales(t: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return COSINE.alpha(t).to(dtype), COSINE.sigma(t).to(dtype)


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 1))


# ---- several conditions --------------------------------------------------------------------------------------


def _composed_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t, *scales = uniform(g, 0.2, 0.8, 3).tolist()
    scales = [1 + 2 * scales[0], -scales[1]]
    for dtype in FLOATS:
        z, u, a, b = (video(g, dtype=dtype) for _ in range(4))
        yield Case(
            f"{name_of(dtype)}, clips of 3 frames, one wish and one veto", (z, u, [a, b], scales, *_scales(t, dtype))
        )
    z, u, a, b, c = (video(g, 5, 2) for _ in range(5))
    yield Case("points of a plane, one condition, s = 1", (z, u, [a], [1.0], *_scales(t)))
    yield Case("points of a plane, three conditions", (z, u, [a, b, c], [2.0, 0.5, 3.0], *_scales(t)))
    z, u, a = (video(g, 1, 1, 1, 2, 2) for _ in range(3))
    alpha, sigma = torch.tensor([1.0, 3.0], dtype=torch.float64)
    yield Case("one frame, variance exploding, s = 8", (z, u, [a], [8.0], alpha, sigma))
    yield Case("no condition at all", (z, u, [], [], alpha, sigma))


def _composed(
    z: Tensor, plain: Tensor, asked: list[Tensor], scales: list[float], alpha: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    eps = (1 - sum(scales)) * plain + sum((s * one for s, one in zip(scales, asked, strict=True)), 0 * plain)
    return eps, gaussian.x_from_eps(z, eps, alpha, sigma)


def _mixed(mix: Callable[[Tensor, list[Tensor], list[float]], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    def answer(z: Tensor, u: Tensor, asked: list[Tensor], scales: list[float], alpha: Tensor, sigma: Tensor) -> Any:
        eps = mix(u, asked, scales)
        return eps, (z - sigma * eps) / alpha

    return answer


def _added(u: Tensor, asked: list[Tensor], scales: list[float]) -> Tensor:
    for scale, one in zip(scales, asked, strict=True):
        u = u + scale * one
    return u


def _second(x: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """The right noise, and x(z, right noise, the network's first answer, alpha, sigma)."""

    def answer(z: Tensor, u: Tensor, asked: list[Tensor], scales: list[float], alpha: Tensor, sigma: Tensor) -> Any:
        eps, _ = _composed(z, u, asked, scales, alpha, sigma)
        return eps, x(z, eps, asked[0] if asked else u, alpha, sigma)

    return answer


composed = Check(
    "composed",
    _composed,
    _composed_cases,
    [
        Wrong(
            _mixed(_added),
            "you add the estimates themselves; what belongs to a condition is its difference from the plain estimate.",
        ),
        Wrong(
            _mixed(lambda u, asked, scales: u + _added(0 * u, [one - u for one in asked], [s + 1 for s in scales])),
            "your scales are one too large: with one condition and s = 1 the conditional estimate comes out, unguided.",
        ),
        Wrong(
            _mixed(lambda u, asked, scales: u - _added(0 * u, [one - u for one in asked], scales)),
            "your sign is wrong: a positive scale pushes towards its condition.",
        ),
        Wrong(
            _mixed(lambda u, asked, scales: u + _added(0 * u, [one - u for one in asked], scales) / max(len(asked), 1)),
            "you average over the conditions; each of them adds its own classifier in full.",
        ),
        Wrong(
            _mixed(lambda u, asked, scales: u + _added(0 * u, [one - u for one in asked[:1]], scales[:1])),
            "you use the first condition alone.",
        ),
        Wrong(
            lambda *arguments: _composed(*arguments)[::-1],
            "your two results are in the other order: eps_tilde first, then x_tilde.",
        ),
        Wrong(
            _second(lambda z, eps, first, a, s: (z - s * first) / a),
            "your eps_tilde is right, but your x_tilde does not follow it: it comes from one of the network's answers.",
        ),
        Wrong(
            _second(lambda z, eps, first, a, s: z - s * eps),
            "your eps_tilde is right; in your x_tilde the signal still has scale alpha.",
        ),
        Wrong(
            _second(lambda z, eps, first, a, s: (z - s**2 * eps) / a),
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
        logits = _reader(video(g, 48, 5, dtype=dtype))
        z, v = video(g, 3, 1, 3, 4, 4, dtype=dtype), video(g, 3, 1, 3, 4, 4, dtype=dtype)
        yield Case(
            f"{name_of(dtype)}, three clips, a class each of five",
            (z, v, logits, torch.tensor([4, 0, 2]), 1 + w, *_scales(t, dtype)),
        )
    points = video(g, 6, 2), video(g, 6, 2), _reader(video(g, 2, 3))
    yield Case("points, three classes, w = 1", (*points, torch.tensor([0, 1, 2, 2, 1, 1]), 1.0, *_scales(t)))
    frame = video(g, 1, 1, 1, 4, 4), video(g, 1, 1, 1, 4, 4), _reader(video(g, 16, 10))
    yield Case("one clip of one frame, ten classes", (*frame, torch.tensor([7]), 3.0, *_scales(t)))
    yield Case("w = 0", (*frame, torch.tensor([3]), 0.0, *_scales(t)))


def _reader(weights: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: (z.flatten(1).tanh() + 0.1 * z.flatten(1).square()) @ weights


def _chosen(logits: Tensor, wanted: Tensor) -> Tensor:
    return log_softmax(logits, 1).gather(1, wanted[:, None])[:, 0]


def _nudged(
    nudge: Callable[..., Any] = lambda w, alpha, sigma: -w * sigma / alpha,
    chosen: Callable[[Tensor, Tensor], Tensor] = _chosen,
    total: Callable[[Tensor], Tensor] = torch.sum,
    graph: bool = True,
) -> Callable[..., Tensor]:
    """chosen: (logits, wanted) -> what is differentiated; nudge: what its gradient is multiplied by."""

    def answer(
        z: Tensor, v: Tensor, logits: Callable, wanted: Tensor, w: float, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        with torch.set_grad_enabled(graph):
            points = z.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(total(chosen(logits(points), wanted)), points)
        return v + nudge(w, alpha, sigma) * gradient

    return answer


guided_by_classifier = Check(
    "guided_by_classifier",
    _nudged(),
    _classifier_cases,
    [
        Wrong(
            _nudged(graph=False),
            "there is no graph to differentiate: samplers run under torch.no_grad(). Switch gradients on around the "
            "call of the classifier, and call it with a leaf that requires them.",
        ),
        Wrong(
            _nudged(lambda w, a, s: w * s**2 / a),
            "this is how x_hat is guided; v answers with the other sign and another factor: solve x = alpha z − sigma "
            "v for v.",
        ),
        Wrong(
            _nudged(lambda w, a, s: w * s / a),
            "your sign is wrong: where x_hat grows, v falls.",
        ),
        Wrong(_nudged(lambda w, a, s: -w * s), "you forgot alpha: x_hat enters the score with a factor alpha."),
        Wrong(
            _nudged(lambda w, a, s: w),
            "you add the gradient to v as if it were a score: what becomes of v where the score changes by u?",
        ),
        Wrong(
            _nudged(lambda w, a, s: -(1 + w) * s / a),
            "your weight is 1 + w, as in (7.5). Here w multiplies the classifier itself, and w = 0 does nothing.",
        ),
        Wrong(
            _nudged(chosen=lambda logits, wanted: logits.gather(1, wanted[:, None])),
            "you differentiate a logit; log p(c|z) also has the normaliser, which depends on z too: log_softmax.",
        ),
        Wrong(
            _nudged(chosen=lambda logits, wanted: log_softmax(logits, 1)[:, wanted]),
            "`[:, wanted]` takes for every clip the classes of all clips; each clip has one of its own.",
        ),
        Wrong(
            _nudged(chosen=lambda logits, wanted: _chosen(logits, wanted).exp()),
            "you differentiate the probability; Bayes' rule for scores has its logarithm.",
        ),
        Wrong(
            _nudged(chosen=lambda logits, wanted: log_softmax(logits, 0).gather(1, wanted[:, None])),
            "your softmax runs over the batch; a classifier's probabilities sum to one over the classes.",
        ),
        Wrong(
            _nudged(total=torch.mean),
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


# ---- projected guidance --------------------------------------------------------------------------------------


def _projected_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    eta, w = float(uniform(g, 0.2, 0.6)), float(uniform(g, 1.5, 4.0))
    sizes = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    for dtype in FLOATS:
        x_c = video(g, 3, 1, 3, 4, 4, dtype=dtype).tanh() - 0.4
        x_u = (x_c + _per_sample(sizes, x_c) * (0.4 * x_c + video(g, 3, 1, 3, 4, 4, dtype=dtype))).to(dtype)
        yield Case(f"{name_of(dtype)}, clips that differ a little, more, and most; radius 4", (x_c, x_u, w, eta, 4.0))
    pair = video(g, 4, 10), video(g, 4, 10)
    yield Case("points, eta = 0, no radius", (*pair, w, 0.0, math.inf))
    yield Case("points, eta = 1, no radius", (*pair, w, 1.0, math.inf))
    yield Case("points, w = 0", (*pair, 0.0, eta, 1.0))
    yield Case("one clip of one frame, a small radius", (*(video(g, 1, 1, 1, 4, 4) for _ in range(2)), w, eta, 0.5))
    yield Case("both estimates agree", (pair[0], pair[0].clone(), w, eta, 1.0))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return _per_sample((a * b).flatten(1).sum(1), a)


def _shortened(push: Tensor, radius: float) -> Tensor:
    return push * (radius / _dot(push, push).sqrt().clamp(min=1e-30)).clamp(max=1.0)


def _along(push: Tensor, line: Tensor) -> Tensor:
    return _dot(push, line) / _dot(line, line) * line


def _projected(x_c: Tensor, x_u: Tensor, w: float, eta: float, radius: float) -> Tensor:
    push = _shortened(x_c - x_u, radius)
    return x_c + w * (push - (1 - eta) * _along(push, x_c))


def _pushed(push: Callable[..., Tensor], along: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """push: (difference, radius) -> what is added; along: (push, x_c, x_u) -> its part along an estimate."""

    def answer(x_c: Tensor, x_u: Tensor, w: float, eta: float, radius: float) -> Tensor:
        change = push(x_c - x_u, radius)
        return x_c + w * (change - (1 - eta) * along(change, x_c, x_u))

    return answer


def _exchanged(x_c: Tensor, x_u: Tensor, w: float, eta: float, radius: float) -> Tensor:
    push = _shortened(x_c - x_u, radius)
    return x_c + w * (eta * push + (1 - eta) * _along(push, x_c))


def _on_c(push: Tensor, x_c: Tensor, x_u: Tensor) -> Tensor:
    return _along(push, x_c)


projected = Check(
    "projected",
    _projected,
    _projected_cases,
    [
        Wrong(
            _pushed(lambda d, r: d, _on_c),
            "your difference may be as long as it likes: where it is longer than the radius, it is shortened to it.",
        ),
        Wrong(
            _pushed(lambda d, r: d * min(1.0, r / max(float(d.norm()), 1e-30)), _on_c),
            "your length is that of the whole batch: each sample's difference has one of its own.",
        ),
        Wrong(
            _pushed(lambda d, r: d * min(r, 1e30) / _dot(d, d).sqrt().clamp(min=1e-30), _on_c),
            "you lengthen short differences as well: the radius is an upper limit.",
        ),
        Wrong(
            _pushed(lambda d, r: d.clamp(-r, r), _on_c),
            "you clip the values of the difference, which turns it; it is to be shortened as a whole.",
        ),
        Wrong(
            _pushed(_shortened, lambda d, x_c, x_u: _along(d, x_u)),
            "you project on the unconditional estimate; the direction that saturates is that of the conditional one.",
        ),
        Wrong(
            _pushed(_shortened, lambda d, x_c, x_u: _dot(d, x_c) * x_c),
            "your projection is not divided by the squared length of the estimate.",
        ),
        Wrong(
            _pushed(_shortened, lambda d, x_c, x_u: _dot(d, x_c) / _dot(x_c, x_c).sqrt() * x_c),
            "your projection is divided by the length of the estimate; a length enters once for each factor, squared.",
        ),
        Wrong(
            _pushed(_shortened, lambda d, x_c, x_u: (d * x_c).sum() / x_c.square().sum() * x_c),
            "your projection runs over the whole batch: each sample has a line of its own.",
        ),
        Wrong(
            _exchanged,
            "you have the two parts exchanged: eta belongs to the part along the estimate, the other counts in full.",
        ),
        Wrong(
            lambda x_c, x_u, w, eta, r: _projected(x_c, x_u, w - 1, eta, r),
            'your w is the "guidance scale" of papers, 1 without guidance; here w = 0 gives the conditional estimate.',
        ),
        Wrong(
            lambda x_c, x_u, w, eta, r: _projected(x_c, x_u, w, eta, r) - x_c + x_u,
            "you begin from the unconditional estimate; what is added belongs to the conditional one.",
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
