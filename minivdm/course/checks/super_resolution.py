"""Checks of assignment 11: what an observation fixes, and who fills in the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

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

# ---- the camera ----------------------------------------------------------------------------------------------


def _camera_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, 2x2 pixels, every frame by itself", (video(g, 2, 1, 3, 4, 6, dtype=dtype), 2, 1))
    yield Case("2x2 pixels of three channels, 6 frames in pairs", (video(g, 2, 3, 6, 4, 6), 2, 2))
    yield Case("4x4 pixels, 6 frames in threes", (video(g, 1, 1, 6, 8, 4), 4, 3))
    yield Case("all pixels, 4 frames in pairs", (video(g, 3, 1, 4, 3, 5), 1, 2))
    yield Case("a block that is the whole clip", (video(g, 2, 2, 2, 3, 3), 3, 2))


def _camera(x: Tensor, space: int, shutter: int) -> Tensor:
    """Frame by frame through the package's camera, then averaged over each group."""
    small = observe.Downsample(space)(x)
    groups = [small[:, :, k : k + shutter].sum(2) / shutter for k in range(0, x.shape[2], shutter)]
    return torch.stack(groups, 2)


long_exposure = Check(
    "long_exposure",
    _camera,
    _camera_cases,
    [
        Wrong(
            lambda x, k, n: _camera(x, k, n) * k**2 * n,
            "you add the values of a block up; this camera takes their mean.",
        ),
        Wrong(lambda x, k, n: _camera(x, k, n) * n, "you add up the frames of a group; the camera takes their mean."),
        Wrong(
            lambda x, k, n: _camera(x[..., ::k, ::k], 1, n),
            "you keep one pixel of each block; this camera takes the mean of all of them.",
        ),
        Wrong(
            lambda x, k, n: observe.Downsample(k, n)(x),
            "you keep the first frame of each group, as the lesson's camera does; with its shutter open, this one sees "
            "the mean of all of them.",
        ),
        Wrong(
            lambda x, k, n: _camera(x.unflatten(2, (n, -1)).transpose(2, 3).flatten(2, 3), k, n),
            "your groups are made of frames that are far apart; those of a group follow one another.",
        ),
        Wrong(
            lambda x, k, n: functional.avg_pool3d(x, (n, k, k), (1, k, k)),
            "your groups overlap: a frame belongs to one group only.",
        ),
    ],
)


# ---- projection ----------------------------------------------------------------------------------------------


def _project_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        x_hat, x = (video(g, 2, 1, 3, 4, 6, dtype=dtype) for _ in range(2))
        yield Case(f"{name_of(dtype)}, 2x2 pixels, every frame by itself", (x_hat, _camera(x, 2, 1), 2, 1))
    for name, shape, space, shutter in (
        ("2x2 pixels, 6 frames in pairs", (2, 3, 6, 4, 6), 2, 2),
        ("4x4 pixels, 6 frames in threes", (1, 1, 6, 8, 4), 4, 3),
        ("all pixels, 4 frames in pairs", (3, 1, 4, 3, 5), 1, 2),
    ):
        yield Case(name, (video(g, *shape), _camera(video(g, *shape), space, shutter), space, shutter))
    x_hat = video(g, 2, 1, 2, 4, 4)
    yield Case("an estimate that agrees with y already", (x_hat, _camera(x_hat, 2, 2), 2, 2))


def _written(values: Tensor, space: int, shutter: int) -> Tensor:
    """Each value into all pixels of its block, in all frames of its group."""
    return functional.interpolate(values, scale_factor=(shutter, space, space), mode="nearest")


def _residual(x_hat: Tensor, y: Tensor, space: int, shutter: int) -> Tensor:
    return y - _camera(x_hat, space, shutter)


def _project(x_hat: Tensor, y: Tensor, space: int, shutter: int) -> Tensor:
    return x_hat + _written(_residual(x_hat, y, space, shutter), space, shutter)


def _corner(x_hat: Tensor, y: Tensor, space: int, shutter: int) -> Tensor:
    made = x_hat.clone()
    made[..., ::space, ::space] += _written(_residual(x_hat, y, space, shutter), 1, shutter) * space**2
    return made


def _first(x_hat: Tensor, y: Tensor, space: int, shutter: int, factor: int = 1) -> Tensor:
    made = x_hat.clone()
    made[:, :, ::shutter] += _written(_residual(x_hat, y, space, shutter), space, 1) * factor
    return made


project = Check(
    "project",
    _project,
    _project_cases,
    [
        Wrong(
            lambda x, y, k, n: x + _written(_residual(x, y, k, n), k, n) / (n * k**2),
            "you write with the transpose of D, a share of the residual; the pseudo-inverse writes a block's mean into "
            "each of its pixels.",
        ),
        Wrong(
            lambda x, y, k, n: x + _written(_residual(x, y, k, n), k, n) / n,
            "you divide the residual among the frames of a group; for their *mean* to change by it, each has to.",
        ),
        Wrong(
            lambda x, y, k, n: x - _written(_residual(x, y, k, n), k, n),
            "the sign is wrong: after the projection D x must be y, but you go away from it.",
        ),
        Wrong(
            lambda x, y, k, n: _written(y, k, n), "that is the seen part alone; the unseen part of x_hat is missing."
        ),
        Wrong(
            lambda x, y, k, n: x + _written(y, k, n),
            "you add what was seen, without taking away what the estimate would show in its place.",
        ),
        Wrong(
            _corner,
            "D x is y now, but you changed one pixel of each block alone; the pseudo-inverse spreads the "
            "residual evenly, the smallest change that does it.",
        ),
        Wrong(
            lambda x, y, k, n: _first(x, y, k, n, n),
            "D x is y now, but you changed the first frame of each group alone; the smallest change that does it is "
            "spread over all of them.",
        ),
        Wrong(_first, "you write into the first frame of each group; this camera has seen all of them."),
    ],
)


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


# ---- the covariance that a denoiser knows --------------------------------------------------------------------


def _covariance_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t = float(uniform(g, 0.3, 0.6))
    for dtype in (torch.float64, torch.float32):
        world = GaussianVideo(2, 0.9, (2, 3), 0.7)
        z = video(g, 1, 1, 2, 2, 3, dtype=dtype)
        yield Case(f"{name_of(dtype)}, Gaussian videos", (world.denoiser(COSINE), z, t))
    ring = GaussianMixture.ring()
    z = COSINE.alpha(t) * ring.sample(1, g)[0] + COSINE.sigma(t) * video(g, 1, 2)
    yield Case("a point of a plane, data on a ring", (ring.denoiser(COSINE), z, t))
    yield Case("the same, variance exploding", (ring.denoiser(VESchedule(0.1, 2.0)), z, t))
    yield Case("one value", (GaussianVideo(1).denoiser(COSINE), video(g, 1, 1, 1, 1, 1), t))


def _covariance(denoise: Any, z: Tensor, t: float) -> Tensor:
    """Cov[x | z] by the formulas of the world that the denoiser is exact for, without a derivative."""
    world, alpha, sigma = denoise.world, denoise.schedule.alpha(t), denoise.schedule.sigma(t)
    if isinstance(world, GaussianVideo):
        noisy = alpha**2 * world.covariance + sigma**2 * torch.eye(len(world.covariance), dtype=torch.float64)
        return torch.linalg.solve(noisy, sigma**2 * world.covariance).to(z.dtype)
    noisy = alpha**2 * world.covariances + sigma**2 * torch.eye(z.shape[1], dtype=torch.float64)
    gains = alpha * torch.linalg.solve(noisy, world.covariances)  # (k, d, d), symmetric: round components
    means = world.means + torch.einsum("kij,kj->ki", gains, z - alpha * world.means)
    weights = world.responsibilities(z, alpha, sigma)[0]
    within = torch.einsum("k,kij->ij", weights, torch.linalg.solve(noisy, sigma**2 * world.covariances))
    off = means - weights @ means
    return within + torch.einsum("k,ki,kj->ij", weights, off, off)


def _scaled(factor: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The Jacobian of the denoiser, times some factor."""

    def answer(denoise: Any, z: Tensor, t: float) -> Tensor:
        alpha, sigma = denoise.schedule.alpha(t), denoise.schedule.sigma(t)
        return _covariance(denoise, z, t) * (alpha / sigma**2 * factor(alpha, sigma)).to(z.dtype)

    return answer


posterior_covariance = Check(
    "posterior_covariance",
    _covariance,
    _covariance_cases,
    [
        Wrong(
            _scaled(lambda a, s: torch.ones_like(a)),
            "that is the Jacobian itself; (11.4) is to be solved for the covariance.",
        ),
        Wrong(
            _scaled(lambda a, s: a / s**2),
            "you multiply by the factor of (11.4); to get C alone you have to divide by it.",
        ),
        Wrong(_scaled(lambda a, s: s**2), "alpha_t is missing: look at the factor of (11.4) again."),
        Wrong(_scaled(lambda a, s: s**2 / a**2), "you divide by alpha_t squared; (11.4) has alpha_t once."),
        Wrong(_scaled(lambda a, s: s / a), "you have sigma_t where the variance sigma_t² belongs."),
        Wrong(
            lambda d, z, t: _covariance(d, z, t).sum(0).reshape(z.shape),
            "you get one number per value: the gradient of the *sum* of x_hat. A Jacobian has a row for each value "
            "of x_hat and a column for each of z.",
        ),
        Wrong(
            lambda d, z, t: torch.diag(_covariance(d, z, t).diagonal()),
            "you have the variances alone; what carries an observation to other places is off the diagonal.",
        ),
    ],
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


# ---- what remains open ---------------------------------------------------------------------------------------


def _condition_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        factors = video(g, 6, 8)
        parts = video(g, 6), factors @ factors.T / 8, video(g, 2, 6), video(g, 2)
        yield Case(
            f"{name_of(dtype)}, 6 values, 2 observed with noise",
            (*(part.to(dtype) for part in parts), float(uniform(g, 0.3, 0.8))),
        )
    world = GaussianVideo(3, 0.9, (2, 2), 0.5)
    means = torch.zeros(2, 12, dtype=torch.float64)
    means[0, :4] = means[1, 8:] = 0.25
    yield Case(
        "three frames of 2x2 pixels, block means of the first and the last, no noise",
        (video(g, 12), world.covariance, means, video(g, 2), 0.0),
    )
    line = video(g, 5)
    yield Case(
        "values that all move together, one of them observed with noise",
        (video(g, 5), torch.outer(line, line), torch.eye(5, dtype=torch.float64)[:1], video(g, 1), 0.4),
    )
    yield Case(
        "values that are independent of each other, one of them observed, no noise",
        (video(g, 4), torch.diag(uniform(g, 0.5, 2, 4)), torch.eye(4).double()[2:3], video(g, 1), 0.0),
    )


def _condition(
    x_hat: Tensor,
    covariance: Tensor,
    operator: Tensor,
    y: Tensor,
    tau: float,
    gain: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Through the joint covariance of (x, y) and Joseph's form, which is a covariance for any gain."""
    c, d = covariance.double(), operator.double()
    seen = d @ c @ d.T + tau**2 * torch.eye(len(d), dtype=torch.float64)
    k = torch.linalg.solve(seen, d @ c).T if gain is None else gain(c, d)
    rest = torch.eye(len(c), dtype=torch.float64) - k @ d
    left = rest @ c @ rest.T + tau**2 * k @ k.T
    return (x_hat.double() + k @ (y.double() - d @ x_hat.double())).to(x_hat.dtype), left.to(x_hat.dtype)


def _with_tau(noise: Callable[[float], float]) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda x, c, d, y, tau: _condition(x, c, d, y, noise(tau))


def _reduced(amount: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """The right mean, and C less something: (C, C left) -> C left."""

    def answer(x: Tensor, c: Tensor, d: Tensor, y: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        mean, left = _condition(x, c, d, y, tau)
        return mean, amount(c, left)

    return answer


def _gain(c: Tensor, d: Tensor, tau: float) -> Tensor:
    return torch.linalg.solve(d @ c @ d.mT + tau**2 * torch.eye(len(d), dtype=c.dtype), d @ c).mT


def _projected(x: Tensor, c: Tensor, d: Tensor, y: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    return _condition(x, c, d, y, tau, lambda c, d: torch.linalg.pinv(d))


condition = Check(
    "condition",
    _condition,
    _condition_cases,
    [
        Wrong(_with_tau(lambda tau: 0.0), "the noise of the observation is missing: Cov[y | z] is larger by tau² I."),
        Wrong(_with_tau(math.sqrt), "you add tau; the noise of y has the variance tau²."),
        Wrong(
            _reduced(lambda c, left: c),
            "the mean is right, but your covariance is still that before the observation; what was learned has to be "
            "taken off.",
        ),
        Wrong(
            _reduced(lambda c, left: c - left),
            "the mean is right; your covariance is what the observation explains. Asked is what it leaves open.",
        ),
        Wrong(
            _reduced(lambda c, left: 2 * c - left),
            "the mean is right, but your covariance has grown: an observation can only take uncertainty away.",
        ),
        Wrong(
            lambda x, c, d, y, tau: (2 * x - _condition(x, c, d, y, tau)[0], _condition(x, c, d, y, tau)[1]),
            "the sign of the residual is wrong: it is y - D x_hat.",
        ),
        Wrong(
            lambda x, c, d, y, tau: (
                _condition(x, c, d, y, tau)[0],
                _condition(x, c, d, y, tau)[1] - tau**2 * _gain(c, d, tau) @ _gain(c, d, tau).mT,
            ),
            "your covariance is (I − KD) C (I − KD)ᵀ alone; in that form the noise of the observation enters too, as "
            "tau² K Kᵀ.",
        ),
        Wrong(_projected, "your gain is the pseudo-inverse of D, which does not know C: it moves nothing unseen."),
    ],
)
