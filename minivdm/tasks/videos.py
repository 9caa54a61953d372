"""What a video denoiser is used for. A task says which frames are known, which denoiser is asked, and how it samples.

`generate` makes videos from labels alone; `extend`, `interpolate` and `super_resolve` continue, fill and sharpen videos
of any length, block by block; `restore` is one block of these, and takes any observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from minivdm.core import samplers
from minivdm.core.denoiser import Denoiser
from minivdm.core.gaussian import noise_like
from minivdm.core.guidance import Replacement, classifier_free, clipped, reconstruction
from minivdm.core.observe import BadObservation, Downsample, Frames, NotDifferentiable, Observe, Several, check
from minivdm.core.time_grids import times_of
from minivdm.tasks.orders import (
    BadOrder,
    Block,
    NoNewFrames,
    Order,
    TooManyObserved,
    autoregressive,
    hierarchical,
    plan,
)

__all__ = [
    "BadObservation",
    "BadOrder",
    "NoNewFrames",
    "NotDifferentiable",
    "TooManyObserved",
    "autoregressive",
    "extend",
    "generate",
    "guided",
    "hierarchical",
    "interpolate",
    "multi_hot",
    "restore",
    "super_resolve",
]


def multi_hot(digits: list[int] | tuple[int, ...], n: int = 10) -> Tensor:
    """Label vector (1, n) with a 1 for every class named. Raises ValueError for a class outside 0 .. n-1."""
    wrong = [digit for digit in digits if not 0 <= digit < n]
    if wrong:
        raise ValueError(f"labels: expected classes 0 to {n - 1}, got {wrong}")
    vector = torch.zeros(1, n)
    vector[0, list(digits)] = 1.0
    return vector


def guided(denoise: Any, labels: Tensor | None, weight: float) -> Any:
    """The denoiser to sample with: conditional, unconditional, or guided with `weight` (VDM eq 6; 0 = no guidance)."""
    if labels is None:
        if weight:
            raise ValueError(f"weight: guidance needs labels; expected weight 0 without them, got {weight}")
        return denoise.given(None) if hasattr(denoise, "given") else denoise
    if not hasattr(denoise, "given"):
        raise TypeError("labels: expected a denoiser that takes them by .given(labels), got one that is bound already")
    if weight == 0:
        return denoise.given(labels)
    return classifier_free(denoise.given(labels), denoise.given(None), weight)


@torch.no_grad()
def generate(
    denoise: Denoiser,
    labels: Tensor | None = None,
    *,
    count: int | None = None,
    shape: tuple[int, ...] | None = None,
    weight: float = 0.0,
    steps: int = 64,
    step: Callable[..., Tensor] = samplers.ddim_step,
    generator: torch.Generator | None = None,
    **sampling: Any,
) -> Tensor:
    """Videos (b, c, f, h, w) in about [-1, 1] from noise.

    labels: (b, n) or (1, n) multi-hot, or None for unconditional samples. count: how many, by default as many as there
    are labels. shape: (c, f, h, w), by default what the weights were trained on. weight: guidance, w >= 0.
    steps, step, **sampling: as for samplers.sample. Raises ValueError where these do not fit together.
    """
    shape = _shape(denoise, shape)
    rows = 1 if labels is None else len(labels)
    count = rows if count is None else count
    if rows not in (1, count):
        raise ValueError(f"labels: expected 1 or {count} rows, got {rows}")
    device = next(denoise.parameters()).device
    where = generator.device if generator is not None else device
    noise = torch.randn((count, *shape), generator=generator, device=where).to(device)
    if labels is not None:
        labels = labels.to(device).expand(count, *labels.shape[1:])
    return samplers.sample(guided(denoise, labels, weight), noise, steps, step=step, generator=generator, **sampling)


# ---- videos of which something is known --------------------------------------------------------------------------


@torch.no_grad()
def extend(
    denoise: Any,
    video: Tensor,
    frames: int,
    *,
    at: Sequence[int] | None = None,
    backwards: bool = False,
    order: Order | Iterable[Block] = autoregressive,
    window: int | None = None,
    labels: Tensor | None = None,
    denoise_at: Callable[[list[int]], Any] | None = None,
    **conditioning: Any,
) -> Tensor:
    """A video of `frames` frames (b, c, frames, h, w) that contains `video` (b, c, n, h, w), made block by block.

    denoise: a trained Denoiser, an exact or a guided one; with labels it needs `.given`.
    at: where in the result the known frames lie; by default at its beginning, or at its end where `backwards`.
    order: which frames each block observes and makes: `blocks.autoregressive`, `blocks.hierarchical`, either with an
        overlap bound by functools.partial, or any iterable of (observed, new) indices into the result.
    window: how many frames the network holds; by default as many as it was trained on. Memory depends on it, not on
        `frames`, but for the result itself.
    labels: (b or 1, n_labels) for all frames, or (b or 1, frames, n_labels).
    denoise_at: frame indices of a block -> the denoiser to ask for it, for models that know which frames they see.
    **conditioning: classifier-free guidance, and how a block is conditioned and sampled: see `restore`. progress=True
        shows one bar for all blocks.

    Raises, before anything is sampled: BadObservation, NoNewFrames, TooManyObserved, BadOrder, ValueError.
    """
    video = _placed(denoise, video)
    n = video.shape[2]
    if frames <= n:
        raise NoNewFrames(f"frames: expected more than the {n} known ones, got {frames}: nothing to make")
    if at is None:
        at = range(frames - n, frames) if backwards else range(n)
    if len(at) != n:
        raise BadObservation(f"at: expected an index for each of the {n} known frames, got {len(at)}")
    canvas = video.new_zeros(*video.shape[:2], frames, *video.shape[3:])
    blocks = plan(order, list(at), frames, _window(denoise, window))
    canvas[:, :, list(at)] = video
    return _fill(denoise, canvas, blocks, list(at), labels, denoise_at, **conditioning)


@torch.no_grad()
def interpolate(denoise: Any, video: Tensor, between: int, **options: Any) -> Tensor:
    """`between` new frames between any two neighbours of video (b, c, n, h, w): n + (n - 1) between frames.

    The known frames are `between` + 1 apart in the time of the model. options: as for `extend`, which joins clips too:
    `extend(denoise, both, frames, at=[*first, *last])`.
    """
    video = _placed(denoise, video)
    if between < 1:
        raise NoNewFrames(f"between: expected at least 1 new frame between two known ones, got {between}")
    if video.shape[2] < 2:
        raise BadObservation(f"video: expected at least 2 frames to interpolate between, got {video.shape[2]}")
    frames = video.shape[2] + (video.shape[2] - 1) * between
    return extend(denoise, video, frames, at=range(0, frames, between + 1), **options)


@torch.no_grad()
def super_resolve(
    denoise: Any,
    video: Tensor,
    space: int = 2,
    every: int = 1,
    *,
    frames: int | None = None,
    first: Tensor | None = None,
    order: Order | Iterable[Block] = autoregressive,
    window: int | None = None,
    labels: Tensor | None = None,
    denoise_at: Callable[[list[int]], Any] | None = None,
    **conditioning: Any,
) -> Tensor:
    """The video (b, c, f, h * space, w * space) whose block means `video` (b, c, n, h, w) shows (VDM eq 8).

    space: pixels along a block's side. every: `video` has every `every`-th frame alone; those between are made.
    frames: how many the result has, by default the fewest, (n - 1) every + 1.
    first: (b, c, m, h * space, w * space), leading frames that are there at full size already.
    Where it has more frames than the network holds, each block observes its own part of `video` and the full-size
    frames before it: super-resolution and extension at once, as in VDM's figure 2. Further arguments and errors: as
    for `extend`, but that the order begins without known frames unless `first` is given.
    """
    video = _placed(denoise, video)
    frames = (video.shape[2] - 1) * every + 1 if frames is None else frames
    if video.shape[2] != -(-frames // max(every, 1)):
        raise BadObservation(
            f"video: expected {-(-frames // max(every, 1))} frames, every {every}th of {frames}, got {video.shape[2]}"
        )
    low = Downsample(space, every)  # checks both
    if space == every == 1:
        raise NoNewFrames("expected space or every above 1, got 1 and 1: nothing to make")
    shape = (video.shape[1], frames, video.shape[3] * space, video.shape[4] * space)
    known: list[int] = []
    canvas = video.new_zeros(len(video), *shape)
    if first is not None:
        first = _placed(denoise, first)
        known = list(range(first.shape[2]))
        if first.ndim != 5 or first.shape[1] != shape[0] or first.shape[3:] != canvas.shape[3:]:
            wanted = f"(b, {shape[0]}, m, {shape[2]}, {shape[3]})"
            raise BadObservation(f"first: expected {wanted}, got {tuple(first.shape)}")
    blocks = plan(order, known, frames, _window(denoise, window))
    if first is not None:
        canvas[:, :, known] = first
    return _fill(denoise, canvas, blocks, known, labels, denoise_at, low=low, low_video=video, **conditioning)


@torch.no_grad()
def restore(
    denoise: Any,
    observed: Tensor | None,
    observe: Observe | None,
    shape: tuple[int, ...] | None = None,
    *,
    frames: Sequence[int] = (),
    known: Tensor | None = None,
    labels: Tensor | None = None,
    weight: float = 0.0,
    method: str = "reconstruction",
    reconstruction_weight: float = 2.0,
    variance: str = "vdm",
    draw: str = "fresh",
    steps: int | None = 64,
    grid: Any = samplers.uniform_in_t,
    clip: bool = True,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
    generator: torch.Generator | None = None,
    dry: bool = False,
    **sampling: Any,
) -> Tensor:
    """One clip (b, *shape) with shape (c, f, h, w) of which something is known: a block of every task above.

    observed, observe: any differentiable observation, see `minivdm.core.observe`, and what it saw, (b, ...).
    frames, known: indices of frames that are known, and these, (b, c, n, h, w). They are observed as well, and z^a is
        replaced by draws from q(z^a | x^a) at every level. Either pair may be missing.
    labels, weight: as for `extend`.
    method: "reconstruction", guidance together with replacement of the frames, as VDM uses it; or "replacement" alone.
    reconstruction_weight: w_r >= 0. variance: of x^a given z_t, "vdm" or "pigdm" (see guidance.reconstruction).
    draw: "fresh" or "posterior" (see guidance.Replacement).
    steps, grid, **sampling: as for samplers.sample, such as step and corrector. clip: keep x_hat within `bounds`, the
        range of the data; None for data without one.
    dry: check all arguments, and sample nothing.

    Raises BadObservation, NotDifferentiable, TooManyObserved or ValueError, before anything is sampled.
    """
    if method not in ("reconstruction", "replacement"):
        raise ValueError(f"method: expected 'reconstruction' or 'replacement', got {method!r}")
    if not reconstruction_weight >= 0:
        raise ValueError(f"reconstruction_weight: expected w_r >= 0, got {reconstruction_weight}")
    if method == "replacement" and observe is not None:
        raise BadObservation("method: replacement can put in whole frames alone; 'reconstruction' observes the rest")
    shape = _shape(denoise, shape)
    times = times_of(grid, steps if callable(grid) else None, denoise.schedule)
    operators: list[Observe] = []
    values: list[Tensor] = []
    if known is not None:
        if len(frames) >= shape[1]:
            got = f"{len(frames)} observed ones"
            raise TooManyObserved(f"expected fewer observed frames than the {shape[1]} of the clip, got {got}")
        check(known, Frames(frames), shape, bounds, gradient=False)
        operators, values = [Frames(frames)], [known]
    if observe is not None and observed is not None:
        check(observed, observe, shape, bounds)
        operators, values = [*operators, observe], [*values, observed]
    if not operators:
        raise BadObservation("expected `observed` and `observe`, or `frames` and `known`, got neither pair whole")

    asked = guided(denoise, labels, weight)
    project = None if known is None else Replacement(known, denoise.schedule, frames, draw, generator)
    if method == "reconstruction":
        several = Several(*operators)
        joined = values[0] if len(values) == 1 else several.join(*values)
        asked = reconstruction(
            asked, joined, reconstruction_weight, operators[0] if len(values) == 1 else several, variance
        )
    if clip and bounds is not None:
        asked = clipped(asked, *bounds)
    if dry:
        return values[0]
    b = max(len(value) for value in values)
    noise = noise_like(values[0].new_empty(b, *shape), generator) * denoise.schedule.prior_std(times[0])
    return samplers.sample(asked, noise, grid=times, project=project, generator=generator, **sampling)


def _fill(
    denoise: Any,
    canvas: Tensor,
    blocks: list[Block],
    known: list[int],
    labels: Tensor | None,
    denoise_at: Callable[[list[int]], Any] | None,
    low: Downsample | None = None,
    low_video: Tensor | None = None,
    progress: bool = False,
    callback: Callable[[Tensor, Tensor], object] | None = None,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
    steps: int | None = 64,
    grid: Any = samplers.uniform_in_t,
    **options: Any,
) -> Tensor:
    """Makes the blocks one after the other on a canvas (b, c, frames, h, w) that holds the known frames."""
    b, c, total, h, w = canvas.shape
    times = times_of(grid, steps if callable(grid) else None, denoise.schedule)
    if labels is not None and (labels.shape[0] not in (1, b) or (labels.ndim == 3 and labels.shape[1] != total)):
        wanted = f"({b}, n) or ({b}, {total}, n)"
        raise ValueError(f"labels: expected {wanted} for {b} videos of {total} frames, got {tuple(labels.shape)}")

    def make(block: Block, **more: Any) -> Tensor:
        observed, new = sorted(block[0]), block[1]
        indices = sorted([*observed, *new])
        places = [i for i, frame in enumerate(indices) if low is not None and frame % low.every == 0]
        seen, observe = None, None
        if low is not None and low_video is not None and places:
            seen = low_video[:, :, [indices[i] // low.every for i in places]]
            observe = Downsample(low.space, frames=places)
        bound = labels[:, indices] if labels is not None and labels.ndim == 3 else labels
        clip = restore(
            denoise if denoise_at is None else denoise_at(indices),
            seen,
            observe,
            (c, len(indices), h, w),
            frames=[indices.index(frame) for frame in observed],
            known=canvas[:, :, observed] if observed else None,
            labels=bound,
            bounds=bounds,
            grid=times,
            **options,
            **more,
        )
        return clip if more.get("dry") else clip[:, :, [indices.index(frame) for frame in new]]

    for block in blocks:  # everything is checked before anything is sampled; frames to be made still stand at 0
        make(block, dry=True)
    with tqdm(total=len(blocks) * (len(times) - 1), disable=not progress, desc="sampling") as bar:

        def count(z: Tensor, t: Tensor) -> None:
            bar.update()
            if callback is not None:
                callback(z, t)

        for block in blocks:
            made = make(block, callback=count)
            canvas[:, :, block[1]] = made if bounds is None else made.clamp(*bounds)
    return canvas


def _shape(denoise: Any, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    shape = shape or getattr(denoise, "shape", None)
    if shape is None:
        raise ValueError("shape: expected (c, f, h, w), which this denoiser does not know by itself, got None")
    return tuple(shape)


def _window(denoise: Any, window: int | None) -> int:
    if window is None:
        window = _shape(denoise, None)[1] if hasattr(denoise, "shape") else 0
    if window < 1:
        raise ValueError(f"window: expected how many frames the denoiser holds at once, got {window}")
    return window


def _placed(denoise: Any, video: Tensor) -> Tensor:
    """The video where the denoiser's weights are; raises BadObservation for what is no video."""
    if video.ndim != 5 or 0 in video.shape:
        raise BadObservation(f"video: expected (b, c, f, h, w), got shape {tuple(video.shape)}")
    if not video.is_floating_point():
        raise BadObservation(f"video: expected floating-point values in [-1, 1], got {video.dtype}")
    if isinstance(denoise, nn.Module):
        video = video.to(next(denoise.parameters()).device)
    return video
