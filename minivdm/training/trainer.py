"""Training: one step that fits on a screen (`Trainer.step`) and the state that it works on. `run` goes round it.

The objective is VDM section 3 with joint training on videos and images (4.3.1). All randomness of a step is drawn
for the whole batch from one generator, of which each process takes its share: so a run on several processes does what
a run on one does, and a checkpoint needs one generator state.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from minivdm.core.denoiser import Denoiser
from minivdm.core.gaussian import diffuse, expand
from minivdm.networks.unet3d import joint_frame_mask
from minivdm.training import distributed, monitor, objectives, optimizers, pretrained
from minivdm.training.checkpoints import DamagedCheckpoint, Tensors, load_weights
from minivdm.training.distributed import World
from minivdm.training.graphs import Recorded
from minivdm.training.objectives import Batch
from minivdm.training.parts import CONDITIONS
from minivdm.training.recipe import Phase, Recipe
from minivdm.training.validate import RecipeError


class Draws(NamedTuple):
    """The random numbers of a batch. t: times (b,). noise: (b c f h w). keep: which samples keep each condition,
    (conditions, b) bool."""

    t: Tensor
    noise: Tensor
    keep: Tensor


class Trainer:
    """State of a training run: network, its moving average (`ema`), optimizers, generator, and clips seen so far.

    device: where to train. world: which share of each batch this process takes. teacher: where a student's teacher
    lies, by default where the recipe says. Raises RecipeError; UnknownWeights for a teacher that is not there.
    """

    def __init__(
        self,
        config: Recipe,
        device: torch.device | str = "cpu",
        world: World = distributed.ALONE,
        teacher: str | Path | None = None,
    ):
        self.config, self.device, self.world = config, torch.device(device), world
        pieces = world.size * config.accumulate
        if uneven := [phase.batch for phase in config.phases() if phase.batch % pieces]:
            raise RecipeError(
                f"batch: expected multiples of the {world.size} processes times accumulate={config.accumulate}, "
                f"got {uneven}"
            )
        self.network = config.make_network().to(self.device)
        self.ema = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.schedule = config.make_schedule()
        self.denoiser = Denoiser(self._wrapped(), self.schedule, target=config.target, bounds=(-1.0, 1.0))
        self.ema_denoiser = Denoiser(self.ema, self.schedule, target=config.target)
        learns_from = pretrained.load(teacher or config.teacher, self.device) if config.teacher else None
        self.objective = objectives.make(
            config.objective, config.student, learns_from, self.schedule, config.weighting, config.logit_normal
        )
        self.params: list[Tensor] = list(self.network.parameters())
        self.optimizers = optimizers.make(config, self.network, self.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.tally = monitor.Tally(self.device)
        self.clips = self.steps = 0
        self.ramp: tuple[int, float] | None = None  # (clips, rate) from which the rate has to rise: see `lr`
        self.data = {phase.frames: config.make_data(phase.frames, device=self.device) for phase in config.phases()}
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
        # A step is three functions of tensors, which on an NVIDIA GPU can be recorded.
        self.recording = config.graphs and self.device.type == "cuda" and world.size == 1
        self.learn: Callable[..., tuple[Tensor, Tensor]] = self.gradients
        self.look: Callable[..., Tensor] = self.look_at
        self.made: dict[int, Callable[[Tensor], Any]] = {frames: data.clips for frames, data in self.data.items()}
        if self.recording:
            self.learn, self.look = Recorded(self.gradients, self.params), Recorded(self.look_at)
            self.made = {n: self._recorded(data) if data.recordable else data.clips for n, data in self.data.items()}

    def _recorded(self, data: Any) -> Callable[[Tensor], Any]:
        """The clips of indices, whose making is recorded."""
        made = Recorded(lambda index: data.clips(index))
        return lambda index: made(index=index.to(self.device))

    def _wrapped(self) -> nn.Module:
        network: nn.Module = self.network
        if self.config.compile and self.device.type == "cuda":
            # One graph for each shape: a batch, and the share of it that gets an estimate. Left to itself, torch makes
            # one slower graph for all batches when it sees the second.
            network = torch.compile(network, dynamic=False)  # type: ignore[assignment]
        if self.world.size > 1:
            network = nn.parallel.DistributedDataParallel(network)
        return network

    # --- one step -----------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One optimizer step on the next clips. Nothing here waits for an accelerator."""
        cfg, phase = self.config, self.config.phase_at(self.clips)
        pieces = self.pieces(phase)
        for number, piece in enumerate(pieces, 1):
            named = {"frame_mask": piece.mask} if piece.mask is not None else {}
            with self.sharing(number == len(pieces)):
                self.tally.add(
                    *self.learn(video=piece.video, t=piece.t, noise=piece.noise, **named, **piece.conditions)
                )
        # On an Apple GPU torch refuses to be told `foreach`.
        foreach = self.device.type in ("cpu", "cuda") or None
        norm = nn.utils.clip_grad_norm_(self.params, cfg.grad_clip, foreach=foreach)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr(self.clips)
            optimizer.step()
            if not self.recording:  # a recording writes over them
                optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self.clips += phase.batch
        self.update_ema()
        self.tally.add_norm(norm)

    def gradients(
        self, video: Tensor, t: Tensor, noise: Tensor, frame_mask: Tensor | None = None, **conditions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add the gradients of a piece of the batch; returns its loss and log-SNR for each sample, (b,)."""
        with self.autocast():
            loss = self.objective(self.denoiser, self.ema_denoiser, Batch(video, conditions, frame_mask, t, noise))
        (loss.mean / self.config.accumulate).backward()
        return loss.per_sample.detach(), loss.log_snr

    def pieces(self, phase: Phase) -> list[Batch]:
        """This process's share of the next batch with its noise, in the pieces in which gradients are added up."""
        video, conditions, mask = self.batch(phase)
        t, noise, keep = self.draw(phase, video.shape)
        for row, name in zip(keep, conditions, strict=True):
            conditions[name] = conditions[name] * expand(row.to(video), conditions[name])  # 0 stands for "not given"
        if self.config.self_conditioning:
            conditions["estimate"] = self.estimate(video, conditions, mask, t, noise)
        size = len(video) // self.config.accumulate
        return [
            Batch(
                video[i : i + size],
                {name: value[i : i + size] for name, value in conditions.items()},
                mask,
                t[i : i + size],
                noise[i : i + size],
            )
            for i in range(0, len(video), size)
        ]

    def batch(self, phase: Phase) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """This process's share of the next batch: video (b c f h w), conditions, frame mask.

        With joint images, `config.images` independent stills follow each clip's frames; labels are then (b f n), and
        the mask keeps every still to itself.
        """
        data, share, stills = self.data[phase.frames], phase.batch // self.world.size, self.config.images
        index = self.clips + self.world.rank * share + torch.arange(share)
        clips = self.made[phase.frames](index)
        video, mask = clips.video, None
        conditions = {name: CONDITIONS[name](clips) for name in self.config.conditions}
        if stills:
            image, classes = data.images((index[:, None] * stills + torch.arange(stills)).flatten())
            video = torch.cat([video, rearrange(image, "(b k) c 1 h w -> b c k h w", k=stills)], dim=2)
            mask = joint_frame_mask(phase.frames, stills, self.device)
            if "labels" in conditions:
                of_clip = repeat(conditions["labels"], "b n -> b f n", f=phase.frames)
                of_stills = rearrange(classes, "(b k) n -> b k n", k=stills)
                conditions["labels"] = torch.cat([of_clip, of_stills], dim=1)
        return video, conditions, mask

    def draw(self, phase: Phase, shape: torch.Size) -> Draws:
        """Times, noise, and which conditions to keep, drawn for all processes alike, then cut to this one's share.

        Times are the objective's, stratified over the whole batch.
        """
        whole, g, at = phase.batch, self.generator, self.device
        t = self.objective.times(whole, g)
        drops = self.config.conditions.values()
        keep = [torch.rand(whole, generator=g, device=at) >= share for share in drops]
        noise = torch.randn((whole, *shape[1:]), generator=g, device=at)
        mine = slice(self.world.rank * shape[0], (self.world.rank + 1) * shape[0])
        kept = torch.stack(keep) if keep else torch.ones(0, whole, dtype=torch.bool, device=at)
        return Draws(t[mine], noise[mine], kept[:, mine])

    @torch.no_grad()
    def estimate(
        self, video: Tensor, conditions: dict[str, Tensor], mask: Tensor | None, t: Tensor, noise: Tensor
    ) -> Tensor:
        """The network's own x_hat for a share of the batch, 0 ("none yet") for the rest: self-conditioning (Chen et al.
        2022, "Analog bits", section 3.2). Like video, in [-1, 1]."""
        b, share = len(video), self.config.self_conditioning
        # As many as make the share right over all steps, also where it does not divide the batch.
        count = int((self.steps + 1) * share * b) - int(self.steps * share * b)
        whole = torch.rand(b * self.world.size, generator=self.generator, device=self.device)
        some = whole[self.world.rank * b : (self.world.rank + 1) * b].argsort()[:count]
        named = {"frame_mask": mask} if mask is not None else {}
        found = torch.zeros_like(video)
        return (
            self.look(video=video, t=t, noise=noise, some=some, found=found, **named, **conditions) if count else found
        )

    @torch.no_grad()
    def look_at(
        self,
        video: Tensor,
        t: Tensor,
        noise: Tensor,
        some: Tensor,
        found: Tensor,
        frame_mask: Tensor | None = None,
        **conditions: Tensor,
    ) -> Tensor:
        """The network's x_hat of `some` of the clips, written into `found`."""
        times = t[some.to(t.device)]  # an Apple GPU's are on the CPU, in float64
        z = diffuse(video[some], times, self.schedule, noise[some])
        given = {name: value[some] for name, value in conditions.items()}
        with self.autocast():
            found[some] = self.denoiser(z, times, **given, frame_mask=frame_mask).to(video).clamp(-1, 1)
        return found

    def autocast(self) -> torch.autocast:
        """The precision in which the network computes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def sharing(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Several processes add up their gradients once a step, not for every piece of it."""
        network = self.denoiser.network
        if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
            return network.no_sync()
        return contextlib.nullcontext()

    @torch.no_grad()
    def update_ema(self) -> None:
        """Moving average of the weights; the decay rises with the number of steps so that the start is forgotten."""
        decay = min(self.config.ema_decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.ema.parameters()), self.params, 1 - decay)

    def lr(self, clips: int) -> float:
        """The recipe's learning rate; after a run was made longer it rises to it over another warm-up."""
        rate = self.config.lr_at(clips)
        if self.ramp is None or clips >= self.ramp[0] + self.config.warmup:
            return rate
        start, before = self.ramp
        return min(rate, before + (rate - before) * (clips - start + 1) / self.config.warmup)

    def start_from(self, weights: Tensors) -> list[str]:
        """Copy trained weights into the network and its average; returns the names of parameters that they lack, which
        stay as they are. Raises DamagedCheckpoint if they do not fit.

        A network without self-conditioning leaves out the layer that reads an estimate: the rest is the same function.
        """
        if not self.config.network.get("self_conditioning"):
            weights = {name: value for name, value in weights.items() if not name.startswith("stem_estimate.")}
        return [load_weights(network, weights, partly=True) for network in (self.network, self.ema)][0]

    # --- state --------------------------------------------------------------------------------------------------

    def tensors(self) -> Tensors:
        """Every tensor on which the rest of the run depends."""
        out = {"generator": self.generator.get_state(), "tally": self.tally.sums}
        out |= {f"weights.{name}": value for name, value in self.network.state_dict().items()}
        out |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        return out | optimizers.tensors(self.optimizers, self.network)

    def load(self, tensors: Tensors, clips: int, steps: int) -> None:
        """Inverse of `tensors`. Raises DamagedCheckpoint where they do not fit this network or optimizer."""
        load_weights(self.network, tensors, "weights.")
        load_weights(self.ema, tensors, "ema.")
        optimizers.load(self.optimizers, self.network, tensors)
        for name, own in {"generator": None, "tally": self.tally.sums}.items():
            if name not in tensors or (own is not None and tensors[name].shape != own.shape):
                got = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise DamagedCheckpoint(f"{name}: expected {'a state' if own is None else tuple(own.shape)}, got {got}")
        state = tensors["generator"]
        if state.shape == self.generator.get_state().shape and state.dtype == torch.uint8:
            self.generator.set_state(state)
        else:  # the state of another kind of device means nothing here
            self.generator.manual_seed(self.config.seed + steps)
        # The sums are those of all processes, and added up again when they are read.
        self.tally.sums.copy_(tensors["tally"] if self.world.first else torch.zeros_like(tensors["tally"]))
        self.clips, self.steps = clips, steps
