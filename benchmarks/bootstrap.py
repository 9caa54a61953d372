"""Bootstrap intervals over clips, paired differences of cells, and what these say about a paper's claim.

Intervals are 95 % bootstrap intervals over clips, about a fixed reference; row i of a bootstrap is the same draw of
clips in every cell, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from weights import interval as wilson

DRAWS = 400
#: What a difference is found to be, and how tables show it.
MARKS = {"appears": "✓", "opposite": "✗", "open": "·"}

Metric = dict[str, Any]  # "estimate", and either "per_clip" and "of" (mean, median or share), or bootstrap "draws"
Cells = dict[str, dict[str, Any]]


def resamples(n: int, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Indices (draws, n) of n clips drawn with replacement, the same for the same n."""
    return torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))


def averaged(values: Tensor, of: str = "mean") -> Metric:
    """A metric that is the mean, median or share of one value per clip."""
    values = values.detach().double()
    estimate = values.median() if of == "median" else values.mean()
    return {"estimate": round(float(estimate), 5), "of": of, "per_clip": [round(v, 5) for v in values.tolist()]}


def pooled(statistic: Callable[[Tensor], float], n: int) -> Metric:
    """A metric of a whole set of n clips: a function of the indices (n,) of those that are in it."""
    draws = [float(f"{statistic(row):.5g}") for row in resamples(n)]
    return {"estimate": float(f"{statistic(torch.arange(n)):.5g}"), "draws": draws}


def bootstrapped(metric: Metric) -> Tensor:
    """The metric's value for every bootstrap draw of clips, (draws,).

    A drawn set has fewer different clips, which shifts a metric of whole sets: its draws are moved back, so that their
    mean is the estimate.
    """
    if "draws" in metric:
        draws = torch.tensor(metric["draws"], dtype=torch.float64)
        return draws - draws.mean() + metric["estimate"]
    values = torch.tensor(metric["per_clip"], dtype=torch.float64)
    drawn = values[resamples(len(values))]
    return drawn.median(1).values if metric["of"] == "median" else drawn.mean(1)


def bounds(draws: Tensor) -> list[float]:
    """The middle 95 %."""
    return [round(v, 4) for v in torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()]


def interval_of(metric: Metric) -> list[float]:
    """95 % interval; Wilson's for a share, where the bootstrap knows no uncertainty at 0 and 1."""
    if metric.get("of") == "share":
        return wilson(metric["estimate"], len(metric["per_clip"]))
    low, high = bounds(bootstrapped(metric))
    return [max(0.0, low), high]  # no metric here is negative, as a centred interval may be


def compare(cells: Cells, metric: str, more: str, less: str, sign: int = 1) -> dict[str, Any] | None:
    """`more` minus `less` in a metric, paired; sign: what the paper's direction would be. None where one is missing."""
    if more not in cells or less not in cells:
        return None
    a, b = cells[more]["metrics"][metric], cells[less]["metrics"][metric]
    low, high = bounds(bootstrapped(a) - bootstrapped(b))
    near, far = sorted((sign * low, sign * high))
    found = "appears" if near > 0 else "opposite" if far < 0 else "open"
    return {
        "metric": metric,
        "more": more,
        "less": less,
        "expected": "> 0" if sign > 0 else "< 0",
        "difference": round(a["estimate"] - b["estimate"], 4),
        "interval": [low, high],
        "direction": found,
    }


def verdict(claim: str, comparisons: list[dict[str, Any]]) -> str:
    """What the comparisons say about the paper's claim, in a sentence."""
    if not comparisons:
        return f"Whether {claim}, as in the paper, is not yet measured."

    n, counts = len(comparisons), dict.fromkeys(MARKS, 0)
    for row in comparisons:
        counts[row["direction"]] += 1
    where = f"in {'all' if counts['appears'] == n else counts['appears']} of {n} paired comparisons"
    text = f"The paper's direction, {claim}, appears beyond the 95 % interval {where}"
    text += f"; the opposite does in {counts['opposite']}" if counts["opposite"] else ""
    return text + (f"; undecided: {counts['open']}. {why(comparisons)}" if counts["open"] else ".")


def why(comparisons: list[dict[str, Any]]) -> str:
    """How many clips the undecided differences would take, were they and the spread over clips as found."""
    wide = [
        ((row["interval"][1] - row["interval"][0]) / 2 / max(abs(row["difference"]), 1e-9)) ** 2
        for row in comparisons
        if row["direction"] == "open"
    ]
    times = max(1.0, min(wide))  # intervals shrink as the root of the number of clips
    return (
        f"The undecided ones are small against the spread over clips: the nearest to a decision would take about "
        f"{times:.1f} times as many clips, were it as large as found."
        if times < 100
        else "The undecided ones are below a tenth of their intervals."
    )
