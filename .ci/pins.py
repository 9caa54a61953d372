"""Write constraints.txt: the exact version of everything that `make setup` installs.

    python .ci/pins.py [--keep OLD.txt] MAIN_PYTHON [OTHER_PYTHON ...]

pip resolves the project, all its extras and `torch==` below for MAIN_PYTHON (within OLD.txt, if one is given);
those versions are then kept for the other interpreters wherever they can run them. A package that differs gets one
line per version, with the Python it is for. Nothing is installed. Run it with CPU-only indexes set up for pip,
or with any: the constraints name no build of torch.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"
#: Needed on one system only, so that a resolution on Linux doesn't see them.
ELSEWHERE = {
    "appnope": 'sys_platform == "darwin"',
    "colorama": 'sys_platform == "win32"',
    "pywinpty": 'sys_platform == "win32"',
}
#: Come with a GPU build of torch, which fixes their versions itself.
GPU = re.compile(r"nvidia-|cuda-|triton$")
HEADER = """\
# The versions that the tests ran with: `make setup` installs exactly these.
# Made by .ci/pins.py; CONTRIBUTING.md says how. Libraries that a GPU build of torch brings along are fixed by torch.
"""


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    every = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    return [r for r in every if not re.match(r"torch\b(?!m)", r)] + [f"torch=={TORCH}"]


def resolve(python: str, pins: list[str]) -> dict[str, tuple[str, str]]:
    """{name: (version, Requires-Python)} of the closure on that interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report, venv = (Path(folder) / name for name in ("c.txt", "report.json", "venv"))
        constraints.write_text("\n".join(pins))
        subprocess.run([python, "-m", "venv", venv], check=True)
        pip = [venv / "bin" / "python", "-m", "pip"]
        subprocess.run([*pip, "install", "-q", "--upgrade", "pip"], check=True)
        subprocess.run(
            [
                *pip,
                "install",
                "-q",
                "--dry-run",
                "--ignore-installed",
                "--only-binary=:all:",
                "--report",
                report,
                "-c",
                constraints,
                *requirements(),
            ],
            check=True,
        )
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {
        re.sub(r"[-_.]+", "-", m["name"]).lower(): (m["version"].split("+")[0], m.get("requires_python", ""))
        for m in found
    }


def oldest(requires_python: str) -> Version:
    """The first Python that a Requires-Python admits."""
    bounds = [Version(s.version.replace(".*", "")) for s in SpecifierSet(requires_python) if s.operator in (">=", "~=")]
    return max(bounds, default=Version("3"))


def newest(name: str) -> str:
    said = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", name], check=True, capture_output=True, text=True
    ).stdout
    return said.split("(")[1].split(")")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="constraints to stay within")
    parser.add_argument("pythons", nargs="+")
    args = parser.parse_args()
    kept = args.keep.read_text().splitlines() if args.keep else []
    first = resolve(args.pythons[0], kept)
    pins = [f'{name}=={version} ; python_full_version >= "{oldest(needs)}"' for name, (version, needs) in first.items()]
    versions: dict[str, dict[str, str]] = {name: {version: needs} for name, (version, needs) in first.items()}
    for python in args.pythons[1:]:
        for name, (version, needs) in resolve(python, pins).items():
            versions.setdefault(name, {})[version] = needs

    lines = [f"{name}=={newest(name)} ; {marker}" for name, marker in ELSEWHERE.items() if name not in versions]
    for name, found in versions.items():
        if GPU.match(name):
            continue
        ordered = sorted(found, key=Version)
        for version, following in zip(ordered, [*ordered[1:], None], strict=True):
            bounds = []
            if version != ordered[0]:
                bounds.append(f'python_full_version >= "{oldest(found[version])}"')
            if following:
                bounds.append(f'python_full_version < "{oldest(found[following])}"')
            marker = " and ".join(bounds)
            lines.append(f"{name}=={version}" + (f" ; {Marker(marker)}" if marker else ""))
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(sorted(lines)) + "\n")


if __name__ == "__main__":
    main()
