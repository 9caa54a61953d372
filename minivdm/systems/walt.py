r"""W.A.L.T: Gupta et al. 2023, "Photorealistic video generation with diffusion models", on what `networks` has of it.

A causal tokenizer (`networks.autoencoder`) makes 1 + k latent frames of 1 + 4k frames; `WindowTransformer` denoises
them, predicting v. What this page adds is how it is trained and used:

- *self-conditioning* (section 3.3.2): with probability p_sc the network sees its own first estimate by channel;
- *frame prediction* (section 3.4): with probability p_fp the first one or two latent frames are given, by channel, with
  a mask, c_fp = concat(m z_0, m); sampling then guides towards them, and long clips go on from their last frames;
- *cascade* (section 3.5): the low-resolution clip enters by depth-to-space, by channel, with noise of a known level;
- *aspect ratio* (section 4): a table of positions is interpolated to another grid.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.core import samplers
from minivdm.core.denoiser import Denoise, Denoiser, Loss
from minivdm.core.gaussian import diffuse, noise_like
from minivdm.core.schedules import Schedule
from minivdm.core.self_conditioning import SelfConditioned, takes_estimate
from minivdm.core.targets import stratified_times
from minivdm.guards import BadArgument, check_types, real, video, whole
from minivdm.networks.transformer import Transformer
from minivdm.tasks.conditions import answer


def latent_frames(frames: int, factor: int = 4) -> int:
    """1 + k, of 1 + factor * k frames. BadArgument for a number between those."""
    if (whole("frames", frames) - 1) % whole("factor", factor):
        raise BadArgument(f"frames: expected 1 + {factor} k, a first frame and groups of {factor}, got {frames}")
    return 1 + (frames - 1) // factor


def known_frames(x: Tensor, counts: Tensor | int) -> Tensor:
    """The condition c_fp: (b, c + 1, f, h, w), the first `counts` frames of a clip, then their mask; 0 elsewhere.

    x: (b, c, f, h, w). counts: for all clips or for each, (b,); 0 is no condition.
    """
    b, _, f = video("x", x).shape[:3]
    counts = torch.as_tensor(counts).expand(b)
    if bool((counts < 0).any()) or bool((counts > f).any()):
        raise BadArgument(f"counts: expected 0 to {f} frames, got {counts.tolist()}")
    counts = counts.to(x.device, non_blocking=True)
    mask = (torch.arange(f, device=x.device) < counts[:, None]).to(x.dtype)[:, None, :, None, None]  # b 1 f 1 1
    return torch.cat((x * mask, mask.expand(b, 1, *x.shape[2:])), 1)


def loss(
    denoiser: Denoiser,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    self_conditioning: float = 0.5,
    prediction: float = 0.0,
    given: Sequence[int] = (1, 2),
    generator: torch.Generator | None = None,
    **options: Any,
) -> Loss:
    """The loss of a batch of clips, with the share of them that see an estimate, and that are given frames.

    Args:
        denoiser: of a network that takes `estimate` and `known`, as far as their shares are above 0.
        x: latents or pixels (b, c, f, h, w).
        labels: (b, n), dropped as `Denoiser.loss` does.
        self_conditioning: p_sc. The first estimate is made at the same z_t, without gradient and without labels'
            being dropped anew.
        prediction: p_fp; given: the counts of frames, each equally often. The loss is that of all frames.
        generator: of all random draws.
        options: those of `Denoiser.loss`.
    """
    b = len(video("x", x))
    real("self_conditioning", self_conditioning, 0, 1)
    real("prediction", prediction, 0, 1)

    def chosen(share: float) -> Tensor:
        return torch.rand(b, generator=generator) < share  # on the CPU, so that nothing waits for an accelerator

    conditions: dict[str, Any] = {}
    if prediction:
        which = torch.tensor(list(given))[torch.randint(len(given), (b,), generator=generator)]
        conditions["known"] = known_frames(x, which * chosen(prediction))
    t = stratified_times(b, denoiser.schedule, generator, x.device)
    noise = noise_like(x, generator)
    drop = options.pop("label_drop", 0.1)
    if labels is not None:
        labels = labels * (~chosen(drop)).to(labels, non_blocking=True)[:, None]
    rows = chosen(self_conditioning).nonzero().flatten()
    if self_conditioning and len(rows):
        here, when = (rows.to(where, non_blocking=True) for where in (x.device, t.device))
        with torch.no_grad():
            some = {name: value[here] for name, value in {"labels": labels, **conditions}.items() if value is not None}
            seen = denoiser(diffuse(x, t, denoiser.schedule, noise)[here], t[when], **some).to(x.dtype)
        seen = seen if denoiser.bounds is None else seen.clamp(*denoiser.bounds)
        conditions["estimate"] = torch.zeros_like(x).index_copy(0, here, seen)
    return denoiser.loss(x, labels=labels, label_drop=0.0, t=t, noise=noise, **conditions, **options)


def predict(
    model: Denoiser,
    first: Tensor,
    frames: int,
    labels: Tensor | None = None,
    *,
    weight: float = 0.0,
    steps: int = 50,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Clips (b, c, frames, h, w) that go on from their first frames, by the condition that it was trained with.

    Args:
        first: (b, c, k, h, w), k < frames: one latent frame is image to video, two are prediction.
        labels: (b, n), given beside the frames.
        weight: of the guidance towards frames and labels, away from neither.
        steps: of DDIM.
        generator: of all random draws.
    """
    if not model.network.config.get("frames_known"):  # type: ignore[union-attr, operator]
        raise BadArgument("model: expected a network built with frames_known=True, got one without")
    b, c, k, h, w = video("first", first).shape
    if k >= whole("frames", frames):
        raise BadArgument(f"frames: expected more than the {k} that are given, got {frames}")
    clip = torch.cat((first, first.new_zeros(b, c, frames - k, h, w)), 2)
    given = {"known": known_frames(clip, k), **({} if labels is None else {"labels": labels})}
    made = sampled(model, (b, c, frames, h, w), given, weight, steps, generator)
    return torch.cat((first, made[:, :, k:]), 2)


@torch.no_grad()
def sampled(
    model: Denoiser,
    shape: tuple[int, ...],
    conditions: dict[str, Tensor],
    weight: float = 0.0,
    steps: int = 50,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Clips of that shape (b, c, f, h, w), pixels or latents, by DDIM from noise; the paper takes 50 steps.

    Unlike `tasks.generate` it clips the estimates that the network is handed only where the model has `bounds`, which
    latents have not.
    """

    def guided(estimate: Tensor | None) -> Denoise:
        return answer(model, conditions, weight, estimate=estimate)

    bounds = model.bounds or (-math.inf, math.inf)
    own = takes_estimate(model)
    denoise = SelfConditioned(guided, model.schedule, bounds) if own else guided(None)
    device = next(model.parameters()).device
    noise = torch.randn(shape, generator=generator).to(device)
    return samplers.sample(denoise, noise, whole("steps", steps))


def go_on(model: Denoiser, first: Tensor, blocks: int, frames: int, overlap: int = 2, **options: Any) -> Tensor:
    """A long clip: `blocks` times `predict` from the last `overlap` frames of what is there."""
    if not 1 <= overlap <= first.shape[2]:
        raise BadArgument(f"overlap: expected 1 to {first.shape[2]}, the frames of first, got {overlap}")
    clip = first
    for _ in range(whole("blocks", blocks)):
        more = predict(model, clip[:, :, -overlap:], frames, **options)
        clip = torch.cat((clip, more[:, :, overlap:]), 2)
    return clip


def depth_to_space(clip: Tensor, factor: int) -> Tensor:
    """Channels become places: (b, c factor^2, f, h, w) -> (b, c, f, h factor, w factor)."""
    if video("clip", clip).shape[1] % whole("factor", factor) ** 2:
        raise BadArgument(f"clip: expected channels that {factor}^2 divides, got {clip.shape[1]}")
    return rearrange(clip, "b (c p q) f h w -> b c f (h p) (w q)", p=factor, q=factor)


def low_resolution(
    clip: Tensor, factor: int, log_snr: Tensor, schedule: Schedule, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """The conditions `low` and `low_log_snr` of a cascade's next stage.

    Args:
        clip: of the stage before, (b, c, f, h, w).
        factor: by how much the next stage is larger.
        log_snr: of the noise to put on it, (b,): random in training, fixed in sampling.
        schedule: whose alpha and sigma belong to that log-SNR.
    """
    low = depth_to_space(clip, factor)
    if log_snr.shape != (len(clip),):
        raise BadArgument(f"log_snr: expected one for each of {len(clip)} clips, got shape {tuple(log_snr.shape)}")
    return {"low": diffuse(low, schedule.time(log_snr), schedule, noise_like(low, generator)), "low_log_snr": log_snr}


def resized(network: Transformer, rows: int, columns: int) -> Transformer:
    """A copy whose table of positions has been interpolated to another grid, to go on training at another aspect."""
    if network.space_embedding is None:
        raise BadArgument("network: expected one with a table of positions (grid), got one with sines, of any size")
    made = copy.deepcopy(network)
    frames = made.config["grid"][0]
    corner = torch.zeros(1, 3, device=network.space_embedding.device)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(corner.device)
    places = torch.cat((torch.zeros_like(places[:, :1]), places), 1)
    with torch.no_grad():
        table = network.positions(places, (1, rows, columns)) - network.time_embedding[0]  # type: ignore[index]
    made.space_embedding = nn.Parameter(table.reshape(rows, columns, -1).clone())
    made.config = {**made.config, "grid": [frames, rows, columns]}
    return made


check_types(globals())
