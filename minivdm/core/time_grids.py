r"""Where a sampler stops on its way: (steps, schedule) -> times (steps + 1,), decreasing to 0, float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minivdm.core.schedules import Schedule, as_time
from minivdm.guards import BadArgument, check_types, whole

Grid = Callable[[int, Schedule], Tensor]


def uniform_in_t(steps: int, schedule: Schedule) -> Tensor:
    """Equal steps of t from 1 to 0, float64."""
    return torch.linspace(1, 0, _count(steps) + 1, dtype=torch.float64)


def uniform_in_log_snr(steps: int, schedule: Schedule) -> Tensor:
    """Equal steps of lambda from t_max to the schedule's t_min; the first time is 1, the last 0 (Lu et al. 2022)."""
    log_snr = schedule.log_snr(torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64))
    weight = torch.linspace(0, 1, _count(steps) + 1, dtype=torch.float64)
    times = schedule.time(log_snr[0] + weight * (log_snr[1] - log_snr[0]))
    times[0], times[-1] = 1.0, 0.0
    return times


def karras(
    steps: int,
    schedule: Schedule,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Tensor:
    """Times at which (sigma / alpha)^{1 / rho} falls in equal steps from sigma_max to sigma_min; then 0.

    Karras et al. 2022, eq 5. The ends are confined to what the schedule reaches, and the grid may start below t = 1;
    where the last of these times is 0 already, it is the end.
    """
    if not 0 < sigma_min < sigma_max < math.inf or not 0 < rho < math.inf:
        got = f"{sigma_min}, {sigma_max} and {rho}"
        raise BadArgument(f"expected 0 < sigma_min < sigma_max and a positive rho, got {got}")
    ends = schedule.log_snr(torch.tensor([1.0, schedule.t_min], dtype=torch.float64))
    high, low = (torch.exp(-ends / 2)).tolist()
    last_is_clean = schedule.t_min == 0 and low >= sigma_min
    n = _count(steps) + last_is_clean
    first, last = min(sigma_max, high) ** (1 / rho), max(sigma_min, low) ** (1 / rho)
    sigmas = torch.linspace(first, last, n, dtype=torch.float64) ** rho
    times = schedule.time(-2 * sigmas.log())
    return torch.cat([times[: int(steps)], torch.zeros(1, dtype=torch.float64)])


def for_few_steps(steps: int, schedule: Schedule) -> Tensor:
    """t = 1, then Karras' times with rho = 3 from sigma / alpha = 10 to 0.2, then 0: where few steps do most on clips.

    Place, path and identity of what moves are decided at high noise: 13 of the times of 20 steps lie below a log-SNR
    of -1, of 20 even steps 7. The first step, from t = 1, is not to be saved: it brings in the mean of all clips. From
    plain noise at sigma / alpha = 10 a black background starts too bright by 0.1, and strokes end up twice as thick.
    """
    start, end = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if _count(steps) == 1:
        return torch.cat([start, end])
    times = karras(steps - 1, schedule, sigma_min=0.2, sigma_max=10.0, rho=3.0)
    if float(times[0]) >= 1:  # a schedule that does not know so much noise
        times = karras(steps, schedule, sigma_min=0.2, sigma_max=10.0, rho=3.0)[1:]
    return torch.cat([start, times])


def _count(steps: int) -> int:
    return whole("steps", steps, most=1_000_000)  # more are a slip


def as_grid(times: Tensor | Sequence[float]) -> Tensor:
    """Times as a float64 tensor on the CPU; BadArgument unless they strictly decrease, two or more."""
    times = as_time(times.cpu() if isinstance(times, Tensor) else times)
    if times.ndim != 1 or len(times) < 2 or not bool((times[1:] < times[:-1]).all()):
        raise BadArgument(f"grid: expected strictly decreasing times, two or more, got {times.tolist()}")
    return times


def times_of(grid: Grid | Tensor | Sequence[float], steps: int | None, schedule: Schedule) -> Tensor:
    """The times of a grid, whether it is a function (steps, schedule) -> times or the times themselves.

    BadArgument where there is no step, where the times do not decrease, or where they are not `steps` steps.
    """
    if callable(grid):
        grid = grid(_count(steps), schedule)  # type: ignore[arg-type]
    times = as_grid(grid)
    if steps not in (None, len(times) - 1):
        raise BadArgument(f"grid: expected a grid of {steps} steps, got one of {len(times) - 1}")
    return times


check_types(globals())
