r"""Progressive distillation: a student does in one DDIM step what its teacher does in two.

Salimans & Ho 2022, "Progressive distillation for fast sampling of diffusion models". N is the number of steps that the
student takes, and it learns at their times t = i / N alone. Two steps of the teacher, t -> t - 1/(2N) -> t'' = t - 1/N,
give z''. One step of the student from t lands there if its estimate x~ solves

    alpha'' x~ + (sigma'' / sigma) (z - alpha x~) = z'',
    x~ = (z'' - (sigma'' / sigma) z) / (alpha'' - (sigma'' / sigma) alpha)          (their algorithm 2; `target_x`)

Where variance is preserved, a step turns by an angle, z'' = cos(phi'' - phi) z + sin(phi'' - phi) v~, and what a
network that predicts v has to learn takes one division in place of two:

    v~ = (z'' - cos(phi'' - phi) z) / sin(phi'' - phi)                              (`target_v`)

At t'' = 0 there is no noise left: z'' is the teacher's last x_hat, and so is x~. The teacher may be guided: then the
student learns the guided answer, which took two or three calls, in one call as well (Meng et al. 2023, "On distillation
of guided diffusion models", do this first and halve the steps afterwards; here it is done with the first halving).
The student becomes the teacher of the next halving. z is real data with noise, as in all of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minivdm.core.denoiser import Conditional, Denoise, Denoiser, Loss, schedule_of
from minivdm.core.gaussian import diffuse, expand, ordered
from minivdm.core.schedules import Schedule, as_time
from minivdm.core.self_conditioning import takes_estimate
from minivdm.core.targets import loss_weight, stratified_times
from minivdm.guards import BadArgument, check_types, whole
from minivdm.tasks.conditions import answer
from minivdm.training.objectives import Batch, Student


class TooManySteps(BadArgument):
    """More steps than the student has learnt to take, or steps between those that it knows."""


def scales(schedule: Schedule, t: Tensor | float) -> tuple[Tensor, Tensor]:
    """alpha and sigma at t, of t's shape, float64; exactly 1 and 0 at t = 0, where a truncated schedule has noise."""
    t = as_time(t)
    return schedule.alpha(t).where(t > 0, 1.0), schedule.sigma(t).where(t > 0, 0.0)


def step_to(z: Tensor, x_hat: Tensor, t: Tensor | float, s: Tensor | float, schedule: Schedule) -> Tensor:
    """The DDIM step from z_t to z_s along the estimate x_hat; x_hat itself at s = 0. t, s: scalar or (b,)."""
    s, t = ordered(s, t)
    (alpha, sigma), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    ratio = sigma_s / sigma
    return expand(ratio, z) * z + expand(alpha_s - ratio * alpha, z) * x_hat


def target_x(z: Tensor, after: Tensor, t: Tensor | float, s: Tensor | float, schedule: Schedule) -> Tensor:
    """x~, the estimate with which one DDIM step takes z at t to `after` at s; any schedule.

    z, after: (b, ...). t, s: scalar or (b,), s < t.
    """
    s, t = ordered(s, t)
    (alpha, sigma), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    ratio = sigma_s / sigma
    below = alpha_s - ratio * alpha
    return expand(1 / below, z) * after - expand(ratio / below, z) * z


def target_v(z: Tensor, after: Tensor, t: Tensor | float, s: Tensor | float, schedule: Schedule) -> Tensor:
    """v~ of the same estimate, x~ = cos(phi) z - sin(phi) v~, where variance is preserved.

    The only divisor is the sine of the angle between the two times, about pi / (2 N).
    """
    s, t = ordered(s, t)
    turn = _angle(schedule, s) - _angle(schedule, t)
    return expand(1 / turn.sin(), z) * after - expand(turn.cos() / turn.sin(), z) * z


def _angle(schedule: Schedule, t: Tensor) -> Tensor:
    """phi_t, and 0 at t = 0; BadArgument where variance is not preserved."""
    alpha, sigma = scales(schedule, t)
    if not torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha), atol=1e-9):
        raise BadArgument("schedule: expected alpha^2 + sigma^2 = 1, as an angle needs; `target_x` takes any schedule")
    return torch.atan2(sigma, alpha)


def walk(
    denoise: Denoise,
    z: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    steps: int = 2,
    renew: Callable[[Tensor], Denoise] | None = None,
) -> Tensor:
    """`steps` DDIM steps of a teacher, even in t, from z at t to s; each sample between times of its own.

    renew: from the last x_hat to the denoiser of the next step, for a teacher that takes its last estimate.
    """
    whole("steps", steps)
    s, t = ordered(s, t)
    for k in range(steps):
        now, then = t + (s - t) * k / steps, s if k + 1 == steps else t + (s - t) * (k + 1) / steps
        x_hat = denoise(z, now)
        z = step_to(z, x_hat, now, then, schedule_of(denoise))
        denoise = denoise if renew is None else renew(x_hat)
    return z


def student_times(n: int, steps: int, schedule: Schedule, generator: torch.Generator | None = None) -> Tensor:
    """n times out of 1/N, 2/N, ..., 1, (n,), float64: one in each n-th part of them, as in all of training."""
    t = stratified_times(n, schedule, generator)
    u = (t - schedule.t_min) / (schedule.t_max - schedule.t_min)
    return ((u * whole("steps", steps)).floor().clamp(max=steps - 1) + 1) / steps


def before(t: Tensor, steps: int) -> Tensor:
    """t - 1/N, and exactly 0 where that is 0 but for rounding, which would leave a sliver of noise."""
    s = t - 1 / steps
    return s.where(s > 1e-9, 0.0)


def loss(
    student: Denoiser,
    z: Tensor,
    t: Tensor,
    after: Tensor,
    s: Tensor,
    weighting: str = "truncated_snr",
    **conditions: Tensor | None,
) -> Loss:
    """w(lambda) ||x~ - x_hat||^2 / (values per sample): how far the student's one step ends from `after`.

    z: (b, ...) at t (b,). after: where the teacher got to, at s (b,). weighting: max(e^lambda, 1) by default, their
    "truncated SNR" (section 4); on the error of v that is max(e^lambda, 1) / (1 + e^lambda), between 1/2 and 1.
    """
    output, (skip, out, _) = student.predict(z, t, **conditions)
    schedule = student.schedule
    if student.target == "v":
        goal = target_v(z, after, t, s, schedule)
    else:
        goal = expand(1 / out, z) * (target_x(z, after, t, s, schedule) - expand(skip, z) * z)
    error = (output - goal).square().flatten(1).mean(1)  # ||F - F*||^2 = ||x~ - x_hat||^2 / out^2
    per_sample = (loss_weight(weighting, t, schedule) * out**2).to(error) * error
    return Loss(per_sample.mean(), per_sample, schedule.log_snr(t))


class ProgressiveDistillation:
    """What `training.Trainer` learns for a recipe with objective="progressive".

    teacher: a denoiser with `.given`. student: how many steps, and how the teacher is asked. weighting: see `loss`.
    """

    def __init__(self, teacher: Conditional, student: Student, weighting: str) -> None:
        self.teacher, self.student, self.weighting = teacher, student, weighting
        if student.own_estimate and not takes_estimate(teacher):
            raise BadArgument("student.own_estimate: expected false, as the teacher takes no estimate, got true")

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        """The times at which the student is asked, (n,)."""
        return student_times(n, self.student.steps, self.teacher.schedule, generator)

    def __call__(self, denoiser: Denoiser, average: Denoiser, batch: Batch) -> Loss:
        """The loss of a batch."""
        z = diffuse(batch.video, batch.t, denoiser.schedule, batch.noise)
        s = before(batch.t, self.student.steps)
        with torch.no_grad():
            after = self.end(z, batch.t, s, batch.conditions)
        return loss(denoiser, z, batch.t, after, s, self.weighting, **batch.conditions)

    def end(self, z: Tensor, t: Tensor, s: Tensor, conditions: dict[str, Any]) -> Tensor:
        """Where the teacher's steps take z. Its first estimate, if it gets one, is its plain answer at the same z."""
        how = self.student

        def guided(estimate: Tensor | None) -> Denoise:
            return answer(self.teacher, conditions, how.weight, how.temporal_weight, estimate=estimate)

        if not how.own_estimate:
            return walk(guided(None), z, t, s, how.teacher_steps)
        first = self.teacher.given(**conditions)(z, t)
        return walk(guided(first.clamp(-1, 1)), z, t, s, how.teacher_steps, lambda x_hat: guided(x_hat.clamp(-1, 1)))


class AffineStudent:
    """The best student where all steps of the teacher are affine in z, as in `exact.GaussianVideo`: no training needed.

    At each of its times the loss is 0 for one affine map, which is known from its values at 0 and at the unit vectors.
    (z, t) -> x_hat at t = 1/N, ..., 1; TooManySteps elsewhere. It can be the teacher of the next student.
    """

    def __init__(self, teacher: Denoise, shape: tuple[int, ...], steps: int, teacher_steps: int = 2) -> None:
        self.schedule, self.steps = schedule_of(teacher), whole("steps", steps)
        d = math.prod(shape)
        probes = torch.cat([torch.zeros(1, d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)])
        z = probes.reshape(d + 1, *shape)
        found = []
        for t in torch.arange(1, steps + 1, dtype=torch.float64) / steps:
            s = before(t, steps)
            x = target_x(z, walk(teacher, z, t, s, teacher_steps), t, s, self.schedule).flatten(1)
            found.append((x[0], x[1:] - x[0]))
        self.offsets, self.maps = (torch.stack(part) for part in zip(*found, strict=True))  # (N, d), (N, d, d)

    def __call__(self, z: Tensor, t: Tensor | float) -> Tensor:
        """x_hat, like z."""
        place = as_time(t) * self.steps
        i = place.round().long()
        if bool((abs(place - i) > 1e-6).any()) or bool((i < 1).any()) or bool((i > self.steps).any()):
            raise TooManySteps(f"t: expected multiples of 1/{self.steps}, as this student knows, got {t}")
        flat = z.flatten(1).double()
        maps = self.maps[i - 1]  # d d, or b d d
        moved = (flat[:, None] @ maps)[:, 0] if maps.ndim == 3 else flat @ maps
        return (self.offsets[i - 1] + moved).reshape(z.shape).to(z.dtype)


check_types(globals())
