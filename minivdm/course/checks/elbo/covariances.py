"""Check of exercise 04.7, with pen: the KL divergence of Gaussians with full covariances."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from minivdm.course.checks.harness import Case, Check, Wrong, generator, name_of, video


def _spd(g: torch.Generator, d: int) -> Tensor:
    root = video(g, d, d) / math.sqrt(d)
    return root @ root.T + 0.3 * torch.eye(d, dtype=torch.float64)


def _kl_cases(seed: int) -> Iterator[Case]:
    g = generator(seed)
    for d, dtype in ((3, torch.float64), (4, torch.float32)):
        parts = (video(g, d), _spd(g, d), video(g, d), _spd(g, d))
        yield Case(f"{name_of(dtype)}, {d} dimensions", tuple(part.to(dtype) for part in parts))
    mean, covariance = video(g, 3), _spd(g, 3)
    yield Case("the same law twice", (mean, covariance, mean.clone(), covariance.clone()))
    yield Case("one dimension", (video(g, 1), _spd(g, 1), video(g, 1), _spd(g, 1)))
    tiny = torch.diag(torch.full((60,), 1e-12, dtype=torch.float64))
    yield Case(
        "60 dimensions, determinants below the smallest number",
        (1e-6 * video(g, 60), tiny, 1e-6 * video(g, 60), 2 * tiny),
    )


def _without_inverses(answer: Callable[..., Any], *laws: Tensor) -> dict[str, Any]:
    """A probe: what the answer returns, and how many inverses it formed on the way."""
    formed = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def inverse(*arguments: Any, **options: Any) -> Any:
            nonlocal formed
            formed += 1
            return function(*arguments, **options)

        return inverse

    places: list[tuple[Any, str]] = [
        (torch.linalg, "inv"),
        (torch.linalg, "pinv"),
        (torch, "inverse"),
        (torch, "cholesky_inverse"),
    ]
    places += [(torch.Tensor, "inverse"), (torch.Tensor, "pinverse"), (torch, "pinverse"), (torch.linalg, "inv_ex")]
    with contextlib.ExitStack() as patches:
        for owner, name in places:
            patches.enter_context(mock.patch.object(owner, name, counted(getattr(owner, name))))
        found = answer(*laws)
    return {"": found, "inverses formed": formed}


def _torch_kl(mean_q: Tensor, cov_q: Tensor, mean_p: Tensor, cov_p: Tensor) -> Tensor:
    return kl_divergence(MultivariateNormal(mean_q, cov_q), MultivariateNormal(mean_p, cov_p))


def _parts(mean_q: Tensor, cov_q: Tensor, mean_p: Tensor, cov_p: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """tr(P^-1 Q), log det P - log det Q, the squared distance of the means in P's metric, d."""
    trace = torch.linalg.solve(cov_p, cov_q).trace()
    logs = torch.logdet(cov_p) - torch.logdet(cov_q)
    away = mean_q - mean_p
    return trace, logs, away @ torch.linalg.solve(cov_p, away), len(away)


def _sum_of(find: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    return lambda *laws: find(*_parts(*laws))


full_kl = Check(
    "full_kl",
    _torch_kl,
    _kl_cases,
    [
        Wrong(
            lambda mean_q, cov_q, mean_p, cov_p: _torch_kl(mean_p, cov_p, mean_q, cov_q),
            "this is KL(p‖q): the two laws are exchanged, and KL is not symmetric.",
        ),
        Wrong(
            _sum_of(lambda trace, logs, away, d: (trace - logs + away - d) / 2),
            "the sign of your determinants is wrong: a p that is broader than q costs more, not less.",
        ),
        Wrong(
            _sum_of(lambda trace, logs, away, d: (trace + logs + away) / 2),
            "KL of a law with itself should be 0; yours is d/2 too large.",
        ),
        Wrong(_sum_of(lambda trace, logs, away, d: trace + logs + away - d), "a factor one half is missing."),
        Wrong(
            lambda mean_q, cov_q, mean_p, cov_p: (
                (
                    _parts(mean_q, cov_q, mean_p, cov_p)[0]
                    + _parts(mean_q, cov_q, mean_p, cov_p)[1]
                    - len(mean_q)
                    + (mean_q - mean_p).square().sum()
                )
                / 2
            ),
            "you measure the distance of the means with a ruler; p's own covariance decides what is far.",
        ),
        Wrong(
            lambda mean_q, cov_q, mean_p, cov_p: (
                (
                    torch.linalg.solve(cov_p, cov_q).trace()
                    + (torch.det(cov_p) / torch.det(cov_q)).log()
                    - len(mean_q)
                    + _parts(mean_q, cov_q, mean_p, cov_p)[2]
                )
                / 2
            ),
            "your determinants underflow in many dimensions: work with their logarithms from the start.",
        ),
        Wrong(
            lambda *laws: _torch_kl(*laws) + 0 * torch.linalg.inv(laws[3])[0, 0],
            "you form an inverse; solve a linear system instead, which costs less and loses fewer digits.",
        ),
    ],
    probe=_without_inverses,
    relative=2e-5,
)
