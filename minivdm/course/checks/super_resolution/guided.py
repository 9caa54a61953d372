"""Checks of exercises 11.3 and 11.5: guidance by any cameras, and its natural weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, Schedule, VESchedule, observe
from minivdm.course.checks.harness import (
    Case,
    Check,
    Wrong,
    counting_while_sampling,
    generator,
    name_of,
    uniform,
    video,
)
from minivdm.exact import GaussianMixture, GaussianVideo

COSINE = CosineSchedule()


# ---- eq 8, for several cameras -------------------------------------------------------------------------------

Observation = tuple[Callable[[Tensor], Tensor], Tensor, float]


class _Bent:
    """A denoiser that is no exact one, (z, t) -> like z: not linear, not symmetric, each sample by itself."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, z: Tensor, t: Any) -> Tensor:
        flat = z.flatten(1)
        return (torch.tanh(flat + 0.5 * flat.roll(1, 1)) + 0.3 * flat.roll(2, 1) ** 2).reshape(z.shape)


def _eq_8_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t = float(uniform(g, 0.3, 0.7))
    for dtype in (torch.float64, torch.float32):
        world = GaussianVideo(3, 0.9, (2, 4), 0.8)
        z, x = (video(g, 2, 1, 3, 2, 4, dtype=dtype) for _ in range(2))
        seen = [(observe.Downsample(2), observe.Downsample(2)(x), 4.0), (lambda u: u[:, :, :1], x[:, :, :1], 1.5)]
        yield Case(
            f"{name_of(dtype)}, Gaussian videos, 2x2 pixels of every frame, and the first frame",
            (world.denoiser(COSINE), seen, z, t),
        )
    z, low = video(g, 3, 2, 1, 4, 4), observe.Downsample(2)
    once = low, low(video(g, 1, 2, 1, 4, 4)), 0.7
    yield Case("a denoiser that is not linear, one camera, one y for all samples", (_Bent(COSINE), [once], z, t))
    mask = torch.rand(2, 3, 3, generator=g) < 0.5
    mask[0, 0, 0], mask[1, 0, 0] = True, False
    pixels, z = observe.Pixels(mask), video(g, 2, 1, 2, 3, 3)
    three = [(pixels, pixels(video(g, 2, 1, 2, 3, 3)), 1.0), (lambda x: x.mean(2), video(g, 2, 1, 3, 3), 2.0)]
    three.append((lambda x: x.flatten(1).sum(1), video(g, 2), 0.2))
    yield Case("pixels outside a mask, the mean frame, and the sum of all", (_Bent(COSINE), three, z, t))
    ring = GaussianMixture.ring()
    yield Case(
        "points of a plane, variance exploding, y is their first coordinate",
        (ring.denoiser(VESchedule()), [(lambda x: x[:, :1], video(g, 4, 1), 1.0)], video(g, 4, 2), t),
    )
    yield Case("one weight is 0", (_Bent(COSINE), [(pixels, pixels(z), 0.0), (*three[1][:2], 1.0)], z, t))


def _eq_8_with(
    error: Callable[[Tensor, float], Tensor] = lambda r, w: w * r.square().sum(),
    of: str = "z",
    power: int = 1,
    chosen: Callable[[list[Observation]], list[Observation]] = lambda observations: observations,
    graph: bool = True,
) -> Callable[..., Tensor]:
    """(11.3) with several cameras; the options make mistakes. error: (residual, weight) -> what is added up."""

    def answer(denoise: Any, observations: list[Observation], z: Tensor, t: float) -> Tensor:
        with torch.set_grad_enabled(graph):
            z = z.detach().clone().requires_grad_()
            x_hat = denoise(z, t)
            total = torch.stack([error(y - see(x_hat), weight) for see, y, weight in chosen(observations)]).sum()
            (gradient,) = torch.autograd.grad(total, z if of == "z" else x_hat)
        alpha = denoise.schedule.alpha(t).to(z.dtype)
        return (x_hat - alpha**power / 2 * gradient).detach()

    return answer


def _evenly(observations: list[Observation]) -> list[Observation]:
    mean = sum(weight for _, _, weight in observations) / len(observations)
    return [(see, y, mean) for see, y, _ in observations]


def _one_by_one(denoise: Any, observations: list[Observation], z: Tensor, t: float) -> Tensor:
    plain = denoise(z, t)
    return plain + sum(_eq_8_with()(denoise, [one], z, t) - plain for one in observations)


super_resolve = Check(
    "super_resolve",
    _eq_8_with(),
    _eq_8_cases,
    [
        Wrong(
            _eq_8_with(lambda r, w: w * r.square().mean()),
            "you take the mean of the squares; (11.3) has their sum. A mean divides your weight by the number "
            "of values, and by the size of the batch.",
        ),
        Wrong(
            _eq_8_with(lambda r, w: -w * r.square().sum()),
            "the sign is wrong: the estimate must go against the gradient of the squared residual.",
        ),
        Wrong(
            _eq_8_with(lambda r, w: 2 * w * r.square().sum()),
            "the correction is twice too large: (11.3) has a half in front.",
        ),
        Wrong(_eq_8_with(power=0), "the factor alpha_t in front of the gradient is missing."),
        Wrong(_eq_8_with(power=2), "alpha_t enters once, not squared."),
        Wrong(
            _eq_8_with(of="x_hat"),
            "your gradient stops at x_hat. It has to go on through the denoiser to z: so the prior carries an "
            "observation to places that were not seen.",
        ),
        Wrong(
            _eq_8_with(graph=False),
            "a sampler calls its denoiser with gradients switched off; switch them on inside, "
            "with `torch.enable_grad()`.",
        ),
        Wrong(
            _one_by_one,
            "you ask the denoiser anew for every camera; one call, and the gradient of one sum, do for all of them.",
        ),
        Wrong(
            lambda denoise, observations, z, t: _eq_8_with()(denoise, observations, z, t) + 0 * denoise(z, t),
            "you call the denoiser twice; its value and its gradient come from one call, and a call is what costs.",
        ),
        Wrong(_eq_8_with(chosen=lambda observations: observations[:1]), "you follow the first camera alone."),
        Wrong(_eq_8_with(chosen=lambda observations: observations[-1:]), "you follow the last camera alone."),
        Wrong(_eq_8_with(chosen=_evenly), "you use one weight for all cameras; each has its own."),
        Wrong(
            _eq_8_with(lambda r, w: (w * r).square().sum()),
            "your weights multiply the residuals, and are squared with them; they multiply the squares.",
        ),
    ],
    probe=counting_while_sampling,
    detached=True,
)


# ---- with pen: the natural weight ----------------------------------------------------------------------------


def _weight_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    alpha, sigma = COSINE.alpha(t := float(uniform(g, 0.3, 0.7))), COSINE.sigma(t)
    sharp = torch.zeros((), dtype=torch.float64)
    noisy = uniform(g, 0.2, 0.6)
    one = torch.zeros(2, 2, dtype=torch.float64)
    one[0, 1] = 1
    yield Case("means of 2x2 pixels, no noise", (torch.full((2, 2), 0.25).double(), sharp, alpha, sigma))
    yield Case("one pixel of each block, no noise", (one, sharp, alpha, sigma))
    yield Case("sums of 3x3 pixels, no noise", (torch.ones(3, 3).double(), sharp, alpha, sigma))
    yield Case("some weights in a block of 2x3 pixels, no noise", (uniform(g, -0.5, 1, 2, 3), sharp, alpha, sigma))
    yield Case("means of 2x2 pixels with noise", (torch.full((2, 2), 0.25).double(), noisy, alpha, sigma))
    yield Case("some weights, with noise", (uniform(g, -0.5, 1, 2, 3), noisy, alpha, sigma))
    yield Case(
        "some weights over 2 frames of 2x2 pixels, noise, variance exploding, float32",
        (uniform(g, 0, 1, 2, 2, 2).float(), noisy.float(), torch.tensor(1.0), torch.tensor(2.0)),
    )


def _weight(block: Tensor, tau: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return 1 / (block.square().sum() + (tau * alpha / sigma) ** 2)


natural_weight = Check(
    "natural_weight",
    _weight,
    _weight_cases,
    [
        Wrong(
            lambda b, tau, a, s: 1 / _weight(b, tau, a, s),
            "that is the reciprocal: a camera whose rows are short, as those of means are, needs a large weight.",
        ),
        Wrong(
            lambda b, tau, a, s: b.numel() / (1 + b.numel() * (tau * a / s) ** 2),
            "you have the number of pixels of a block, as for means; other weights give other rows of D.",
        ),
        Wrong(
            lambda b, tau, a, s: 1 / (b.sum() ** 2 + (tau * a / s) ** 2),
            "DDᵀ holds the sum of the squares of a block's weights, not the square of their sum.",
        ),
        Wrong(
            lambda b, tau, a, s: 1 / b.square().sum(),
            "the noise of the camera is missing: the larger tau is, the less y deserves to be followed.",
        ),
        Wrong(
            lambda b, tau, a, s: 1 / (b.square().sum() + tau**2),
            "you add tau² to DDᵀ as it is; compare it with what z_t leaves open, a variance of sigma²/alpha².",
        ),
        Wrong(
            lambda b, tau, a, s: 1 / (b.square().sum() + (tau * s / a) ** 2),
            "alpha and sigma are exchanged: camera noise matters most where z_t is nearly clean.",
        ),
        Wrong(
            lambda b, tau, a, s: 1 / (b.square().sum() * (1 + (tau * a / s) ** 2)),
            "you multiply the noise of the camera by DDᵀ too; it enters after D.",
        ),
    ],
)
