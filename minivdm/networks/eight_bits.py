"""Weights in eight bits: each row of a matrix as whole numbers from -127 to 127, and one scale for the row.

Half the bytes of half precision. The error of a weight is at most half a step, 1/254 of the largest of its row, and
what that does to clips has to be measured: it did nothing that shows to students (lesson 15) and to `text-32`.
"""

from __future__ import annotations

import torch

from minivdm import guards
from minivdm.guards import BadFile

Tensors = dict[str, torch.Tensor]
SCALE = ".int8_scale"  # what the name of a row's scales ends with


def pack(tensors: Tensors) -> Tensors:
    """Floating-point tensors of two and more axes as int8 beside `NAME.int8_scale` (rows,); others in half precision.

    tensors: by name. A row is what the first axis counts: the weights of one output.
    """
    packed: Tensors = {}
    for name, value in tensors.items():
        if not value.is_floating_point():
            packed[name] = value
        elif value.ndim < 2:
            packed[name] = value.half()
        else:
            rows = value.float().flatten(1)
            scale = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
            packed[name] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape)
            packed[name + SCALE] = scale
    return packed


def unpack(tensors: Tensors) -> Tensors:
    """Inverse of `pack`, up to rounding: int8 tensors with a scale in float32, all others as they are.

    Raises BadFile for a scale without its weights, or of another number of rows.
    """
    scales = {name.removesuffix(SCALE): value for name, value in tensors.items() if name.endswith(SCALE)}
    for name, scale in scales.items():
        matrix = tensors.get(name)
        if matrix is None or matrix.ndim < 2 or tuple(scale.shape) != (len(matrix),):
            raise BadFile(f"{name + SCALE}: expected one number for each row of {name!r}")
    found = {name: value for name, value in tensors.items() if not name.endswith(SCALE)}
    for name, scale in scales.items():
        found[name] = found[name].float() * scale.view(-1, *[1] * (found[name].ndim - 1))
    return found


guards.check_types(globals())
