"""The whole circuit of a classroom with nbgrader's own commands: release, collect, autograde, feedback, export."""

import csv
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mutation
import nbformat
import pytest
from nbgrader.api import Gradebook

from minivdm.course.checks import CheckFailed, checks_of

ROOT = Path(__file__).resolve().parents[2]
ASSIGNMENTS = ("06_samplers", "02_noise_schedules")
#: All right, with a space and a hyphen in the name; as handed out; the first coded exercise wrong.
ADA, BLANK, WRONG = STUDENTS = ("ada-marie lovelace", "blank", "wrong")
SEED = 2027  # a variant: the notebooks come with 0

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
    if student == WRONG:
        first = next(iter(solved))
        solved[first] = first_noticed_change(name, first, solved[first])
    for cell in notebook.cells:
        meta = cell.metadata["nbgrader"]
        if student != BLANK and meta["solution"] and cell.cell_type == "code":
            cell.source = solved[meta["grade_id"]]
        elif student != BLANK and meta["solution"]:
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
        path = folder / "solutions" / name / f"{name}.ipynb"
        path.write_text(re.sub(r'"SEED = [0-9]*', f'"SEED = {SEED}', path.read_text()))  # as the guide says
    shutil.copy(ROOT / "solutions" / "grades.py", folder / "solutions")
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
    expected = {ADA: automatic, WRONG: automatic - first, BLANK: 0}
    assert 0 < expected[WRONG] < automatic
    for student in STUDENTS:
        handed_in = gradebook.find_submission(name, student)
        assert handed_in.score == expected[student]
        assert handed_in.max_score == automatic + by_hand
    assert gradebook.find_submission(name, ADA).needs_manual_grade


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_a_variant_reaches_the_students(name, course):
    text = (course / "exercises" / name / f"{name}.ipynb").read_text()
    assert f"SEED = {SEED} " in text and "SEED = 0" not in text


def grades(course: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(assignment, student) -> the line of grades.csv."""
    subprocess.run([sys.executable, "solutions/grades.py"], cwd=course, check=True, capture_output=True)
    with open(course / "grades.csv") as file:
        return {(row["assignment"], row["student"]): row for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_what_waits_for_a_grade_is_not_zero(name, course):
    automatic, _, by_hand = points(name)
    ada, blank = grades(course)[name, ADA], grades(course)[name, BLANK]
    assert ada["status"] == "waiting for a grade" and ada["score"] == ""
    assert float(ada["by check"]) == automatic and ada["by hand"] == ""
    assert 0 < float(ada["still to grade"]) <= by_hand
    assert float(blank["by check"]) == 0


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_feedback_and_grades_leave_the_gradebook(name, course, gradebook):
    _, _, by_hand = points(name)
    notebook = gradebook.find_submission(name, ADA).notebooks[0]
    for grade in notebook.grades:
        if grade.needs_manual_grade:
            grade.manual_score, grade.needs_manual_grade = grade.cell.max_score, False
    gradebook.db.commit()

    nbgrader(course, "generate_feedback", name)
    page = (course / "feedback" / WRONG / name / f"{name}.html").read_text()
    first = next(iter(mutation.solutions(name)[1]))
    assert f"{first} is not right yet" in page  # the check's sentence reaches the student

    rows = grades(course)
    automatic, first_points, _ = points(name)
    assert float(rows[name, ADA]["score"]) == automatic + by_hand
    assert rows[name, ADA]["status"] == "graded" and float(rows[name, ADA]["by hand"]) == by_hand
    assert float(rows[name, WRONG]["by check"]) == automatic - first_points


def test_an_exchange_in_another_folder(course, tmp_path):
    """Release, fetch, submit, collect, where instructor and students are told of the same folder."""
    name, exchange, student = ASSIGNMENTS[0], tmp_path / "an exchange", tmp_path / "a student" / "exercises"
    exchange.mkdir(mode=0o777)
    exchange.chmod(0o777)
    student.mkdir(parents=True)
    root = f"--Exchange.root={exchange}"
    nbgrader(course, "release_assignment", name, root)
    nbgrader(student, "fetch_assignment", name, "--course", "minivdm", root)
    fetched = student / name / f"{name}.ipynb"
    assert f"SEED = {SEED} " in fetched.read_text() and "../../lessons/" in fetched.read_text()
    nbgrader(student, "submit", name, "--course", "minivdm", root)
    nbgrader(course, "collect", name, root)
    assert list((course / "submitted").glob(f"*/{name}/{name}.ipynb"))


def test_students_get_what_lies_there_without_answers_and_dead_links(tmp_path):
    spec = importlib.util.spec_from_file_location("students", ROOT / ".ci" / "students.py")
    students = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(students)
    course = tmp_path / "course"
    course.mkdir()
    (course / "solutions").mkdir()
    (course / "exercises").mkdir()
    (course / "solutions" / "x.ipynb").write_text("answers")
    (course / "exercises" / "x.ipynb").write_text("SEED = 0")
    (course / "lessons").mkdir()
    (course / "lessons" / "notation.md").write_text("# The map\n\n## Symbols\n\n`tests/test_x.py`\n")
    (course / "README.md").write_text("[guide](solutions/README.md), [exercises](exercises), [web](https://a.b)")
    subprocess.run(["git", "init", "-q"], cwd=course, check=True)
    subprocess.run(["git", "add", "-A"], cwd=course, check=True)
    (course / "exercises" / "x.ipynb").write_text("SEED = 7")  # changed, and not committed
    names = students.pack(course, tmp_path / "out.zip")
    assert names == ["README.md", "exercises/x.ipynb", "lessons/notation.md"]
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.read("minivdm/exercises/x.ipynb") == b"SEED = 7"
        assert archive.read("minivdm/README.md") == b"guide, [exercises](exercises), [web](https://a.b)"
        assert b"this copy does not have them.\n\n## Symbols" in archive.read("minivdm/lessons/notation.md")
    assert students.pack(course, tmp_path / "out.zip", exercises=False) == ["README.md", "lessons/notation.md"]
