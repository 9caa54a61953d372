"""What was measured of the latent models of lesson 16, in lines of text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def results(path: Path) -> dict[str, Any]:
    """What `benchmarks/train_latent.py` wrote, by the name of the weights; empty where it has not run."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def lines(judged: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """A line for each row of a judgement with one of these beginnings: shares with their intervals, and the rest."""
    said = []
    for name, row in judged.items():
        if not name.startswith(tuple(names)):
            continue
        shares = [f"{key} {share(row[key])}" for key in ("legible", "right in every frame") if key in row]
        others = [f"{key.split(',')[0]} {row[key]:.3g}" for key in ("rigidity, median", "detail", "distance of clips")
                  if row.get(key) is not None]  # fmt: skip
        said.append(f"{name:36s} " + "  ".join([*shares, *others]))
    return "\n".join(said)


def tokenizers(found: Mapping[str, Any]) -> str:
    """A line for each row of `benchmarks/tokenizers.py`: numbers and nats of a code, and what comes back of clips."""
    said = []
    for name, row in found["rows"].items():
        judged = row["on test clips"]
        plain, noisy = (judged[f"noise of {n} standard deviations on the latents"] for n in ("0.0", "0.3"))
        shares = f"all frames right {share(plain['right in every frame: share, low, high'])}"
        text = (
            f"{name:33s}{row['numbers']:5,d} numbers {judged['nats per clip']:6,.0f} nats  {plain['PSNR, dB']:5.1f} dB "
            f"({noisy['PSNR, dB']:4.1f} with noise)  {shares}"
        )
        if book := row.get("code book"):
            text += f"  {book['codes in use']} codes in use, {book['nats a place']:.1f} nats a place"
        said.append(text)
    return "\n".join(said)


def share(values: Sequence[float]) -> str:
    """A share and its 95 % interval, in per cent."""
    rate, low, high = (100 * value for value in values[:3])
    return f"{rate:.0f} % ({low:.0f} to {high:.0f})"
