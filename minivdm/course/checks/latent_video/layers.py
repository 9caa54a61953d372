"""Checks of exercises 16.4 and 16.5: layers over time, causal ones, and those put into an image model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, uniform, video

# ---- a causal convolution ------------------------------------------------------------------------------------


def _causal_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        given = video(g, 2, 3, 5, 2, 3, dtype=dtype), video(g, 4, 3, 3, dtype=dtype), 1
        yield Case(f"{name_of(dtype)}, three frames wide", given)
    yield Case("17 frames, every second one", (video(g, 1, 2, 17, 2, 2), video(g, 3, 2, 3), 2))
    yield Case("every fourth, kernel of 4", (video(g, 1, 2, 9, 3, 2), video(g, 2, 2, 4), 4))
    yield Case("a still", (video(g, 2, 2, 1, 3, 3), video(g, 2, 2, 3), 2))
    yield Case("a kernel of one frame", (video(g, 1, 2, 6, 2, 3), video(g, 3, 2, 1), 1))


def _causal(
    x: Tensor,
    kernel: Tensor,
    stride: int,
    pad: Callable[[int], tuple[int, int]] = lambda k: (k - 1, 0),
    flipped: bool = False,
    held: bool = False,
    first: int = 0,
) -> Tensor:
    before, after = pad(kernel.shape[2])
    wide = functional.pad(x, (0, 0, 0, 0, before, after))
    if held and before:
        wide[:, :, :before] = x[:, :, :1]
    weights = kernel.flip(2) if flipped else kernel
    made = functional.conv3d(wide, weights[..., None, None])
    return made[:, :, min(first, made.shape[2] - 1) :: stride]


causal_convolution = Check(
    "causal_convolution",
    _causal,
    _causal_cases,
    [
        Wrong(
            partial(_causal, pad=lambda k: ((k - 1) // 2, k - 1 - (k - 1) // 2)),
            "zeros stand on both sides: your frames see later ones. All of them belong before the first frame.",
        ),
        Wrong(partial(_causal, pad=lambda k: (0, k - 1)), "your zeros stand after the last frame; that looks ahead."),
        Wrong(
            partial(_causal, flipped=True),
            "your kernel is turned around in time: its last entry weighs the frame itself.",
        ),
        Wrong(partial(_causal, held=True), "you repeat the first frame before it; zeros are asked for."),
        Wrong(
            lambda x, kernel, stride: _causal(x, kernel, stride, first=stride - 1),
            "your stride starts late: frames 0, T, 2T, ... are kept, and a still has one.",
        ),
        Wrong(lambda x, kernel, stride: _causal(x, kernel, 1), "you keep every frame: where is the stride?"),
        Wrong(
            partial(_causal, pad=lambda k: (k, 0)),
            "you put one zero too many before: the clip gets longer, and frames see nothing of themselves.",
        ),
    ],
)


# ---- time in an image model ----------------------------------------------------------------------------------


class _Image:
    """A layer of an image model: (n, c, h, w) -> (n, c', h, w), not linear, places mixed."""

    def __init__(self, g: torch.Generator, inputs: int, outputs: int) -> None:
        self.weight = video(g, outputs, inputs)

    def __call__(self, frames: Tensor) -> Tensor:
        made = torch.einsum("oc,nchw->nohw", self.weight.to(frames), frames)
        return torch.tanh(made + 0.3 * made.roll(1, 3))


class _Change:
    """What a temporal layer adds: of the frame before and of the frame itself."""

    def __init__(self, size: float) -> None:
        self.size = size

    def __call__(self, h: Tensor) -> Tensor:
        return self.size * (h.roll(1, 2) - h.square())


def _align_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    layers = [_Image(g, 2, 3), _Image(g, 3, 3), _Image(g, 3, 1)]
    changes, a = [_Change(0.7), None, _Change(-1.2)], [float(v) for v in uniform(g, 0.1, 0.45, 3)]
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, three layers", (video(g, 2, 2, 3, 4, 5, dtype=dtype), layers, changes, a))
    yield Case(
        "four frames, the last layer without time", (video(g, 3, 2, 4, 2, 3), layers[:2], [changes[0], None], a[:2])
    )
    silent = (video(g, 2, 2, 3, 4, 4, dtype=torch.float32), layers[:2], [_Change(0.0), _Change(0.0)], [0.3, 0.9])
    yield Case("silent temporal layers, to the bit", silent)


def _align(
    x: Tensor,
    layers: Sequence[Callable[..., Tensor]],
    changes: Sequence[Callable[..., Tensor] | None],
    a: Sequence[float],
    join: Callable[[Tensor, Tensor, float], Tensor] = lambda h, d, a: h + (1 - a) * d,
    order: bool = True,
    late: bool = False,
) -> Tensor:
    b = len(x)
    for k, layer in enumerate(layers):
        f = x.shape[2]
        frames = x.permute(0, 2, 1, 3, 4) if order else x
        made = layer(frames.reshape(b * f, x.shape[1], *x.shape[3:]))
        h = made.view(b, f, *made.shape[1:]).permute(0, 2, 1, 3, 4)
        change = None if late and k + 1 < len(layers) else changes[k]
        x = h if change is None else join(h, change(h), a[k])
    return x


def _bits(answer: Callable[..., Any], x: Tensor, layers: Any, changes: Any, a: Any) -> dict[str, Any]:
    """A probe: the answer, and how many entries differ from the image model's where nothing is added."""
    made = answer(x, layers, changes, a)
    silent = all(change is None or change.size == 0 for change in changes)
    other = _align(x, layers, [None] * len(layers), a) if silent else made
    same = made.shape == other.shape
    return {"": made, "entries changed by layers that add nothing": int((made != other).sum()) if same else -1}


align = Check(
    "align",
    _align,
    _align_cases,
    [
        Wrong(
            partial(_align, join=lambda h, d, a: h + a * d),
            "a is the weight of the image model: at a = 1 the temporal layer says nothing.",
        ),
        Wrong(
            partial(_align, join=lambda h, d, a: a * h + (1 - a) * d),
            "a change is what is *added* to h, h' = h + change; you mix h with the change itself.",
        ),
        Wrong(
            partial(_align, join=lambda h, d, a: a * h + (1 - a) * (h + d)),
            "the sum is right, and rounds: a h + (1 − a) h is not h to the bit. Add what changes (16.9).",
        ),
        Wrong(partial(_align, join=lambda h, d, a: h + d), "where is a?"),
        Wrong(
            partial(_align, order=False),
            "you cut clips into frames without bringing frames before channels: your images mix both.",
        ),
        Wrong(
            partial(_align, late=True), "you add time after the last layer alone; it belongs after each that has one."
        ),
        Wrong(
            lambda x, layers, changes, a: _align(x, layers, [None] * len(layers), a),
            "your temporal layers are not used.",
        ),
    ],
    probe=_bits,
)
