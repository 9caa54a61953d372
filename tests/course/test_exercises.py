"""The assignments: one source, made into the students' notebooks, which fail only where something is to be written."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mutation
import nbformat
import pytest
import test_lessons as rules
from nbclient import NotebookClient

from minivdm.course import checks

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.name for path in (ROOT / "solutions").glob("[0-9]*"))
#: Coded exercises with nothing to see but the formula itself: no cell puts them to work.
FORMULAS = {
    "01_forward_sdes": {"moment_rates", "power_diffusion"},
    "04_from_elbo_to_mse": {"bits_per_value", "gaussian_diffusion", "full_kl"},
    "05_v_parameterization": {"min_snr_weight"},
    "06_samplers": {"log_likelihood", "hutchinson_variances"},
    "07_guidance": {"weight_at", "flow_variance", "ancestral_variance"},
    "08_factorized_3d_unet": {"channels_between", "shaw_logits", "best_weights"},
    "09_training_on_moving_mnist": {"clip_gradients", "mean_time_variances"},
    "10_extending_videos": {"two_frames", "right_weight"},
    "11_super_resolution": {"natural_weight"},
}
PROJECTS = ("07_guidance", "10_extending_videos", "12_evaluating_video")
HEADER = re.compile(
    r"^## Exercise (\d\d)\.(\d+) · .+\n\n"
    r"\*Difficulty ([1-5]) of 5 · importance [1-5] of 5 · (\d+) minutes · (\d+) points? · [^*]+\*$",
    re.M,
)
each_assignment = pytest.mark.parametrize("name", NAMES)


def solution(name: str) -> Path:
    return ROOT / "solutions" / name / f"{name}.ipynb"


def exercise(name: str) -> Path:
    return ROOT / "exercises" / name / f"{name}.ipynb"


def cells(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def meta(cell: nbformat.NotebookNode) -> dict:
    return cell.metadata["nbgrader"]


def headers(name: str) -> list[re.Match]:
    return [
        match
        for cell in cells(solution(name))
        if cell.cell_type == "markdown"
        for match in HEADER.finditer(cell.source)
    ]


# ---- what there is -------------------------------------------------------------------------------------------


def test_every_lesson_has_its_assignment():
    lessons = {path.stem[:2] for path in (ROOT / "lessons").glob("[0-9]*.ipynb")} - {"00"}  # 06a and 06b have one
    assert {name[:2] for name in NAMES} <= lessons
    assert set(NAMES) == set(checks.MODULES)
    assert {path.name for path in (ROOT / "exercises").iterdir() if path.is_dir()} == {*NAMES, "capstone"}


def test_there_are_fifty_exercises():
    assert sum(len(headers(name)) for name in NAMES) >= 50


@each_assignment
def test_exercises_are_numbered_and_say_what_they_take(name):
    found = headers(name)
    assert len(found) >= 4
    assert [(m[1], int(m[2])) for m in found] == [(name[:2], k) for k in range(1, len(found) + 1)]
    titles = [cell.source for cell in cells(solution(name)) if cell.source.startswith("## Exercise ")]
    assert len(titles) == len(found), "a header without difficulty, minutes, points and what it is used for later"
    assert len({m[3] for m in found}) >= 2  # difficulties


@each_assignment
def test_difficulty_rises_over_the_coded_exercises(name):
    found, coded = cells(solution(name)), []
    for i, cell in enumerate(found):
        if cell.cell_type == "code" and meta(cell)["solution"]:
            coded.append(int(HEADER.search(found[i - 1].source)[3]))
    assert coded == sorted(coded) and coded[0] == 1 and coded[-1] >= 4


def shows(name: str) -> dict[str, nbformat.NotebookNode]:
    """The cells that put answers to work, by id."""
    code = [cell for cell in cells(solution(name)) if cell.cell_type == "code"]
    return {meta(cell)["grade_id"]: cell for cell in code if meta(cell)["grade_id"].startswith("show_")}


@each_assignment
def test_every_assignment_ends_with_something_that_moves(name):
    end = shows(name)["show_end"]
    assert "stage.ready(" in end.source and "nb.player(" in end.source
    assert any("text/html" in output.get("data", {}) for output in end.outputs)


@each_assignment
def test_answers_are_put_to_work(name):
    """Below its check, or with others in the end; until it is written the cell says so, and nothing else."""
    found = cells(solution(name))
    ids = [meta(cell)["grade_id"] for cell in found]
    end = shows(name)["show_end"].source
    for function in mutation.solutions(name)[1]:
        own = f"show_{function}"
        if own in ids:
            assert ids[ids.index(own) - 1] == f"check_{function}"
            assert found[ids.index(own)].source.startswith(f"if stage.ready({function}):")
            assert found[ids.index(own)].outputs
        elif function not in FORMULAS.get(name, ()):
            ready = re.search(r"stage\.ready\(([^)]*)\)", end)
            assert ready and function in ready[1].split(", "), f"{function} is not put to work"
    assert all(len(cell.source.splitlines()) <= 20 for cell in shows(name).values())


@each_assignment
def test_points_are_those_that_the_headers_promise(name):
    given: list[int] = []
    for cell in cells(solution(name)):
        if match := HEADER.search(cell.source):
            given.append(-int(match[5]))
        if points := meta(cell).get("points", 0):
            given[-1] += points
    assert given == [0] * len(given)


@each_assignment
def test_coded_exercises_have_graded_hints_a_solution_and_a_check(name):
    setup, solved = mutation.solutions(name)
    assert set(solved) == set(checks.checks_of(name))
    assert len(solved) >= 4
    found = cells(solution(name))
    for i, cell in enumerate(found):
        if cell.cell_type != "code" or not meta(cell)["solution"]:
            continue
        function, test = meta(cell)["grade_id"], found[i + 1]
        assert "<details><summary>Hint 1</summary>" in found[i - 1].source, f"{function}: no hint before it"
        assert "### BEGIN SOLUTION" in cell.source and '"""' in cell.source
        assert not cell.source.rpartition("### END SOLUTION")[2].strip()
        assert meta(test)["grade"] and meta(test)["points"] > 0 and meta(test)["locked"]
        assert test.metadata.tags == ["raises-exception"]  # one that fails does not stop "Run All"
        assert test.source == (
            f"checks.{function}({function}, seed=SEED)\n### BEGIN HIDDEN TESTS\n"
            f"checks.{function}({function}, seed=SEED + 1)\n### END HIDDEN TESTS"
        )


@each_assignment
def test_some_answers_are_written_and_graded_by_hand(name):
    written = [cell for cell in cells(solution(name)) if cell.cell_type == "markdown" and meta(cell)["solution"]]
    assert written and all(meta(cell)["grade"] and meta(cell)["points"] > 0 for cell in written)
    assert all(len(cell.source) > 100 for cell in written)  # the model answer


@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_with_a_rubric_closes_it(name):
    last = cells(solution(name))[-1]
    assert meta(last)["task"] and meta(last)["points"] == 10
    assert "| points |" in last.source.lower()
    rows = [int(row) for row in re.findall(r"\|\s*(\d+)\s*\|\s*$", last.source, re.M)]
    assert len(rows) >= 3 and sum(rows) == 10


@each_assignment
def test_ids_are_unique_and_fixed(name):
    found = cells(solution(name))
    assert len({cell.id for cell in found}) == len(found) == len({meta(cell)["grade_id"] for cell in found})
    assert [cell.id for cell in found] == [f"{name.replace('_', '-')}-{i:03d}" for i in range(len(found))]


#: What has a source in solutions/: the assignments and the capstone.
each_notebook = pytest.mark.parametrize("name", [*NAMES, "capstone"])


@each_notebook
def test_the_solution_is_executed_and_clean(name):
    path = solution(name)
    nbformat.validate(nbformat.read(path, as_version=4))
    for rule in (
        rules.test_is_small,
        rules.test_was_executed_in_order,
        rules.test_shows_no_error_and_no_warning,
        rules.test_names_no_machine,
        rules.test_cells_keep_no_trace_of_when_they_ran,
        rules.test_every_name_it_uses_is_in_the_package,
        rules.test_every_name_its_prose_mentions_is_in_the_package,
        rules.test_links_resolve,
    ):
        rule(path)


@each_notebook
def test_what_students_get_gives_nothing_away(name):
    text = exercise(name).read_text()
    assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN|MARK)|SEED \+ 1", text)
    for cell in cells(exercise(name)):
        assert cell.cell_type != "code" or not cell.outputs
        if meta(cell)["solution"]:
            stub = "raise NotImplementedError()" if cell.cell_type == "code" else "*Your answer here.*"
            assert cell.source.rstrip().endswith(stub)


# ---- made again ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A copy of the course's sources, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a course")
    shutil.copytree(ROOT / "solutions", folder / "solutions")
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    return folder


@each_notebook
def test_exercises_are_what_their_solutions_make(name, course):
    made = subprocess.run(
        [sys.executable, "-m", "nbgrader", "generate_assignment", name, "--force", "--no-db"],
        cwd=course,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    again = course / "exercises" / name / f"{name}.ipynb"
    assert again.read_bytes() == exercise(name).read_bytes(), "run `make exercises`"


def test_the_guide_counts_what_there_is():
    spec = importlib.util.spec_from_file_location("guide", ROOT / ".ci" / "guide.py")
    guide = importlib.util.module_from_spec(spec)
    sys.modules["guide"] = guide  # dataclasses look their module up
    spec.loader.exec_module(guide)
    text = guide.GUIDE.read_text()
    assert "| 12 |" in text
    assert text == guide.filled(text), "run `make exercises`"


# ---- unsolved ------------------------------------------------------------------------------------------------


@each_notebook
def test_what_students_get_fails_only_where_it_is_to_be_written(name, tmp_path):
    """Run as it comes: every check says what is missing, and nothing else fails, cells that show something included."""
    notebook = nbformat.read(exercise(name), as_version=4)
    (tmp_path / name).mkdir()
    resources = {"metadata": {"path": str(tmp_path / name)}}
    client = NotebookClient(notebook, timeout=300, allow_errors=True, resources=resources)
    client.execute(env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"})
    for cell in notebook.cells:
        errors = [output for output in cell.get("outputs", []) if output.output_type == "error"]
        if meta(cell)["grade"] and cell.cell_type == "code":
            function = meta(cell)["grade_id"].removeprefix("check_")
            assert [error.ename for error in errors] == ["Unfinished"]
            assert f"{function} is not written yet" in errors[0].evalue
        else:
            assert not errors, f"{meta(cell)['grade_id']} fails as it is handed out: {errors}"
