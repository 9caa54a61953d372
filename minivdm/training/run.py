"""A trainer with a folder: it can be stopped at any time and continued bit for bit. `fit` is all that a user calls."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from minivdm import guards
from minivdm.data.atomic import write_json
from minivdm.guards import BadRun
from minivdm.training import checkpoints, distributed, folder, monitor, pretrained, recipes
from minivdm.training.recipe import Recipe
from minivdm.training.trainer import Trainer


class TrainingDiverged(BadRun, FloatingPointError):
    """The loss or the gradient is no longer a finite number."""


class Run:
    """A trainer with a folder: config.json, checkpoints/, snapshots/, previews/ and metrics.jsonl."""

    def __init__(self, trainer: Trainer, folder: Path, say: Callable[[str], Any] = print):
        self.trainer, self.folder, self.say = trainer, Path(folder), say
        self.seconds, self.saved_at = 0.0, -1
        self.history: list[dict[str, Any]] = [{"clips": 0, "command": recipes.command(trainer.config)}]
        self.device_name = monitor.hardware(trainer.device)

    @property
    def metrics(self) -> Path:
        """The file with a row for every `log_every` clips."""
        return self.folder / "metrics.jsonl"

    # --- what is kept -------------------------------------------------------------------------------------------

    def save(self, look: bool = False) -> None:
        """Write a checkpoint (every process has to call this; the first one writes).

        look: whether a look at samples is due at this moment, and not taken yet.
        Raises TrainingDiverged instead of saving what is lost.
        """
        trainer = self.trainer
        self.check_finite()
        trainer.tally.gather(trainer.world)
        self.saved_at = trainer.clips
        if trainer.world.first:
            state = {
                "steps": trainer.steps,
                "seconds": round(self.seconds, 2),
                "history": self.history,
                "hardware": self.device_name,
                "config": trainer.config.to_dict(),
                "look": look,
                "ramp": trainer.ramp,
            }
            checkpoints.save(self.folder / "checkpoints", trainer.clips, trainer.tensors(), state)

    def restore(self) -> bool:
        """Continue from the newest checkpoint that is whole and fits; False if there never was one."""
        trainer = self.trainer
        found = checkpoints.load(
            self.folder / "checkpoints",
            self.say,
            lambda tensors, state: trainer.load(tensors, state["clips"], state["steps"]),
        )
        if found is None:
            return False
        state = found[1]
        self.seconds, self.history, self.saved_at = state["seconds"], state["history"], state["clips"]
        trainer.ramp = tuple(state["ramp"]) if state.get("ramp") else None  # type: ignore[assignment]
        self.reconfigured(Recipe.from_dict(state["config"]))
        if trainer.world.first:
            checkpoints.drop_old(self.folder / "checkpoints", trainer.clips)  # of a process killed before it did
            monitor.cut_metrics(self.metrics, trainer.clips)
            if state.get("look") and not self.looked():
                self.look()
        return True

    def reconfigured(self, before: Recipe) -> None:
        """Note that the run goes on with another recipe; a higher learning rate is reached over a new warm-up."""
        trainer, clips = self.trainer, self.trainer.clips
        command = recipes.command(trainer.config)
        if command == self.history[-1]["command"]:
            return
        self.history = [*self.history, {"clips": clips, "command": command}]
        old, new = before.lr_at(clips), trainer.config.lr_at(clips)
        if new > 1.5 * old and trainer.config.warmup and clips >= trainer.config.warmup:
            trainer.ramp = (clips, old)
            self.say(
                f"the learning rate was {old:.2g} at {clips:,} clips and is {new:.2g} in this recipe: "
                f"it rises over the next {trainer.config.warmup:,} clips"
            )
        elif not 0.66 * old <= new <= 1.5 * old:
            self.say(f"the learning rate was {old:.2g} at {clips:,} clips and is {new:.2g} in this recipe")

    def snapshot(self) -> None:
        """Keep the averaged weights of this moment in half precision, for a picture of how training went."""
        path = self.folder / "snapshots" / f"clips-{self.trainer.clips:09d}.safetensors"
        half = {key: value.half() for key, value in self.trainer.ema.state_dict().items()}
        checkpoints.write_tensors(path, half, {"config": self.trainer.config.to_dict(), "clips": self.trainer.clips})

    def log(self) -> dict[str, Any]:
        """Append the means since the last call to metrics.jsonl."""
        trainer = self.trainer
        row = {
            "kind": "train",
            "clips": trainer.clips,
            "steps": trainer.steps,
            "seconds": round(self.seconds, 2),
            "lr": trainer.lr(trainer.clips),
            **trainer.tally.read(trainer.world),
        }
        if trainer.world.first:
            monitor.append(self.metrics, row)
        return row

    # --- looking at it ------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Samples into previews/, held-out errors into metrics.jsonl. Training goes on as if nobody had looked, also
        where looking fails: it is no reason to lose a run."""
        trainer, clips = self.trainer, self.trainer.clips
        picture = self.folder / "previews" / f"clips-{clips:09d}.png"

        def show() -> None:
            monitor.preview(trainer.config, trainer.ema_denoiser, self.test_data(), picture)

        def measure() -> None:  # last: its row says that the look was taken
            errors = monitor.held_out(trainer.ema_denoiser, self.test_data())
            monitor.append(self.metrics, {"kind": "held_out", "clips": clips, **errors})

        for what, part in {"preview": show, "held-out errors": measure}.items():
            try:
                part()
            except Exception as error:
                self.say(f"no {what} at {clips:,} clips, training goes on: {type(error).__name__}: {error}")

    def test_data(self) -> Any:
        """The clips of the test split."""
        return self.trainer.config.make_data(split="test", device=self.trainer.device)

    def looked(self) -> bool:
        """Whether metrics.jsonl has the held-out errors of this moment."""
        rows = monitor.rows(self.metrics)
        return any(row["kind"] == "held_out" and row["clips"] == self.trainer.clips for row in rows)

    def check_finite(self) -> None:
        """Raise TrainingDiverged, in all processes, if the running sums of loss and gradient norm are not finite."""
        trainer = self.trainer
        if not bool(torch.isfinite(distributed.add_up(trainer.tally.sums, trainer.world)).all()):
            kept = checkpoints.listed(self.folder / "checkpoints")
            after = (
                f"the checkpoint of {checkpoints.number(kept[-1]):,} clips is kept. Continue from it with a smaller lr "
                f"(--resume --reconfigure --set lr=...)"
                if kept
                else "no checkpoint was written before. Start anew with a smaller lr, or a longer warmup"
            )
            raise TrainingDiverged(f"loss or gradient is not finite at {trainer.clips:,} clips; {after}")

    # --- the loop -----------------------------------------------------------------------------------------------

    def loop(self, minutes: float | None = None, progress: bool = True) -> int:
        """Train until the configured clips, or `minutes`, or a signal; returns the signal's number or 0."""
        trainer, cfg, first = self.trainer, self.trainer.config, self.trainer.world.first
        started, before = time.monotonic(), self.seconds
        seconds = None if minutes is None else 60 * minutes
        bar = _bar(cfg.clips, trainer.clips, progress and first)
        with bar, distributed.StopRequest(trainer.world, trainer.device, seconds) as stop:
            while trainer.clips < cfg.clips:
                last = trainer.clips
                trainer.step()
                self.seconds = before + time.monotonic() - started
                bar.update(trainer.clips - last)
                if first and not (self.folder / "config.json").exists():  # now it is known that the recipe works
                    write_json(self.folder / "config.json", cfg.to_dict())

                def passed(every: int, last: int = last) -> bool:
                    return trainer.clips // every > last // every

                if passed(cfg.log_every):
                    self.check_finite()
                    row = self.log()
                    bar.set_postfix(loss=f"{row['loss']:.4f}", lr=f"{row['lr']:.1e}", refresh=False)
                if first and any(last < m <= trainer.clips for m in cfg.milestones):
                    self.snapshot()
                look, ending = passed(cfg.preview_every), stop.agreed()
                if look or ending or passed(cfg.save_every):
                    self.save(look)  # before the look, which may fail
                if look and first:
                    self.look()
                if ending:
                    return 0 if ending == distributed.TIME_UP else ending
        if self.saved_at != trainer.clips:
            self.save()
        return 0


def _bar(total: int, done: int, shown: bool) -> tqdm:
    quiet = not sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        unit="clip",
        disable=not shown,
        mininterval=30.0 if quiet else 0.5,
        dynamic_ncols=not quiet,
        smoothing=0.05,
    )


def fit(
    config: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    init: str | Path | None = None,
    teacher: str | Path | None = None,
    device: str | None = None,
    minutes: float | None = None,
    reconfigure: bool = False,
    progress: bool = True,
) -> tuple[Run, int]:
    """Train `config` into the folder `out`; returns the run and the signal that ended it (0: none).

    Args:
        config: the recipe.
        out: folder of the run; nothing in it changes before the recipe has trained a step.
        resume: continue what `out` holds, bit for bit; an empty folder starts afresh.
        init: weights to start from (file, folder of a run, name), instead of the recipe's own `init`.
        teacher: where a student's teacher lies (file, folder of a run, name), instead of where the recipe says.
        device: "cpu", "cuda" or "mps".
        minutes: stop (and save) after so long.
        reconfigure: continue with this recipe although another one started the run.
        progress: whether to show a progress bar.

    Raises:
        RunFolderError, ConfigurationMismatch, DamagedCheckpoint, TrainingDiverged, ProcessLost, RecipeError;
        UnknownWeights for an `init` or a `teacher` that is not there.
    """
    out = Path(out)
    if minutes is not None and not minutes >= 0:
        raise guards.BadArgument(f"minutes: expected a number >= 0, got {minutes}")
    if init is not None and not str(init):
        raise guards.BadArgument("init: expected a file, the folder of a run or a name, got an empty text")
    world, chosen = distributed.join(device)
    say = tqdm.write if world.first else (lambda line: None)
    folder.check(config, out, resume, reconfigure)
    started = bool(checkpoints.listed(out / "checkpoints"))
    start = pretrained.find(init or config.init) if (init or config.init) and not started else None
    if started and init is not None:
        say(f"{out} goes on with its own weights, not with {init}")
    if world.first and world.size > 1:
        config.make_data()  # a source that has to be fetched is, once, before all processes want it
    distributed.barrier(world)
    trainer = Trainer(config, chosen, world, teacher)
    with folder.writing(out) if world.first else contextlib.nullcontext():
        run = Run(trainer, out, say)
        if world.first:
            folder.check(config, out, resume, reconfigure)  # again, now that nobody else can change it
            folder.tidy(out, say)
        distributed.barrier(world)  # nobody writes before everybody has looked
        if resume and run.restore():
            say(f"continuing {out} at {trainer.clips:,} clips")
        else:
            _begin(run, start, resume)
        if world.first and (out / "config.json").exists():  # a continued run, perhaps reconfigured
            write_json(out / "config.json", config.to_dict())
        with distributed.together(world):
            ending = run.loop(minutes, progress)
            distributed.barrier(world)
    return run, ending


def _begin(run: Run, start: Path | None, resume: bool) -> None:
    """Start at zero: from given weights, and with metrics of its own."""
    if resume:
        run.say(f"nothing to continue in {run.folder}: starting")
    if start is not None:
        weights, about = checkpoints.read_weights(start)
        kept = run.trainer.start_from(weights)
        run.history[0] |= {"init": start.stem, "init_clips": about.get("clips", 0)}
        if kept:
            run.say(f"{len(kept)} parameters are not in {start.name} and stay as they are, {kept[0]} among them")
    if run.trainer.world.first and (aside := monitor.set_metrics_aside(run.metrics)):
        run.say(f"metrics without a checkpoint that they belong to are kept as {aside.name}")


guards.check_types(globals())
