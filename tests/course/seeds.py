"""The official solutions, as they stand in the notebooks, against their checks with many seeds.

python tests/course/seeds.py --seeds 50 [06_samplers ...]     lists the refusals; exits with 1 if there is one
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator, Sequence

import mutation

from minivdm.course.checks import MODULES, CheckFailed, checks_of


def refusals(assignment: str, seeds: Sequence[int]) -> Iterator[tuple[str, int, str]]:
    """(function, seed, message) wherever a check refuses the notebook's own solution."""
    setup, cells = mutation.solutions(assignment)
    space = mutation.namespace(setup)
    for name, check in checks_of(assignment).items():
        answer = mutation.defined(cells[name], name, space)
        for seed in seeds:
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    check(answer, seed=seed)
            except CheckFailed as error:
                yield name, seed, str(error)


def main() -> int:
    """Prints a line per assignment, and every refusal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("assignments", nargs="*", default=list(MODULES))
    parser.add_argument("--seeds", type=int, default=50, help="how many seeds, from 0")
    options = parser.parse_args()
    failed = 0
    for assignment in options.assignments or list(MODULES):
        found = list(refusals(assignment, range(options.seeds)))
        failed += len(found)
        print(f"{assignment}: {len(checks_of(assignment))} solutions, {options.seeds} seeds, {len(found)} refusals")
        for name, seed, message in found:
            print(f"  {name}, seed {seed}: {message}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
