"""From a run to weights that ship: its moving average in 16 or 8 bits, a card, and its metrics."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from minivdm import guards
from minivdm.core.denoiser import Denoiser
from minivdm.data.atomic import write_atomic, write_json
from minivdm.networks import eight_bits
from minivdm.training import checkpoints, monitor, pretrained
from minivdm.training.folder import RunFolderError
from minivdm.training.recipe import Recipe
from minivdm.training.validate import require

#: Files that lie beside NAME.safetensors and whose checksums are on the card.
COMPANIONS = ("metrics.jsonl", "progress.npz")


def export(
    run: str | Path,
    name: str | None = None,
    folder: Path | None = None,
    metrics: dict[str, Any] | None = None,
    clips: int = 64,
    force: bool = False,
    precision: Literal["float16", "int8"] | None = None,
) -> Path:
    """Write the moving average of a run in few bits, with its card and its metrics; the same run gives the same bytes.

    Args:
        run: the folder of the run.
        name: of the weights, by default the recipe's.
        folder: where to; by default weights/ in the run's own folder, where an earlier export is replaced.
        metrics: measured figures for the card.
        clips: how many test clips the held-out loss on the card is measured on.
        force: replace weights of that name which something else made.
        precision: of the weights; by default float16, and int8 (`eight_bits`) for students, which are called few times.

    Returns:
        The path of the weights.

    Raises:
        FileNotFoundError or DamagedCheckpoint where `run` is no run; RunFolderError where something is in the way.
    """
    run = Path(run)
    found = checkpoints.load(run / "checkpoints")
    if found is None:
        raise FileNotFoundError(f"{run} holds no checkpoint of a training run")
    tensors, state = found
    config = Recipe.from_dict(state["config"])
    path = target(run, folder, name or config.name, "safetensors", state["history"][0], force)
    average = {key[4:]: value for key, value in tensors.items() if key.startswith("ema.")}
    precision = precision or ("int8" if config.teacher else "float16")
    small = packed(average, precision)
    network = config.make_network()  # judged as it ships
    checkpoints.load_weights(network, {key: value.float() for key, value in eight_bits.unpack(small).items()})
    denoiser = Denoiser(network.eval(), config.make_schedule(), target=config.target)
    held_out = monitor.held_out(denoiser, config.make_data(split="test"), clips)
    found_rows = [row for row in monitor.rows(run / "metrics.jsonl") if row["clips"] <= state["clips"]]
    rows = [row for row in found_rows if row["kind"] == "train"]
    write_atomic(path.with_suffix(".metrics.jsonl"), "".join(json.dumps(row) + "\n" for row in found_rows).encode())
    digest = checkpoints.write_tensors(path, small, {"config": config.to_dict(), "clips": state["clips"]})
    about = {
        "name": path.stem,
        "sha256": digest,
        "bytes": path.stat().st_size,
        "precision": precision,
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
        "files": checksums(path),
        "config": config.to_dict(),
    }
    write_json(path.with_suffix(".json"), checkpoints.sealed(about))
    return path


def packed(tensors: checkpoints.Tensors, precision: Literal["float16", "int8"]) -> checkpoints.Tensors:
    """Weights in that precision; whole numbers stay as they are."""
    return eight_bits.pack(tensors) if precision == "int8" else checkpoints.in_half(tensors)


def annotate(name: str, metrics: dict[str, Any], folder: Path | None = None) -> None:
    """Put measured figures on the card of shipped weights. folder: where these lie, by default in the package."""
    path = (folder or pretrained.FOLDER) / f"{name}.json"
    write_json(path, checkpoints.sealed({**pretrained.card(name, folder), "metrics": metrics}))


def target(run: Path, folder: Path | None, name: str, ending: str, start: dict[str, Any], force: bool) -> Path:
    """Where a file made from a run goes. start: the first entry of the run's history.

    Raises RecipeError for a name that leaves the folder, RunFolderError for weights that are not this run's.
    """
    plain = Path(name).name == name and not set(name) & set("/\\\0") and name[:1] not in ("", ".")
    require(plain, "name", "a name without path separators", name)
    own = run / "weights"
    folder = own if folder is None else Path(folder)
    path, card = folder / f"{name}.{ending}", folder / f"{name}.json"
    if not force and (path.exists() or path.is_symlink()):
        try:
            mine = folder.resolve() == own.resolve()
            # Without a card it is an export that was killed, or a record of progress before the first export.
            mine = mine and (not card.exists() or json.loads(card.read_bytes())["commands"][0] == start)
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            mine = False
        if not mine:
            raise RunFolderError(f"{path} is there already and was not made of {run}; --name another, or --force")
    return path


def checksums(path: Path) -> dict[str, str]:
    """SHA-256 of the files that lie beside weights, by the ends of their names."""
    beside = {what: path.with_name(f"{path.stem}.{what}") for what in COMPANIONS}
    return {what: hashlib.sha256(p.read_bytes()).hexdigest() for what, p in beside.items() if p.exists()}


def stamp(path: Path) -> None:
    """Renew the checksums on the card of weights after a file beside them was made again; without a card, nothing."""
    card = path.with_suffix(".json")
    if card.exists():
        about = checkpoints.read_sealed(card, before_digests=json.loads(card.read_bytes()))
        write_json(card, checkpoints.sealed({**about, "files": checksums(path)}))


guards.check_types(globals())
