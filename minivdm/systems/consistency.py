r"""Consistency models: f(z_t, t) is where the flow through z_t ends, the same for all points of one trajectory.

Song, Dhariwal, Chen & Sutskever 2023, "Consistency models". Distillation (their algorithm 2): z_t is data with noise,
one step of a teacher takes it to z_s, and

    || f(z_t, t) - f^-(z_s, s) ||^2

is small for the student f and its moving average f^-. Nothing but the boundary f(z_0, 0) = z_0 keeps f from being
constant. They build it in with f = c_skip z + c_out F; a network that predicts v has it already where alpha = 1 at
t = 0, since f = cos(phi) z - sin(phi) v_hat: f is the x_hat of an ordinary `Denoiser`. So every sampler can ask it; one
call from t = 1 makes a clip, and `consistency_step` noises that again and asks once more (their algorithm 1).

In a Gaussian world f is known, for each eigenvalue k of the covariance on its own:

    f(z, t) = sqrt(k / (k alpha^2 + sigma^2)) z,

and in one dimension for every law: the flow keeps the order of points, so the end of z has the rank that z had,
f(z, t) = F_data^-1(F_{z_t}(z)).
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoise, Denoiser, Loss, schedule_of
from minivdm.core.gaussian import diffuse, expand, noise_like
from minivdm.core.schedules import Schedule
from minivdm.core.targets import loss_weight
from minivdm.exact.gaussian_video import GaussianVideo
from minivdm.exact.mixture import GaussianMixture
from minivdm.guards import BadArgument, BadType, check_types
from minivdm.systems.progressive_distillation import ProgressiveDistillation, before, scales
from minivdm.training.objectives import Batch


def consistency_step(
    consistent: Denoise, z: Tensor, t: Tensor | float, s: Tensor | float, generator: torch.Generator | None = None
) -> Tensor:
    """The end of the flow through z, with fresh noise up to s: a step for `samplers.sample` (their algorithm 1)."""
    end = consistent(z, t)
    alpha, sigma = scales(schedule_of(consistent), s)
    return expand(alpha, end) * end + expand(sigma, end) * noise_like(end, generator)


def loss(
    student: Denoiser, z: Tensor, t: Tensor, end: Tensor, weighting: str = "x", **conditions: Tensor | None
) -> Loss:
    """w(lambda) ||f(z, t) - end||^2 / (values per sample); their weight is 1, "x". z, end: (b, ...), t: (b,)."""
    error = (student(z, t, **conditions) - end).square().flatten(1).mean(1)
    per_sample = loss_weight(weighting, t, student.schedule).to(error) * error
    return Loss(per_sample.mean(), per_sample, student.schedule.log_snr(t))


class ConsistencyDistillation(ProgressiveDistillation):
    """What `training.Trainer` learns for a recipe with objective="consistency".

    The levels are those of progressive distillation: student.steps of them, t = i/N, and student.teacher_steps of the
    teacher from one to the next.
    """

    def __call__(self, denoiser: Denoiser, average: Denoiser, batch: Batch) -> Loss:
        """The loss of a batch; the end that it learns is where the moving average says that the flow ends."""
        z = diffuse(batch.video, batch.t, denoiser.schedule, batch.noise)
        s = before(batch.t, self.student.steps)
        with torch.no_grad():
            lower = self.end(z, batch.t, s, batch.conditions)
            # At s = 0 the boundary holds exactly, whatever noise a truncated schedule has left there.
            ends = average(lower, s, **batch.conditions).to(lower)
            ends = torch.where(expand(s, lower) > 0, ends, lower)
        return loss(denoiser, z, batch.t, ends, self.weighting, **batch.conditions)


class ExactConsistency:
    """(z, t) -> the end of the flow through z, exactly: of a `GaussianVideo`, or a `GaussianMixture` in one dimension.

    Raises BadType for other worlds, BadArgument for a mixture in more dimensions.
    """

    def __init__(self, world: GaussianVideo | GaussianMixture, schedule: Schedule) -> None:
        if not isinstance(world, GaussianVideo | GaussianMixture):
            raise BadType(f"world: expected a GaussianVideo or GaussianMixture, got {type(world).__name__}")
        if isinstance(world, GaussianMixture) and world.means.shape[1] != 1:
            raise BadArgument(f"world: expected a mixture in 1 dimension, got {world.means.shape[1]}")
        self.world, self.schedule = world, schedule

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        """Like z: videos (b, 1, f, h, w), or points (b, 1)."""
        alpha, sigma = (expand(value, z.double()).double() for value in scales(self.schedule, t))
        if isinstance(self.world, GaussianVideo):
            return self._shrunk(z, alpha.reshape(-1, 1), sigma.reshape(-1, 1))
        rank = cdf(self.world, z.double(), alpha, sigma)
        return quantile(self.world, rank).to(z.dtype)

    def _shrunk(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        world: GaussianVideo = self.world  # type: ignore[assignment]
        variances, axes = torch.linalg.eigh(world.covariance)
        variances = variances.clamp(min=0)
        along = (z.flatten(1).double() - alpha * world.mean) @ axes
        scale = (variances / (variances * alpha**2 + sigma**2)).sqrt()
        return (world.mean + (scale * along) @ axes.T).reshape(z.shape).to(z.dtype)


def cdf(world: GaussianMixture, z: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0) -> Tensor:
    """P(z_t <= z) of a mixture in one dimension, (b, 1) like z, float64."""
    spread = (world.covariances[:, 0, 0] * torch.as_tensor(alpha) ** 2 + torch.as_tensor(sigma) ** 2).sqrt()  # (., k)
    ranks = torch.special.ndtr((z.double() - alpha * world.means[:, 0]) / spread)
    return (world.weights * ranks).sum(-1, keepdim=True)


def quantile(world: GaussianMixture, rank: Tensor, rounds: int = 80) -> Tensor:
    """The x of which P(data <= x) = rank, (b, 1), float64, by bisection: 80 rounds are more than float64 has digits."""
    spread = world.covariances[:, 0, 0].sqrt()
    low = (world.means[:, 0] - 10 * spread).min().expand(rank.shape)
    high = (world.means[:, 0] + 10 * spread).max().expand(rank.shape)
    for _ in range(rounds):
        middle = (low + high) / 2
        under = cdf(world, middle) < rank
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (low + high) / 2


check_types(globals())
