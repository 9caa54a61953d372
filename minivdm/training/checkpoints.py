"""Checkpoints that survive a power cut: tensors as safetensors, the rest as JSON, each written beside its final
name and moved there in one step. The JSON comes last and holds the tensors' SHA-256: it makes a checkpoint valid.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_to_bytes


class DamagedCheckpoint(ValueError):
    """A checkpoint or weight file that is truncated, altered or not what it claims to be."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader finds the old file or the new one, whatever interrupts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # without this, the new name itself may be lost in a power cut (POSIX only)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> str:
    """Write safetensors atomically; returns the SHA-256 of the file."""
    data = tensors_to_bytes({key: value.detach().contiguous().cpu() for key, value in tensors.items()}, metadata)
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def read_tensors(path: Path, sha256: str | None = None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and text metadata of a safetensors file. Raises FileNotFoundError or DamagedCheckpoint."""
    data = Path(path).read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedCheckpoint(
            f"{path} holds {len(data)} bytes whose SHA-256 is not the recorded {sha256[:12]}…: "
            f"the file is truncated or was changed"
        )
    try:
        tensors = load_tensors(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedCheckpoint(f"{path} is not a whole safetensors file ({error})") from error
    return tensors, metadata


def save(folder: Path, clips: int, tensors: dict[str, torch.Tensor], state: dict[str, Any], keep: int = 2) -> Path:
    """Write the checkpoint of `clips` clips and drop all but the newest `keep`. Returns the path of its JSON."""
    path = folder / f"clips-{clips:09d}.json"
    digest = write_tensors(path.with_suffix(".safetensors"), tensors)
    write_json(path, {**state, "clips": clips, "sha256": digest})
    for old in _all(folder)[:-keep]:
        old.unlink(missing_ok=True)  # first the JSON: without it the tensors are no checkpoint
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return path


def load(folder: Path, say: Callable[[str], None] = print) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint, or None if there never was one. A damaged one is named through `say` and the one
    before it is used; DamagedCheckpoint if none is whole."""
    damage: list[str] = []
    for path in reversed(_all(folder)):
        try:
            state = json.loads(path.read_text())
            tensors, _ = read_tensors(path.with_suffix(".safetensors"), state["sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            damage.append(str(error) or repr(error))
            continue
        for line in damage:
            say(f"damaged checkpoint left out: {line}")
        if damage:
            say(f"continuing from the one before it, at {state['clips']:,} clips")
        return tensors, state
    if damage:
        raise DamagedCheckpoint("no whole checkpoint is left: " + "; ".join(damage))
    return None


def load_weights(network: torch.nn.Module, tensors: dict[str, torch.Tensor], prefix: str = "") -> None:
    """Copy tensors named `prefix + parameter` into the network. Raises DamagedCheckpoint naming what does not fit."""
    own = network.state_dict()
    given = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    wrong = [
        f"{name}: expected {tuple(own[name].shape)}, got {tuple(given[name].shape) if name in given else 'nothing'}"
        for name in own
        if name not in given or given[name].shape != own[name].shape
    ]
    wrong += [f"{name}: not in this network" for name in given if name not in own]
    if wrong:
        raise DamagedCheckpoint(f"the weights do not fit the network ({len(wrong)} tensors): " + "; ".join(wrong[:4]))
    network.load_state_dict(given)


def read_weights(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights in float32 and what is known of them, from a run's folder (its newest checkpoint), a checkpoint, a
    snapshot or an exported file. Of a run, it is the moving average. The second value has "config" and "clips".

    Raises FileNotFoundError or DamagedCheckpoint.
    """
    path = Path(path)
    if path.is_dir():
        found = load(path / "checkpoints")
        if found is None:
            raise FileNotFoundError(f"{path} holds no checkpoint of a training run")
        tensors, about = found
    else:
        tensors, text = read_tensors(path)
        card = path.with_suffix(".json")
        about = json.loads(text["config"] if "config" in text else card.read_text() if card.exists() else "{}")
        about = {"config": about, "clips": int(text.get("clips", 0))} if "config" in text else about
    if any(key.startswith("ema.") for key in tensors):
        tensors = {key[4:]: value for key, value in tensors.items() if key.startswith("ema.")}
    if "config" not in about:
        raise DamagedCheckpoint(f"{path} does not say which network its weights belong to (no configuration)")
    return {key: value.float() for key, value in tensors.items()}, about


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("clips-*.json"))
