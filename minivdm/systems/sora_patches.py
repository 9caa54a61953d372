"""Clips of any duration, size and aspect in one sequence, in the manner of Brooks et al. 2024, "Video generation models
as world simulators" (Sora). Its report withholds how; this is the packing of Dehghani et al. 2023, "Patch n' Pack"
(NaViT), section 2, in space and time.

The patches of several clips stand one behind the other, and a *block mask* lets a token look at tokens of its own clip
alone. Each token brings what its clip gave it: its place, and the embedding of its clip's noise level and label. So a
clip's answer does not depend on what it is packed with: nothing is cut, resized, or padded with frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from minivdm.core.denoiser import Denoiser, Loss
from minivdm.core.gaussian import diffuse, noise_like
from minivdm.core.targets import stratified_times
from minivdm.guards import BadArgument, check_types, video, whole
from minivdm.networks.tokens import from_patches, token_places
from minivdm.networks.transformer import Transformer


class Packed(NamedTuple):
    """Clips as one sequence: tokens (n, width) with their positions added, and which clip each is of, (n,) int64.

    grids: frames, rows and columns of each clip's patches.
    """

    tokens: Tensor
    clip: Tensor
    grids: list[tuple[int, int, int]]


def pack(network: Transformer, clips: Sequence[Tensor]) -> Packed:
    """Clips (1, c, f, h, w), each of its own f, h and w, as the tokens of one sequence."""
    if isinstance(clips, Tensor) or not len(clips):
        raise BadArgument("clips: expected a sequence of clips (1, c, f, h, w), at least one")
    parts, owner, grids = [], [], []
    for k, clip in enumerate(clips):
        if len(video(f"clips[{k}]", clip)) != 1:
            raise BadArgument(f"clips[{k}]: expected one clip, (1, c, f, h, w), got shape {tuple(clip.shape)}")
        x = network.enter(clip, None, None)
        grid = (x.shape[1], x.shape[2], x.shape[3])
        x = x + network.positions(token_places(torch.arange(grid[0], device=x.device)[None], grid), grid)
        parts.append(x.flatten(0, 3))
        owner.append(torch.full((len(parts[-1]),), k, device=x.device))
        grids.append(grid)
    return Packed(torch.cat(parts), torch.cat(owner), grids)


def block_mask(clip: Tensor) -> Tensor:
    """(n, n) bool, True where two tokens are of one clip, from the clip of each, (n,)."""
    if clip.ndim != 1:
        raise BadArgument(f"clip: expected the number of each token's clip, (n,), got shape {tuple(clip.shape)}")
    return clip[:, None] == clip[None]


def run_packed(
    network: Transformer, clips: Sequence[Tensor], log_snr: Tensor, labels: Tensor | None = None
) -> list[Tensor]:
    """What the network answers to each clip, all in one call.

    Args:
        network: one with attention over all tokens.
        clips: noisy, each (1, c, f, h, w).
        log_snr: of each, (k,).
        labels: of each, (k, n).
    """
    packed = pack(network, clips)
    if log_snr.shape != (len(clips),):
        raise BadArgument(f"log_snr: expected one for each of {len(clips)} clips, got shape {tuple(log_snr.shape)}")
    emb = network.embed(log_snr, labels, len(clips))[packed.clip]  # n e
    made = network.run(packed.tokens[None], emb[None], block_mask(packed.clip)[None])[0]
    answers, start = [], 0
    for f, h, w in packed.grids:
        patches = made[start : start + f * h * w].view(1, f, h, w, -1)
        answers.append(from_patches(patches, network.patch, network.config["channels"]))
        start += f * h * w
    return answers


def loss(
    denoiser: Denoiser,
    clips: Sequence[Tensor],
    labels: Tensor | None = None,
    t: Tensor | None = None,
    noise: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Loss:
    """||v - v_hat||^2 per value of each clip, of all in one sequence: training on mixed sizes.

    Args:
        denoiser: one that predicts v, of a Transformer.
        clips: clean, each (1, c, f, h, w). labels: (k, n). t: (k,) times, stratified where None.
        noise: like clips, drawn where None. generator: of times and noise.
    """
    if denoiser.target != "v" or not isinstance(denoiser.network, Transformer):
        raise BadArgument("denoiser: expected one that predicts v, of a Transformer")
    schedule, count = denoiser.schedule, len(clips)
    t = stratified_times(count, schedule, generator) if t is None else t
    noise = [noise_like(x, generator) for x in clips] if noise is None else noise
    z = [diffuse(x, t[k], schedule, noise[k]) for k, x in enumerate(clips)]
    log_snr = schedule.log_snr(t)
    made = run_packed(denoiser.network, z, log_snr.to(z[0].dtype), labels)
    errors = []
    for k, x in enumerate(clips):
        alpha, sigma = schedule.alpha(t[k]).to(x), schedule.sigma(t[k]).to(x)
        errors.append((made[k] - (alpha * noise[k] - sigma * x)).square().mean())
    per_clip = torch.stack(errors)
    return Loss(per_clip.mean(), per_clip, log_snr)


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which clips share a sequence of at most `capacity` tokens: each goes into the first one with room (first fit).

    lengths: tokens of each clip. Returns the clips' numbers, sequence by sequence.
    """
    whole("capacity", capacity)
    found: list[list[int]] = []
    room: list[int] = []
    for k, length in enumerate(lengths):
        if whole("lengths", length) > capacity:
            raise BadArgument(f"lengths: expected at most capacity={capacity} tokens, got {length}")
        place = next((i for i, free in enumerate(room) if free >= length), None)
        if place is None:
            found.append([])
            room.append(capacity)
            place = len(found) - 1
        found[place].append(k)
        room[place] -= length
    return found


check_types(globals())
