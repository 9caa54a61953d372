"""Checkpoints that survive a power cut: tensors as safetensors, the rest as JSON, each written beside its final name
and moved there in one step. The JSON comes last, holds the tensors' SHA-256 and a digest of its own content: it makes
a checkpoint valid. `load` takes the newest that is whole."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_to_bytes

from minivdm.data.atomic import write_atomic, write_json
from minivdm.guards import BadFile
from minivdm.networks import eight_bits
from minivdm.networks.eight_bits import Tensors

#: What every checkpoint's JSON holds besides its digest, and of which type.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "clips": int,
    "steps": int,
    "seconds": (int, float),
    "history": list,
    "hardware": str,
    "config": dict,
    "sha256": str,
}
NAME = re.compile(r"clips-(\d{9,18})\.(?:json|safetensors)")


class DamagedCheckpoint(BadFile):
    """A checkpoint or weight file that is truncated, altered or not what it claims to be."""


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """The values and "digest", the SHA-256 of all of them: whatever changes in the file is noticed."""
    values = {key: value for key, value in values.items() if key != "digest"}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return {**values, "digest": hashlib.sha256(text.encode()).hexdigest()}


def read_sealed(path: Path, before_digests: Any = ()) -> dict[str, Any]:
    """A JSON object with its digest. Files from before there were digests have exactly the keys `before_digests`.

    Raises DamagedCheckpoint, FileNotFoundError.
    """
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path} is no whole JSON file ({error})") from error
    if not isinstance(values, dict):
        raise DamagedCheckpoint(f"{path}: expected a JSON object, got {type(values).__name__}")
    try:
        whole = sealed(values) == values if "digest" in values else set(values) == set(before_digests)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path} cannot be verified ({error})") from error
    if not whole:
        raise DamagedCheckpoint(f"{path} is not as it was written: its digest does not fit its content")
    return values


def write_tensors(path: Path, tensors: Tensors, about: dict[str, Any] | None = None) -> str:
    """Write safetensors atomically; returns the SHA-256 of the file. The same content gives the same bytes.

    about: what to say of them inside the file, as JSON.
    """
    # One key: safetensors writes several in an order that differs from process to process.
    metadata = None if about is None else {"about": json.dumps(about, sort_keys=True)}
    data = tensors_to_bytes({key: value.detach().contiguous().cpu() for key, value in tensors.items()}, metadata)
    write_atomic(path, data)
    return hashlib.sha256(data).hexdigest()


def in_half(tensors: Tensors) -> Tensors:
    """Floating-point tensors in float16, all others as they are."""
    return {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}


def read_tensors(path: Path, sha256: str | None = None) -> tuple[Tensors, dict[str, Any]]:
    """Tensors of a safetensors file, those of eight bits in float32, and what it says of them.

    Raises FileNotFoundError or DamagedCheckpoint.
    """
    data = Path(path).read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedCheckpoint(
            f"{path} holds {len(data)} bytes whose SHA-256 is not the recorded {sha256[:12]}…: "
            f"the file is truncated or was changed"
        )
    try:
        tensors = eight_bits.unpack(load_tensors(data))
        # By hand, as the bytes are here already: a length of 8 bytes, then that many bytes of JSON.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = header.get("__metadata__", {})
        if "about" in text:
            about = json.loads(text["about"])
        elif "config" in text:  # as earlier versions wrote it
            about = {"config": json.loads(text["config"]), "clips": int(text.get("clips", 0))}
        else:
            about = {}
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path} is not a whole safetensors file ({error})") from error
    return tensors, about


def save(folder: Path, clips: int, tensors: Tensors, state: dict[str, Any], keep: int = 2) -> Path:
    """Write the checkpoint of `clips` clips; of those up to it, drop all but the newest `keep`. Returns its JSON."""
    path = folder / f"clips-{clips:09d}.json"
    digest = write_tensors(path.with_suffix(".safetensors"), tensors)
    write_json(path, sealed({**state, "clips": clips, "sha256": digest}))
    drop_old(folder, clips, keep)
    return path


def drop_old(folder: Path, clips: int, keep: int = 2) -> None:
    """Remove the checkpoints of up to `clips` clips but for the newest `keep`."""
    for old in [found for found in listed(folder) if number(found) <= clips][:-keep]:
        old.unlink(missing_ok=True)  # first the JSON: without it the tensors are no checkpoint
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def load(
    folder: Path, say: Callable[[str], None] = print, use: Callable[[Tensors, dict[str, Any]], None] | None = None
) -> tuple[Tensors, dict[str, Any]] | None:
    """The newest whole checkpoint, or None if there never was one.

    A damaged one is named through `say` and the one before it is used.

    Args:
        folder: where the checkpoints lie.
        say: takes lines about damage.
        use: is given tensors and state, and raises DamagedCheckpoint where it cannot use them.

    Raises:
        DamagedCheckpoint: none is whole.
    """
    damage: list[str] = []
    for path in reversed(listed(folder)):
        try:
            state = _read_state(path)
            tensors, _ = read_tensors(path.with_suffix(".safetensors"), state["sha256"])
            if use is not None:
                use(tensors, state)
        except (OSError, DamagedCheckpoint) as error:
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


def _read_state(path: Path) -> dict[str, Any]:
    """The JSON of a checkpoint with every field as it has to be. Raises DamagedCheckpoint."""
    state = read_sealed(path, before_digests=FIELDS)
    for name, kind in FIELDS.items():
        if not isinstance(state.get(name), kind) or isinstance(state[name], bool):
            raise DamagedCheckpoint(f"{path}: {name}: expected {kind}, got {state.get(name)!r}")
    if state["clips"] != number(path) or state["steps"] < 0 or not 0 <= state["seconds"] < math.inf:
        found = ", ".join(f"{name}={state[name]!r}" for name in ("clips", "steps", "seconds"))
        raise DamagedCheckpoint(f"{path}: expected the clips of its name and amounts >= 0, got {found}")
    entries = state["history"]
    if not entries or not all(isinstance(e, dict) and {"clips", "command"} <= set(e) for e in entries):
        raise DamagedCheckpoint(f"{path}: history: expected entries with clips and command, got {entries!r}")
    return state


def load_weights(network: torch.nn.Module, tensors: Tensors, prefix: str = "", partly: bool = False) -> list[str]:
    """Copy tensors named `prefix + parameter` into the network.

    partly: parameters that are not among the tensors stay as they are; their names are returned.
    Raises DamagedCheckpoint naming what does not fit.
    """
    own = network.state_dict()
    given = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    missing = [name for name in own if name not in given]
    wrong = [
        f"{name}: expected {tuple(own[name].shape)}, got {tuple(given[name].shape) if name in given else 'nothing'}"
        for name in own
        if (name not in given and not partly) or (name in given and given[name].shape != own[name].shape)
    ]
    wrong += [f"{name}: not in this network" for name in given if name not in own]
    if partly and len(missing) == len(own):
        wrong.append("none of the network's parameters is there")
    if wrong:
        raise DamagedCheckpoint(f"the weights do not fit the network ({len(wrong)} tensors): " + "; ".join(wrong[:4]))
    network.load_state_dict(given, strict=not partly)
    return missing


def read_weights(path: str | Path) -> tuple[Tensors, dict[str, Any]]:
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
        tensors, about = read_tensors(path)
        card = path.with_suffix(".json")
        if not about and NAME.fullmatch(card.name) and card.exists():
            about = _read_state(card)
    if any(key.startswith("ema.") for key in tensors):
        tensors = {key[4:]: value for key, value in tensors.items() if key.startswith("ema.")}
    if not isinstance(about, dict) or "config" not in about:
        raise DamagedCheckpoint(f"{path} does not say which network its weights belong to (no configuration)")
    return {key: value.float() for key, value in tensors.items()}, about


def listed(folder: Path) -> list[Path]:
    """The JSON files of a folder's checkpoints, oldest first."""
    return sorted((p for p in folder.glob("clips-*.json") if NAME.fullmatch(p.name)), key=number)


def number(path: Path) -> int:
    """How many clips a checkpoint's or snapshot's name says."""
    match = NAME.fullmatch(path.name)
    if match is None:
        raise DamagedCheckpoint(f"expected a name like clips-000001000.json, got {path.name!r}")
    return int(match[1])
