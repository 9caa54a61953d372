"""Public functions of data, measure and training with arguments that they accept: what goes with `functions`."""

from __future__ import annotations

import atexit
import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from functions import CLIP, NETWORK, POINTS, Case, Tiny, seeded

from minivdm import data, training
from minivdm.data import sheets, video_files, video_folder, writing
from minivdm.measure import frechet, metrics, seams, sets, tracks
from minivdm.training import distributed, exports, loop, milestones, monitor, muon, pretrained

FOLDER = Path(tempfile.mkdtemp(prefix="minivdm-attack-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
CLIPS = data.MovingMNIST(frames=6)
VIDEO, OTHER = CLIPS.clips([0, 1]).video, CLIPS.clips([2, 3]).video
DIGITS = CLIPS.clips([0, 1]).labels
SMALL = data.MovingMNIST(16, 2)
RECIPE = training.Recipe(size=16, frames=2, clips=4, batch=2, speed=1.0, network=NETWORK, milestones=(), warmup=0)


def trained() -> Path:
    """The folder of a run of four clips."""
    folder = FOLDER / "run"
    if not folder.exists():
        training.fit(RECIPE, folder, device="cpu", progress=False)
    return folder


def film() -> Path:
    """A grey animation of four frames."""
    return writing.save(CLIP, FOLDER / "film.gif", zoom=1)


def cases() -> list[Case]:
    found: list[Case] = []

    def add(function: Callable[..., Any], name: str = "", /, **arguments: Any) -> None:
        found.append(Case(name or getattr(function, "__qualname__", "?"), function, arguments))

    # ---- data
    add(data.MovingMNIST, size=(16, 7), frames=2, digits=(1, 2), speed=1.0, motion="stochastic", split="test", seed=1,
        device="cpu")  # fmt: skip
    add(SMALL.clips, "MovingMNIST.clips", indices=[0, 1])
    add(SMALL.images, "MovingMNIST.images", indices=torch.arange(2))
    add(SMALL.__getitem__, "MovingMNIST[]", index=3)
    add(data.load_digits, source=None, split="train")
    out = FOLDER / "out.gif"
    add(writing.save, "writing.save", videos=CLIP, path=out, fps=8.0, zoom=1, columns=2, known=[0], replace=True)
    add(writing.save, "writing.save png", videos=CLIP, path=out.with_suffix(".png"), columns=2, known=[0])
    add(writing.save_comparison, panels={"a": CLIP, "b": CLIP}, path=out, fps=8.0, zoom=1, known={"a": [0]})
    add(writing.check, "writing.check", path=out, fps=8.0, zoom=1, shape=(1, 1, 4, 4))
    add(sheets.filmstrip, videos=CLIP, every=2, zoom=1, wrap=2, known=[0])
    add(video_files.load, "video_files.load", path=film(), size=8, channels=1)
    folder = FOLDER / "films"
    for number in range(2):
        folder.mkdir(exist_ok=True)
        writing.save(seeded(1, 1, 8, 8, 8), folder / f"{number}.gif", zoom=1)
    add(data.VideoFolder, path=folder, size=8, frames=2, every=1, stride=1, channels=1, split="train", seed=0,
        device="cpu")  # fmt: skip
    add(data.VideoFolder(folder, 8, 2, channels=1).clips, "VideoFolder.clips", indices=[0, 1])
    add(video_folder.find_videos, path=folder)

    # ---- measure
    for metric in (metrics.squared_error, metrics.absolute_error, metrics.ssim):
        add(metric, prediction=VIDEO, target=OTHER)
    add(metrics.psnr, prediction=VIDEO, target=OTHER, of="clip")
    for function in (metrics.read, metrics.keeps_identity, metrics.identity, tracks.fit_track, tracks.track_deviation,
                     frechet.reader_score, seams.feature_consistency, frechet.clip_features):  # fmt: skip
        add(function, videos=VIDEO)
    for function in (metrics.legible, metrics.legibility, metrics.same_in_every_frame):
        add(function, videos=VIDEO, labels=DIGITS, reading=metrics.read(VIDEO))
    add(tracks.rigidity, videos=CLIP, reach=1)
    add(seams.best_of_n, samples=torch.stack([-VIDEO, OTHER]), target=VIDEO, metric=metrics.psnr, larger_is_better=True)
    add(seams.block_seam, videos=VIDEO, seams=[2], of="pixels")
    add(frechet.features, videos=VIDEO, batch=1)
    add(frechet.frechet, first=POINTS, second=POINTS + 1)
    for distance in (frechet.frame_distance, frechet.clip_distance):
        add(distance, videos=VIDEO, reference=OTHER)
    long = CLIP.repeat(1, 1, 3, 1, 1)
    add(frechet.fvd, videos=long, reference=-long, i3d=lambda x: x.flatten(1)[:, :3], batch=1)
    add(sets.kernel_distance, first=POINTS, second=POINTS + 1)
    add(sets.precision_recall, generated=POINTS, real=POINTS + 1, neighbours=2)
    add(sets.energy_score, samples=seeded(3, 5, 2), target=POINTS)

    # ---- training
    for field in dataclasses.fields(training.Recipe):
        value = getattr(RECIPE, field.name)
        add(lambda value, name=field.name: dataclasses.replace(RECIPE, **{name: value}), f"Recipe.{field.name}",
            value=value)  # fmt: skip
    for name, value in NETWORK.items():
        add(lambda value, name=name: dataclasses.replace(RECIPE, network={**NETWORK, name: value}),
            f"Recipe.network.{name}", value=value)  # fmt: skip
    add(RECIPE.override, "Recipe.override", assignments=["lr=0.1"])
    add(training.Recipe.from_dict, "Recipe.from_dict", values=RECIPE.to_dict())
    add(training.get, "recipes.get", name="moving-mnist-32")
    add(distributed.join, device="cpu")
    add(pretrained.load, "pretrained.load", source=trained(), device="cpu")
    add(monitor.held_out, denoiser=pretrained.load(trained()), data=SMALL, clips=2, batch=2)
    add(exports.export, run=trained(), name="weights", folder=FOLDER / "weights", metrics={}, clips=2, force=True)
    add(milestones.record, run=trained(), folder=FOLDER / "weights", name="weights", digits=(1,), steps=1, weight=1.0,
        seed=0, held_out_clips=2, force=True)  # fmt: skip
    weight = torch.nn.Parameter(seeded(3, 4))
    add(muon.Muon, params=[weight], lr=0.1, momentum=0.9, weight_decay=0.1)
    add(muon.newton_schulz, matrices=seeded(1, 3, 4), steps=2)
    add(loop.train, network=Tiny(), data=lambda i: CLIP[i % 2], steps=2, batch=2, lr=1e-3, decay=0.9,
        target="v", seed=0, every=0)  # fmt: skip
    for key, value in {"resume": False, "init": trained(), "device": "cpu", "minutes": 1.0, "progress": False}.items():
        add(lambda value, key=key: training.fit(RECIPE, Path(tempfile.mkdtemp(dir=FOLDER)) / "run",
            **{"device": "cpu", "progress": False, key: value})[1], f"fit.{key}", value=value)  # fmt: skip
    return found
