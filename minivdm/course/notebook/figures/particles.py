"""Replacement made right without a gradient, in lesson 10's Gaussian video: by particles, or by going back."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from minivdm.core.gaussian import posterior, transition
from minivdm.core.samplers import ancestral_law
from minivdm.course.notebook.figures.extending import OBSERVED, lesson_schedule, world
from minivdm.exact import Law


def replaced(
    x_a: Tensor, steps: int, particles: int = 1, back: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Videos (b, 16) sampled by replacement, given x_a (b, 4), ancestral steps uniform in t.

    particles: of each video. Above 1 it is SMCDiff (Trippe et al. 2023, algorithm 2): one noisy path of x^a serves all
        particles of a video; after each step they are drawn anew in proportion to the density that the step gave to
        that path. As their number grows the law becomes that of the exact conditional sampler.
    back: how often each step is undone by noising z_s to t again, and repeated (RePaint, Lugmayr et al. 2022, with
        jumps of one step).
    """
    video, schedule = world(), lesson_schedule()
    denoise = video.denoiser(schedule)
    b, a = len(x_a), OBSERVED
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def conditioned_path(known: Tensor, t: Tensor, s: Tensor) -> Tensor:  # a draw from q(z_s^a | x^a, z_t^a)
        law = posterior(known, x_a, s, t, schedule)
        return law.mean + law.variance.sqrt() * noise(b, a)

    known = schedule.alpha(times[0]) * x_a + schedule.sigma(times[0]) * noise(b, a)
    z = noise(b, particles, 16)
    z[..., :a] = known[:, None]
    rows = torch.arange(b)[:, None]
    for t, s in itertools.pairwise(times[:-1]):
        for again in range(back + 1):
            law = ancestral_law(denoise, z.reshape(-1, 1, 16, 1, 1), t, s)
            mean, std = law.mean.reshape(z.shape), law.variance.sqrt()
            reached = conditioned_path(known, t, s)
            if particles > 1:
                fits = -(reached[:, None] - mean[..., :a]).square().sum(-1) / (2 * law.variance)  # b, particles
                chosen = torch.multinomial(fits.softmax(-1), particles, replacement=True, generator=generator)
                mean = mean[rows, chosen]
            moved = mean + std * noise(*z.shape)
            moved[..., :a] = reached[:, None]
            if again < back:
                there = transition(s, t, schedule)
                moved = there.scale * moved + there.variance.sqrt() * noise(*z.shape)
                z, known = moved, moved[:, 0, :a]
            else:
                z, known = moved, reached
    x = denoise(z[:, :1].reshape(-1, 1, 16, 1, 1), times[-2]).reshape(b, 16)
    return torch.cat([x_a, x[:, a:]], 1)


def distance_of_samples(x: Tensor) -> float:
    """2-Wasserstein distance of the Gaussian fitted to samples (b, 16) from the video's own law."""
    return world().wasserstein(Law(x.mean(0), torch.cov(x.T)))
