r"""Lesson 04: the KL of two Gaussians, the bound as an area, its estimators and what it says of a mixture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core import loss_weight
from minivdm.core.schedules import CosineSchedule, Schedule, VESchedule
from minivdm.course.notebook.style import colors, figure
from minivdm.exact import GaussianMixture, bound

LIMIT = 10.0
"""All schedules of the lesson run from lambda = LIMIT to lambda = -LIMIT."""

SCHEDULES: dict[str, Schedule] = {
    "cosine": CosineSchedule(-LIMIT, LIMIT),
    "shifted cosine": CosineSchedule(-LIMIT - 4, LIMIT - 4, shift=4.0),
    "variance exploding": VESchedule(math.exp(-LIMIT / 2), math.exp(LIMIT / 2)),
}
"""Three roads between the same two ends; in the last, lambda falls in a straight line."""


def world() -> GaussianMixture:
    """The lesson's data: eight round blobs of standard deviation 0.1 on the unit circle."""
    return GaussianMixture.ring()


# ---- KL of two Gaussians -----------------------------------------------------------------------------------


def kl_of_gaussians(shift: float = 1.0, ratio: float = 0.5) -> Figure:
    """q = N(shift, ratio) against p = N(0, 1): both densities, and the integrand whose area is KL(q || p)."""
    u = torch.linspace(-5, 5, 401, dtype=torch.float64)
    log_q = -((u - shift) ** 2) / (2 * ratio) - math.log(2 * math.pi * ratio) / 2
    log_p = -(u**2) / 2 - math.log(2 * math.pi) / 2
    integrand = log_q.exp() * (log_q - log_p)
    mean, zero = torch.tensor([[float(shift)]]), torch.zeros(1, 1)
    value = bound.gaussian_kl(mean, float(ratio), zero, 1.0).item()

    made, axes = figure(width=6.9, height=3.0)
    axes.plot(u, log_q.exp(), color=colors.learned, label="$q$")
    axes.plot(u, log_p.exp(), color=colors.noise, label="$p$")
    axes.plot(u, integrand, color=colors.data, linewidth=1.2, label="$q\\,\\log(q/p)$")
    axes.fill_between(u, integrand, where=integrand > 0, color=colors.data, alpha=0.25, linewidth=0)
    axes.fill_between(u, integrand, where=integrand < 0, color=colors.eps, alpha=0.25, linewidth=0)
    axes.set(xlim=(-5, 5), ylim=(-0.5, 1.5), xlabel="value", title=f"KL(q || p) = {value:.3f} nats")
    axes.legend(loc="upper right")
    return made


# ---- the bound as an area ----------------------------------------------------------------------------------


class Curve(NamedTuple):
    """h(lambda) = (1/2) SNR E||x - x_hat||^2 of the exact denoiser, and the rest of the bound, in nats."""

    log_snr: Tensor
    nats: Tensor
    rest: float


@lru_cache
def error_curve(points: int = 201, samples: int = 256) -> Curve:
    """The exact denoiser's mean squared error from the posterior's variance, which no noise of x blurs.

    E ||x - x_hat||^2 = E tr Cov(x | z), and the covariance of a mixture is known at every z.
    """
    ring, schedule = world(), SCHEDULES["cosine"]
    # Four independent normal numbers per sample from evenly spread points; the blobs are alike, so one serves.
    sobol = torch.quasirandom.SobolEngine(4, scramble=True, seed=0).draw(samples, dtype=torch.float64)
    normal = torch.special.ndtri(sobol.clamp(1e-9, 1 - 1e-9))
    x, eps = ring.means[0] + ring.covariances[0, 0, 0].sqrt() * normal[:, :2], normal[:, 2:]
    log_snr = torch.linspace(-LIMIT, LIMIT, points, dtype=torch.float64)
    variance = ring.covariances[0, 0, 0]
    values = []
    for lam in log_snr:
        alpha, sigma = torch.sigmoid(lam).sqrt(), torch.sigmoid(-lam).sqrt()
        z = alpha * x + sigma * eps
        noisy = alpha**2 * variance + sigma**2
        means = ring.means + alpha * variance / noisy * (z[:, None] - alpha * ring.means)  # (b, k, d)
        second = (means**2).sum(2) + 2 * variance * sigma**2 / noisy
        weights = ring.responsibilities(z, alpha, sigma)
        x_hat = torch.einsum("bk,bkd->bd", weights, means)
        trace = (weights * second).sum(1) - (x_hat**2).sum(1)
        values.append(lam.exp() * trace.mean() / 2)
    rest = bound.prior_term(x, schedule).mean() + bound.reconstruction_term(x, schedule)[0]
    return Curve(log_snr, torch.stack(values), float(rest))


def question() -> Figure:
    """The area under the exact denoiser's squared errors, which with two small ends is minus a log-likelihood."""
    curve = error_curve()
    area = torch.trapezoid(curve.nats, curve.log_snr).item()
    x, _ = world().sample(100_000, torch.Generator().manual_seed(0))
    entropy = -world().log_prob(x).mean().item()
    made, (left, right) = figure(1, 2, width=7.8, height=3.3, width_ratios=[1, 1.7])
    left.plot(*x[:1500].T, ".", color=colors.data, markersize=2, alpha=0.6)
    left.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[])
    left.set_title(f"data: mean of −log q(x) = {entropy:.2f}")
    right.fill_between(curve.log_snr, curve.nats, color=colors.learned, alpha=0.35, linewidth=0)
    right.plot(curve.log_snr, curve.nats, color=colors.exact)
    right.text(7.0, 0.25, f"area {area:.2f}", ha="center")
    right.set(xlim=(-LIMIT, LIMIT), ylim=(0, 1.25), xlabel="log-SNR $\\lambda$")
    right.set_title(f"half the squared error of the noise; {area:.2f} − {-curve.rest:.2f} = {area + curve.rest:.2f}")
    return made


class Steps(NamedTuple):
    """log-SNR at the borders of the T steps (T + 1,), ascending, and each step's KL (T,), in nats."""

    log_snr: Tensor
    nats: Tensor


def discrete_steps(steps: int, schedule: str = "cosine") -> Steps:
    """Every step's expected KL for the exact denoiser: (1/2) (SNR(s) - SNR(t)) E||x - x_hat(z_t)||^2."""
    log_snr = SCHEDULES[schedule].log_snr(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    return Steps(log_snr, _at(log_snr[:-1]) * torch.expm1(log_snr.diff()))


def sawtooth(steps: int = 24, schedule: str = "variance exploding") -> Figure:
    """The T-step bound as the area under saw teeth, and its limit as the area under the smooth curve."""
    curve = error_curve()
    limit = torch.trapezoid(curve.nats, curve.log_snr).item() + curve.rest
    borders, nats = discrete_steps(steps, schedule)
    total = nats.sum().item() + curve.rest

    made, axes = figure(width=6.9, height=3.4)
    ramp = torch.linspace(0, 1, 40, dtype=torch.float64)
    inside = borders[:-1, None] + ramp * borders.diff()[:, None]  # (steps, 40)
    teeth = _at(borders[:-1])[:, None] * torch.exp(inside - borders[:-1, None])
    clipped = teeth.flatten().clamp(max=10)
    axes.fill_between(inside.flatten(), clipped, color=colors.learned, alpha=0.35, linewidth=0)
    axes.plot(inside.flatten(), clipped, color=colors.learned, linewidth=0.8, label=f"$T$ = {steps} steps")
    axes.plot(curve.log_snr, curve.nats, color=colors.exact, label="$T \\to \\infty$")
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(0, 3.0), xlabel="log-SNR $\\lambda$", ylabel="nats per unit of $\\lambda$")
    number = f"{total:.2f}" if total < 1000 else f"{total:.3g}"
    axes.set_title(f"{schedule}: bound {number} nats, limit {limit:.2f}")
    axes.legend(loc="upper left")
    return made


def _at(log_snr: Tensor) -> Tensor:
    """The curve between its points, by straight lines in log h."""
    curve = error_curve()
    place = ((log_snr + LIMIT) / (2 * LIMIT) * (len(curve.nats) - 1)).clamp(0, len(curve.nats) - 1 - 1e-9)
    left = place.long()
    logs = curve.nats.log()
    return torch.lerp(logs[left], logs[left + 1], place - left).exp()


# ---- weights -----------------------------------------------------------------------------------------------

LOSSES = {
    "elbo": "the bound",
    "eps": r"$\Vert\epsilon-\hat\epsilon\Vert^2$",
    "v": r"$\Vert v-\hat v\Vert^2$",
    "x": r"$\Vert x-\hat x\Vert^2$",
}


def effective_weight(weighting: str, log_snr: Tensor, schedule: Schedule) -> Tensor:
    """What a loss with uniform t charges for (1/2)||eps - eps_hat||^2, per unit of lambda: 1 for the bound.

    2 w(lambda) / SNR times the density p(lambda) = |dt/dlambda| of the schedule.
    """
    t = schedule.time(log_snr).clamp(schedule.t_min, 1)
    slope = (schedule.diffusion(t) / schedule.sigma(t)) ** 2  # |dlambda/dt|
    return 2 * loss_weight(weighting, t, schedule) / log_snr.exp() / slope


def weights() -> Figure:
    """Effective weights of four losses under the cosine schedule with uniform t."""
    log_snr = torch.linspace(-9.9, 9.9, 200, dtype=torch.float64)
    made, axes = figure(width=6.8, height=3.2)
    shades = (colors.exact, colors.eps, colors.v, colors.x)
    for (name, label), shade in zip(LOSSES.items(), shades, strict=True):
        weight = effective_weight(name, log_snr, SCHEDULES["cosine"])
        axes.semilogy(log_snr, weight, color=shade, label=label)
    axes.set(ylim=(1e-4, 1e2), xlabel="log-SNR $\\lambda$", ylabel="weight per unit of $\\lambda$")
    axes.set_title("what uniform t on the cosine schedule pays for (log scale)")
    axes.legend(loc="lower left", ncols=2)
    return made


# ---- estimates ---------------------------------------------------------------------------------------------


def estimators(estimates: Mapping[str, Tensor], exact: float, shown: int = 400) -> Figure:
    """Repeated estimates of one bound, a row of dots per way to estimate it, beside their standard deviation.

    estimates: name -> (n,), the first `shown` of which become dots.
    """
    made, axes = figure(width=7.2, height=0.45 * len(estimates) + 1.1)
    jitter = torch.Generator().manual_seed(0)
    for row, values in enumerate(estimates.values()):
        dots = values[:shown].double()
        height = row + 0.5 * (torch.rand(len(dots), generator=jitter) - 0.5)
        axes.plot(dots, height, ".", color=colors.data, markersize=3, alpha=0.5)
        axes.text(1.01, row, f"std {values.std().item():.2f}", transform=axes.get_yaxis_transform(), va="center")
    axes.axvline(exact, color=colors.exact, linewidth=1.2)
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.invert_yaxis()
    axes.set(xlabel="nats", title="estimates of one number (line: exact)")
    return made


def against_likelihood(exact: Tensor, totals: Mapping[str, Tensor]) -> Figure:
    """Bounds of points against their exact -log p, all in nats. exact: (n,); totals: name -> (n,)."""
    made, axes = figure(width=5.4, height=3.8)
    shades = (colors.data, colors.eps, colors.v)
    for (name, values), shade in zip(totals.items(), shades, strict=False):
        axes.plot(exact, values, "o", color=shade, markersize=4, alpha=0.7, label=name)
    ends = torch.stack([exact.min(), exact.max()])
    axes.plot(ends, ends, color=colors.exact, linewidth=1.2, label="equality")
    axes.set(xlabel="exact $-\\log q(x)$, nats", ylabel="bound, nats", title="the bound, point by point")
    axes.legend()
    return made


def training(steps: Sequence[int], bounds: Sequence[float], errors: Sequence[float], exact: float) -> Figure:
    """The bound of a network while it learns, with three standard errors, above the exact likelihood."""
    made, axes = figure(width=6.4, height=3.0)
    spread = [3 * error for error in errors]
    axes.errorbar(steps, bounds, spread, color=colors.learned, marker="o", capsize=3, label="the network, ± 3 errors")
    axes.axhline(exact, color=colors.exact, linewidth=1.2, label="exact $-\\log q$")
    axes.set(xlabel="training step", ylabel="nats", title="minimising a squared error pulls the bound down")
    axes.legend()
    return made
