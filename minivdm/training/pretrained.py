"""Weights that ship with the package: `load("moving-mnist-32")`. Beside each NAME.safetensors lies a card, NAME.json,
with the command that made it, what it was measured to do, and the checksums of its files and of itself."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minivdm import guards
from minivdm.core.denoiser import Denoiser
from minivdm.guards import BadArgument
from minivdm.training import checkpoints
from minivdm.training.recipe import Recipe

PACKAGE = Path(__file__).parents[1] / "weights"
FOLDER = PACKAGE
#: What ships beside the denoisers, for `measure`: no denoisers, and without a recipe.
READERS = ("clip-encoder-32", "digit-reader-32")
#: Behind the name of weights: the same network, earlier in its training.
EARLY = "-early"

#: Keys of a card from before cards had a digest.
UNSEALED = {
    "name", "sha256", "bytes", "precision", "parameters", "commands", "seed", "data_seed", "clips", "steps", "hours",
    "hardware", "held_out", "train_loss_by_log_snr", "metrics", "config",
}  # fmt: skip


class UnknownWeights(BadArgument):
    """No weights of that name ship, and no file or run lies there."""


class DamagedWeights(checkpoints.DamagedCheckpoint):
    """Weights or a card whose checksum is wrong, or which do not fit each other."""


class TrainedDenoiser(Denoiser):
    """A denoiser that knows where it comes from: `card`, `config`, and `shape`, the (c, f, h, w) it was trained on."""

    card: dict[str, Any]
    config: Recipe
    shape: tuple[int, int, int, int]
    _warned = False

    def predict(self, z: Tensor, *args: Any, **conditions: Any) -> Any:
        """As `Denoiser.predict`; says once if the frames have another size than those that it was trained on."""
        if not self._warned and z.ndim == 5 and tuple(z.shape[3:]) != self.shape[2:]:
            self._warned = True
            (h, w), (trained_h, trained_w) = z.shape[3:], self.shape[2:]
            warnings.warn(
                f"these weights were trained on frames of {trained_h}x{trained_w} pixels and are given {h}x{w}: what "
                f"they make of them has not been measured",
                stacklevel=3,
            )
        return super().predict(z, *args, **conditions)


def available(folder: Path | None = None) -> list[str]:
    """Names that `load` knows. folder, here and below: where the weights lie, by default those of the package."""
    cards = (folder or FOLDER).glob("*.json")
    return sorted(path.stem for path in cards if path.with_suffix(".safetensors").exists() and _is_denoiser(path))


def _is_denoiser(path: Path) -> bool:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return True  # damaged: `load` says so
    return not isinstance(values, dict) or "config" in values


def card(name: str, folder: Path | None = None) -> dict[str, Any]:
    """The card of shipped weights. Raises UnknownWeights or DamagedWeights."""
    path = (folder or FOLDER) / f"{name}.json"
    if not path.exists():
        there = ", ".join(available(folder)) or "none"
        raise UnknownWeights(
            f"no weights named {name!r}; those that ship: {there}. A file or the folder of a training "
            f"run can be given as well; `python -m minivdm train` makes one"
        )
    try:
        return checkpoints.read_sealed(path, before_digests=UNSEALED)
    except checkpoints.DamagedCheckpoint as error:
        raise DamagedWeights(f"not the card of weights: {error}") from error


def find(source: str | Path, folder: Path | None = None) -> Path:
    """The path that a name, a file or the folder of a run stands for. Raises UnknownWeights."""
    folder = folder or FOLDER
    if not str(source) or str(source) == ".":
        raise UnknownWeights(f"weights: expected a name, a file or the folder of a run, got {str(source)!r}")
    if Path(source).name == str(source) and (folder / f"{source}.safetensors").exists():
        return folder / f"{source}.safetensors"
    if Path(source).exists():
        return Path(source)
    card(str(source), folder)  # raises, unless there is a card without weights
    raise DamagedWeights(f"{folder / str(source)}.safetensors is missing; its card is there")


def load(
    source: str | Path = "moving-mnist-32", device: str | torch.device = "cpu", folder: Path | None = None
) -> TrainedDenoiser:
    """A trained denoiser in eval mode, without gradients for its weights.

    Args:
        source: the name of weights that ship (checksum verified), a .safetensors file, or the folder of a run.
        device: where to put it.
        folder: where the weights of that name lie.

    Raises:
        UnknownWeights, DamagedWeights, checkpoints.DamagedCheckpoint.
    """
    device = guards.device("device", device)
    path = find(source, folder)
    about: dict[str, Any]
    if path.parent == (folder or FOLDER) and path.with_suffix(".json").exists():
        about = card(path.stem, folder)
        try:
            tensors, inside = checkpoints.read_tensors(path, about["sha256"])
            config = Recipe.from_dict(about["config"])
            if inside and Recipe.from_dict(inside["config"]) != config:
                raise DamagedWeights(f"{path}: the card's recipe is not the one inside the file")
        except (checkpoints.DamagedCheckpoint, KeyError, TypeError) as error:
            raise DamagedWeights(f"{error}. Install the package again, or check out minivdm/weights again") from error
    else:
        tensors, about = checkpoints.read_weights(path)
        config = Recipe.from_dict(about["config"])
    network = config.make_network()
    checkpoints.load_weights(network, {key: value.float() for key, value in tensors.items()})
    denoiser = TrainedDenoiser(network, config.make_schedule(), target=config.target, bounds=(-1.0, 1.0))
    denoiser.card, denoiser.config, denoiser.shape = about, config, config.video_shape
    return denoiser.to(device).eval().requires_grad_(False)


def weaker(denoise: object, folder: Path | None = None) -> TrainedDenoiser | None:
    """The same network earlier in its training, `NAME-early`, where it ships beside these weights; else None.

    For autoguidance (`minivdm.tasks.guided`). Only weights that ship themselves have one: of a run of the same name,
    nobody knows how good it is.
    """
    about = getattr(denoise, "card", None) or {}
    name = str(about.get("name"))
    if not ((folder or FOLDER) / f"{name}{EARLY}.json").exists() or card(name, folder)["sha256"] != about.get("sha256"):
        return None
    device = next(denoise.parameters()).device if isinstance(denoise, torch.nn.Module) else "cpu"
    return load(f"{name}{EARLY}", device, folder)


def check_companion(path: Path) -> Path:
    """A file that ships beside weights (NAME.metrics.jsonl, NAME.progress.npz), if it is what the card says, or the
    card says nothing of it. Raises DamagedWeights, FileNotFoundError."""
    name, _, what = path.name.partition(".")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    if (path.parent / f"{name}.json").exists():
        wanted = card(name, path.parent).get("files", {}).get(what)
        if wanted is not None and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise DamagedWeights(f"{path} is not as it was written: its SHA-256 is not the one on the card")
    return path


def verify(folder: Path | None = None) -> dict[str, str]:
    """What is wrong with the weights that ship: {file: what}, empty if all is well. Reads every file of them."""
    folder = folder or FOLDER
    wrong: dict[str, str] = {}
    names = {path.stem for ending in ("json", "safetensors") for path in folder.glob(f"*.{ending}")}
    names |= set(READERS) if folder == PACKAGE else set()
    for name in sorted(names):
        try:
            path = folder / f"{name}.json"
            if not path.exists():
                raise FileNotFoundError(f"{path} is missing")
            about = (
                card(name, folder)
                if _is_denoiser(path)
                else checkpoints.read_sealed(path, json.loads(path.read_bytes()))
            )
            checkpoints.read_tensors(folder / f"{name}.safetensors", about["sha256"])
            for what in about.get("files", {}):
                check_companion(folder / f"{name}.{what}")
        except (OSError, ValueError, KeyError) as error:
            wrong[name] = str(error) or repr(error)
    return wrong


guards.check_types(globals())
