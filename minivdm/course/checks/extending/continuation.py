"""Check of exercise 10.10: a clip, continued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule
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

COSINE, LINEAR = CosineSchedule(-8.0, 8.0), LinearSchedule()


class _Network:
    """A denoiser that mixes frames, and is not linear; its parameter makes every result carry a graph."""

    def __init__(self, g: torch.Generator, frames: int, dtype: torch.dtype) -> None:
        self.weights = video(g, frames, frames, dtype=dtype).requires_grad_()

    def __call__(self, z: Tensor, t: Any) -> Tensor:
        return torch.einsum("ij,bcjhw->bcihw", self.weights, z.tanh()).sin() * (1 + float(t))


def _cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    w = 1 + float(uniform(g, 0.0, 2.0))
    for dtype in (torch.float64, torch.float32):
        inner = uniform(g, 0.2, 0.8, 2).sort(descending=True).values.tolist()
        yield Case(
            f"{name_of(dtype)}, 2 of 5 frames given, 3 uneven steps",
            (
                _Network(g, 5, dtype),
                video(g, 2, 1, 2, 3, 3, dtype=dtype).tanh(),
                video(g, 2, 1, 5, 3, 3, dtype=dtype),
                [1.0, *inner, 0.0],
                COSINE,
                w,
            ),
        )
    small = video(g, 1, 2, 1, 2, 2).tanh(), video(g, 1, 2, 3, 2, 2)
    yield Case("one of 3 frames given, w_r = 0", (_Network(g, 3, torch.float64), *small, [1.0, 0.5, 0.0], LINEAR, 0.0))
    yield Case("one step", (_Network(g, 3, torch.float64), *small, [1.0, 0.0], LINEAR, w))


@dataclass(frozen=True)
class _Slip:
    """What a student may get wrong about the sampler; by default nothing."""

    sign: float = 1.0
    factor: float = 0.5
    replace: str = "noisy"
    start: bool = True
    last: bool = True
    of_clean: bool = False
    through: bool = True
    stale: bool = False


NO_SLIP = _Slip()


def _extend(
    denoise: Callable[..., Tensor],
    x_a: Tensor,
    noise: Tensor,
    times: Sequence[float],
    schedule: Schedule,
    w_r: float,
    *,
    slip: _Slip = NO_SLIP,
) -> Tensor:
    """The sampler, or one with a slip."""
    n, z = x_a.shape[2], noise

    def put(z: Tensor, s: float) -> Tensor:
        alpha, sigma = float(schedule.alpha(s)), float(schedule.sigma(s))
        if s == 0 and slip.last:
            given = x_a
        elif slip.replace == "noisy":
            given = alpha * x_a + sigma * noise[:, :, :n]
        else:
            given = x_a if slip.replace == "clean" else z[:, :, :n]
        return torch.cat([given, z[:, :, n:]], 2)

    z = put(z, times[0]) if slip.start else z
    for t, s in zip(times[:-1], times[1:], strict=True):
        alpha_t, sigma_t = float(schedule.alpha(t)), float(schedule.sigma(t))
        with torch.enable_grad():
            leaf = z.detach().clone().requires_grad_()
            x_hat = denoise(leaf, t)
            seen = x_hat[:, :, :n] if slip.through else leaf[:, :, :n] + (x_hat - leaf)[:, :, :n].detach()
            (gradient,) = torch.autograd.grad((x_a - seen).square().sum(), leaf)
        plain = x_hat.detach()
        x = plain - slip.sign * w_r * slip.factor * (1.0 if slip.of_clean else alpha_t) * gradient
        eps = (z - alpha_t * (plain if slip.stale else x)) / sigma_t
        z = put(float(schedule.alpha(s)) * x + float(schedule.sigma(s)) * eps, s)
    return z


def _but(**changes: Any) -> Callable[..., Tensor]:
    return lambda *given: _extend(*given, slip=_Slip(**changes))


def _twice(denoise: Callable[..., Tensor], x_a: Tensor, noise: Tensor, *rest: Any) -> Tensor:
    found = _extend(denoise, x_a, noise, *rest)
    with torch.no_grad():
        denoise(noise, 1.0)
    return found


extend = Check(
    "extend",
    _extend,
    _cases,
    [
        Wrong(_but(sign=-1.0), "your guidance pushes the estimate away from the given frames."),
        Wrong(_but(factor=1.0), "the factor one half of (10.5) is missing."),
        Wrong(_but(of_clean=True), "alpha_t is missing in your guidance."),
        Wrong(_but(through=False), "your gradient does not pass through the denoiser to all of z."),
        Wrong(_but(replace="never"), "your given frames are never replaced, except at the very end."),
        Wrong(_but(replace="clean"), "you put clean frames into a noisy latent: give them the noise of the level."),
        Wrong(
            _but(start=False),
            "in the very first step the given frames are pure noise; also at t = 1 the latent holds them.",
        ),
        Wrong(
            _but(last=False),
            "at s = 0 noise is left in the given frames: a truncated schedule has some there, clean data do not.",
        ),
        Wrong(
            _but(stale=True),
            "your eps_hat belongs to the estimate before guidance: they no longer add up to z_t.",
        ),
        Wrong(_twice, "you call the denoiser more often than there are steps."),
        Wrong(
            lambda denoise, x_a, noise, *rest: _extend(denoise, x_a, noise, *rest)[:, :, x_a.shape[2] :],
            "you return the new frames alone; the whole clip was asked for, with the given frames in front.",
        ),
    ],
    probe=counting_while_sampling,
    detached=True,
)
