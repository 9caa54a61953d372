"""What every lesson keeps to. That its code runs and prints what it shows is nbval's business (`make test`)."""

import ast
import importlib
import importlib.util
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted((ROOT / "lessons").glob("*.ipynb"))
#: Formats that a reader sees instead of a plain-text repr.
RICH = {
    "image/png",
    "image/svg+xml",
    "text/html",
    "text/markdown",
    "text/latex",
    "application/vnd.jupyter.widget-view+json",
}
MOST_LINES = 25
MOST_BYTES = 2_000_000

pytestmark = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def cells(path: Path, kind: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == kind and cell.source.strip()]


def prose(path: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def headings(path: Path) -> str:
    return "\n".join(re.findall(r"^#+ .*$", prose(path), re.M)).lower()


def outputs(path: Path) -> Iterator[tuple[int, nbformat.NotebookNode]]:
    for number, cell in enumerate(cells(path, "code"), start=1):
        for output in cell.outputs:
            yield number, output


def shown_text(output: nbformat.NotebookNode) -> str:
    """All text of an output except embedded data, whose letters mean nothing."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return output.evalue
    text = "\n".join(str(value) for kind, value in output.data.items() if not kind.startswith("image/"))
    return re.sub(r"[A-Za-z0-9+/=]{80,}", "", text)


# --- the file


def test_is_a_valid_notebook_with_a_numbered_name(path):
    nbformat.validate(read(path))
    assert re.fullmatch(r"\d\d[a-z]?_[a-z0-9_]+", path.stem)
    assert read(path).metadata.get("kernelspec", {}).get("name") == "python3"


def test_is_small(path):
    assert path.stat().st_size < MOST_BYTES


def test_was_executed_in_order(path):
    counts = [cell.execution_count for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


def test_shows_no_error_and_no_warning(path):
    for number, output in outputs(path):
        assert output.output_type != "error", f"code cell {number} raised {output.ename}"
        assert output.get("name") != "stderr", f"code cell {number} wrote to stderr: {output.text[:200]}"
        assert not re.search(r"\w+Warning\b", shown_text(output)), f"code cell {number} shows a warning"


def test_names_no_machine(path):
    private = re.compile(
        r"(?<![\w.])/(home|root|work|tmp|Users|opt|mnt)/|[A-Z]:\\Users|site-packages"
        r"|localhost|127\.0\.0\.1"
    )
    texts = [(f"output of code cell {number}", shown_text(output)) for number, output in outputs(path)]
    texts += [("a source", cell.source) for cell in read(path).cells]
    for where, text in texts:
        assert not private.search(text), f"{where} holds {private.search(text)[0]!r}"
        if len(socket.gethostname()) > 5:
            assert socket.gethostname() not in text, f"{where} names the machine"


def test_cells_keep_no_trace_of_when_they_ran(path):
    assert not [cell.id for cell in read(path).cells if "execution" in cell.metadata]


def test_ends_no_figure_with_a_repr(path):
    for number, output in outputs(path):
        plain = output.get("data", {}).get("text/plain", "")
        if output.output_type == "execute_result" or not RICH & set(output.get("data", {})):
            assert not re.search(r"<[\w.]+ (object )?at 0x|<Figure|<Axes|\[<matplotlib|Text\(", plain), (
                f"code cell {number} ends with {plain[:60]}"
            )


# --- the page


def test_opens_with_what_is_needed(path):
    opening = "\n".join(cell.source for cell in read(path).cells[:6] if cell.cell_type == "markdown").lower()
    assert opening.startswith("# "), "the first line is the title"
    for word in ("prerequisite", "minutes"):
        assert word in opening, f"the opening names no {word!r}"
    assert re.search(r"\b(cpu|gpu|cores?|hardware)\b", opening), "the opening does not say which hardware"


def test_asks_for_a_prediction_and_shows_the_answer(path):
    assert "predict" in prose(path).lower()
    code = "\n".join(cell.source for cell in cells(path, "code"))
    assert re.search(r"^\s*assert |torch\.testing\.assert_close|check\w*\(|print\(", code, re.M)


@pytest.mark.parametrize("section", ["what goes wrong", "exercises", "references"])
def test_has_its_closing_sections(path, section):
    words = {section}
    if path.stem.startswith("00"):  # the first lesson invites and points ahead instead
        words |= {"exercises": {"try it"}, "references": {"where to go"}}.get(section, set())
    assert any(word in headings(path) for word in words)


def test_shows_pictures(path):
    assert any("image/png" in output.get("data", {}) for _, output in outputs(path))


def test_code_cells_are_short(path):
    too_long = {
        number: len(cell.source.splitlines())
        for number, cell in enumerate(cells(path, "code"), start=1)
        if len(cell.source.splitlines()) > MOST_LINES
    }
    assert not too_long, f"code cells with more than {MOST_LINES} lines: {too_long}"


# --- what it refers to


def names_used(code: str) -> Iterator[tuple[str, str]]:
    """(module, name) for every attribute of a package module and every name imported from one."""
    tree, modules = ast.parse(code), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {
                alias.asname or alias.name: alias.name for alias in node.names if alias.name.startswith("minivdm")
            }
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minivdm":
            for alias in node.names:
                yield node.module, alias.name
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            base = modules.get(ast.unparse(node.value))
            if base and importlib.util.find_spec(base.rpartition(".")[0] or base) and is_module(base):
                yield base, node.attr


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def exists(module: str, name: str) -> bool:
    return hasattr(importlib.import_module(module), name) or is_module(f"{module}.{name}")


def test_every_name_it_uses_is_in_the_package(path):
    code = "\n".join(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M) for cell in cells(path, "code"))
    missing = {f"{module}.{name}" for module, name in names_used(code) if not exists(module, name)}
    assert not missing


def test_every_name_its_prose_mentions_is_in_the_package(path):
    mentioned = set(re.findall(r"`(minivdm(?:\.\w+)+)", prose(path)))
    missing = set()
    for name in mentioned:
        module, _, rest = name.rpartition(".")
        if not is_module(name) and not (is_module(module) and exists(module, rest)):
            owner, _, member = module.rpartition(".")  # a method: minivdm.module.Class.method
            if not (is_module(owner) and hasattr(getattr(importlib.import_module(owner), member, None), rest)):
                missing.add(name)
    assert not missing


def test_links_resolve(path):
    text = re.sub(r"\$[^$]*\$|`[^`]*`", "", prose(path))  # formulas have brackets of their own
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if not re.match(r"[a-z]+:", link) and not link.startswith("#"):
            assert (path.parent / link.split("#")[0]).exists(), f"{link} leads nowhere"


SHOWN = re.compile(r"# (minivdm/[\w/]+\.py), lines? (\d+)(?:–(\d+))?\n(.*?)(?=\n# minivdm/|\Z)", re.S)


def test_the_source_it_shows_is_the_package_of_today(path):
    for _, output in outputs(path):
        for file, first, last, code in SHOWN.findall(output.get("data", {}).get("text/plain", "")):
            now = (ROOT / file).read_text().splitlines()[int(first) - 1 : int(last or first)]
            lines = iter(line.strip() for line in now)  # a docstring may be left out, nothing may be added or changed
            missing = [line for line in code.splitlines() if line.strip() and line.strip() not in lines]
            assert not missing, f"{file} has changed: make lessons LESSONS={path.relative_to(ROOT)}"
