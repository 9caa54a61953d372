r"""What a sampler returns, exactly: mean and covariance through every step, where everything is linear.

On a `GaussianVideo` each denoiser, guidance and step is affine in (x^a, z), x^a being the observed frames.
The joint law of (x^a, z_t) then stays Gaussian from noise to sample, and two moments say all of it, with no
Monte Carlo error. The matrices are not written down anywhere: an affine map is known from its values at 0 and
at the unit vectors, so the same functions that sample videos are asked for those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoise
from minivdm.core.gaussian import Gaussian
from minivdm.core.observe import frame_indices
from minivdm.core.samplers import ancestral_law
from minivdm.core.schedules import Schedule
from minivdm.core.time_grids import Grid, times_of, uniform_in_t
from minivdm.exact.gaussian_video import GaussianVideo
from minivdm.exact.laws import Law
from minivdm.guards import BadType, check_types


def push(law: Law, affine: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Law:
    """The law of A u + c + sqrt(variance) eps for u ~ law: mean A m + c, covariance A C A^T + diag(variance).

    affine: u (n, d) -> (A u + c for each row, variance (d,)).
    """
    d = len(law.mean)
    probes = torch.cat([torch.zeros(1, d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)])
    rows, variance = affine(probes)
    offset, matrix = rows[0], (rows[1:] - rows[0]).T  # c and A
    return Law(matrix @ law.mean + offset, matrix @ law.covariance @ matrix.T + torch.diag(variance))


class Propagation:
    """The joint law of (x^a, z), stacked and flattened, while a sampler walks z from noise to x.

    video: the world. schedule: the noise. frames: indices of the observed frames x^a; none for unconditional
    sampling.
    condition: x^a (n, 1, a, h, w) -> the denoiser to sample with, e.g.
    `lambda x_a: reconstruction(video.denoiser(schedule), x_a, weight=2)`.
    """

    def __init__(
        self,
        video: GaussianVideo,
        schedule: Schedule,
        condition: Callable[[Tensor], Denoise],
        frames: Sequence[int] = (),
    ) -> None:
        self.video, self.schedule, self.condition = video, schedule, condition
        if not isinstance(video, GaussianVideo) or not isinstance(schedule, Schedule) or not callable(condition):
            got = ", ".join(type(value).__name__ for value in (video, schedule, condition))
            raise BadType(f"expected a GaussianVideo, a Schedule and a function of x^a, got {got}")
        frames = frame_indices(frames, video.shape[1]) if len(frames) else frames
        self.places = torch.arange(len(video.covariance)).reshape(video.shape)[:, list(frames)].flatten()
        self.a = len(self.places)

    def start(self, t: Tensor | float) -> Law:
        """x^a from the video's own law and, independent of it, z from the prior that sampling starts with.

        Both flattened into one vector. The prior is N(0, prior_std^2 I) of the schedule.
        """
        a, d = self.a, len(self.video.covariance)
        mean = torch.zeros(a + d, dtype=torch.float64)
        mean[:a] = self.video.mean[self.places]
        covariance = torch.zeros(a + d, a + d, dtype=torch.float64)
        covariance[:a, :a] = self.video.covariance[self.places][:, self.places]
        covariance[a:, a:] = self.schedule.prior_std(t) ** 2 * torch.eye(d, dtype=torch.float64)
        return Law(mean, covariance)

    def step(self, law: Law, z_law: Callable[[Denoise, Tensor], Gaussian]) -> Law:
        """After a step given as (denoise, z) -> Gaussian; x^a stays as it is."""

        def affine(u: Tensor) -> tuple[Tensor, Tensor]:
            x_a, z = self._parts(u)
            after = z_law(self.condition(x_a), z)
            variance = torch.zeros(u.shape[1], dtype=torch.float64)
            variance[self.a :] = after.variance
            return torch.cat([u[:, : self.a], after.mean.flatten(1)], dim=1), variance

        return push(law, affine)

    def replace(self, law: Law, t: Tensor | float) -> Law:
        """After replacement: z^a drawn afresh from q(z_t^a | x^a), and x^a itself at t = 0."""
        clean = bool(torch.as_tensor(t) == 0)
        alpha = 1.0 if clean else float(self.schedule.alpha(t))
        sigma = 0.0 if clean else float(self.schedule.sigma(t))

        def affine(u: Tensor) -> tuple[Tensor, Tensor]:
            after, variance = u.clone(), torch.zeros(u.shape[1], dtype=torch.float64)
            after[:, self.a + self.places] = alpha * u[:, : self.a]
            variance[self.a + self.places] = sigma**2
            return after, variance

        return push(law, affine)

    def run(
        self,
        steps: int | None = None,
        step_law: Callable[..., Gaussian] = ancestral_law,
        grid: Grid | Tensor | Sequence[float] = uniform_in_t,
        corrector_law: Callable[..., Gaussian] | None = None,
        replace: bool = True,
    ) -> Law:
        """The law of what `samplers.sample` returns with the steps that these laws stand for.

        Arguments as there; replace: whether the observed frames are replaced at every level. Returns the
        joint law of a whole video: x^a at the observed frames, the generated values elsewhere.
        """
        times = times_of(grid, steps, self.schedule)
        replace = replace and self.a > 0
        law = self.start(times[0])
        law = self.replace(law, times[0]) if replace else law
        for t, s in zip(times[:-1], times[1:], strict=True):
            law = self.step(law, self._moves(step_law, t, s))
            law = self.replace(law, s) if replace else law
            if corrector_law is not None and s > 0:
                law = self.step(law, lambda denoise, z, s=s: corrector_law(denoise, z, s))  # type: ignore[misc]
                law = self.replace(law, s) if replace else law
        order = self.a + torch.arange(len(self.video.covariance))
        order[self.places] = torch.arange(self.a)
        return Law(law.mean[order], law.covariance[order][:, order])

    def _moves(self, step_law: Callable[..., Gaussian], t: Tensor, s: Tensor) -> Callable[[Any, Tensor], Gaussian]:
        if s > 0:
            return lambda denoise, z: step_law(denoise, z, t, s)
        return lambda denoise, z: Gaussian(denoise(z, t), torch.zeros((), dtype=torch.float64))  # ends at x_hat

    def _parts(self, u: Tensor) -> tuple[Tensor, Tensor]:
        c, _, h, w = self.video.shape
        return u[:, : self.a].reshape(len(u), c, -1, h, w), u[:, self.a :].reshape(len(u), *self.video.shape)


check_types(globals())
