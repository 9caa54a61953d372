"""A run: what a checkpoint keeps, what stops it, and that it goes on bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_runs import NETWORK, TINY, assert_same, fail_at, fit, fit_together, stop_at, tiny

from minivdm import training
from minivdm.training import Recipe, checkpoints, distributed, monitor

#: A run that a test ends by a signal.
LAUNCHED = {"network": {**NETWORK, "middle": 0}, "size": 16, "speed": 1, "frames": 2, "batch": 2,
            "milestones": [], "log_every": 20, "clips": 1_000_000}  # fmt: skip
FORKS = pytest.mark.skipif(
    not hasattr(os, "fork") or torch.cuda.is_available(), reason="forks a process that has torch"
)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_continues_bit_for_bit(tmp_path, monkeypatch, optimizer, number):
    config = tiny(optimizer=optimizer)
    whole = fit(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 10, number)  # in the middle of the second phase and of a logging interval
        run, ending = training.fit(config, tmp_path / "parts", device="cpu", progress=False)
    assert (ending, run.trainer.clips) == (number, 10)
    assert signal.getsignal(number) is not None
    parts = fit(config, tmp_path / "parts", resume=True)
    assert_same(whole, parts)

    def losses(name):
        return monitor.read_metrics(tmp_path / name)["train"]["loss"].tolist()

    assert losses("parts") == losses("whole")


def test_second_interrupt_stops_at_once(tmp_path, monkeypatch):
    def impatient(self):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training.Trainer, "step", impatient)
    with pytest.raises(KeyboardInterrupt):
        fit(TINY, tmp_path / "run")


def test_lost_power_costs_only_what_came_after_the_last_checkpoint(tmp_path, monkeypatch):
    whole = fit(TINY, tmp_path / "whole")
    step = training.Trainer.step

    def fail(self):
        if self.clips >= 18:
            raise RuntimeError("power")
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "step", fail)
        with pytest.raises(RuntimeError, match="power"):
            fit(TINY, tmp_path / "parts")
    assert_same(whole, fit(TINY, tmp_path / "parts", resume=True))
    clips = monitor.read_metrics(tmp_path / "parts")["train"]["clips"].tolist()
    assert clips == sorted(set(clips))  # what had been written after the checkpoint is there once


def test_time_limit_saves(tmp_path):
    trainer = fit(TINY, tmp_path / "run", minutes=0.0)
    assert trainer.clips == 4
    assert checkpoints.load(tmp_path / "run" / "checkpoints")[1]["clips"] == 4


def test_finished_run_keeps_two_checkpoints_and_its_snapshots(tmp_path):
    fit(TINY, tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        f"clips-{clips:09d}.{kind}" for clips in (20, 24) for kind in ("json", "safetensors")
    ]
    weights, about = checkpoints.read_weights(tmp_path / "snapshots" / "clips-000000010.safetensors")
    assert about["clips"] == 10 and Recipe.from_dict(about["config"]) == TINY
    assert set(weights) == set(training.Trainer(TINY).network.state_dict())


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, kind):
    whole = fit(TINY, tmp_path)
    truncate(tmp_path / "checkpoints" / f"clips-000000024.{kind}")
    said = []
    _, state = checkpoints.load(tmp_path / "checkpoints", said.append)
    assert state["clips"] == 20
    assert "damaged" in said[0] and "20" in said[1]
    assert_same(whole, fit(TINY, tmp_path, resume=True))


def test_nothing_but_damage_is_an_error(tmp_path):
    fit(TINY, tmp_path)
    for path in (tmp_path / "checkpoints").glob("*.safetensors"):
        truncate(path)
    with pytest.raises(checkpoints.DamagedCheckpoint, match="no whole checkpoint"):
        fit(TINY, tmp_path, resume=True)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    checkpoints.write_atomic(path, b"old")

    def full(fd):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoints.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_configuration_is_refused_with_the_fields_that_differ(tmp_path):
    fit(TINY, tmp_path)
    with pytest.raises(training.ConfigurationMismatch, match=r"lr: 0.0015 there, 0.1 here"):
        fit(tiny(lr=0.1), tmp_path, resume=True)
    fit(tiny(log_every=5), tmp_path, resume=True)  # what is only written may change


def test_reconfigured_run_goes_on_and_remembers_it(tmp_path):
    fit(TINY, tmp_path)
    longer = tiny(clips=30, frames=((8, 2, 4), (16, 4, 2), (30, 3, 4)))
    trainer = fit(longer, tmp_path, resume=True, reconfigure=True)
    assert trainer.clips == 32
    history = checkpoints.load(tmp_path / "checkpoints")[1]["history"]
    assert [entry["clips"] for entry in history] == [0, 24]


def test_folder_of_another_run_is_refused(tmp_path):
    fit(TINY, tmp_path / "run")
    with pytest.raises(training.RunFolderError, match="--resume"):
        fit(TINY, tmp_path / "run")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear")
    with pytest.raises(training.RunFolderError, match="no training run"):
        fit(TINY, tmp_path / "letters")
    with pytest.raises(training.RunFolderError, match="got the file"):
        fit(TINY, tmp_path / "letters" / "dear.txt")


def test_what_is_not_finite_is_never_saved(tmp_path):
    trainer = training.Trainer(TINY)
    trainer.tally.sums[0, 0] = torch.nan
    with pytest.raises(training.TrainingDiverged):
        training.Run(trainer, tmp_path).save()
    assert not list(tmp_path.iterdir())


def test_training_starts_from_given_weights(tmp_path):
    first = fit(TINY, tmp_path / "first")
    started = fit(tiny(lr=1e-30, weight_decay=0.0, clips=4, frames=2), tmp_path / "second", init=tmp_path / "first")
    for p, q in zip(started.params, first.ema.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)  # the learning rate is as good as nothing
    wider = tiny(network={**NETWORK, "width": 16})
    with pytest.raises(checkpoints.DamagedCheckpoint, match="do not fit"):
        fit(wider, tmp_path / "third", init=tmp_path / "first")


@FORKS
def test_two_processes_do_what_one_does(tmp_path):
    config = tiny(frames=2, batch=4, clips=4)
    start = training.Trainer(config)
    for p in start.ema.parameters():  # away from the zeros of the untrained network, which most gradients do not pass
        p.add_(0.1 * torch.randn(p.shape, generator=start.generator))
    training.Run(start, tmp_path / "start").save()
    fit(config, tmp_path / "one", init=tmp_path / "start")
    assert fit_together(config, tmp_path / "two", init=tmp_path / "start") == [0, 0]
    one, two = (checkpoints.load(tmp_path / name / "checkpoints")[0] for name in ("one", "two"))
    means = [name for name in one if name.endswith("exp_avg")]
    assert max(one[name].abs().max() for name in means) > 1e-3
    for name in means:  # after the first step, a tenth of the clipped gradient
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6)  # float32 sums in another order
    losses = [monitor.read_metrics(tmp_path / name)["train"]["loss"].item() for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)  # six decimals are written


# ---- a folder that somebody else wants, or that is not as it was ---------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("muon", "adamw"), ("adamw", "muon")])
def test_another_optimizer_is_refused_by_name(tmp_path, first, second):
    fit(tiny(optimizer=first), tmp_path)
    longer = tiny(optimizer=second, clips=30)
    with pytest.raises(training.ConfigurationMismatch, match="optimizer.*cannot change.*--init"):
        fit(longer, tmp_path, resume=True, reconfigure=True)


@pytest.mark.parametrize("change", [{"seed": 7}, {"network": {**NETWORK, "middle": 2}}])
def test_what_the_state_belongs_to_cannot_change(tmp_path, change):
    fit(TINY, tmp_path)
    with pytest.raises(training.ConfigurationMismatch, match="cannot change"):
        fit(tiny(**change), tmp_path, resume=True, reconfigure=True)


def test_one_process_at_a_time_trains_into_a_folder(tmp_path, monkeypatch):
    step, refused = training.Trainer.step, []

    def step_beside_another(self):
        if not refused:
            refused.append(True)
            with pytest.raises(training.RunFolderError, match="another process"):
                fit(TINY, tmp_path / "run", resume=True)
        step(self)

    monkeypatch.setattr(training.Trainer, "step", step_beside_another)
    fit(TINY, tmp_path / "run")
    assert refused
    clips = monitor.read_metrics(tmp_path / "run")["train"]["clips"].tolist()
    assert clips == sorted(set(clips))
    fit(TINY, tmp_path / "run", resume=True)  # the lock went with the run


@pytest.mark.parametrize("left", [".config.json.0123456789ab.tmp", ".DS_Store", ".lock"])
def test_hidden_files_do_not_occupy_a_folder(tmp_path, left):
    (tmp_path / left).touch()
    assert fit(TINY, tmp_path, resume=True).clips == 24
    assert (tmp_path / left).exists() == (not left.endswith(".tmp"))


def test_lost_or_damaged_recipe_is_taken_from_the_checkpoints(tmp_path):
    whole = fit(TINY, tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(training.RunFolderError, match="--resume"):
        fit(TINY, tmp_path)
    assert_same(whole, fit(TINY, tmp_path, resume=True))
    (tmp_path / "config.json").write_text('{"size": ')
    assert_same(whole, fit(TINY, tmp_path, resume=True))
    assert Recipe.from_dict(json.loads((tmp_path / "config.json").read_text())) == TINY


def test_first_step_that_fails_leaves_no_folder(tmp_path, monkeypatch):
    fail_at(monkeypatch, 0, "out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    fit(TINY, tmp_path)
    left = [
        tmp_path / ".config.json.0123456789ab.tmp",
        tmp_path / "checkpoints" / ".clips-000000020.safetensors.0123456789ab.tmp",
        tmp_path / "checkpoints" / "clips-000000016.safetensors",  # killed between two unlinks
    ]
    for path in left:
        path.write_bytes(b"part")
    fit(TINY, tmp_path, resume=True)
    assert not [path for path in left if path.exists()]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


def test_finished_run_that_was_killed_before_it_tidied_up_keeps_two_checkpoints(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "drop_old", lambda *args: None)
        fit(TINY, tmp_path)
    assert len(checkpoints.listed(tmp_path / "checkpoints")) > 2
    fit(TINY, tmp_path, resume=True)  # has nothing left to train, and so nothing to save
    assert [checkpoints.number(path) for path in checkpoints.listed(tmp_path / "checkpoints")] == [20, 24]


def test_metrics_of_lost_checkpoints_are_kept(tmp_path):
    fit(TINY, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "checkpoints").rename(tmp_path / "moved")
    fit(TINY, tmp_path, resume=True)
    assert (tmp_path / "metrics-before.jsonl").read_bytes() == before
    assert len(monitor.rows(tmp_path / "metrics.jsonl")) == 6


@pytest.mark.parametrize("number", [getattr(signal, "SIGHUP", None) or pytest.param(None, marks=pytest.mark.skip)])
def test_closed_terminal_saves(tmp_path, monkeypatch, number):
    previous = signal.signal(number, signal.SIG_DFL)  # it may be ignored where the tests run, under `nohup`
    try:
        with monkeypatch.context() as patch:
            stop_at(patch, 10, number)
            _, ending = training.fit(TINY, tmp_path, device="cpu", progress=False)
    finally:
        signal.signal(number, previous)
    assert ending == number and checkpoints.load(tmp_path / "checkpoints")[1]["clips"] == 10


def test_ignored_hangup_stays_ignored(tmp_path, monkeypatch):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        stop_at(monkeypatch, 10, signal.SIGHUP)
        assert fit(TINY, tmp_path).clips == 24
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize("part", ["held_out", "preview"])
def test_look_that_fails_does_not_end_the_run(tmp_path, monkeypatch, part, capsys):
    def fail(*args, **options):
        raise ValueError("no such noise level")

    monkeypatch.setattr(monitor, part, fail)
    trainer = fit(tiny(preview_every=8), tmp_path)
    assert trainer.clips == 24
    assert "training goes on: ValueError: no such noise level" in capsys.readouterr().out


def test_look_that_was_interrupted_is_taken_again(tmp_path, monkeypatch):
    recipe = tiny(preview_every=8)
    whole = fit(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:

        def killed(*args, **options):
            raise KeyboardInterrupt  # unlike an error, this ends the run

        patch.setattr(monitor, "held_out", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, tmp_path / "parts")
    assert_same(whole, fit(recipe, tmp_path / "parts", resume=True))
    looks = [monitor.read_metrics(tmp_path / name)["held_out"] for name in ("whole", "parts")]
    assert looks[0]["clips"].tolist() == looks[1]["clips"].tolist() == [8, 16, 24]
    assert (looks[0]["v_error"] == looks[1]["v_error"]).all()
    assert (tmp_path / "parts" / "previews" / "clips-000000008.png").exists()


def test_noise_levels_out_of_reach_are_left_out_of_a_look(tmp_path):
    fit(tiny(log_snr_min=-3.0, log_snr_max=3.0, preview_every=24), tmp_path)
    errors = monitor.read_metrics(tmp_path)["held_out"]["v_error"][0]
    assert [bool(error == error) for error in errors] == [False, False, True, True, True, False]  # NaN is not itself


def test_longer_run_says_and_softens_the_jump_of_its_learning_rate(tmp_path, capsys):
    fit(tiny(warmup=4), tmp_path)
    trainer = fit(tiny(warmup=4, clips=96), tmp_path, resume=True, reconfigure=True)
    assert "the learning rate was" in capsys.readouterr().out
    recipe, rates = trainer.config, monitor.read_metrics(tmp_path)["train"]["lr"]
    start, before = trainer.ramp
    assert (start, before) == (24, tiny(warmup=4).lr_at(24)) and recipe.lr_at(24) > 10 * before
    assert trainer.lr(24) == pytest.approx(before + (recipe.lr_at(24) - before) / 4)
    assert trainer.lr(28) == recipe.lr_at(28) and rates[-1] == pytest.approx(recipe.lr_at(96))
    again = fit(tiny(warmup=4, clips=100), tmp_path, resume=True, reconfigure=True)
    assert again.clips == 100


def test_divergence_names_the_checkpoint_that_is_kept_or_that_there_is_none(tmp_path):
    trainer = training.Trainer(TINY)
    run = training.Run(trainer, tmp_path)
    run.save()
    trainer.tally.sums[0, 0] = torch.nan
    with pytest.raises(training.TrainingDiverged, match="the checkpoint of 0 clips is kept"):
        run.save()
    with pytest.raises(training.TrainingDiverged, match="no checkpoint was written before"):
        training.Run(trainer, tmp_path / "other").check_finite()


def test_weights_that_lack_some_parameters_can_be_started_from(tmp_path, capsys):
    first = fit(TINY, tmp_path / "first")
    recipe = tiny(network={**NETWORK, "self_conditioning": True}, self_conditioning=0.5, clips=4, frames=2, images=0)
    fit(recipe, tmp_path / "second", init=tmp_path / "first")
    assert "1 parameters are not in first and stay as they are, stem_estimate.weight" in capsys.readouterr().out
    history = checkpoints.load(tmp_path / "second" / "checkpoints")[1]["history"]
    assert history[0]["init"] == "first" and history[0]["init_clips"] == first.clips


def test_recipe_names_the_weights_it_starts_from(tmp_path):
    fit(TINY, tmp_path / "first")
    started = fit(
        tiny(init=str(tmp_path / "first"), clips=4, frames=2, lr=1e-30, weight_decay=0.0), tmp_path / "second"
    )
    weights, _ = checkpoints.read_weights(tmp_path / "first")
    for name, value in started.network.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="no weights named 'nowhere'"):
        fit(tiny(init="nowhere"), tmp_path / "third")
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("options", [{"minutes": float("nan")}, {"minutes": -1.0}, {"init": ""}])
def test_options_that_mean_nothing_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        fit(TINY, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@FORKS
def test_two_processes_stopped_and_continued_write_the_metrics_of_two_that_went_on(tmp_path):
    recipe = tiny(frames=2, batch=2, images=0, log_every=12, save_every=100)
    assert fit_together(recipe, tmp_path / "whole") == [0, 0]
    assert fit_together(recipe, tmp_path / "parts", minutes=0) == [0, 0]  # they ask each other at once
    kept = checkpoints.load(tmp_path / "parts" / "checkpoints")[1]["clips"]
    assert kept == 2  # between two rows of metrics
    assert fit_together(recipe, tmp_path / "parts", resume=True) == [0, 0]
    whole, parts = (monitor.rows(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts"))
    for row in (*whole, *parts):
        del row["seconds"]
        assert sum(row["count_by_log_snr"]) == 12  # every clip once, whichever process had it
    assert whole == parts
    ends = [checkpoints.load(tmp_path / name / "checkpoints")[0] for name in ("whole", "parts")]
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []


def test_continued_run_needs_its_first_weights_no_more(tmp_path, capsys):
    fit(TINY, tmp_path / "first")
    recipe = tiny(init=str(tmp_path / "first"), clips=4, frames=2)
    fit(recipe, tmp_path / "second")
    (tmp_path / "first").rename(tmp_path / "gone")
    assert fit(recipe, tmp_path / "second", resume=True, init=tmp_path / "gone").clips == 8
    assert "its own weights, not with" in capsys.readouterr().out


@FORKS
def test_under_torchrun_a_signal_saves_and_the_run_goes_on(tmp_path):
    """The command line with two processes, as torchrun starts them; a signal reaches torchrun alone."""
    ours = " ".join(f"--set {key}={json.dumps(value, separators=(',', ':'))}" for key, value in LAUNCHED.items())
    words = f"--standalone --nproc-per-node=2 -m minivdm train --device cpu --out {tmp_path}/run {ours}"
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not (tmp_path / "run" / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.1)
    process.terminate()
    said, complaints = process.communicate(timeout=180)
    assert "stopped: " in said and "SignalException" in complaints  # the latter is torchrun's own
    assert process.returncode == 1  # whatever its processes did
    state = checkpoints.load(tmp_path / "run" / "checkpoints")[1]
    longer = Recipe.from_dict({**state["config"], "clips": state["clips"] + 4})
    assert fit(longer, tmp_path / "run", resume=True, reconfigure=True).clips == state["clips"] + 4


@pytest.mark.parametrize("said", ["[gloo/transport/tcp/pair.cc:537] Connection reset by peer", "NCCL error"])
def test_end_of_another_process_is_named(said):
    two = distributed.World(0, 2, 0)
    wanted = "another of the run's 2 processes has ended.*--resume"
    with pytest.raises(distributed.ProcessLost, match=wanted), distributed.together(two):
        raise RuntimeError(f"{said}\nand more")
    for world, error in ((two, RuntimeError("out of memory")), (distributed.ALONE, RuntimeError(said))):
        with pytest.raises(RuntimeError) as raised, distributed.together(world):
            raise error
        assert raised.value is error


def test_processes_ask_each_other_often_enough_for_slow_steps(monkeypatch):
    """Every second or so, at every 8th step at the latest, as the slowest process has it."""
    clock, messages = [0.0], []
    monkeypatch.setattr(distributed.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda asked, op: messages.append(clock[0]))
    for seconds, wanted in ((0.01, 8), (0.3, 3), (5.0, 1)):
        clock[0], messages[:] = 0.0, []
        stop = distributed.StopRequest(distributed.World(0, 2, 0), torch.device("cpu"))
        for _ in range(40):
            clock[0] += seconds
            assert stop.agreed() == 0
        gaps = {round((b - a) / seconds) for a, b in zip(messages, messages[1:], strict=False)}
        assert gaps == {wanted} and round(messages[0] / seconds) == 1
