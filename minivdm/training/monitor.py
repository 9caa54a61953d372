"""Watching a training run: the loss by noise level without stalling the accelerator, errors on held-out clips,
previews, and the metrics file: one JSON object a line. Knows nothing of the run: it is handed a denoiser."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minivdm import guards, tasks
from minivdm.core.denoiser import Denoiser
from minivdm.core.targets import loss_weight
from minivdm.data import writing
from minivdm.data.atomic import free_name, write_atomic
from minivdm.guards import BadFile, whole
from minivdm.training import distributed
from minivdm.training.distributed import World
from minivdm.training.objectives import Student
from minivdm.training.parts import CONDITIONS
from minivdm.training.recipe import Recipe

#: Inner edges of the bins of log-SNR over which losses are averaged; the outer bins are open.
EDGES = (-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0)
#: Noise levels at which held-out clips are looked at. Around 0 lies what decides shape and identity.
HELD_OUT_LOG_SNR = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0)


class Tally:
    """Sums of loss and count by bin of log-SNR, and of the gradient norm, kept on the device between readings."""

    def __init__(self, device: torch.device | str):
        self.edges = torch.tensor(EDGES, device=device)
        # The last column: gradient norm and steps. In float64 the order of the sums does not show in six decimals.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.sums = torch.zeros(2, len(EDGES) + 2, device=device, dtype=dtype)

    @torch.no_grad()
    def add(self, per_sample: Tensor, log_snr: Tensor) -> None:
        """per_sample, log_snr (b,). No synchronization."""
        loss = per_sample.detach().to(self.sums)
        place = torch.bucketize(log_snr.to(self.edges), self.edges)
        self.sums[0].index_add_(0, place, loss)
        self.sums[1].index_add_(0, place, torch.ones_like(loss))

    @torch.no_grad()
    def add_norm(self, norm: Tensor) -> None:
        """The gradient's norm in a step, a scalar."""
        norm = norm.detach().to(self.sums)
        self.sums[:, -1] += torch.stack([norm, torch.ones_like(norm)])

    def gather(self, world: World) -> None:
        """Move the sums of all processes to the first; what a checkpoint then holds is the whole."""
        total = distributed.add_up(self.sums, world)
        self.sums.copy_(total if world.first else torch.zeros_like(total))

    def read(self, world: World) -> dict[str, Any]:
        """Means over all processes since the last reading, then start anew. Empty bins are None."""
        sums, counts = distributed.add_up(self.sums, world).cpu().double()
        self.sums.zero_()
        bins = [round(float(s / n), 6) if n else None for s, n in zip(sums[:-1], counts[:-1], strict=True)]
        return {
            "loss": round(float(sums[:-1].sum() / counts[:-1].sum()), 6),
            "loss_by_log_snr": bins,
            "count_by_log_snr": counts[:-1].long().tolist(),
            "grad_norm": round(float(sums[-1] / counts[-1]), 5),
        }


@torch.no_grad()
def held_out(denoiser: Denoiser, data: Any, clips: int = 32, batch: int = 8) -> dict[str, list[float | None]]:
    """Mean squared errors of v and of x_hat on the first `clips` clips, labels and text given, at fixed noise.

    The same clips and noise at every call, so that differences between calls are the network's. A noise level that the
    schedule does not reach is None.
    """
    clips, batch = whole("clips", clips), whole("batch", batch)
    if not isinstance(denoiser, Denoiser) or not hasattr(data, "clips") or not hasattr(data, "device"):
        got = f"{type(denoiser).__name__} and {type(data).__name__}"
        raise guards.BadType(f"denoiser, data: expected a Denoiser and a source of clips, got {got}")
    device = data.device
    generator = torch.Generator(device).manual_seed(0)
    schedule = denoiser.schedule
    ends = torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)
    lowest, highest = schedule.log_snr(ends).tolist()
    levels = [level for level in HELD_OUT_LOG_SNR if lowest <= level <= highest]
    times = schedule.time(torch.tensor(levels, dtype=torch.float64))
    total = torch.zeros(len(levels), device=device)
    for start in range(0, clips, batch):
        part = data.clips(torch.arange(start, min(start + batch, clips)))
        taken = getattr(denoiser.network, "config", {})
        given: dict[str, Any] = {name: CONDITIONS[name](part) for name in CONDITIONS if taken.get(name)}
        noise = torch.randn(part.video.shape, generator=generator, device=device)
        for k, t in enumerate(times):
            loss = denoiser.loss(
                part.video,
                label_drop=0.0,
                t=t.expand(len(part.video)),
                noise=noise,
                weighting="v",
                **given,
            )
            total[k] += loss.per_sample.sum()
    v = dict(zip(levels, (total / clips).cpu().double().tolist(), strict=True))
    weights = dict(zip(levels, loss_weight("v", times, schedule).tolist(), strict=True))
    x = {level: error / weights[level] for level, error in v.items()}  # ||v - v_hat||^2 is that much of ||x - x_hat||^2
    return {
        "log_snr": list(HELD_OUT_LOG_SNR),
        "v_error": [round(v[level], 6) if level in v else None for level in HELD_OUT_LOG_SNR],
        "x_error": [round(x[level], 6) if level in x else None for level in HELD_OUT_LOG_SNR],
    }


def preview(recipe: Recipe, denoiser: Denoiser, data: Any, path: Path, clips: int = 4, steps: int = 32) -> None:
    """Sample a few clips, always from the same noise, and write them as a picture; a student as it is meant to be."""
    student = recipe.objective != "denoising"
    labels = data.clips(torch.arange(clips)).labels if recipe.labels else None
    videos = tasks.generate(
        denoiser,
        labels,
        count=clips,
        shape=recipe.video_shape,
        steps=Student(**recipe.student).steps if student else steps,
        weight=1.0 if recipe.labels and not student else 0.0,
        generator=torch.Generator(data.device).manual_seed(0),
    )
    writing.save(videos.clamp(-1, 1), path)  # NaN stays and is refused


def hardware(device: torch.device) -> str:
    """The class of machine, without names: "CPU, 2 cores" or the accelerator's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"


def append(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON line, on a line of its own whatever was interrupted before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as handle:
        end = handle.seek(0, 2)
        if end:
            handle.seek(end - 1)
        torn = end and handle.read(1) != b"\n"
        handle.write((b"\n" if torn else b"") + json.dumps(row).encode() + b"\n")


def rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics file; none if there is no file. Lines that are damaged are left out with a warning."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    found, bad = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if type(row["clips"]) is not int or not isinstance(row["kind"], str):
                raise ValueError(line)
            found.append(row)
        except (ValueError, KeyError, TypeError, RecursionError):
            if number < len(lines):  # the last line may be one that lost power half-way
                bad.append(number)
    if bad:
        warnings.warn(f"{path}: left out {len(bad)} damaged lines, the first is line {bad[0]}", stacklevel=2)
    return found


def cut_metrics(path: Path, clips: int) -> None:
    """Drop what was written after `clips` clips: a resumed run goes through it again."""
    if path.exists():
        kept = [json.dumps(row) + "\n" for row in rows(path) if row["clips"] <= clips]
        write_atomic(path, "".join(kept).encode())


def set_metrics_aside(path: Path) -> Path | None:
    """Move the metrics of a run that starts anew out of the way; returns where to, None if there are none."""
    if not path.exists() or not path.stat().st_size:
        return None
    return path.rename(free_name(path.with_name(f"{path.stem}-before{path.suffix}")))


def mean_by_bin(train_rows: list[dict[str, Any]], share: float = 0.1) -> list[float | None]:
    """Training loss by bin of log-SNR, averaged over the last `share` of the clips; None where there is nothing."""
    if not train_rows:
        return []
    late = [row for row in train_rows if row["clips"] > (1 - share) * train_rows[-1]["clips"]]
    counts = np.array([row["count_by_log_snr"] for row in late], dtype=np.float64)  # (rows, bins)
    losses = np.array([row["loss_by_log_snr"] for row in late], dtype=np.float64)  # None becomes NaN
    total = np.nansum(losses * counts, axis=0)
    return [round(float(s / n), 6) if n else None for s, n in zip(total, counts.sum(0), strict=True)]


def read_metrics(path: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """Curves of a run, for plotting: {"train": {"clips", "loss", "loss_by_log_snr" (n, bins), "lr", ...},
    "held_out": {"clips", "v_error" (n, levels), "x_error", "log_snr"}}; empty bins are NaN.

    path: a run's folder or its metrics.jsonl. Raises FileNotFoundError, BadFile for rows that are no metrics.
    """
    path = Path(path)
    path = path / "metrics.jsonl" if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"no metrics of a training run at {path}")
    curves: dict[str, dict[str, np.ndarray]] = {}
    found = rows(path)
    for kind in ("train", "held_out"):
        mine = [row for row in found if row.get("kind") == kind]
        keys = [key for key in (mine[0] if mine else {}) if key != "kind" and all(key in row for row in mine)]
        try:
            curves[kind] = {key: np.array([row[key] for row in mine], dtype=np.float64) for key in keys}
        except (TypeError, ValueError) as error:
            raise BadFile(f"{path}: rows of kind {kind!r} differ in their columns ({error})") from error
    return curves


guards.check_types(globals())
