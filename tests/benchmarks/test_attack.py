"""A short attack on training, and on the command line. `make attack` is the long one."""

import dataclasses
import os
import threading

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork") or torch.cuda.is_available(), reason="forks a process that has torch"),
]


@pytest.fixture
def attack(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import attack

    torch.set_num_threads(1)  # threads do not survive a fork
    if threading.active_count() > 2:
        pytest.skip("another test's threads are running, and they do not survive a fork")
    return attack


@pytest.fixture
def whole(attack, tmp_path):
    attack.train(tmp_path / "run", resume=False)
    return tmp_path / "run"


def test_training_survives_a_short_attack(attack, tmp_path):
    outcomes = list(attack.on_runs(tmp_path, attack.Clock(None), places=4, draws=3, seed=1))
    assert [line for outcome in outcomes for line in outcome.failed] == []
    assert all(outcome.tried == outcome.of for outcome in outcomes)


def test_bad_command_lines_are_refused_in_one_line(attack, tmp_path, whole):
    outcome = attack.on_commands(tmp_path, whole, lambda: False, seed=1, most=40)
    assert outcome.failed == []
    assert outcome.refused > 20 and outcome.tried == 40 < outcome.of


def test_time_that_is_up_ends_an_attack(attack, tmp_path):
    outcome = attack.on_runs(tmp_path, attack.Clock(0), places=9, draws=3)
    assert next(outcome).tried == 1
    assert sum(attack.SHARES.values()) == pytest.approx(1)


def test_what_differs_is_seen(attack, whole):
    """The comparison that all attacks on runs rest on."""
    expected = attack.left(whole)
    assert attack.differing(whole, expected) == ""
    picture = next((whole / "previews").iterdir())
    picture.write_bytes(picture.read_bytes() + b"0")
    assert attack.differing(whole, expected) == "files"
    (whole / "checkpoints" / ".clips.0123456789ab.tmp").touch()
    assert attack.differing(whole, expected) == "files, unfinished"


@pytest.mark.parametrize(("lost", "allowed"), [("held_out", True), ("train", False)])
def test_a_measurement_may_be_missing_and_nothing_else(attack, tmp_path, monkeypatch, lost, allowed):
    rows = [{"kind": "train", "clips": 1}, {"kind": "held_out", "clips": 1}, {"kind": "train", "clips": 2}]
    left = [row for row in rows if row["kind"] != lost]
    monkeypatch.setattr(attack.runs, "left", lambda folder: {"rows": left})
    assert attack.runs.only_looks_are_missing(tmp_path, {"rows": rows}) == allowed
    left[0] = {**left[0], "clips": 3}
    assert not attack.runs.only_looks_are_missing(tmp_path, {"rows": rows})


REFUSED = "minivdm sample: CommandLineError: --steps: expected a whole number, got ''"


@pytest.mark.parametrize(
    ("status", "err", "made", "wanted", "problem"),
    [
        (2, REFUSED, {}, "refused", ""),
        (0, "", {"new.gif": 1}, "done", ""),
        (2, REFUSED, {"new.gif": 1}, "", "changed"),
        (0, "", {"taken.gif": 2}, "", "changed"),
        (2, REFUSED + "\nand another line", {}, "", "one line"),
        (2, "Traceback (most recent call last):\nKeyError", {}, "", "traceback"),
        (1, REFUSED, {}, "", "exit status 1"),
        (-24, "", {}, "", "signal 24"),
        (0, "", {}, "refused", "expected to be refused"),
        (2, REFUSED, {}, "done", "expected to be done"),
    ],
)
def test_a_bad_end_of_a_command_line_is_seen(attack, status, err, made, wanted, problem):
    commands = attack.attack_commands
    call, result = commands.Call(("sample", "--steps="), wanted), commands.Result(status, "", err)
    found = commands.problem(call, result, {"taken.gif": 1}, {"taken.gif": 1, **made})
    assert (found == "") == (problem == "") and problem in found


def test_every_option_of_every_command_is_attacked(attack, tmp_path, whole):
    calls = list(attack.attack_commands.calls(attack.attack_commands.prepare(tmp_path, whole, attack.NETWORK)))
    words = {word.partition("=")[0] for call in calls for word in call.words}
    for command in attack.attack_commands.CALLS:
        assert set(attack.attack_commands.options(command)) <= words
    assert len(calls) > 1500 and dataclasses.fields(attack.attack_commands.Recipe)


def test_verdicts_on_bad_inputs_are_counted(attack):
    lines = [
        [9, 2],
        ["f", "x", "None"], ["named", "x: expected a number", "", True],
        ["f", "x", "NaN"], ["NaN", "", "infinite, as it says", False],
        ["g", "y", "-1"], ["internal", "TypeError: no", "", False],
        ["g", "y", "1e10"],
    ]  # fmt: skip
    found = attack.attack_arguments._counted(lines, stopped=False)
    assert (found["of"], found["functions"], found["tried"]) == (9, 2, 3)
    assert found["counts"] == {"with its name": 1, "named": 1, "exception": 1, "internal": 1}
    assert [line.split(":")[0] for line in found["failed"]] == ["g(y=-1)", "['g', 'y', '1e10']"]
    assert len(attack.attack_arguments._counted(lines, stopped=True)["failed"]) == 1
    assert attack._merged(found["reasons"]) == {"`f`: infinite, as it says": 1}


def test_bad_inputs_are_tried_in_a_process_of_their_own(attack, tmp_path):
    found = attack.attack_arguments.run(tmp_path, 0, lambda: len((tmp_path / "answers.jsonl").read_bytes()) > 5000)
    assert found["failed"] == [] and 0 < found["tried"] < found["of"]
