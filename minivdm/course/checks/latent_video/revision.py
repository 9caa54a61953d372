"""Check of exercise 16.6: a clip made anew in part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule
from minivdm.course.checks.harness import FLOATS, Case, Check, Counted, Wrong, generator, name_of, uniform, video

SHORT, LINEAR = CosineSchedule(-5.0, 5.0), LinearSchedule()  # noise of e^-2.5 at t = 0: who forgets it is seen


class _Code:
    """A tokenizer of sorts: to latents of another scale and back, neither the other's inverse."""

    def encode(self, clip: Tensor) -> Tensor:
        return clip[..., ::2] * 1.7 - 0.4

    def decode(self, latents: Tensor) -> Tensor:
        return torch.tanh(latents.repeat_interleave(2, -1))


def _made(z: Tensor, t: float) -> Tensor:
    """A denoiser of sorts: not linear, and another one at each time."""
    return torch.sin(z + 2 * float(t)) - 0.3 * z


def _remade_cases(seed: int) -> Iterator[Case]:
    g, code = generator(seed), _Code()
    top, middle = float(uniform(g, 0.6, 0.8)), float(uniform(g, 0.2, 0.4))
    for dtype in FLOATS:
        clip, noise = video(g, 2, 1, 2, 2, 4, dtype=dtype), video(g, 2, 1, 2, 2, 2, dtype=dtype)
        given = clip, code.encode, code.decode, _made, noise, [top, middle, 0.0], SHORT
        yield Case(f"{name_of(dtype)}, two steps from t = {top:.2f}", given)
    clip, noise = video(g, 1, 1, 3, 2, 6), video(g, 1, 1, 3, 2, 3)
    yield Case("from pure noise", (clip, code.encode, code.decode, _made, noise, [1.0, top, middle, 0.0], SHORT))
    yield Case("one step", (clip, code.encode, code.decode, _made, noise, [middle, 0.0], LINEAR))
    yield Case("strength 0: nothing is made anew", (clip, code.encode, code.decode, _made, noise, [0.0], SHORT))


@dataclass(frozen=True)
class _Slip:
    """What a student may get wrong about the walk; by default nothing."""

    start: str = "noised"
    clean: bool = True
    step: str = "ddim"
    end: str = "decoded"


NO_SLIP = _Slip()


def _remade(
    clip: Tensor,
    encode: Callable[..., Tensor],
    decode: Callable[..., Tensor],
    denoise: Callable[..., Tensor],
    noise: Tensor,
    times: Sequence[float],
    schedule: Schedule,
    *,
    slip: _Slip = NO_SLIP,
) -> Tensor:
    def scales(t: float) -> tuple[Tensor, Tensor]:
        one = torch.tensor(t, dtype=torch.float64)
        if t == 0 and slip.clean:
            return torch.ones_like(noise[:1, :1, :1, :1, :1]), torch.zeros_like(noise[:1, :1, :1, :1, :1])
        return schedule.alpha(one).to(noise), schedule.sigma(one).to(noise)

    first, (alpha, sigma) = encode(clip), scales(times[0])
    z = {"noised": alpha * first + sigma * noise, "noise": noise, "clean": first, "unscaled": first + sigma * noise}[
        slip.start
    ]
    if slip.start == "noise" and len(times) == 1:
        z = first
    for t, s in zip(times[:-1], times[1:], strict=True):
        x = denoise(z, t)
        (a, b), (c, d) = scales(t), scales(s)
        eps = (z - a * x) / b
        if slip.step == "fresh":
            eps = noise
        z = x if slip.step == "jump" else c * x + d * eps
    return z if slip.end == "latents" else decode(z)


def _but(**changes: Any) -> Callable[..., Tensor]:
    return lambda *given: _remade(*given, slip=_Slip(**changes))


def _calls(
    answer: Callable[..., Any], clip: Tensor, encode: Any, decode: Any, denoise: Any, *given: Any
) -> dict[str, Any]:
    counted = Counted(denoise)
    with torch.no_grad():
        made = answer(clip, encode, decode, counted, *given)
    return {"": made, "calls of the denoiser": counted.calls}


remade = Check(
    "remade",
    _remade,
    _remade_cases,
    [
        Wrong(_but(start="noise"), "you start from noise alone: the clip that came in is forgotten."),
        Wrong(_but(start="clean"), "you put no noise on the latents; the denoiser is told that there is."),
        Wrong(_but(start="unscaled"), "your noised latents keep their full size; at t the signal has alpha."),
        Wrong(
            _but(clean=False),
            "a walk that ends at 0 ends in data, alpha = 1 and sigma = 0, whatever the schedule still has there.",
        ),
        Wrong(_but(step="fresh"), "you go on with the noise that was put on; DDIM keeps what is left in z."),
        Wrong(_but(step="jump"), "you take each estimate for the next latent: no noise is left for its time."),
        Wrong(_but(end="latents"), "you return latents; a clip is asked for."),
    ],
    probe=_calls,
)
