"""Do the versions that pyproject.toml allows work? The oldest, and the newest, in environments of their own.

    make bounds                                    the lower bounds, then the newest versions
    make bounds ARGS="--only lowest-direct"        one of the two (the other is `highest`)
    make bounds ARGS="--tests tests/core -- -x"    other tests; what follows -- goes to pytest

The environments lie in build/bounds-*. A bound that does not hold is raised in pyproject.toml and environment.yml.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Rooms whose tests need nothing but the package, its extras course and data, and the tools below.
TESTS = ["tests/core", "tests/networks", "tests/exact", "tests/data", "tests/measure", "tests/tasks", "tests/training",
         "tests/cli", "tests/properties", "tests/test_api.py"]  # fmt: skip
TOOLS = ["pytest", "hypothesis", "scikit-image", "torchmetrics"]  # diffusers would need a torch of its own age
SHOWN = ("torch", "numpy", "einops", "safetensors", "tqdm", "pillow", "scipy", "matplotlib", "av")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("lowest-direct", "highest"), help="which end; both if not given")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH")
    parser.add_argument("pytest", nargs="*", help="options of pytest, after --")
    args = parser.parse_args()
    return max([tried(end, args.tests, args.pytest) for end in ([args.only] if args.only else list(ENDS))])


#: End of the allowed versions -> options of uv.
ENDS = {"lowest-direct": ["--resolution", "lowest-direct"], "highest": ["--resolution", "highest", "--upgrade"]}


def tried(end: str, tests: list[str], options: list[str]) -> int:
    """The exit status of the tests with these versions."""
    folder = ROOT / "build" / f"bounds-{end}"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    uv = [sys.executable, "-m", "uv"]
    if not python.exists():
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    install = [*uv, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, *ENDS[end], "--editable", ".[course,data]"], cwd=ROOT, check=True)
    subprocess.run([*install, *TOOLS], cwd=ROOT, check=True)  # any version that goes with these
    print(f"== {end}: " + ", ".join(f"{name} {version(python, name)}" for name in SHOWN), flush=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return subprocess.run([python, "-m", "pytest", "-q", *tests, *options], cwd=ROOT, env=env).returncode


def version(python: Path, name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
