"""A short attack on training: kills, signals, a full disk, two processes, damage. `make attack` is the long one."""

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
    return attack


def test_training_survives_a_short_attack(attack, tmp_path):
    if threading.active_count() > 2:
        pytest.skip("another test's threads are running, and they do not survive a fork")
    outcomes = list(attack.attack(tmp_path, places=5, draws=4, seed=1))
    assert [line for outcome in outcomes for line in outcome.failed] == []
    assert all(outcome.tried for outcome in outcomes)


def test_what_differs_is_seen(attack, tmp_path):
    """The comparison that all attacks rest on."""
    attack.train(tmp_path / "run", resume=False)
    expected = attack.left(tmp_path / "run")
    assert attack.differing(tmp_path / "run", expected) == ""
    picture = next((tmp_path / "run" / "previews").iterdir())
    picture.write_bytes(picture.read_bytes() + b"0")
    assert attack.differing(tmp_path / "run", expected) == "files"
    (tmp_path / "run" / "checkpoints" / ".clips.0123456789ab.tmp").touch()
    assert attack.differing(tmp_path / "run", expected) == "files, unfinished"
