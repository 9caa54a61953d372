"""Drawings of lesson 10: conditioning an unconditional model, in a world where the law of every sampler is known."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from minivdm.core.guidance import Guided
from minivdm.core.samplers import langevin_law
from minivdm.core.schedules import CosineSchedule
from minivdm.course.notebook.style import colors, figure
from minivdm.exact import GaussianMixture, GaussianVideo, Law
from minivdm.exact.propagate import Propagation

OBSERVED = 4
"""Frames that are given; the world has 16."""


@functools.cache
def world() -> GaussianVideo:
    """One pixel per frame, 16 frames, correlation 0.9 from frame to frame: the closed-form video of the course."""
    return GaussianVideo(16, 0.9)


@functools.cache
def lesson_schedule() -> CosineSchedule:
    """The noise of the closed-form table."""
    return CosineSchedule(-12.0, 12.0)


def conditioned(x_a: Tensor, method: str, weight: float = 0.0) -> Any:
    """The denoiser to sample with, given x^a (b, 1, 4, 1, 1): "exact", "replacement" or "reconstruction"."""
    video, schedule = world(), lesson_schedule()
    if method == "exact":
        return video.conditional_denoiser(schedule, x_a)
    if method == "replacement":
        return video.denoiser(schedule)
    if method == "reconstruction":
        return guided_by_hand(x_a, weight)
    raise ValueError(f"expected 'exact', 'replacement' or 'reconstruction', got {method!r}")


def guided_by_hand(x_a: Tensor, weight: float) -> Guided:
    """`minivdm.core.guidance.reconstruction` in this world, its gradient taken on paper: thousands of steps ask for it.

    The estimate is x_hat = J z with a symmetric J, so (10.5) adds w_r alpha J^T (x^a - x_hat^a), rows of x^a alone.
    """
    values, axes = spectrum()
    schedule = lesson_schedule()

    def guided(z: Tensor, t: Tensor | float) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        jacobian = (axes * (alpha * values / (alpha**2 * values + sigma**2))) @ axes.T
        x_hat = z.flatten(1) @ jacobian
        missed = x_a.flatten(1) - x_hat[:, :OBSERVED]
        return (x_hat + weight * alpha * missed @ jacobian[:OBSERVED]).view_as(z)

    return Guided(guided, schedule)


@functools.cache
def spectrum() -> tuple[Tensor, Tensor]:
    """Eigenvalues (16,) and eigenvectors, as columns, of the video's covariance."""
    values, axes = torch.linalg.eigh(world().covariance)
    return values, axes


# ---- what an estimate knows ------------------------------------------------------------------------------------------


def estimate(method: str, log_snr: float, weight: float = 0.0) -> tuple[Tensor, Tensor]:
    """Matrices A (12, 4) and B (12, 16) of x_hat^b = A x^a + B z: every estimate in this world is linear."""
    t = lesson_schedule().time(torch.tensor(log_snr, dtype=torch.float64))
    probes = torch.eye(OBSERVED + 16, dtype=torch.float64)
    x_a, z = probes[:, :OBSERVED].reshape(-1, 1, OBSERVED, 1, 1), probes[:, OBSERVED:].reshape(-1, 1, 16, 1, 1)
    columns = conditioned(x_a, method, weight)(z, t).flatten(1)[:, OBSERVED:].T
    return columns[:, :OBSERVED], columns[:, OBSERVED:]


def squared_error(method: str, log_snr: float, weight: float = 0.0) -> float:
    """E (x^b - x_hat^b)^2 per frame, over videos x and noise, with z^a from q(z_t^a | x^a)."""
    a, b = estimate(method, log_snr, weight)
    t = lesson_schedule().time(torch.tensor(log_snr, dtype=torch.float64))
    alpha, sigma = lesson_schedule().alpha(t), lesson_schedule().sigma(t)
    eye = torch.eye(16, dtype=torch.float64)
    left = eye[OBSERVED:] - a @ eye[:OBSERVED] - alpha * b  # x^b - A x^a - B (alpha x + sigma eps)
    total = (left @ world().covariance @ left.T).trace() + sigma**2 * b.square().sum()
    return float(total) / (16 - OBSERVED)


def posterior_covariance(log_snr: float) -> Tensor:
    """Covariance of x^a given z_t, (4, 4) (equation 10.6)."""
    snr = math.exp(log_snr)
    full = torch.linalg.inv(torch.linalg.inv(world().covariance) + snr * torch.eye(16, dtype=torch.float64))
    return full[:OBSERVED, :OBSERVED]


def right_weights(log_snr: float) -> Tensor:
    """Eigenvalues, (4,), of (sigma^2 / alpha^2) Cov(x^a | z_t)^{-1}: the w_r that each direction needs (10.8)."""
    return torch.linalg.eigvalsh(math.exp(-log_snr) * torch.linalg.inv(posterior_covariance(log_snr)))


def draw_what_is_missed(weights: Sequence[float] = ()) -> Figure:
    """Error of the estimate of x^b over the noise level: replacement, the exact one, and guidance of some weights."""
    levels = torch.linspace(-8, 8, 33).tolist()
    fig, ax = figure(width=6.4, height=3.4)
    ax.plot(levels, [squared_error("replacement", lam) for lam in levels], color=colors.noise, label="replacement")
    for w, color in zip(weights, [colors.learned, colors.eps, colors.z], strict=False):
        errors = [squared_error("reconstruction", lam, w) for lam in levels]
        ax.plot(levels, errors, color=color, label=f"reconstruction, $w_r$ = {w:g}")
    errors = [squared_error("exact", lam) for lam in levels]
    ax.plot(levels, errors, color=colors.exact, linestyle="--", label="exact")
    ax.set(
        xlabel=r"log-SNR $\lambda$ (noise left, clean right)",
        ylabel=r"$\mathbb{E}(x^b-\hat x^b)^2$ a frame",
        ylim=(0, 1.05),
    )
    ax.legend(fontsize=9)
    return fig


def draw_right_weights() -> Figure:
    """The range of weights w_r that would be right, over the noise level (10.8)."""
    levels = torch.linspace(-8, 8, 33).tolist()
    fig, ax = figure(width=6.4, height=3.2)
    needed = torch.stack([right_weights(lam) for lam in levels])
    ax.fill_between(levels, needed[:, 0].tolist(), needed[:, -1].tolist(), color=colors.x, alpha=0.25)
    ax.semilogy(levels, needed[:, 0].tolist(), color=colors.x, label="least and largest eigenvalue of $W_t$")
    ax.semilogy(levels, needed[:, -1].tolist(), color=colors.x)
    ax.axhline(1, color=colors.exact, linewidth=0.8, linestyle="--", label="$w_r$ = 1")
    ax.set(xlabel=r"log-SNR $\lambda$ (noise left, clean right)", ylabel="weight that is right")
    ax.legend(fontsize=9)
    return fig


# ---- the Gaussian approximation --------------------------------------------------------------------------------------


@functools.cache
def two_bumps() -> GaussianMixture:
    """A frame of one pixel that is either dark or bright."""
    return GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), 0.25)


def approximation(log_snr: float, z: float) -> tuple[Tensor, Tensor, Tensor]:
    """Values x (n,), the true density of x given z_t = z, and N(x_hat, sigma^2 / alpha^2), for `two_bumps`."""
    t = lesson_schedule().time(torch.tensor(log_snr, dtype=torch.float64))
    alpha, sigma = lesson_schedule().alpha(t), lesson_schedule().sigma(t)
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    joint = two_bumps().log_prob(x[:, None]) - (z - alpha * x).square() / (2 * sigma**2)
    true = joint.softmax(0) / (x[1] - x[0])
    x_hat = two_bumps().posterior_mean(torch.tensor([[z]], dtype=torch.float64), alpha, sigma)[0, 0]
    std = sigma / alpha
    return x, true, torch.exp(-((x - x_hat) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))


def draw_approximation(log_snr: float, z: float) -> Figure:
    """What x is, given z_t: the truth and the Gaussian that reconstruction guidance puts in its place."""
    x, true, guess = approximation(log_snr, z)
    fig, ax = figure(width=4.6, height=3.0)
    ax.plot(x.tolist(), true.tolist(), color=colors.exact, label="true $q(x\\mid z_t)$")
    ax.plot(x.tolist(), guess.tolist(), color=colors.eps, label=r"$\mathcal{N}(\hat x, \sigma^2/\alpha^2)$")
    ax.set(xlabel="$x$", ylim=(0, None), title=f"$\\lambda$ = {log_snr:g}, $z_t$ = {z:g}")
    ax.legend(fontsize=9)
    return fig


# ---- the table -------------------------------------------------------------------------------------------------------


@functools.cache
def sampled(method: str, weight: float, steps: int, corrector: bool) -> Law:
    """The exact law of what a conditional sampler returns: ancestral steps uniform in t, replacement at every level."""
    walk = Propagation(world(), lesson_schedule(), lambda x_a: conditioned(x_a, method, weight), range(OBSERVED))
    return walk.run(steps, corrector_law=langevin_law if corrector else None)


def distance(method: str, weight: float, steps: int, corrector: bool) -> float:
    """2-Wasserstein distance of that law from the video's own."""
    law = sampled(method, weight, steps, corrector)
    return world().wasserstein(law) if bool(law.covariance.isfinite().all()) else math.inf


def draw_table(weights: Sequence[float], steps: Sequence[int]) -> Figure:
    """Distance from the truth over w_r, a line for each number of steps; without and with a Langevin corrector."""
    fig, axes = figure(1, 2, width=8.6, height=3.5, sharey=True)
    shades = ["#9ecae1", "#4292c6", "#08306b"]
    for ax, corrector in zip(axes, (False, True), strict=True):
        for n, color in zip(steps, shades, strict=False):
            found = [distance("reconstruction", w, n, corrector) for w in weights]
            ax.plot(weights, found, "o-", color=color, label=f"{n} steps")
        ax.set(xlabel="$w_r$ (0 is replacement)", ylim=(0, 0.8), title="with corrector" if corrector else "ancestral")
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(left=-0.1)
        ax.set_xticks(list(weights), [f"{w:g}" for w in weights])
        ax.minorticks_off()
    axes[0].axhline(distance("exact", 0.0, max(steps), False), color=colors.exact, linewidth=1, linestyle="--",
                    label=f"exact denoiser, {max(steps)} steps")  # fmt: skip
    axes[0].set_ylabel("$W_2$ from the truth")
    axes[0].legend(fontsize=9)
    return fig


def draw_guided(w_r: float, steps: int, corrector: bool) -> Figure:
    """Covariance of each frame with the last observed one as a sampler makes it, and all its covariances' errors."""
    truth = world().covariance
    law = sampled("reconstruction" if w_r > 0 else "replacement", float(w_r), int(steps), bool(corrector))
    last = OBSERVED - 1
    fig, (left, right) = figure(1, 2, width=8.0, height=3.2, width_ratios=[1.45, 1])
    left.plot(range(16), truth[last].tolist(), color=colors.exact, linestyle="--", label="true")
    left.plot(range(16), law.covariance[last].tolist(), "o-", color=colors.eps, label="generated")
    left.axvspan(-0.5, last + 0.5, color=colors.observed, alpha=0.25)
    name = "replacement" if w_r == 0 else f"$w_r$ = {w_r:g}"
    found = distance("reconstruction" if w_r > 0 else "replacement", float(w_r), int(steps), bool(corrector))
    left.set(xlabel="frame", ylabel="covariance with frame 3", ylim=(-0.1, 1.15),
             title=f"{name}, {steps} steps: $W_2$ = {found:.3f}")  # fmt: skip
    left.legend(fontsize=9)
    shown = right.imshow((law.covariance - truth).clamp(-0.5, 0.5).numpy(), cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    right.set(xlabel="frame", title="covariance − truth")
    right.grid(False)
    fig.colorbar(shown, ax=right, shrink=0.85)
    return fig


# ---- too much guidance -----------------------------------------------------------------------------------------------


def step_factor(weight: float, t: float, s: float) -> float:
    """Most negative eigenvalue of z_t^b -> mean of z_s^b in one guided ancestral step (equation 10.12)."""
    schedule = lesson_schedule()
    alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(s)
    r = (schedule.log_snr(t) - schedule.log_snr(s)).exp()
    _, b = estimate("reconstruction", float(schedule.log_snr(t)), weight)
    jacobian = b[:, OBSERVED:]
    eye = torch.eye(16 - OBSERVED, dtype=torch.float64)
    return float(torch.linalg.eigvals(r * alpha_s / alpha_t * eye + (1 - r) * alpha_s * jacobian).real.min())


def draw_too_much(weights: Sequence[float], steps: Sequence[int]) -> Figure:
    """Left: the distance grows again where w_r is large. Right: the least factor of any step; below -1 errors grow."""
    fig, (left, right) = figure(1, 2, width=8.6, height=3.3)
    shades = ["#9ecae1", "#4292c6", "#08306b"]
    for n, color in zip(steps, shades, strict=False):
        left.loglog(weights, [distance("reconstruction", w, n, False) for w in weights], "o-", color=color,
                    label=f"{n} steps")  # fmt: skip
        right.semilogx(weights, [worst_factor(w, n) for w in weights], "o-", color=color)
    left.axhline(distance("replacement", 0.0, max(steps), False), color=colors.noise, linestyle="--", linewidth=1,
                 label=f"replacement, {max(steps)} steps")  # fmt: skip
    left.set(xlabel="$w_r$", ylabel="$W_2$ from the truth", ylim=(0.15, 30), title="the sample is biased")
    left.legend(fontsize=9)
    right.axhline(-1, color=colors.exact, linewidth=1, linestyle="--")
    right.set(
        xlabel="$w_r$", ylabel="most negative factor of a step", yscale="symlog", title="below −1 a step explodes"
    )
    return fig


@functools.cache
def worst_factor(weight: float, steps: int) -> float:
    """The least of the factors of all steps but the last, which goes to x_hat itself."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1].tolist()
    pairs = list(zip(times[:-1], times[1:], strict=True))
    return min(step_factor(weight, t, s) for t, s in pairs[:: max(1, len(pairs) // 24)])


# ---- trained networks ------------------------------------------------------------------------------------------------


def draw_errors(errors: Mapping[str, Tensor], known: int) -> Figure:
    """Squared error of each frame after the known ones, with a standard error over clips. errors: name -> (b, f)."""
    fig, ax = figure(width=6.4, height=3.4)
    for (name, values), color in zip(errors.items(), (colors.noise, colors.eps, colors.v, colors.exact), strict=False):
        half = (values.std(0) / len(values) ** 0.5).tolist()
        frames = range(known, known + values.shape[1])
        ax.errorbar(frames, values.mean(0).tolist(), half, fmt="o-", capsize=2, color=color, label=name)
    ax.set(xlabel="frame", ylabel="squared error", title="Distance from the true future", ylim=(0, None))
    ax.legend()
    return fig
