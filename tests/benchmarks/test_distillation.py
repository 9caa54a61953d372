"""The pure parts of benchmarks/distillation.py: parts that are kept, and what ratios say."""

from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import distillation

    return distillation


def cells(bench, **values):
    """Rows whose two distances have these bootstrap draws' mean, and a spread of 0.01."""
    from bootstrap import DRAWS

    spread = 0.01 * torch.randn(DRAWS, generator=torch.Generator().manual_seed(0))
    metric = lambda value: {"estimate": value, "draws": (value + spread).tolist()}  # noqa: E731
    return {name: {"metrics": {"frames": metric(value), "clips": metric(value)}} for name, value in values.items()}


def named(bench, few, many=1.0):
    return {
        ("few-8" if name == "few" else bench.LONGEST): row for name, row in cells(bench, few=few, many=many).items()
    }


@pytest.mark.parametrize(
    ("few", "says"), [(1.0, "at most 5 % above"), (1.2, "more than 5 % above"), (1.05, "do not decide")]
)
def test_the_verdict_follows_the_intervals(bench, few, says):
    assert says in bench.verdict(bench.ratios(named(bench, few), bench.LONGEST))


def test_ratios_are_paired(bench):
    """The same draws in both: a ratio of equal distances has no spread."""
    [frames, clips] = bench.ratios(named(bench, 1.0), bench.LONGEST)
    assert frames["interval"] == clips["interval"] == [1.0, 1.0]


def test_without_the_longest_walk_there_is_no_verdict(bench):
    rows = named(bench, 1.0)
    del rows[bench.LONGEST]
    assert bench.ratios(rows, bench.LONGEST) == [] and "Not yet measured" in bench.verdict([])


def test_a_larger_measurement_takes_over_the_parts_that_are_there(bench, monkeypatch, tmp_path):
    asked = []

    def made(row, path, start, *, seed, device):
        asked.append(start)
        return torch.full((bench.kept.PART, 1, 2, 4, 4), start / 64 * 0.5 - 1), 32.0

    monkeypatch.setattr(bench, "made", made)
    monkeypatch.setattr(bench.pretrained, "card", lambda name, folder: {"sha256": "0" * 64})
    small, seconds = bench.clips_of("few-8", 64, 0, tmp_path, Path("few-8.safetensors"), torch.device("cpu"))
    large, _ = bench.clips_of("few-8", 128, 0, tmp_path, Path("few-8.safetensors"), torch.device("cpu"))
    assert asked == [0, 64] and seconds == 0.5
    assert large[:64].equal(small) and float(large[64:].mean()) == pytest.approx(-0.5, abs=1 / 127)


def test_pixels_survive_being_kept(bench):
    values = torch.linspace(-1, 1, 256)
    back = bench.kept.as_bytes(values).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(back, values.numpy(), atol=1e-6)


def test_a_student_that_is_nowhere_is_left_out(bench, tmp_path):
    assert bench.found_in("few-3", None) is None and bench.found_in("few-3", tmp_path) is None
    assert bench.found_in(bench.TEACHER, None).name == f"{bench.TEACHER}.safetensors"
