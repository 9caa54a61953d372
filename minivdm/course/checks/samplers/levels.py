"""What the checks of assignment 06 share: schedules, their scales at a time, and three videos at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minivdm.core import CosineSchedule, LinearSchedule, Schedule
from minivdm.course.checks.harness import video

COSINE, LINEAR = CosineSchedule(), LinearSchedule()


def scales_at(schedule: Schedule, t: Any) -> tuple[Tensor, Tensor]:
    """Alpha and sigma."""
    return schedule.alpha(t), schedule.sigma(t)


def three_videos(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Such as z, an estimate of x, and noise."""
    return [video(g, *shape, dtype=dtype) for _ in range(3)]
