"""Checks of exercises 09.2 and 09.6: the loss of a step, and labels that are dropped from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, Denoiser, LinearSchedule, Schedule, diffuse, expand, v_from_eps, v_from_x
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

# ---- the loss ------------------------------------------------------------------------------------------------


class _Network:
    """Something that depends on both, sample by sample, with two parameters."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.parameters = tuple(torch.tensor(p, dtype=dtype, requires_grad=True) for p in (0.4, 0.05))

    def __call__(self, z: Tensor, log_snr: Tensor) -> Tensor:
        if log_snr.dtype != z.dtype or z.dtype != self.parameters[0].dtype:
            raise TypeError(f"the network wants z and log_snr in the dtype of x, got {z.dtype} and {log_snr.dtype}")
        level = log_snr.reshape(-1, *[1] * (z.ndim - 1))
        return self.parameters[0] * torch.sin(z) + self.parameters[1] * level * z


def _with_gradients(answer: Callable[..., Any], network: _Network, *rest: Any) -> Any:
    """A probe: the losses, and what their sum's gradient in the network's parameters is."""
    loss = answer(network, *rest)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        gradients = [torch.zeros_like(p) for p in network.parameters]
    else:
        gradients = list(torch.autograd.grad(loss.sum(), network.parameters, allow_unused=True, materialize_grads=True))
    return {"": loss, "its gradient in the network's two parameters": gradients}


def _blind(network: Any, *rest: Any) -> Tensor:
    with torch.no_grad():
        return _loss(network, *rest)


def _loss_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        x, noise = video(g, 3, 1, 2, 4, 4, dtype=dtype), video(g, 3, 1, 2, 4, 4, dtype=dtype)
        yield Case(
            f"{name_of(dtype)}, 3 clips", (_Network(dtype), x, noise, uniform(g, 0.05, 0.95, 3), CosineSchedule())
        )
    yield Case(
        "one clip, one frame, linear schedule",
        (
            _Network(torch.float64),
            video(g, 1, 2, 1, 3, 3),
            video(g, 1, 2, 1, 3, 3),
            uniform(g, 0.2, 0.8, 1),
            LinearSchedule(),
        ),
    )
    yield Case(
        "as many clips as columns",
        (
            _Network(torch.float64),
            video(g, 4, 1, 2, 4, 4),
            video(g, 4, 1, 2, 4, 4),
            uniform(g, 0.05, 0.95, 4),
            CosineSchedule(),
        ),
    )
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    yield Case(
        "points, t = 0 and t = 1", (_Network(torch.float64), video(g, 2, 3), video(g, 2, 3), ends, CosineSchedule())
    )


def _loss(network: Any, x: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The package's own loss."""
    return Denoiser(network, schedule, target="v").loss(x, t=t, noise=noise, weighting="v").per_sample


def _written(
    goal: Callable[..., Tensor] = v_from_eps,
    see: Callable[..., Tensor] = diffuse,
    level: Callable[..., Tensor] = lambda schedule, t: schedule.log_snr(t),
    reduce: Callable[[Tensor], Tensor] = lambda e: e.flatten(1).mean(1),
) -> Callable[..., Tensor]:
    """The loss from its parts; goal: (z, noise, alpha, sigma) -> target."""

    def answer(network: Any, x: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        z = diffuse(x, t, schedule, noise)
        output = network(see(x, t, schedule, noise), level(schedule, t).to(x.dtype))
        return reduce((output - goal(z, noise, schedule.alpha(t), schedule.sigma(t))).square())

    return answer


v_loss = Check(
    "v_loss",
    _loss,
    _loss_cases,
    [
        Wrong(
            _blind,
            "the value is right, but no gradient reaches the network's parameters: a loss under no_grad, or detached, "
            "teaches nothing.",
        ),
        Wrong(
            _written(goal=lambda z, e, a, s: -v_from_eps(z, e, a, s)),
            "your v has the wrong sign: v = alpha eps − sigma x.",
        ),
        Wrong(
            _written(goal=lambda z, e, a, s: 2 * expand(s.to(z), z) * e - z),  # alpha x is z less sigma e
            "alpha and sigma are exchanged in your v.",
        ),
        Wrong(_written(goal=lambda z, e, a, s: e), "you compare with the noise; the network is asked for v."),
        Wrong(
            _written(goal=lambda z, e, a, s: v_from_x(z, e, a, s)),
            "in your v the roles of x and the noise are exchanged: v is what z turns into as noise is turned up.",
        ),
        Wrong(_written(see=lambda x, t, schedule, noise: x), "your network looks at the clean clip."),
        Wrong(_written(level=lambda schedule, t: t), "your network is told t; its second argument is the log-SNR."),
        Wrong(
            _written(reduce=lambda e: e.flatten(1).sum(1)),
            "you add up the values of a clip; (9.1) is a mean over them, so that the loss does not grow with size.",
        ),
        Wrong(
            _written(reduce=lambda e: e.mean()),
            "you average over the batch as well; the loss of each clip is wanted, to be sorted by noise level.",
        ),
        Wrong(
            lambda network, x, noise, t, schedule: (
                (
                    network(
                        schedule.alpha(t).to(x.dtype) * x + schedule.sigma(t).to(x.dtype) * noise,
                        schedule.log_snr(t).to(x.dtype),
                    )
                    - schedule.alpha(t).to(x.dtype) * noise
                    + schedule.sigma(t).to(x.dtype) * x
                )
                .square()
                .flatten(1)
                .mean(1)
            ),
            "your scales run along the last axis; each belongs to a clip, so they need the shape (b, 1, …, 1).",
        ),
    ],
    probe=_with_gradients,
)


# ---- dropping labels -----------------------------------------------------------------------------------------


def _label_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        labels = torch.eye(10, dtype=dtype)[torch.arange(8) % 10]
        yield Case(f"{name_of(dtype)}, a label for each of 8 clips", (labels, uniform(g, 0, 1, 8), 0.4))
    per_frame = (video(g, 4, 3, 4) > 0).double() + 0.0
    yield Case("labels of 4 clips, frame by frame", (per_frame + 1, torch.tensor([0.1, 0.9, 0.3, 0.7]).double(), 0.5))
    square = torch.ones(4, 4, dtype=torch.float64)
    yield Case("one number is the probability itself", (square, torch.tensor([0.9, 0.1, 0.5, 0.2]).double(), 0.5))
    yield Case("never", (square.clone(), uniform(g, 0, 1, 4), 0.0))
    yield Case("always", (square.clone(), uniform(g, 0, 1, 4), 1.0))


def _kept(labels: Tensor, keep: Tensor) -> Tensor:
    return labels * keep.to(labels.dtype).reshape(-1, *[1] * (labels.ndim - 1))


drop_labels = Check(
    "drop_labels",
    lambda labels, u, probability: _kept(labels, u >= probability),
    _label_cases,
    [
        Wrong(
            lambda labels, u, p: _kept(labels, u < p),
            "you keep what should be dropped: a share p of the clips loses its label.",
        ),
        Wrong(
            lambda labels, u, p: _kept(labels, u > p),
            "a clip whose number equals the probability keeps its label: it loses it where the number is *below*.",
        ),
        Wrong(
            lambda labels, u, p: labels[u >= p], "you drop the clips; they stay in the batch, with a label of zeros."
        ),
        Wrong(
            lambda labels, u, p: labels * (u >= p).to(labels.dtype),
            "your mask runs along the last axis; it belongs to the clips, the first one.",
        ),
        Wrong(
            lambda labels, u, p: _kept(labels, u >= p) / max(1 - p, 1e-9),
            "you scale up what is left, as dropout does; a label that is kept stays what it is.",
        ),
        Wrong(
            lambda labels, u, p: torch.where(
                _kept(torch.ones_like(labels), u >= p) > 0, labels, -torch.ones_like(labels)
            ),
            "the unconditional model is asked for by a row of zeros.",
        ),
        Wrong(lambda labels, u, p: labels * float(u[0] >= p), "you decide once for the whole batch."),
    ],
)
