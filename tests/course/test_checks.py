"""The checks of the exercises: right answers pass, each typical mistake is named, and whatever else a learner's
function may do gets a message of its own."""

import importlib.util
import time

import mutation
import numpy as np
import pytest
import torch

from minivdm.course import checks
from minivdm.course.checks.harness import Case, Check, CheckFailed, Unfinished, Wrong

ASSIGNMENTS = [
    name for name, module in checks.MODULES.items() if importlib.util.find_spec(f"minivdm.course.checks.{module}")
]
CHECKS = [(assignment, name) for assignment in ASSIGNMENTS for name in checks.checks_of(assignment)]
every_check = pytest.mark.parametrize(("assignment", "name"), CHECKS, ids=lambda part: part)


def check_named(assignment: str, name: str) -> Check:
    return checks.checks_of(assignment)[name]


def failure(check: Check, answer) -> CheckFailed:
    with pytest.raises(CheckFailed) as caught:
        check(answer)
    return caught.value


# ---- every check ---------------------------------------------------------------------------------------------


@every_check
@pytest.mark.parametrize("seed", [0, 1, 12])
def test_the_right_answer_passes(assignment, name, seed, capsys):
    check = check_named(assignment, name)
    check(check.right, seed=seed)
    assert capsys.readouterr().out.startswith(f"✓ {check.name} is right")


@every_check
def test_each_typical_mistake_is_refused_and_named(assignment, name):
    check = check_named(assignment, name)
    assert len(check.wrong) >= 3
    assert len({wrong.says for wrong in check.wrong}) == len(check.wrong)
    for wrong in check.wrong:
        for seed in (0, 1):
            with pytest.raises(CheckFailed) as caught:
                check(wrong.answer, seed=seed)
            assert caught.value.kind == "named", wrong.says
            assert wrong.says in str(caught.value)


@every_check
def test_a_stub_is_not_a_wrong_answer(assignment, name):
    def stub(*arguments, **options):
        raise NotImplementedError()

    found = failure(check_named(assignment, name), stub)
    assert isinstance(found, Unfinished)


@every_check
def test_nothing_is_no_answer(assignment, name):
    found = failure(check_named(assignment, name), lambda *arguments, **options: None)
    assert not isinstance(found, Unfinished)


@every_check
def test_changes_to_the_solution_are_noticed(assignment, name):
    tried, passed = mutation.survivors(assignment, name)
    assert tried >= 2
    allowed = mutation.EQUIVALENT.get(f"{assignment} {name}", {})
    assert sorted(set(passed)) == sorted(allowed), "survivors that are not known to be equivalent, or the other way"


# ---- what a learner's function may do ------------------------------------------------------------------------


def _cases(seed):
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        yield Case(name, (torch.arange(1.0, 5.0, dtype=dtype) + seed,))


@pytest.fixture
def half():
    return Check(
        "half",
        lambda x: x / 2,
        _cases,
        [
            Wrong(lambda x: x * 2, "you double it"),
            Wrong(lambda x: x.sum(), "you add it up"),
            Wrong(lambda x: 1 / (x - x), "you divide by 0"),
        ],
        seconds=0.5,
    )


def test_a_value_is_compared_in_numbers(half):
    found = failure(half, lambda x: x / 2 + 1)
    assert found.kind == "value"
    assert "expected [0.5, 1, 1.5, 2]" in str(found) and "got [1.5, 2, 2.5, 3]" in str(found)


def test_says_which_inputs_were_right(half):
    found = failure(half, lambda x: x / 2 if x.dtype == torch.float64 else x)
    assert 'on the input "float32"; right on: float64' in str(found)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda x: None, "nothing", "returned None"),
        (lambda x: (x / 2)[:2], "shape", "expected shape (4,), got (2,)"),
        (lambda x: (x / 2).float(), "dtype", "expected torch.float64, got torch.float32"),
        (lambda x: (x / 2).double(), "dtype", "float64"),
        (lambda x: (x / 2).numpy(), "numpy", "NumPy"),
        (lambda x: x * float("nan"), "not finite", "NaN"),
        (lambda x: x / 2 + x.undefined, "raised", "AttributeError"),
        (lambda x: "half", "type", "a str"),
        (lambda x: [x], "type", "a list"),
        (3, "not a function", "a int"),
    ],
)
def test_each_bad_answer_has_its_own_message(half, answer, kind, words):
    found = failure(half, answer)
    assert found.kind == kind
    assert words in str(found)
    assert not isinstance(found, Unfinished)


def test_an_input_that_was_changed(half):
    def changes(x):
        x /= 2
        return x

    assert failure(half, changes).kind == "changed its input"


def test_an_error_is_shown_with_its_line(half):
    def broken(x):
        y = x / 2
        return y + torch.ones(3)

    found = failure(half, broken)
    assert "RuntimeError" in str(found) and "return y + torch.ones(3)" in str(found)


@pytest.mark.parametrize("wait", [lambda: None, lambda: time.sleep(60)], ids=["loop", "sleep"])
def test_an_answer_that_never_ends(half, wait):
    def endless(x):
        while True:
            wait()

    found = failure(half, endless)
    assert found.kind == "time"
    assert "0.5 seconds" in str(found)


def test_a_mistake_that_is_a_wrong_shape_or_not_finite_is_named_too(half):
    assert "you add it up" in str(failure(half, lambda x: x.sum()))
    assert "you divide by 0" in str(failure(half, lambda x: 1 / (x - x)))


def test_tuples_numbers_and_lists_are_compared_part_by_part():
    check = Check("parts", lambda n: ([n, n + 1], float(n), torch.tensor(2.0)), lambda seed: [Case("3", (3,))], [])
    check(lambda n: ((3, 4), 3, 2.0))
    assert "result 1, item 2: expected 4, got 5" in str(failure(check, lambda n: ([3, 5], 3.0, torch.tensor(2.0))))
    assert "result 2: expected 3, got 4" in str(failure(check, lambda n: ([3, 4], 4.0, torch.tensor(2.0))))
    assert failure(check, lambda n: ([3], 3.0, torch.tensor(2.0))).kind == "shape"
    assert failure(check, lambda n: (np.array([3, 4]), 3.0, torch.tensor(2.0))).kind == "numpy"


def test_a_function_that_seeds_globally_leaves_no_trace(half):
    before = torch.get_rng_state()
    half(lambda x: (torch.manual_seed(3), torch.rand(2), x / 2)[-1])
    assert torch.equal(before, torch.get_rng_state())


def test_a_notebook_shows_the_message_alone(half):
    found = failure(half, lambda x: x)
    assert found._render_traceback_() == [f"CheckFailed: {found}"]


def test_an_unknown_assignment_is_named():
    with pytest.raises(ValueError, match="06_samplers"):
        checks.checks_of("99_nothing")
