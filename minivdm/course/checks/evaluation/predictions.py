"""Checks of exercises 12.1 and 12.6: many predictions of one clip, and the better of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video
from minivdm.measure import metrics

# ---- PSNR ----------------------------------------------------------------------------------------------------


def _psnr_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        x = uniform(g, -1, 1, 2, 1, 3, 4, 4)
        size = uniform(g, 0.02, 0.6, 3, 2, 1, 3, 1, 1)  # some samples, and some frames, are worse than others
        yield Case(
            f"{name_of(dtype)}, three samples of two clips", ((x + size * video(g, 3, *x.shape)).to(dtype), x.to(dtype))
        )
    x = uniform(g, -1, 1, 3, 3, 4, 2, 5)
    noise = uniform(g, 0.1, 1, 2, 3, 1, 4, 1, 1) * video(g, 2, *x.shape)
    yield Case("two samples, three channels, frames of 2x5", (x + 0.3 * noise, x))
    x = uniform(g, -1, 1, 1, 1, 1, 4, 4)
    yield Case("one sample of one clip of one frame", (x[None] + 0.1 * video(g, 1, *x.shape), x))
    x = uniform(g, -1, 1, 2, 1, 2, 4, 4)
    samples = x + 0.2 * video(g, 4, *x.shape)
    samples[2, 1] = x[1]
    yield Case("four samples, one of them perfect", (samples, x))


def _psnr(samples: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    best = torch.stack([metrics.psnr(sample, target, of="clip") for sample in samples]).amax(0)
    return best, metrics.psnr(samples.mean(0), target, of="clip")


def _decibels(
    error: Callable[[Tensor], Tensor] = lambda d: d.square().flatten(-4).mean(-1),
    log: Callable[[Tensor], Tensor] = lambda e: -10 * e.log10(),
    best: Callable[[Tensor], Tensor] = lambda decibels: decibels.amax(0),
    scale: float = 2.0,
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """error: of a difference (..., c, f, h, w); best: of the PSNRs (k, b)."""

    def answer(samples: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        one, mean = (log(error((part - target) / scale)) for part in (samples, samples.mean(0)))
        return best(one), mean

    return answer


def _by_frames(samples: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    of_samples = torch.stack([metrics.psnr(sample, target) for sample in samples])  # k b f
    return of_samples.mean(2).amax(0), metrics.psnr(samples.mean(0), target).mean(1)


def _best_frames(samples: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    errors = ((samples - target) / 2).square().mean((2, 4, 5))  # k b f
    return -10 * errors.amin(0).mean(1).log10(), _psnr(samples, target)[1]


def _mean_error(samples: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    errors = ((samples - target) / 2).square().flatten(2).mean(2)
    return _psnr(samples, target)[0], -10 * errors.mean(0).log10()


psnr_of_samples = Check(
    "psnr_of_samples",
    _psnr,
    _psnr_cases,
    [
        Wrong(
            _decibels(scale=1.0),
            "you are 6.02 dB too low: these pixels go from -1 to 1, but PSNR compares pixels in [0, 1], where "
            "differences are half as large.",
        ),
        Wrong(
            _decibels(lambda d: d.square().flatten(-4).sum(-1)),
            "you add the squares of a clip up; PSNR takes their mean.",
        ),
        Wrong(
            _decibels(log=lambda e: 10 * e.log10(), best=lambda decibels: decibels.amin(0)),
            "the sign is wrong: a smaller error should give a larger PSNR.",
        ),
        Wrong(
            _decibels(log=lambda e: -20 * e.log10()),
            "you have 20 decibels per factor 10 of the squared error; 20 belongs to its root.",
        ),
        Wrong(
            _decibels(log=lambda e: -10 * e.log()),
            "you use the natural logarithm; decibels are counted with the logarithm to base 10.",
        ),
        Wrong(
            _decibels(best=lambda decibels: decibels.amin(0)),
            "your first result is the worst of the samples: the best one has the largest PSNR.",
        ),
        Wrong(_decibels(best=lambda decibels: decibels.mean(0)), "your first result is the mean over the samples."),
        Wrong(
            _decibels(best=lambda decibels: decibels.amax(0).mean().expand(decibels.shape[1])),
            "you average over the clips; one number for each clip is asked for.",
        ),
        Wrong(
            _decibels(best=lambda decibels: decibels[decibels.mean(1).argmax()]),
            "you choose one sample for the whole batch; the best one of k is chosen for each clip.",
        ),
        Wrong(
            _best_frames,
            "you choose the best sample frame by frame; then the prediction is put together from several futures.",
        ),
        Wrong(
            _mean_error,
            "your second result is the PSNR of the samples' mean error; it is the *samples* that are averaged, and "
            "their average is one prediction.",
        ),
        Wrong(
            _by_frames,
            "you average the PSNRs of the frames, (12.1); asked is the PSNR of the clip's mean error, (12.2).",
        ),
        Wrong(
            lambda samples, target: _psnr(samples, target)[::-1],
            "the two results are exchanged: the best of k first.",
        ),
    ],
)


# ---- with pen: the best of two -------------------------------------------------------------------------------


def _best_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    one = torch.tensor(1.0).double()
    yield Case("tau = 1, the model draws from the true law", (one, uniform(g, 0.5, 3)))
    yield Case("tau = 0, every sample is the mean of all futures", (torch.zeros(()).double(), uniform(g, 0.5, 3)))
    yield Case("several tau below and above 1, variance 1", (uniform(g, 0.2, 2, 5), one))
    yield Case("several tau, variance c", (uniform(g, 0.2, 2, 5), uniform(g, 1.5, 3)))
    yield Case("float32", (uniform(g, 0.2, 2, 3).float(), uniform(g, 1.5, 3).float()))


def _best(
    tau: Tensor,
    variance: Tensor,
    *,
    half: float = 0.5,
    sum_: Callable[[Tensor], Tensor] = lambda u: 4 + 2 * u,
    difference: Callable[[Tensor], Tensor] = lambda u: 2 * u,
    share: float = 2 / math.pi,
) -> Tensor:
    u = tau**2
    return variance * (1 + u - half * share * (difference(u) * sum_(u)).sqrt())


best_of_two = Check(
    "best_of_two",
    _best,
    _best_cases,
    [
        Wrong(
            lambda tau, c: _best(tau, c, half=0.0),
            "that is the error of one sample: choosing the better of two must take something off.",
        ),
        Wrong(
            lambda tau, c: _best(tau, c, half=1.0),
            "the smaller of two numbers is their mean less half of their distance; the half is missing.",
        ),
        Wrong(
            lambda tau, c: _best(tau, c, sum_=lambda u: 2 + 2 * u, difference=lambda u: 2 + 2 * u),
            "you took the errors of the two samples for independent; both contain the same x.",
        ),
        Wrong(
            lambda tau, c: _best(tau, c, sum_=lambda u: 2 + 2 * u),
            "the factor 2x - y1 - y2 contains 2x, whose variance is four times that of x.",
        ),
        Wrong(
            lambda tau, c: _best(tau, c, share=1.0),
            "a Gaussian of variance v has the mean size sqrt(2v/π), not sqrt(v).",
        ),
        Wrong(
            lambda tau, c: _best(tau, c, share=math.sqrt(2 / math.pi)),
            "two independent Gaussians are multiplied: each of them brings its own sqrt(2/π).",
        ),
        Wrong(
            lambda tau, c: _best(tau.sqrt(), c),
            "you took τ for the ratio of the variances; it is that of the standard deviations.",
        ),
    ],
)
