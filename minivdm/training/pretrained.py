"""Weights that ship with the package: `load("moving-mnist-32")`. Beside each NAME.safetensors lies a card, NAME.json,
with the command that made it, what it was measured to do, and its checksum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from minivdm.core.denoiser import Denoiser
from minivdm.training import build, checkpoints, monitor
from minivdm.training.configs import TrainConfig

FOLDER = Path(__file__).parents[1] / "weights"


class UnknownWeights(ValueError):
    """No weights of that name ship, and no file or run lies there."""


class DamagedWeights(checkpoints.DamagedCheckpoint):
    """Weights whose checksum is not the one on their card, or which do not fit it."""


class TrainedDenoiser(Denoiser):
    """A denoiser that knows where it comes from: `card`, `config`, and `shape`, the (c, f, h, w) it was trained on."""

    card: dict[str, Any]
    config: TrainConfig
    shape: tuple[int, int, int, int]


def available(folder: Path | None = None) -> list[str]:
    """Names that `load` knows. folder, here and below: where the weights lie, by default those of the package."""
    cards = (folder or FOLDER).glob("*.json")
    # The readers of `metrics` and `frechet` lie in the same folder; they are no denoisers and have no configuration.
    return sorted(path.stem for path in cards if path.with_suffix(".safetensors").exists() and _is_denoiser(path))


def _is_denoiser(path: Path) -> bool:
    try:
        return "config" in json.loads(path.read_text())
    except ValueError:
        return True  # damaged: `load` says so


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
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DamagedWeights(f"{path} is not the card of weights ({error})") from error


def find(source: str | Path, folder: Path | None = None) -> Path:
    """The path that a name, a file or the folder of a run stands for. Raises UnknownWeights."""
    folder = folder or FOLDER
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

    source: the name of weights that ship (checksum verified), or a .safetensors file, or the folder of a training run.
    Raises UnknownWeights, DamagedWeights, checkpoints.DamagedCheckpoint.
    """
    path = find(source, folder)
    about: dict[str, Any]
    if path.parent == (folder or FOLDER) and path.with_suffix(".json").exists():
        about = card(path.stem, folder)
        try:
            tensors, _ = checkpoints.read_tensors(path, about["sha256"])
            config = TrainConfig.from_dict(about["config"])
        except (checkpoints.DamagedCheckpoint, KeyError, TypeError) as error:
            raise DamagedWeights(f"{error}. Install the package again, or check out minivdm/weights again") from error
    else:
        tensors, about = checkpoints.read_weights(path)
        config = TrainConfig.from_dict(about["config"])
    network = build.network(config)
    checkpoints.load_weights(network, {key: value.float() for key, value in tensors.items()})
    denoiser = TrainedDenoiser(network, build.schedule(config), target=config.target, bounds=(-1.0, 1.0))
    denoiser.card, denoiser.config, denoiser.shape = about, config, build.video_shape(config)
    return denoiser.to(device).eval().requires_grad_(False)


def export(
    run: str | Path,
    name: str | None = None,
    folder: Path | None = None,
    metrics: dict[str, Any] | None = None,
    clips: int = 64,
) -> Path:
    """Write the moving average of a run in half precision, with its card and its metrics, into `folder`; returns the
    weights' path.

    metrics: measured figures for the card. clips: how many test clips the held-out loss on the card is measured on.
    Raises FileNotFoundError or DamagedCheckpoint where `run` is no run.
    """
    found = checkpoints.load(Path(run) / "checkpoints")
    if found is None:
        raise FileNotFoundError(f"{run} holds no checkpoint of a training run")
    tensors, state = found
    config = TrainConfig.from_dict(state["config"])
    name = name or config.name
    half = {
        key[4:]: value.half() if value.is_floating_point() else value
        for key, value in tensors.items()
        if key.startswith("ema.")
    }
    network = build.network(config)
    checkpoints.load_weights(network, {key: value.float() for key, value in half.items()})
    denoiser = Denoiser(network.eval(), build.schedule(config), target=config.target)
    held_out = monitor.held_out(denoiser, build.data(config, split="test"), clips)
    found_rows = [row for row in monitor.rows(Path(run) / "metrics.jsonl") if row["clips"] <= state["clips"]]
    rows = [row for row in found_rows if row["kind"] == "train"]
    path = (folder or FOLDER) / f"{name}.safetensors"
    digest = checkpoints.write_tensors(
        path, half, {"config": json.dumps(config.to_dict()), "clips": str(state["clips"])}
    )
    checkpoints.write_json(
        path.with_suffix(".json"),
        {
            "name": name,
            "sha256": digest,
            "bytes": path.stat().st_size,
            "precision": "float16",
            "parameters": sum(p.numel() for p in network.parameters()),
            "commands": state["history"],
            "seed": config.seed,
            "data_seed": config.data_seed,
            "clips": state["clips"],
            "steps": state["steps"],
            "hours": round(state["seconds"] / 3600, 2),
            "hardware": state["hardware"],
            "held_out": {"clips": clips, "split": "test", **held_out},
            "train_loss_by_log_snr": {"edges": list(monitor.EDGES), "loss": monitor.mean_by_bin(rows)},
            "metrics": metrics or {},
            "config": config.to_dict(),
        },
    )
    log = "".join(json.dumps(row) + "\n" for row in found_rows)
    checkpoints.write_atomic(path.with_suffix(".metrics.jsonl"), log.encode())
    return path
