"""Checks of assignment 16: the scale and the rate of latents, code books, causal layers, time in an image model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minivdm.core import CosineSchedule, LinearSchedule, Schedule
from minivdm.course.checks.harness import Case, Check, Counted, Wrong, generator, name_of, uniform, video

FLOATS = (torch.float64, torch.float32)
SHORT, LINEAR = CosineSchedule(-5.0, 5.0), LinearSchedule()  # noise of e^-2.5 at t = 0: who forgets it is seen


def _but(right: Callable[..., Any], **changes: Any) -> Callable[..., Any]:
    return functools.partial(right, **changes)


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
        Wrong(_but(_normalised, over=(0, 1, 2, 3, 4)), "you have one number for all channels; each has its own."),
        Wrong(_but(_normalised, over=(2, 3, 4)), "your numbers differ from clip to clip; they belong to the channel."),
        Wrong(_but(_normalised, over=(0,)), "your numbers differ from place to place; a channel has one pair."),
        Wrong(_but(_normalised, correction=1), "you divide by the count less one; asked is by the count."),
        Wrong(_but(_normalised, centred=False), "the mean is still in the latents."),
        Wrong(_but(_normalised, power=2.0), "you divide by the variance, not by its root."),
        Wrong(_but(_normalised, back=True), "you go the other way, from normalised latents to those of the encoder."),
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
            _but(_rate, nats=lambda r: r.clamp(min=1).log().sum()),
            "your rate is twice too large: the level is a variance, a deviation is its root.",
        ),
        Wrong(_but(_rate, nats=lambda r: r.clamp(min=1).log2().sum() / 2), "your rate is in bits; nats are asked for."),
        Wrong(
            _but(_rate, nats=lambda r: r.clamp(min=1e-9).log().sum() / 2),
            "axes below the level are dropped and cost nothing; yours have a negative rate.",
        ),
        Wrong(
            _but(_rate, nats=lambda r: (1 + r).log().sum() / 2),
            "you count log(1 + κ/s²), the capacity of a channel with noise s²; the code needs log(κ/s²).",
        ),
        Wrong(
            _but(_rate, left=lambda k, s: k[k <= s].sum()),
            "you count the axes that are dropped; those that are kept err by the level, each.",
        ),
        Wrong(
            _but(_rate, left=lambda k, s: (k > s).sum() * k.new_tensor(s)),
            "you count the axes that are kept; those that are dropped err by all they have.",
        ),
        Wrong(_but(_rate, left=lambda k, s: k.clamp(min=s).sum()), "the error of an axis is the smaller of the two."),
        Wrong(
            _but(
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
            _but(_nearest, joined=lambda u, e: e),
            "no gradient reaches u: argmin has none. Let it pass as if u had not moved (16.4).",
        ),
        Wrong(_but(_nearest, joined=lambda u, e: e.detach()), "no gradient reaches anybody: u is told nothing."),
        Wrong(
            _but(_nearest, joined=lambda u, e: u + e - u.detach()),
            "a gradient reaches the codes as well; only u is to be told here.",
        ),
        Wrong(
            _but(_nearest, joined=lambda u, e: e + (u - e).detach()),
            "u and the code are exchanged: the value has to be the code's, the gradient u's.",
        ),
        Wrong(
            _but(_nearest, far=lambda a, b: -a @ b.T),
            "you take the largest scalar product; that prefers long codes. Nearest is asked for.",
        ),
        Wrong(_but(_nearest, far=lambda a, b: -torch.cdist(a, b)), "you take the farthest code."),
        Wrong(
            _but(_nearest, order=False),
            "you cut u into rows without bringing the channels last: your vectors mix places.",
        ),
        Wrong(
            _but(_nearest, far=lambda a, b: (a[:, :1] - b[None, :, 0]).abs()),
            "you look at the first channel alone; a vector has them all.",
        ),
    ],
    probe=_straight,
)


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
            _but(_causal, pad=lambda k: ((k - 1) // 2, k - 1 - (k - 1) // 2)),
            "zeros stand on both sides: your frames see later ones. All of them belong before the first frame.",
        ),
        Wrong(_but(_causal, pad=lambda k: (0, k - 1)), "your zeros stand after the last frame; that looks ahead."),
        Wrong(
            _but(_causal, flipped=True),
            "your kernel is turned around in time: its last entry weighs the frame itself.",
        ),
        Wrong(_but(_causal, held=True), "you repeat the first frame before it; zeros are asked for."),
        Wrong(
            lambda x, kernel, stride: _causal(x, kernel, stride, first=stride - 1),
            "your stride starts late: frames 0, T, 2T, ... are kept, and a still has one.",
        ),
        Wrong(lambda x, kernel, stride: _causal(x, kernel, 1), "you keep every frame: where is the stride?"),
        Wrong(
            _but(_causal, pad=lambda k: (k, 0)),
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
            _but(_align, join=lambda h, d, a: h + a * d),
            "a is the weight of the image model: at a = 1 the temporal layer says nothing.",
        ),
        Wrong(
            _but(_align, join=lambda h, d, a: a * h + (1 - a) * d),
            "a change is what is *added* to h, h' = h + change; you mix h with the change itself.",
        ),
        Wrong(
            _but(_align, join=lambda h, d, a: a * h + (1 - a) * (h + d)),
            "the sum is right, and rounds: a h + (1 − a) h is not h to the bit. Add what changes (16.9).",
        ),
        Wrong(_but(_align, join=lambda h, d, a: h + d), "where is a?"),
        Wrong(
            _but(_align, order=False),
            "you cut clips into frames without bringing frames before channels: your images mix both.",
        ),
        Wrong(_but(_align, late=True), "you add time after the last layer alone; it belongs after each that has one."),
        Wrong(
            lambda x, layers, changes, a: _align(x, layers, [None] * len(layers), a),
            "your temporal layers are not used.",
        ),
    ],
    probe=_bits,
)


# ---- Show-1 --------------------------------------------------------------------------------------------------


class _Code:
    """A tokenizer of sorts: to latents of another scale and back, neither the other's inverse."""

    def encode(self, clip: Tensor) -> Tensor:
        return clip[..., ::2] * 1.7 - 0.4

    def decode(self, latents: Tensor) -> Tensor:
        return torch.tanh(latents.repeat_interleave(2, -1))


def _made(z: Tensor, t: float) -> Tensor:
    """A denoiser of sorts: not linear, and another one at each time."""
    return torch.sin(z + 2 * float(t)) - 0.3 * z


def _remade_cases(seed: int) -> Iterator[Case]:
    g, code = generator(seed), _Code()
    top, middle = float(uniform(g, 0.6, 0.8)), float(uniform(g, 0.2, 0.4))
    for dtype in FLOATS:
        clip, noise = video(g, 2, 1, 2, 2, 4, dtype=dtype), video(g, 2, 1, 2, 2, 2, dtype=dtype)
        given = clip, code.encode, code.decode, _made, noise, [top, middle, 0.0], SHORT
        yield Case(f"{name_of(dtype)}, two steps from t = {top:.2f}", given)
    clip, noise = video(g, 1, 1, 3, 2, 6), video(g, 1, 1, 3, 2, 3)
    yield Case("from pure noise", (clip, code.encode, code.decode, _made, noise, [1.0, top, middle, 0.0], SHORT))
    yield Case("one step", (clip, code.encode, code.decode, _made, noise, [middle, 0.0], LINEAR))
    yield Case("strength 0: nothing is made anew", (clip, code.encode, code.decode, _made, noise, [0.0], SHORT))


def _remade(
    clip: Tensor,
    encode: Callable[..., Tensor],
    decode: Callable[..., Tensor],
    denoise: Callable[..., Tensor],
    noise: Tensor,
    times: Sequence[float],
    schedule: Schedule,
    *,
    start: str = "noised",
    clean: bool = True,
    step: str = "ddim",
    end: str = "decoded",
) -> Tensor:
    def scales(t: float) -> tuple[Tensor, Tensor]:
        one = torch.tensor(t, dtype=torch.float64)
        if t == 0 and clean:
            return torch.ones_like(noise[:1, :1, :1, :1, :1]), torch.zeros_like(noise[:1, :1, :1, :1, :1])
        return schedule.alpha(one).to(noise), schedule.sigma(one).to(noise)

    first, (alpha, sigma) = encode(clip), scales(times[0])
    z = {"noised": alpha * first + sigma * noise, "noise": noise, "clean": first, "unscaled": first + sigma * noise}[
        start
    ]
    if start == "noise" and len(times) == 1:
        z = first
    for t, s in zip(times[:-1], times[1:], strict=True):
        x = denoise(z, t)
        (a, b), (c, d) = scales(t), scales(s)
        eps = (z - a * x) / b
        if step == "fresh":
            eps = noise
        z = x if step == "jump" else c * x + d * eps
    return z if end == "latents" else decode(z)


def _calls(
    answer: Callable[..., Any], clip: Tensor, encode: Any, decode: Any, denoise: Any, *given: Any
) -> dict[str, Any]:
    counted = Counted(denoise)
    with torch.no_grad():
        made = answer(clip, encode, decode, counted, *given)
    return {"": made, "calls of the denoiser": counted.calls}


remade = Check(
    "remade",
    _remade,
    _remade_cases,
    [
        Wrong(_but(_remade, start="noise"), "you start from noise alone: the clip that came in is forgotten."),
        Wrong(_but(_remade, start="clean"), "you put no noise on the latents; the denoiser is told that there is."),
        Wrong(_but(_remade, start="unscaled"), "your noised latents keep their full size; at t the signal has alpha."),
        Wrong(
            _but(_remade, clean=False),
            "a walk that ends at 0 ends in data, alpha = 1 and sigma = 0, whatever the schedule still has there.",
        ),
        Wrong(_but(_remade, step="fresh"), "you go on with the noise that was put on; DDIM keeps what is left in z."),
        Wrong(_but(_remade, step="jump"), "you take each estimate for the next latent: no noise is left for its time."),
        Wrong(_but(_remade, end="latents"), "you return latents; a clip is asked for."),
    ],
    probe=_calls,
)
