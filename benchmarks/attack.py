"""Everything that can go wrong, tried: kills, a full disk, damage, two processes, bad command lines, bad inputs.

    make attack                                     (12 minutes of one core; writes benchmarks/results/attack.md)
    make attack ARGS="--minutes 60"                 (longer)
    make attack ARGS="--only commands --minutes 5"  (a part of it; the table keeps what it has of the others)

Each attack gets a share of the minutes and stops when it is used up; the table says how many of all there are were
tried. A training that was interrupted has to end as if nothing had happened (`attack_runs`), a command line that cannot
be meant has to be refused in one line without a trace (`attack_commands`), a bad argument has to be named or to do no
harm (`attack_arguments`). Whatever did not hold is listed below the table, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a process with other threads cannot be forked safely

import attack_arguments
import attack_commands
import attack_runs as runs
import torch
from attack_runs import Outcome, TimeUp
from attacked_run import NETWORK, differing, forked, left, train, wait

RESULTS = Path(__file__).resolve().parent / "results"
#: The share of the time that each attack gets; what is left over is the next one's.
SHARES = {"operations": 0.32, "random": 0.22, "full": 0.08, "two": 0.02, "damage": 0.1, "commands": 0.16,
          "arguments": 0.1}  # fmt: skip


#: The parts that can be asked for, and their attacks.
PARTS = {"runs": ("operations", "random", "full", "two", "damage"), "commands": ("commands",), "inputs": ("arguments",)}


class Clock:
    """Deadlines of the attacks, one after the other. minutes: None for as long as it takes. parts: between which the
    minutes are shared out."""

    def __init__(self, minutes: float | None, parts: Sequence[str] = tuple(PARTS)) -> None:
        self.seconds, self.used, self.began = minutes and 60 * minutes, 0.0, time.monotonic()
        self.whole = sum(SHARES[name] for part in parts for name in PARTS[part])

    def share(self, name: str) -> TimeUp:
        """Whether the time up to the end of this attack's share is up."""
        self.used += SHARES[name] / self.whole
        end = None if self.seconds is None else self.began + self.used * self.seconds
        return lambda: end is not None and time.monotonic() > end


def on_runs(scratch: Path, clock: Clock, places: int, draws: int, seed: int = 0) -> Iterator[Outcome]:
    """The attacks on a training. places: at how many file operations; draws: how many moments, rounds and damages.

    The undisturbed run stays in scratch/whole.
    """
    whole, chance = scratch / "whole", random.Random(seed)
    began = time.monotonic()
    assert wait(forked(lambda: train(whole, resume=False))) == 0, "the undisturbed run failed"
    seconds = time.monotonic() - began
    expected = left(whole)
    total = runs.count_operations(scratch / "counted")
    assert not differing(scratch / "counted", expected), "two undisturbed runs differ"
    numbers = chance.sample(range(1, total + 1), min(places, total))
    moments = [chance.random() for _ in range(draws)]
    yield runs.killed_at_operations(scratch, expected, numbers, clock.share("operations"))
    yield runs.killed_at_random(scratch, expected, seconds, moments, clock.share("random"))
    yield runs.stopped_by_signals(scratch, expected)
    yield runs.full_disk(scratch, expected, numbers[: max(1, draws)], clock.share("full"))
    yield runs.two_at_once(scratch, expected, max(1, draws // 5), clock.share("two"))
    bits = [chance.random() for _ in range(2 * draws)]
    yield runs.damaged(scratch, whole, expected, bits, clock.share("damage"))


def on_commands(scratch: Path, run: Path, time_up: TimeUp, seed: int = 0, most: int | None = None) -> Outcome:
    """Bad command lines, at most so many. run: a finished training."""
    material = attack_commands.prepare(scratch, run, NETWORK)
    home = scratch / "home"
    every = list(attack_commands.calls(material))
    random.Random(seed).shuffle(every)
    outcome = Outcome("a command line with something wrong", len(every))
    before = attack_commands.listing(home)
    for call in runs.before(time_up, every[:most]):
        result = attack_commands.carry_out(home, call.words)
        after = attack_commands.listing(home)
        shown = " ".join(repr(word) if len(word) < 60 else f"{word[:30]!r}..." for word in call.words)
        outcome.add(shown, attack_commands.problem(call, result, before, after))
        outcome.refused += result.status == 2
        if after != before:
            before = attack_commands.restore(home, before)
    return outcome


def markdown(found: dict[str, Any]) -> str:
    """The tables that CONTRIBUTING.md shows, of the parts that were tried."""
    parts = found["parts"]
    minutes, busy = (sum(part[key] for part in parts.values()) for key in ("minutes", "busy"))
    outcomes = [row for part in ("runs", "commands") if part in parts for row in parts[part]["outcomes"]]
    lines = [
        f"{minutes:.0f} minutes, of which {busy:.1f} on the processor (torch {found['torch']}, "
        f"Python {found['python']}).",
        "",
        "| attack | tried | of | held |",
        "|---|---:|---:|---:|",
    ]
    for row in outcomes:
        lines.append(f"| {row['name']} | {row['tried']:,} | {row['of']:,} | {row['tried'] - len(row['failed']):,} |")
    failed = [f"{row['name']}: {line}" for row in outcomes for line in row["failed"]]
    if "inputs" in parts:
        failed += parts["inputs"]["failed"]
        lines += _inputs(parts["inputs"])
    if "commands" in parts and not (row := parts["commands"]["outcomes"][0])["failed"]:
        lines += ["", f"{row['refused']:,} of the command lines were refused in one line and wrote nothing; the others "
                  "were carried out, and replaced no file without `--force`."]  # fmt: skip
    if failed:
        lines += ["", "What did not hold:", "", *(f"- {line[:300]}" for line in failed)]
    return "\n".join(lines) + "\n"


def _inputs(inputs: dict[str, Any]) -> list[str]:
    """A row of the first table, and the second one: what became of bad inputs."""
    counts = inputs["counts"]
    held = inputs["tried"] - len(inputs["failed"])
    what = f"a bad input to one of {inputs['functions']} calls of public functions"
    lines = [f"| {what} | {inputs['tried']:,} | {inputs['of']:,} | {held:,} |"]
    lines += ["", "| bad inputs | calls |", "|---|---:|"]
    words = {
        "named": "refused by a named error",
        "with its name": "&nbsp;&nbsp;of which the message has the argument's name",
        "internal": "an error from inside",
        "NaN": "NaN from clean input",
        "integers": "integers, bytes or complex numbers taken for data",
        "broadcast": "another shape taken in silence",
        "limit": "longer than 10 s",
        "returned": "accepted: another batch, size, number or precision that can be meant",
        "exception": "looks like one of the faults above, and is right (listed below)",
    }
    lines += [f"| {text} | {counts.get(key, 0):,} |" for key, text in words.items()]
    return lines + ["", *(f"- {reason} ({n}x)" for reason, n in sorted(_merged(inputs["reasons"]).items()))]


def _merged(reasons: dict[str, int]) -> dict[str, int]:
    """Reasons with the functions that they are about, whatever was put in the place of which argument."""
    merged: dict[str, tuple[set[str], int]] = {}
    for key, n in reasons.items():
        call, _, why = key.partition("`: ")
        names, count = merged.get(why, (set(), 0))
        merged[why] = (names | {call.strip("`").split("(")[0]}, count + n)
    return {f"{', '.join(f'`{name}`' for name in sorted(names))}: {why}": n for why, (names, n) in merged.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12, help="for all attacks together (default: 12)")
    parser.add_argument("--places", type=int, default=1000, help="at how many file operations (default: all)")
    parser.add_argument("--draws", type=int, default=100, help="random moments, and half the damages (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts of it (default: all)")
    args = parser.parse_args()
    clock, path = Clock(args.minutes, args.only), RESULTS / "attack.json"
    found: dict[str, Any] = {"parts": json.loads(path.read_text())["parts"] if path.exists() else {}}
    found |= {"torch": torch.__version__.partition("+")[0], "python": platform.python_version()}
    with tempfile.TemporaryDirectory() as scratch:
        for part in args.only:
            began, busy = time.monotonic(), sum(os.times()[:4])
            made = carry_out(part, Path(scratch), clock, args)
            spent = {"minutes": (time.monotonic() - began) / 60, "busy": (sum(os.times()[:4]) - busy) / 60}
            found["parts"][part] = {**made, **spent}
            path.write_text(json.dumps(found, indent=1) + "\n")  # should a later part be interrupted
            (RESULTS / "attack.md").write_text(markdown(found))
    failed = [line for part in args.only for line in failures(found["parts"][part])]
    print("\n".join(failed) or "everything held")
    return int(bool(failed))


def carry_out(part: str, scratch: Path, clock: Clock, args: argparse.Namespace) -> dict[str, Any]:
    """A part of the attacks, as it goes into the results."""
    if part == "inputs":
        inputs = attack_arguments.run(scratch, args.seed, clock.share("arguments"))
        print(f"bad inputs: {inputs['tried']} tried, {len(inputs['failed'])} failed", flush=True)
        return inputs
    outcomes = []
    if part == "runs":
        attacks = on_runs(scratch, clock, args.places, args.draws, args.seed)
    else:
        whole = scratch / "whole"
        if not whole.exists():
            assert wait(forked(lambda: train(whole, resume=False))) == 0, "the undisturbed run failed"
        attacks = iter([on_commands(scratch, whole, clock.share("commands"), args.seed)])
    for outcome in attacks:
        print(f"{outcome.name}: {outcome.tried} tried, {len(outcome.failed)} failed", flush=True)
        outcomes.append(vars(outcome))
    return {"outcomes": outcomes}


def failures(part: dict[str, Any]) -> list[str]:
    """All that did not hold."""
    return part.get("failed", []) + [line for row in part.get("outcomes", []) for line in row["failed"]]


if __name__ == "__main__":
    sys.exit(main())
