"""Checks of exercises 17.2, 17.4 and 17.6: blocks that start as nothing, their modulation, attention in windows."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, video

# ---- adaLN-Zero ----------------------------------------------------------------------------------------------


def _bent(x: Tensor) -> Tensor:
    """A branch that is not linear and mixes tokens."""
    return torch.tanh(1.7 * x + 0.3) + 0.5 * x.flip(1).square()


def _block_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        x, e = 1 + 2 * video(g, 2, 5, 6, dtype=dtype), video(g, 2, 4, dtype=dtype)
        yield Case(
            f"{name_of(dtype)}, two clips", (x, e, video(g, 18, 4, dtype=dtype), video(g, 18, dtype=dtype), _bent)
        )
    yield Case(
        "at the start, A = 0",
        (video(g, 1, 3, 4), video(g, 1, 2), torch.zeros(12, 2).double(), torch.zeros(12).double(), _bent),
    )
    yield Case(
        "one token, no weights but biases",
        (video(g, 1, 1, 8), video(g, 1, 3), torch.zeros(24, 3).double(), video(g, 24), _bent),
    )


def _block(
    x: Tensor, e: Tensor, weight: Tensor, bias: Tensor, branch: Callable[[Tensor], Tensor], slip: str = ""
) -> Tensor:
    made = torch.einsum("ou,bu->bo", weight, e) + bias
    shift, scale, gate = made.view(len(x), 3, 1, -1).unbind(1)
    if slip == "exchanged":
        shift, scale = scale, shift
    if slip == "gate first":
        gate, shift, scale = shift, scale, gate
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    if slip == "unbiased":
        variance = variance * x.shape[-1] / max(1, x.shape[-1] - 1)
    normal = (x - mean) / (variance + 1e-6).sqrt()
    if slip == "no norm":
        normal = x
    if slip == "no mean":
        normal = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    size = scale if slip == "scale" else 1 + scale
    inside = size * (normal + shift) if slip == "late" else size * normal + shift
    found = branch(inside)
    if slip == "one":
        return x + (1 + gate) * found
    if slip == "all":
        return gate * (x + found)
    if slip == "lost":
        return gate * found
    if slip == "ungated":
        return x + found
    return x + gate * found


def _block_but(slip: str) -> Callable[..., Tensor]:
    return functools.partial(_block, slip=slip)


adaln_zero = Check(
    "adaln_zero",
    _block,
    _block_cases,
    [
        Wrong(_block_but("exchanged"), "shift and scale are exchanged: A e holds shift, scale, gate in this order."),
        Wrong(_block_but("gate first"), "A e holds shift, scale, gate in this order; you read the gate first."),
        Wrong(_block_but("scale"), "you multiply by s; (17.2) has 1 + s, so that s = 0 changes nothing."),
        Wrong(_block_but("late"), "you add the shift before scaling; (17.2) scales the norm alone."),
        Wrong(_block_but("no norm"), "the norm is missing."),
        Wrong(_block_but("no mean"), "your norm does not take the mean of a token's features away."),
        Wrong(_block_but("unbiased"), "your variance divides by c - 1; the norm of a layer divides by c."),
        Wrong(_block_but("one"), "your gate is 1 + g: the block would not start as the identity."),
        Wrong(_block_but("all"), "you gate the whole; x itself always passes."),
        Wrong(_block_but("lost"), "x is missing: the branch is added to it."),
        Wrong(_block_but("ungated"), "the gate is missing."),
    ],
)


# ---- AdaLN-LoRA ----------------------------------------------------------------------------------------------


def _lora_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        downs, ups = ([video(g, *shape, dtype=dtype) for _ in range(3)] for shape in ((2, 5), (12, 2)))
        yield Case(
            f"{name_of(dtype)}, four blocks, rank 2",
            (video(g, 3, 5, dtype=dtype), video(g, 12, 5, dtype=dtype), downs, ups),
        )
    yield Case("one block", (video(g, 2, 3), video(g, 6, 3), [], []))
    downs, ups = [video(g, 1, 4), video(g, 3, 4)], [video(g, 6, 1), video(g, 6, 3)]
    yield Case("three blocks, of ranks 1 and 3", (video(g, 1, 4), video(g, 6, 4), downs, ups))


def _lora(e: Tensor, first: Tensor, downs: Sequence[Tensor], ups: Sequence[Tensor], slip: str = "") -> Tensor:
    base = torch.einsum("ou,bu->bo", first, e)
    found, before = [base], base
    for down, up in zip(downs, ups, strict=True):
        change = torch.einsum("or,ru,bu->bo", up, down, e)
        if slip == "rank":
            change = change / len(down)
        here = {"alone": change, "product": base * change, "adds up": before + change}.get(slip, base + change)
        found.append(here)
        before = here
    if slip == "shared":
        found = [base] * len(found)
    if slip == "short":
        found = found[1:] or [base[:0]]
    if slip == "batch":
        return torch.stack(found, 1)
    return torch.stack(found)


def _lora_but(slip: str) -> Callable[..., Tensor]:
    return functools.partial(_lora, slip=slip)


lora_modulation = Check(
    "lora_modulation",
    _lora,
    _lora_cases,
    [
        Wrong(_lora_but("adds up"), "your corrections add up from block to block; each is added to A_1 alone."),
        Wrong(_lora_but("alone"), "your later blocks have the correction alone; A_1 is in all of them."),
        Wrong(_lora_but("shared"), "your blocks all have A_1; where are the corrections?"),
        Wrong(_lora_but("product"), "you multiply A_1 e by the correction; it is added."),
        Wrong(_lora_but("rank"), "you divide the correction by its rank; (17.8) does not."),
        Wrong(_lora_but("batch"), "your first axis is the batch; asked is (L, b, 6 c), a block first."),
        Wrong(_lora_but("short"), "the first block is missing: it has A_1, and no correction."),
    ],
)


# ---- attention in windows ------------------------------------------------------------------------------------


def _window_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)

    def case(
        name: str, grid: tuple[int, int, int], window: tuple[int, int, int], dtype: torch.dtype = torch.float64
    ) -> Case:
        n, sides = math.prod(grid), [2 * side - 1 for side in window]
        q, k, v = (video(g, n, 4, dtype=dtype) for _ in range(3))
        return Case(name, (q, k, v, grid, window, video(g, *sides, dtype=dtype)))

    for dtype in FLOATS:
        yield case(f"{name_of(dtype)}, windows of 2x2x2 in 4x4x2", (4, 4, 2), (2, 2, 2), dtype)
    yield case("a spatial window, one frame of 2x3", (3, 2, 3), (1, 2, 3))
    yield case("all frames, a part of the places", (3, 4, 2), (3, 2, 1))
    yield case("one window, full attention", (2, 2, 3), (2, 2, 3))


def _windowed(
    q: Tensor, k: Tensor, v: Tensor, grid: Sequence[int], window: Sequence[int], table: Tensor, slip: str = ""
) -> Tensor:
    """Window by window, token by token."""
    shape = (*grid, q.shape[-1])
    q, k, v = (part.reshape(shape) for part in (q, k, v))
    out, scale = torch.zeros(shape, dtype=q.dtype), q.shape[-1] ** (0.0 if slip == "unscaled" else -0.5)
    counts = [side // part for side, part in zip(grid, window, strict=True)]
    inner = list(itertools.product(*(range(side) for side in window)))

    def at(place: Sequence[int], corner: Sequence[int]) -> tuple[int, ...]:
        sides = zip(place, corner, counts, window, strict=True)
        return tuple(p * n + c if slip == "strided" else c * side + p for p, c, n, side in sides)

    def bias_of(one: Sequence[int], other: Sequence[int]) -> Tensor:
        sign = -1 if slip == "turned" else 1
        return table[tuple(sign * (i - j) + side - 1 for i, j, side in zip(one, other, window, strict=True))]

    bias = torch.stack([torch.stack([bias_of(one, other) for other in inner]) for one in inner])
    for corner in itertools.product(*(range(count) for count in counts)):
        places = [at(place, corner) for place in inner]
        one, two, three = (torch.stack([part[place] for place in places]) for part in (q, k, v))
        logits = one @ two.T * scale + (0 if slip == "no bias" else bias)
        if slip == "scaled bias":
            logits = (one @ two.T + bias) * scale
        weights = logits.softmax(0 if slip == "columns" else 1)
        if slip == "after":
            weights = (one @ two.T * scale).softmax(1) + bias
        for place, row in zip(places, weights @ three, strict=True):
            out[place] = row
    return out.flatten(0, 2)


def _windowed_but(slip: str) -> Callable[..., Tensor]:
    return functools.partial(_windowed, slip=slip)


window_attention = Check(
    "window_attention",
    _windowed,
    _window_cases,
    [
        Wrong(_windowed_but("no bias"), "the bias of offsets is missing."),
        Wrong(_windowed_but("turned"), "your offset is p_j - p_i; (17.7) has the query's place less the key's."),
        Wrong(_windowed_but("unscaled"), "the logits are not divided by sqrt(d)."),
        Wrong(_windowed_but("scaled bias"), "you divide the bias by sqrt(d) as well; it is added afterwards."),
        Wrong(_windowed_but("after"), "you add the bias after the softmax; it belongs to the logits."),
        Wrong(_windowed_but("columns"), "your softmax runs over queries; a query's weights over keys add up to 1."),
        Wrong(
            _windowed_but("strided"),
            "your windows take every n-th place; a window is a block of neighbours: same place // side.",
        ),
        Wrong(
            lambda q, k, v, *_: (q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v,
            "your tokens look at all others, without windows and without bias.",
        ),
    ],
)
