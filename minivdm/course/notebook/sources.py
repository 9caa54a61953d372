"""Show the package's own lines, so that a lesson never carries a second copy of them."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.display import display


@dataclass(frozen=True)
class Source:
    """The lines of one object.

    Attributes:
        where: file relative to the package's parent folder, or "this notebook".
        first, last: line numbers in that file, counted from 1.
        code: the lines, dedented.
    """

    where: str
    first: int
    last: int
    code: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        # Markdown, not HTML: the reader's own theme colours it, and it survives untrusted notebooks.
        heading = f"{self.where}, lines {self.first}–{self.last}"
        fenced = f"`{heading}`\n\n```python\n{self.code}\n```"
        return {"text/markdown": fenced, "text/plain": f"# {heading}\n{self.code}"}


def show_source(*objects: Any, docstring: bool = True) -> None:
    """Display functions, classes, methods or modules as they stand in their files.

    Args:
        objects: what to show, in order.
        docstring: False leaves the object's own docstring out, where the text has just said the same.

    Raises:
        TypeError: an object without Python source, such as a tensor or a built-in function.
    """
    for one in objects:
        display(source_of(one, docstring))


def source_of(thing: Any, docstring: bool = True) -> Source:
    """The source of one object; see ``show_source``."""
    if isinstance(thing, property) and thing.fget is not None:
        thing = thing.fget
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(thing))
    except (TypeError, OSError) as error:
        raise TypeError(
            f"expected a function, class, method or module with Python source, got {type(thing).__name__}"
        ) from error
    first = max(first, 1)
    code = textwrap.dedent("".join(lines)).rstrip("\n")
    if not docstring:
        code = _without_docstring(code)
    return Source(_where(thing), first, first + len(lines) - 1, code)


def _where(thing: Any) -> str:
    module = inspect.getmodule(inspect.unwrap(thing))
    if module is None or module.__name__ == "__main__" or not getattr(module, "__file__", None):
        return "this notebook"
    top = sys.modules[module.__name__.partition(".")[0]]
    file = Path(str(module.__file__)).resolve()
    folder = Path(str(top.__file__)).resolve().parent if getattr(top, "__file__", None) else file.parent
    return file.relative_to(folder.parent if hasattr(top, "__path__") else folder).as_posix()


def _without_docstring(code: str) -> str:
    tree = ast.parse(code)
    body = tree.body
    if len(body) == 1 and isinstance(body[0], (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        body = body[0].body
    opening = body[0] if body else None
    if not (isinstance(opening, ast.Expr) and isinstance(opening.value, ast.Constant)):
        return code
    if not isinstance(opening.value.value, str) or len(body) == 1:  # a body must not become empty
        return code
    lines = code.splitlines()
    last = opening.end_lineno or opening.lineno
    rest = lines[last:]
    while rest and not rest[0].strip():
        rest.pop(0)
    return "\n".join(lines[: opening.lineno - 1] + rest)
