"""DiT: Peebles & Xie 2023, "Scalable diffusion models with transformers", in a few sizes, and what a clip costs.

The network is `networks.Transformer`. What the paper adds beside it is a claim: quality follows the floating-point
operations of one call, whether these come from wider and deeper blocks or from smaller patches (their figures 6 and 8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minivdm.guards import BadArgument, check_types, one_of, whole
from minivdm.networks.transformer import Transformer

#: Width and depth. The paper's S, B, L and XL are 384x12, 768x12, 1024x24 and 1152x28; these are a CPU's.
SIZES = {"T": (64, 2), "XS": (96, 4), "S": (192, 6), "B": (384, 8)}


def dit(size: str = "XS", patch: Sequence[int] = (2, 4, 4), **others: Any) -> Transformer:
    """A DiT of one of `SIZES` for clips, with the paper's adaLN-Zero for each block and its fixed sines as positions.

    others: arguments of `Transformer`.
    """
    one_of("size", size, tuple(SIZES))
    width, depth = SIZES[size]
    return Transformer(width=width, depth=depth, patch=patch, **{"embedding": width, **others})


def tokens(shape: Sequence[int], patch: Sequence[int]) -> int:
    """Patches of a clip (f, h, w)."""
    fits = len(shape) == 3 == len(patch)
    if not fits or any(whole("shape", n) % whole("patch", p) for n, p in zip(shape, patch, strict=True)):
        raise BadArgument(f"shape, patch: expected (f, h, w) of whole patches, got {tuple(shape)} and {tuple(patch)}")
    return math.prod(n // p for n, p in zip(shape, patch, strict=True))


def operations(network: Transformer, n: int, window: int | None = None) -> int:
    """Multiplications of one call on n tokens that each look at `window` tokens (by default all).

    Per block and token 4 c^2 in attention, 8 c^2 in the perceptron, and 2 c for each token it looks at; stem and head.
    Those of the modulation come once a clip and are left out.
    """
    c, depth = network.config["width"], network.config["depth"]
    values = network.stem.in_features
    return whole("n", n) * (depth * (12 * c**2 + 2 * c * (n if window is None else window)) + 2 * values * c)


check_types(globals())
