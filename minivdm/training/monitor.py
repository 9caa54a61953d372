"""Watching a training run: the loss by noise level without stalling the accelerator, the metrics file, a look at
samples and at held-out clips."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from minivdm import tasks
from minivdm.core.denoiser import Denoiser
from minivdm.data import writing
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.training import build, distributed
from minivdm.training.checkpoints import write_atomic
from minivdm.training.distributed import World

if TYPE_CHECKING:
    from minivdm.training import Trainer

#: Inner edges of the bins of log-SNR over which losses are averaged; the outer bins are open.
EDGES = (-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0)
#: Noise levels at which held-out clips are looked at. Around 0 lies what decides shape and identity.
HELD_OUT_LOG_SNR = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0)


class Tally:
    """Sums of loss and count by bin of log-SNR, and of the gradient norm, kept on the device between readings."""

    def __init__(self, device: torch.device | str):
        self.edges = torch.tensor(EDGES, device=device)
        self.sums = torch.zeros(2, len(EDGES) + 2, device=device)  # last column: gradient norm and steps

    @torch.no_grad()
    def add(self, per_sample: Tensor, log_snr: Tensor, norm: Tensor) -> None:
        """per_sample, log_snr (b,); norm scalar. No synchronization."""
        loss = per_sample.detach().float()
        place = torch.bucketize(log_snr.to(self.edges), self.edges)
        self.sums[0].index_add_(0, place, loss)
        self.sums[1].index_add_(0, place, torch.ones_like(loss))
        self.sums[:, -1] += torch.stack([norm.detach().float(), torch.ones_like(norm, dtype=torch.float32)])

    def read(self, world: World) -> dict[str, Any]:
        """Means over all processes since the last reading, then start anew. Empty bins are None."""
        sums, counts = distributed.add_up(self.sums, world).double().cpu()
        self.sums.zero_()
        bins = [round(float(s / n), 6) if n else None for s, n in zip(sums[:-1], counts[:-1], strict=True)]
        return {
            "loss": round(float(sums[:-1].sum() / counts[:-1].sum()), 6),
            "loss_by_log_snr": bins,
            "count_by_log_snr": counts[:-1].long().tolist(),
            "grad_norm": round(float(sums[-1] / counts[-1]), 5),
        }


@torch.no_grad()
def held_out(denoiser: Denoiser, data: MovingMNIST, clips: int = 32, batch: int = 8) -> dict[str, list[float]]:
    """Mean squared errors of v and of x_hat on the first `clips` clips, labels given, at fixed noise.

    The same clips and noise at every call, so that differences between calls are the network's. For a schedule that
    preserves variance, x_hat - x = -sigma (v_hat - v), so the second is the first times sigma^2.
    """
    device = data.device
    generator = torch.Generator(device).manual_seed(0)
    total = torch.zeros(len(HELD_OUT_LOG_SNR), device=device)
    levels = torch.tensor(HELD_OUT_LOG_SNR, dtype=torch.float64)
    for start in range(0, clips, batch):
        part = data.clips(torch.arange(start, min(start + batch, clips)))
        labels = part.labels if getattr(denoiser.network, "config", {}).get("labels") else None
        noise = torch.randn(part.video.shape, generator=generator, device=device)
        for k, t in enumerate(denoiser.schedule.time(levels)):
            loss = denoiser.loss(
                part.video, labels=labels, label_drop=0.0, t=t.expand(len(part)), noise=noise, weighting="v"
            )
            total[k] += loss.per_sample.sum()
    v = (total / clips).double().cpu()
    return {
        "log_snr": list(HELD_OUT_LOG_SNR),
        "v_error": [round(float(e), 6) for e in v],
        "x_error": [round(float(e), 6) for e in v * torch.sigmoid(-levels)],
    }


def look(trainer: Trainer, folder: Path, clips: int = 4, steps: int = 32) -> None:
    """Sample a few clips with the averaged weights (always from the same noise) into previews/, and write held-out
    errors to metrics.jsonl. Uses generators of its own: training goes on as if nobody had looked."""
    cfg, device = trainer.config, trainer.device
    data = build.data(cfg, split="test", device=device)
    row = {"kind": "held_out", "clips": trainer.clips, **held_out(trainer.ema_denoiser, data)}
    append(folder / "metrics.jsonl", row)
    conditional = bool(cfg.labels)
    labels = data.clips(torch.arange(clips)).labels if conditional else None
    generator = torch.Generator(device).manual_seed(0)
    videos = tasks.generate(
        trainer.ema_denoiser,
        labels,
        count=clips,
        shape=build.video_shape(cfg),
        steps=steps,
        weight=1.0 if conditional else 0.0,
        generator=generator,
    )
    writing.save(videos, folder / "previews" / f"clips-{trainer.clips:09d}.png")


def hardware(device: torch.device) -> str:
    """The class of machine, without names: "CPU, 2 cores" or the accelerator's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"


def append(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as handle:
        handle.write(json.dumps(row) + "\n")


def rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics file; none if there is no file."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a run that lost power
            continue
    return found


def mean_by_bin(train_rows: list[dict[str, Any]], share: float = 0.1) -> list[float | None]:
    """Training loss by bin of log-SNR, averaged over the last `share` of the clips; None where there is nothing."""
    if not train_rows:
        return []
    late = [row for row in train_rows if row["clips"] > (1 - share) * train_rows[-1]["clips"]]
    counts = np.array([row["count_by_log_snr"] for row in late], dtype=np.float64)  # (rows, bins)
    losses = np.array([row["loss_by_log_snr"] for row in late], dtype=np.float64)  # None becomes NaN
    total = np.nansum(losses * counts, axis=0)
    return [round(float(s / n), 6) if n else None for s, n in zip(total, counts.sum(0), strict=True)]


def cut_metrics(path: Path, clips: int) -> None:
    """Drop what was written after `clips` clips: a resumed run goes through it again."""
    if path.exists():
        kept = [json.dumps(row) + "\n" for row in rows(path) if row.get("clips", 0) <= clips]
        write_atomic(path, "".join(kept).encode())


def read_metrics(path: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """Curves of a run, for plotting: {"train": {"clips", "loss", "loss_by_log_snr" (n, bins), "lr", ...},
    "held_out": {"clips", "v_error" (n, levels), "x_error", "log_snr"}}; empty bins are NaN.

    path: a run's folder or its metrics.jsonl. Raises FileNotFoundError.
    """
    path = Path(path)
    path = path / "metrics.jsonl" if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"no metrics of a training run at {path}")
    curves: dict[str, dict[str, np.ndarray]] = {}
    found = rows(path)
    for kind in ("train", "held_out"):
        mine = [row for row in found if row.get("kind") == kind]
        keys = [key for key in (mine[0] if mine else {}) if key != "kind"]
        curves[kind] = {key: np.array([row[key] for row in mine], dtype=np.float64) for key in keys}
    return curves
