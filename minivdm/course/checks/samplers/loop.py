"""Check of exercise 06.12: the loop from noise to data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule
from minivdm.course.checks.harness import Case, Check, Counted, Wrong, generator, name_of, uniform, video

COSINE, LINEAR = CosineSchedule(-8.0, 8.0), LinearSchedule()


class _Network:
    """A denoiser that is not linear, with a parameter: its results carry a graph unless gradients are off."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.scale = torch.tensor(1.7, dtype=dtype, requires_grad=True)

    def __call__(self, z: Tensor, t: Any) -> Tensor:
        return self.scale * torch.sin(1.3 * z + float(t))


def _ddim(schedule: Schedule) -> Callable[..., Tensor]:
    def step(z: Tensor, x_hat: Tensor, t: Any, s: Any) -> Tensor:
        alpha_t, sigma_t, alpha_s, sigma_s = (
            float(scale) for time in (t, s) for scale in (schedule.alpha(time), schedule.sigma(time))
        )
        return alpha_s * x_hat + sigma_s * (z - alpha_t * x_hat) / sigma_t

    return step


def _cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        inner = uniform(g, 0.1, 0.9, 3).sort(descending=True).values.tolist()
        yield Case(
            f"{name_of(dtype)}, clips of 3 frames, 4 uneven steps",
            (_Network(dtype), _ddim(COSINE), video(g, dtype=dtype), [1.0, *inner, 0.0]),
        )
    yield Case("one step", (_Network(torch.float64), _ddim(LINEAR), video(g, 4, 3), [1.0, 0.3]))
    yield Case("one frame, 7 steps", (_Network(torch.float64), _ddim(COSINE), video(g, 1, 1, 1, 3, 3), _even(7)))


def _even(steps: int) -> list[float]:
    return [1 - k / steps for k in range(steps)] + [0.0]


def _loop(
    denoise: Callable[..., Tensor],
    step: Callable[..., Tensor],
    z: Tensor,
    times: Sequence[float],
    *,
    clip: str = "before",
    ask: str = "t",
    film: str = "estimates",
    leave: int = 0,
    graph: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """The loop, or one with a slip; leave: steps that are left out at the end."""
    estimates = []
    with torch.set_grad_enabled(graph):
        for t, s in list(zip(times[:-1], times[1:], strict=True))[: len(times) - 1 - leave]:
            x_hat = denoise(z, t if ask == "t" else s)
            inside = x_hat.clamp(-1, 1)
            z = step(z, inside if clip == "before" else x_hat, t, s)
            z = z.clamp(-1, 1) if clip == "after" else z
            estimates.append({"estimates": inside, "raw": x_hat, "latents": z}[film])
    return z, estimates


def _but(**changes: Any) -> Callable[..., tuple[Tensor, list[Tensor]]]:
    return lambda *given: _loop(*given, **changes)


def _twice(denoise: Callable[..., Tensor], *rest: Any) -> tuple[Tensor, list[Tensor]]:
    found = _loop(denoise, *rest)
    with torch.no_grad():
        denoise(found[0], 0.0)
    return found


def _kept(denoise: Any, step: Any, z: Tensor, times: Sequence[float]) -> tuple[Tensor, list[Tensor]]:
    """Every step starts from the noise."""
    with torch.no_grad():
        estimates = [denoise(z, t).clamp(-1, 1) for t in times[:-1]]
        return step(z, estimates[-1], times[-2], times[-1]), estimates


def _watched(answer: Callable[..., Any], denoise: _Network, *rest: Any) -> dict[str, Any]:
    counted = Counted(denoise)
    found = answer(counted, *rest)
    parts = list(found) if isinstance(found, tuple) else found
    return {"": parts, "calls of the denoiser": counted.calls}


sample = Check(
    "sample",
    _loop,
    _cases,
    [
        Wrong(
            _but(clip="never"), "you do not clip the estimate: pixels lie in [-1, 1], the denoiser's answer need not."
        ),
        Wrong(
            _but(clip="after"),
            "you clip z, which is noisy and may have any value; it is the estimate that has a range.",
        ),
        Wrong(
            _but(ask="s"),
            "you ask the denoiser with the time to go to; z is still at t.",
        ),
        Wrong(_but(leave=1), "you stop one step early: n + 1 times have n steps between them."),
        Wrong(_but(film="latents"), "your film shows z, which is noisy; the estimates of x were asked for."),
        Wrong(_but(film="raw"), "your film shows the estimates before they were clipped."),
        Wrong(_twice, "you call the denoiser more often than there are steps; every call costs as much as the rest."),
        Wrong(_kept, "each of your steps starts from the noise again; it goes on from where the last one ended."),
        Wrong(
            lambda *given: _loop(*given)[0],
            "you return the clip alone; the second result is the list of the estimates, the film of the sampler.",
        ),
    ],
    probe=_watched,
    detached=True,
)
