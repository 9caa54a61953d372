"""A whole training, on one page: data, loss, optimizer, moving average, a line of progress.

`trainer` does the same with what a long run wants as well: conditions that are dropped, curricula, several processes;
`run` goes round it, so that a training can be stopped at any time. The mathematics is all here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from minivdm import guards
from minivdm.core import CosineSchedule, Denoiser
from minivdm.training.objectives import Batch, Objective


def train(
    network: nn.Module,
    data: Callable[[Tensor], Tensor],
    steps: int = 1000,
    batch: int = 8,
    lr: float = 1e-3,
    decay: float = 0.999,
    target: str | Objective = "v",
    seed: int = 0,
    every: int = 100,
) -> tuple[Denoiser, list[float]]:
    """Train a network to denoise; returns the denoiser of its averaged weights, and the loss of every step.

    Args:
        network: (z, log_snr) -> a tensor like z; `networks.UNet3D` for clips, `networks.PointNetwork` for points.
        data: indices (b,) -> clean samples (b, ...) in about [-1, 1].
        steps, batch: of the training; each batch is new data.
        lr: learning rate, which falls to 0 along half a cosine.
        decay: of the moving average of the weights.
        target: what the network predicts; or an objective, what is learnt of x instead of its noise, such as what a
            teacher makes of it: then the network predicts v.
        seed: of times and noise; the weights are the caller's.
        every: steps between two lines of progress; 0 for none.
    """
    for name, count in (("steps", steps), ("batch", batch)):
        guards.whole(name, count)
    guards.whole("every", every, least=0)
    for name, number, most in (("lr", lr, 1e6), ("decay", decay, 1.0)):
        guards.real(name, number, 0, most)
    objective, predicts = (None, target) if isinstance(target, str) else (target, "v")
    denoiser = Denoiser(network, CosineSchedule(), predicts)
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for step in range(steps):
        x = data(torch.arange(step * batch, (step + 1) * batch))  # b ...

        # Noise each sample to a time of its own, let the network predict, compare: VDM eq 2.
        if objective is None:
            loss = denoiser.loss(x, generator=generator, weighting=predicts).mean
        else:
            t, noise = objective.times(batch, generator), torch.randn(x.shape, generator=generator)
            loss = objective(denoiser, average, Batch(x, {}, None, t, noise)).mean
        loss.backward()

        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
        optimizer.zero_grad()

        # The average forgets the untrained start: its decay rises with the number of steps.
        rate = 1 - min(decay, (1 + step) / (10 + step))
        for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(weight.detach(), rate)

        losses.append(loss.item())
        if every and (step + 1) % every == 0:
            print(f"step {step + 1:5d} of {steps}: loss {sum(losses[-every:]) / every:.4f}")
    return average, losses


guards.check_types(globals())
