"""Checks of assignment 03: Langevin steps, scores of mixtures, losses that need no density, Tweedie's moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

Score = Callable[[Tensor], Tensor]


# ---- a Langevin step -------------------------------------------------------------------------------------------


def _langevin_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, clips of 3 frames", (*(video(g, dtype=dtype) for _ in range(3)), 0.02))
    yield Case("points of a plane, a long step", (*(video(g, 5, 2) for _ in range(3)), 2.5))
    yield Case("one frame, one clip", (*(video(g, 1, 1, 1, 3, 3) for _ in range(3)), 0.3))


langevin_step = Check(
    "langevin_step",
    lambda z, score, noise, a: z + a / 2 * score + math.sqrt(a) * noise,
    _langevin_cases,
    [
        Wrong(
            lambda z, score, noise, a: z + a * score + math.sqrt(a) * noise,
            "your drift is twice too large; what stands before the gradient in (3.2)?",
        ),
        Wrong(
            lambda z, score, noise, a: z + a / 2 * score + a * noise,
            "your noise has standard deviation a; it is the variance of a Brownian increment that equals the time.",
        ),
        Wrong(
            lambda z, score, noise, a: z - a / 2 * score + math.sqrt(a) * noise,
            "you walk away from the data: the score points uphill, and so does the step.",
        ),
        Wrong(
            lambda z, score, noise, a: z + a / 2 * score + math.sqrt(2 * a) * noise,
            "your noise has variance 2a; that belongs to a drift without the one half of (3.2).",
        ),
        Wrong(
            lambda z, score, noise, a: z + a * score + math.sqrt(2 * a) * noise,
            "this is the same walk with time counted otherwise: for a step of (3.2) of length a, put a/2 for your a.",
        ),
        Wrong(
            lambda z, score, noise, a: z + a / 2 * score,
            "without the noise this is gradient ascent, and all points end on the peaks.",
        ),
    ],
)


# ---- the score of a mixture ------------------------------------------------------------------------------------


def _world(g: torch.Generator, k: int, d: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and standard deviations of k round Gaussians."""
    weights = uniform(g, 0.2, 1.0, k)
    parts = weights / weights.sum(), 1.5 * video(g, k, d), uniform(g, 0.5, 1.2, k)
    return tuple(part.to(dtype) for part in parts)  # type: ignore[return-value]


def _mixture_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        points = video(g, 6, 2, dtype=dtype)
        yield Case(f"{name_of(dtype)}, three components in a plane", (points, *_world(g, 3, 2, dtype)))
    yield Case("two components in 5 dimensions", (video(g, 2, 5), *_world(g, 2, 5)))
    points = video(g, 4, 2)
    yield Case("one component", (points, *_world(g, 1, 2)))
    weights, means, stds = _world(g, 3, 2)
    alike = torch.full_like(weights, 1 / 3), means, torch.full_like(stds, 0.6)
    yield Case("equal weights and widths, as in (3.15)", (points, *alike))
    yield Case("very far from all components", (200 + points, weights, means, stds))


def _mixture(z: Tensor, weights: Tensor, means: Tensor, stds: Tensor, log: Any = None, power: int = 2) -> Tensor:
    """log: (weights, stds, squared distance, d) -> log of weight times density, up to a constant."""
    pull = means - z[:, None]
    log = _log_density if log is None else log
    share = log(weights, stds, pull.square().sum(2), z.shape[1]).softmax(1)
    return (share[:, :, None] * pull / stds[:, None] ** power).sum(1)


def _log_density(weights: Tensor, stds: Tensor, squares: Tensor, d: int) -> Tensor:
    return weights.log() - d * stds.log() - squares / (2 * stds**2)


def _shares(log: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda z, weights, means, stds: _mixture(z, weights, means, stds, log)


def _by_densities(z: Tensor, weights: Tensor, means: Tensor, stds: Tensor, small: float = 0.0) -> Tensor:
    pull = means - z[:, None]
    density = _log_density(weights, stds, pull.square().sum(2), z.shape[1]).exp()
    return (density[:, :, None] * pull / stds[:, None] ** 2).sum(1) / (density.sum(1, keepdim=True) + small)


mixture_score = Check(
    "mixture_score",
    _mixture,
    _mixture_cases,
    [
        Wrong(
            lambda z, weights, means, stds: _by_densities(z, weights, means, stds, 1e-12),
            "a small number in the denominator hides the problem: far away all densities are 0 in floating point, and "
            "your score with them. Normalise the logarithms instead.",
        ),
        Wrong(
            _by_densities,
            "right near the data, but far away all densities are 0 in floating point and you divide 0 by 0: "
            "normalise the logarithms instead.",
        ),
        Wrong(
            _shares(lambda w, s, sq, d: w.log() - sq / (2 * s**2)),
            "your responsibilities leave out that a wide Gaussian is lower: its density is divided by a power of s.",
        ),
        Wrong(
            _shares(lambda w, s, sq, d: w.log() - s.log() - sq / (2 * s**2)),
            "you normalise each density as if it lived on a line; in d dimensions there are d factors.",
        ),
        Wrong(
            _shares(lambda w, s, sq, d: -d * s.log() - sq / (2 * s**2)),
            "the weights do not occur in your responsibilities.",
        ),
        Wrong(lambda *a: -_mixture(*a), "your score points away from the means: check the sign."),
        Wrong(
            lambda z, weights, means, stds: _mixture(z, weights, means, stds, power=1),
            "you divide the pull towards a mean by s; the derivative of −|z − m|²/(2s²) has another power.",
        ),
    ],
)


# ---- implicit and sliced ---------------------------------------------------------------------------------------


def _parameters(g: torch.Generator, d: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return tuple((video(g, d, d) / math.sqrt(d)).to(dtype) for _ in range(2))  # type: ignore[return-value]


def _with_gradients(answer: Callable[..., Any], parameters: tuple[Tensor, ...], z: Tensor, *rest: Tensor) -> Any:
    """(the losses, their sum's gradient in each parameter) for a small network."""
    first, second = (value.clone().requires_grad_() for value in parameters)

    def score(z: Tensor) -> Tensor:
        flat = z.flatten(1)
        return (torch.tanh(flat @ first) @ second - 0.3 * flat).reshape(z.shape)

    loss = answer(score, z.clone(), *rest)
    if not isinstance(loss, Tensor):
        return loss
    if not loss.requires_grad:
        return loss, *map(torch.zeros_like, parameters)
    gradients = torch.autograd.grad(loss.sum(), (first, second), allow_unused=True)
    return loss.detach(), *(torch.zeros_like(first) if part is None else part for part in gradients)


def _implicit_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, points (results 2 and 3: gradients in the network's parameters)",
            (_parameters(g, 3, dtype), video(g, 5, 3, dtype=dtype)),
        )
    yield Case("clips of 2 frames, 2 channels", (_parameters(g, 16), video(g, 2, 2, 2, 2, 2)))
    yield Case("one sample", (_parameters(g, 2), video(g, 1, 2)))
    yield Case("points of a line", (_parameters(g, 1), video(g, 4, 1)))


def _field(find: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """find: (s (b, d), its Jacobian (b, d, d) with a row for each s_i, ...) -> loss."""

    def answer(score: Score, z: Tensor, *rest: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        s = score(z).flatten(1)
        rows = [torch.autograd.grad(part.sum(), z, create_graph=True)[0].flatten(1) for part in s.unbind(1)]
        return find(s, torch.stack(rows, 1), *(probes.flatten(2) for probes in rest))

    return answer


def _half(s: Tensor) -> Tensor:
    return s.square().sum(1) / 2


def _trace(jacobian: Tensor) -> Tensor:
    return jacobian.diagonal(dim1=1, dim2=2).sum(1)


implicit_loss = Check(
    "implicit_loss",
    _field(lambda s, j: _trace(j) + _half(s)),
    _implicit_cases,
    [
        Wrong(_field(lambda s, j: _trace(j) + 2 * _half(s)), "the squared norm counts half in (3.6)."),
        Wrong(
            _field(lambda s, j: _half(s) - _trace(j)),
            "the sign of your trace is wrong: to make the loss small, a field has to point inwards at the data.",
        ),
        Wrong(
            _field(lambda s, j: j.sum((1, 2)) + _half(s)),
            "you add up all entries of the Jacobian; its trace takes the derivative of each s_i in its own z_i.",
        ),
        Wrong(
            _field(lambda s, j: _trace(j).detach() + _half(s)),
            "your trace is right but cut off from the graph: no gradient reaches the network's parameters.",
        ),
        Wrong(
            _field(lambda s, j: (_trace(j) + _half(s)).mean()),
            "you average over the samples; one value per sample was asked for.",
        ),
    ],
    probe=_with_gradients,
)


def _sliced_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype, n in ((torch.float64, 3), (torch.float32, 2)):
        yield Case(
            f"{name_of(dtype)}, {n} probes of signs (results 2 and 3: gradients in the network's parameters)",
            (_parameters(g, 3, dtype), video(g, 5, 3, dtype=dtype), video(g, n, 5, 3, dtype=dtype).sign()),
        )
    yield Case(
        "clips of 2 frames, 2 channels, normal probes",
        (_parameters(g, 16), video(g, 2, 2, 2, 2, 2), video(g, 4, 2, 2, 2, 2, 2)),
    )
    yield Case("one sample, one probe", (_parameters(g, 2), video(g, 1, 2), video(g, 1, 1, 2).sign()))
    yield Case("points of a line", (_parameters(g, 1), video(g, 4, 1), video(g, 2, 4, 1)))


def _hutchinson(j: Tensor, e: Tensor) -> Tensor:
    return torch.einsum("nbi,bij,nbj->b", e, j, e) / len(e)


sliced_loss = Check(
    "sliced_loss",
    _field(lambda s, j, e: _hutchinson(j, e) + _half(s)),
    _sliced_cases,
    [
        Wrong(
            _field(lambda s, j, e: _hutchinson(j, e) + ((s * e).sum(2) ** 2).mean(0) / 2),
            "right on average, but your second term scatters with the probe; put its mean over probes there.",
        ),
        Wrong(
            _field(lambda s, j, e: torch.einsum("nbi,bij->b", e, j) / len(e) + _half(s)),
            "the backward pass gives the vector eᵀ∇s; it still has to be multiplied by e.",
        ),
        Wrong(_field(lambda s, j, e: _hutchinson(j, e) + 2 * _half(s)), "the squared norm counts half, as in (3.6)."),
        Wrong(
            _field(lambda s, j, e: _half(s) - _hutchinson(j, e)),
            "the sign of your estimate of the trace is wrong: (3.6) has a plus.",
        ),
        Wrong(
            _field(lambda s, j, e: _hutchinson(j, e) * len(e) + _half(s)),
            "you add up the products of the probes; each of them estimates the whole trace.",
        ),
        Wrong(
            _field(lambda s, j, e: _hutchinson(j, e).detach() + _half(s)),
            "your estimate of the trace is right but cut off from the graph: no gradient reaches the parameters.",
        ),
    ],
    probe=_with_gradients,
)


# ---- denoising -------------------------------------------------------------------------------------------------


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


class _Bent:
    """A score with two parameters, which the gradient of a loss has to reach."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.parameters = tuple(torch.tensor(p, dtype=dtype, requires_grad=True) for p in (0.5, 1.0))

    def __call__(self, z: Tensor) -> Tensor:
        return self.parameters[0] * torch.sin(z) - self.parameters[1] * z


def _with_parameters(answer: Callable[..., Any], score: _Bent, *rest: Any) -> Any:
    """A probe: the losses, and what their sum's gradient in the parameters of the score is."""
    loss = answer(score, *rest)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        gradients = [torch.zeros_like(p) for p in score.parameters]
    else:
        gradients = list(torch.autograd.grad(loss.sum(), score.parameters, allow_unused=True, materialize_grads=True))
    return {"": loss, "its gradient in the two parameters of the score": gradients}


def _denoising_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        levels = (uniform(g, 0.4, 0.9, 4).to(dtype), uniform(g, 0.2, 1.5, 4).to(dtype))
        yield Case(
            f"{name_of(dtype)}, 4 clips of 4 x 4 pixels, a level for each",
            (_Bent(dtype), video(g, 4, 1, 3, 4, 4, dtype=dtype), video(g, 4, 1, 3, 4, 4, dtype=dtype), *levels),
        )
    bend = _Bent(torch.float64)
    pair = video(g, 2, 2), video(g, 2, 2)
    yield Case("two points of a plane", (bend, *pair, uniform(g, 0.4, 0.9, 2), uniform(g, 0.2, 1.5, 2)))
    one = video(g, 1, 2, 1, 3, 3), video(g, 1, 2, 1, 3, 3)
    yield Case("one clip, one frame", (bend, *one, uniform(g, 0.4, 0.9, 1), uniform(g, 0.2, 1.5, 1)))
    points = video(g, 3, 3), video(g, 3, 3)
    yield Case("little noise, nothing scaled", (bend, *points, uniform(g, 1, 1, 3), uniform(g, 0.01, 0.02, 3)))


def _regression(find: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """find: (score, x, noise, alpha, sigma) with a level per sample, in a shape that goes with x."""

    def answer(score: Score, x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 1))
        return find(score, x, noise, alpha.reshape(shape), sigma.reshape(shape))

    return answer


def _noised(score: Score, x: Tensor, e: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return _sum((score(a * x + s * e) + e / s) ** 2) / 2


denoising_loss = Check(
    "denoising_loss",
    _regression(_noised),
    _denoising_cases,
    [
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(a * x + s * e) - e / s) ** 2) / 2),
            "your target points away from the data: check the sign of ∇ log q(z | x).",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(a * x + s * e) + e) ** 2) / 2),
            "your target is minus the noise itself; the score is larger where the noise is finer.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(a * x + s * e) + e / s**2) ** 2) / 2),
            "in the target, σ² divides z − αx, which is not the noise of unit variance.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(x) + e / s) ** 2) / 2),
            "the network looks at clean data; it has to see the noisy z.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(x + s * e) + e / s) ** 2) / 2),
            "the signal in z has scale α; you left it at scale 1.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _noised(score, x, e, a, s) / x[0].numel()),
            "you average over the coordinates; the squared norm in (3.9) is their sum.",
        ),
        Wrong(
            _regression(lambda *a: _noised(*a).mean()),
            "you average over the samples; one value per sample was asked for.",
        ),
        Wrong(
            _regression(lambda *a: 2 * _noised(*a)),
            "the half of (3.9) is missing.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((s * score(a * x + s * e) + e) ** 2) / 2),
            "this is the loss weighted by σ², (3.13); (3.9) itself has no weight.",
        ),
        Wrong(
            lambda *given: _regression(_noised)(*given).detach(),
            "the value is right, but no gradient reaches the parameters of the score: a loss that is detached, or "
            "computed under no_grad, teaches nothing.",
        ),
        Wrong(
            _noised,
            "your levels run along the last axis: each belongs to a sample, so give them the shape (b, 1, …, 1).",
        ),
    ],
    probe=_with_parameters,
)


# ---- Tweedie's moments, with pen -------------------------------------------------------------------------------


class _NoisyMixture:
    """The score of a noised mixture, as a learner sees it; what it is made of is for the right answer alone."""

    def __init__(self, world: tuple[Tensor, Tensor, Tensor], alpha: float, sigma: float) -> None:
        self.world, self.noisy = world, (world[0], alpha * world[1], (alpha**2 * world[2] ** 2 + sigma**2).sqrt())

    def __call__(self, z: Tensor) -> Tensor:
        return _mixture(z, *self.noisy)


def _moment_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        score = _NoisyMixture(_world(g, 3, 2, dtype), 0.8, 0.6)
        yield Case(f"{name_of(dtype)}, three components in a plane", (score, video(g, 5, 2, dtype=dtype), 0.8, 0.6))
    yield Case("4 dimensions, variance exploding", (_NoisyMixture(_world(g, 2, 4), 1.0, 2.0), video(g, 3, 4), 1.0, 2.0))
    yield Case("one Gaussian, one point", (_NoisyMixture(_world(g, 1, 3), 0.5, 0.9), video(g, 1, 3), 0.5, 0.9))
    yield Case("a line, little noise", (_NoisyMixture(_world(g, 2, 1), 0.98, 0.2), video(g, 6, 1), 0.98, 0.2))


def _moments(score: _NoisyMixture, z: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    """By Bayes in each component and the law of total covariance."""
    _, means, stds = score.world
    noisy = score.noisy[2]
    share = _log_density(score.noisy[0], noisy, (z[:, None] - score.noisy[1]).square().sum(2), z.shape[1]).softmax(1)
    each = means + (alpha * stds**2 / noisy**2)[:, None] * (z[:, None] - score.noisy[1])
    mean = torch.einsum("bk,bkd->bd", share, each)
    off = each - mean[:, None]
    within = torch.einsum("bk,k->b", share, (stds * sigma / noisy) ** 2)
    eye = torch.eye(z.shape[1], dtype=z.dtype)
    return mean, torch.einsum("bk,bki,bkj->bij", share, off, off) + within[:, None, None] * eye


def _tweedie(find: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """find: (z, s, Hessian, identity, alpha, sigma, the right moments) -> (mean, covariance)."""

    def answer(score: _NoisyMixture, z: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        mean, covariance = _moments(score, z, alpha, sigma)
        eye = torch.eye(z.shape[1], dtype=z.dtype)
        hessian = (covariance * alpha**2 / sigma**2 - eye) / sigma**2
        return find(z, score(z), hessian, eye, alpha, sigma, mean)

    return answer


posterior_moments = Check(
    "posterior_moments",
    _moments,
    _moment_cases,
    [
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, o**2 / a**2 * (eye - o**2 * h))),
            "the sign of your second derivative is wrong; where log q curves down, is x known better or worse?",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, o**2 / a**2 * (eye + h))),
            "in your covariance the second derivative of log q is not scaled: which units does it have?",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, eye + o**2 * h)),
            "your covariance lacks the factor in front: a pure number cannot be the variance of x.",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, (eye + o**2 * h) / a)),
            "your second result is the Jacobian of the mean; the covariance is a multiple of it.",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, o**2 / a**2 * (eye + o**2 * h) + m[:, :, None] * m[:, None])),
            "your second result is E[x xᵀ | z]; for the covariance the mean's own square is still to be taken off.",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: ((z + o * s) / a, o**2 / a**2 * (eye + o**2 * h))),
            "in your mean the score is multiplied by σ; compare (3.11).",
        ),
        Wrong(
            _tweedie(lambda z, s, h, eye, a, o, m: (m, o**2 / a * (eye + o**2 * h))),
            "in your covariance α is not squared: a scale divides x, its square a covariance.",
        ),
    ],
    detached=True,
)


# ---- annealed Langevin -----------------------------------------------------------------------------------------


def _annealed_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        weights, means, stds = _world(g, 3, 2, dtype)

        def score(z: Tensor, sigma: float, w: Tensor = weights, m: Tensor = means, s: Tensor = stds) -> Tensor:
            return _mixture(z, w, m, (s**2 + sigma**2).sqrt())

        yield Case(
            f"{name_of(dtype)}, 4 levels of 3 steps",
            (score, 3 * video(g, 5, 2, dtype=dtype), video(g, 4, 3, 5, 2, dtype=dtype), 4.0, 0.5, 0.01),
        )
        last = score
    yield Case("two levels of one step", (last, video(g, 3, 2), video(g, 2, 1, 3, 2), 2.0, 0.2, 0.003))
    yield Case(
        "clips, 3 levels of 2 steps",
        (lambda z, sigma: -z / (0.5 + sigma**2), video(g), video(g, 3, 2, 2, 1, 3, 4, 4), 5.0, 1.0, 0.05),
    )


def _annealed(
    score: Callable[[Tensor, float], Tensor],
    z: Tensor,
    noise: Tensor,
    high: float,
    low: float,
    step_size: float,
    *,
    ladder: Any = None,
    power: float = 2,
    drift: float = 0.5,
) -> Tensor:
    n = len(noise)
    geometric = [high * (low / high) ** (i / (n - 1)) for i in range(n)]
    for sigma, draws in zip(geometric if ladder is None else ladder(high, low, n), noise, strict=True):
        a = step_size * (sigma / low) ** power
        for eps in draws:
            z = z + drift * a * score(z, sigma) + math.sqrt(a) * eps
    return z


def _but(**changes: Any) -> Callable[..., Tensor]:
    return lambda *arguments: _annealed(*arguments, **changes)


annealed_langevin = Check(
    "annealed_langevin",
    _annealed,
    _annealed_cases,
    [
        Wrong(
            _but(ladder=lambda high, low, n: [high + (low - high) * i / (n - 1) for i in range(n)]),
            "your levels have equal differences; (3.14) asks for equal ratios.",
        ),
        Wrong(
            _but(ladder=lambda high, low, n: [high * (low / high) ** (i / n) for i in range(n)]),
            "your ladder stops one rung above the smallest level: how many gaps do L levels have?",
        ),
        Wrong(
            _but(ladder=lambda high, low, n: [low * (high / low) ** (i / (n - 1)) for i in range(n)]),
            "you climb from little noise to much; annealing goes the other way.",
        ),
        Wrong(_but(power=1), "your step size grows with σ; it should grow with σ²."),
        Wrong(_but(power=0), "your step size is the same at every level; at a coarse level a step can be longer."),
        Wrong(
            lambda score, z, noise, *rest: _annealed(score, z, noise[:, :1], *rest),
            "you take one step per level; the noise has one draw for each of several.",
        ),
    ],
)
