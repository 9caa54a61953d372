"""Checks of exercises 08.6 and 08.7: rotary positions, and relative ones after Shaw."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from minivdm import networks
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

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
