"""Whatever is put in the place of one argument: a named error, or a result without NaN. Never one from inside torch.

A few hundred calls by default, the same ones every time; MINIVDM_ATTACK=20000 tries that many, at random.
"""

import os

import pytest
from bad_arguments import outcome, replacements
from functions import cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CASES = cases()
TRIES = int(os.environ.get("MINIVDM_ATTACK", "0"))

#: What comes out although nobody could mean it, and why: (case, argument, replacement) by their beginnings.
EXPECTED = {
    ("LinearSchedule.sigma_slope", "t", ""): "infinite at t = 0, as t_min says",
    ("LinearSchedule.log_snr", "t", ""): "infinite at t = 0, as t_min says",
    ("SubVPSchedule.log_snr", "t", ""): "infinite at t = 0, as t_min says",
    ("FlowSchedule.", "t", ""): "infinite at both ends, as t_min and t_max say",
    ("annealed_langevin", "step_size", "1e10"): "diverges, as any explicit step of such a size",
    ("UNet3D", "multipliers", "a list of 99"): "a network of 792 channels: slow, but meant",
}


def is_expected(name: str, argument: str, kind: str) -> bool:
    return any(name.startswith(n) and argument == a and kind.startswith(k) for n, a, k in EXPECTED)


@st.composite
def calls(draw):
    case = draw(st.sampled_from(CASES))
    argument = draw(st.sampled_from(sorted(case.arguments)))
    kind, value = draw(st.sampled_from(list(replacements(case.arguments[argument]))))
    return case, argument, kind, value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_calls_that_are_attacked_are_right(case):
    case.function(**case.arguments)


@settings(
    max_examples=TRIES or 400,
    deadline=None,
    derandomize=not TRIES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(calls())
def test_one_wrong_argument_is_named_or_harmless(call):
    case, argument, kind, value = call
    if is_expected(case.name, argument, kind):
        return
    assert outcome(case, argument, value) is None, f"{case.name}({argument}={kind})"
