"""A frame player that needs nothing but its page: HTML, a little script, one picture per clip."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minivdm.course.notebook.clips import as_frames, clip_titles, observed_frames
from minivdm.course.notebook.picture import encode
from minivdm.course.notebook.strips import describe, to_image

BUDGET = 84_000
"""Bytes of encoded pictures above which a player stores fewer grey levels: noise does not compress."""

STILL = "Scripts are off here, so each clip stands as a row of its frames. Trust the notebook to play it."


@dataclass(frozen=True)
class Player:
    """A page fragment that plays clips in step, and its description in words."""

    html: str
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.alt}

    def __repr__(self) -> str:
        return f"Player({self.alt})"


def player(
    videos: Any,
    titles: str | Sequence[str] | None = None,
    observed: Any = None,
    fps: float = 8,
    *,
    clip: bool = False,
) -> Player:
    """Play clips in step: play, pause, step, scrub, speed; space and arrow keys once it has the focus.

    Starts paused on the first frame. Where scripts are off (a notebook that is not trusted yet) every
    clip stands as a row of its frames. The same input gives the same bytes.

    Args:
        videos: (b, c, f, h, w) in [-1, 1], or a sequence of clips (c, f, h, w); a shorter clip holds its last
            frame.
        titles: one per clip.
        observed: frames to mark, as for ``filmstrip``.
        fps: frames per second at speed 1.
        clip: cut values outside [-1, 1] off instead of refusing them, to show a noisy latent.

    Raises:
        VideoShapeError, VideoRangeError: see ``clips.as_frames``.
    """
    if not 0 < fps <= 60:
        raise ValueError(f"expected 0 < fps <= 60 frames per second, got {fps}")
    clips = as_frames(videos, clip)
    marks = observed_frames(observed, clips)
    names = clip_titles(titles, len(clips))
    alt = describe(clips, marks, names)
    columns = -(-len(clips) // -(-len(clips) // 4))  # at most 4 in a row, rows of equal length
    shown = _shown_width(max(frames.shape[2] for frames in clips), columns)
    figures = [
        _figure(sprite, frames, mark, name, shown)
        for sprite, frames, mark, name in zip(_sprites(clips), clips, marks, names, strict=True)
    ]
    longest = max(len(frames) for frames in clips)
    body = (
        f'data-fps="{fps:g}" data-frames="{longest}" data-room="{columns * (shown + 22)}" '
        f'role="group" tabindex="0" data-lm-suppress-shortcuts="true" aria-label="Player, {escape(alt)}. '
        'Space plays and pauses, arrow keys step."><div class="mv-screens">'
        f'{"".join(figures)}</div><p class="mv-still">{STILL}</p></div>'
    )
    key = hashlib.sha256(body.encode()).hexdigest()[:12]
    html = (
        f'<style>{_part("player.css")}</style><div class="mv-player" data-minivdm="{key}" {body}'
        f"<script>{_part('player.js').replace('KEY', key)}</script>"
    )
    return Player(html, "player, " + alt)


def _figure(sprite: bytes, frames: NDArray[np.uint8], mark: set[int], name: str, shown: int) -> str:
    count, height, width, _ = frames.shape
    alt = escape(name or f"clip of {count} frames")
    caption = f"<figcaption>{escape(name)}</figcaption>" if name else ""
    return (
        f'<figure data-frames="{count}" data-width="{width}" data-height="{height}" data-shown="{shown}" '
        f'data-observed="{",".join(map(str, sorted(mark)))}">{caption}'
        f'<img alt="{alt}" style="width:740px;image-rendering:pixelated" '
        f'src="data:image/png;base64,{base64.b64encode(sprite).decode()}"></figure>'
    )


def _sprites(clips: Sequence[NDArray[np.uint8]]) -> list[bytes]:
    """One picture per clip, frames side by side; with fewer grey levels where 256 would weigh too much."""
    for levels in (256, 64, 32, 16):
        sprites = [_sprite(frames, levels) for frames in clips]
        if sum(4 * len(sprite) // 3 for sprite in sprites) <= BUDGET:
            break
    return sprites


def _sprite(frames: NDArray[np.uint8], levels: int) -> bytes:
    row = np.concatenate(list(frames), axis=1)  # (f, h, w, c) -> (h, f w, c)
    if levels < 256:
        row = (np.rint(row / 255 * (levels - 1)) * (255 / (levels - 1))).astype(np.uint8)
    picture = to_image(row)
    if picture.mode == "L" and levels <= 16:
        # A palette of 16 packs two pixels into a byte.
        indexed = Image.fromarray(np.rint(row[..., 0] / 255 * (levels - 1)).astype(np.uint8))
        packed = indexed.convert("P")
        packed.putpalette([round(255 * k / (levels - 1)) for k in range(levels) for _ in range(3)])
        picture = packed
    return encode(picture)


def _shown_width(width: int, columns: int) -> int:
    """Displayed CSS pixels of a frame: a whole multiple of its own where that fits the page."""
    room = min(700 // columns - 22, 192)
    return width * max(1, room // width) if width <= room else room


@lru_cache
def _part(name: str) -> str:
    """The script or the style sheet without comments and indentation."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    kept = "\n".join(line for line in lines if line and not line.startswith("//"))
    return re.sub(r"\n(?=[}.)])", "", kept) if name.endswith(".js") else kept
