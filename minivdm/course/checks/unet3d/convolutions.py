"""Checks of exercises 08.1 and 08.2: a convolution of each frame, and the channels between two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from minivdm.course.checks.harness import Case, Check, Wrong, generator, integer, name_of, video

# ---- a convolution of each frame -----------------------------------------------------------------------------


def _conv_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        given = (video(g, 2, 4, 3, 5, 6, dtype=dtype), video(g, 7, 4, 3, 3, dtype=dtype), video(g, 7, dtype=dtype))
        yield Case(f"{name_of(dtype)}, two clips of 3 frames, 4 channels to 7", given)
    yield Case("as many frames as channels", (video(g, 2, 3, 3, 4, 4), video(g, 3, 3, 3, 3), video(g, 3)))
    yield Case("one clip, one channel", (video(g, 1, 1, 5, 4, 6), video(g, 2, 1, 3, 3), video(g, 2)))
    yield Case("images: one frame", (video(g, 3, 2, 1, 4, 4), video(g, 5, 2, 3, 3), video(g, 5)))


def _conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv3d(x, weight[:, :, None], bias, padding=(0, 1, 1))


def _merged(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.conv2d(rearrange(x, "b c f h w -> (b f) c h w"), weight, bias, padding=1)


def _unmoved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    b, c, f, h, w = x.shape
    y = functional.conv2d(x.reshape(b * f, c, h, w), weight, bias, padding=1)
    return rearrange(y, "(b f) c h w -> b c f h w", b=b)


per_frame_conv = Check(
    "per_frame_conv",
    _conv,
    _conv_cases,
    [
        Wrong(
            _unmoved,
            "you reshape the video without moving the frame axis beside the batch first: numbers of different "
            "channels and frames end up in one image.",
        ),
        Wrong(
            lambda x, k, b: functional.conv2d(x.reshape(-1, x.shape[1], *x.shape[3:]), k, b, padding=1).reshape(
                len(x), len(k), *x.shape[2:]
            ),
            "you reshape without moving axes, both ways: numbers of different channels and frames end up in one "
            "image, and the results in other places again.",
        ),
        Wrong(
            lambda x, k, b: _merged(x, k, b).reshape(len(x), len(k), *x.shape[2:]),
            "on the way back you reshape without moving axes: after the convolution the order is clip, frame, channel.",
        ),
        Wrong(
            lambda x, k, b: rearrange(_merged(x, k, b), "(f b) c h w -> b c f h w", b=len(x)),
            "you merge with the clip as the slow index, (b f), but take the frame for it on the way back, (f b).",
        ),
        Wrong(
            lambda x, k, b: rearrange(_merged(x, k, b), "(b f) c h w -> b f c h w", b=len(x)),
            "the last step is missing: channels belong before frames in a video (b, c, f, h, w).",
        ),
        Wrong(
            lambda x, k, b: rearrange(_merged(x, k, None), "(b f) c h w -> b c f h w", b=len(x)),
            "your result lacks the bias of each output channel.",
        ),
        Wrong(
            lambda x, k, b: functional.conv3d(x, k[:, :, None], b),
            "your frames shrink at the border: pad them with zeros, so that height and width stay.",
        ),
        Wrong(
            lambda x, k, b: _conv(x, k.flip(-1, -2), b),
            "your kernel is upside down: (8.1) meets V at r with x at p + r, not at p - r.",
        ),
    ],
)


# ---- channels between ----------------------------------------------------------------------------------------


def _channels_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    c = 8 * integer(g, 2, 9)
    yield Case(f"{c} channels everywhere, 3x3x3", (c, c, 3, 3))
    yield Case("other channels out than in", (integer(g, 10, 20), integer(g, 30, 60), 3, 3))
    yield Case("a kernel of 5x3x3", (integer(g, 30, 60), integer(g, 10, 20), 5, 3))
    yield Case("a kernel of 3x7x7 on one channel", (1, integer(g, 40, 90), 3, 7))
    yield Case("a kernel of one frame", (integer(g, 5, 9), integer(g, 11, 15), 1, 5))


def _channels(c_in: int, c_out: int, time: int, side: int) -> tuple[float, float]:
    rows, columns = time * c_out, side**2 * c_in  # of the kernel as a matrix
    return rows * columns / (rows + columns), float(min(rows, columns))


channels_between = Check(
    "channels_between",
    _channels,
    _channels_cases,
    [
        Wrong(
            lambda i, o, t, s: _channels(i, o, t, s)[::-1],
            "the two results are exchanged: the count of weights comes first, then the one that loses nothing.",
        ),
        Wrong(
            lambda i, o, t, s: (t * s**2 * i * o / (t * i + s**2 * o), _channels(i, o, t, s)[1]),
            "your first step is the one over time: in (8.3) the one over space comes first and meets the c_in "
            "channels.",
        ),
        Wrong(
            lambda i, o, t, s: (t * s * i * o / (s * i + t * o), float(min(t * o, s * i))),
            "a kernel over space has side² places, not side.",
        ),
        Wrong(
            lambda i, o, t, s: (t * s**2 * i * o / (s**2 + t), _channels(i, o, t, s)[1]),
            "each step has weights for every pair of channels that it connects: M meets c_in in one and c_out in "
            "the other.",
        ),
        Wrong(
            lambda i, o, t, s: (float(math.floor(_channels(i, o, t, s)[0])), _channels(i, o, t, s)[1]),
            "you round to a whole number of channels; the exact M is asked for.",
        ),
        Wrong(
            lambda i, o, t, s: (_channels(i, o, t, s)[0], float(t * o)),
            "M = time · c_out always loses nothing, but fewer may do: how large can the rank of a matrix be, by its "
            "rows and by its columns?",
        ),
        Wrong(
            lambda i, o, t, s: (_channels(i, o, t, s)[0], float(max(t * o, s**2 * i))),
            "the rank of a matrix is at most the smaller of its two sides, not the larger one.",
        ),
    ],
)
