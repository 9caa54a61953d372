r"""A denoiser, (z, t) -> x_hat, made of a network, a noise schedule and a prediction target.

Whatever a network F is asked to predict, the denoiser is an affine map around it (Karras et al. 2022, "EDM",
eq 7):

    x_hat = skip z + out F(in z, lambda)

    target    skip                             out                                  F learns
    x         0                                1                                    x
    eps       1 / alpha                        -sigma / alpha                       eps
    v         alpha / (alpha^2 + sigma^2)      -sigma / (alpha^2 + sigma^2)         alpha eps - sigma x
    score     1 / alpha                        sigma^2 / alpha                      -eps / sigma
    edm       Karras's, for z / alpha with noise sigma / alpha: a v with unit variance in and out

An error of F is thus an error of x_hat over `out`: ||F - F*||^2 = ||x - x_hat||^2 / out^2, and the choice of
a target is, as far as the loss goes, the choice of a weight (Salimans & Ho 2022, section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from minivdm.core.gaussian import diffuse, expand, noise_like
from minivdm.core.schedules import Schedule, as_time

TARGETS = ("x", "eps", "v", "score", "edm")
WEIGHTINGS = (*TARGETS, "truncated_snr", "min_snr", "elbo")


class Denoise(Protocol):
    """What samplers and guidance ask of a denoiser: (z, t) -> x_hat, and the schedule that noised z."""

    @property
    def schedule(self) -> Schedule: ...

    def __call__(self, z: Tensor, t: Any, /) -> Tensor: ...


class Preconditioning(NamedTuple):
    """x_hat = skip z + out F(scale z): float64 coefficients of the shape of alpha and sigma."""

    skip: Tensor
    out: Tensor
    scale: Tensor


def preconditioning(target: str, alpha: Tensor, sigma: Tensor, sigma_data: float = 1.0) -> Preconditioning:
    """The three coefficients of a target at signal `alpha` and noise `sigma`.

    `sigma_data`, the standard deviation of the clean data, matters to "edm" alone (Karras et al. 2022, table
    1: c_skip, c_out, c_in for y = z / alpha, whose noise has standard deviation sigma / alpha).
    """
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    if target == "x":
        return Preconditioning(zero, one, one)
    if target == "eps":
        return Preconditioning(1 / alpha, -sigma / alpha, one)
    if target == "v":
        norm = alpha**2 + sigma**2  # 1 where variance is preserved
        return Preconditioning(alpha / norm, -sigma / norm, one)
    if target == "score":
        return Preconditioning(1 / alpha, sigma**2 / alpha, one)
    if target == "edm":
        std = (alpha**2 * sigma_data**2 + sigma**2).sqrt()  # of z
        return Preconditioning(alpha * sigma_data**2 / std**2, sigma * sigma_data / std, 1 / std)
    raise ValueError(f"expected a target out of {TARGETS}, got {target!r}")


def loss_weight(
    weighting: str, t: Tensor, schedule: Schedule, sigma_data: float = 1.0, min_snr_gamma: float = 5.0
) -> Tensor:
    """w(lambda_t) in E[w ||x - x_hat||^2] (VDM eq 2), float64, of t's shape.

    "x": 1. "eps": SNR. "v": SNR + 1 in VP. "score", "edm": likewise the weight under which that target has
    weight 1. "truncated_snr": max(SNR, 1) (Salimans & Ho 2022). "min_snr": min(SNR, gamma) (Hang et al. 2023;
    for v-prediction it amounts to min(SNR, gamma) / (SNR + 1) on the error of v). "elbo": -(1/2) SNR
    dlambda/dt, whose expectation over uniform t, times the number of values in x, is the variational bound's
    diffusion part in nats (Kingma et al. 2021).
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    snr = (alpha / sigma) ** 2
    if weighting in TARGETS:
        return preconditioning(weighting, alpha, sigma, sigma_data).out ** -2
    if weighting == "truncated_snr":
        return snr.clamp(min=1)
    if weighting == "min_snr":
        return snr.clamp(max=min_snr_gamma)
    if weighting == "elbo":
        return snr * (schedule.diffusion(t) / sigma) ** 2 / 2  # g^2 = -sigma^2 dlambda/dt
    raise ValueError(f"expected a weighting out of {WEIGHTINGS}, got {weighting!r}")


def stratified_times(
    n: int, schedule: Schedule, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """n times uniform on [t_min, 1], one in each n-th of it, in float64 on the generator's device.

    They vary less than independent ones; Kingma et al. 2021, appendix I.1, share one offset to the same end.
    """
    device = device if generator is None else generator.device
    where = "cpu" if device is None or torch.device(device).type == "mps" else device  # mps has no float64
    u = torch.rand(n, generator=generator, device=device).to(where, torch.float64)
    u = (torch.arange(n, device=u.device) + u) / n
    return schedule.t_min + (1 - schedule.t_min) * u


class Loss(NamedTuple):
    """mean: the scalar to differentiate. per_sample: (b,), a mean over each sample's values. log_snr: (b,)."""

    mean: Tensor
    per_sample: Tensor
    log_snr: Tensor


class Denoiser(nn.Module):
    """x_hat(z, t), an estimate of E[x | z_t = z], from a network trained to predict `target`.

    network: called `network(z, log_snr)` with z like x, e.g. (b, c, f, h, w), and log_snr (b,), and with the
        keywords `labels` and `frame_mask` where there are any. Returns a tensor like z.
    target: "x", "eps", "v", "score" or "edm". sigma_data: standard deviation of the data, for "edm".
    bounds: range of the data where they have one, (-1, 1) for videos; `loss` then refuses others.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        target: str = "v",
        sigma_data: float = 1.0,
        bounds: tuple[float, float] | None = None,
    ):
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"expected a target out of {TARGETS}, got {target!r}")
        if not sigma_data > 0:
            raise ValueError(f"expected sigma_data > 0, got {sigma_data}")
        self.network, self.schedule, self.target, self.sigma_data = network, schedule, target, sigma_data
        self.bounds = bounds

    def predict(
        self, z: Tensor, t: Tensor | float, labels: Tensor | None = None, frame_mask: Tensor | None = None
    ) -> tuple[Tensor, Preconditioning]:
        """The network's own output F (like z), and the coefficients that turn it into x_hat."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        coefficients = preconditioning(self.target, alpha, sigma, self.sigma_data)
        log_snr = self.schedule.log_snr(t).to(z.device, z.dtype).expand(z.shape[0])
        given = {"labels": labels, "frame_mask": frame_mask}
        conditions = {name: value for name, value in given.items() if value is not None}
        output = self.network(expand(coefficients.scale, z) * z, log_snr, **conditions)
        return output.to(z.dtype), coefficients  # under autocast the network answers in half precision

    def forward(
        self, z: Tensor, t: Tensor | float, labels: Tensor | None = None, frame_mask: Tensor | None = None
    ) -> Tensor:
        """x_hat, of z's shape. t: scalar or (b,)."""
        output, (skip, out, _) = self.predict(z, t, labels, frame_mask)
        return expand(skip, z) * z + expand(out, z) * output

    def given(self, labels: Tensor | None, frame_mask: Tensor | None = None) -> Conditioned:
        """The denoiser of p(x | labels), again (z, t) -> x_hat; `given(None)` is the unconditional one.

        labels: (b, n_labels) or (b, f, n_labels) multi-hot; (1, ...) serves every sample alike.
        """
        return Conditioned(self, labels, frame_mask)

    def loss(
        self,
        x: Tensor,
        *,
        labels: Tensor | None = None,
        label_drop: float = 0.1,
        frame_mask: Tensor | None = None,
        t: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        weighting: str | Callable[[Tensor], Tensor] = "v",
    ) -> Loss:
        """E over t and eps of w(lambda_t) ||x - x_hat(z_t)||^2 / (values per sample) (VDM eq 2).

        x: clean data, (b, ...), e.g. videos (b, c, f, h, w) in [-1, 1]. labels: as in `given`; a sample's
        labels are zeroed as a whole with probability `label_drop`, which teaches the unconditional model (Ho &
        Salimans 2021). t: (b,) times, stratified over [0, 1] where None. noise: eps, drawn where None.
        weighting: a name known to `loss_weight`, or a function of lambda (float64) that returns w.
        Raises TypeError for integers, DataRangeError for x outside `bounds` (not looked for on an accelerator,
        which would have to be waited for), ValueError for a label_drop outside [0, 1] and shapes that do not fit.
        """
        _check_data(x, self.bounds)
        if not 0 <= label_drop <= 1:
            raise ValueError(f"expected a label_drop probability in [0, 1], got {label_drop}")
        b = x.shape[0]
        t = stratified_times(b, self.schedule, generator, x.device) if t is None else as_time(t).expand(b)
        noise = noise_like(x, generator) if noise is None else noise
        if labels is not None and label_drop > 0:
            labels = drop_labels(labels, label_drop, generator)

        z = diffuse(x, t, self.schedule, noise)
        output, (skip, out, _) = self.predict(z, t, labels, frame_mask)
        # F* = (x - skip z) / out, in terms of x and eps: no float32 difference is divided by a small number.
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        goal = expand((1 - skip * alpha) / out, x) * x - expand(skip * sigma / out, x) * noise

        log_snr = self.schedule.log_snr(t)
        if isinstance(weighting, str):
            weight = loss_weight(weighting, t, self.schedule, self.sigma_data)
        else:
            weight = weighting(log_snr)
        error = (output - goal).square().flatten(1).mean(1)  # ||F - F*||^2 = ||x - x_hat||^2 / out^2
        per_sample = (weight * out**2).to(error) * error
        return Loss(per_sample.mean(), per_sample, log_snr)


class DataRangeError(ValueError):
    """Clean data outside the range that they should lie in, such as pixels in 0 .. 255."""


def _check_data(x: Tensor, bounds: tuple[float, float] | None) -> None:
    if not x.is_floating_point():
        raise TypeError(f"expected floating-point data, got {x.dtype}; 8-bit pixels become x / 127.5 - 1")
    if bounds is not None and x.device.type == "cpu" and x.numel():
        low, high = (float(end) for end in torch.aminmax(x))
        if not (low >= bounds[0] - 1e-3 and high <= bounds[1] + 1e-3):  # NaN as well; 1e-3 is for rounding
            raise DataRangeError(f"expected data in {list(bounds)}, got {low:.4g} to {high:.4g}")


class Conditioned:
    """A denoiser with its condition bound: (z, t) -> x_hat, differentiable in z, carrying `.schedule`."""

    def __init__(self, denoiser: Denoiser, labels: Tensor | None, frame_mask: Tensor | None = None) -> None:
        self.denoiser, self.labels, self.frame_mask = denoiser, labels, frame_mask
        self.schedule = denoiser.schedule

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        labels = self.labels
        if labels is not None:
            if labels.shape[0] not in (1, z.shape[0]):
                raise ValueError(f"expected labels for 1 or {z.shape[0]} samples, got {labels.shape[0]}")
            labels = labels.to(z.device, z.dtype).expand(z.shape[0], *labels.shape[1:])
        return self.denoiser(z, t, labels, self.frame_mask)


def drop_labels(labels: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Labels with whole samples zeroed, each with the given probability. labels: (b, n) or (b, f, n)."""
    device = labels.device if generator is None else generator.device
    keep = torch.rand(labels.shape[0], generator=generator, device=device) >= probability
    return labels * expand(keep.to(labels), labels)
