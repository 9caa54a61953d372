"""Packs what students get, from the files as they stand now: all but solutions, tests and what only instructors need.

python .ci/students.py [--without-exercises]         writes dist/minivdm-students.zip
"""

from __future__ import annotations

import argparse
import re
import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Folders and files that stay with the instructor. Tests and benchmarks' results contain answers.
KEPT_BACK = ("solutions/", "tests/", ".ci/", "nbgrader_config.py", "CONTRIBUTING.md")
#: Said in the map of symbols and equations, which names a test for each row.
WITHOUT_TESTS = "The tests in the last column are the instructor's: this copy does not have them."
LINK = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def tracked(root: Path) -> list[str]:
    """Files that git knows, or would not ignore, as they lie in the working tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in set(listed.split("\0")) if name and (root / name).is_file())


def without_dead_links(text: str, folder: Path, there: set[str], root: Path) -> str:
    """Markdown whose links to files that are not handed out have become plain text."""

    def kept(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        if not target.is_relative_to(root):
            return match[0]
        name = target.relative_to(root).as_posix()
        return match[0] if name in there or any(other.startswith(f"{name}/") for other in there) else match[1]

    return LINK.sub(kept, text)


def pack(root: Path, out: Path, exercises: bool = True) -> list[str]:
    """Writes the zip; returns the names in it."""
    back = KEPT_BACK if exercises else (*KEPT_BACK, "exercises/")
    names = [name for name in tracked(root) if not name.startswith(back)]
    out.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            data = (root / name).read_bytes()
            if name.endswith(".md"):
                text = without_dead_links(data.decode(), (root / name).parent, set(names), root)
                if name == "lessons/notation.md":
                    text = text.replace("\n## ", f"\n{WITHOUT_TESTS}\n\n## ", 1)
                data = text.encode()
            archive.writestr(f"minivdm/{name}", data)
    return names


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-exercises", action="store_true", help="where students fetch them from the exchange")
    options = parser.parse_args()
    out = ROOT / "dist" / "minivdm-students.zip"
    names = pack(ROOT, out, not options.without_exercises)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT).returncode
    print(f"{out.relative_to(ROOT)}: {len(names)} files" + (", some with changes not committed" if changed else ""))


if __name__ == "__main__":
    main()
