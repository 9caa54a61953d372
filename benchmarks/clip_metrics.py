"""What tables measure of clips, each figure with its bootstrap, and the real clips that they are held against.

Distances are those of `minivdm.measure.frechet`, on its own small encoder: neither FID nor FVD. They are too large for
small sets, equally in all rows of a table, because all have equally many clips.
"""

from __future__ import annotations

from typing import Any

import torch
from bootstrap import Cells, Metric, averaged, bootstrapped, bounds, pooled
from torch import Tensor

from minivdm.measure import metrics, tracks
from minivdm.measure.frechet import clip_features, frechet

WEIGHTS, REFERENCE = "moving-mnist-32", 256
REFERENCE_FROM = 10_000  # index of the first reference clip, far from those that are continued
REAL = "real test clips"


def distance(found: Tensor, reference: Tensor) -> Metric:
    """Fréchet distance of features (n, k, d), k of each clip, to those of the reference, (m, k, d)."""
    cloud = reference.flatten(0, 1).double()
    return pooled(lambda index: frechet(cloud, found[index].flatten(0, 1)), len(found))


def windows(videos: Tensor, size: int = 16) -> Tensor:
    """Clip features (n, k, 64) of the k windows of `size` frames, one after the other."""
    return torch.stack([clip_features(part) for part in videos.split(size, 2)], 1)


def track(videos: Tensor) -> Metric:
    """Median deviation from straight motion; a clip with an empty frame counts as off by the whole canvas."""
    return averaged(tracks.track_deviation(videos).clamp(max=videos.shape[-1]), "median")


def reader_score(videos: Tensor) -> Metric:
    """As `minivdm.measure.frechet.reader_score`, bootstrapped."""
    log_p = metrics.read(videos).logits.mean(1).double().log_softmax(-1)  # (n, 10)

    def score(index: Tensor) -> float:
        p = log_p[index].exp()
        return float((p * (log_p[index] - p.mean(0).log())).sum(-1).mean().exp())

    return pooled(score, len(videos))


def diversity(videos: Tensor, labels: Tensor) -> Metric:
    """Mean distance of each clip's features to those of the other clips of the same label."""
    far = torch.cdist(clip_features(videos), clip_features(videos))
    same = (labels @ labels.T > 0) & ~torch.eye(len(videos), dtype=torch.bool)
    return averaged((far * same).sum(1) / same.sum(1).clamp(min=1))


def ratios(cells: Cells, ceiling: str) -> list[dict[str, Any]]:
    """Each row's distances as a share of those of the row `ceiling`, paired; none before that one is measured."""
    rows = []
    for name in [name for name in cells if name not in (REAL, ceiling) and ceiling in cells]:
        for metric in ("frames", "clips"):
            few, many = (cells[row]["metrics"][metric] for row in (name, ceiling))
            rows.append(
                {
                    "row": name,
                    "metric": metric,
                    "ratio": round(few["estimate"] / max(many["estimate"], 1e-9), 4),
                    "interval": bounds(bootstrapped(few) / bootstrapped(many).clamp(min=1e-6)),
                }
            )
    return rows
