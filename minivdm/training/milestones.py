"""From noise to digits: what a run's network generated at each of its milestones, from the same noise every time.

    python -m minivdm progress runs/moving-mnist-32

A run keeps snapshots of its averaged weights (`snapshots/`). Here each of them, the untrained network before and the
newest checkpoint after, generates the same clips and is measured on the same held-out ones; the result is one small
file, NAME.progress.npz, that ships beside the weights.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from minivdm import guards, tasks
from minivdm.core.denoiser import Denoiser
from minivdm.data.atomic import write_atomic
from minivdm.networks.unet3d import UNet3D
from minivdm.training import checkpoints, exports, monitor, pretrained
from minivdm.training.recipe import Recipe

#: Grey levels are stored in steps of this size: noise, which the first snapshots generate, compresses badly.
GREY_STEP = 8


class Progress(NamedTuple):
    """What `read` returns.

    clips: (n,) clips seen at each stage. videos: (n, k, 1, f, h, w) float32 in [-1, 1], k clips of a stage. labels:
    (k,) the digit asked for. log_snr: (m,) noise levels and v_error: (n, m) held-out errors of v there. command: what
    made the file.
    """

    clips: np.ndarray
    videos: torch.Tensor
    labels: np.ndarray
    log_snr: np.ndarray
    v_error: np.ndarray
    command: str


def stages(run: Path) -> Iterator[tuple[int, UNet3D, Recipe]]:
    """(clips seen, network, configuration): untrained, every snapshot, the newest checkpoint.

    Raises FileNotFoundError where there is no checkpoint, DamagedCheckpoint.
    """
    last, about = checkpoints.read_weights(run)
    config = Recipe.from_dict(about["config"])
    yield 0, config.make_network(), config
    seen = 0
    kept = [path for path in (run / "snapshots").glob("clips-*.safetensors") if checkpoints.NAME.fullmatch(path.name)]
    for path in sorted(kept, key=checkpoints.number):
        weights, known = checkpoints.read_weights(path)
        seen = known["clips"]
        yield seen, _with(weights, config), config
    if about["clips"] > seen:
        yield about["clips"], _with(last, config), config


def record(
    run: str | Path,
    folder: Path | None = None,
    name: str | None = None,
    digits: tuple[int, ...] = (2, 3, 7),
    steps: int = 32,
    weight: float = 1.0,
    seed: int = 0,
    held_out_clips: int = 16,
    force: bool = False,
) -> Path:
    """Generate and measure at every stage of the run, write NAME.progress.npz, and its checksum on the card of weights
    of that name; returns its path.

    Args:
        run: the folder of the run.
        folder: where to; by default weights/ in the run's own folder.
        name: of the weights that it belongs to, by default the recipe's.
        digits: the label of each clip.
        steps, weight, seed: of sampling (DDIM; guidance as in VDM eq 6).
        held_out_clips: how many test clips the errors are measured on, those of data_seed 0 whatever the run's own is,
            so that stages of a training that was resumed with another seed can be held against each other.
        force: replace a file that was not made of this run.

    Raises:
        FileNotFoundError, DamagedCheckpoint where `run` is no run; RunFolderError where something is in the way.
    """
    run = Path(run)
    if not digits:
        raise guards.BadArgument("digits: expected one label or more, got none")
    _, about = checkpoints.read_weights(run)
    path = exports.target(run, folder, name or about["config"]["name"], "progress.npz", about["history"][0], force)
    found: dict[str, list[np.ndarray]] = {"clips": [], "frames": [], "v_error": []}
    for clips, network, config in stages(run):
        denoiser = Denoiser(network.eval().requires_grad_(False), config.make_schedule(), target=config.target)
        labels = torch.cat([tasks.multi_hot([digit], config.labels) for digit in digits])
        videos = tasks.generate(
            denoiser,
            labels,
            shape=config.video_shape,
            steps=steps,
            weight=weight,
            generator=torch.Generator().manual_seed(seed),
        )
        test = dataclasses.replace(config, data_seed=0).make_data(split="test")
        errors = monitor.held_out(denoiser, test, held_out_clips)
        grey = ((videos[:, 0].clamp(-1, 1) + 1) * (127.5 / GREY_STEP)).round().to(torch.uint8)
        found["clips"].append(np.array(clips))
        found["frames"].append(grey.numpy())
        found["v_error"].append(np.array(errors["v_error"], dtype=np.float64))
    words = [
        "python -m minivdm progress",
        run.name if run.is_absolute() else run.as_posix(),
        "--digits",
        *map(str, digits),
        f"--steps {steps} --weight {weight:g} --seed {seed}",
    ]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        **{key: np.stack(values) for key, values in found.items()},  # type: ignore[arg-type]
        labels=np.array(digits),
        log_snr=np.array(monitor.HELD_OUT_LOG_SNR),
        command=np.array(" ".join(words)),
    )
    write_atomic(path, buffer.getvalue())
    exports.stamp(path.with_name(path.name.replace(".progress.npz", ".safetensors")))
    return path


def read(name: str | Path = "moving-mnist-32", folder: Path | None = None) -> Progress:
    """The progress that ships with weights of that name, or of a file. Raises FileNotFoundError, DamagedWeights."""
    path = Path(name) if Path(name).suffix == ".npz" else (folder or pretrained.FOLDER) / f"{name}.progress.npz"
    if not path.exists():
        raise FileNotFoundError(f"no record of a training's progress at {path}; `python -m minivdm progress` makes one")
    pretrained.check_companion(path)
    try:
        with np.load(path) as stored:
            grey = torch.from_numpy(stored["frames"]).float() * (GREY_STEP / 127.5) - 1  # (n, k, f, h, w)
            return Progress(
                stored["clips"],
                grey.clamp(-1, 1)[:, :, None],
                stored["labels"],
                stored["log_snr"],
                stored["v_error"],
                str(stored["command"]),
            )
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError) as error:
        raise pretrained.DamagedWeights(f"{path} is no record of a training's progress ({error})") from error


def _with(weights: dict[str, torch.Tensor], config: Recipe) -> UNet3D:
    network = config.make_network()
    checkpoints.load_weights(network, weights)
    return network


guards.check_types(globals())
