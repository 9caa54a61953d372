"""The checks of the exercises: right answers pass, each typical mistake is named, and whatever else a learner's
function may do gets a message of its own."""

import functools
import importlib.util
import time
from fractions import Fraction

import mutation
import numpy as np
import pytest
import seeds
import torch

from minivdm.course import checks
from minivdm.course.checks.harness import Case, Check, CheckFailed, Unfinished, Wrong, counting

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
def test_the_right_answer_passes(assignment, name, seed):
    check = check_named(assignment, name)
    assert len(check.compare(check._right, seed)) >= 3


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_the_official_solutions_pass_with_other_seeds(assignment):
    assert not list(seeds.refusals(assignment, [*range(4), 42, 43]))  # tests/course/seeds.py --seeds 50 tries more


@every_check
def test_each_typical_mistake_is_refused_and_named(assignment, name):
    check = check_named(assignment, name)
    assert len(check.wrong) >= 3
    assert len({wrong.says for wrong in check.wrong}) == len(check.wrong)
    for wrong in check.wrong:
        for seed in (0, 1):
            with pytest.raises(CheckFailed) as caught:
                check.compare(wrong.answer, seed)
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


def test_an_answer_that_calls_the_right_one_is_refused(half):
    check = check_named("06_samplers", "ddim_step")
    right = check._right
    borrowed = (
        right,
        functools.partial(right),
        torch.no_grad()(right),
        lambda *a: right(*a),
        lambda *a: checks.samplers.ddim._ddim(*a),
        lambda *a: next(map(right, *([x] for x in a))),
    )
    for answer in borrowed:
        assert failure(check, answer).kind == "borrowed"

    def quiet(*arguments):
        try:
            return right(*arguments)
        except Exception:
            return arguments[0]

    assert failure(check, quiet).kind == "borrowed"
    assert not any(value is right for name in dir(check) if name[0] != "_" for value in [getattr(check, name)])


def test_asking_another_check_does_not_help(half):
    check = check_named("06_samplers", "ddim_step")
    assert failure(half, lambda x: check(lambda *a: a[0])).kind == "borrowed"


def test_single_precision_is_right():
    root = Check("root", lambda x: x * 2**0.5, _cases, [])
    root(lambda x: x * torch.sqrt(torch.tensor(2.0)))
    exact = Check("root", lambda x: x * 2**0.5, _cases, [], relative=1e-9)
    found = failure(exact, lambda x: x * torch.sqrt(torch.tensor(2.0)))
    assert "7 digits agree" in str(found) and "torch.tensor(0.1)" in str(found)


def test_the_numbers_shown_are_those_that_differ_most():
    table = Check("table", lambda n: torch.zeros(4, 5).double(), lambda seed: [Case("0", (0,))], [])

    def answer(n):
        wrong = torch.zeros(4, 5).double()
        wrong[2, 3], wrong[1, 1] = 7, 1
        return wrong

    assert "2 of 20 values differ, most at index (2, 3): expected 0, got 7 there" in str(failure(table, answer))
    mask = Check("mask", lambda n: torch.ones(3, 3).bool(), lambda seed: [Case("0", (0,))], [])
    assert "most at index (0, 1): expected True, got False" in str(failure(mask, lambda n: torch.ones(3, 3).tril() > 0))


@pytest.mark.parametrize("draw", [torch.randn_like, lambda x: torch.as_tensor(np.random.default_rng().random(4)).to(x)])
def test_an_answer_that_draws_its_own_noise_is_told_so(half, draw):
    found = failure(half, lambda x: x / 2 + draw(x))
    assert found.kind == "random" and "twice" in str(found)


def test_results_can_be_asked_to_be_new_and_without_a_graph():
    weight = torch.ones(4, requires_grad=True)
    same = Check("same", lambda x: x.clone(), _cases, [], new=True, detached=True)
    same(lambda x: x + 0)
    assert failure(same, lambda x: x).kind == "not new"
    assert failure(same, lambda x: x[:]).kind == "not new"
    assert failure(same, lambda x: x * weight.to(x)).kind == "graph"


def test_gradients_that_are_left_switched_on_in_an_input(half):
    def careless(x):
        return x.requires_grad_() / 2

    found = failure(half, careless)
    assert found.kind == "changed its input" and "leaf of your own" in str(found)


def test_calls_are_counted():
    def cases(seed):
        yield Case("a function", (lambda x: x + 1, torch.ones(2).double()))

    once = Check("once", lambda f, x: f(x), cases, [], probe=counting)
    once(lambda f, x: f(x))
    assert "calls of its first argument: expected 1, got 2" in str(failure(once, lambda f, x: (f(x), f(x))[1]))


def test_exact_numbers_are_numbers():
    third = Check("third", lambda n: 1 / n, lambda seed: [Case("3", (3,))], [])
    third(lambda n: Fraction(1, n))


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
