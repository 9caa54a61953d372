"""Training: what a step does, what a checkpoint keeps, and what stops a run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minivdm import training
from minivdm.training import checkpoints, configs, monitor
from minivdm.training.configs import ConfigError, TrainConfig

NETWORK = {
    "width": 8,
    "multipliers": [1, 2],
    "spatial": [False, True],
    "temporal": [True, True],
    "patch": 4,
    "head_channels": 8,
    "embedding": 16,
    "middle": 1,
    "labels": 10,
}
# Two phases and three kinds of interval that do not divide each other; 24 clips take a fraction of a second.
TINY = TrainConfig(
    size=16,
    speed=1.0,
    network=NETWORK,
    clips=24,
    frames=((8, 2, 4), (16, 4, 2), (24, 3, 4)),
    images=1,
    warmup=8,
    log_every=4,
    save_every=6,
    preview_every=1000,
    milestones=(10,),
)


def tiny(**changes) -> TrainConfig:
    return TrainConfig.from_dict({**TINY.to_dict(), **changes})


def fit(config, out, **options):
    return training.fit(config, out, device="cpu", progress=False, **options)[0].trainer


def stop_at(monkeypatch, clips, number):
    """Send this process a signal in the step that passes `clips` clips."""
    step = training.Trainer.step

    def step_and_signal(self):
        step(self)
        if self.clips >= clips:
            signal.raise_signal(number)

    monkeypatch.setattr(training.Trainer, "step", step_and_signal)


def assert_same(a, b):
    first, second = a.tensors(), b.tensors()
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert (a.clips, a.steps) == (b.clips, b.steps)


# ---- configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [*configs.CONFIGS.values(), TINY])
def test_configuration_survives_json(config):
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_command_rebuilds_the_configuration():
    import shlex

    changed = configs.get("moving-mnist-32").override(["lr=2e-3", "network.width=64", "optimizer=muon"])
    words = shlex.split(changed.command())
    assert words[:5] == ["python", "-m", "minivdm", "train", "moving-mnist-32"]
    assert configs.get(words[4]).override([w for w in words[5:] if w != "--set"]) == changed


@pytest.mark.parametrize(("assignment", "says"), [
    ("lrr=1", "did you mean 'lr'"), ("lr=fast", "expected float"), ("batch=0", ">= 1"), ("batch", "key=value"),
    ("frames=[[8,2,4],[4,2,4]]", "rise"), ("frames=[[8,2]]", "clips_until"), ("precision=fp8", "bf16"),
    ("lr.x=1", "network"), ("ema_decay=1", r"\[0, 1\)"),
])  # fmt: skip
def test_wrong_assignment_is_named(assignment, says):
    with pytest.raises(ConfigError, match=says):
        configs.get("moving-mnist-32").override([assignment])


def test_learning_rate_rises_linearly_then_falls_as_a_cosine():
    config = tiny(clips=100, frames=2, warmup=10, lr=1.0, lr_end=0.1)
    assert config.lr_at(4) == pytest.approx(0.5)
    assert config.lr_at(10) == pytest.approx(1.0)
    assert config.lr_at(55) == pytest.approx(0.55)  # half way: the middle between 1 and 0.1
    assert config.lr_at(100) == pytest.approx(0.1)


def test_curriculum_changes_frames_and_batch_at_its_clips():
    got = [(TINY.phase_at(clips).frames, TINY.phase_at(clips).batch) for clips in (0, 7, 8, 15, 16, 99)]
    assert got == [(2, 4), (2, 4), (4, 2), (4, 2), (3, 4), (3, 4)]


# ---- a step ------------------------------------------------------------------------------------------------


def test_last_phase_of_a_curriculum_lasts_to_the_end():
    longer = tiny(clips=1_000)
    assert longer.phases()[-1].until == 1_000 and longer.phase_at(999).frames == 3


def test_joint_images_follow_the_clip_each_seeing_itself_only():
    trainer = training.Trainer(tiny(images=2))
    video, labels, mask = trainer.batch(TINY.phase_at(0))
    assert video.shape == (4, 1, 2 + 2, 16, 16)
    assert labels.shape == (4, 4, 10)
    torch.testing.assert_close(labels[:, 0], labels[:, 1])  # the clip's own frames share their labels
    assert mask.tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]


def test_batches_walk_through_the_data_without_repeating():
    trainer = training.Trainer(TINY)
    first = trainer.batch(TINY.phase_at(0))[0]
    trainer.clips = 4
    second = trainer.batch(TINY.phase_at(0))[0]
    expected = trainer.data[2].clips(range(8)).video
    torch.testing.assert_close(torch.cat([first, second])[:, :, :2], expected, rtol=0, atol=0)


def test_moving_average_follows_its_recursion():
    trainer = training.Trainer(tiny(ema_decay=0.3))
    average = trainer.params[0].detach().clone()
    for n in range(1, 5):
        trainer.step()
        decay = min(0.3, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * trainer.params[0].detach()
    # Four float32 additions of numbers below 1.
    torch.testing.assert_close(next(trainer.ema.parameters()), average, rtol=0, atol=1e-6)


def test_labels_are_dropped_with_the_configured_probability():
    trainer = training.Trainer(tiny(label_drop=0.25, frames=2, batch=4000))
    _, _, keep = trainer.draw(trainer.config.phase_at(0), torch.Size([4000, 1, 1, 1, 1]))
    assert abs(keep.float().mean().item() - 0.75) < 0.035  # five standard errors, sqrt(0.25 * 0.75 / 4000) = 0.0068


@pytest.mark.parametrize("changes", [{"optimizer": "muon"}, {"precision": "bf16"}, {"target": "eps"}, {"images": 0}])
def test_every_variant_trains(changes):
    trainer = training.Trainer(tiny(**changes, warmup=0))
    before = [p.detach().clone() for p in trainer.params]
    for _ in range(3):
        trainer.step()
    assert all(torch.isfinite(p).all() for p in trainer.params)
    moved = sum(not torch.equal(p, q) for p, q in zip(trainer.params, before, strict=True))
    assert moved == len(before)


def test_unlabelled_network_trains():
    trainer = training.Trainer(tiny(network={**NETWORK, "labels": 0}))
    trainer.step()
    assert trainer.clips == 4


def test_global_seed_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    training.Trainer(TINY).step()
    assert torch.equal(torch.rand(1), expected)


# ---- stopping and continuing -------------------------------------------------------------------------------


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
    assert about["clips"] == 10 and TrainConfig.from_dict(about["config"]) == TINY
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


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    config = tiny(frames=2, batch=4, clips=4)
    start = training.Trainer(config)
    for p in start.ema.parameters():  # away from the zeros of the untrained network, which most gradients do not pass
        p.add_(0.1 * torch.randn(p.shape, generator=start.generator))
    training.Run(start, tmp_path / "start").save()
    fit(config, tmp_path / "one", init=tmp_path / "start")
    sets = [
        word
        for key, (_, value) in configs.get("moving-mnist-32").difference(config).items()
        if key != "name"
        for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "minivdm", "train",
         "--device", "cpu", "--out", str(tmp_path / "two"), "--init", str(tmp_path / "start"), *sets],
        check=True, timeout=120, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    one, two = (checkpoints.load(tmp_path / name / "checkpoints")[0] for name in ("one", "two"))
    means = [name for name in one if name.endswith("exp_avg")]
    assert max(one[name].abs().max() for name in means) > 1e-3
    for name in means:  # after the first step, a tenth of the clipped gradient
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6)  # float32 sums in another order
    losses = [monitor.read_metrics(tmp_path / name)["train"]["loss"].item() for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)  # six decimals are written


# ---- watching ----------------------------------------------------------------------------------------------


def test_tally_averages_by_noise_level():
    tally = monitor.Tally("cpu")
    tally.add(torch.tensor([1.0, 3.0]), torch.tensor([-20.0, -9.0], dtype=torch.float64), torch.tensor(2.0))
    tally.add(torch.tensor([5.0]), torch.tensor([0.5], dtype=torch.float64), torch.tensor(4.0))
    row = tally.read(training.distributed.ALONE)
    assert row["loss"] == 3.0 and row["grad_norm"] == 3.0
    assert row["loss_by_log_snr"] == [2.0, None, None, None, None, 5.0, None, None, None, None]
    assert row["count_by_log_snr"][0] == 2
    assert tally.sums.abs().sum() == 0


def test_held_out_error_of_x_is_the_one_measured_on_x():
    trainer = training.Trainer(TINY)
    trainer.step()
    data = training.build.data(TINY, split="test")
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
    monitor.look(watched, tmp_path, clips=2, steps=2)
    watched.step(), other.step()
    assert_same(watched, other)
    assert (tmp_path / "previews" / "clips-000000000.png").stat().st_size > 0
    assert monitor.read_metrics(tmp_path)["held_out"]["v_error"].shape == (1, len(monitor.HELD_OUT_LOG_SNR))


def test_metrics_of_no_run_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no metrics"):
        monitor.read_metrics(tmp_path)
