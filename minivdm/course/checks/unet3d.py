"""Checks of assignment 08: convolutions and attention over space and time, positions, and masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from minivdm import networks
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video
from minivdm.course.checks.modules import Attention as Attention
from minivdm.course.checks.modules import ResidualBlock as ResidualBlock
from minivdm.course.checks.modules import UNet as UNet


def _integer(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=g))


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
    c = 8 * _integer(g, 2, 9)
    yield Case(f"{c} channels everywhere, 3x3x3", (c, c, 3, 3))
    yield Case("other channels out than in", (_integer(g, 10, 20), _integer(g, 30, 60), 3, 3))
    yield Case("a kernel of 5x3x3", (_integer(g, 30, 60), _integer(g, 10, 20), 5, 3))
    yield Case("a kernel of 3x7x7 on one channel", (1, _integer(g, 40, 90), 3, 7))
    yield Case("a kernel of one frame", (_integer(g, 5, 9), _integer(g, 11, 15), 1, 5))


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
            "your first stroke is the one over time: in (8.3) the one over space comes first and meets the c_in "
            "channels.",
        ),
        Wrong(
            lambda i, o, t, s: (t * s * i * o / (s * i + t * o), float(min(t * o, s * i))),
            "a kernel over space has side² places, not side.",
        ),
        Wrong(
            lambda i, o, t, s: (t * s**2 * i * o / (s**2 + t), _channels(i, o, t, s)[1]),
            "each stroke has weights for every pair of channels that it connects: M meets c_in in one and c_out in "
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


# ---- attention -----------------------------------------------------------------------------------------------


def _attention_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    joint = networks.joint_frame_mask(4, 2)
    for dtype in (torch.float64, torch.float32):
        q, k, v = (video(g, 3, 2, 6, 5, dtype=dtype) for _ in range(3))
        yield Case(f"{name_of(dtype)}, a clip of 4 frames and 2 images", (q, k, v, joint))
    q, k, v = (video(g, 2, 1, 4, 8) for _ in range(3))
    yield Case("each frame sees itself and the past", (q, k, v, torch.ones(4, 4, dtype=torch.bool).tril()))
    yield Case("every frame sees all", (q, k, v, torch.ones(4, 4, dtype=torch.bool)))
    yield Case("one frame", (*(video(g, 2, 3, 1, 4) for _ in range(3)), torch.ones(1, 1, dtype=torch.bool)))
    yield Case("logits of several hundred", (30 * q, 30 * k, v, torch.ones(4, 4, dtype=torch.bool)))
    past = torch.ones(4, 4, dtype=torch.bool).tril()
    yield Case("logits of several hundred, the past alone", (30 * q, -30 * q, v, past))


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    *,
    scale: Callable[[int], float] = lambda d: d**-0.5,
    axis: int = -1,
    hide: Callable[[Tensor, Tensor], Tensor] = lambda logits, mask: logits.masked_fill(~mask, -math.inf),
    after: Callable[[Tensor, Tensor], Tensor] = lambda weights, mask: weights,
) -> Tensor:
    logits = scale(q.shape[-1]) * (q @ k.mT)
    return after(hide(logits, mask).softmax(axis), mask) @ v


def _by_heads(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT


def _overflowing(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    share = (q @ k.mT / q.shape[-1] ** 0.5).exp() * mask
    return share / share.sum(-1, keepdim=True) @ v


temporal_attention = Check(
    "temporal_attention",
    lambda q, k, v, mask: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask),
    _attention_cases,
    [
        Wrong(
            lambda *given: _attention(*given, scale=lambda d: 1.0),
            "your logits are not divided by the root of d, the number of features of a head.",
        ),
        Wrong(
            lambda *given: _attention(*given, scale=lambda d: 1 / d),
            "you divide the logits by d; a sum of d independent products has standard deviation sqrt(d).",
        ),
        Wrong(
            lambda *given: _attention(*given, axis=-2),
            "your softmax runs over the queries: each query i distributes a weight of 1 over the keys j.",
        ),
        Wrong(lambda *given: _attention(*given, hide=lambda logits, m: logits), "you take no notice of the mask."),
        Wrong(
            lambda *given: _attention(*given, hide=lambda logits, m: logits.masked_fill(m, -math.inf)),
            "your mask is the wrong way round: True means that frame i may look at frame j.",
        ),
        Wrong(
            lambda *given: _attention(*given, hide=lambda logits, m: logits.masked_fill(~m, -100.0)),
            "−100 is a large negative logit only next to small ones: what must be hidden gets minus infinity.",
        ),
        Wrong(
            lambda q, k, v, m: _attention(q, k, v, m.mT),
            "your mask is transposed: row i is the frame that looks, column j the one that is looked at.",
        ),
        Wrong(
            lambda *given: _attention(*given, hide=lambda logits, m: logits * m),
            "a logit of 0 is not a weight of 0: what has to stand in the exponent?",
        ),
        Wrong(
            lambda *given: _attention(*given, hide=lambda logits, m: logits, after=lambda a, m: a * m),
            "you mask after the softmax: the weights that are left no longer add up to 1.",
        ),
        Wrong(
            lambda *given: _attention(*given, after=lambda a, m: a.mT),
            "your last sum runs over the queries: o_i is a mixture of the values v_j with the weights a_ij.",
        ),
        Wrong(
            _overflowing,
            "your exponentials overflow where logits are large: only differences of logits matter, and `softmax` "
            "takes the largest one away first.",
        ),
        Wrong(
            _by_heads,
            "your logits compare features with features: frames are the last axis but one, and the product sums "
            "over d.",
        ),
    ],
)


# ---- masks ---------------------------------------------------------------------------------------------------


def _mask_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    a, b = _integer(g, 3, 5), _integer(g, 2, 4)
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


# ---- rotary positions ----------------------------------------------------------------------------------------


def _rotate_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        places = torch.arange(5, dtype=dtype)
        yield Case(
            f"{name_of(dtype)}, frames 0 to 4, 8 features",
            (video(g, 3, 2, 5, 8, dtype=dtype), uniform(g, 0.1, 1.5, 4).to(dtype), places),
        )
    places = torch.tensor([0.0, 4.0, 8.0, 12.0], dtype=torch.float64)
    yield Case("every fourth frame, 6 features", (video(g, 2, 1, 4, 6), uniform(g, 0.1, 1.5, 3), places))
    yield Case(
        "frames 9, 2 and 3", (video(g, 1, 2, 3, 4), uniform(g, 0.1, 1.5, 2), torch.tensor([9.0, 2.0, 3.0]).double())
    )
    yield Case("a single pair of features", (video(g, 2, 1, 4, 2), uniform(g, 0.1, 1.5, 1), places))
    yield Case("one frame, the first", (video(g, 2, 2, 1, 4), uniform(g, 0.1, 1.5, 2), places[:1]))


def _rotate(x: Tensor, omega: Tensor, places: Tensor) -> Tensor:
    """As a product of complex numbers."""
    angle = places[:, None] * omega
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(turned).flatten(-2)


def _members(x: Tensor, omega: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    angle = places[:, None] * omega
    return x[..., 0::2], x[..., 1::2], angle.cos(), angle.sin()


def _joined(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second], -1).flatten(-2)


def _no_rotation(x: Tensor, omega: Tensor, places: Tensor) -> Tensor:
    a, b, cos, sin = _members(x, omega, places)
    return _joined(a * cos + b * sin, b * cos + a * sin)


def _overwritten(x: Tensor, omega: Tensor, places: Tensor) -> Tensor:
    a, b, cos, sin = _members(x, omega, places)
    a = a * cos - b * sin
    return _joined(a, b * cos + a * sin)


def _apart(x: Tensor, omega: Tensor, places: Tensor) -> Tensor:
    a, b, cos, sin = _members(x, omega, places)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


rotate = Check(
    "rotate",
    _rotate,
    _rotate_cases,
    [
        Wrong(
            lambda x, w, at: _rotate(x, -w, at), "you turn the other way round: R(θ) takes (1, 0) to (cos θ, sin θ)."
        ),
        Wrong(
            lambda x, w, at: networks.rotate(x, (at[:, None] * w).cos(), (at[:, None] * w).sin()),
            "your pair m is made of the features m and m + d/2, as in the lesson; here pairs are neighbours, 2m and "
            "2m + 1.",
        ),
        Wrong(
            _apart,
            "the pairs are turned, but you put all first members before all second ones: each belongs in its place.",
        ),
        Wrong(
            lambda x, w, at: _rotate(x, w, torch.arange(len(at)).to(at)),
            "you count the frames; `positions` says where each of them stands in the video.",
        ),
        Wrong(
            lambda x, w, at: _rotate(x, w, at - at[0]),
            "you count from the first of these frames; then a block does not know where in the video it stands.",
        ),
        Wrong(
            lambda x, w, at: _rotate(x, w, torch.ones_like(at)),
            "you turn all frames by the same angle; a frame turns by its position times ω, so that distances can be "
            "told.",
        ),
        Wrong(
            _overwritten,
            "you overwrite the first member of a pair before you compute the second: both are made of the old ones.",
        ),
        Wrong(_no_rotation, "that is no rotation, lengths change: one of the two sines needs a minus."),
        Wrong(
            lambda x, w, at: x * (at[:, None] * w).cos().repeat_interleave(2, -1),
            "you have the cosines alone; each member of a pair also receives the other one times a sine.",
        ),
        Wrong(
            lambda x, w, at: _rotate(x, w.flip(0), at),
            "your frequencies are in the other order: pair m turns with the m-th.",
        ),
    ],
)


# ---- relative positions --------------------------------------------------------------------------------------


def _shaw_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, 4 frames and a table for 4",
            (video(g, 3, 2, 4, 5, dtype=dtype), video(g, 3, 2, 4, 5, dtype=dtype), video(g, 7, 5, dtype=dtype)),
        )
    yield Case("3 frames and a table for 6", (video(g, 2, 1, 3, 8), video(g, 2, 1, 3, 8), video(g, 11, 8)))
    yield Case("one frame and a table for 3", (video(g, 2, 2, 1, 4), video(g, 2, 2, 1, 4), video(g, 5, 4)))
    yield Case("keys of 0: the table alone", (video(g, 1, 1, 5, 4), torch.zeros(1, 1, 5, 4).double(), video(g, 9, 4)))


def _row(i: int, j: int, f: int, reach: int) -> int:
    """Row of a_{j - i} in a table that reaches to distance `reach`, F - 1."""
    return j - i + reach


def _shaw(
    q: Tensor,
    k: Tensor,
    table: Tensor,
    *,
    row: Callable[[int, int, int, int], int] = _row,
    content: bool = True,
    scale: Callable[[int], float] = lambda d: d**-0.5,
    of_keys: bool = False,
) -> Tensor:
    f, d = q.shape[-2:]
    at = torch.tensor([[row(i, j, f, (len(table) - 1) // 2) for j in range(f)] for i in range(f)])
    met = k[..., None, :, :] if of_keys else q[..., :, None, :]
    return d**-0.5 * (q @ k.mT) * content + scale(d) * (met * table[at]).sum(-1)


shaw_logits = Check(
    "shaw_logits",
    _shaw,
    _shaw_cases,
    [
        Wrong(
            lambda q, k, a: _shaw(q, k, a, row=lambda i, j, f, reach: i - j + reach),
            "past and future are exchanged: the vector is that of j - i, key minus query.",
        ),
        Wrong(
            lambda q, k, a: _shaw(q, k, a, row=lambda i, j, f, reach: j - i),
            "you look up row j - i itself: negative numbers count from the end in Python, and distance 0 is in the "
            "middle of the table.",
        ),
        Wrong(
            lambda q, k, a: _shaw(q, k, a, row=lambda i, j, f, reach: j - i + f - 1),
            "your distance 0 is in row f - 1; a table for F frames has it in row F - 1, and F may be larger than f.",
        ),
        Wrong(
            lambda q, k, a: _shaw(q, k, a, row=lambda i, j, f, reach: abs(j - i) + reach),
            "you use the distance without its sign: then a frame cannot tell its past from its future.",
        ),
        Wrong(
            lambda q, k, a: _shaw(q, k, a, row=lambda i, j, f, reach: j + reach),
            "your vector depends on the key's frame j alone: that is an absolute position, not a distance.",
        ),
        Wrong(
            lambda q, k, a: _shaw(q, k, a, scale=lambda d: 1.0),
            "you add the term of positions after the division: the root of d divides all of (8.9).",
        ),
        Wrong(
            lambda q, k, a: _shaw(q, k, a, of_keys=True),
            "you multiply the vectors with the keys; in (8.9) they are added to the keys and meet the query.",
        ),
        Wrong(
            lambda q, k, a: q @ k.mT / q.shape[-1] ** 0.5,
            "your logits contain nothing of the table: as they stand, a film and its reversal are the same to them.",
        ),
        Wrong(lambda q, k, a: _shaw(q, k, a) * q.shape[-1] ** 0.5, "your logits are not divided by the root of d."),
        Wrong(
            lambda q, k, a: _shaw(q, k, a, content=False),
            "the term q · k is missing: the vectors are added to the keys, they do not replace them.",
        ),
    ],
)


# ---- a clip and images, weighed ------------------------------------------------------------------------------


def _weights_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    rho = float(uniform(g, 0.2, 0.9))
    yield Case("16 frames, 8 images", (16, 8, rho))
    yield Case("a short clip and many images", (_integer(g, 3, 6), _integer(g, 20, 40), rho))
    yield Case("no correlation: 24 independent pictures", (16, 8, 0.0))
    yield Case("rho = 1: the clip is one picture", (16, 4, 1.0))
    yield Case("no images", (16, 0, rho))
    yield Case("clips of one frame", (1, _integer(g, 2, 6), rho))


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
