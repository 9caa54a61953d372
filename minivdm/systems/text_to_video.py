"""Text to video: a sentence becomes the condition of a video model, and guidance moves towards it.

Everything is composed of what is there: `captions.tokens` turns sentences into tokens, the network reads them by
cross-attention (`networks.text_encoder`), and guidance on text is classifier-free guidance (Ho & Salimans 2021; VDM
eq 6) with a sentence in the place of a label. A negative prompt takes the place of "no condition": guidance then moves
away from what the other sentence says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minivdm import tasks
from minivdm.core.denoiser import Denoise, Denoiser
from minivdm.data.captions import CaptionError, tokens
from minivdm.guards import BadArgument, check_types


def text_to_video(
    model: Denoiser,
    sentences: str | Sequence[str],
    *,
    negative: str | Sequence[str] | None = None,
    weight: float = 2.0,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Tensor:
    """A clip for each sentence, (b, c, f, h, w) in about [-1, 1].

    Args:
        model: a denoiser whose network takes text, such as `load("text-32")`.
        sentences: of the language of `minivdm.data.captions`.
        negative: what the clips shall not be: one sentence for all, or one for each.
        weight: of the guidance, w >= 0.
        generator: of all random draws.
        options: further arguments of `minivdm.tasks.generate`, by name.

    Raises:
        CaptionError: an empty sentence, or one outside the language; named before anything is sampled.
        BadArgument: a model that takes no text, or numbers of sentences that do not fit.
    """
    rows, others = read(model, sentences), None if negative is None else read(model, negative)
    if others is not None and len(others) not in (1, len(rows)):
        raise BadArgument(f"negative: expected 1 or {len(rows)} sentences, got {len(others)}")
    return tasks.generate(
        model,
        weight=weight,
        generator=generator,
        conditions={"text": rows, **options.pop("conditions", {})},
        negative=None if others is None else {"text": others},
        **options,
    )


def away_from_text(
    model: Denoiser, text: Tensor, negative: Tensor, weight: float, temporal_weight: float = 0.0
) -> Denoise:
    """x_hat(text) + w (x_hat(text) - x_hat(negative)): guidance with a negative prompt, in one call of the network.

    text, negative: tokens (b, n) and (b or 1, n). temporal_weight: of the guidance towards frames that belong together,
    which costs a further call (`minivdm.tasks.guided`). A network made for it is handed its own last estimate.
    """
    return tasks.guided(
        model, None, weight, temporal_weight=temporal_weight, conditions={"text": text}, negative={"text": negative}
    )


def read(model: Denoiser, sentences: str | Sequence[str]) -> Tensor:
    """The tokens of sentences, where the model is. Raises CaptionError, or BadArgument for a model without text."""
    if not getattr(model.network, "config", {}).get("text"):
        raise BadArgument("model: expected one that was trained with text, such as 'text-32', got one without")
    if not isinstance(sentences, str) and not len(sentences):
        raise CaptionError("sentences: expected at least one, got none")
    return tokens(sentences).to(next(model.parameters()).device)


check_types(globals())
