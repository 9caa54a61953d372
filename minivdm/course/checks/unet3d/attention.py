"""Checks of exercises 08.3 and 08.10: attention over frames, as a function and as a layer of the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minivdm import networks
from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, video
from minivdm.course.checks.unet3d.probe import compared

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
            "your last sum runs over the queries: o_i is a mixture of the values v_j with the weights p_ij.",
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


# ---- attention over space, and over time ---------------------------------------------------------------------


def _layer_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)

    def x(b: int, f: int, c: int, h: int = 3, w: int = 4) -> Tensor:
        return video(g, b * f, c, h, w, dtype=torch.float32)

    past = torch.ones(1, 4, 4, dtype=torch.bool).tril()
    each = torch.stack([torch.ones(3, 3, dtype=torch.bool), torch.eye(3, dtype=torch.bool)])
    yield Case("over space, 2 heads", ((16, 8, "space"), (x(2, 3, 16), 3)))
    yield Case("over time, 2 heads", ((16, 8, "time"), (x(2, 5, 16), 5)))
    yield Case("over time, 1 head of 16, the past alone", ((16, 16, "time"), (x(1, 4, 16), 4, past)))
    yield Case("over time, a mask for each of two clips", ((8, 8, "time"), (x(2, 3, 8), 3, each)))
    yield Case("over space, one image", ((8, 4, "space"), (x(1, 1, 8), 1)))


class _Package(nn.Module):
    """The package has a class for each axis; both have the same weights."""

    def __init__(self, width: int, head_channels: int, axis: str) -> None:
        super().__init__()
        over_space = axis == "space"
        made = (networks.SpatialAttention if over_space else networks.TemporalAttention)(width, head_channels)
        self.norm, self.qkv, self.out = made.norm, made.qkv, made.out
        self.run = (lambda x, f, m: made(x)) if over_space else (lambda x, f, m: made(x, f, m))  # no part of it

    def forward(self, x: Tensor, frames: int, mask: Tensor | None = None) -> Tensor:
        return self.run(x, frames, mask)


@dataclass(frozen=True)
class _Slip:
    """What a student may get wrong about the layer; by default nothing."""

    skip: bool = True
    turn: bool = True
    scale: bool = True
    masked: bool = True
    other: bool = False
    norm: bool = True
    zero: bool = True
    values: bool = False
    reach: float = 128.0
    order: str = "b f"


def _layer(slip: _Slip) -> Callable[..., nn.Module]:
    """The layer, or one with a slip."""

    class Attention(nn.Module):
        def __init__(self, width: int, head_channels: int, axis: str) -> None:
            super().__init__()
            self.axis, self.d = axis, head_channels
            self.norm = nn.GroupNorm(8, width)
            self.qkv = nn.Conv2d(width, 3 * width, 1)
            self.out = nn.Conv2d(width, width, 1)
            if slip.zero:
                nn.init.zeros_(self.out.weight)
                nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

        def forward(self, x: Tensor, frames: int, mask: Tensor | None = None) -> Tensor:
            over_time = (self.axis == "time") != slip.other
            n, c, h, w = x.shape
            b, heads = n // frames, c // self.d
            parts = self.qkv(self.norm(x) if slip.norm else x)
            front = (b, frames) if slip.order == "b f" else (frames, b)
            parts = parts.reshape(*front, 3, heads, self.d, h, w)
            parts = parts if slip.order == "b f" else parts.transpose(0, 1)
            q, k, v = parts.permute(2, 0, 5, 6, 3, 1, 4)  # three b h w heads f d
            if not over_time:
                q, k, v = (p.permute(0, 4, 3, 1, 2, 5).flatten(3, 4) for p in (q, k, v))  # b f heads (h w) d
            if over_time and slip.turn:
                angle = networks.rotary_angles(torch.arange(frames), self.d, longest=slip.reach)
                q, k = (networks.rotate(p, angle.cos(), angle.sin()) for p in (q, k))
                v = networks.rotate(v, angle.cos(), angle.sin()) if slip.values else v
            logits = q @ k.mT * (self.d**-0.5 if slip.scale else 1.0)
            if over_time and slip.masked and mask is not None:
                logits = logits.masked_fill(~mask[:, None, None, None], -torch.inf)
            mixed = logits.softmax(-1) @ v
            if not over_time:
                mixed = mixed.unflatten(3, (h, w)).permute(0, 1, 2, 5, 3, 4)  # b f heads d h w
            else:
                mixed = mixed.permute(0, 4, 3, 5, 1, 2)
            mixed = mixed if slip.order == "b f" else mixed.transpose(0, 1)
            found = self.out(mixed.reshape(n, c, h, w))
            return x + found if slip.skip else found

    return Attention


def _but(**changes: Any) -> Callable[..., nn.Module]:
    return _layer(_Slip(**changes))


Attention = Check(
    "Attention",
    _Package,
    _layer_cases,
    [
        Wrong(_but(skip=False), "the residual path is missing: the layer adds what it found to its input."),
        Wrong(_but(turn=False), "your frames have no order: turn queries and keys by their frame's angles."),
        Wrong(_but(values=True), "you turn the values too; only queries and keys are turned."),
        Wrong(_but(scale=False), "your logits are not divided by the root of d."),
        Wrong(_but(masked=False), "you take no notice of the mask."),
        Wrong(
            _but(other=True),
            "the two axes are exchanged: over space, the frames are batch, and over time the places.",
        ),
        Wrong(_but(norm=False), "the normalisation before `qkv` is not used."),
        Wrong(
            _but(zero=False),
            "the layer changes its input before it has learned anything: start `out`, weight and bias, from zero.",
        ),
        Wrong(_but(reach=64.0), "your longest period is not 128 frames."),
        Wrong(_but(order="f b"), "frames are the fast index of the merged axis, (b f), not the slow one."),
    ],
    probe=compared,
)
