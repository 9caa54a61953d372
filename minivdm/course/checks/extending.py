"""Checks of assignment 10: what a model of videos says about frames that are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule, gaussian
from minivdm.course.checks.extension import extend as extend
from minivdm.course.checks.harness import (
    Case,
    Check,
    Wrong,
    counting_while_sampling,
    generator,
    name_of,
    ordered_pair,
    uniform,
    video,
)
from minivdm.exact import GaussianVideo
from minivdm.tasks import autoregressive

COSINE, LINEAR = CosineSchedule(-12.0, 12.0), LinearSchedule()
Block = tuple[list[int], list[int]]  # the frames observed, and those made
FLOATS = (torch.float64, torch.float32)


# ---- seams ---------------------------------------------------------------------------------------------------


def _seam_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in FLOATS:
        yield Case(f"{name_of(dtype)}, clips of 6 frames, a seam", (video(g, 2, 1, 6, 4, 4, dtype=dtype), [3]))
    loud = torch.tensor([0.2, 2.0], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    yield Case("a quiet and a loud clip, two seams, the later one first", (loud * video(g, 2, 2, 7, 3, 3), [5, 2]))
    yield Case("one clip, a seam at each end", (video(g, 1, 1, 5, 2, 2), [1, 4]))
    yield Case("a seam that is named twice", (video(g, 2, 1, 6, 2, 2), [4, 2, 4]))


def _seam(videos: Tensor, seams: list[int]) -> Tensor:
    change = [(videos[:, :, k] - videos[:, :, k - 1]).square().mean() for k in range(1, videos.shape[2])]
    others = [value for k, value in enumerate(change, 1) if k not in seams]
    return torch.stack([change[k - 1] for k in sorted(set(seams))]).mean() / torch.stack(others).mean()


def _scored(score: Callable[[Tensor, Tensor], Tensor], shift: int = 0, power: int = 2) -> Callable[..., Tensor]:
    """score: (changes (b, f - 1), which of them are seams (f - 1,)) -> the ratio."""

    def answer(videos: Tensor, seams: list[int]) -> Tensor:
        change = videos.diff(dim=2).abs().pow(power).mean(dim=(1, 3, 4))
        at = torch.zeros(change.shape[1], dtype=torch.bool)
        at[[min(seam - 1 + shift, len(at) - 1) for seam in seams]] = True
        return score(change, at)

    return answer


def _ratio(change: Tensor, at: Tensor) -> Tensor:
    return change[:, at].mean() / change[:, ~at].mean()


def _named_twice(videos: Tensor, seams: list[int]) -> Tensor:
    change = videos.diff(dim=2).square().mean(dim=(0, 1, 3, 4))
    others = [k - 1 for k in range(1, videos.shape[2]) if k not in seams]
    return change[[seam - 1 for seam in seams]].mean() / change[others].mean()


seam_score = Check(
    "seam_score",
    _seam,
    _seam_cases,
    [
        Wrong(
            _scored(_ratio, shift=1),
            "you look one frame too late: the jump leads from the last old frame into the one named.",
        ),
        Wrong(
            _scored(lambda change, at: change[:, at].mean() / change.mean()),
            "your denominator contains the seams themselves; compare with the other frames only.",
        ),
        Wrong(_scored(_ratio, power=1), "you average the sizes of the changes, not their squares."),
        Wrong(_scored(lambda change, at: 1 / _ratio(change, at)), "your ratio is upside down: a bad seam scores high."),
        Wrong(
            _scored(lambda change, at: (change[:, at].mean(1) / change[:, ~at].mean(1)).mean()),
            "you average ratios of clips; asked is one ratio, of two means over all clips.",
        ),
        Wrong(
            _scored(lambda change, at: change[:, at].sum() / change[:, ~at].sum()),
            "you compare sums. There are fewer seams than other frames, so both have to be means.",
        ),
        Wrong(
            _named_twice,
            "a seam that is named twice counts twice in your mean: `seams` says where seams are, not how often.",
        ),
    ],
)


# ---- replacement ---------------------------------------------------------------------------------------------


def _masked_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in FLOATS:
        z, x, e = (video(g, 2, 1, 6, 4, 4, dtype=dtype) for _ in range(3))
        given = torch.rand(2, 1, 6, 4, 4, generator=g) < 0.4
        if dtype == torch.float64:
            yield Case("single pixels of 6 frames, x at hand everywhere", (z, x, e, given, t, s, COSINE))
        yield Case(f"{name_of(dtype)}, single pixels of 6 frames", (z, _unknown(x, given), e, given, t, s, COSINE))
    z, x, e = (video(g, 3, 2, 5, 3, 3) for _ in range(3))
    whole = torch.tensor([False, True, False, False, True]).reshape(1, 1, 5, 1, 1)
    yield Case("frames 1 and 4 of 5, from t = 1", (z, _unknown(x, whole), e, whole, 1.0, s, LINEAR))
    left = torch.tensor([True, False, False])
    yield Case("the left column, to s = 0", (z, _unknown(x, left), e, left, t, 0.0, COSINE))
    yield Case("all pixels of one clip", (z[:1], x[:1], e[:1], torch.ones(1, dtype=torch.bool), t, s, COSINE))


def _unknown(x: Tensor, given: Tensor) -> Tensor:
    """x where it is given, and NaN where nobody knows it."""
    return x.masked_fill(~given, torch.nan)


def _masked(draw: Callable[..., Tensor], clean: bool = True) -> Callable[..., Tensor]:
    """draw: (x, noise, t, s, schedule) -> values of the given pixels."""

    def answer(z: Tensor, x: Tensor, e: Tensor, given: Tensor, t: float, s: float, schedule: Schedule) -> Tensor:
        return torch.where(given, x if s == 0 and clean else draw(x, e, t, s, schedule), z)

    return answer


def _diffused(x: Tensor, e: Tensor, t: float, s: float, schedule: Schedule) -> Tensor:
    return gaussian.diffuse(x, s, schedule, e)


def _number(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.dtype)


masked_replacement = Check(
    "masked_replacement",
    _masked(_diffused),
    _masked_cases,
    [
        Wrong(
            _masked(lambda x, e, t, s, schedule: gaussian.diffuse(x, t, schedule, e)),
            "you noise what is given to t. The step has left t: at which level is the latent now?",
        ),
        Wrong(
            _masked(_diffused, clean=False),
            "at s = 0 noise is left in what is given: a truncated schedule has some there, clean data do not.",
        ),
        Wrong(
            _masked(lambda x, e, t, s, schedule: x),
            "you put in the clean pixels; next to noisy ones at level s, a model has never seen such a latent.",
        ),
        Wrong(
            _masked(lambda x, e, t, s, schedule: x + _number(schedule.sigma(s), x) * e),
            "your given pixels keep scale 1: at level s the signal has scale alpha_s.",
        ),
        Wrong(
            _masked(lambda x, e, t, s, schedule: gaussian.diffuse(x, s, schedule, _number(schedule.sigma(s), e) * e)),
            "you scale the noise by a variance, sigma_s²; a standard deviation belongs there.",
        ),
        Wrong(
            lambda z, x, e, given, *rest: (
                given.to(z.dtype) * _masked(_diffused)(z, x, e, torch.ones_like(given), *rest)
                + (~given).to(z.dtype) * z
            ),
            "you multiply by the mask and add: where nothing is known x is NaN, and 0 times NaN is NaN. Choose, with "
            "torch.where.",
        ),
        Wrong(
            lambda z, x, e, given, *rest: _masked(_diffused)(z, x.nan_to_num(), e, ~given, *rest),
            "you overwrite what is *not* given.",
        ),
        Wrong(
            lambda z, x, e, given, *rest: _masked(_diffused)(z, x, e, torch.ones_like(given), *rest),
            "you overwrite everything: where nothing is given, the latent stays what the step made of it.",
        ),
    ],
    new=True,
)


def _path_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    share = float(uniform(g, 0.3, 0.7))
    for dtype in FLOATS:
        z_s, z_t, x_a, e = (video(g, 2, 1, n, 4, 4, dtype=dtype) for n in (6, 6, 3, 3))
        yield Case(
            f"{name_of(dtype)}, frames 0 to 2 of 6, share {share:.2f}",
            (z_s, z_t, x_a, e, [0, 1, 2], t, s, COSINE, share),
        )
    z_s, z_t, x_a, e = (video(g, 3, 2, n, 3, 3) for n in (5, 5, 2, 2))
    yield Case("frames 4 and 1 of 5, from t = 1", (z_s, z_t, x_a, e, [4, 1], 1.0, s, LINEAR, share))
    one = (z_s[:1, :, :2], z_t[:1, :, :2], x_a[:1, :, :1], e[:1, :, :1])
    yield Case("one clip, one frame of two, nothing fresh", (*one, [1], t, s, COSINE, 0.0))
    yield Case("all of it fresh", (*one, [1], t, s, COSINE, 1.0))


def _put(z: Tensor, frames: Any, values: Tensor) -> Tensor:
    z = z.clone()
    z[:, :, frames] = values
    return z


def _path(
    value: Callable[..., Tensor], before: bool = True, order: Callable[[Any], Any] = lambda frames: frames
) -> Callable[..., Tensor]:
    """value: (z_t^a, x_a, fresh noise, alpha and sigma of t and s, share) -> what is put in."""

    def answer(
        z_s: Tensor, z_t: Tensor, x_a: Tensor, e: Tensor, frames: Any, t: float, s: float, schedule: Any, share: float
    ) -> Tensor:
        scales = (_number(f(u), e) for u in (t, s) for f in (schedule.alpha, schedule.sigma))
        frames = order(frames)
        return _put(z_s, frames, value((z_t if before else z_s)[:, :, frames], x_a, e, *scales, share))

    return answer


def _kept(z: Tensor, x: Tensor, e: Tensor, at: Tensor, st: Tensor, as_: Tensor, ss: Tensor, k: float) -> Tensor:
    """As a draw around the mean of DDIM's law (6.9)."""
    fresh = k * ss
    return as_ * x + (ss**2 - fresh**2).clamp(min=0).sqrt() / st * (z - at * x) + fresh * e


path_replacement = Check(
    "path_replacement",
    _path(_kept),
    _path_cases,
    [
        Wrong(
            _path(_kept, before=False),
            "you begin from what the step made of the given frames; the path goes on from what they were at t.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * e),
            "that is a fresh draw, whatever the share: it forgets the noise of the level before.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * ((1 - k) * (z - at * x) / st + k * e)),
            "your two shares add up to 1; then their noise has less than variance 1. It is the squares that do.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * (k * (z - at * x) / st + (1 - k**2) ** 0.5 * e)),
            "you have old and fresh noise exchanged: at share 1 all of it is fresh.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * ((1 - k) ** 0.5 * (z - at * x) / st + k**0.5 * e)),
            "you take the share for that of the variance; it is that of the standard deviation.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + (1 - k**2) ** 0.5 * (z - at * x) + k * ss * e),
            "what is left of z_t without its signal is noise of size sigma_t; at s it has size sigma_s.",
        ),
        Wrong(
            _path(lambda z, x, e, at, st, as_, ss, k: as_ * x + ss * ((1 - k**2) ** 0.5 * (z - x) / st + k * e)),
            "in z_t the signal has scale alpha_t: that much of x is to be taken away.",
        ),
        Wrong(
            _path(_kept, order=sorted),
            "you sort the frames: `frames` is in the order of the frames of x_a, and need not rise.",
        ),
    ],
)


# ---- two frames ----------------------------------------------------------------------------------------------


def _two_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    rho, t = float(uniform(g, 0.5, 0.9)), float(uniform(g, 0.3, 0.7))
    level = COSINE.alpha(t), COSINE.sigma(t)
    points = uniform(g, -2.0, 2.0, 3, 5)
    for name, r, scales in (
        ("rho > 0", rho, level),
        ("rho < 0", -rho, level),
        ("rho = 0", 0.0, level),
        ("nearly pure noise", rho, (COSINE.alpha(1.0), COSINE.sigma(1.0))),
        ("variance exploding, sigma = 2", rho, torch.tensor([1.0, 2.0]).double().unbind()),
    ):
        yield Case(name, (r, *points, *scales))


def _two(rho: float, z_a: Tensor, z_b: Tensor, x_a: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    world, z = GaussianVideo(2, rho), torch.stack([z_a, z_b], dim=1)[:, None, :, None, None]
    given = world.given(x_a[:, None, None, None, None])
    return tuple(w.posterior_mean(z, alpha, sigma)[:, 0, 1, 0, 0] for w in (world, given))  # type: ignore[return-value]


def _second(second: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Right without x_a; second: (rho, z_a, z_b, x_a, alpha, sigma) -> the estimate that knows it."""
    return lambda *arguments: (_two(*arguments)[0], second(*arguments))


def _alone(rho: float, z_a: Tensor, z_b: Tensor, x_a: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return a * z_b / (a**2 + s**2), _two(rho, z_a, z_b, x_a, a, s)[1]


def _preserved(rho: float, z_a: Tensor, z_b: Tensor, x_a: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    shared = a**2 * rho
    without = a * ((rho - shared) * z_a + (1 - rho * shared) * z_b) / (1 - shared**2)
    return without, _two(rho, z_a, z_b, x_a, a, s)[1]


two_frames = Check(
    "two_frames",
    _two,
    _two_cases,
    [
        Wrong(
            _second(lambda r, za, zb, xa, a, s: r * xa + 0 * zb),
            "your conditional estimate does not look at z_b: x_a gives a prior for x_b, and z_b tells more.",
        ),
        Wrong(
            _second(lambda r, za, zb, xa, a, s: r * xa + a / (a**2 + s**2) * (zb - a * r * xa)),
            "in your conditional estimate x_b still has variance 1: how much of it is left when x_a is known?",
        ),
        Wrong(
            _second(lambda r, za, zb, xa, a, s: r * xa + a * (1 - r**2) / (a**2 * (1 - r**2) + s**2) * (zb - r * xa)),
            "you compare z_b with rho x_a; its mean given x_a is smaller by a factor.",
        ),
        Wrong(
            _alone,
            "your unconditional estimate looks at z_b alone: the other frame is correlated, and z_a tells about it.",
        ),
        Wrong(
            _second(lambda r, za, zb, xa, a, s: r * xa + a * (1 - r) / (a**2 * (1 - r) + s**2) * (zb - a * r * xa)),
            "what is left of x_b's variance when x_a is known is 1 − rho², not 1 − rho.",
        ),
        Wrong(
            _preserved,
            "your unconditional estimate takes alpha² + sigma² for 1; that is so where variance is preserved, and not "
            "here always.",
        ),
        Wrong(lambda *arguments: _two(*arguments)[::-1], "you return the two estimates in the other order."),
        Wrong(
            _second(lambda r, za, zb, xa, a, s: _two(r, a * xa, zb, xa, a, s)[0]),
            "your conditional estimate has alpha x_a in the place of z_a: what is known counts as noisy there.",
        ),
    ],
)


def _weight_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    levels = uniform(g, -5.0, 4.0, 6)
    yield Case("rho > 0", (float(uniform(g, 0.5, 0.95)), levels))
    yield Case("rho < 0", (float(uniform(g, -0.9, -0.5)), levels))
    yield Case("rho = 0", (0.0, levels))
    for name, level in (("one level", 0.5), ("nearly pure noise", -12.0), ("nearly clean frames", 12.0)):
        yield Case(f"rho = 0.99, {name}", (0.99, torch.tensor(level, dtype=torch.float64)))


def _weight(rho: float, log_snr: Tensor) -> Tensor:
    prior = torch.linalg.inv(GaussianVideo(2, rho).covariance)
    snr = log_snr.exp()[..., None, None]
    return 1 / (log_snr.exp() * torch.linalg.inv(prior + snr * torch.eye(2, dtype=torch.float64))[..., 0, 0])


right_weight = Check(
    "right_weight",
    _weight,
    _weight_cases,
    [
        Wrong(
            lambda rho, lam: 1 / _weight(rho, lam),
            "yours is at most 1; by (10.7) it should be at least 1, because (10.4) claims too much variance.",
        ),
        Wrong(
            lambda rho, lam: (1 / (1 - rho**2) + lam.exp()) / lam.exp(),
            "you took the precision's first entry for 1/C^aa: a block of an inverse is not the inverse of a block.",
        ),
        Wrong(
            lambda rho, lam: 1 + (-lam).exp(),
            "yours is right for rho = 0 alone, where the other frame says nothing about x_a.",
        ),
        Wrong(lambda rho, lam: lam.exp() * _weight(rho, lam), "you return 1/C^aa: a factor is missing."),
        Wrong(
            lambda rho, lam: lam.exp() ** 2 * _weight(rho, lam),
            "your factor is the signal-to-noise ratio; sigma²/alpha² is its inverse.",
        ),
    ],
)


# ---- reconstruction guidance ---------------------------------------------------------------------------------


def _linear(frames: int, dtype: torch.dtype, alpha: Tensor, sigma: Tensor) -> Callable[[Tensor], Tensor]:
    world = GaussianVideo(frames, 0.9, (2, 2), 0.3)
    return lambda z: world.posterior_mean(z, alpha, sigma)


def _network(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """Mixes frames, and is not linear."""
    return lambda z: torch.einsum("ij,bcjhw->bcihw", weights, z.tanh()).sin()


def _guided_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    t = uniform(g, 0.3, 0.7).item()
    alpha, sigma = COSINE.alpha(t), COSINE.sigma(t)
    weights = uniform(g, 1.0, 4.0, 3).sort().values
    for dtype in FLOATS:
        z, x_a = video(g, 2, 1, 5, 2, 2, dtype=dtype), video(g, 2, 1, 2, 2, 2, dtype=dtype)
        yield Case(
            f"{name_of(dtype)}, a Gaussian video, frames 0 and 1 given",
            (_linear(5, dtype, alpha, sigma), z, x_a, [0, 1], weights[:2].to(dtype), alpha.to(dtype)),
        )
    mix = video(g, 4, 4)
    yield Case(
        "a denoiser that is not linear, frames 3 and 0 given",
        (_network(mix), video(g, 3, 2, 4, 3, 3), video(g, 3, 2, 2, 3, 3), [3, 0], weights[:2], alpha),
    )
    yield Case(
        "frames 2, 1 and once more 2",
        (_network(mix), video(g, 1, 1, 4, 2, 2), video(g, 1, 1, 3, 2, 2), [2, 1, 2], weights, alpha),
    )
    single = _network(mix), video(g, 1, 1, 4, 2, 2), video(g, 1, 1, 1, 2, 2), [2]
    yield Case("one frame of one clip, weight 0", (*single, torch.zeros(1, dtype=torch.float64), alpha))


def _weighted(
    scale: Callable[[Tensor], Any] = lambda alpha: -alpha / 2,
    size: Callable[[Tensor, Tensor], Tensor] = lambda square, w: (square * w).sum(),
    through: bool = True,
    graph: bool = True,
) -> Callable[..., Tensor]:
    """scale: alpha -> what the gradient of size(squared residual, weights) is multiplied by."""

    def answer(denoise: Callable, z: Tensor, x_a: Tensor, frames: Any, weights: Tensor, alpha: Tensor) -> Tensor:
        with torch.set_grad_enabled(graph):
            leaf = z.detach().clone().requires_grad_()
            x_hat = denoise(leaf)
            seen = x_hat[:, :, frames] if through else leaf[:, :, frames] + (x_hat - leaf)[:, :, frames].detach()
            total = size((x_a - seen).square(), weights[:, None, None])
            (gradient,) = torch.autograd.grad(total, leaf)
        return x_hat.detach() + scale(alpha) * gradient

    return answer


def _by_mask(denoise: Callable, z: Tensor, x_a: Tensor, frames: Any, weights: Tensor, alpha: Tensor) -> Tensor:
    """A frame that is named twice counts once, with its last value and weight."""
    last = {frame: place for place, frame in enumerate(frames)}
    kept = list(last.values())
    return _weighted()(denoise, z, x_a[:, :, kept], list(last), weights[kept], alpha)


guided_by_reconstruction = Check(
    "guided_by_reconstruction",
    _weighted(),
    _guided_cases,
    [
        Wrong(
            _weighted(size=lambda square, w: (square * w).mean()),
            "your square is a mean: then the weight means something else for each size of clip. It is a sum.",
        ),
        Wrong(
            _weighted(through=False),
            "your gradient does not pass through the denoiser: the frames to be made feel nothing of it.",
        ),
        Wrong(
            _weighted(lambda a: a / 2),
            "your sign is wrong: the estimate should move so that the square gets smaller.",
        ),
        Wrong(_weighted(lambda a: -a), "you forgot the factor 1/2, which the Gaussian (10.4) brings along."),
        Wrong(_weighted(lambda a: -0.5), "you forgot alpha, which is left of the factors of (10.2) and (10.4)."),
        Wrong(
            _weighted(graph=False),
            "there is no graph to differentiate: samplers run under torch.no_grad(). Switch gradients on around the "
            "call of the denoiser, and call it with a leaf that requires them.",
        ),
        Wrong(
            _weighted(size=lambda square, w: (square * w).sum().clamp(min=1e-30).sqrt()),
            "you differentiate the norm; (10.5) has the square of it.",
        ),
        Wrong(
            _weighted(size=lambda square, w: square.sum() * w.mean()),
            "you use the mean weight for all frames; each given frame has its own.",
        ),
        Wrong(
            _weighted(size=lambda square, w: (square * w**2).sum()),
            "your weights multiply the difference, and are squared with it; they multiply the square.",
        ),
        Wrong(
            lambda denoise, z, *rest: _weighted()(denoise, z, *rest) + 0 * denoise(z),
            "you call the denoiser twice; its value and its gradient come from one call, and a call is what costs.",
        ),
        Wrong(
            lambda denoise, z, x_a, frames, *rest: _weighted()(denoise, z, x_a, sorted(frames), *rest),
            "you sort the frames: `frames` is in the order of the frames of x_a, and need not rise.",
        ),
        Wrong(
            _by_mask,
            "a frame that is named twice counts once in your sum: each entry of `frames` belongs to a frame of x_a of "
            "its own.",
        ),
    ],
    probe=counting_while_sampling,
    detached=True,
)


# ---- order of blocks -----------------------------------------------------------------------------------------


def _block_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    n, extra, overlap = (int(uniform(g, *bounds)) for bounds in ((9, 16), (20, 40), (2, 8)))
    for numbers in ((16, 64, 16, 8), (10, 37, 16, 12), (n, n + extra, 16, overlap), (3, 10, 4, 0)):
        yield Case("the last {} of {} frames exist, window {}, overlap {}".format(*numbers), numbers)
    yield Case("fewer exist than the overlap", (2, 20, 8, 4))
    yield Case("the whole video fits into the window", (3, 6, 8, 2))


def _mirrored(block: Block, frames: int) -> Block:
    observed, new = ([frames - 1 - i for i in reversed(part)] for part in block)
    return observed, new


def _before(known: int, frames: int, window: int, overlap: int) -> list[Block]:
    """The blocks that go forwards, seen in a mirror."""
    return [_mirrored(block, frames) for block in autoregressive(range(known), frames, window, overlap)]


def _walk(begin: Callable[..., int], end: Callable[..., int] | None = None) -> Callable[..., list[Block]]:
    """In the mirror: begin: (there, frames, window, overlap) -> first frame of a block; end: one after its last."""

    def answer(known: int, frames: int, window: int, overlap: int) -> list[Block]:
        blocks: list[Block] = []
        while known < frames and len(blocks) < 99:
            start = begin(known, frames, window, overlap)
            stop = min(start + window, frames) if end is None else end(start, known, frames, window, overlap)
            blocks.append(_mirrored((list(range(start, known)), list(range(known, stop))), frames))
            known = stop
        return blocks

    return answer


blocks_before = Check(
    "blocks_before",
    _before,
    _block_cases,
    [
        Wrong(
            lambda *numbers: list(autoregressive(range(numbers[0]), *numbers[1:])),
            "you make the frames *after* the first ones; here the last ones exist, and those before them are wanted.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: max(0, k - o)),
            "your last block is not full: where few frames are missing, it can observe more than the overlap.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: max(0, k - o), lambda start, k, f, n, o: start + n),
            "your last block runs beyond the beginning of the video, to negative frames.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: min(max(0, k - o), max(0, f - n)), lambda start, k, f, n, o: min(k + n, f)),
            "your blocks hold `window` new frames and the overlap besides: the network holds `window` in all.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: min(max(0, k - n + o), max(0, f - n))),
            "you make `overlap` new frames and observe the rest: it is the other way round.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: min(max(0, k - o - 1), max(0, f - n))),
            "your blocks observe one frame more than the overlap.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: min(k, max(0, f - n)) if o else k),
            "your blocks do not observe the frames after them, so that the next block knows nothing of the last.",
        ),
        Wrong(
            lambda *numbers: _before(*numbers)[::-1],
            "your blocks are in the order of time; they are made in the other one, beginning beside what exists.",
        ),
        Wrong(
            lambda *numbers: [(observed[::-1], new[::-1]) for observed, new in _before(*numbers)],
            "the frames within your blocks fall; a network is shown them in the order of time.",
        ),
    ],
)
