"""Tables of cells as the README shows them: figures with their intervals, paired differences, and a verdict."""

from __future__ import annotations

from typing import Any

from bootstrap import MARKS, Metric, interval_of
from clip_metrics import REFERENCE

#: Metric -> column title and decimals.
COLUMNS = {
    "frames": ("distance of frames", 2),
    "clips": ("distance of clips", 2),
    "seam": ("seam score", 2),
    "score": ("reader score", 2),
    "legible": ("legible", 2),
    "identity": ("same digit all along", 2),
    "diversity": ("diversity", 2),
    "track": ("off straight motion, px", 2),
    "psnr": ("PSNR, dB", 1),
}


def differences(comparisons: list[dict[str, Any]]) -> list[str]:
    """The comparisons as a table: a row per pair of cells, a column per metric."""
    columns = list(dict.fromkeys(row["metric"] for row in comparisons))
    pairs: dict[str, dict[str, str]] = {}
    for row in comparisons:
        low, high = row["interval"]
        text = f"{MARKS[row['direction']]} {row['difference']:.2f} ({low:.2f} to {high:.2f})"
        pairs.setdefault(f"{row['more']} − {row['less']}", {})[row["metric"]] = text
    if not pairs:
        return []
    expected = {row["metric"]: row["expected"] for row in comparisons}
    titles = " | ".join(f"{COLUMNS[c][0]} (paper: {expected[c]})" for c in columns)
    lines = ["", f"| paired difference | {titles} |", "|---" * (len(columns) + 1) + "|"]
    return (
        lines
        + [f"| {name} | " + " | ".join(pair[c] for c in columns) + " |" for name, pair in pairs.items()]
        + [
            "",
            ", ".join(
                f"{mark} {what}"
                for what, mark in zip(
                    ("as in the paper, beyond the interval", "the opposite, beyond the interval", "undecided"),
                    MARKS.values(),
                    strict=True,
                )
            )
            + ".",
        ]
    )


def markdown(found: dict[str, Any]) -> str:
    """The table as the README shows it."""
    cells, n = found["cells"], found["settings"]["clips"]
    columns = list(next(iter(cells.values()))["metrics"]) if cells else []

    def entry(column: str, metric: Metric) -> str:
        if column == "psnr" and metric["estimate"] >= 99:
            return ""
        digits = COLUMNS[column][1]
        low, high = interval_of(metric)
        high = min(high, 10.0) if column == "score" else high  # which it cannot exceed
        return f"{metric['estimate']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    lines = ["| | " + " | ".join(COLUMNS[c][0] for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, cell in cells.items():
        lines.append(f"| {name} | " + " | ".join(entry(c, cell["metrics"][c]) for c in columns) + " |")
    missing = [name for name in found["names"] if name not in cells]
    lines += ["", found["verdict"]]
    lines += differences(found["comparisons"])
    if missing:
        lines += ["", f"Not yet measured: {'; '.join(missing)}."]
    return "\n".join(lines) + (
        f"\n\n{found['about']}{found['hardware']}; in brackets 95 % intervals over clips. Distances are on this "
        f"project's own encoder, to {REFERENCE} real clips, and too large at {n} clips: compare rows. "
        f"Command: `{found['command']}`.\n"
    )
