"""Checks of exercises 17.1, 17.3 and 17.5: clips as tokens, packs of them, and what is told by channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, video

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
