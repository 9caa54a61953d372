"""The rows of lesson 17's table: each arm changes one thing, of equal size where it says so, and fits its time."""

import importlib.util
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rows(monkeypatch):
    """The script, under another name: `transformers` is also a package that others look for."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("latent_transformers", ROOT / "benchmarks" / "transformers.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "latent_transformers", module)
    spec.loader.exec_module(module)
    return module


def test_separate_adaln_has_as_many_parameters_in_narrower_blocks(rows):
    def parameters(arm):
        return sum(p.numel() for p in rows.build(arm, 128, 6).parameters())

    arms = rows.arms()
    lora, separate = arms[rows.BASE], arms["separate AdaLN, as many parameters"]
    assert parameters(separate) == pytest.approx(parameters(lora), rel=0.03)  # widths come in steps of 4
    assert separate.network["width"] < 128 and separate.network["modulation"] == "separate"


def test_every_other_arm_changes_one_thing(rows):
    base, *others = rows.arms().values()
    for arm in others:
        changed = [name for name in arm._fields if getattr(arm, name) != getattr(base, name)]
        # What is told in training needs a network that takes it.
        assert len(changed) == 1 or set(changed) <= {"network", "self_conditioning", "prediction"}, changed


def test_an_update_learns_and_units_go_both_ways(rows):
    generator = torch.Generator().manual_seed(0)
    latents, labels = torch.randn(4, 8, 5, 8, 8, generator=generator), torch.eye(10)[:4]
    data = rows.Data(latents, labels, latents, labels, torch.zeros(2, 64))
    args = Namespace(batch=2, width=16, depth=2, lr=1e-3)
    training = rows.Training(rows.Arm(normalised=False), 0, data, args)
    assert torch.allclose(training.normalised(training.units(latents)), latents, atol=1e-5)
    assert training.units(latents).std() < 0.5 * latents.std()  # the tokenizer's own scale is about 0.3
    before = training.held_out()
    assert training.run(2, 1e-3, time.time() + 60) and training.held_out() != before
    assert not training.run(2, 1e-3, time.time() - 1)


def test_updates_are_as_many_as_fit(rows):
    seconds = {"a": 0.01, "b": 0.03}
    now = rows.fitting(time.time() + 100, 2.0, seconds, [[0, 2], [1]])
    assert now == pytest.approx(85 / (2 * 0.04 * 2) - 30, abs=1)
    assert rows.fitting(time.time() - 5, 1.0, seconds, [[0]]) == 10
