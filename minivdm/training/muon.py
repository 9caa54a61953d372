"""Muon: momentum whose matrix-shaped update is made orthogonal before it is applied.

Keller Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the scale of the update is
that of Liu et al. 2025, "Muon is Scalable for LLM Training" (arXiv:2502.16982), section 2.2, with which learning rate
and weight decay of AdamW carry over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

from minivdm import guards
from minivdm.training.graphs import Recorded

#: Coefficients of the quintic of Jordan et al.: steep at 0, so that small singular values rise fast. It does not
#: converge to 1 but keeps singular values within about 0.7 … 1.2, which is all the method needs.
QUINTIC = (3.4445, -4.7750, 2.0315)


def _check(matrices: torch.Tensor, steps: int) -> None:
    if guards.batch("matrices", matrices, axes=3).ndim > 3:
        raise guards.BadArgument(f"matrices: expected (n, rows, cols), got shape {tuple(matrices.shape)}")
    guards.whole("steps", steps, 0, 1000)


def newton_schulz(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Nearest (semi-)orthogonal matrices, roughly: U V^T of each U S V^T, singular values pushed towards 1.

    matrices (n, rows, cols) of any scale; returns the same shape and dtype. On CUDA the products run in bfloat16.
    """
    _check(matrices, steps)
    a, b, c = QUINTIC
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT  # the Gram matrix below is then the smaller of the two
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # Frobenius >= spectral norm, so singular values are <= 1
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ x  # a x + (b G + c G^2) x
    return (x if wide else x.mT).to(matrices.dtype)


def newton_schulz_gram(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """`newton_schulz` with the iteration moved to the small Gram matrix G = X X^T, twice as fast on a CPU.

    X is only ever multiplied by polynomials p(G), which commute, so X_k = Q_k X with Q_k their product, and
    G_{k+1} = p(G_k) G_k p(G_k): the long side of X enters twice instead of twice per step. Rounding errors of
    G grow about twelvefold a step, so this needs float32.
    """
    _check(matrices, steps)
    a, b, c = QUINTIC
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = (matrices if wide else matrices.mT).float()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = x @ x.mT
    one = torch.eye(gram.shape[-1], device=x.device)
    product = one.expand_as(gram)
    for step in range(steps):
        p = torch.baddbmm(gram, gram, gram, beta=b, alpha=c) + a * one
        product = p @ product if step else p
        gram = p @ gram @ p
    x = product @ x
    return (x if wide else x.mT).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for weights of two or more dimensions; convolutions count as (out, in*kh*kw).

    lr, weight_decay: as for AdamW (decoupled decay). momentum in [0, 1). record: whether the kernels are recorded once
    and played (`training.graphs`), on an NVIDIA GPU. Raises ValueError for weights that are no matrices: biases,
    gains, embeddings and the first and last layer belong to AdamW (see `split`).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        record: bool = False,
    ):
        for name, value, most in (("lr", lr, 1e6), ("momentum", momentum, 1), ("weight_decay", weight_decay, 1e6)):
            guards.real(name, value, 0, most)
        if momentum == 1:
            raise guards.BadArgument("momentum: expected a number in [0, 1), got 1")
        params = list(params) if isinstance(params, Iterable) and not isinstance(params, (str, torch.Tensor)) else []
        if not params or not all(isinstance(p, (torch.Tensor, dict, tuple)) for p in params):
            raise guards.BadType("params: expected weights, got none, or something else")
        self._orthogonal = Recorded(_directions) if record else _directions
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        small = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim < 2]
        if small:
            raise guards.BadArgument(f"Muon takes weights with at least 2 dimensions, got shapes {small}")

    @torch.no_grad()
    def step(self, closure=None):
        """Apply one update to every weight that has a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            grads = [p.grad for p in params]
            buffers = [self.state[p]["momentum"] for p in params]
            torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
            ahead = torch._foreach_lerp(grads, buffers, group["momentum"])  # Nesterov
            directions = self._orthogonal(**{str(i): update for i, update in enumerate(ahead)})
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, directions, alpha=-group["lr"])


def _directions(**updates: torch.Tensor) -> list[torch.Tensor]:
    """Orthogonal updates of the root mean square of an AdamW update, in the order given."""
    by_shape = defaultdict(list)  # equal shapes go through one batched product
    for name, update in updates.items():
        by_shape[update.flatten(1).shape].append(name)
    made = {}
    for (rows, cols), names in by_shape.items():
        stack = torch.stack([updates[name].flatten(1) for name in names])
        found = newton_schulz(stack) if stack.is_cuda else newton_schulz_gram(stack)
        found = found * (0.2 * max(rows, cols) ** 0.5)  # root mean square of an AdamW update is about 0.2
        for name, one in zip(names, found, strict=True):  # in the memory layout of its weight
            made[name] = torch.empty_like(updates[name]).copy_(one.view(updates[name].shape))
    return [made[name] for name in updates]


def split(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters of a UNet3D as (for Muon, for AdamW): hidden matrices, and all the rest."""
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in network.named_parameters():
        outside = p.ndim < 2 or name.startswith(("stem", "head")) or "embedding" in name
        (rest if outside else hidden).append(p)
    return hidden, rest


guards.check_types(globals())
