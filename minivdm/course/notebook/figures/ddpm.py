r"""Lesson 04, what DDPM adds: other variances of a step, and pixels that are bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.course.notebook.figures.elbo import SCHEDULES, discrete_steps, error_curve
from minivdm.course.notebook.style import colors, figure


def bounds_by_variance(steps: int, schedule: str = "cosine") -> dict[str, float]:
    """The T-step bound of the exact denoiser, in nats, for three variances of the model's step.

    "posterior": DDPM's beta-tilde, that of q(z_s | z_t, x). "transition": its beta, that of q(z_t | z_s). "best":
    posterior times 1 + (2 / d) times the step's price (Bao et al. 2022).
    """
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    sigma, price = SCHEDULES[schedule].sigma(t), discrete_steps(steps, schedule).nats
    ratio = (sigma[1:] / sigma[:-1]) ** 2  # sigma_tilde^2 / sigma_{t|s}^2 = sigma_s^2 / sigma_t^2
    totals = {
        "posterior": price,
        "transition": (ratio - 1 - ratio.log()) + ratio * price,  # d / 2 = 1
        "best": torch.log1p(price),
    }
    return {name: value.sum().item() + error_curve().rest for name, value in totals.items()}


def by_variance(schedule: str = "cosine", steps: Sequence[int] = (8, 16, 32, 64, 128, 256, 512, 1024)) -> Figure:
    """The bound over the number of steps for three variances of a step, above its limit."""
    found = [bounds_by_variance(count, schedule) for count in steps]
    limit = torch.trapezoid(error_curve().nats, error_curve().log_snr).item() + error_curve().rest
    made, axes = figure(width=6.9, height=3.4)
    looks = {
        "posterior": (colors.data, r"posterior, $\tilde\beta_t$"),
        "transition": (colors.eps, r"transition, $\beta_t$"),
        "best": (colors.exact, "best"),
    }
    for name, (shade, label) in looks.items():
        axes.loglog(steps, [one[name] - limit for one in found], "o-", color=shade, label=label)
    axes.set(xlabel="steps $T$", ylabel="nats above the limit", title=f"{schedule}: what T steps cost")
    axes.legend()
    return made


def byte_reconstruction(x: Tensor, log_snr: float, generator: torch.Generator | None = None) -> Tensor:
    """E[-log P(x | z_0)] in nats, (b,), for values that are bytes, x = p / 127.5 - 1, one draw of z_0.

    Every value is read off its own noisy z_0: P(x | z_0) is q(z_0 | x), normalised over the 256 bytes (Kingma et al.
    2021, section 3.3). In units of x, z_0 / alpha_0 = x + noise of variance e^-lambda_0.
    """
    values = torch.arange(256, device=x.device) / 127.5 - 1
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    total = torch.zeros(len(x))
    for i, (clip, eps) in enumerate(zip(x.flatten(1), noise.flatten(1), strict=True)):
        seen = clip + math.exp(-log_snr / 2) * eps
        logits = -((seen[:, None] - values) ** 2) * math.exp(log_snr) / 2  # (values of x, 256)
        chosen = ((clip + 1) * 127.5).round().long()
        total[i] = torch.nn.functional.cross_entropy(logits, chosen, reduction="sum")
    return total


def bits(log_snr: Tensor, nats: Tensor) -> Figure:
    """Where a network pays for pixels. nats: (levels, clips), h per value of x; the running sum in bits beside it."""
    paid = torch.cumulative_trapezoid(nats, log_snr, dim=0) / math.log(2)
    made, (left, right) = figure(1, 2, width=7.8, height=3.2)
    left.plot(log_snr, nats, color=colors.learned, linewidth=0.8, alpha=0.5)
    left.plot(log_snr, nats.mean(1), color=colors.learned)
    left.set(xlabel="log-SNR $\\lambda$", ylim=(0, None), title="nats per pixel and unit of $\\lambda$")
    right.plot(log_snr[1:], paid, color=colors.data, linewidth=0.8, alpha=0.5)
    right.plot(log_snr[1:], paid.mean(1), color=colors.data)
    right.set(xlabel="log-SNR $\\lambda$", ylim=(0, None), title="bits per pixel, paid so far")
    return made
