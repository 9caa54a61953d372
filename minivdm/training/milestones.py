"""From noise to digits: what a run's network generated at each of its milestones, from the same noise every time.

    python -m minivdm progress runs/moving-mnist-32

A run keeps snapshots of its averaged weights (`snapshots/`). Here each of them, the untrained network before and the
newest checkpoint after, generates the same clips and is measured on the same held-out ones; the result is one small
file, NAME.progress.npz, that ships beside the weights.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from minivdm import tasks
from minivdm.core.denoiser import Denoiser
from minivdm.networks.unet3d import UNet3D
from minivdm.training import build, checkpoints, monitor, pretrained
from minivdm.training.configs import TrainConfig

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


def stages(run: Path) -> Iterator[tuple[int, UNet3D, TrainConfig]]:
    """(clips seen, network, configuration): untrained, every snapshot, the newest checkpoint.

    Raises FileNotFoundError where there is no checkpoint, DamagedCheckpoint.
    """
    last, about = checkpoints.read_weights(run)
    config = TrainConfig.from_dict(about["config"])
    yield 0, build.network(config), config
    seen = 0
    for path in sorted((run / "snapshots").glob("clips-*.safetensors")):
        weights, told = checkpoints.read_weights(path)
        seen = told["clips"]
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
) -> Path:
    """Generate and measure at every stage of the run, write NAME.progress.npz into `folder`; returns its path.

    digits: what is asked for, a clip each. steps, weight, seed: of sampling (DDIM; guidance as in VDM eq 6).
    """
    run = Path(run)
    found: dict[str, list[np.ndarray]] = {"clips": [], "frames": [], "v_error": []}
    for clips, network, config in stages(run):
        denoiser = Denoiser(network.eval().requires_grad_(False), build.schedule(config), target=config.target)
        labels = torch.cat([tasks.multi_hot([digit], config.labels) for digit in digits])
        videos = tasks.generate(
            denoiser,
            labels,
            shape=build.video_shape(config),
            steps=steps,
            weight=weight,
            generator=torch.Generator().manual_seed(seed),
        )
        errors = monitor.held_out(denoiser, build.data(config, split="test"), held_out_clips)
        grey = ((videos[:, 0].clamp(-1, 1) + 1) * (127.5 / GREY_STEP)).round().to(torch.uint8)
        found["clips"].append(np.array(clips))
        found["frames"].append(grey.numpy())
        found["v_error"].append(np.array(errors["v_error"]))
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
    path = (folder or pretrained.FOLDER) / f"{name or config.name}.progress.npz"
    checkpoints.write_atomic(path, buffer.getvalue())
    return path


def read(name: str | Path = "moving-mnist-32", folder: Path | None = None) -> Progress:
    """The progress that ships with weights of that name, or of a file. Raises FileNotFoundError."""
    path = Path(name) if Path(name).suffix == ".npz" else (folder or pretrained.FOLDER) / f"{name}.progress.npz"
    if not path.exists():
        raise FileNotFoundError(f"no record of a training's progress at {path}; `python -m minivdm progress` makes one")
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


def _with(weights: dict[str, torch.Tensor], config: TrainConfig) -> UNet3D:
    network = build.network(config)
    checkpoints.load_weights(network, weights)
    return network
