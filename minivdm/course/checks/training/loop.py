"""Check of exercise 09.10: the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minivdm.core import CosineSchedule, Schedule
from minivdm.course.checks.harness import Case, Check, Wrong, generator, uniform, video

Batch = tuple[Tensor, Tensor, Tensor]


class _Network(nn.Module):
    """(z, log_snr) -> v, with a few weights."""

    def __init__(self, g: torch.Generator) -> None:
        super().__init__()
        self.mix = nn.Parameter(0.3 * video(g, 4, 4))
        self.level = nn.Parameter(0.1 * video(g, 4))

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        return torch.tanh(z @ self.mix + log_snr.reshape(-1, *[1] * (z.ndim - 1)) * self.level)


def _batches(g: torch.Generator, count: int, size: float = 1.0) -> list[Batch]:
    return [(size * video(g, 3, 1, 2, 2, 4), uniform(g, 0.05, 0.95, 3), video(g, 3, 1, 2, 2, 4)) for _ in range(count)]


def _cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    schedule = CosineSchedule(-8.0, 8.0)
    yield Case("5 steps", (_Network(g), _batches(g, 5), schedule, 0.02, 3.0))
    yield Case("gradients that are too long", (_Network(g), _batches(g, 4, 9.0), schedule, 0.05, 2.0))
    yield Case("one step", (_Network(g), _batches(g, 1), schedule, 0.01, 1.0))


@dataclass(frozen=True)
class _Slip:
    """What a student may get wrong about the loop; by default nothing."""

    zero: bool = True
    limit: float = 1.0
    average: str = "after"
    total: Callable[[Tensor], Tensor] = torch.mean
    sign: float = 1.0
    optimizer: Callable[..., Any] = torch.optim.Adam
    anew: bool = False


NO_SLIP = _Slip()


def _train(
    network: nn.Module,
    batches: Sequence[Batch],
    schedule: Schedule,
    lr: float,
    half_life: float,
    *,
    slip: _Slip = NO_SLIP,
) -> tuple[list[float], dict[str, Tensor]]:
    """The loop, or one with a slip."""
    names = [name for name, _ in network.named_parameters()]
    weights = list(network.parameters())
    steps = slip.optimizer(weights, lr=lr)
    kept = [weight.detach().clone() for weight in weights]
    if slip.average == "zero":
        kept = [torch.zeros_like(weight) for weight in weights]
    beta, losses = 0.5 ** (1 / half_life), []
    for x, t, noise in batches:
        steps = slip.optimizer(weights, lr=lr) if slip.anew else steps
        shape = (-1, *[1] * (x.ndim - 1))
        alpha, sigma = (scale.to(x).reshape(shape) for scale in (schedule.alpha(t), schedule.sigma(t)))
        error = network(alpha * x + sigma * noise, schedule.log_snr(t).to(x)) - (alpha * noise - sigma * x)
        loss = slip.total(error.square())
        losses.append(loss.item())
        if slip.zero:
            steps.zero_grad()
        (slip.sign * loss).backward()
        if slip.average == "before":
            kept = [beta * old + (1 - beta) * new.detach() for old, new in zip(kept, weights, strict=True)]
        if math.isfinite(slip.limit):
            nn.utils.clip_grad_norm_(weights, slip.limit)
        steps.step()
        if slip.average in ("after", "zero"):
            kept = [beta * old + (1 - beta) * new.detach() for old, new in zip(kept, weights, strict=True)]
        if slip.average == "swapped":
            kept = [(1 - beta) * old + beta * new.detach() for old, new in zip(kept, weights, strict=True)]
    if slip.average == "none":
        kept = [weight.detach().clone() for weight in weights]
    return losses, dict(zip(names, kept, strict=True))


def _but(**changes: Any) -> Callable[..., tuple[list[float], dict[str, Tensor]]]:
    return lambda *given: _train(*given, slip=_Slip(**changes))


def _trained(answer: Callable[..., Any], network: _Network, *rest: Any) -> dict[str, Any]:
    """A probe: losses, the averages, and the weights that the loop leaves in the network."""
    found = answer(network, *rest)
    left = [weight.detach() for weight in network.parameters()]
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], dict):
        return {"": found, "the network's weights afterwards": left, "the averages": None}
    losses, average = found
    names = [name for name, _ in network.named_parameters()]
    return {
        "": (losses, {name: average.get(name) for name in names}),
        "the network's weights afterwards": left,
        "the averages": [average.get(name) for name in names],
    }


train = Check(
    "train",
    _train,
    _cases,
    [
        Wrong(
            _but(zero=False),
            "your gradients add up from step to step: PyTorch's `backward` adds to what is there, until "
            "`optimizer.zero_grad()` clears it.",
        ),
        Wrong(_but(limit=math.inf), "your gradients are not clipped: their common norm is to be at most 1."),
        Wrong(
            _but(average="before"),
            "you average the weights before the step; the average takes what the step has made of them.",
        ),
        Wrong(_but(average="zero"), "your average begins at zero; it begins as a copy of the weights."),
        Wrong(_but(average="swapped"), "decay and its complement are exchanged in your average."),
        Wrong(_but(average="none"), "you return the last weights; their moving average was asked for."),
        Wrong(_but(total=torch.sum), "your loss is a sum; it is a mean over clips and values."),
        Wrong(_but(sign=-1.0), "your loss grows: the step goes up the gradient."),
        Wrong(_but(optimizer=torch.optim.SGD), "your step is that of plain gradient descent; Adam is asked for."),
        Wrong(
            _but(anew=True),
            "you make a new optimizer in every step; then Adam forgets its averages. Make one before the loop.",
        ),
    ],
    probe=_trained,
    detached=True,
)
