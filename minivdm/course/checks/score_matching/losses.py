"""Checks of exercises 03.3 to 03.5: losses that need no density, implicit, sliced and denoising."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, uniform, video

Score = Callable[[Tensor], Tensor]


# ---- implicit and sliced ---------------------------------------------------------------------------------------


def _parameters(g: torch.Generator, d: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return tuple((video(g, d, d) / math.sqrt(d)).to(dtype) for _ in range(2))  # type: ignore[return-value]


def _with_gradients(answer: Callable[..., Any], parameters: tuple[Tensor, ...], z: Tensor, *rest: Tensor) -> Any:
    """(the losses, their sum's gradient in each parameter) for a small network."""
    first, second = (value.clone().requires_grad_() for value in parameters)

    def score(z: Tensor) -> Tensor:
        flat = z.flatten(1)
        return (torch.tanh(flat @ first) @ second - 0.3 * flat).reshape(z.shape)

    loss = answer(score, z.clone(), *rest)
    if not isinstance(loss, Tensor):
        return loss
    if not loss.requires_grad:
        return loss, *map(torch.zeros_like, parameters)
    gradients = torch.autograd.grad(loss.sum(), (first, second), allow_unused=True)
    return loss.detach(), *(torch.zeros_like(first) if part is None else part for part in gradients)


def _implicit_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        yield Case(
            f"{name_of(dtype)}, points (results 2 and 3: gradients in the network's parameters)",
            (_parameters(g, 3, dtype), video(g, 5, 3, dtype=dtype)),
        )
    yield Case("clips of 2 frames, 2 channels", (_parameters(g, 16), video(g, 2, 2, 2, 2, 2)))
    yield Case("one sample", (_parameters(g, 2), video(g, 1, 2)))
    yield Case("points of a line", (_parameters(g, 1), video(g, 4, 1)))


def _field(find: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """find: (s (b, d), its Jacobian (b, d, d) with a row for each s_i, ...) -> loss."""

    def answer(score: Score, z: Tensor, *rest: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        s = score(z).flatten(1)
        rows = [torch.autograd.grad(part.sum(), z, create_graph=True)[0].flatten(1) for part in s.unbind(1)]
        return find(s, torch.stack(rows, 1), *(probes.flatten(2) for probes in rest))

    return answer


def _half(s: Tensor) -> Tensor:
    return s.square().sum(1) / 2


def _trace(jacobian: Tensor) -> Tensor:
    return jacobian.diagonal(dim1=1, dim2=2).sum(1)


implicit_loss = Check(
    "implicit_loss",
    _field(lambda s, j: _trace(j) + _half(s)),
    _implicit_cases,
    [
        Wrong(_field(lambda s, j: _trace(j) + 2 * _half(s)), "the squared norm counts half in (3.6)."),
        Wrong(
            _field(lambda s, j: _half(s) - _trace(j)),
            "the sign of your trace is wrong: to make the loss small, a field has to point inwards at the data.",
        ),
        Wrong(
            _field(lambda s, j: j.sum((1, 2)) + _half(s)),
            "you add up all entries of the Jacobian; its trace takes the derivative of each s_i in its own z_i.",
        ),
        Wrong(
            _field(lambda s, j: _trace(j).detach() + _half(s)),
            "your trace is right but cut off from the graph: no gradient reaches the network's parameters.",
        ),
        Wrong(
            _field(lambda s, j: (_trace(j) + _half(s)).mean()),
            "you average over the samples; one value per sample was asked for.",
        ),
    ],
    probe=_with_gradients,
)


def _sliced_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype, n in ((torch.float64, 3), (torch.float32, 2)):
        yield Case(
            f"{name_of(dtype)}, {n} probes of signs (results 2 and 3: gradients in the network's parameters)",
            (_parameters(g, 3, dtype), video(g, 5, 3, dtype=dtype), video(g, n, 5, 3, dtype=dtype).sign()),
        )
    yield Case(
        "clips of 2 frames, 2 channels, normal probes",
        (_parameters(g, 16), video(g, 2, 2, 2, 2, 2), video(g, 4, 2, 2, 2, 2, 2)),
    )
    yield Case("one sample, one probe", (_parameters(g, 2), video(g, 1, 2), video(g, 1, 1, 2).sign()))
    yield Case("points of a line", (_parameters(g, 1), video(g, 4, 1), video(g, 2, 4, 1)))


def _hutchinson(j: Tensor, e: Tensor) -> Tensor:
    return torch.einsum("nbi,bij,nbj->b", e, j, e) / len(e)


sliced_loss = Check(
    "sliced_loss",
    _field(lambda s, j, e: _hutchinson(j, e) + _half(s)),
    _sliced_cases,
    [
        Wrong(
            _field(lambda s, j, e: _hutchinson(j, e) + ((s * e).sum(2) ** 2).mean(0) / 2),
            "right on average, but your second term scatters with the probe; put its mean over probes there.",
        ),
        Wrong(
            _field(lambda s, j, e: torch.einsum("nbi,bij->b", e, j) / len(e) + _half(s)),
            "the backward pass gives the vector eᵀ∇s; it still has to be multiplied by e.",
        ),
        Wrong(_field(lambda s, j, e: _hutchinson(j, e) + 2 * _half(s)), "the squared norm counts half, as in (3.6)."),
        Wrong(
            _field(lambda s, j, e: _half(s) - _hutchinson(j, e)),
            "the sign of your estimate of the trace is wrong: (3.6) has a plus.",
        ),
        Wrong(
            _field(lambda s, j, e: _hutchinson(j, e) * len(e) + _half(s)),
            "you add up the products of the probes; each of them estimates the whole trace.",
        ),
        Wrong(
            _field(lambda s, j, e: _hutchinson(j, e).detach() + _half(s)),
            "your estimate of the trace is right but cut off from the graph: no gradient reaches the parameters.",
        ),
    ],
    probe=_with_gradients,
)


# ---- denoising -------------------------------------------------------------------------------------------------


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


class _Bent:
    """A score with two parameters, which the gradient of a loss has to reach."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.parameters = tuple(torch.tensor(p, dtype=dtype, requires_grad=True) for p in (0.5, 1.0))

    def __call__(self, z: Tensor) -> Tensor:
        return self.parameters[0] * torch.sin(z) - self.parameters[1] * z


def _with_parameters(answer: Callable[..., Any], score: _Bent, *rest: Any) -> Any:
    """A probe: the losses, and what their sum's gradient in the parameters of the score is."""
    loss = answer(score, *rest)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        gradients = [torch.zeros_like(p) for p in score.parameters]
    else:
        gradients = list(torch.autograd.grad(loss.sum(), score.parameters, allow_unused=True, materialize_grads=True))
    return {"": loss, "its gradient in the two parameters of the score": gradients}


def _denoising_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for dtype in (torch.float64, torch.float32):
        levels = (uniform(g, 0.4, 0.9, 4).to(dtype), uniform(g, 0.2, 1.5, 4).to(dtype))
        yield Case(
            f"{name_of(dtype)}, 4 clips of 4 x 4 pixels, a level for each",
            (_Bent(dtype), video(g, 4, 1, 3, 4, 4, dtype=dtype), video(g, 4, 1, 3, 4, 4, dtype=dtype), *levels),
        )
    bend = _Bent(torch.float64)
    pair = video(g, 2, 2), video(g, 2, 2)
    yield Case("two points of a plane", (bend, *pair, uniform(g, 0.4, 0.9, 2), uniform(g, 0.2, 1.5, 2)))
    one = video(g, 1, 2, 1, 3, 3), video(g, 1, 2, 1, 3, 3)
    yield Case("one clip, one frame", (bend, *one, uniform(g, 0.4, 0.9, 1), uniform(g, 0.2, 1.5, 1)))
    points = video(g, 3, 3), video(g, 3, 3)
    yield Case("little noise, nothing scaled", (bend, *points, uniform(g, 1, 1, 3), uniform(g, 0.01, 0.02, 3)))


def _regression(find: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """find: (score, x, noise, alpha, sigma) with a level per sample, in a shape that goes with x."""

    def answer(score: Score, x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 1))
        return find(score, x, noise, alpha.reshape(shape), sigma.reshape(shape))

    return answer


def _noised(score: Score, x: Tensor, e: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return _sum((score(a * x + s * e) + e / s) ** 2) / 2


denoising_loss = Check(
    "denoising_loss",
    _regression(_noised),
    _denoising_cases,
    [
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(a * x + s * e) - e / s) ** 2) / 2),
            "your target points away from the data: check the sign of ∇ log q(z | x).",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(a * x + s * e) + e) ** 2) / 2),
            "your target is minus the noise itself; the score is larger where the noise is finer.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(a * x + s * e) + e / s**2) ** 2) / 2),
            "in the target, σ² divides z − αx, which is not the noise of unit variance.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(x) + e / s) ** 2) / 2),
            "the network looks at clean data; it has to see the noisy z.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((score(x + s * e) + e / s) ** 2) / 2),
            "the signal in z has scale α; you left it at scale 1.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _noised(score, x, e, a, s) / x[0].numel()),
            "you average over the coordinates; the squared norm in (3.9) is their sum.",
        ),
        Wrong(
            _regression(lambda *a: _noised(*a).mean()),
            "you average over the samples; one value per sample was asked for.",
        ),
        Wrong(
            _regression(lambda *a: 2 * _noised(*a)),
            "the half of (3.9) is missing.",
        ),
        Wrong(
            _regression(lambda score, x, e, a, s: _sum((s * score(a * x + s * e) + e) ** 2) / 2),
            "this is the loss weighted by σ², (3.13); (3.9) itself has no weight.",
        ),
        Wrong(
            lambda *given: _regression(_noised)(*given).detach(),
            "the value is right, but no gradient reaches the parameters of the score: a loss that is detached, or "
            "computed under no_grad, teaches nothing.",
        ),
        Wrong(
            _noised,
            "your levels run along the last axis: each belongs to a sample, so give them the shape (b, 1, …, 1).",
        ),
    ],
    probe=_with_parameters,
)
