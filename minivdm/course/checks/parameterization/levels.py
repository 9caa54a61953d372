"""What the checks of assignment 05 share: schedules, their scales at a time, and the names of a prediction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, Schedule, SubVPSchedule, VESchedule

COSINE, SUB_VP, VE = CosineSchedule(), SubVPSchedule(), VESchedule(0.05, 6.0)
NAMES = ("x", "eps", "v", "score")


def scales_at(schedule: Schedule, t: Any, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Alpha and sigma."""
    return schedule.alpha(t).to(dtype), schedule.sigma(t).to(dtype)


def numbers(*values: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Tensors of one value each."""
    return tuple(torch.tensor(value, dtype=dtype) for value in values)
