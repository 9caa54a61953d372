"""Writes the README's tree, a line for each file, from the files and the first sentences of their docstrings.

python .ci/tree.py          (make tables does it)
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minivdm"
#: In reading order, as in tests/test_frame.py. Folders with many short files of one kind are one line.
ROOMS = (
    "guards.py",
    "core",
    "networks",
    "exact",
    "data",
    "measure",
    "tasks",
    "training",
    "systems",
    "api.py",
    "course",
    "cli",
)
AT_A_GLANCE = {"course/notebook/figures", "course/notebook", "course/checks"}
WIDTH = 118
SECTION = re.compile(r"(<!-- tree -->\n).*?(<!-- /tree -->)", re.S)
COUNT = re.compile(r"[\d,]+(?= lines of `core/` and its U-Net)")
#: What is read in an evening, besides core/: the networks of the first part of the course.
UNET = ("layers", "attention", "blocks", "unet3d")


def filled(text: str) -> str:
    """The README's text with its tree and its count of lines made anew."""
    text = SECTION.sub(lambda match: f"{match[1]}```\n{tree()}```\n{match[2]}", text)
    return COUNT.sub(f"{evening():,}", text)


def tree() -> str:
    """Rooms in reading order; in a room the order that its docstring gives, then the alphabet's."""
    rows = []
    for room in ROOMS:
        path = PACKAGE / room
        if not path.exists():
            continue
        if path.is_file():
            rows.append(row(0, room, sentence(path)))
            continue
        rows.append(row(0, f"{room}/", f"{lines(path):,} lines. {sentence(path / '__init__.py')}"))
        rows += [row(1, *entry) for entry in entries(path)]
    return "".join(rows)


def entries(folder: Path) -> list[tuple[str, str]]:
    """(name, what it is) of the files and folders of a room."""
    found = []
    order = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    for path in sorted(folder.iterdir(), key=lambda p: (place(order, p.stem), p.name)):
        inside = path.relative_to(PACKAGE).as_posix()
        if path.is_dir() and (path / "__init__.py").exists():
            if inside in AT_A_GLANCE:
                count = len([p for p in path.rglob("*.py") if p.name != "__init__.py"])
                found.append(
                    (f"{path.name}/", f"{sentence(path / '__init__.py')} {count} files, {lines(path):,} lines")
                )
            else:
                found += [(f"{path.name}/{name}", what) for name, what in entries(path)]
        elif path.suffix == ".py" and path.name != "__init__.py":
            found.append((path.name, sentence(path)))
    return found


def place(text: str, name: str) -> int:
    """Where a text names a module; behind everything where it does not."""
    match = re.search(rf"\b{re.escape(name)}\b", text)
    return match.start() if match else len(text) + 1


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    return re.split(r"(?<=[.])(?<!al[.])\s(?=[A-Z`])", text)[0].rstrip(":")


def evening() -> int:
    """Lines of core/ and of the U-Net."""
    return lines(PACKAGE / "core") + sum(
        len((PACKAGE / f"networks/{name}.py").read_text().splitlines()) for name in UNET
    )


def lines(path: Path) -> int:
    """Lines of the Python files below a folder."""
    return sum(len(file.read_text().splitlines()) for file in path.rglob("*.py"))


def row(depth: int, name: str, what: str) -> str:
    """One line of the tree, cut at a word."""
    start = f"{'  ' * depth}{name:{24 - 2 * depth}} "
    room = WIDTH - len(start)
    if len(what) > room:
        what = what[: room - 1].rsplit(" ", 1)[0] + " …"
    return f"{start}{what}".rstrip() + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
