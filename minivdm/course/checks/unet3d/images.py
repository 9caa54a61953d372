"""Checks of exercises 08.4 and 08.8: clips and images side by side, who may look at whom, and what each is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, integer, uniform

# ---- masks ---------------------------------------------------------------------------------------------------


def _mask_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    a, b = integer(g, 3, 5), integer(g, 2, 4)
    yield Case(f"a clip of {a} frames and {b} images", ([a], b, False))
    yield Case(f"clips of {b} and {a} frames, no images", ([b, a], 0, False))
    yield Case("one causal clip alone", ([a], 0, True))
    yield Case(f"clips of {a} and {b} frames and 3 images, causal", ([a, b], 3, True))
    yield Case("two clips of 8 frames and 4 images", ([8, 8], 4, False))
    yield Case("images alone", ([], b, False))
    yield Case("one clip of one frame", ([1], 0, True))


def _mask(clips: Sequence[int], images: int, causal: bool) -> Tensor:
    mask = torch.block_diag(*(torch.ones(n, n) for n in [*clips, *[1] * images])).bool()
    return mask.tril() if causal else mask


def _blind_images(clips: Sequence[int], images: int, causal: bool) -> Tensor:
    mask, inside = _mask(clips, images, causal), torch.arange(sum(clips) + images) < sum(clips)
    return mask & inside[:, None]


def _watching_images(clips: Sequence[int], images: int, causal: bool) -> Tensor:
    mask, inside = _mask(clips, images, causal), torch.arange(sum(clips) + images) < sum(clips)
    return mask | (~inside[:, None] & inside)


sequence_mask = Check(
    "sequence_mask",
    _mask,
    _mask_cases,
    [
        Wrong(
            lambda clips, n, causal: _mask([sum(clips)] if clips else [], n, causal),
            "frames of different clips see each other: you treat all clips as one.",
        ),
        Wrong(
            lambda clips, n, causal: _mask([*clips, n] if n else clips, 0, causal),
            "your images see each other; each of them is alone in the world.",
        ),
        Wrong(
            lambda clips, n, causal: _mask([sum(clips) + n], 0, causal),
            "you let everything in the sequence see everything: clips and images should not meet.",
        ),
        Wrong(_blind_images, "your images see nothing at all, not even themselves: their softmax would be 0 / 0."),
        Wrong(_watching_images, "your images look at the frames of the clips; they should see themselves alone."),
        Wrong(
            lambda clips, n, causal: _mask(clips, n, causal).mT,
            "your causal frames see the future: row i is the one that looks, column j the one that is looked at.",
        ),
        Wrong(lambda clips, n, causal: _mask(clips, n, False), "you take no notice of `causal`."),
        Wrong(
            lambda clips, n, causal: _mask(clips, n, False).tril(-1) if causal else _mask(clips, n, False),
            "your causal frames do not see themselves; the present is allowed.",
        ),
        Wrong(
            lambda clips, n, causal: ~_mask(clips, n, causal),
            "your mask is the wrong way round: True is where looking is allowed.",
        ),
    ],
)


# ---- a clip and images, weighed ------------------------------------------------------------------------------


def _weights_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    rho = float(uniform(g, 0.2, 0.9))
    yield Case("16 frames, 8 images", (16, 8, rho))
    yield Case("a short clip and many images", (integer(g, 3, 6), integer(g, 20, 40), rho))
    yield Case("no correlation: 24 independent pictures", (16, 8, 0.0))
    yield Case("rho = 1: the clip is one picture", (16, 4, 1.0))
    yield Case("no images", (16, 0, rho))
    yield Case("clips of one frame", (1, integer(g, 2, 6), rho))


def _weights(f: int, n: int, rho: float) -> tuple[float, float]:
    clip = f * (1 + (f - 1) * rho)  # variance of the sum of the clip's frames
    ratio = clip / f
    frame = 1 / (f + n * ratio)  # weight of a frame; that of an image is ratio times as large
    return ratio, frame**2 * clip + n * (ratio * frame) ** 2


def _equal(f: int, n: int, rho: float) -> float:
    return (f * (1 + (f - 1) * rho) + n) / (f + n) ** 2


best_weights = Check(
    "best_weights",
    _weights,
    _weights_cases,
    [
        Wrong(
            lambda f, n, r: (1.0, _equal(f, n, r)),
            "that is (8.12), where all weights are equal: pictures that repeat one another should count less.",
        ),
        Wrong(
            lambda f, n, r: (_weights(f, n, r)[0], _equal(f, n, r)),
            "your variance is still that of equal weights, (8.12): put the best ones into the sum of covariances.",
        ),
        Wrong(
            lambda f, n, r: (1 / _weights(f, n, r)[0], _weights(f, n, r)[1]),
            "your ratio is upside down: the weight of an image over that of a frame is asked for.",
        ),
        Wrong(
            lambda f, n, r: (_weights(f, n, r)[0], 1 / _weights(f, n, r)[1]),
            "your second result is the number of independent pictures that the average is worth; the variance is "
            "one over it.",
        ),
        Wrong(
            lambda f, n, r: (1 + f * r, 1 / (f / (1 + f * r) + n)),
            "each frame has f - 1 other frames of its clip, not f.",
        ),
        Wrong(
            lambda f, n, r: (f * _weights(f, n, r)[0], _weights(f, n, r)[1]),
            "your ratio is too large by a factor f: an image is to be compared with one frame, not with the clip.",
        ),
        Wrong(
            lambda f, n, r: (_weights(f, n, r)[0], _weights(f, n, r)[1] ** 0.5),
            "your second result is a standard deviation; the variance is asked for.",
        ),
        Wrong(
            lambda f, n, r: (1 + (f - 1) * r / 2, 1 / (f / (1 + (f - 1) * r / 2) + n)),
            "each covariance counts twice in the variance of a sum: there are f (f - 1) of them, not half as many.",
        ),
    ],
)
