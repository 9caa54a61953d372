"""The whole circuit of a classroom with nbgrader's own commands: release, collect, autograde, feedback, export."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mutation
import nbformat
import pytest
from nbgrader.api import Gradebook

from minivdm.course.checks import CheckFailed, checks_of

ROOT = Path(__file__).resolve().parents[2]
ASSIGNMENTS = ("06_samplers", "10_extending_videos")
STUDENTS = ("ada", "blank", "wrong")  # all right; as handed out; the first coded exercise wrong

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def activated() -> Iterator[None]:
    """The environment's programs can be found, as after `source .venv/bin/activate`: nbgrader calls alembic."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        yield


def nbgrader(course: Path, *words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *words], cwd=course, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, f"nbgrader {' '.join(words)}: {done.stderr[-2000:]}"


def first_noticed_change(name: str, function: str, source: str) -> str:
    """A small change to a solution that its check refuses."""
    space = mutation.namespace(mutation.solutions(name)[0])
    for _, changed in mutation.mutants(source):
        try:
            checks_of(name)[function](mutation.defined(changed, function, space))
        except CheckFailed:
            return changed
        except Exception:
            continue
    raise AssertionError(f"no change to {function} is noticed")


def hand_in(course: Path, name: str, student: str) -> None:
    """What a student uploads: the released notebook, with the cells that are to be written filled in."""
    notebook = nbformat.read(course / "exercises" / name / f"{name}.ipynb", as_version=4)
    solved = mutation.solutions(name)[1]
    if student == "wrong":
        first = next(iter(solved))
        solved[first] = first_noticed_change(name, first, solved[first])
    for cell in notebook.cells:
        meta = cell.metadata["nbgrader"]
        if student != "blank" and meta["solution"] and cell.cell_type == "code":
            cell.source = solved[meta["grade_id"]]
        elif student != "blank" and meta["solution"]:
            cell.source = f"An answer by {student}."
    folder = course / "downloaded" / name / "archive"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{student}-{name}.ipynb")


def points(name: str) -> tuple[int, int, int]:
    """Of an assignment: all that is graded automatically, the first coded exercise, and all by hand."""
    automatic, by_hand = [], 0
    for cell in nbformat.read(ROOT / "solutions" / name / f"{name}.ipynb", as_version=4).cells:
        meta = cell.metadata["nbgrader"]
        if meta["grade"] and cell.cell_type == "code":
            automatic.append(meta["points"])
        else:
            by_hand += meta.get("points", 0)
    return sum(automatic), automatic[0], by_hand


@pytest.fixture(scope="module")
def course(tmp_path_factory, activated) -> Path:
    folder = tmp_path_factory.mktemp("course")
    for name in ASSIGNMENTS:
        shutil.copytree(ROOT / "solutions" / name, folder / "solutions" / name)
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    for name in ASSIGNMENTS:
        nbgrader(folder, "generate_assignment", name)
        for student in STUDENTS:
            hand_in(folder, name, student)
        nbgrader(folder, "zip_collect", name)
        nbgrader(folder, "autograde", name)
    return folder


@pytest.fixture
def gradebook(course):
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as opened:
        yield opened


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_grades_are_full_partial_and_none(name, gradebook):
    automatic, first, by_hand = points(name)
    expected = {"ada": automatic, "wrong": automatic - first, "blank": 0}
    assert 0 < expected["wrong"] < automatic
    for student in STUDENTS:
        handed_in = gradebook.find_submission(name, student)
        assert handed_in.score == expected[student]
        assert handed_in.max_score == automatic + by_hand
    assert gradebook.find_submission(name, "ada").needs_manual_grade


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_feedback_and_grades_leave_the_gradebook(name, course, gradebook):
    _, _, by_hand = points(name)
    notebook = gradebook.find_submission(name, "ada").notebooks[0]
    for grade in notebook.grades:
        if grade.needs_manual_grade:
            grade.manual_score, grade.needs_manual_grade = grade.cell.max_score, False
    gradebook.db.commit()

    nbgrader(course, "generate_feedback", name)
    page = (course / "feedback" / "wrong" / name / f"{name}.html").read_text()
    first = next(iter(mutation.solutions(name)[1]))
    assert f"{first} is not right yet" in page  # the check's sentence reaches the student

    nbgrader(course, "export")
    with open(course / "grades.csv") as file:
        rows = {(row["assignment"], row["student_id"]): row for row in csv.DictReader(file)}
    automatic, first_points, _ = points(name)
    assert float(rows[name, "ada"]["score"]) == automatic + by_hand
    assert float(rows[name, "wrong"]["score"]) == automatic - first_points
    assert float(rows[name, "blank"]["score"]) == 0
