"""Checks of assignment 09: the pieces of a training step, and what they do to its noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, Denoiser, LinearSchedule, Schedule, diffuse, expand, v_from_eps, v_from_x
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video
from minivdm.course.checks.training_loop import train as train

# ---- times ---------------------------------------------------------------------------------------------------


def _offset_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for n, dtype in ((8, torch.float64), (5, torch.float32)):
        yield Case(f"{name_of(dtype)}, {n} clips", (uniform(g, 0.55, 0.95).to(dtype), n))
    yield Case("a small number, 4 clips", (uniform(g, 0.01, 0.2), 4))
    yield Case("one clip", (uniform(g, 0, 1), 1))
    yield Case("u = 0, 3 clips", (torch.zeros((), dtype=torch.float64), 3))


def _offset(u: Tensor, n: int) -> Tensor:
    """One after the other, each an n-th after the one before."""
    times = [u]
    for k in range(1, n):
        time = u + k / n
        times.append(time - 1 if time >= 1 else time)
    return torch.stack(times)


def _numbers(u: Tensor, n: int) -> Tensor:
    return torch.arange(n, dtype=u.dtype)


offset_times = Check(
    "offset_times",
    _offset,
    _offset_cases,
    [
        Wrong(
            lambda u, n: u + _numbers(u, n) / n, "some of your times lie beyond 1: what runs over comes in again at 0."
        ),
        Wrong(
            lambda u, n: (u + _numbers(u, n) / n).clamp(max=1.0),
            "your times stop at 1, and several are the same there; what runs over comes in again at 0.",
        ),
        Wrong(
            lambda u, n: (u + _numbers(u, n)) / n,
            "your k-th time always lies in the k-th part, so that a clip's time depends on its place in the batch; "
            "here each time by itself is uniform on all of [0, 1).",
        ),
        Wrong(
            lambda u, n: _offset(u, n).sort().values,
            "you sort the times: then the last clip of a batch is always the noisiest.",
        ),
        Wrong(
            lambda u, n: (u + torch.linspace(0, 1, n, dtype=u.dtype)) % 1,
            "linspace(0, 1, n) has its last point at 1, and n − 1 gaps: neighbours are 1/n apart.",
        ),
        Wrong(lambda u, n: u + 0 * _numbers(u, n), "all clips get the same time."),
        Wrong(
            lambda u, n: (u + (_numbers(u, n) + 1) / n) % 1,
            "you begin one part too late: the first clip's time is u itself.",
        ),
        Wrong(lambda u, n: _numbers(u, n) / n, "your times do not depend on u: most noise levels are never seen."),
        Wrong(lambda u, n: (u - _numbers(u, n) / n) % 1, "you go the other way round: time k is k/n *after* u."),
    ],
)


# ---- the loss ------------------------------------------------------------------------------------------------


class _Network:
    """Something that depends on both, sample by sample, with two parameters."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.parameters = tuple(torch.tensor(p, dtype=dtype, requires_grad=True) for p in (0.4, 0.05))

    def __call__(self, z: Tensor, log_snr: Tensor) -> Tensor:
        if log_snr.dtype != z.dtype or z.dtype != self.parameters[0].dtype:
            raise TypeError(f"the network wants z and log_snr in the dtype of x, got {z.dtype} and {log_snr.dtype}")
        level = log_snr.reshape(-1, *[1] * (z.ndim - 1))
        return self.parameters[0] * torch.sin(z) + self.parameters[1] * level * z


def _with_gradients(answer: Callable[..., Any], network: _Network, *rest: Any) -> Any:
    """A probe: the losses, and what their sum's gradient in the network's parameters is."""
    loss = answer(network, *rest)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        gradients = [torch.zeros_like(p) for p in network.parameters]
    else:
        gradients = list(torch.autograd.grad(loss.sum(), network.parameters, allow_unused=True, materialize_grads=True))
    return {"": loss, "its gradient in the network's two parameters": gradients}


def _blind(network: Any, *rest: Any) -> Tensor:
    with torch.no_grad():
        return _loss(network, *rest)


def _loss_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        x, noise = video(g, 3, 1, 2, 4, 4, dtype=dtype), video(g, 3, 1, 2, 4, 4, dtype=dtype)
        yield Case(
            f"{name_of(dtype)}, 3 clips", (_Network(dtype), x, noise, uniform(g, 0.05, 0.95, 3), CosineSchedule())
        )
    yield Case(
        "one clip, one frame, linear schedule",
        (
            _Network(torch.float64),
            video(g, 1, 2, 1, 3, 3),
            video(g, 1, 2, 1, 3, 3),
            uniform(g, 0.2, 0.8, 1),
            LinearSchedule(),
        ),
    )
    yield Case(
        "as many clips as columns",
        (
            _Network(torch.float64),
            video(g, 4, 1, 2, 4, 4),
            video(g, 4, 1, 2, 4, 4),
            uniform(g, 0.05, 0.95, 4),
            CosineSchedule(),
        ),
    )
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    yield Case(
        "points, t = 0 and t = 1", (_Network(torch.float64), video(g, 2, 3), video(g, 2, 3), ends, CosineSchedule())
    )


def _loss(network: Any, x: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The package's own loss."""
    return Denoiser(network, schedule, target="v").loss(x, t=t, noise=noise, weighting="v").per_sample


def _written(
    goal: Callable[..., Tensor] = v_from_eps,
    see: Callable[..., Tensor] = diffuse,
    level: Callable[..., Tensor] = lambda schedule, t: schedule.log_snr(t),
    reduce: Callable[[Tensor], Tensor] = lambda e: e.flatten(1).mean(1),
) -> Callable[..., Tensor]:
    """The loss from its parts; goal: (z, noise, alpha, sigma) -> target."""

    def answer(network: Any, x: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        z = diffuse(x, t, schedule, noise)
        output = network(see(x, t, schedule, noise), level(schedule, t).to(x.dtype))
        return reduce((output - goal(z, noise, schedule.alpha(t), schedule.sigma(t))).square())

    return answer


v_loss = Check(
    "v_loss",
    _loss,
    _loss_cases,
    [
        Wrong(
            _blind,
            "the value is right, but no gradient reaches the network's parameters: a loss under no_grad, or detached, "
            "teaches nothing.",
        ),
        Wrong(
            _written(goal=lambda z, e, a, s: -v_from_eps(z, e, a, s)),
            "your v has the wrong sign: v = alpha eps − sigma x.",
        ),
        Wrong(
            _written(goal=lambda z, e, a, s: 2 * expand(s.to(z), z) * e - z),  # alpha x is z less sigma e
            "alpha and sigma are exchanged in your v.",
        ),
        Wrong(_written(goal=lambda z, e, a, s: e), "you compare with the noise; the network is asked for v."),
        Wrong(
            _written(goal=lambda z, e, a, s: v_from_x(z, e, a, s)),
            "in your v the roles of x and the noise are exchanged: v is what z turns into as noise is turned up.",
        ),
        Wrong(_written(see=lambda x, t, schedule, noise: x), "your network looks at the clean clip."),
        Wrong(_written(level=lambda schedule, t: t), "your network is told t; its second argument is the log-SNR."),
        Wrong(
            _written(reduce=lambda e: e.flatten(1).sum(1)),
            "you add up the values of a clip; (9.1) is a mean over them, so that the loss does not grow with size.",
        ),
        Wrong(
            _written(reduce=lambda e: e.mean()),
            "you average over the batch as well; the loss of each clip is wanted, to be sorted by noise level.",
        ),
        Wrong(
            lambda network, x, noise, t, schedule: (
                (
                    network(
                        schedule.alpha(t).to(x.dtype) * x + schedule.sigma(t).to(x.dtype) * noise,
                        schedule.log_snr(t).to(x.dtype),
                    )
                    - schedule.alpha(t).to(x.dtype) * noise
                    + schedule.sigma(t).to(x.dtype) * x
                )
                .square()
                .flatten(1)
                .mean(1)
            ),
            "your scales run along the last axis; each belongs to a clip, so they need the shape (b, 1, …, 1).",
        ),
    ],
    probe=_with_gradients,
)


# ---- learning rate -------------------------------------------------------------------------------------------


def _rate_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    warmup, total = int(uniform(g, 800, 1200)), int(uniform(g, 9_000, 11_000))
    recipe = (2e-3, warmup, total, 0.02)
    yield Case("the very first clip", (0, *recipe))
    yield Case("halfway through the warm-up", (warmup // 2, *recipe))
    yield Case("the warm-up is over", (warmup, *recipe))
    yield Case("in the middle", (int(uniform(g, 0.3, 0.7) * total), *recipe))
    yield Case("the last clip", (total, *recipe))
    yield Case("longer than planned", (total + 500, *recipe))
    yield Case("without warm-up, down to zero", (total // 3, 1e-2, 0, total, 0.0))


def _rate(clips: int, peak: float, warmup: int, total: int, floor: float) -> float:
    if clips < warmup:
        return peak * (clips + 1) / warmup
    rest = max(0.0, 1 - (clips - warmup) / (total - warmup))
    return peak * (floor + (1 - floor) * math.sin(math.pi / 2 * rest) ** 2)  # sin² of half the angle


def _decayed(
    shape: Callable[[float], float],
    ramp: Callable[[int, int], float] = lambda n, w: (n + 1) / w,
    done: Callable[[int, int, int], float] | None = None,
) -> Callable[..., float]:
    """peak * shape(share of the decay that is done, floor), after the ramp."""

    def answer(clips: int, peak: float, warmup: int, total: int, floor: float) -> float:
        if clips < warmup:
            return peak * ramp(clips, warmup)
        share = min(1.0, (clips - warmup) / (total - warmup)) if done is None else done(clips, warmup, total)
        return peak * (floor + (1 - floor) * shape(share))

    return answer


def _half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


learning_rate = Check(
    "learning_rate",
    _rate,
    _rate_cases,
    [
        Wrong(
            _decayed(_half_cosine, ramp=lambda n, w: n / w),
            "your first step has the rate 0, and learns nothing: count the clip that is about to be seen.",
        ),
        Wrong(
            _decayed(_half_cosine, ramp=lambda n, w: (n + 1) // w),
            "your warm-up divides integers, //, which gives 0 until its last clip.",
        ),
        Wrong(
            lambda clips, peak, warmup, total, floor: (
                _rate(clips, peak, warmup, total, 0.0) * (1 - floor / peak) + (floor if clips >= warmup else 0.0)
            ),
            "you take `floor` for a rate; it is a share of the peak.",
        ),
        Wrong(
            _decayed(_half_cosine, done=lambda n, w, t: min(1.0, n / t)),
            "your cosine begins at clip 0; it begins where the warm-up ends.",
        ),
        Wrong(
            _decayed(_half_cosine, done=lambda n, w, t: (n - w) / (t - w)),
            "beyond the planned end your rate rises again with the cosine.",
        ),
        Wrong(
            _decayed(lambda share: math.cos(math.pi / 2 * share)),
            "this is a quarter of a cosine; (9.10) is half of one, flat at both ends.",
        ),
        Wrong(_decayed(lambda share: 1 - share), "your decay is a straight line."),
        Wrong(
            lambda clips, peak, warmup, total, floor: _rate(clips, peak, warmup, total, 0.0),
            "your rate falls to zero; it should end at the share `floor` of its peak.",
        ),
        Wrong(
            lambda clips, peak, warmup, total, floor: max(_rate(clips, peak, warmup, total, 0.0), peak * floor),
            "you cut the curve off at the floor; (9.10) squeezes the whole cosine between peak and floor.",
        ),
    ],
)


# ---- clipping the gradient -----------------------------------------------------------------------------------


def _gradient_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, three weights, too long",
            ([3 * video(g, 4, 3, dtype=dtype), video(g, 4, dtype=dtype), video(g, 2, 2, 3, dtype=dtype)], 1.0),
        )
    small = [0.05 * video(g, 4, 3), 0.05 * video(g, 4)]
    yield Case("short enough", (small, 10.0))
    yield Case("one weight, limit 0.3", ([video(g, 5)], 0.3))
    yield Case("all zero", ([torch.zeros(3, dtype=torch.float64)], 1.0))


def _clipped(gradients: list[Tensor], limit: float) -> list[Tensor]:
    """Without a division where nothing is to be done."""
    norm = torch.cat([part.flatten() for part in gradients]).square().sum().sqrt()
    return [part * (limit / norm) if norm > limit else part.clone() for part in gradients]


def _scaled(find: Callable[[Tensor, float], Any]) -> Callable[..., list[Tensor]]:
    """Every gradient times find(all values together, limit)."""
    return lambda gradients, limit: [
        part * find(torch.cat([other.flatten() for other in gradients]), limit) for part in gradients
    ]


clip_gradients = Check(
    "clip_gradients",
    _clipped,
    _gradient_cases,
    [
        Wrong(
            lambda gradients, limit: [_clipped([part], limit)[0] for part in gradients],
            "you clip each weight's gradient by itself, which changes the direction of the step; the norm is that of "
            "all of them together.",
        ),
        Wrong(
            lambda gradients, limit: [part.clamp(-limit, limit) for part in gradients],
            "you clip the values; then large components shrink and small ones do not, and the direction changes.",
        ),
        Wrong(
            _scaled(lambda all_, limit: limit / all_.norm().clamp(min=1e-30)),
            "you lengthen short gradients as well: the limit is an upper one.",
        ),
        Wrong(
            _scaled(lambda all_, limit: min(1.0, float(limit / all_.square().sum().clamp(min=1e-30)))),
            "you divide by the squared norm; take its root.",
        ),
        Wrong(
            _scaled(lambda all_, limit: min(1.0, float(limit / all_.abs().sum().clamp(min=1e-30)))),
            "your norm is the sum of sizes; the root of the sum of squares is meant.",
        ),
        Wrong(
            lambda gradients, limit: [
                part / (norm := sum(other.square().sum() for other in gradients).sqrt()) * norm.clamp(max=limit)
                for part in gradients
            ],
            "where all gradients are zero you divide by zero.",
        ),
    ],
    new=True,
)


# ---- averaging the weights -----------------------------------------------------------------------------------


def _average_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, two weights, half-life of 20 steps",
            (
                [video(g, 3, 2, dtype=dtype), video(g, 4, dtype=dtype)],
                [video(g, 3, 2, dtype=dtype), video(g, 4, dtype=dtype)],
                20.0,
            ),
        )
    yield Case("half-life of one step", ([video(g, 5)], [video(g, 5)], 1.0))
    yield Case("half-life of 700 steps", ([video(g, 2, 2)], [video(g, 2, 2)], 700.0))


def _averaged(decay: Callable[[float], float]) -> Callable[..., list[Tensor]]:
    return lambda average, weights, half_life: [
        decay(half_life) * m + (1 - decay(half_life)) * w for m, w in zip(average, weights, strict=True)
    ]


ema_update = Check(
    "ema_update",
    _averaged(lambda h: 0.5 ** (1 / h)),
    _average_cases,
    [
        Wrong(
            _averaged(lambda h: 1 - 0.5 ** (1 / h)),
            "decay and its complement are exchanged: one step should change an average over many steps a little.",
        ),
        Wrong(
            _averaged(lambda h: 1 - 1 / h),
            "this decay is right for a *mean* life of so many steps: after a half-life a half is left, not 1/e.",
        ),
        Wrong(
            _averaged(lambda h: math.exp(-1 / h)),
            "after so many steps your average has kept 1/e of the old value, and not a half.",
        ),
        Wrong(_averaged(lambda h: 0.5**h), "your decay falls with the half-life; a longer one forgets more slowly."),
        Wrong(
            lambda average, weights, half_life: [
                0.5 ** (1 / half_life) * m + w for m, w in zip(average, weights, strict=True)
            ],
            "your two shares do not add up to one: the average would grow without bound.",
        ),
        Wrong(
            lambda average, weights, half_life: [(m + w) / 2 for m, w in zip(average, weights, strict=True)],
            "this is the plain mean of both, whatever the half-life.",
        ),
    ],
    new=True,
)


# ---- dropping labels -----------------------------------------------------------------------------------------


def _label_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        labels = torch.eye(10, dtype=dtype)[torch.arange(8) % 10]
        yield Case(f"{name_of(dtype)}, a label for each of 8 clips", (labels, uniform(g, 0, 1, 8), 0.4))
    per_frame = (video(g, 4, 3, 4) > 0).double() + 0.0
    yield Case("labels of 4 clips, frame by frame", (per_frame + 1, torch.tensor([0.1, 0.9, 0.3, 0.7]).double(), 0.5))
    square = torch.ones(4, 4, dtype=torch.float64)
    yield Case("one number is the probability itself", (square, torch.tensor([0.9, 0.1, 0.5, 0.2]).double(), 0.5))
    yield Case("never", (square.clone(), uniform(g, 0, 1, 4), 0.0))
    yield Case("always", (square.clone(), uniform(g, 0, 1, 4), 1.0))


def _kept(labels: Tensor, keep: Tensor) -> Tensor:
    return labels * keep.to(labels.dtype).reshape(-1, *[1] * (labels.ndim - 1))


drop_labels = Check(
    "drop_labels",
    lambda labels, u, probability: _kept(labels, u >= probability),
    _label_cases,
    [
        Wrong(
            lambda labels, u, p: _kept(labels, u < p),
            "you keep what should be dropped: a share p of the clips loses its label.",
        ),
        Wrong(
            lambda labels, u, p: _kept(labels, u > p),
            "a clip whose number equals the probability keeps its label: it loses it where the number is *below*.",
        ),
        Wrong(
            lambda labels, u, p: labels[u >= p], "you drop the clips; they stay in the batch, with a label of zeros."
        ),
        Wrong(
            lambda labels, u, p: labels * (u >= p).to(labels.dtype),
            "your mask runs along the last axis; it belongs to the clips, the first one.",
        ),
        Wrong(
            lambda labels, u, p: _kept(labels, u >= p) / max(1 - p, 1e-9),
            "you scale up what is left, as dropout does; a label that is kept stays what it is.",
        ),
        Wrong(
            lambda labels, u, p: torch.where(
                _kept(torch.ones_like(labels), u >= p) > 0, labels, -torch.ones_like(labels)
            ),
            "the unconditional model is asked for by a row of zeros.",
        ),
        Wrong(lambda labels, u, p: labels * float(u[0] >= p), "you decide once for the whole batch."),
    ],
)


# ---- three variances, with pen -------------------------------------------------------------------------------


def _count_cases(seed: int) -> Iterator[Case]:
    for n in (1, 2, 3 + seed % 5, 64):
        yield Case(f"n = {n}", (n,))


def _variances(n: int) -> tuple[float, float, float]:
    """By the law of total variance, and the mean of the shifted grid: a shift within one n-th."""
    centres = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    independent = 1 / 12 / n
    return independent, independent - float(centres.var(unbiased=False)) / n, (1 / n) ** 2 / 12


mean_time_variances = Check(
    "mean_time_variances",
    _variances,
    _count_cases,
    [
        Wrong(
            lambda n: (1 / 12, 1 / 12 / n**2, 1 / 12),
            "these are variances of single times; the mean of n independent ones has an n-th of it.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**2, 1 / 12 / n**2),
            "your second result is the variance of one time in its part; the mean of n of them has an n-th of it.",
        ),
        Wrong(
            lambda n: (1 / 12 / n**0.5, 1 / 12 / n**1.5, 1 / 12 / n),
            "variances fall like 1/n; it is standard deviations that fall like its root.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n, 1 / 12 / n**2),
            "your strata do not help: how wide is the interval that a stratified time is uniform on?",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**3, 1 / 12 / n**3),
            "your third result takes the times for independent; they all move with the same u, and averaging does not "
            "help.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**3, 1 / 12),
            "your third result is that of u itself; when u has moved by 1/n, the set of times is the same again.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**3, 0.0),
            "your third result is 0, as if the set of times did not move; it moves within one n-th.",
        ),
        Wrong(
            lambda n: (1 / 12 / n, 1 / 12 / n**2, 1 / 12 / n**3),
            "your second and third result are exchanged.",
        ),
        Wrong(
            lambda n: (1 / 3 / n, 1 / 3 / n**3, 1 / 3 / n**2),
            "the variance of a uniform number is the mean of its square less the square of its mean.",
        ),
        Wrong(
            lambda n: ((1 / 12 / n) ** 0.5, (1 / 12 / n**3) ** 0.5, (1 / 12 / n**2) ** 0.5),
            "these are standard deviations; the variances are asked for.",
        ),
    ],
)


# ---- the floor, with pen -------------------------------------------------------------------------------------


def _canvas_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    white = int(uniform(g, 60, 120))
    yield Case(f"{white} of 1024 pixels white", (white, 1024))
    yield Case("half of the pixels white", (8, 16))
    yield Case("all black", (0, 64))
    yield Case("one of four", (1, 4))


blind_floor = Check(
    "blind_floor",
    lambda white, pixels: 1 - (2 * white / pixels - 1) ** 2,
    _canvas_cases,
    [
        Wrong(
            lambda white, pixels: white / pixels * (1 - white / pixels),
            "right for values 0 and 1; here they are two apart, and a variance grows with the square.",
        ),
        Wrong(
            lambda white, pixels: 2 * white / pixels * (1 - white / pixels),
            "values −1 and 1 are twice as far apart as 0 and 1: the variance grows by the square of that.",
        ),
        Wrong(lambda white, pixels: 1.0, "this is the mean square; a blind guess at the mean does better."),
        Wrong(
            lambda white, pixels: (2 * white / pixels - 1) ** 2,
            "this is the square of the mean; the variance is what it leaves of the mean square.",
        ),
        Wrong(
            lambda white, pixels: 4 * white / pixels,
            "you forgot that black pixels are known no better than white ones.",
        ),
        Wrong(
            lambda white, pixels: (4 * white / pixels * (1 - white / pixels)) ** 0.5,
            "this is a standard deviation; the floor of a squared error is a variance.",
        ),
    ],
)
