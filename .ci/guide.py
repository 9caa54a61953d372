"""Writes the tables of solutions/README.md, what each assignment takes and the plans for a term, from the notebooks.

python .ci/guide.py          (make exercises does it)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "solutions" / "README.md"
HEADER = re.compile(r"^\*Difficulty [1-5] of 5 · importance [1-5] of 5 · (\d+) minutes · (\d+) points? · ", re.M)
SLOW = [("00", "01"), *((f"{k:02d}",) for k in range(2, 18))]
FAST = [("00", "01", "02"), ("03", "04"), ("05", "06"), ("07", "08"), ("09", "10"), ("11", "12"),
        ("13", "14"), ("15", "16"), ("17",)]  # fmt: skip


@dataclass(frozen=True)
class Assignment:
    """What an assignment takes: exercises, minutes without and of the open project, points by check and by hand."""

    name: str
    title: str
    exercises: int
    minutes: int
    project: int
    checked: int
    by_hand: int


def read(folder: Path) -> Assignment:
    """The assignment in a folder of solutions."""
    cells = nbformat.read(folder / f"{folder.name}.ipynb", as_version=4).cells
    title = re.search(r"# (?:Exercises \d\d|Capstone) · (.*)", cells[0].source)
    assert title, f"{folder.name} has no title"
    counts = {"exercises": 0, "minutes": 0, "project": 0, "checked": 0, "by_hand": 0}
    if "Capstone" in cells[0].source:
        text = " ".join(cells[0].source.split())  # one task, which the opening describes
        counts |= {"exercises": 1, "project": int(re.findall(r"(\d+) minutes · \d+ points", text)[0])}
    for cell, after in zip(cells, [*cells[1:], cells[-1]], strict=True):
        meta = cell.metadata["nbgrader"]
        if header := HEADER.search(cell.source) if cell is not cells[0] else None:
            counts["exercises"] += 1
            counts["project" if after.metadata["nbgrader"]["task"] else "minutes"] += int(header[1])
        counts["checked" if cell.cell_type == "code" else "by_hand"] += meta.get("points", 0)
    return Assignment(folder.name, title[1], **counts)


def lesson_minutes() -> dict[str, int]:
    """Lesson -> the minutes that its opening states."""
    found: dict[str, int] = {}
    for path in sorted((ROOT / "lessons").glob("[0-9]*.ipynb")):
        opening = " ".join(cell.source for cell in nbformat.read(path, as_version=4).cells[:6])
        number = path.stem[:2]  # 06a and 06b are one week's
        found[number] = found.get(number, 0) + int(re.findall(r"(\d+) minutes", opening)[0])
    return found


def assignments_table(found: Sequence[Assignment]) -> str:
    """A row for each assignment."""
    rows = ["| | assignment | exercises | minutes | points by check | points by hand |", "|---" * 6 + "|"]
    for one in found:
        project = f" + {one.project} for the project" if one.project else ""
        number = one.name[:2] if one.name[0].isdigit() else ""
        rows.append(
            f"| {number} | [{one.title}]({one.name}/{one.name}.ipynb) | {one.exercises} | "
            f"{one.minutes}{project} | {one.checked} | {one.by_hand} |"
        )
    parts = ("exercises", "minutes", "project", "checked", "by_hand")
    total = [sum(getattr(one, part) for one in found) for part in parts]
    rows.append(f"| | together | {total[0]} | {total[1]} + {total[2]} for projects | {total[3]} | {total[4]} |")
    return "\n".join(rows) + "\n"


def plan(weeks: Sequence[Sequence[str]], lessons: dict[str, int], found: Sequence[Assignment]) -> str:
    """A row for each week, in hours."""
    exercises = {one.name[:2]: one.minutes for one in found}
    rows = ["| week | lessons and their exercises | reading, h | exercises, h | together, h |", "|---" * 5 + "|"]
    sums = [0, 0]
    for week, numbers in enumerate(weeks, 1):
        read_, written = sum(lessons[n] for n in numbers), sum(exercises.get(n, 0) for n in numbers)
        sums = [sums[0] + read_, sums[1] + written]
        rows.append(
            f"| {week} | {', '.join(numbers)} | {read_ / 60:.1f} | {written / 60:.1f} | {(read_ + written) / 60:.1f} |"
        )
    rows.append(f"| | together | {sums[0] / 60:.1f} | {sums[1] / 60:.1f} | {sum(sums) / 60:.1f} |")
    return "\n".join(rows) + "\n"


def filled(text: str) -> str:
    """The guide's text with its tables made anew."""
    folders = [*sorted((ROOT / "solutions").glob("[0-9]*")), ROOT / "solutions" / "capstone"]
    found = [read(folder) for folder in folders]
    lessons = lesson_minutes()
    parts = {
        "assignments": assignments_table(found),
        "a lesson a week": plan(SLOW, lessons, found),
        "two lessons a week": plan(FAST, lessons, found),
    }
    for name, table in parts.items():
        text = re.sub(
            rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)",
            lambda match, table=table: match[1] + table + match[2],
            text,
            flags=re.S,
        )
    return text


if __name__ == "__main__":
    GUIDE.write_text(filled(GUIDE.read_text()))
