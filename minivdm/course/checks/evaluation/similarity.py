"""Check of exercise 12.3: SSIM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video


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


@dataclass(frozen=True)
class _Slip:
    """What a student may get wrong about SSIM; by default nothing."""

    zero: float = -1.0
    one: float = 1.0
    c1: float = 0.01**2
    c2: float = 0.03**2
    pad: bool = False
    centred: bool = True
    deviations: bool = False
    join: Callable[[Tensor, Tensor], Tensor] = torch.mul


NO_SLIP = _Slip()


def _ssim(
    x: Tensor,
    y: Tensor,
    window: Tensor,
    *,
    slip: _Slip = NO_SLIP,
) -> Tensor:
    """By windows cut out one by one, and sums of squares around their means."""
    cut = []
    for image in (x, y):
        image = (image - slip.zero) / (slip.one - slip.zero)
        if slip.pad:
            image = functional.pad(image, (window.shape[1] // 2,) * 2 + (window.shape[0] // 2,) * 2)
        cut.append(image.unfold(1, window.shape[0], 1).unfold(2, window.shape[1], 1))

    def mean(windows: Tensor) -> Tensor:
        return (windows * window).sum((-2, -1), keepdim=True)

    (a, b), (m_a, m_b) = cut, map(mean, cut)
    var_a, var_b, cov = (mean(u * v) for u, v in ((a - m_a, a - m_a), (b - m_b, b - m_b), (a - m_a, b - m_b)))
    if not slip.centred:
        var_a, var_b, cov = mean(a * a), mean(b * b), mean(a * b)
    if slip.deviations:
        var_a, var_b = var_a.sqrt(), var_b.sqrt()
    light = (2 * m_a * m_b + slip.c1) / (m_a**2 + m_b**2 + slip.c1)
    structure = (2 * cov + slip.c2) / (var_a + var_b + slip.c2)
    return slip.join(light, structure).flatten(1).mean(1)


def _but(**changes: Any) -> Callable[..., Tensor]:
    return lambda *given: _ssim(*given, slip=_Slip(**changes))


ssim = Check(
    "ssim",
    _ssim,
    _ssim_cases,
    [
        Wrong(
            _but(zero=0.0),
            "your pixels still go from -1 to 1; the constants c1 and c2 are made for pixels in [0, 1].",
        ),
        Wrong(
            _but(c1=0.01, c2=0.03),
            "your constants are 0.01 and 0.03; (12.3) has their squares.",
        ),
        Wrong(
            _but(c1=0.03**2, c2=0.01**2),
            "c1 and c2 are exchanged: the smaller one belongs to the means.",
        ),
        Wrong(
            _but(centred=False),
            "your variances and covariance are mean squares and products; take the means out of them.",
        ),
        Wrong(_but(deviations=True), "you have standard deviations where (12.3) has variances."),
        Wrong(
            _but(pad=True),
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
            _but(join=lambda light, structure: structure),
            "the first factor of (12.3), that of the means, is missing.",
        ),
    ],
)
