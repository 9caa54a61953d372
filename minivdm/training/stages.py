"""Weights of a system of several networks: one file with a card, in few bits, each network by its stage's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from minivdm import guards
from minivdm.data.atomic import write_json
from minivdm.guards import BadArgument
from minivdm.training import checkpoints, exports, pretrained
from minivdm.training.checkpoints import Tensors


class MissingStage(BadArgument):
    """A stage of a system for which there are no weights."""


class StageWeights(NamedTuple):
    """config: what the stage's network is built from. tensors: its weights, in float32. about: its part of the card."""

    config: dict[str, Any]
    tensors: Tensors
    about: dict[str, Any]


def write(
    path: str | Path,
    networks: Mapping[str, tuple[Mapping[str, Any], Tensors]],
    about: Mapping[str, Any],
    precision: Literal["float16", "int8"] = "float16",
) -> None:
    """Write NAME.safetensors and its card NAME.json.

    Args:
        path: of either.
        networks: of each stage what its network is built from, and its weights.
        about: of the card, where `about["stages"]` has what is to be said of each stage.
        precision: of the weights; int8 (`eight_bits`) is half as many bytes, and rounds more.
    """
    path = Path(path).with_suffix(".safetensors")
    said = about.get("stages", {})
    small = {
        f"{stage}.{name}": value
        for stage, (_, tensors) in networks.items()
        for name, value in exports.packed(tensors, precision).items()
    }
    digest = checkpoints.write_tensors(path, small)
    parts = {
        stage: {**said.get(stage, {}), "network": dict(config), "parameters": sum(v.numel() for v in tensors.values())}
        for stage, (config, tensors) in networks.items()
    }
    card = {"name": path.stem, **about, "precision": precision, "sha256": digest, "bytes": path.stat().st_size}
    write_json(path.with_suffix(".json"), checkpoints.sealed({**card, "stages": parts}))


def ship(source: str | Path, target: str | Path, precision: Literal["float16", "int8"] = "int8") -> None:
    """Write stages that a script made once more, in fewer bits, under another name; their card says the same of them.

    source: a .safetensors file whose card lies beside it. target: of the new ones, such as minivdm/weights/NAME.
    """
    card = checkpoints.read_sealed(Path(source).with_suffix(".json"))
    found = read(source, list(card["stages"]), "the script of its card")
    networks = {stage: (part.config, part.tensors) for stage, part in found.items()}
    about = {key: value for key, value in card.items() if key not in ("name", "sha256", "bytes", "digest")}
    write(target, networks, about, precision)


def read(
    source: str | Path, wanted: Sequence[str], made_by: str, folder: Path | None = None
) -> dict[str, StageWeights]:
    """The weights of the wanted stages.

    Args:
        source: the name of weights that ship, or a .safetensors file whose card lies beside it.
        wanted: names of stages.
        made_by: the script that makes them, for messages.
        folder: where weights of that name lie.

    Raises:
        MissingStage: no such file, or a stage that is not in it; before anything is computed.
        DamagedCheckpoint: a checksum that does not fit.
    """
    path = Path(source)
    if path.suffix != ".safetensors":
        path = (folder or pretrained.FOLDER) / f"{source}.safetensors"
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        raise MissingStage(
            f"stages {', '.join(wanted)}: expected weights and a card at {path.name}, which is not there; "
            f"{made_by} makes them"
        )
    card = checkpoints.read_sealed(path.with_suffix(".json"))
    there = card.get("stages", {})
    if missing := [stage for stage in wanted if stage not in there]:
        raise MissingStage(
            f"stage {missing[0]!r}: expected its weights in {path.name}, which has {', '.join(there) or 'none'}; "
            f"{made_by} makes them"
        )
    tensors, _ = checkpoints.read_tensors(path, card["sha256"])
    return {
        stage: StageWeights(
            there[stage]["network"],
            {
                name.removeprefix(f"{stage}."): value.float() if value.is_floating_point() else value
                for name, value in tensors.items()
                if name.startswith(f"{stage}.")
            },
            there[stage],
        )
        for stage in wanted
    }


guards.check_types(globals())
