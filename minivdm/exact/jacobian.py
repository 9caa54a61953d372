r"""Products with the Jacobian J of a field, (b, ...) -> (b, ...), each sample by itself; its trace, the divergence.

Both from one linear map e -> e^T J, the field's pullback, by torch.func. The results are differentiable in whatever
parameters the field has, and gradients are switched on inside, whatever happens around.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minivdm.core.gaussian import same_shape
from minivdm.guards import BadArgument, batch, check_types

Field = Callable[[Tensor], Tensor]


def pullback(field: Field, z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """field(z), and e -> e^T J for e like z, of every sample by itself."""
    # Copies: what was made in inference mode cannot be differentiated by.
    with torch.inference_mode(False), torch.enable_grad():
        value, product = torch.func.vjp(field, batch("z", z, axes=2).detach().clone())  # type: ignore[misc]
    same_shape(z, value, "the field's value")
    return value, lambda e: product(e)[0]


def divergence(field: Field, z: Tensor, probes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """field(z), and the trace of J per sample, (b,).

    probes: None for the exact trace, one product for every value of a sample; or random e (k, *z.shape) with
        E[e e^T] = 1, for the unbiased estimate mean_k e^T J e (Hutchinson 1990).
    """
    if probes is not None and (probes.shape[1:] != z.shape or len(probes) == 0):
        raise BadArgument(f"probes: expected shape (k, {', '.join(map(str, z.shape))}), got {tuple(probes.shape)}")
    value, product = pullback(field, z)
    with torch.inference_mode(False), torch.enable_grad():
        if probes is None:
            n = z[0].numel()
            basis = torch.eye(n, dtype=z.dtype, device=z.device).reshape(n, *z.shape[1:])
            terms = [product(e.expand(z.shape)).flatten(1)[:, i] for i, e in enumerate(basis)]
            return value, torch.stack(terms).sum(0)
        terms = [(product(e.clone()) * e.clone()).flatten(1).sum(1) for e in probes]
        return value, torch.stack(terms).mean(0)


check_types(globals())
