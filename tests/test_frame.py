"""The frame of the project: dependencies, rooms and arrows, and what the README promises."""

import ast
import graphlib
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="reads pyproject.toml; in the standard library since 3.11")

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minivdm"

#: The rooms in order: each imports only from rooms before it. The README shows the same order.
ROOMS = (
    "guards",
    "core",
    "networks",
    "exact",
    "data",
    "measure",
    "tasks",
    "training",
    "systems",
    "api",
    "course",
    "cli",
    "__main__",
)
SHOWS_PICTURES = {"course", "cli", "__main__"}
ONLY_FOR_PICTURES = {"matplotlib", "ipywidgets", "IPython"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(path: Path, type_checking: bool = False) -> set[str]:
    """Dotted names of all that a file imports when it runs, also inside functions; `from a import b` gives a.b."""
    found, todo = set(), [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports inside the package are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if is_type_checking(node) and not type_checking:
            todo += node.orelse
        else:
            todo += ast.iter_child_nodes(node)
    return found


def rooms_used(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("minivdm.")} - {"__version__"}


def extras(*names: str) -> list[str]:
    return [line for name in names for line in project()["optional-dependencies"][name]]


def requirement_lines(lines: list[str]) -> dict[str, str]:
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): str(r.specifier) for r in found}


# --- dependencies


def test_conda_users_get_the_same_packages():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(item["pip"] for item in listed if isinstance(item, dict))
    assert "--editable ." in pip
    lines = [item for item in [*listed, *pip] if isinstance(item, str) and not item.startswith("--")]
    conda = requirement_lines(
        [line.replace("pytorch", "torch", 1) if line.startswith("pytorch>") else line for line in lines]
    )
    del conda["python"], conda["pip"]
    assert conda == requirement_lines(project()["dependencies"] + extras("course", "data", "dev"))


def test_constraints_pin_the_whole_closure():
    pinned = {
        canonicalize_name(Requirement(line).name)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    todo = [Requirement(line) for line in project()["dependencies"] + extras("course", "data", "dev", "bench")]
    seen, missing = set(), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        # A GPU build of torch fixes the versions of these itself.
        if name not in pinned and not re.match(r"nvidia-|cuda-|triton", name):
            missing.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        for line in needs:
            further = Requirement(line)
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in requirement.extras or {""}):
                todo.append(further)
    assert not missing, f"not in constraints.txt (CONTRIBUTING.md says how to renew it): {sorted(missing)}"


#: What sampling and training need, and nothing else.
SIX = {"torch", "numpy", "einops", "safetensors", "tqdm", "pillow"}
#: Rooms that may use more: the course draws, and films are read where somebody has films.
MORE = {"course": "course", "data": "data", "cli": "course"}


def test_six_packages_are_enough_for_the_library():
    assert set(requirement_lines(project()["dependencies"])) == SIX


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_import_of_the_package_is_a_declared_dependency(path):
    allowed = SIX | set(requirement_lines(extras(MORE[room(path)])) if room(path) in MORE else ())
    providers = importlib.metadata.packages_distributions()
    used = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"minivdm"}
    undeclared = {name for name in used if not {canonicalize_name(p) for p in providers.get(name, [name])} & allowed}
    assert not undeclared


def test_torch_is_pinned_for_pip():
    # The Makefile hands this very line to pip, so that no range can pull another build.
    assert re.search(r"^torch==\d+\.\d+\.\d+$", (ROOT / "constraints.txt").read_text(), re.M)


# --- rooms and arrows


def test_top_level_holds_nothing_else():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed.stdout.split("\0") if name}
    assert top <= {
        "lessons",
        "minivdm",
        "exercises",
        "solutions",
        "tests",
        "benchmarks",
        "environment.yml",
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "CONTRIBUTING.md",
        ".ci",
        ".github",
        ".gitignore",
        "CITATION.cff",
        "nbgrader_config.py",
    }


def test_every_module_has_its_room():
    assert {room(path) for path in modules()} - {"__init__"} <= set(ROOMS)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    if path == PACKAGE / "__init__.py":
        assert not rooms_used(path)
        return
    own, used = room(path), rooms_used(path)
    backwards = {name for name in used - {own} if ROOMS.index(name) > ROOMS.index(own)}
    assert not backwards, f"{own} comes before {backwards}"


def test_no_circle_of_modules():
    """Also counting imports for the type checker alone, which the order of rooms cannot see inside a room."""
    names = {".".join(("minivdm", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in modules()}
    graph = {}
    for name, path in names.items():
        if path.name == "__init__.py":
            continue
        used = imports(path, type_checking=True)
        graph[name] = {n for n in names if n != name and any(u == n or u.startswith(n + ".") for u in used)}
    sorter = graphlib.TopologicalSorter(graph)
    sorter.prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_notebook_rooms_import_what_shows_pictures(path):
    if room(path) not in SHOWS_PICTURES:
        assert not {name.split(".")[0] for name in imports(path)} & ONLY_FOR_PICTURES


def test_importing_the_rooms_below_loads_no_notebook_library():
    # Also catches what a third library would bring along.
    below = [path for path in modules() if room(path) not in SHOWS_PICTURES and path.name != "make_digits.py"]
    names = [
        ".".join(("minivdm", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in below
    ]
    code = f"import sys; [__import__(n) for n in {names}]; print(sorted({ONLY_FOR_PICTURES} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_importing_the_package_loads_not_even_torch():
    code = "import sys, minivdm; print([n for n in ('torch', 'numpy', 'matplotlib') if n in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_function_has_more_than_nine_arguments(path):
    """What needs more takes a record: a recipe, a sampling, a network's configuration, a slip."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len([name for name in names if name not in ("self", "cls")]) <= 9, node.name


def test_core_is_read_in_an_evening():
    lines = [line for path in (PACKAGE / "core").glob("*.py") for line in path.read_text().splitlines()]
    assert sum(bool(line.strip()) for line in lines) <= 1600


# --- the README


def test_readme_lists_the_lessons_there_are():
    listed = set(re.findall(r"\(lessons/(\d\d[a-z]?_\w+)\.ipynb\)", (ROOT / "README.md").read_text()))
    assert listed == {path.stem for path in (ROOT / "lessons").glob("[0-9]*.ipynb")}


def test_readme_links_resolve():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'(?:src|href)="([^"#]+)"', text)
    # From a repository's page on GitHub, ../../actions is where its workflows are shown.
    local = [t for t in targets if not re.match(r"[a-z]+:|\.\./\.\./actions/", t)]
    assert not [t for t in local if not (ROOT / t).exists()]


@pytest.fixture
def tree(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    return importlib.import_module("tree")


def test_readme_has_a_line_for_each_file(tree):
    """Names, in the rooms' order; `make tables` renews what stands beside them."""
    shown = re.search(r"<!-- tree -->\n```\n(.*?)```\n<!-- /tree -->", (ROOT / "README.md").read_text(), re.S)
    assert shown
    first = [line.split()[0] for line in shown[1].splitlines()]
    assert first == [line.split()[0] for line in tree.tree().splitlines()], "run `make tables`"
    there = {
        path.relative_to(PACKAGE).as_posix() for path in modules() if path.name not in ("__init__.py", "__main__.py")
    }
    glanced = {path for path in there if any(path.startswith(f"{folder}/") for folder in tree.AT_A_GLANCE)}
    assert len([name for name in first if name.endswith(".py")]) == len(there - glanced)
    assert [name.rstrip("/") for name in first if name.rstrip("/") in ROOMS] == [
        name for name in ROOMS if (PACKAGE / name).is_dir()
    ]


def test_readme_says_how_long_the_evening_is(tree):
    said = int(tree.COUNT.search((ROOT / "README.md").read_text())[0].replace(",", ""))
    assert said == pytest.approx(tree.evening(), rel=0.05)


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_pages_show_the_measured_figures(benchmarks):
    import tables

    for page in tables.PAGES:
        text = (ROOT / page).read_text()
        assert tables.SECTION.search(text) and text == tables.filled(text), f"{page}: run `make tables`"


def test_the_throughput_table_is_made_of_its_figures(benchmarks):
    import tables
    import throughput

    found = json.loads((tables.RESULTS / "throughput.json").read_text())
    assert (tables.RESULTS / "throughput.md").read_text() == throughput.markdown(found)
