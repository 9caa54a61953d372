"""Checks of exercises 16.1 to 16.3: the scale of latents, their rate, and a code book."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import FLOATS, Case, Check, Wrong, generator, name_of, uniform, video

# ---- scale ---------------------------------------------------------------------------------------------------


def _latents_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        scale, shift = uniform(g, 0.3, 4, 1, 3, 1, 1, 1), uniform(g, -2, 2, 1, 3, 1, 1, 1)
        latents = (video(g, 2, 3, 2, 3, 2) * scale + shift).to(dtype)
        yield Case(f"{name_of(dtype)}, three channels of several sizes", (latents,))
    yield Case("one clip of two channels", (video(g, 1, 2, 3, 2, 2) * 5 - 1,))
    yield Case("as many clips as channels", (video(g, 4, 4, 1, 2, 3) + uniform(g, -3, 3, 1, 4, 1, 1, 1),))


def _normalised(
    latents: Tensor,
    over: tuple[int, ...] = (0, 2, 3, 4),
    correction: int = 0,
    centred: bool = True,
    power: float = 1.0,
    back: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    mean = latents.mean(over, keepdim=True)
    spread = latents.var(over, keepdim=True, correction=correction) ** (power / 2)
    moved = latents - mean if centred else latents
    made = latents * spread + mean if back else moved / spread
    return made, mean.flatten(), spread.flatten()


normalised = Check(
    "normalised",
    _normalised,
    _latents_cases,
    [
        Wrong(partial(_normalised, over=(0, 1, 2, 3, 4)), "you have one number for all channels; each has its own."),
        Wrong(
            partial(_normalised, over=(2, 3, 4)), "your numbers differ from clip to clip; they belong to the channel."
        ),
        Wrong(partial(_normalised, over=(0,)), "your numbers differ from place to place; a channel has one pair."),
        Wrong(partial(_normalised, correction=1), "you divide by the count less one; asked is by the count."),
        Wrong(partial(_normalised, centred=False), "the mean is still in the latents."),
        Wrong(partial(_normalised, power=2.0), "you divide by the variance, not by its root."),
        Wrong(
            partial(_normalised, back=True), "you go the other way, from normalised latents to those of the encoder."
        ),
    ],
)


# ---- rate ----------------------------------------------------------------------------------------------------


def _rate_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        kappa = uniform(g, 0.05, 3, 6).to(dtype)
        kappa[0], kappa[1] = 4.0, 0.01
        yield Case(f"{name_of(dtype)}, axes above and below the level", (kappa, float(uniform(g, 0.3, 0.8))))
    yield Case("a level above all axes", (uniform(g, 0.1, 1, 4), 2.0))
    yield Case("a level below all axes", (uniform(g, 1, 2, 3), 0.25))
    yield Case("an axis without variance", (torch.tensor([2.0, 0.0], dtype=torch.float64), 0.5))


def _rate(
    kappa: Tensor,
    level: float,
    nats: Callable[[Tensor], Tensor] = lambda ratio: ratio.clamp(min=1).log().sum() / 2,
    left: Callable[[Tensor, float], Tensor] = lambda kappa, level: kappa.clamp(max=level).sum(),
) -> tuple[Tensor, Tensor]:
    return nats(kappa / level), left(kappa, level)


rate_and_error = Check(
    "rate_and_error",
    _rate,
    _rate_cases,
    [
        Wrong(
            partial(_rate, nats=lambda r: r.clamp(min=1).log().sum()),
            "your rate is twice too large: the level is a variance, a deviation is its root.",
        ),
        Wrong(
            partial(_rate, nats=lambda r: r.clamp(min=1).log2().sum() / 2), "your rate is in bits; nats are asked for."
        ),
        Wrong(
            partial(_rate, nats=lambda r: r.clamp(min=1e-9).log().sum() / 2),
            "axes below the level are dropped and cost nothing; yours have a negative rate.",
        ),
        Wrong(
            partial(_rate, nats=lambda r: (1 + r).log().sum() / 2),
            "you count log(1 + κ/s²), the capacity of a channel with noise s²; the code needs log(κ/s²).",
        ),
        Wrong(
            partial(_rate, left=lambda k, s: k[k <= s].sum()),
            "you count the axes that are dropped; those that are kept err by the level, each.",
        ),
        Wrong(
            partial(_rate, left=lambda k, s: (k > s).sum() * k.new_tensor(s)),
            "you count the axes that are kept; those that are dropped err by all they have.",
        ),
        Wrong(
            partial(_rate, left=lambda k, s: k.clamp(min=s).sum()), "the error of an axis is the smaller of the two."
        ),
        Wrong(
            partial(
                _rate,
                nats=lambda r: r.clamp(min=1).log().mean() / 2,
                left=lambda k, s: k.clamp(max=s).mean(),
            ),
            "rate and error of a clip are sums over its axes, not means.",
        ),
    ],
)


# ---- code book -----------------------------------------------------------------------------------------------


def _codes_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        yield Case(
            f"{name_of(dtype)}, 7 codes of 3 numbers",
            (video(g, 2, 3, 2, 3, 4, dtype=dtype), video(g, 7, 3, dtype=dtype)),
        )
    yield Case("codes of very different length", (video(g, 1, 2, 3, 2, 2), video(g, 5, 2) * uniform(g, 0.2, 4, 5, 1)))
    yield Case("as many codes as numbers", (video(g, 3, 3, 1, 2, 3), video(g, 3, 3)))
    yield Case("one code", (video(g, 1, 2, 1, 2, 2), video(g, 1, 2)))


def _nearest(
    u: Tensor,
    codes: Tensor,
    far: Callable[[Tensor, Tensor], Tensor] = torch.cdist,
    joined: Callable[[Tensor, Tensor], Tensor] = lambda u, e: u + (e - u).detach(),
    order: bool = True,
) -> tuple[Tensor, Tensor]:
    b, c, f, h, w = u.shape
    places = u.permute(0, 2, 3, 4, 1) if order else u
    index = far(places.reshape(-1, c), codes).argmin(1)
    chosen = codes[index].view(b, f, h, w, c).permute(0, 4, 1, 2, 3)
    return joined(u, chosen), index.view(b, f, h, w)


def _straight(answer: Callable[..., Any], u: Tensor, codes: Tensor) -> dict[str, Any]:
    """A probe: the codes, and what reaches the encoder and the code book of a gradient."""
    with torch.enable_grad():
        given, table = u.clone().requires_grad_(True), codes.clone().requires_grad_(True)
        made, index = answer(given, table)
        push = torch.arange(1.0, made.numel() + 1, dtype=made.dtype).view(made.shape) / made.numel()
        gradients: Sequence[Tensor | None] = (None, None)
        if made.requires_grad:
            gradients = torch.autograd.grad((made * push).sum(), (given, table), allow_unused=True)
    to_u, to_codes = (
        torch.zeros_like(one) if found is None else found for one, found in zip((u, codes), gradients, strict=True)
    )
    return {
        "": (made.detach(), index),
        "the gradient that reaches u": to_u,
        "the gradient that reaches the codes": to_codes,
    }


nearest_code = Check(
    "nearest_code",
    _nearest,
    _codes_cases,
    [
        Wrong(
            partial(_nearest, joined=lambda u, e: e),
            "no gradient reaches u: argmin has none. Let it pass as if u had not moved (16.4).",
        ),
        Wrong(partial(_nearest, joined=lambda u, e: e.detach()), "no gradient reaches anybody: u is told nothing."),
        Wrong(
            partial(_nearest, joined=lambda u, e: u + e - u.detach()),
            "a gradient reaches the codes as well; only u is to be told here.",
        ),
        Wrong(
            partial(_nearest, joined=lambda u, e: e + (u - e).detach()),
            "u and the code are exchanged: the value has to be the code's, the gradient u's.",
        ),
        Wrong(
            partial(_nearest, far=lambda a, b: -a @ b.T),
            "you take the largest scalar product; that prefers long codes. Nearest is asked for.",
        ),
        Wrong(partial(_nearest, far=lambda a, b: -torch.cdist(a, b)), "you take the farthest code."),
        Wrong(
            partial(_nearest, order=False),
            "you cut u into rows without bringing the channels last: your vectors mix places.",
        ),
        Wrong(
            partial(_nearest, far=lambda a, b: (a[:, :1] - b[None, :, 0]).abs()),
            "you look at the first channel alone; a vector has them all.",
        ),
    ],
    probe=_straight,
)
