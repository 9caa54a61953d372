"""Writes grades.csv from nbgrader's gradebook, with what is graded apart from what still waits for a grade.

python solutions/grades.py             (in the course's folder, after `nbgrader autograde`)
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

from nbgrader.api import Gradebook, MissingEntry

COLUMNS = ("assignment", "student", "status", "by check", "by hand", "score", "possible", "still to grade")


def rows(book: Gradebook) -> Iterator[dict[str, object]]:
    """A line for each assignment and student. A part that waits for a grade is empty, and not 0."""
    for assignment in book.assignments:
        for student in book.students:
            line: dict[str, object] = {"assignment": assignment.name, "student": student.id}
            try:
                handed_in = book.find_submission(assignment.name, student.id)
            except MissingEntry:
                yield {**line, "status": "not handed in", "possible": assignment.max_score}
                continue
            grades = [grade for notebook in handed_in.notebooks for grade in notebook.grades]
            checked = [grade for grade in grades if grade.cell.cell_type == "code"]
            by_hand = [grade for grade in grades if grade.cell.cell_type != "code"]
            waiting = [grade for grade in by_hand if grade.needs_manual_grade]
            of_hand = sum(grade.score for grade in by_hand if not grade.needs_manual_grade)
            yield {
                **line,
                "status": "waiting for a grade" if waiting else "graded",
                "by check": sum(grade.score for grade in checked),
                "by hand": "" if len(waiting) == len(by_hand) > 0 else of_hand,
                "score": "" if waiting else handed_in.score,
                "possible": handed_in.max_score,
                "still to grade": sum(grade.cell.max_score for grade in waiting),
            }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("grades.csv"))
    options = parser.parse_args()
    with Gradebook("sqlite:///gradebook.db") as book, open(options.out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        written = list(rows(book))
        writer.writerows(written)
    waiting = sum(row["status"] == "waiting for a grade" for row in written)
    print(f"{options.out}: {len(written)} lines, {waiting} of them waiting for a grade")


if __name__ == "__main__":
    main()
