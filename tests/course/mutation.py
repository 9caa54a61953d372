"""Small changes to a solution, each of which its check has to notice: the proof that the checks look.

python tests/course/mutation.py 06_samplers            lists the changes that a check lets pass
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
NAMES = {
    "sin": "cos",
    "cos": "sin",
    "mean": "sum",
    "sum": "mean",
    "min": "max",
    "max": "min",
    "alpha_t": "alpha_s",
    "alpha_s": "alpha_t",
    "sigma_t": "sigma_s",
    "sigma_s": "sigma_t",
    "alpha": "sigma",
    "sigma": "alpha",
}
#: Methods without arguments that a change leaves out.
DROPPED = {"sqrt", "exp", "log", "square", "abs", "softmax", "trace", "cumsum", "flip", "transpose", "reciprocal"}

SYMMETRIC = {"min", "max", "minimum", "maximum"}

UNET = "def __init__(self, cell, width, multipliers, spatial, channels=1, patch=2, labels=10, embedding=128):"
#: "assignment name" -> {change: why it makes no difference}.
EQUIVALENT: dict[str, dict[str, str]] = {
    "08_factorized_3d_unet UNet": {
        f"1 + 1 in `{UNET}`": "a default, and the check names every argument",
        f"10 + 1 in `{UNET}`": "a default, and the check names every argument",
        f"128 + 1 in `{UNET}`": "a default, and the check names every argument",
        f"2 + 1 in `{UNET}`": "a default, and the check names every argument",
    },
    "07_guidance projected": {
        "arguments swapped in `along = dot(push, x_c) / dot(x_c, x_c) * x_c`": "a scalar product is symmetric",
    },
    "03_score_matching posterior_moments": {
        "1 + 1 in `return mean.detach(), sigma**2 / alpha * torch.stack(rows, 1)`": "a covariance is symmetric",
    },
    "13_text_to_video cross_attention": {
        "arguments swapped in `q, k, v = (x.reshape(b, -1, heads, c // heads).transpose(1, 2) for x in (q, k, v))`": "two axes are exchanged, whichever is named first",  # noqa: E501
        "arguments swapped in `return (weights @ v).transpose(1, 2).reshape(b, places, c)`": "two axes are exchanged, whichever is named first",  # noqa: E501
    },
    "15_few_steps guided_target": {
        "1.0 + 1 in `return (1.0, 0.0) if time == 0 else (schedule.alpha(time).to(z), schedule.sigma(time).to(z))`": "at time 0 alpha multiplies the last estimate and then divides it again",  # noqa: E501
    },
    "10_extending_videos seam_score": {
        "mean -> sum in `change = (videos[:, :, 1:] - videos[:, :, :-1]).square().mean(dim=(0, 1, 3, 4))`": "a ratio of two such means, all of the same number of pixels",  # noqa: E501
    },
}


def solutions(assignment: str) -> tuple[str, dict[str, str]]:
    """The code before the solutions, and the solution cells by the name of what they define."""
    notebook = nbformat.read(ROOT / "solutions" / assignment / f"{assignment}.ipynb", as_version=4)
    setup, found = [], {}
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type != "code" or meta.get("grade") or meta["grade_id"].startswith("show_"):
            continue  # neither checks nor cells that put the answers to work
        if meta.get("solution"):
            found[meta["grade_id"]] = cell.source
        else:
            setup.append(cell.source)
    return "\n".join(setup), found


def defined(source: str, name: str, setup: dict[str, Any]) -> Any:
    """What a cell defines under a name, in a namespace of its own."""
    space = dict(setup)
    exec(compile(source, f"<{name}>", "exec"), space)
    return space[name]


def namespace(setup: str) -> dict[str, Any]:
    """The names that the code before the solutions leaves."""
    space: dict[str, Any] = {"__name__": "__solutions__"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(setup, "<setup>", "exec"), space)
    return space


def _docstrings(tree: ast.AST) -> set[int]:
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def _symmetric(call: ast.Call) -> bool:
    """Does the order of the first two arguments make no difference, or not exist?"""
    return any(isinstance(a, ast.Starred) for a in call.args[:2]) or ast.unparse(call.func).split(".")[-1] in SYMMETRIC


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(what changes, the changed node) for one node."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield type(node.op).__name__, ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        yield "Pow dropped", node.left
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "minus dropped", node.operand
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value!r} + 1", ast.Constant(node.value + 1)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        ops = [COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
        yield type(node.ops[0]).__name__, ast.Compare(node.left, ops, node.comparators)
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in DROPPED
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id in ("torch", "math"))
    ):
        yield f"{node.func.attr} dropped", node.func.value
    if isinstance(node, ast.Call) and len(node.args) >= 2 and not _symmetric(node):
        swapped = ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
        if ast.dump(swapped) != ast.dump(node):
            yield "arguments swapped", swapped
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield f"{node.attr} -> {NAMES[node.attr]}", ast.Attribute(node.value, NAMES[node.attr], node.ctx)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in NAMES:
        yield f"{node.id} -> {NAMES[node.id]}", ast.Name(NAMES[node.id], node.ctx)


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the changed source): one small change each."""
    tree = ast.parse(source)
    prose = _docstrings(tree)
    for place, node in enumerate(ast.walk(tree)):
        if id(node) in prose:
            continue
        for what, changed in _changes(node):
            copied = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(copied)) if i == place)
            replacement = copy.deepcopy(changed)

            class Put(ast.NodeTransformer):
                def visit(self, here: ast.AST, target: ast.AST = target, new: ast.AST = replacement) -> ast.AST:
                    return new if here is target else self.generic_visit(here)

            text = ast.unparse(ast.fix_missing_locations(Put().visit(copied)))
            line = getattr(node, "lineno", 0)
            yield f"{what} in `{source.splitlines()[line - 1].strip()}`", text


def survivors(assignment: str, name: str, seconds: float | None = None) -> tuple[int, list[str]]:
    """How many changes were tried on a solution, and those that its check lets pass.

    seconds: for each, by default few, which a loop without end uses up, or enough for those that have to pass.
    """
    from minivdm.course.checks import CheckFailed, checks_of

    setup, cells = solutions(assignment)
    space = namespace(setup)
    check = copy.copy(checks_of(assignment)[name])
    check.seconds = seconds or (5.0 if f"{assignment} {name}" in EQUIVALENT else 1.5)
    check.wrong = ()  # whether it is refused is asked, not what is said of it
    tried, passed = 0, []
    for what, source in mutants(cells[name]):
        tried += 1
        try:
            answer = defined(source, name, space)
        except Exception:
            continue  # a cell that does not run is noticed by itself
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                check(answer)
        except CheckFailed:
            continue
        passed.append(what)
    return tried, passed


if __name__ == "__main__":
    for assignment in sys.argv[1:]:
        for name in solutions(assignment)[1]:
            tried, passed = survivors(assignment, name)
            print(f"{assignment} {name}: {tried - len(passed)} of {tried} changes noticed")
            for what in passed:
                print(f"    lets pass: {what}")
