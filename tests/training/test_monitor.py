"""Watching a run: sums by noise level, held-out errors, the metrics file."""

import json

import pytest
import torch
from small_runs import TINY, assert_same

from minivdm import training
from minivdm.training import monitor


def test_tally_averages_by_noise_level():
    tally = monitor.Tally("cpu")
    tally.add(torch.tensor([1.0, 3.0]), torch.tensor([-20.0, -9.0], dtype=torch.float64))
    tally.add(torch.tensor([5.0]), torch.tensor([0.5], dtype=torch.float64))
    for norm in (2.0, 4.0):
        tally.add_norm(torch.tensor(norm))
    row = tally.read(training.distributed.ALONE)
    assert row["loss"] == 3.0 and row["grad_norm"] == 3.0
    assert row["loss_by_log_snr"] == [2.0, None, None, None, None, 5.0, None, None, None, None]
    assert row["count_by_log_snr"][0] == 2
    assert tally.sums.abs().sum() == 0


def test_held_out_error_of_x_is_the_one_measured_on_x():
    trainer = training.Trainer(TINY)
    trainer.step()
    data = TINY.make_data(split="test")
    got = monitor.held_out(trainer.ema_denoiser, data, clips=3, batch=3)
    clips = data.clips(range(3))
    noise = torch.randn(clips.video.shape, generator=torch.Generator().manual_seed(0))
    for level, expected in zip(got["log_snr"], got["x_error"], strict=True):
        t = trainer.schedule.time(level)
        z = (trainer.schedule.alpha(t) * clips.video + trainer.schedule.sigma(t) * noise).float()
        error = (trainer.ema_denoiser.given(clips.labels)(z, t) - clips.video).square().mean().item()
        assert error == pytest.approx(expected, abs=5e-6)  # six decimals are written


def test_looking_does_not_disturb_training(tmp_path):
    watched, other = training.Trainer(TINY), training.Trainer(TINY)
    training.Run(watched, tmp_path).look()
    watched.step(), other.step()
    assert_same(watched, other)
    assert (tmp_path / "previews" / "clips-000000000.png").stat().st_size > 0
    assert monitor.read_metrics(tmp_path)["held_out"]["v_error"].shape == (1, len(monitor.HELD_OUT_LOG_SNR))


def test_metrics_of_no_run_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no metrics"):
        monitor.read_metrics(tmp_path)


ROW = {"kind": "train", "clips": 4, "loss": 1.0, "loss_by_log_snr": [None], "count_by_log_snr": [3]}


@pytest.mark.parametrize(
    "bad", [b"\xff\xfe", b"7", b'{"kind": "train"}', b'{"kind": 3, "clips": 4}', b'{"clips": "4"', b"[" * 99_999]
)
def test_damaged_rows_are_named_and_left_out(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    good = json.dumps(ROW).encode()
    path.write_bytes(b"\n".join([good, bad, good, b""]))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: left out 1 damaged lines, the first is line 2"):
        assert monitor.rows(path) == [ROW, ROW]
    with pytest.warns(UserWarning):
        monitor.cut_metrics(path, 4)
    assert monitor.rows(path) == [ROW, ROW]


def test_row_that_lost_power_is_no_damage_and_spoils_no_other(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b'\n{"kind": "tr')
    assert monitor.rows(path) == [ROW]
    monitor.append(path, ROW)
    with pytest.warns(UserWarning, match="line 2"):
        assert monitor.rows(path) == [ROW, ROW]


def test_sums_of_several_processes_are_gathered_in_the_first(monkeypatch):
    monkeypatch.setattr(monitor.distributed, "add_up", lambda tensor, world: 2 * tensor)  # two processes with the same
    for rank, expected in ((0, 2.0), (1, 0.0)):
        tally = monitor.Tally("cpu")
        tally.add(torch.ones(1), torch.zeros(1))
        tally.gather(monitor.World(rank, 2))
        assert tally.sums[0].sum() == expected
