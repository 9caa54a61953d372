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


def _seam(videos: Tensor, seams: list[int]) -> Tensor:
    change = [(videos[:, :, k] - videos[:, :, k - 1]).square().mean() for k in range(1, videos.shape[2])]
    others = [value for k, value in enumerate(change, 1) if k not in seams]
    return torch.stack([change[k - 1] for k in seams]).mean() / torch.stack(others).mean()


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
            "you average ratios of clips; (10.11) is one ratio, of two means over all clips.",
        ),
        Wrong(
            _scored(lambda change, at: change[:, at].sum() / change[:, ~at].sum()),
            "you compare sums. There are fewer seams than other frames, so both have to be means.",
        ),
    ],
)


# ---- replacement ---------------------------------------------------------------------------------------------


def _fresh_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in FLOATS:
        z, x_a, e = (video(g, 2, 1, n, 4, 4, dtype=dtype) for n in (6, 3, 3))
        yield Case(f"{name_of(dtype)}, frames 0 to 2 of 6", (z, x_a, e, [0, 1, 2], t, s, COSINE))
    z, x_a, e = (video(g, 3, 2, n, 3, 3) for n in (5, 2, 2))
    yield Case("frames 4 and 1 of 5, from t = 1", (z, x_a, e, [4, 1], 1.0, s, LINEAR))
    yield Case("to s = 0", (z, x_a, e, [0, 2], t, 0.0, COSINE))
    yield Case("one clip, one frame of two", (z[:1, :, :2], x_a[:1, :, :1], e[:1, :, :1], [1], t, s, COSINE))


def _put(z: Tensor, frames: Any, values: Tensor) -> Tensor:
    z = z.clone()
    z[:, :, frames] = values
    return z


def _given(draw: Callable[..., Tensor], clean: bool = True) -> Callable[..., Tensor]:
    """draw: (x_a, noise, t, s, schedule) -> values of the observed frames."""

    def answer(z: Tensor, x_a: Tensor, e: Tensor, frames: Any, t: float, s: float, schedule: Schedule) -> Tensor:
        return _put(z, frames, x_a if s == 0 and clean else draw(x_a, e, t, s, schedule))

    return answer


def _diffused(x_a: Tensor, e: Tensor, t: float, s: float, schedule: Schedule) -> Tensor:
    return gaussian.diffuse(x_a, s, schedule, e)


def _leading(z: Tensor, x_a: Tensor, e: Tensor, frames: Any, t: float, s: float, schedule: Schedule) -> Tensor:
    return _given(_diffused)(z, x_a, e, range(x_a.shape[2]), t, s, schedule)


def _number(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.dtype)


fresh_replacement = Check(
    "fresh_replacement",
    _given(_diffused),
    _fresh_cases,
    [
        Wrong(
            _given(lambda x, e, t, s, schedule: gaussian.diffuse(x, t, schedule, e)),
            "you noise the given frames to t. The step has left t: at which level is the latent now?",
        ),
        Wrong(
            _given(_diffused, clean=False),
            "at s = 0 noise is left in the given frames: a truncated schedule has some there, clean data do not.",
        ),
        Wrong(
            _given(lambda x, e, t, s, schedule: x),
            "you put in the clean frames; next to noisy ones at level s, a model has never seen such a latent.",
        ),
        Wrong(
            _given(lambda x, e, t, s, schedule: x + _number(schedule.sigma(s), x) * e),
            "your given frames keep scale 1: at level s the signal has scale alpha_s.",
        ),
        Wrong(
            _given(lambda x, e, t, s, schedule: gaussian.diffuse(x, s, schedule, _number(schedule.sigma(s), e) * e)),
            "you scale the noise by a variance, sigma_s²; a standard deviation belongs there.",
        ),
        Wrong(_leading, "you overwrite the leading frames: `frames` says which ones are given."),
        Wrong(
            lambda z, x, e, frames, *rest: _given(_diffused)(z, x, e, sorted(frames), *rest),
            "you sort the frames: `frames` is in the order of the frames of x_a, and need not rise.",
        ),
    ],
)


def _posterior_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    s, t = ordered_pair(g)
    for dtype in FLOATS:
        z_s, z_t, x_a, e = (video(g, 2, 1, n, 4, 4, dtype=dtype) for n in (6, 6, 3, 3))
        yield Case(f"{name_of(dtype)}, frames 0 to 2 of 6", (z_s, z_t, x_a, e, [0, 1, 2], t, s, COSINE))
    z_s, z_t, x_a, e = (video(g, 3, 2, n, 3, 3) for n in (5, 5, 2, 2))
    yield Case("frames 4 and 1 of 5, from t = 1", (z_s, z_t, x_a, e, [4, 1], 1.0, s, LINEAR))
    one = (z_s[:1, :, :2], z_t[:1, :, :2], x_a[:1, :, :1], e[:1, :, :1])
    yield Case("one clip, one frame of two", (*one, [1], t, s, COSINE))


def _posterior(draw: Callable[..., Tensor] | None = None, before: bool = True) -> Callable[..., Tensor]:
    """draw: (mean, variance, noise) -> value. before: whether z^a is that of the level before."""

    def answer(
        z_s: Tensor, z_t: Tensor, x_a: Tensor, e: Tensor, frames: Any, t: float, s: float, schedule: Schedule
    ) -> Tensor:
        mean, variance = gaussian.posterior((z_t if before else z_s)[:, :, frames], x_a, s, t, schedule)
        value = mean + _number(variance.sqrt(), e) * e if draw is None else draw(mean, _number(variance, e), e)
        return _put(z_s, frames, value)

    return answer


def _posterior_by_hand(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def answer(
        z_s: Tensor, z_t: Tensor, x_a: Tensor, e: Tensor, frames: Any, t: float, s: float, schedule: Schedule
    ) -> Tensor:
        r = (schedule.log_snr(t) - schedule.log_snr(s)).exp()
        scales = r, schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)
        return _put(z_s, frames, value(z_t[:, :, frames], x_a, e, *(_number(x, e) for x in scales)))

    return answer


posterior_replacement = Check(
    "posterior_replacement",
    _posterior(),
    _posterior_cases,
    [
        Wrong(
            _posterior(before=False),
            "you begin from what the step made of the given frames; the path goes on from what they were at t.",
        ),
        Wrong(
            _posterior(lambda mean, variance, e: mean + variance * e),
            "you scale the noise by a variance; a standard deviation belongs there.",
        ),
        Wrong(
            _posterior(lambda mean, variance, e: mean),
            "you put in the mean; a draw from q(z_s | x, z_t) has noise as well.",
        ),
        Wrong(
            _posterior_by_hand(lambda z, x, e, r, at, st, as_, ss: as_ * x + ss * e),
            "that is a fresh draw, which forgets the noise of the level before.",
        ),
        Wrong(
            _posterior_by_hand(
                lambda z, x, e, r, at, st, as_, ss: r * as_ / at * z + (1 - r) * as_ * x + (1 - r).sqrt() * st * e
            ),
            "your mean is right, but your noise is that of the way from s to t; the posterior's is smaller.",
        ),
        Wrong(
            _posterior_by_hand(
                lambda z, x, e, r, at, st, as_, ss: (1 - r) * as_ / at * z + r * as_ * x + (1 - r).sqrt() * ss * e
            ),
            "you have the shares of z_t and of x exchanged: for s close to t, the draw should be close to z_t.",
        ),
        Wrong(
            _posterior_by_hand(lambda z, x, e, r, at, st, as_, ss: as_ * x + ss * (z - at * x) / st),
            "you keep the noise of level t, as DDIM does; the posterior keeps a part of it, and adds fresh noise.",
        ),
        Wrong(
            lambda z_s, z_t, x, e, frames, *rest: _posterior()(z_s, z_t, x, e, sorted(frames), *rest),
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
    t, w = uniform(g, 0.3, 0.7, 2).tolist()
    alpha, sigma = COSINE.alpha(t), COSINE.sigma(t)
    for dtype in FLOATS:
        z, x_a = video(g, 2, 1, 5, 2, 2, dtype=dtype), video(g, 2, 1, 2, 2, 2, dtype=dtype)
        yield Case(
            f"{name_of(dtype)}, a Gaussian video, frames 0 and 1 given",
            (_linear(5, dtype, alpha, sigma), z, x_a, [0, 1], 1 + w, alpha.to(dtype)),
        )
    mix = video(g, 4, 4)
    yield Case(
        "a denoiser that is not linear, frames 3 and 0 given",
        (_network(mix), video(g, 3, 2, 4, 3, 3), video(g, 3, 2, 2, 3, 3), [3, 0], 3.0, alpha),
    )
    yield Case("one clip, w_r = 0", (_network(mix), video(g, 1, 1, 4, 2, 2), video(g, 1, 1, 1, 2, 2), [2], 0.0, alpha))


def _nudged(
    scale: Callable[..., Any], size: Callable[[Tensor], Tensor] = torch.sum, through: bool = True, graph: bool = True
) -> Callable[..., Tensor]:
    """scale: (w, alpha) -> what the gradient of `size` of the squared residual is multiplied by."""

    def answer(denoise: Callable, z: Tensor, x_a: Tensor, frames: Any, w: float, alpha: Tensor) -> Tensor:
        with torch.set_grad_enabled(graph):
            leaf = z.detach().clone().requires_grad_()
            x_hat = denoise(leaf)
            seen = x_hat[:, :, frames] if through else leaf[:, :, frames] + (x_hat - leaf)[:, :, frames].detach()
            (gradient,) = torch.autograd.grad(size((x_a - seen).square()), leaf)
        return x_hat.detach() + scale(w, alpha) * gradient

    return answer


_guided = _nudged(lambda w, alpha: -w * alpha / 2)
guided_by_reconstruction = Check(
    "guided_by_reconstruction",
    _guided,
    _guided_cases,
    [
        Wrong(
            _nudged(lambda w, a: -w * a / 2, torch.mean),
            "your square is a mean: then the weight means something else for each size of clip. It is a sum.",
        ),
        Wrong(
            _nudged(lambda w, a: -w * a / 2, through=False),
            "your gradient does not pass through the denoiser: the frames to be made feel nothing of it.",
        ),
        Wrong(
            _nudged(lambda w, a: w * a / 2),
            "your sign is wrong: the estimate should move so that the square gets smaller.",
        ),
        Wrong(_nudged(lambda w, a: -w * a), "you forgot the factor 1/2, which the Gaussian (10.4) brings along."),
        Wrong(_nudged(lambda w, a: -w / 2), "you forgot alpha, which is left of the factors of (10.2) and (10.4)."),
        Wrong(
            _nudged(lambda w, a: -w * a / 2, graph=False),
            "there is no graph to differentiate: samplers run under torch.no_grad(). Switch gradients on around the "
            "call of the denoiser, and call it with a leaf that requires them.",
        ),
        Wrong(
            _nudged(lambda w, a: -w * a / 2, lambda x: x.sum().sqrt()),
            "you differentiate the norm; (10.5) has the square of it.",
        ),
        Wrong(
            lambda denoise, z, x_a, frames, w, a: (
                _nudged(lambda w, a: -w * a / 2)(denoise, z, x_a, frames, w, a) + 0 * denoise(z)
            ),
            "you call the denoiser twice; its value and its gradient come from one call, and a call is what costs.",
        ),
        Wrong(
            lambda denoise, z, x_a, frames, w, a: _nudged(lambda w, a: -w * a / 2)(
                denoise, z, x_a, sorted(frames), w, a
            ),
            "you sort the frames: `frames` is in the order of the frames of x_a, and need not rise.",
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
        yield Case("{} of {} frames known, window {}, overlap {}".format(*numbers), numbers)
    yield Case("fewer known than the overlap", (2, 20, 8, 4))
    yield Case("the whole video fits into the window", (3, 6, 8, 2))


def _blocks(known: int, frames: int, window: int, overlap: int) -> list[Block]:
    return list(autoregressive(range(known), frames, window, overlap))


def _walk(begin: Callable[..., int], end: Callable[..., int] | None = None) -> Callable[..., list[Block]]:
    """begin: (there, frames, window, overlap) -> first frame of a block; end: (start, ...) -> one after its last."""

    def answer(known: int, frames: int, window: int, overlap: int) -> list[Block]:
        blocks: list[Block] = []
        while known < frames and len(blocks) < 99:
            start = begin(known, frames, window, overlap)
            stop = min(start + window, frames) if end is None else end(start, known, frames, window, overlap)
            blocks.append((list(range(start, known)), list(range(known, stop))))
            known = stop
        return blocks

    return answer


blocks = Check(
    "blocks",
    _blocks,
    _block_cases,
    [
        Wrong(
            _walk(lambda k, f, n, o: max(0, k - o)),
            "your last block is not full: where few frames are missing, it can observe more than the overlap.",
        ),
        Wrong(
            _walk(lambda k, f, n, o: max(0, k - o), lambda start, k, f, n, o: start + n),
            "your last block runs beyond the end of the video.",
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
            "your blocks do not observe the frames before them, so that the next block knows nothing of the last.",
        ),
    ],
)
