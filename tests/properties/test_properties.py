"""Whatever is put in the place of one argument: a named error, or a result that can be relied on.

A few hundred calls by default, the same ones every time; `make attack` tries all of them, and MINIVDM_ATTACK=20000 that
many at random.
"""

import os

import functions
import functions_beside
import pytest
import torch
from bad_arguments import EXPECTED, FAULTS, calls, is_expected, outcome, replacements, verdict
from functions import Case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CASES = [*functions.cases(), *functions_beside.cases()]
#: These write files, train or sample for longer: their wrong calls are left to `make attack`.
SLOW = ("fit.", "record", "export", "held_out", "log_likelihood")
TRIES = int(os.environ.get("MINIVDM_ATTACK", "0"))


@st.composite
def wrong_calls(draw):
    case = draw(st.sampled_from([case for case in CASES if not case.name.startswith(SLOW)]))
    argument = draw(st.sampled_from(sorted(case.arguments)))
    kind, value = draw(st.sampled_from(list(replacements(case.arguments[argument]))))
    return case, argument, kind, value


@pytest.mark.parametrize("case", [case for case in CASES if not case.name.startswith(SLOW)], ids=lambda case: case.name)
def test_the_calls_that_are_attacked_are_right(case):
    case.function(**case.arguments)


@settings(
    max_examples=TRIES or 400,
    deadline=None,
    derandomize=not TRIES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(wrong_calls())
def test_one_wrong_argument_is_named_or_harmless(call):
    case, argument, kind, value = call
    if is_expected(case.name, argument, kind):
        return
    assert outcome(case, argument, value) is None, f"{case.name}({argument}={kind})"


def test_every_exception_is_about_a_function_that_there_is():
    for name, argument, _ in EXPECTED:
        found = [case for case in CASES if case.name.startswith(name)]
        assert found and any(a.startswith(argument) for case in found for a in case.arguments), (name, argument)


# ---- the faults are seen ----------------------------------------------------------------------------------------


def careless(x, y, n=2):
    """What a function without a look at its arguments does."""
    return (x + y) / n


FAULTY = {
    "internal": ("n", "seven"),
    "NaN": ("n", 0.0),
    "integers": ("y", torch.zeros(3, 2, dtype=torch.uint8)),
    "broadcast": ("y", torch.zeros(1, 2)),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_a_fault_is_seen(kind):
    name, value = FAULTY[kind]
    case = Case("careless", careless, {"x": torch.ones(3, 2), "y": torch.ones(3, 2), "n": 2})
    assert verdict(case, name, value).kind == kind and kind in FAULTS
    assert outcome(case, "n", 4) is None


def test_defaults_are_no_wrong_arguments():
    case = Case("careless", careless, {"x": torch.ones(3, 2), "y": torch.ones(3, 2), "n": 3})
    assert all(value != 2 for argument, _, value in calls(case) if argument == "n" and isinstance(value, int))
