"""Finished cells of a table: kept in a file at once, and not computed again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bootstrap import Cells

RESULTS = Path(__file__).resolve().parent / "results"


class OtherSettings(ValueError):
    """Finished cells that were measured with other settings."""


def resumed(path: Path, settings: dict[str, Any], again: bool = False) -> Cells:
    """The finished cells of a results file. Raises OtherSettings where they do not belong to these settings."""
    if again or not path.exists():
        return {}
    found = json.loads(path.read_text())
    if found["settings"] != settings:
        raise OtherSettings(
            f"{path.name}: expected cells measured with {settings}, found {found['settings']}; "
            "--again measures them anew"
        )
    return found["cells"]


def fill(names: list[str], cells: Cells, cell: Callable[[str], dict[str, Any]]) -> Iterator[Cells]:
    """Measures the cells that are missing; yields all finished ones, in the table's order, after each."""
    yield cells
    for name in names:
        if name not in cells:
            cells[name] = cell(name)
            cells = {known: cells[known] for known in names if known in cells}
            yield cells


def as_json(found: dict[str, Any]) -> str:
    """JSON with one line per cell and comparison."""
    lines = []
    for key, value in found.items():
        text = json.dumps(value, ensure_ascii=False)
        if key == "cells":
            rows = [f"  {json.dumps(name)}: {json.dumps(cell, ensure_ascii=False)}" for name, cell in value.items()]
            text = "{\n" + ",\n".join(rows) + "\n }"
        elif key == "comparisons" and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in value) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
