"""Checks of exercises 07.1, 07.2 and 07.4: several conditions, a weight for each level, a classifier's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from minivdm.core import CosineSchedule, gaussian
from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, uniform, video, while_sampling

COSINE = CosineSchedule(-12.0, 12.0)


def _scales(t: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return COSINE.alpha(t).to(dtype), COSINE.sigma(t).to(dtype)


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
