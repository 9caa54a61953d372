"""Every public function of core, exact, networks and tasks with arguments that it accepts.

A case is a name, a function, and arguments by name: what an attack starts from, by replacing one of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minivdm import core, exact, networks, tasks
from minivdm.core import observe
from minivdm.exact import likelihood


class Case(NamedTuple):
    """A call that is right. like: the result has the shape of this argument, where it is a latent."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]


def seeded(*shape: int, scale: float = 0.3) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Tiny(nn.Module):
    """A network that answers at once, with conditions, for latents of any shape."""

    zero_is_absent = ("labels",)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 0.5))

    def forward(self, z: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Tensor:
        shift = 0 if labels is None else labels.flatten(1).mean(1).reshape(-1, *[1] * (z.ndim - 1))
        return self.weight * z + 0.1 * shift


COSINE, FLOW = core.CosineSchedule(-12, 12), core.FlowSchedule()
VIDEO = exact.GaussianVideo(4, 0.9, size=(4, 4))
MIXTURE = exact.GaussianMixture.ring(3, 1.0, 0.3)
DENOISER = core.Denoiser(Tiny(), COSINE, "v").requires_grad_(False)
EXACT = VIDEO.denoiser(COSINE)
CLIP = seeded(2, 1, 4, 4, 4).clamp(-1, 1)
POINTS = seeded(5, 2)
LABELS = torch.eye(3)[[0, 2]]
T, S = torch.tensor([0.6, 0.8]), torch.tensor([0.3, 0.2])
NETWORK = dict(width=8, multipliers=[1], labels=10, spatial=[True], temporal=[True], head_channels=8, embedding=8,
               middle=1)  # fmt: skip
LAW = exact.Law(torch.zeros(2).double(), torch.eye(2).double())


def unet(**changes: Any) -> nn.Module:
    settings = dict(width=8, multipliers=(1,), labels=3, spatial=(True,), temporal=(True,), head_channels=8,
                    embedding=8, middle=1)  # fmt: skip
    return networks.UNet3D(**(settings | changes))  # type: ignore[arg-type]


UNET = unet().eval().requires_grad_(False)
POINT_NETWORK = networks.PointNetwork(2, 8, 1, generator=generator())
BIG = core.Denoiser(UNET, COSINE)


def cases() -> list[Case]:
    found: list[Case] = []

    def add(function: Callable[..., Any], name: str = "", /, **arguments: Any) -> None:
        found.append(Case(name or getattr(function, "__qualname__", "?"), function, arguments))

    # ---- core
    for schedule in (COSINE, core.LinearSchedule(), core.SubVPSchedule(), core.VESchedule(), FLOW):
        kind = type(schedule).__name__
        for method in ("alpha", "sigma", "alpha_slope", "sigma_slope", "log_snr", "drift", "diffusion", "prior_std"):
            add(getattr(schedule, method), f"{kind}.{method}", t=T)
        add(schedule.angle, f"{kind}.angle", t=T)
        add(schedule.time, f"{kind}.time", log_snr=torch.tensor([-1.0, 2.0]))
    add(core.CosineSchedule, log_snr_min=-10.0, log_snr_max=10.0, shift=1.0)
    add(core.CosineSchedule.for_size, size=64, base=32)
    add(core.LinearSchedule, beta_min=0.1, beta_max=20.0)
    add(core.VESchedule, sigma_min=0.01, sigma_max=50.0)
    add(core.as_time, t=T)
    add(core.diffuse, x=CLIP, t=T, schedule=COSINE, noise=seeded(2, 1, 4, 4, 4), generator=generator())
    add(core.transition, s=S, t=T, schedule=COSINE)
    add(core.posterior, z=CLIP, x=CLIP, s=S, t=T, schedule=COSINE)
    add(core.noise_like, z=CLIP, generator=generator())
    add(core.expand, coefficient=T, z=CLIP)
    for name in dir(core):
        if "_from_" in name:
            function = getattr(core, name)
            given = list(inspect.signature(function).parameters)[1]
            slopes = {"slopes": (-1.0, 1.0)} if "velocity" in name else {}
            add(function, z=CLIP, **{given: CLIP}, alpha=0.6, sigma=torch.tensor([0.8, 0.7]), **slopes)
    add(core.preconditioning, target="v", alpha=torch.tensor(0.6), sigma=torch.tensor(0.8), sigma_data=1.0)
    add(core.loss_weight, weighting="min_snr", t=T, schedule=COSINE, sigma_data=1.0, min_snr_gamma=5.0)
    add(core.stratified_times, n=4, schedule=FLOW, generator=generator(), logit_normal=(0.0, 1.0))
    add(core.drop_labels, labels=LABELS, probability=0.5, generator=generator())
    add(core.Denoiser, network=Tiny(), schedule=COSINE, target="x", sigma_data=1.0, bounds=(-1.0, 1.0))
    add(DENOISER, "Denoiser.forward", z=CLIP, t=T, labels=LABELS)
    add(DENOISER.given, "Denoiser.given", labels=LABELS)
    add(DENOISER.loss, "Denoiser.loss", x=CLIP, labels=LABELS, label_drop=0.1, t=T, noise=CLIP, generator=generator(),
        weighting="v", drop={"labels": 0.5})  # fmt: skip
    steps = (core.ancestral_step, core.ddim_step, core.reverse_sde_step, core.euler_step, core.heun_step,
             core.angular_ddim_step, core.DPMSolverPlusPlus2M(), core.clean_step)  # fmt: skip
    for step in steps:
        name = getattr(step, "__name__", "DPMSolverPlusPlus2M")
        add(step, name, denoise=EXACT, z=CLIP, t=torch.tensor(0.6), s=torch.tensor(0.4), generator=generator())
    add(core.ancestral_law, denoise=EXACT, z=CLIP, t=0.6, s=0.4, gamma=0.5)
    add(core.ddim_law, denoise=EXACT, z=CLIP, t=0.6, s=0.4, eta=0.5)
    add(core.langevin_step, denoise=EXACT, z=CLIP, t=0.6, delta=0.1, generator=generator())
    add(core.velocity, denoise=EXACT, z=CLIP, t=0.6)
    add(core.draw, law=core.Gaussian(CLIP, torch.tensor(0.1)), generator=generator())
    sampled = dict(steps=2, step=core.ddim_step, corrector=None, final=core.clean_step, clip=(-1.0, 1.0))
    add(core.Sampling, **sampled, grid=core.uniform_in_t)
    add(core.sample, denoise=EXACT, noise=CLIP, generator=generator(), grid=core.karras, progress=False, **sampled)
    for grid in (core.uniform_in_t, core.uniform_in_log_snr):
        add(grid, steps=4, schedule=COSINE)
    add(core.karras, steps=4, schedule=core.VESchedule(), sigma_min=0.002, sigma_max=80.0, rho=7.0)
    add(core.as_grid, times=[1.0, 0.5, 0.0])
    add(core.times_of, grid=[1.0, 0.5, 0.0], steps=2, schedule=COSINE)
    for make in (
        partial(core.classifier_free, DENOISER.given(LABELS), DENOISER.given(None)),
        partial(core.classifier, EXACT, lambda z, t: z.flatten(1).sum(1)),
        partial(core.reconstruction, EXACT, CLIP[:, :, :2]),
    ):
        name = make.func.__name__  # type: ignore[attr-defined]
        add(lambda weight, z, t, make=make: make(weight=weight)(z, t), name, weight=1.0, z=CLIP, t=0.6)
    add(lambda observed, variance: core.reconstruction(EXACT, observed, 1.0, variance=variance)(CLIP, 0.6),
        "reconstruction of", observed=CLIP[:, :, :2], variance="pigdm")  # fmt: skip
    add(lambda low, high: core.clipped(EXACT, low, high)(CLIP, 0.6), "clipped", low=-1.0, high=1.0)
    add(lambda quantile: core.dynamically_thresholded(EXACT, quantile)(CLIP, 0.6), "thresholded", quantile=0.9)
    add(lambda observed, frames, draw, z, t: core.Replacement(observed, COSINE, frames, draw)(z, t), "Replacement",
        observed=CLIP[:, :, :2], frames=[0, 3], draw="fresh", z=CLIP, t=0.5)  # fmt: skip
    add(lambda frames, x: observe.Frames(frames)(x), "Frames", frames=[0, 2], x=CLIP)
    add(lambda space, every, frames, x: observe.Downsample(space, every, frames)(x), "Downsample", space=2, every=2,
        frames=[0, 2], x=CLIP)  # fmt: skip
    add(lambda mask, x: observe.Pixels(mask)(x), "Pixels", x=CLIP, mask=torch.eye(4) > 0)

    # ---- networks
    add(UNET, "UNet3D.forward", z=CLIP, log_snr=torch.zeros(2), labels=LABELS, frame_mask=torch.eye(4) > 0)
    add(unet, "UNet3D", channels=1, width=8, multipliers=(1,), patch=2, labels=3, blocks=1, middle=1,
        head_channels=8, embedding=8)  # fmt: skip
    add(networks.attend, q=seeded(3, 2, 4, 8), k=seeded(3, 2, 4, 8), v=seeded(3, 2, 4, 8),
        mask=torch.ones(1, 1, 4, 4) > 0)  # fmt: skip
    add(networks.rotary_angles, positions=torch.arange(4), dimensions=8, shortest=4.0, longest=128.0)
    add(networks.joint_frame_mask, frames=4, images=2)
    add(networks.PointNetwork, dimensions=2, width=8, depth=1)
    add(POINT_NETWORK, "PointNetwork.forward", z=POINTS, log_snr=torch.zeros(5))

    # ---- exact
    add(exact.GaussianMixture, weights=torch.ones(2), means=torch.eye(2), covariances=0.3)
    add(exact.GaussianMixture.ring, components=3, radius=1.0, std=0.1)
    add(MIXTURE.sample, "mixture.sample", n=3, generator=generator())
    add(MIXTURE.log_prob, "mixture.log_prob", z=POINTS, alpha=0.8, sigma=0.6, labels=torch.eye(3)[:1])
    add(MIXTURE.posterior_mean, "mixture.posterior_mean", z=POINTS, alpha=0.8, sigma=0.6, labels=torch.eye(3)[:1])
    add(MIXTURE.score, "mixture.score", z=POINTS, alpha=0.8, sigma=0.6)
    add(MIXTURE.log_class, "mixture.log_class", label=1, schedule=COSINE)
    add(exact.GaussianVideo, frames=3, correlation=0.9, size=(2, 2), pixel_correlation=0.5)
    add(VIDEO.sample, "video.sample", n=3, generator=generator())
    add(VIDEO.posterior_mean, "video.posterior_mean", z=CLIP, alpha=0.8, sigma=0.6)
    add(VIDEO.log_prob, "video.log_prob", z=CLIP, alpha=0.8, sigma=0.6)
    add(VIDEO.given, "video.given", observed=CLIP[:, :, :2], frames=[0, 2])
    add(VIDEO.wasserstein, "video.wasserstein", other=seeded(8, 1, 4, 4, 4))
    add(exact.wasserstein, first=LAW, second=LAW)
    add(exact.log_likelihood, denoise=EXACT, x=CLIP, steps=2, probes=1, generator=generator())
    add(likelihood.normal_log_prob, z=CLIP, std=1.0)
    add(likelihood.signs_like, z=CLIP, probes=2, generator=generator())
    add(exact.divergence, field=torch.tanh, z=POINTS, probes=None)
    add(exact.explicit, score=torch.tanh, z=POINTS, true_score=POINTS)
    add(exact.implicit, score=torch.tanh, z=POINTS)
    add(exact.sliced, score=torch.tanh, z=POINTS, probes=2, generator=generator())
    add(exact.denoising, score=torch.tanh, x=POINTS, sigma=0.5, alpha=1.0, noise=POINTS, generator=generator())
    add(exact.tweedie, z=POINTS, score=POINTS, sigma=0.5, alpha=1.0)
    add(exact.geometric_ladder, sigma_max=1.0, sigma_min=0.1, levels=3)
    add(exact.annealed_langevin, score=lambda z, sigma: -z, z=POINTS, sigmas=torch.tensor([1.0, 0.1]), steps=2,
        step_size=0.1, generator=generator())  # fmt: skip
    add(exact.gaussian_kl, mean_q=CLIP, variance_q=1.0, mean_p=CLIP, variance_p=torch.tensor([1.0, 2.0]))
    add(exact.discrete_bound, denoise=EXACT, x=CLIP, steps=2, draws=2, generator=generator())
    add(exact.continuous_bound, denoise=EXACT, x=CLIP, draws=2, generator=generator())
    add(exact.step_term, denoise=EXACT, x=CLIP, s=0.3, t=0.6, generator=generator())
    add(exact.nats_per_log_snr, denoise=EXACT, x=CLIP, t=0.6, generator=generator())
    add(exact.ByImportance, denoise=EXACT, x=CLIP, bins=2, generator=generator())

    # ---- tasks
    how = dict(steps=2, step=core.ddim_step, generator=generator())
    add(tasks.multi_hot, digits=[1, 2], n=3)
    add(tasks.guided, denoise=DENOISER, labels=LABELS, weight=1.0)
    add(tasks.generate, denoise=DENOISER, labels=LABELS, count=2, shape=(1, 4, 4, 4), weight=1.0, grid=None or
        core.uniform_in_t, clip=None, **how)  # fmt: skip
    block = dict(window=4, labels=LABELS, weight=1.0, method="reconstruction", reconstruction_weight=1.0,
                 variance="vdm", draw="fresh", **how)  # fmt: skip
    add(tasks.extend, denoise=DENOISER, video=CLIP, frames=6, at=range(4), order=tasks.autoregressive, **block)
    add(tasks.interpolate, denoise=DENOISER, video=CLIP[:, :, :2], between=1, **block)
    add(tasks.super_resolve, denoise=DENOISER, video=CLIP[..., :2, :2], space=2, every=1, first=CLIP[:, :, :1],
        **block)  # fmt: skip
    add(tasks.restore, denoise=DENOISER, observations=[(observe.Frames([0, 1]), CLIP[:, :, :2])],
        shape=(1, 4, 4, 4), labels=LABELS, weight=1.0, **how)  # fmt: skip
    add(tasks.invert, denoise=EXACT, x=CLIP, steps=2, refinements=1)
    add(tasks.sdedit, denoise=EXACT, x=CLIP, t=0.5, steps=2, generator=generator())
    for order in (tasks.autoregressive, tasks.hierarchical):
        add(lambda order=order, **a: list(order(**a)), order.__name__, known=[0, 1], frames=8, window=4, overlap=2)
    add(tasks.plan, order=tasks.autoregressive, known=[0, 1], frames=8, window=4)
    return found
