"""Checks of assignment 17: clips as tokens, blocks that start as nothing, packs, windows, what is told by channel."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, video

FLOATS = (torch.float64, torch.float32)


# ---- patches -------------------------------------------------------------------------------------------------


def _token_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, patches of 2x4x3", (video(g, 2, 3, 4, 8, 9, dtype=dtype), (2, 4, 3)))
    yield Case("one channel, patches of one frame", (video(g, 1, 1, 3, 4, 8), (1, 2, 2)))
    yield Case("a patch that is the whole clip", (video(g, 2, 2, 2, 4, 6), (2, 4, 6)))


def _tokens(
    clip: Tensor,
    patch: Sequence[int],
    places: Sequence[int] = (2, 3, 4),
    values: Sequence[int] = (1, 5, 6, 7),
    flat: bool = True,
) -> Tensor:
    """Axes after unfolding: b c f' h' w' pt ph pw."""
    parts = clip.unfold(2, patch[0], patch[0]).unfold(3, patch[1], patch[1]).unfold(4, patch[2], patch[2])
    made = parts.permute(0, *places, *values).flatten(4)
    return made.flatten(1, 3) if flat else made


def _tokens_but(**changes: Any) -> Callable[..., Tensor]:
    return lambda clip, patch: _tokens(clip, patch, **changes)


to_tokens = Check(
    "to_tokens",
    _tokens,
    _token_cases,
    [
        Wrong(_tokens_but(places=(2, 4, 3)), "your tokens go down columns; within a frame they go along rows."),
        Wrong(_tokens_but(places=(3, 4, 2)), "in your order frames change fastest; they change slowest."),
        Wrong(_tokens_but(values=(5, 6, 7, 1)), "within a token your channels come last; they come first."),
        Wrong(_tokens_but(flat=False), "you keep the grid; tokens stand in one sequence, (b, n, values)."),
        Wrong(
            lambda clip, patch: clip.reshape(len(clip), -1, clip.shape[1] * math.prod(patch)),
            "you cut the memory into pieces: a patch's next row lies elsewhere. Split axes, permute, merge.",
        ),
    ],
)


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


# ---- packing -------------------------------------------------------------------------------------------------


def _pack_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, three clips", ([video(g, n, 4, dtype=dtype) for n in (3, 5, 2)],))
    yield Case("one clip", ([video(g, 4, 3)],))
    yield Case("clips of one token", ([video(g, 1, 2) for _ in range(3)],))


def _packed(clips: Sequence[Tensor], slip: str = "") -> tuple[Tensor, Tensor, Tensor]:
    total = sum(len(clip) for clip in clips)
    mask = torch.zeros(total, total, dtype=torch.bool)
    place = torch.zeros(total, dtype=torch.long)
    start = 0
    for k, clip in enumerate(clips):
        end = start + len(clip)
        mask[start:end, start:end] = True
        place[start:end] = torch.arange(len(clip)) + (start if slip == "goes on" else 0)
        if slip == "clip":
            place[start:end] = k
        if slip == "past":
            mask[start:end, :start] = True
        start = end
    if slip == "all":
        mask = torch.ones_like(mask)
    if slip == "causal":
        mask = mask.tril()
    if slip == "turned":
        mask = ~mask
    if slip == "one":
        place = place + 1
    return torch.cat(list(clips)), mask, place


def _packed_but(slip: str) -> Callable[..., Any]:
    return lambda clips: _packed(clips, slip)


pack = Check(
    "pack",
    _packed,
    _pack_cases,
    [
        Wrong(_packed_but("goes on"), "your places go on from clip to clip; each clip counts from 0."),
        Wrong(_packed_but("clip"), "your third answer is which clip a token is of; asked is its place in its clip."),
        Wrong(_packed_but("one"), "your places count from 1; they count from 0."),
        Wrong(_packed_but("all"), "your mask lets clips look at each other."),
        Wrong(_packed_but("past"), "your mask lets a clip look at the clips before it."),
        Wrong(_packed_but("causal"), "your mask lets a token look only back; within its clip it sees all."),
        Wrong(_packed_but("turned"), "your mask is True where tokens may not look; True is where they may."),
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


# ---- frames that are given -----------------------------------------------------------------------------------


def _known_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        yield Case(
            f"{name_of(dtype)}, 0, 2 and 5 of 5 frames", (video(g, 3, 2, 5, 2, 3, dtype=dtype), torch.tensor([0, 2, 5]))
        )
    yield Case("one clip, one frame, one channel", (video(g, 1, 1, 4, 3, 3), torch.tensor([1])))
    yield Case("two clips of one frame", (video(g, 2, 3, 1, 2, 2), torch.tensor([1, 0])))


def _known(x: Tensor, counts: Tensor, slip: str = "") -> Tensor:
    b, _, f, h, w = x.shape
    out, mask = torch.zeros_like(x), torch.zeros(b, 1, f, h, w, dtype=x.dtype)
    for k, count in enumerate(counts.tolist()):
        count = {"all alike": int(counts[0]), "one more": min(f, count + 1)}.get(slip, count)
        part = slice(f - count, f) if slip == "last" else slice(0, count)
        out[k, :, part], mask[k, :, part] = x[k, :, part], 1
    if slip == "turned":
        mask = 1 - mask
    if slip == "unmasked":
        out = x
    if slip == "no mask":
        return out
    if slip == "mask first":
        return torch.cat((mask, out), 1)
    if slip == "per channel":
        return torch.cat((out, mask.expand_as(x)), 1)
    return torch.cat((out, mask), 1)


def _known_but(slip: str) -> Callable[..., Tensor]:
    return lambda x, counts: _known(x, counts, slip)


known_condition = Check(
    "known_condition",
    _known,
    _known_cases,
    [
        Wrong(_known_but("no mask"), "the mask is missing: zeros could be a frame, too."),
        Wrong(_known_but("unmasked"), "your frames that are not given can still be seen."),
        Wrong(_known_but("mask first"), "your mask comes first; it is the last channel."),
        Wrong(_known_but("per channel"), "one channel of mask is enough, whatever the clip's channels."),
        Wrong(_known_but("turned"), "your mask is 1 where nothing is given."),
        Wrong(_known_but("last"), "you give the last frames; the first ones are given."),
        Wrong(
            _known_but("all alike"), "you give every clip as many frames as the first one; each has a count of its own."
        ),
        Wrong(_known_but("one more"), "you give one frame too many: a count of 0 gives nothing."),
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
