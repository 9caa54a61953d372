"""Checks of exercises 10.4, 10.6 and 10.7: two frames, reconstruction guidance, and the weight that is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule
from minivdm.course.checks.harness import (
    FLOATS,
    Case,
    Check,
    Wrong,
    counting_while_sampling,
    generator,
    name_of,
    uniform,
    video,
)
from minivdm.exact import GaussianVideo

COSINE = CosineSchedule(-12.0, 12.0)


# ---- two frames ----------------------------------------------------------------------------------------------


def _two_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    rho, t = float(uniform(g, 0.5, 0.9)), float(uniform(g, 0.3, 0.7))
    level = COSINE.alpha(t), COSINE.sigma(t)
    points = uniform(g, -2.0, 2.0, 3, 5)
    for name, r, scales in (
        ("rho > 0", rho, level),
        ("rho < 0", -rho, level),
        ("rho = 0", 0.0, level),
        ("nearly pure noise", rho, (COSINE.alpha(1.0), COSINE.sigma(1.0))),
        ("variance exploding, sigma = 2", rho, torch.tensor([1.0, 2.0]).double().unbind()),
    ):
        yield Case(name, (r, *points, *scales))


def _two(rho: float, z_a: Tensor, z_b: Tensor, x_a: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    world, z = GaussianVideo(2, rho), torch.stack([z_a, z_b], dim=1)[:, None, :, None, None]
    given = world.given(x_a[:, None, None, None, None])
    return tuple(w.posterior_mean(z, alpha, sigma)[:, 0, 1, 0, 0] for w in (world, given))  # type: ignore[return-value]


def _second(second: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Right without x_a; second: (rho, z_a, z_b, x_a, alpha, sigma) -> the estimate that knows it."""
    return lambda *arguments: (_two(*arguments)[0], second(*arguments))


def _alone(rho: float, z_a: Tensor, z_b: Tensor, x_a: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return a * z_b / (a**2 + s**2), _two(rho, z_a, z_b, x_a, a, s)[1]


def _preserved(rho: float, z_a: Tensor, z_b: Tensor, x_a: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    shared = a**2 * rho
    without = a * ((rho - shared) * z_a + (1 - rho * shared) * z_b) / (1 - shared**2)
    return without, _two(rho, z_a, z_b, x_a, a, s)[1]


two_frames = Check(
    "two_frames",
    _two,
    _two_cases,
    [
        Wrong(
            _second(lambda r, za, zb, xa, a, s: r * xa + 0 * zb),
            "your conditional estimate does not look at z_b: x_a gives a prior for x_b, and z_b tells more.",
        ),
        Wrong(
            _second(lambda r, za, zb, xa, a, s: r * xa + a / (a**2 + s**2) * (zb - a * r * xa)),
            "in your conditional estimate x_b still has variance 1: how much of it is left when x_a is known?",
        ),
        Wrong(
            _second(lambda r, za, zb, xa, a, s: r * xa + a * (1 - r**2) / (a**2 * (1 - r**2) + s**2) * (zb - r * xa)),
            "you compare z_b with rho x_a; its mean given x_a is smaller by a factor.",
        ),
        Wrong(
            _alone,
            "your unconditional estimate looks at z_b alone: the other frame is correlated, and z_a tells about it.",
        ),
        Wrong(
            _second(lambda r, za, zb, xa, a, s: r * xa + a * (1 - r) / (a**2 * (1 - r) + s**2) * (zb - a * r * xa)),
            "what is left of x_b's variance when x_a is known is 1 − rho², not 1 − rho.",
        ),
        Wrong(
            _preserved,
            "your unconditional estimate takes alpha² + sigma² for 1; that is so where variance is preserved, and not "
            "here always.",
        ),
        Wrong(lambda *arguments: _two(*arguments)[::-1], "you return the two estimates in the other order."),
        Wrong(
            _second(lambda r, za, zb, xa, a, s: _two(r, a * xa, zb, xa, a, s)[0]),
            "your conditional estimate has alpha x_a in the place of z_a: what is known counts as noisy there.",
        ),
    ],
)


def _weight_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    levels = uniform(g, -5.0, 4.0, 6)
    yield Case("rho > 0", (float(uniform(g, 0.5, 0.95)), levels))
    yield Case("rho < 0", (float(uniform(g, -0.9, -0.5)), levels))
    yield Case("rho = 0", (0.0, levels))
    for name, level in (("one level", 0.5), ("nearly pure noise", -12.0), ("nearly clean frames", 12.0)):
        yield Case(f"rho = 0.99, {name}", (0.99, torch.tensor(level, dtype=torch.float64)))


def _weight(rho: float, log_snr: Tensor) -> Tensor:
    prior = torch.linalg.inv(GaussianVideo(2, rho).covariance)
    snr = log_snr.exp()[..., None, None]
    return 1 / (log_snr.exp() * torch.linalg.inv(prior + snr * torch.eye(2, dtype=torch.float64))[..., 0, 0])


right_weight = Check(
    "right_weight",
    _weight,
    _weight_cases,
    [
        Wrong(
            lambda rho, lam: 1 / _weight(rho, lam),
            "yours is at most 1; by (10.7) it should be at least 1, because (10.4) claims too much variance.",
        ),
        Wrong(
            lambda rho, lam: (1 / (1 - rho**2) + lam.exp()) / lam.exp(),
            "you took the precision's first entry for 1/C^aa: a block of an inverse is not the inverse of a block.",
        ),
        Wrong(
            lambda rho, lam: 1 + (-lam).exp(),
            "yours is right for rho = 0 alone, where the other frame says nothing about x_a.",
        ),
        Wrong(lambda rho, lam: lam.exp() * _weight(rho, lam), "you return 1/C^aa: a factor is missing."),
        Wrong(
            lambda rho, lam: lam.exp() ** 2 * _weight(rho, lam),
            "your factor is the signal-to-noise ratio; sigma²/alpha² is its inverse.",
        ),
    ],
)


# ---- reconstruction guidance ---------------------------------------------------------------------------------


def _linear(frames: int, dtype: torch.dtype, alpha: Tensor, sigma: Tensor) -> Callable[[Tensor], Tensor]:
    world = GaussianVideo(frames, 0.9, (2, 2), 0.3)
    return lambda z: world.posterior_mean(z, alpha, sigma)


def _network(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """Mixes frames, and is not linear."""
    return lambda z: torch.einsum("ij,bcjhw->bcihw", weights, z.tanh()).sin()


def _guided_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t = uniform(g, 0.3, 0.7).item()
    alpha, sigma = COSINE.alpha(t), COSINE.sigma(t)
    weights = uniform(g, 1.0, 4.0, 3).sort().values
    for dtype in FLOATS:
        z, x_a = video(g, 2, 1, 5, 2, 2, dtype=dtype), video(g, 2, 1, 2, 2, 2, dtype=dtype)
        yield Case(
            f"{name_of(dtype)}, a Gaussian video, frames 0 and 1 given",
            (_linear(5, dtype, alpha, sigma), z, x_a, [0, 1], weights[:2].to(dtype), alpha.to(dtype)),
        )
    mix = video(g, 4, 4)
    yield Case(
        "a denoiser that is not linear, frames 3 and 0 given",
        (_network(mix), video(g, 3, 2, 4, 3, 3), video(g, 3, 2, 2, 3, 3), [3, 0], weights[:2], alpha),
    )
    yield Case(
        "frames 2, 1 and once more 2",
        (_network(mix), video(g, 1, 1, 4, 2, 2), video(g, 1, 1, 3, 2, 2), [2, 1, 2], weights, alpha),
    )
    single = _network(mix), video(g, 1, 1, 4, 2, 2), video(g, 1, 1, 1, 2, 2), [2]
    yield Case("one frame of one clip, weight 0", (*single, torch.zeros(1, dtype=torch.float64), alpha))


def _weighted(
    scale: Callable[[Tensor], Any] = lambda alpha: -alpha / 2,
    size: Callable[[Tensor, Tensor], Tensor] = lambda square, w: (square * w).sum(),
    through: bool = True,
    graph: bool = True,
) -> Callable[..., Tensor]:
    """scale: alpha -> what the gradient of size(squared residual, weights) is multiplied by."""

    def answer(denoise: Callable, z: Tensor, x_a: Tensor, frames: Any, weights: Tensor, alpha: Tensor) -> Tensor:
        with torch.set_grad_enabled(graph):
            leaf = z.detach().clone().requires_grad_()
            x_hat = denoise(leaf)
            seen = x_hat[:, :, frames] if through else leaf[:, :, frames] + (x_hat - leaf)[:, :, frames].detach()
            total = size((x_a - seen).square(), weights[:, None, None])
            (gradient,) = torch.autograd.grad(total, leaf)
        return x_hat.detach() + scale(alpha) * gradient

    return answer


def _by_mask(denoise: Callable, z: Tensor, x_a: Tensor, frames: Any, weights: Tensor, alpha: Tensor) -> Tensor:
    """A frame that is named twice counts once, with its last value and weight."""
    last = {frame: place for place, frame in enumerate(frames)}
    kept = list(last.values())
    return _weighted()(denoise, z, x_a[:, :, kept], list(last), weights[kept], alpha)


guided_by_reconstruction = Check(
    "guided_by_reconstruction",
    _weighted(),
    _guided_cases,
    [
        Wrong(
            _weighted(size=lambda square, w: (square * w).mean()),
            "your square is a mean: then the weight means something else for each size of clip. It is a sum.",
        ),
        Wrong(
            _weighted(through=False),
            "your gradient does not pass through the denoiser: the frames to be made feel nothing of it.",
        ),
        Wrong(
            _weighted(lambda a: a / 2),
            "your sign is wrong: the estimate should move so that the square gets smaller.",
        ),
        Wrong(_weighted(lambda a: -a), "you forgot the factor 1/2, which the Gaussian (10.4) brings along."),
        Wrong(_weighted(lambda a: -0.5), "you forgot alpha, which is left of the factors of (10.2) and (10.4)."),
        Wrong(
            _weighted(graph=False),
            "there is no graph to differentiate: samplers run under torch.no_grad(). Switch gradients on around the "
            "call of the denoiser, and call it with a leaf that requires them.",
        ),
        Wrong(
            _weighted(size=lambda square, w: (square * w).sum().clamp(min=1e-30).sqrt()),
            "you differentiate the norm; (10.5) has the square of it.",
        ),
        Wrong(
            _weighted(size=lambda square, w: square.sum() * w.mean()),
            "you use the mean weight for all frames; each given frame has its own.",
        ),
        Wrong(
            _weighted(size=lambda square, w: (square * w**2).sum()),
            "your weights multiply the difference, and are squared with it; they multiply the square.",
        ),
        Wrong(
            lambda denoise, z, *rest: _weighted()(denoise, z, *rest) + 0 * denoise(z),
            "you call the denoiser twice; its value and its gradient come from one call, and a call is what costs.",
        ),
        Wrong(
            lambda denoise, z, x_a, frames, *rest: _weighted()(denoise, z, x_a, sorted(frames), *rest),
            "you sort the frames: `frames` is in the order of the frames of x_a, and need not rise.",
        ),
        Wrong(
            _by_mask,
            "a frame that is named twice counts once in your sum: each entry of `frames` belongs to a frame of x_a of "
            "its own.",
        ),
    ],
    probe=counting_while_sampling,
    detached=True,
)
