"""Write constraints.txt: the exact version of everything that `make setup` installs, on every Python and system.

    make pins                      what is new in pyproject.toml, and nothing else
    make pins ARGS=--upgrade       the newest versions that fit together

uv resolves the project with all its extras, for all systems and every Python from 3.10 at once; nothing is installed.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Come with a GPU build of torch, which fixes their versions itself; a CPU build has none of them.
GPU = re.compile(r"^(nvidia-|cuda-|triton\b)")
HEADER = """\
# The versions that the tests ran with: `make setup` installs exactly these. Made by `make pins`.
# Libraries that a GPU build of torch brings along are fixed by torch.
"""


def main() -> None:
    path = ROOT / "constraints.txt"
    words = ["--universal", "--python-version", "3.10", "--all-extras", "--no-annotate", "--no-header", "--quiet"]
    # What stands in the output file already is kept wherever it fits.
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "-o", path.name, *words, *sys.argv[1:]]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    path.write_text(HEADER + "\n".join(line for line in lines if not GPU.match(line)) + "\n")


if __name__ == "__main__":
    main()
