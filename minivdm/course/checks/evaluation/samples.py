"""Checks of exercises 12.2, 12.4 and 12.5: scores of samples without a reference, the reader's and Fréchet's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm import exact
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

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
