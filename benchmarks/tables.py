"""Put the measured tables into README and CONTRIBUTING.

    python benchmarks/tables.py

Between `<!-- begin NAME -->` and `<!-- end NAME -->` they show benchmarks/results/NAME.md, which the
benchmark of that name writes beside its figures. A test fails where the two differ.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md")
RESULTS = ROOT / "benchmarks" / "results"
SECTION = re.compile(r"(<!-- begin ([\w-]+) -->\n).*?(<!-- end \2 -->)", re.S)


def filled(text: str) -> str:
    """The same text, with every section replaced by its results."""
    return SECTION.sub(lambda m: m[1] + (RESULTS / f"{m[2]}.md").read_text() + m[3], text)


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
