"""Training: one step that fits on a screen (`Trainer.step`), and a run around it that can be stopped at any time.

The objective is VDM section 3 with joint training on videos and images (section 3.1). All randomness of a step is drawn
for the whole batch from one generator, of which each process takes its share: so a run on several processes does what
a run on one does, and a checkpoint needs one generator state.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from tqdm import tqdm

from minivdm.core.denoiser import Denoiser, stratified_times
from minivdm.networks.unet3d import joint_frame_mask
from minivdm.training import build, checkpoints, configs, distributed, monitor, muon
from minivdm.training.configs import Phase, TrainConfig
from minivdm.training.distributed import World


class RunFolderError(ValueError):
    """The output folder holds something else than what the command is about."""


class ConfigurationMismatch(ValueError):
    """A run is to be continued with another configuration than it was started with."""


class TrainingDiverged(FloatingPointError):
    """The loss or the gradient is no longer a finite number."""


class Trainer:
    """State of a training run: network, its moving average (`ema`), optimizers, generator, and clips seen so far.

    device: where to train. world: which share of each batch this process takes. Raises ConfigError.
    """

    def __init__(self, config: TrainConfig, device: torch.device | str = "cpu", world: World = distributed.ALONE):
        self.config, self.device, self.world = config, torch.device(device), world
        if uneven := [phase.batch for phase in config.phases() if phase.batch % world.size]:
            raise configs.ConfigError(f"batch: expected multiples of the {world.size} processes, got {uneven}")
        self.network = build.network(config).to(self.device)
        self.ema = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.schedule = build.schedule(config)
        self.denoiser = Denoiser(self._wrapped(), self.schedule, target=config.target, bounds=(-1.0, 1.0))
        self.ema_denoiser = Denoiser(self.ema, self.schedule, target=config.target)
        self.params: list[Tensor] = list(self.network.parameters())
        self.optimizers = self._optimizers()
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.tally = monitor.Tally(self.device)
        self.clips = self.steps = 0
        self.data = {phase.frames: build.data(config, phase.frames, device=self.device) for phase in config.phases()}
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32

    def _wrapped(self) -> nn.Module:
        network: nn.Module = self.network
        if self.config.compile and self.device.type == "cuda":
            network = torch.compile(network)  # type: ignore[assignment]
        if self.world.size > 1:
            network = nn.parallel.DistributedDataParallel(network)
        return network

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        cfg = self.config
        hidden, rest = muon.split(self.network) if cfg.optimizer == "muon" else ([], self.params)
        fused = self.device.type in ("cpu", "cuda")
        made: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=cfg.lr, betas=cfg.betas, weight_decay=cfg.weight_decay, fused=fused)
        ]
        return made + ([muon.Muon(hidden, lr=cfg.lr, weight_decay=cfg.weight_decay)] if hidden else [])

    # --- one step -----------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One optimizer step on the next clips. Nothing here waits for an accelerator."""
        cfg, phase = self.config, self.config.phase_at(self.clips)
        video, labels, mask = self.batch(phase)
        t, noise, keep = self.draw(phase, video.shape)
        if labels is not None:
            labels = labels * keep.view(-1, *[1] * (labels.ndim - 1))  # an all-zero row is the unconditional case
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cfg.precision == "bf16"):
            loss = self.denoiser.loss(
                video, labels=labels, label_drop=0.0, frame_mask=mask, t=t, noise=noise, weighting=cfg.weighting
            )
        loss.mean.backward()
        norm = nn.utils.clip_grad_norm_(self.params, cfg.grad_clip, foreach=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = cfg.lr_at(self.clips)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self.clips += phase.batch
        self.update_ema()
        self.tally.add(loss.per_sample, loss.log_snr, norm)

    def batch(self, phase: Phase) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """This process's share of the next batch: video (b c f h w), labels, frame mask.

        With joint images, `config.images` independent stills follow each clip's frames; labels are then (b f n), and
        the mask keeps every still to itself.
        """
        data, share, stills = self.data[phase.frames], phase.batch // self.world.size, self.config.images
        index = self.clips + self.world.rank * share + torch.arange(share)
        clips = data.clips(index)
        video, labels, mask = clips.video, clips.labels, None
        if stills:
            image, classes = data.images((index[:, None] * stills + torch.arange(stills)).flatten())
            video = torch.cat([video, rearrange(image, "(b k) c 1 h w -> b c k h w", k=stills)], dim=2)
            labels = torch.cat(
                [repeat(labels, "b n -> b f n", f=phase.frames), rearrange(classes, "(b k) n -> b k n", k=stills)],
                dim=1,
            )
            mask = joint_frame_mask(phase.frames, stills, self.device)
        return video, labels if self.config.labels else None, mask

    def draw(self, phase: Phase, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """Times (b,), noise (b c f h w) and which labels to keep (b,), drawn for all processes alike, then cut.

        Times are stratified over the whole batch (see denoiser.stratified_times).
        """
        whole, g, at = phase.batch, self.generator, self.device
        t = stratified_times(whole, self.schedule, g)
        keep = torch.rand(whole, generator=g, device=at) >= self.config.label_drop
        noise = torch.randn((whole, *shape[1:]), generator=g, device=at)
        mine = slice(self.world.rank * shape[0], (self.world.rank + 1) * shape[0])
        return t[mine], noise[mine], keep[mine]

    @torch.no_grad()
    def update_ema(self) -> None:
        """Moving average of the weights; the decay rises with the number of steps so that the start is forgotten."""
        decay = min(self.config.ema_decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.ema.parameters()), self.params, 1 - decay)

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Copy trained weights into the network and its average. Raises DamagedCheckpoint if they do not fit."""
        for network in (self.network, self.ema):
            checkpoints.load_weights(network, weights)

    # --- state --------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor on which the rest of the run depends."""
        out = {"generator": self.generator.get_state(), "tally": self.tally.sums}
        out |= {f"weights.{name}": value for name, value in self.network.state_dict().items()}
        out |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        for k, optimizer in enumerate(self.optimizers):
            for i, entry in optimizer.state_dict()["state"].items():
                out |= {f"optimizer{k}.{i}.{name}": value for name, value in entry.items()}
        return out

    def load(self, tensors: dict[str, Tensor], clips: int, steps: int) -> None:
        """Inverse of `tensors`. Raises DamagedCheckpoint where they do not fit this network or optimizer."""
        checkpoints.load_weights(self.network, tensors, "weights.")
        checkpoints.load_weights(self.ema, tensors, "ema.")
        for k, optimizer in enumerate(self.optimizers):
            params = [p for group in optimizer.param_groups for p in group["params"]]
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                head, _, rest = key.partition(".")
                if head == f"optimizer{k}":
                    number, _, name = rest.partition(".")
                    like = params[int(number)]
                    # Same memory layout as the weight: the fused kernels walk through both side by side.
                    fits = value.shape == like.shape
                    entries.setdefault(int(number), {})[name] = torch.empty_like(like).copy_(value) if fits else value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
        state = tensors["generator"]
        if state.shape == self.generator.get_state().shape:
            self.generator.set_state(state)
        else:  # the state of another kind of device means nothing here
            self.generator.manual_seed(self.config.seed + steps)
        self.tally.sums.copy_(tensors["tally"])
        self.clips, self.steps = clips, steps


class Run:
    """A trainer with a folder: config.json, checkpoints/, snapshots/, previews/ and metrics.jsonl."""

    def __init__(self, trainer: Trainer, folder: Path, say: Any = print):
        self.trainer, self.folder, self.say = trainer, folder, say
        self.seconds, self.history = 0.0, [{"clips": 0, "command": trainer.config.command()}]
        self.device_name = monitor.hardware(trainer.device)

    def save(self) -> None:
        """Write a checkpoint (first process only). Raises TrainingDiverged instead of saving what is lost."""
        self.check_finite()
        if self.trainer.world.first:
            state = {
                "steps": self.trainer.steps,
                "seconds": round(self.seconds, 2),
                "history": self.history,
                "hardware": self.device_name,
                "config": self.trainer.config.to_dict(),
            }
            checkpoints.save(self.folder / "checkpoints", self.trainer.clips, self.trainer.tensors(), state)

    def restore(self) -> bool:
        """Continue from the newest whole checkpoint; False if there is none yet."""
        found = checkpoints.load(self.folder / "checkpoints", self.say)
        if found is None:
            return False
        tensors, state = found
        self.trainer.load(tensors, state["clips"], state["steps"])
        self.seconds, self.history = state["seconds"], state["history"]
        command = self.trainer.config.command()
        if command != self.history[-1]["command"]:
            self.history.append({"clips": state["clips"], "command": command})
        if self.trainer.world.first:
            monitor.cut_metrics(self.folder / "metrics.jsonl", state["clips"])
        return True

    def snapshot(self) -> None:
        """Keep the averaged weights of this moment in half precision, for a picture of how training went."""
        path = self.folder / "snapshots" / f"clips-{self.trainer.clips:09d}.safetensors"
        half = {key: value.half() for key, value in self.trainer.ema.state_dict().items()}
        checkpoints.write_tensors(
            path, half, {"config": json.dumps(self.trainer.config.to_dict()), "clips": str(self.trainer.clips)}
        )

    def check_finite(self) -> None:
        """Raise TrainingDiverged if the running sums of loss and gradient norm are not finite."""
        if not bool(torch.isfinite(self.trainer.tally.sums).all()):
            raise TrainingDiverged(
                f"loss or gradient is not finite at {self.trainer.clips:,} clips; the last checkpoint before it is "
                f"kept. Continue from it with a smaller lr (--resume --reconfigure --set lr=...)"
            )

    def loop(self, minutes: float | None = None, progress: bool = True) -> int:
        """Train until the configured clips, or `minutes`, or a signal; returns the signal's number or 0."""
        trainer, cfg, first = self.trainer, self.trainer.config, self.trainer.world.first
        quiet = not sys.stderr.isatty()
        bar = tqdm(
            total=cfg.clips,
            initial=trainer.clips,
            unit="clip",
            disable=not (progress and first),
            mininterval=30.0 if quiet else 0.5,
            dynamic_ncols=not quiet,
            smoothing=0.05,
        )
        started, before = time.monotonic(), self.seconds
        seconds = None if minutes is None else 60 * minutes
        with bar, distributed.StopRequest(trainer.world, trainer.device, seconds) as stop:
            while trainer.clips < cfg.clips:
                last = trainer.clips
                trainer.step()
                self.seconds = before + time.monotonic() - started
                bar.update(trainer.clips - last)

                def passed(every: int, last: int = last) -> bool:
                    return trainer.clips // every > last // every

                if passed(cfg.log_every):
                    self.check_finite()
                    row = self.log()
                    bar.set_postfix(loss=f"{row['loss']:.4f}", lr=f"{row['lr']:.1e}", refresh=False)
                if first and any(last < m <= trainer.clips for m in cfg.milestones):
                    self.snapshot()
                if passed(cfg.preview_every) and first:
                    monitor.look(trainer, self.folder)
                ending = stop.agreed()
                if passed(cfg.save_every) or ending:
                    self.save()
                if ending:
                    return 0 if ending == distributed.TIME_UP else ending
        self.save()
        return 0

    def log(self) -> dict[str, Any]:
        """Append the means since the last call to metrics.jsonl."""
        trainer = self.trainer
        row = {
            "kind": "train",
            "clips": trainer.clips,
            "steps": trainer.steps,
            "seconds": round(self.seconds, 2),
            "lr": trainer.config.lr_at(trainer.clips),
            **trainer.tally.read(trainer.world),
        }
        if trainer.world.first:
            monitor.append(self.folder / "metrics.jsonl", row)
        return row


def fit(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    init: str | Path | None = None,
    device: str | None = None,
    minutes: float | None = None,
    reconfigure: bool = False,
    progress: bool = True,
) -> tuple[Run, int]:
    """Train `config` into the folder `out`; returns the run and the signal that ended it (0: none).

    resume: continue what `out` holds, bit for bit; an empty folder starts afresh. reconfigure: continue with this
    configuration although another one started the run. init: file of weights, or folder of a run, to start from.
    minutes: stop (and save) after so long. Raises RunFolderError, ConfigurationMismatch, DamagedCheckpoint,
    TrainingDiverged, ConfigError.
    """
    folder = Path(out)
    world, chosen = distributed.join(device)
    say = tqdm.write if world.first else (lambda line: None)
    _check_folder(config, folder, resume, reconfigure)
    distributed.barrier(world)  # nobody writes before everybody has looked
    run = Run(Trainer(config, chosen, world), folder, say)
    if resume and run.restore():
        say(f"continuing {folder} at {run.trainer.clips:,} clips")
    else:
        if resume:
            say(f"nothing to continue in {folder}: starting")
        if init is not None:
            run.trainer.start_from(checkpoints.read_weights(init)[0])
            run.history[0]["init"] = Path(init).stem
        if world.first:  # a run that lost power before its first checkpoint may have left metrics
            monitor.cut_metrics(folder / "metrics.jsonl", -1)
    if world.first:
        checkpoints.write_json(folder / "config.json", config.to_dict())
    ending = run.loop(minutes, progress)
    distributed.barrier(world)
    return run, ending


def _check_folder(config: TrainConfig, folder: Path, resume: bool, reconfigure: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"expected a folder for the run, got the file {folder}")
    saved = folder / "config.json"
    if not saved.exists():
        if folder.exists() and any(folder.iterdir()):
            raise RunFolderError(f"{folder} holds files but no training run; give an empty or new folder")
        return
    if not resume:
        raise RunFolderError(f"{folder} holds another run; continue it with --resume, or give another folder")
    try:
        differing = TrainConfig.from_dict(json.loads(saved.read_text())).difference(config)
    except (ValueError, TypeError) as error:
        raise checkpoints.DamagedCheckpoint(f"{saved} is not a training configuration ({error})") from error
    differing = {key: pair for key, pair in differing.items() if key not in configs.REPORTING}
    if differing and not reconfigure:
        rows = "; ".join(f"{key}: {old!r} there, {new!r} here" for key, (old, new) in differing.items())
        raise ConfigurationMismatch(
            f"{folder} was started with another configuration ({rows}). Give the same one, "
            f"or --reconfigure to go on with this one"
        )
