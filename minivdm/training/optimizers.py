"""The optimizers of a recipe, and their state by the names of the parameters that it belongs to."""

from __future__ import annotations

import torch
from torch import nn

from minivdm.training import muon
from minivdm.training.checkpoints import DamagedCheckpoint, Tensors
from minivdm.training.recipe import Recipe

#: What each optimizer keeps for a parameter: tensors of the parameter's shape, and numbers.
STATE: dict[type[torch.optim.Optimizer], tuple[tuple[str, ...], tuple[str, ...]]] = {
    torch.optim.AdamW: (("exp_avg", "exp_avg_sq"), ("step",)),
    muon.Muon: (("momentum",), ()),
}


def make(recipe: Recipe, network: nn.Module, device: torch.device) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for the hidden matrices and AdamW for the rest."""
    hidden, rest = muon.split(network) if recipe.optimizer == "muon" else ([], list(network.parameters()))
    fused = device.type in ("cpu", "cuda")
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=fused)
    ]
    if hidden:
        record = recipe.graphs and device.type == "cuda"
        made.append(muon.Muon(hidden, lr=recipe.lr, weight_decay=recipe.weight_decay, record=record))
    return made


def named(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of an optimizer, in its order, by their names in the network."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {names[p]: p for group in optimizer.param_groups for p in group["params"]}


def tensors(optimizers: list[torch.optim.Optimizer], network: nn.Module) -> Tensors:
    """The state of all of them, as "optimizer.PARAMETER.ENTRY"."""
    return {
        f"optimizer.{name}.{entry}": value
        for optimizer in optimizers
        for name, parameter in named(optimizer, network).items()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load(optimizers: list[torch.optim.Optimizer], network: nn.Module, tensors: Tensors) -> None:
    """Inverse of `tensors`; a parameter without state has not been stepped yet.

    Raises DamagedCheckpoint for state of another optimizer, of unknown parameters, or of another shape.
    """
    tensors = by_name(optimizers, network, tensors)
    left = {key for key in tensors if key.startswith("optimizer.")}
    for optimizer in optimizers:
        entries: dict[int, dict[str, torch.Tensor]] = {}
        shaped, numbers = STATE[type(optimizer)]
        for index, (name, parameter) in enumerate(named(optimizer, network).items()):
            keys = {entry: f"optimizer.{name}.{entry}" for entry in (*shaped, *numbers)}
            if not any(key in tensors for key in keys.values()):
                continue
            for entry, key in keys.items():
                expected = tuple(parameter.shape) if entry in shaped else ()
                got = tuple(tensors[key].shape) if key in tensors else "nothing"
                if got != expected:
                    raise DamagedCheckpoint(f"{key}: expected {expected}, got {got}")
            # Same memory layout as the weight: the fused kernels walk through both side by side.
            entries[index] = {e: torch.empty_like(parameter).copy_(tensors[keys[e]]) for e in shaped}
            entries[index] |= {e: tensors[keys[e]] for e in numbers}
            left -= set(keys.values())
        optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    if left:
        raise DamagedCheckpoint(f"state of another optimizer: {len(left)} entries, among them {min(left)}")


def by_name(optimizers: list[torch.optim.Optimizer], network: nn.Module, tensors: Tensors) -> Tensors:
    """State as earlier versions numbered it, "optimizer0.12.exp_avg", under the names of the parameters."""
    found = dict(tensors)
    for key in [key for key in tensors if key.startswith("optimizer") and key[9:10].isdigit()]:
        which, number, entry = key.removeprefix("optimizer").split(".")
        try:
            name = list(named(optimizers[int(which)], network))[int(number)]
        except (IndexError, ValueError) as error:
            raise DamagedCheckpoint(f"{key}: no such parameter; the run had another optimizer") from error
        found[f"optimizer.{name}.{entry}"] = found.pop(key)
    return found
