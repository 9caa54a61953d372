"""Videos from labels alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from minivdm.core import samplers
from minivdm.core.denoiser import Denoise, schedule_of
from minivdm.core.samplers import Sampling, SamplingFields
from minivdm.guards import BadArgument, check_types, whole
from minivdm.tasks.conditions import Away, guided

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Options(SamplingFields, total=False):
    """What `generate` takes besides: the fields of Sampling, and how to watch."""

    sampling: Sampling | None
    conditions: Mapping[str, Tensor]
    negative: Mapping[str, Tensor] | None
    weaker: Away | None
    progress: bool
    callback: Callable[[Tensor, Tensor], object] | None


@torch.no_grad()
def generate(
    denoise: Denoise,
    labels: Tensor | None = None,
    *,
    count: int | None = None,
    shape: tuple[int, ...] | None = None,
    weight: float = 0.0,
    temporal_weight: float = 0.0,
    steps: int | None = None,
    generator: torch.Generator | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Videos (b, c, f, h, w) in about [-1, 1] from noise.

    Args:
        denoise: a trained Denoiser, an exact or a guided one; with labels it needs `.given`.
        labels: (b, n) or (1, n) multi-hot, or None for unconditional samples.
        count: how many, by default as many as there are labels.
        shape: (c, f, h, w), by default what the weights were trained on.
        weight: guidance towards the labels, w >= 0.
        temporal_weight: guidance towards frames that belong together, w_f >= 0 (see `guided`).
        steps: and by name step, grid, corrector, final, clip: the fields of `Sampling`, or `sampling`, one of these
            with some of them replaced. 64 DDIM steps by default.
        generator: of all random draws.
        options: the fields of `Sampling`; `conditions`, others than labels, by name; `negative`, conditions away from
            which is guided, and `weaker`, a worse network away from which is guided (see `guided`); `progress`,
            `callback` as for `samplers.sample`.

    Raises:
        BadArgument: before anything is sampled, where these do not fit together.
    """
    named: dict[str, Any] = dict(options)
    watch = {name: named.pop(name) for name in ("progress", "callback") if name in named}
    conditions: dict[str, Tensor] = dict(named.pop("conditions", None) or {})
    towards = {name: named.pop(name, None) for name in ("negative", "weaker")}
    how = Sampling.of(named.pop("sampling", None), steps, **named)
    shape = clip_shape(denoise, shape)
    given = [value for value in (labels, *conditions.values()) if value is not None]
    if any(value.ndim == 0 for value in given):
        raise BadArgument("labels: expected the batch first, got a scalar")
    rows = max((len(value) for value in given), default=1)
    count = rows if count is None else whole("count", count)
    if any(len(value) not in (1, count) for value in given):
        raise BadArgument(f"labels: expected 1 or {count} rows, got {rows}")
    device = next(denoise.parameters()).device if isinstance(denoise, nn.Module) else None
    device = device or (labels.device if labels is not None else torch.device("cpu"))
    where = generator.device if generator is not None else device
    times = how.times(schedule_of(denoise))
    wanted = guided(denoise, labels, weight, temporal_weight=temporal_weight, conditions=conditions, **towards)
    noise = torch.randn((count, *shape), generator=generator, device=where).to(device)
    noise = noise * float(denoise.schedule.prior_std(times[0]))  # where variance is preserved, 1
    return samplers.sample(wanted, noise, sampling=how, generator=generator, **watch)


def clip_shape(denoise: Denoise, shape: tuple[int, ...] | None) -> tuple[int, int, int, int]:
    """(c, f, h, w) of a clip: `shape`, or that of the clips that the denoiser was trained on."""
    shape = shape if shape is not None else getattr(denoise, "shape", None)
    if shape is None:
        raise BadArgument("shape: expected (c, f, h, w), which this denoiser does not know by itself, got None")
    if len(shape) != 4:
        raise BadArgument(f"shape: expected (c, f, h, w), got {tuple(shape)}")
    c, f, h, w = (whole("shape", n) for n in shape)
    return c, f, h, w


check_types(globals())
