"""Check of exercise 07.10: from a network to a guided denoiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule
from minivdm.course.checks.harness import Case, Check, Counted, Wrong, generator, name_of, uniform, video

COSINE, LINEAR = CosineSchedule(-8.0, 8.0), LinearSchedule()


class _Network:
    """(z, log_snr (b,), labels (b, n)) -> v: not linear, each sample by itself, in one dtype throughout."""

    def __init__(self, g: torch.Generator, labels: int, dtype: torch.dtype) -> None:
        self.weights = video(g, labels, dtype=dtype)

    def __call__(self, z: Tensor, log_snr: Tensor, labels: Tensor) -> Tensor:
        if log_snr.shape != (len(z),) or labels.shape != (len(z), len(self.weights)):
            raise ValueError(
                f"the network wants log_snr of shape ({len(z)},) and labels of shape ({len(z)}, {len(self.weights)}), "
                f"got {tuple(log_snr.shape)} and {tuple(labels.shape)}"
            )
        if not z.dtype == log_snr.dtype == labels.dtype == self.weights.dtype:
            raise TypeError(f"the network wants all its inputs in {self.weights.dtype}, the dtype of z")
        shape = (-1, *[1] * (z.ndim - 1))
        said = (labels @ self.weights).reshape(shape)
        return torch.sin(z + said) + 0.05 * log_snr.reshape(shape) * z


def _cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t, w = uniform(g, 0.2, 0.8, 2).tolist()
    for dtype in (torch.float64, torch.float32):
        labels = torch.eye(5, dtype=dtype)[[3, 1, 4]]
        yield Case(
            f"{name_of(dtype)}, three clips with a label each, w = {1 + w:.2f}",
            (_Network(g, 5, dtype), labels, 1 + w, COSINE, video(g, 3, 1, 2, 4, 4, dtype=dtype), t),
        )
    one = torch.eye(4, dtype=torch.float64)[[2]]
    network = _Network(g, 4, torch.float64)
    yield Case("one frame, w = 3, at t = 1", (network, one, 3.0, LINEAR, video(g, 1, 1, 1, 3, 3), 1.0))
    yield Case("w = 0", (network, one, 0.0, COSINE, video(g, 1, 1, 2, 3, 3), t))


def _denoiser(
    network: Callable[..., Tensor],
    labels: Tensor,
    w: float,
    schedule: Schedule,
    *,
    mix: Callable[[Tensor, Tensor, float], Tensor] = lambda c, u, w: (1 + w) * c - w * u,
    convert: str = "v",
    nothing: float = 0.0,
    level: str = "log_snr",
    calls: int = 1,
) -> Callable[..., Tensor]:
    """The guided denoiser, or one with a slip."""

    def denoise(z: Tensor, t: float) -> Tensor:
        alpha, sigma = (scale.to(z.dtype) for scale in (schedule.alpha(t), schedule.sigma(t)))
        at = (schedule.log_snr(t) if level == "log_snr" else torch.tensor(t)).to(z.dtype).expand(len(z))
        silent = torch.full_like(labels, nothing)
        if calls == 1:
            both = network(torch.cat([z, z]), torch.cat([at, at]), torch.cat([labels, silent]))
            asked, plain = both.chunk(2)
        else:
            asked, plain = network(z, at, labels), network(z, at, silent)
        v = mix(asked, plain, w)
        return {"v": alpha * z - sigma * v, "eps": (z - sigma * v) / alpha, "x": v, "sign": alpha * z + sigma * v}[
            convert
        ]

    return denoise


def _but(**changes: Any) -> Callable[..., Callable[..., Tensor]]:
    return lambda *given: _denoiser(*given, **changes)


def _asked(
    answer: Callable[..., Any], network: _Network, labels: Tensor, w: float, schedule: Schedule, *at: Any
) -> Any:
    """A probe: what the denoiser that the answer returns says of z at t, and how often it calls the network."""
    counted = Counted(network)
    denoise = answer(counted, labels, w, schedule)
    if not callable(denoise):
        return {"": denoise, "calls of the network": counted.calls}
    return {"": denoise(*at), "calls of the network": counted.calls}


guided_denoiser = Check(
    "guided_denoiser",
    _denoiser,
    _cases,
    [
        Wrong(
            _but(mix=lambda c, u, w: u + w * (c - u)),
            'your w is the "guidance scale" of libraries, 1 without guidance; in (7.5) w = 0 gives the conditional '
            "estimate.",
        ),
        Wrong(
            _but(mix=lambda c, u, w: (1 + w) * u - w * c),
            "the two halves of your batch are exchanged: guidance moves away from the unconditional estimate.",
        ),
        Wrong(_but(mix=lambda c, u, w: c), "your denoiser follows the label, but not more than that: where is w?"),
        Wrong(_but(convert="x"), "your denoiser returns v; samplers expect an estimate of x."),
        Wrong(_but(convert="eps"), "you treat the network's answer as noise; it is v."),
        Wrong(_but(convert="sign"), "x = alpha z − sigma v: check the sign."),
        Wrong(_but(nothing=-1.0), "the unconditional model is asked for by a row of zeros."),
        Wrong(_but(level="t"), "your network is told t; its second argument is the log-SNR."),
        Wrong(
            _but(calls=2),
            "right, but with two calls of the network: put both questions into one batch of twice the size.",
        ),
    ],
    probe=_asked,
)
