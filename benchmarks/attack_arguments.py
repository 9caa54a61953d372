"""Bad inputs to every public function: one argument at a time is replaced by what cannot be meant.

The functions, with arguments that are right, and what is put in their place stand in tests/properties. `attack.py` runs
this; a few hundred of the calls are a test.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from attack_runs import TimeUp
from attacked_run import forked

PROPERTIES = Path(__file__).resolve().parent.parent / "tests" / "properties"
#: A call that does not come back after so many seconds is ended from outside; the calls' own limit counts CPU time.
STUCK = 180


def load() -> tuple[Any, list[Any]]:
    """The module of bad arguments and all cases."""
    sys.path.insert(0, str(PROPERTIES))
    import bad_arguments
    import functions
    import functions_beside

    return bad_arguments, [*functions.cases(), *functions_beside.cases()]


def run(scratch: Path, seed: int, time_up: TimeUp) -> dict[str, Any]:
    """Counts by verdict, and a line for every fault; the calls run in a process of their own, in random order.

    The result has "of" (how many calls there are), "tried", "functions", "counts", "reasons" (how often each exception
    was met) and "failed".
    """
    answers = scratch / "answers.jsonl"
    answers.touch()

    def attacked() -> int:
        tempfile.tempdir = str(scratch)  # what the functions write
        os.chdir(scratch)
        torch.set_num_threads(1)
        _child(answers, seed)
        return 0

    child = forked(attacked)
    size, changed = 0, time.monotonic()
    stopped = False
    while not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.2)
        if answers.stat().st_size != size:
            size, changed = answers.stat().st_size, time.monotonic()
        stuck = time.monotonic() - changed > STUCK
        if stuck or (size and time_up()):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            stopped = not stuck
            break
    return _counted([json.loads(line) for line in answers.read_text().splitlines() if line.endswith("]")], stopped)


def _child(answers: Path, seed: int) -> None:
    bad, cases = load()
    every = [(case, *call) for case in cases for call in bad.calls(case)]
    random.Random(seed).shuffle(every)
    with answers.open("w", buffering=1) as out:
        out.write(json.dumps([len(every), len(cases)]) + "\n")
        for case, argument, kind, value in every:
            out.write(json.dumps([case.name, argument, kind]) + "\n")  # before, should it not come back
            verdict = bad.verdict(case, argument, value)
            expected = bad.is_expected(case.name, argument, kind) if verdict.kind in bad.FAULTS else ""
            named = verdict.kind == "named" and argument in verdict.said
            out.write(json.dumps([verdict.kind, verdict.said, expected, named]) + "\n")
        out.write(json.dumps([]) + "\n")


def _counted(lines: list[list[Any]], stopped: bool) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    failed: list[str] = []
    if not lines:
        raise RuntimeError("the calls could not be prepared; tests/properties says why")
    (of, functions), lines = lines[0], lines[1:]
    finished = bool(lines) and lines[-1] == []
    for call, answer in zip(lines[::2], lines[1::2], strict=False):
        kind, said, expected, named = answer
        counts["with its name" if named else "x"] += 1
        if expected:
            reasons[f"`{call[0]}({call[1]}={call[2]})`: {expected}"] += 1
        counts["exception" if expected else kind] += 1
        if kind not in ("named", "returned") and not expected:
            failed.append(f"{call[0]}({call[1]}={call[2]}): {kind}, {said}")
    if not finished and not stopped:
        failed.append(f"{lines[-1]}: did not come back, or ended the process")
    del counts["x"]
    tried = sum(n for key, n in counts.items() if key != "with its name")
    return {"of": of, "functions": functions, "tried": tried, "counts": dict(counts), "reasons": dict(reasons),
            "failed": failed}  # fmt: skip
