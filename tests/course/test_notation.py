"""lessons/notation.md is a map: no row of it points nowhere, and no numbered equation is missing from it."""

import ast
import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAP = ROOT / "lessons" / "notation.md"
LESSONS = sorted((ROOT / "lessons").glob("*.ipynb"))
HEADER = ["equation", "lesson", "paper and number", "code object", "test"]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables() -> dict[str, list[tuple[int, list[str]]]]:
    """Heading of level 2 -> (line number, cells) of each table row below it, header and rule left out."""
    found: dict[str, list[tuple[int, list[str]]]] = {}
    heading, in_table = "", False
    for number, line in enumerate(MAP.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("## "):
            heading, in_table = line[3:].strip(), False
            assert heading not in found, f"heading {heading!r} appears twice"
            found[heading] = []
        elif line.startswith("|---"):
            in_table = True
        elif line.startswith("|") and in_table:
            found[heading].append((number, cells(line)))
        elif not line.startswith("|"):
            in_table = False
    return found


EQUATIONS = [
    pytest.param(row, id=f"line-{number}")
    for heading, rows in tables().items()
    if heading.startswith("Lesson")
    for number, row in rows
]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def resolve(dotted: str) -> object:
    """The object of that dotted name; ModuleNotFoundError or AttributeError where there is none."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        name = ".".join(parts[:cut])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def numbers_in(lesson: Path) -> list[str]:
    """Numbers that the lesson's equations carry, in order."""
    notebook = json.loads(lesson.read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return re.findall(r"\\tag\{([^}]*)\}", text)


def test_tables_have_the_agreed_columns():
    text = MAP.read_text(encoding="utf-8")
    for heading in (name for name in tables() if name.startswith("Lesson")):
        section = text.split(f"## {heading}\n")[1]
        first = next(line for line in section.splitlines() if line.startswith("|"))
        assert cells(first) == HEADER, heading
    assert tables()["Symbols"]


@pytest.mark.parametrize("row", EQUATIONS)
def test_a_row_points_somewhere(row):
    assert len(row) == len(HEADER), f"expected {len(HEADER)} cells (write \\mid for a bar in mathematics): {row}"
    equation, lesson, paper, code, test = row
    assert equation and paper
    assert re.fullmatch(r"\(?\d+\.\d+\)?", lesson), f"expected a number such as 1.12, got {lesson!r}"
    assert quoted(code) and quoted(test), f"expected a code object and a test in backticks: {row}"
    for dotted in quoted(code):
        resolve(dotted)
    for where in quoted(test):
        file, _, name = where.partition("::")
        assert name in names_in(file), f"{file} has no test {name}"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_every_numbered_equation_has_a_row(lesson):
    numbers = numbers_in(lesson)
    assert len(numbers) == len(set(numbers)), "two equations share a number"
    heading = f"Lesson {lesson.stem.partition('_')[0]}"
    rows = [row[1].strip("()") for _, row in tables().get(heading, [])]
    assert sorted(numbers) == sorted(set(rows)), f"{lesson.name} and {heading} in notation.md number differently"
    assert all(number.startswith(f"{int(lesson.stem[:2])}.") for number in numbers)


@pytest.mark.parametrize("broken", ["minivdm.core.gaussian.postrior", "minivdm.gausian.posterior", "nowhere.at.all"])
def test_a_broken_pointer_is_noticed(broken):
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve(broken)
