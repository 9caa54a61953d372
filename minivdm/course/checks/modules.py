"""Checks of assignment 08, second part: the blocks of the network as modules, and the network. `unet3d` hands them on.

The package's own modules are the right answers: an answer has to have weights of the same names and shapes, so that
weights that ship can be loaded into it, and to compute the same with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minivdm import networks
from minivdm.course.checks.harness import Case, Check, Wrong, generator, video

# ---- a probe for modules -------------------------------------------------------------------------------------


def filled(module: nn.Module, seed: int) -> nn.Module:
    """The module with random weights, drawn name by name: alike for all modules with the same names and shapes."""
    g = generator(seed)
    with torch.no_grad():
        for _, weight in sorted(module.state_dict().items()):
            size = max(1, weight[0].numel()) if weight.ndim > 1 else 4
            weight.copy_(torch.randn(weight.shape, generator=g) / size**0.5)
    return module


def _shapes(module: Any) -> list[str]:
    if not isinstance(module, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got a {type(module).__name__}")
    return [f"{name} {tuple(weight.shape)}" for name, weight in sorted(module.state_dict().items())]


def _compared(answer: Callable[..., Any], arguments: tuple[Any, ...], inputs: tuple[Any, ...]) -> dict[str, Any]:
    """A probe: the weights' names and shapes, which of them start from zero, and the output with given weights."""
    module: Any = answer(*arguments)
    found = {"its weights": _shapes(module), "weights that start from zero": _silent(module)}
    with torch.no_grad():
        return {**found, "": filled(module, 5)(*inputs)}


def _silent(module: nn.Module) -> list[str]:
    return sorted(name for name, weight in module.state_dict().items() if not bool(weight.any()))


# ---- the residual block --------------------------------------------------------------------------------------


def _residual_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for c_in, c, e, n in ((8, 16, 6, 4), (16, 16, 10, 3)):
        inputs = video(g, n, c_in, 5, 6, dtype=torch.float32), video(g, n, e, dtype=torch.float32)
        yield Case(f"{c_in} channels to {c}", ((c_in, c, e), inputs))
    inputs = video(g, 2, 24, 4, 4, dtype=torch.float32) + 3, video(g, 2, 4, dtype=torch.float32)
    yield Case("24 channels to 8, values around 3", ((24, 8, 4), inputs))


def _residual(
    *,
    first: str = "norm silu",
    shift: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda h, scale, shift: (1 + scale) * h + shift,
    skip: bool = True,
    end: bool = True,
    swap: bool = False,
    zero: bool = True,
) -> Callable[..., nn.Module]:
    """The block, or one with a slip."""

    class Residual(nn.Module):
        def __init__(self, width_in: int, width: int, embedding: int) -> None:
            super().__init__()
            self.norm1 = nn.GroupNorm(8, width_in)
            self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
            self.modulated = nn.Module()
            self.modulated.norm = nn.GroupNorm(8, width)
            self.modulated.scale_shift = nn.Linear(embedding, 2 * width)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1)
            self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
            if zero:
                nn.init.zeros_(self.conv2.weight)
                nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

        def forward(self, x: Tensor, emb: Tensor) -> Tensor:
            h = self.norm1(x) if "norm" in first else x
            h = self.conv1(functional.silu(h) if "silu" in first else h)
            parts = self.modulated.scale_shift(emb)[:, :, None, None].chunk(2, 1)  # type: ignore[operator]
            scale, add = reversed(parts) if swap else parts
            h = shift(self.modulated.norm(h), scale, add)  # type: ignore[operator]
            h = self.conv2(functional.silu(h) if end else h)
            return self.skip(x) + h if skip else h

    return Residual


def _unscaled(width_in: int, width: int, embedding: int) -> nn.Module:
    block = _residual()(width_in, width, embedding)
    block.skip = nn.Conv2d(width_in, width, 1)
    return block


ResidualBlock = Check(
    "ResidualBlock",
    networks.ResidualBlock,
    _residual_cases,
    [
        Wrong(_residual(skip=False), "the way around is missing: the block adds to its input."),
        Wrong(_residual(first="silu"), "the first normalisation is not used."),
        Wrong(_residual(first="norm"), "the SiLU before the first convolution is missing."),
        Wrong(_residual(end=False), "the SiLU before the second convolution is missing."),
        Wrong(
            _residual(shift=lambda h, scale, shift: scale * h + shift),
            "you multiply by the scale itself; with 1 + scale an embedding of zeros leaves everything as it is.",
        ),
        Wrong(_residual(swap=True), "scale and shift are exchanged: the first half of the channels is the scale."),
        Wrong(
            _residual(zero=False),
            "the block changes its input before it has learned anything: start `conv2`, weight and bias, from zero.",
        ),
        Wrong(_unscaled, "where the widths agree, the way around is the identity and has no weights."),
    ],
    probe=_compared,
)


# ---- attention over space, and over time ---------------------------------------------------------------------


def _attention_cases(seed: int) -> Iterator[Case]:
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


def _attention(
    *,
    skip: bool = True,
    turn: bool = True,
    scale: bool = True,
    masked: bool = True,
    other: bool = False,
    norm: bool = True,
    zero: bool = True,
    values: bool = False,
    reach: float = 128.0,
    order: str = "b f",
) -> Callable[..., nn.Module]:
    """The layer, or one with a slip."""

    class Attention(nn.Module):
        def __init__(self, width: int, head_channels: int, axis: str) -> None:
            super().__init__()
            self.axis, self.d = axis, head_channels
            self.norm = nn.GroupNorm(8, width)
            self.qkv = nn.Conv2d(width, 3 * width, 1)
            self.out = nn.Conv2d(width, width, 1)
            if zero:
                nn.init.zeros_(self.out.weight)
                nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

        def forward(self, x: Tensor, frames: int, mask: Tensor | None = None) -> Tensor:
            over_time = (self.axis == "time") != other
            n, c, h, w = x.shape
            b, heads = n // frames, c // self.d
            parts = self.qkv(self.norm(x) if norm else x)
            front = (b, frames) if order == "b f" else (frames, b)
            parts = parts.reshape(*front, 3, heads, self.d, h, w)
            parts = parts if order == "b f" else parts.transpose(0, 1)
            q, k, v = parts.permute(2, 0, 5, 6, 3, 1, 4)  # three b h w heads f d
            if not over_time:
                q, k, v = (p.permute(0, 4, 3, 1, 2, 5).flatten(3, 4) for p in (q, k, v))  # b f heads (h w) d
            if over_time and turn:
                angle = networks.rotary_angles(torch.arange(frames), self.d, longest=reach)
                q, k = (networks.rotate(p, angle.cos(), angle.sin()) for p in (q, k))
                v = networks.rotate(v, angle.cos(), angle.sin()) if values else v
            logits = q @ k.mT * (self.d**-0.5 if scale else 1.0)
            if over_time and masked and mask is not None:
                logits = logits.masked_fill(~mask[:, None, None, None], -torch.inf)
            mixed = logits.softmax(-1) @ v
            if not over_time:
                mixed = mixed.unflatten(3, (h, w)).permute(0, 1, 2, 5, 3, 4)  # b f heads d h w
            else:
                mixed = mixed.permute(0, 4, 3, 5, 1, 2)
            mixed = mixed if order == "b f" else mixed.transpose(0, 1)
            found = self.out(mixed.reshape(n, c, h, w))
            return x + found if skip else found

    return Attention


Attention = Check(
    "Attention",
    _Package,
    _attention_cases,
    [
        Wrong(_attention(skip=False), "the way around is missing: the layer adds what it found to its input."),
        Wrong(_attention(turn=False), "your frames have no order: turn queries and keys by their frame's angles."),
        Wrong(_attention(values=True), "you turn the values too; only queries and keys are turned."),
        Wrong(_attention(scale=False), "your logits are not divided by the root of d."),
        Wrong(_attention(masked=False), "you take no notice of the mask."),
        Wrong(
            _attention(other=True),
            "the two axes are exchanged: over space, the frames are batch, and over time the places.",
        ),
        Wrong(_attention(norm=False), "the normalisation before `qkv` is not used."),
        Wrong(
            _attention(zero=False),
            "the layer changes its input before it has learned anything: start `out`, weight and bias, from zero.",
        ),
        Wrong(_attention(reach=64.0), "your longest period is not 128 frames."),
        Wrong(_attention(order="f b"), "frames are the fast index of the merged axis, (b f), not the slow one."),
    ],
    probe=_compared,
)


# ---- the network ---------------------------------------------------------------------------------------------

SMALL = dict(channels=1, patch=2, labels=3, embedding=8, head_channels=4)


def _unet_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)

    def z(b: int, f: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
        labels = video(g, b, 3, dtype=torch.float32)
        return video(g, b, 1, f, side, side, dtype=torch.float32), video(g, b, dtype=torch.float32), labels

    yield Case("three levels, as in the package", ((8, (1, 2, 2), (False, True, True)), z(2, 3, 8)))
    yield Case("two levels, the finest 16 wide", ((16, (1, 2), (True, False)), z(1, 2, 8)))
    yield Case("one level", ((8, (1,), (True,)), z(2, 2, 4)))


def _package_unet(width: int, multipliers: tuple[int, ...], spatial: tuple[bool, ...]) -> nn.Module:
    every = (True,) * len(multipliers)
    options: dict[str, Any] = {**SMALL, "spatial": spatial, "temporal": every}
    return networks.UNet3D(width=width, multipliers=multipliers, **options)


class _Slip(nn.Module):
    """The package's network, run in another way, with its own weights' names."""

    made: Any

    def __init__(self, slip: str, *arguments: Any) -> None:
        super().__init__()
        made: Any = _package_unet(*arguments)
        for name, part in made.named_children():
            self.add_module(name, part)
        object.__setattr__(self, "made", made)
        self.slip = slip
        if slip == "loud":
            nn.init.normal_(made.head.weight)

    def forward(self, z: Tensor, log_snr: Tensor, labels: Tensor) -> Tensor:
        made: Any = self.made
        slip = self.slip
        b, _, f = z.shape[:3]
        emb = made.embed(log_snr, None if slip == "labels" else labels, b, f)
        frames = z.transpose(1, 2).flatten(0, 1)
        x = made.stem(functional.pixel_unshuffle(frames, 2))
        skips = [x]
        for level in made.down:
            for cell in level["cells"]:
                x = cell(x, emb, f, None)
                skips.append(x)
            if "shrink" in level:
                x = level["shrink"](x)
                skips.append(x)
        for cell in made.middle if slip != "middle" else ():
            x = cell(x, emb, f, None)
        for level in made.up:
            for cell in level["cells"]:
                other = skips.pop()
                parts = (other, x) if slip == "order" else (x, other)
                x = cell(torch.cat(parts, 1), emb, f, None)
            if "grow" in level:
                mode = "bilinear" if slip == "smooth" else "nearest"
                x = functional.interpolate(level["grow"](x), scale_factor=2, mode=mode)
        x = x if slip == "bare" else made.head_norm(x)
        x = made.head(x if slip == "linear" else functional.silu(x))
        return functional.pixel_shuffle(x, 2).unflatten(0, (b, f)).transpose(1, 2)


def _slip(name: str) -> Callable[..., nn.Module]:
    return lambda *arguments: _Slip(name, *arguments)


def _asked(answer: Callable[..., Any], arguments: tuple[Any, ...], inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """A learner's network takes its cells' class as the first argument: here the package's cells."""

    def cell(width_in: int, width: int, embedding: int, spatial: bool) -> nn.Module:
        return networks.Block(width_in, width, embedding, SMALL["head_channels"], spatial, True)

    if answer is _package_unet or getattr(answer, "__qualname__", "").startswith("_slip"):
        return _compared(answer, arguments, inputs)
    return _compared(lambda *given: answer(cell, *given, **SMALL_LEARNER), arguments, inputs)


SMALL_LEARNER = dict(channels=SMALL["channels"], patch=SMALL["patch"], labels=SMALL["labels"], embedding=8)

UNet = Check(
    "UNet",
    _package_unet,
    _unet_cases,
    [
        Wrong(_slip("order"), "on the way up the activations come first and the skip second, in `torch.cat`."),
        Wrong(_slip("smooth"), "you enlarge smoothly; each place becomes four equal ones, mode nearest."),
        Wrong(_slip("middle"), "the cells of the middle are not used."),
        Wrong(_slip("labels"), "your network takes no notice of the labels."),
        Wrong(_slip("bare"), "the normalisation before the head is not used."),
        Wrong(_slip("linear"), "the SiLU before the head is missing."),
        Wrong(_slip("loud"), "your network says something before it has learned: start `head` from zero."),
    ],
    probe=_asked,
)
