"""Checks of exercises 08.9 and 08.11: the residual block, and the network of such blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minivdm import networks
from minivdm.course.checks.harness import Case, Check, Wrong, generator, video
from minivdm.course.checks.unet3d.probe import compared

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
        Wrong(_residual(skip=False), "the residual path is missing: the block adds to its input."),
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
        Wrong(_unscaled, "where the widths agree, the residual path is the identity and has no weights."),
    ],
    probe=compared,
)


# ---- the network ---------------------------------------------------------------------------------------------

SMALL = dict(channels=1, patch=2, labels=3, embedding=8, head_channels=4)


def _unet_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)

    def z(b: int, f: int, side: int) -> tuple[Tensor, ...]:
        labels = video(g, b, 3, dtype=torch.float32)
        return video(g, b, 1, f, side, side, dtype=torch.float32), video(g, b, dtype=torch.float32), labels

    yield Case("three levels, as in the package", ((8, (1, 2, 2), (False, True, True)), z(2, 3, 8)))
    causal = torch.ones(2, 2, dtype=torch.bool).tril()[None]
    yield Case("two levels, with a causal mask", ((16, (1, 2), (True, False)), (*z(1, 2, 8), causal)))
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

    def forward(self, z: Tensor, log_snr: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        made: Any = self.made
        slip = self.slip
        mask = None if slip == "unmasked" else mask
        b, _, f = z.shape[:3]
        emb = made.embed(log_snr, None if slip == "labels" else labels, b, f)
        frames = z.transpose(1, 2).flatten(0, 1)
        x = made.stem(functional.pixel_unshuffle(frames, 2))
        skips = [x]
        for level in made.down:
            for cell in level["cells"]:
                x = cell(x, emb, f, mask)
                skips.append(x)
            if "shrink" in level:
                x = level["shrink"](x)
                skips.append(x)
        for cell in made.middle if slip != "middle" else ():
            x = cell(x, emb, f, None if slip == "forgetful" else mask)
        for level in made.up:
            for cell in level["cells"]:
                other = skips.pop()
                parts = (other, x) if slip == "order" else (x, other)
                x = cell(torch.cat(parts, 1), emb, f, mask)
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
        return compared(answer, arguments, inputs)
    return compared(lambda *given: answer(cell, *given, **SMALL_LEARNER), arguments, inputs)


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
        Wrong(_slip("unmasked"), "the mask never reaches the cells: frames see each other that may not."),
        Wrong(_slip("forgetful"), "the cells of the middle do not get the mask: one forgetful layer leaks everything."),
        Wrong(_slip("bare"), "the normalisation before the head is not used."),
        Wrong(_slip("linear"), "the SiLU before the head is missing."),
        Wrong(_slip("loud"), "your network says something before it has learned: start `head` from zero."),
    ],
    probe=_asked,
)
