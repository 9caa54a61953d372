"""Checks of assignment 12: what a number says of a video, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from minivdm import exact
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


# ---- reader score --------------------------------------------------------------------------------------------


def _score_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(f"{name_of(dtype)}, 6 clips and 10 classes", ((2 * video(g, 6, 10)).softmax(1).to(dtype),))
    yield Case("7 clips and 3 classes", (video(g, 7, 3).softmax(1),))
    yield Case("one clip alone", (video(g, 1, 10).softmax(1),))
    certain = torch.eye(10, dtype=torch.float64)[[3, 3, 3, 1, 8]]
    yield Case("a reader that is certain, so that other probabilities are 0", (certain,))
    yield Case("all clips read alike", (video(g, 1, 10).softmax(1).expand(4, 10),))


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


def _score(p: Tensor) -> Tensor:
    return (_entropy(p.mean(0)) - _entropy(p).mean()).exp()


reader_score = Check(
    "reader_score",
    _score,
    _score_cases,
    [
        Wrong(
            lambda p: _entropy(p.mean(0)) - _entropy(p).mean(),
            "that is the mean divergence itself; the score is its exponential, from 1 to the number of classes.",
        ),
        Wrong(
            lambda p: _entropy(p.mean(0)).exp(),
            "you have exp H(c) alone: it rewards a varied set, but does not ask whether single clips are clear.",
        ),
        Wrong(
            lambda p: (-_entropy(p).mean()).exp(),
            "you have exp(-H(c|x)) alone: it rewards clear clips, but not a varied set.",
        ),
        Wrong(
            lambda p: ((_entropy(p.mean(0)) - _entropy(p).mean()) / p.shape[1]).exp(),
            "a divergence is a sum over the classes; you average over them.",
        ),
        Wrong(
            lambda p: ((_entropy(p.mean(0)) - _entropy(p).mean()) * len(p)).exp(),
            "you add the divergences of all clips up; the exponent is their mean over the clips.",
        ),
        Wrong(
            lambda p: (p.mean(0) * (p.mean(0).log() - p.log())).sum(1).mean().exp(),
            "your divergence is the other way round: KL(p(c|x) || p(c)) weighs the logarithms by p(c|x).",
        ),
        Wrong(
            lambda p: (p * (p.log() - p.mean(0).log())).sum(1).mean().exp(),
            "0 log 0 counts as 0 (its limit), but a computer makes NaN of it: a class that is certainly absent may "
            "not spoil the sum.",
        ),
    ],
)


# ---- SSIM ----------------------------------------------------------------------------------------------------


def _gaussian_window(size: int, width: float, dtype: torch.dtype = torch.float64) -> Tensor:
    tap = torch.exp(-((torch.arange(size, dtype=torch.float64) - size // 2) ** 2) / (2 * width**2))
    return (torch.outer(tap, tap) / tap.sum() ** 2).to(dtype)


def _ssim_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        x = uniform(g, -1, 1, 2, 16, 14)
        y = (x + 0.4 * video(g, *x.shape)).clamp(-1, 1)
        yield Case(
            f"{name_of(dtype)}, the Gaussian window of 11x11 of (12.3)",
            (y.to(dtype), x.to(dtype), _gaussian_window(11, 1.5, dtype)),
        )
    x = uniform(g, -1, 1, 1, 8, 9)
    y = (0.6 * x + 0.3 * video(g, *x.shape) - 0.1).clamp(-1, 1)
    window = uniform(g, 0.1, 1, 3, 5)
    yield Case("one frame, a window of 3x5 with uneven weights", (y, x, window / window.sum()))
    x, y = (-1 + uniform(g, 0, 0.1, 3, 7, 7) for _ in range(2))
    uniform_window = torch.full((7, 7), 1 / 49, dtype=torch.float64)
    yield Case("nearly black frames, a uniform window of 7x7 that just fits", (y, x, uniform_window))
    x = uniform(g, -1, 1, 2, 6, 6)
    yield Case("a frame with itself", (x.clone(), x, _gaussian_window(5, 1.0)))


def _ssim(
    x: Tensor,
    y: Tensor,
    window: Tensor,
    *,
    zero: float = -1.0,
    one: float = 1.0,
    c1: float = 0.01**2,
    c2: float = 0.03**2,
    pad: bool = False,
    centred: bool = True,
    deviations: bool = False,
    join: Callable[[Tensor, Tensor], Tensor] = torch.mul,
) -> Tensor:
    """By windows cut out one by one, and sums of squares around their means; the options make mistakes."""
    cut = []
    for image in (x, y):
        image = (image - zero) / (one - zero)
        if pad:
            image = functional.pad(image, (window.shape[1] // 2,) * 2 + (window.shape[0] // 2,) * 2)
        cut.append(image.unfold(1, window.shape[0], 1).unfold(2, window.shape[1], 1))

    def mean(windows: Tensor) -> Tensor:
        return (windows * window).sum((-2, -1), keepdim=True)

    (a, b), (m_a, m_b) = cut, map(mean, cut)
    var_a, var_b, cov = (mean(u * v) for u, v in ((a - m_a, a - m_a), (b - m_b, b - m_b), (a - m_a, b - m_b)))
    if not centred:
        var_a, var_b, cov = mean(a * a), mean(b * b), mean(a * b)
    if deviations:
        var_a, var_b = var_a.sqrt(), var_b.sqrt()
    light = (2 * m_a * m_b + c1) / (m_a**2 + m_b**2 + c1)
    structure = (2 * cov + c2) / (var_a + var_b + c2)
    return join(light, structure).flatten(1).mean(1)


ssim = Check(
    "ssim",
    _ssim,
    _ssim_cases,
    [
        Wrong(
            lambda x, y, w: _ssim(x, y, w, zero=0.0),
            "your pixels still go from -1 to 1; the constants c1 and c2 are made for pixels in [0, 1].",
        ),
        Wrong(
            lambda x, y, w: _ssim(x, y, w, c1=0.01, c2=0.03),
            "your constants are 0.01 and 0.03; (12.3) has their squares.",
        ),
        Wrong(
            lambda x, y, w: _ssim(x, y, w, c1=0.03**2, c2=0.01**2),
            "c1 and c2 are exchanged: the smaller one belongs to the means.",
        ),
        Wrong(
            lambda x, y, w: _ssim(x, y, w, centred=False),
            "your variances and covariance are mean squares and products; take the means out of them.",
        ),
        Wrong(
            lambda x, y, w: _ssim(x, y, w, deviations=True), "you have standard deviations where (12.3) has variances."
        ),
        Wrong(
            lambda x, y, w: _ssim(x, y, w, pad=True),
            "you also count windows that hang over the edge; average over the places where the window lies inside "
            "the frame.",
        ),
        Wrong(
            lambda x, y, w: _ssim(x, y, w.flip(0, 1)),
            "your window is flipped, as in a convolution of mathematics; w_ij belongs to the pixel i rows below and j "
            "columns right of the corner.",
        ),
        Wrong(lambda x, y, w: _ssim(x, y, w.T), "your window is transposed: its first index counts rows."),
        Wrong(
            lambda x, y, w: _ssim(x, y, w, join=lambda light, structure: structure),
            "the first factor of (12.3), that of the means, is missing.",
        ),
    ],
)


# ---- Fréchet distance ----------------------------------------------------------------------------------------


def _frechet_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        x, y = video(g, 9, 4) @ video(g, 4, 4) + 0.5, video(g, 7, 4)
        yield Case(f"{name_of(dtype)}, 9 and 7 clips, 4 features", (x.to(dtype), y.to(dtype)))
    yield Case("one feature", (2 * video(g, 6, 1), video(g, 5, 1) + 1))
    yield Case("3 and 5 clips, 40 features", (video(g, 3, 40), 0.5 * video(g, 5, 40) - 0.2))
    x = video(g, 6, 3)
    yield Case("a set with itself", (x, x.clone()))
    yield Case("a set, moved", (x, x + torch.tensor([1.0, -2.0, 0.5]).double()))


def _law(x: Tensor) -> exact.Law:
    x = x.double()
    return exact.Law(x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1]))


def _frechet(x: Tensor, y: Tensor) -> Tensor:
    """By means and covariances, written out."""
    return torch.tensor(exact.wasserstein(_law(x), _law(y)) ** 2, dtype=x.dtype)


def _thin(
    cross: Callable[[Tensor, Tensor], Tensor] = lambda a, b: torch.linalg.svdvals(a @ b.mT).sum(),
    less: int = 1,
    centred: bool = True,
    share: float = 2.0,
) -> Callable[[Tensor, Tensor], Tensor]:
    """cross: of the two centred and scaled sets -> the last trace; less: what is taken off n."""

    def answer(x: Tensor, y: Tensor) -> Tensor:
        a, b = ((part - part.mean(0) * centred) / (len(part) - less) ** 0.5 for part in (x, y))
        away = (x.mean(0) - y.mean(0)).square().sum()
        return away + a.square().sum() + b.square().sum() - share * cross(a, b)

    return answer


frechet_of_features = Check(
    "frechet_of_features",
    _frechet,
    _frechet_cases,
    [
        Wrong(
            lambda x, y: _thin()(x, y).clamp(min=1e-12).sqrt(),
            "you took the root at the end: (12.7) is the squared distance.",
        ),
        Wrong(
            _thin(less=0),
            "you divide by n; an unbiased covariance divides by n − 1.",
        ),
        Wrong(_thin(centred=False), "you forgot to take the mean of a set from its features before you multiply them."),
        Wrong(
            _thin(lambda a, b: (a @ b.mT).square().sum()),
            "you have the trace of the product of the covariances; the root of that matrix is missing: singular "
            "values, not their squares.",
        ),
        Wrong(
            _thin(lambda a, b: (a @ b.mT).square().sum().sqrt()),
            "you took the root of a trace; (12.7) has the trace of a root: the *sum* of the singular values.",
        ),
        Wrong(
            _thin(lambda a, b: (a.square().sum(0) * b.square().sum(0)).sqrt().sum()),
            "you use the variances alone, as if the features were independent: (12.7) has the root of a matrix.",
        ),
        Wrong(
            _thin(share=1.0),
            "the last trace of (12.7) comes twice: the distance of a set to itself must be 0.",
        ),
        Wrong(
            _thin(lambda a, b: torch.linalg.svdvals(a.mT @ a @ b.mT @ b).sum()),
            "these are singular values of the product of the covariances; the root asks for those of one factor each.",
        ),
        Wrong(
            lambda x, y: _thin()(x, y) - (x.mean(0) - y.mean(0)).square().sum(),
            "the distance of the two means is missing.",
        ),
    ],
    relative=1e-4,
)


# ---- with pen: the Fréchet distance from samples, in one dimension -------------------------------------------


def _expected_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)

    def few(low: float, high: float) -> Tensor:
        return uniform(g, low, high, 3)

    numbers = torch.randint(20, 200, (2, 3), generator=g).double()
    zero, one = torch.zeros(3).double(), torch.ones(3).double()
    yield Case("one and the same white law, n = m", (zero, one, one, numbers[0], numbers[0]))
    yield Case("one and the same law, n and m differ", (zero, *(few(1.5, 3),) * 2, *numbers))
    yield Case("means that differ", (few(0.5, 1), *(few(1.5, 3),) * 2, *numbers))
    yield Case("deviations that differ", (zero, few(0.5, 1), few(1.5, 3), *numbers))
    yield Case("all differs", (few(-1, -0.5), few(1.5, 3), few(0.5, 1), *numbers))


def _expected(gap: Tensor, s1: Tensor, s2: Tensor, n: Tensor, m: Tensor) -> Tensor:
    return gap**2 + (s1 - s2) ** 2 + _of_means(s1, s2, n, m) + _of_deviations(s1, s2, n, m)


def _of_means(s1: Tensor, s2: Tensor, n: Tensor, m: Tensor) -> Tensor:
    return s1**2 / n + s2**2 / m


def _of_deviations(s1: Tensor, s2: Tensor, n: Tensor, m: Tensor) -> Tensor:
    return s1 * s2 * (1 / n + 1 / m) / 2


expected_frechet = Check(
    "expected_frechet",
    _expected,
    _expected_cases,
    [
        Wrong(
            lambda gap, s1, s2, n, m: gap**2 + (s1 - s2) ** 2 + 1.5 * (s1**2 / n + s2**2 / m),
            "right where the deviations are equal. You took E σ̂ for σ: the sample deviation is a little too small on "
            "average, and that does not cancel where the laws differ.",
        ),
        Wrong(
            lambda gap, *law: _expected(gap, *law) - _of_deviations(*law),
            "you have the noise of the means alone; the sample deviations fluctuate too.",
        ),
        Wrong(
            lambda gap, *law: _expected(gap, *law) - _of_means(*law),
            "you have the noise of the deviations alone; the sample means fluctuate too.",
        ),
        Wrong(
            lambda gap, *law: _expected(gap, *law) + _of_deviations(*law),
            "the part of the deviations is twice too large: the variance of σ̂ is about σ²/2n, not σ²/n.",
        ),
        Wrong(
            lambda gap, *law: _of_means(*law) + _of_deviations(*law),
            "you have the bias alone; the distance of the two laws themselves belongs to the expectation too.",
        ),
        Wrong(
            lambda gap, s1, s2, n, m: _expected(gap, s1, s2, n, m) - s1 * s2 / (8 * n * m),
            "you kept a term in 1/(nm): the answer is to be of first order in 1/n and 1/m.",
        ),
        Wrong(
            lambda gap, s1, s2, n, m: _expected(gap, s1, s2, m, n),
            "n and m are exchanged: the first law, that of s1, gave n samples.",
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
