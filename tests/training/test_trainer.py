"""Training: what a step does."""

import pytest
import torch
from small_runs import NETWORK, TINY, assert_same, tiny

from minivdm import training
from minivdm.training import monitor


def test_last_phase_of_a_curriculum_lasts_to_the_end():
    longer = tiny(clips=1_000)
    assert longer.phases()[-1].until == 1_000 and longer.phase_at(999).frames == 3


def test_joint_images_follow_the_clip_each_seeing_itself_only():
    trainer = training.Trainer(tiny(images=2))
    video, conditions, mask = trainer.batch(TINY.phase_at(0))
    labels = conditions["labels"]
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


def test_times_are_noisier_where_a_recipe_asks_for_it():
    trainer = training.Trainer(tiny(times=(1.5, 1.5)))
    t = trainer.objective.times(400, trainer.generator)
    # log(t / (1 - t)) ~ N(1.5, 1.5^2): half of 400 stratified times lie beyond sigmoid(1.5), to one of them.
    assert abs(int((t > torch.sigmoid(torch.tensor(1.5))).sum()) - 200) <= 1


def test_kept_clips_come_round_again():
    trainer = training.Trainer(tiny(keep=4))
    first = trainer.batch(TINY.phase_at(0))[0][:, :, :2]
    trainer.clips = 4
    again = trainer.batch(TINY.phase_at(0))[0][:, :, :2]
    torch.testing.assert_close(again, first, rtol=0, atol=0)


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
    trainer = training.Trainer(tiny(conditions={"labels": 0.25}, frames=2, batch=4000))
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
    trainer = training.Trainer(tiny(network={**NETWORK, "labels": 0}, conditions={}))
    trainer.step()
    assert trainer.clips == 4


def test_global_seed_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    training.Trainer(TINY).step()
    assert torch.equal(torch.rand(1), expected)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    whole, pieces = training.Trainer(tiny(images=0, warmup=0)), training.Trainer(tiny(images=0, warmup=0, accumulate=2))
    for trainer in (whole, pieces):
        for p in trainer.params:  # away from the zeros of the untrained network, which most gradients do not pass
            p.data.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        for _ in range(3):
            trainer.step()
    rows = [trainer.tally.read(trainer.world) for trainer in (whole, pieces)]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], abs=1e-5)
    assert rows[0]["grad_norm"] == pytest.approx(rows[1]["grad_norm"], rel=1e-3)
    assert rows[0]["count_by_log_snr"] == rows[1]["count_by_log_snr"]


def self_conditioned(share=0.5, **changes):
    network = {**NETWORK, "self_conditioning": True}
    return training.Trainer(tiny(network=network, self_conditioning=share, images=0, frames=2, batch=4, **changes))


def test_a_share_of_the_batch_gets_the_networks_own_estimate():
    trainer = self_conditioned()
    for p in trainer.params:
        p.data.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    [batch] = trainer.pieces(trainer.config.phase_at(0))
    estimate = batch.conditions["estimate"]
    given = estimate.flatten(1).abs().amax(1) > 0
    assert given.sum() == 2 and not estimate.requires_grad and estimate.abs().max() <= 1
    z = trainer.schedule.alpha(batch.t).float().view(-1, 1, 1, 1, 1) * batch.video
    z = z + trainer.schedule.sigma(batch.t).float().view(-1, 1, 1, 1, 1) * batch.noise
    own = trainer.denoiser(z, batch.t, labels=batch.conditions["labels"]).clamp(-1, 1)
    torch.testing.assert_close(estimate[given], own[given], rtol=0, atol=1e-5)  # a batch of 2 or of 4, in float32


def test_the_share_with_an_estimate_is_right_over_many_steps():
    trainer, seen = self_conditioned(share=0.3), 0
    for step in range(50):
        trainer.steps = step
        [batch] = trainer.pieces(trainer.config.phase_at(0))
        trainer.network.head.bias.data.fill_(0.5)
        seen += int((batch.conditions["estimate"].flatten(1).abs().amax(1) > 0).sum())
    assert abs(seen - 0.3 * 4 * 50) <= 4  # the first batches' estimates may be 0, as the network's answer is


def test_self_conditioned_network_trains_in_half_precision():
    trainer = self_conditioned(precision="bf16", warmup=0)
    before = [p.detach().clone() for p in trainer.params]
    for _ in range(3):
        trainer.step()
    moved = [not torch.equal(p, q) for p, q in zip(trainer.params, before, strict=True)]
    assert all(moved) and all(torch.isfinite(p).all() for p in trainer.params)


def test_half_precision_learns_like_single_precision():
    losses = []
    for precision in ("float32", "bf16"):
        trainer = training.Trainer(tiny(precision=precision, frames=2, images=0, warmup=0))
        for _ in range(10):
            trainer.step()
        losses.append(trainer.tally.read(trainer.world)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # 8 bits of mantissa


def test_recipe_on_the_flow_path_trains():
    trainer = training.Trainer(tiny(schedule="flow", target="velocity", weighting="velocity", warmup=0))
    for _ in range(3):
        trainer.step()
    assert all(torch.isfinite(p).all() for p in trainer.params)


def test_nothing_is_computed_in_float64_on_an_apple_gpu(monkeypatch):
    """Such a device has no float64; here a device without memory stands for it."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype == torch.float64 and out.device.type == "meta":
                raise TypeError("no float64 on this device")
            return out

    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device, dtype: zeros(*shape, device="meta", dtype=dtype))
    monkeypatch.setattr(torch, "tensor", lambda values, device: zeros(len(values), device="meta", dtype=torch.float32))
    tally = monitor.Tally("mps")
    with NoFloat64():
        tally.add(zeros(3, device="meta", dtype=torch.float32), zeros(3, device="meta", dtype=torch.float32))
        tally.add_norm(zeros((), device="meta", dtype=torch.float32))
    assert tally.sums.dtype == torch.float32


def test_clipping_does_not_insist_on_foreach_elsewhere(monkeypatch):
    seen, clip = [], torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, n, foreach: (seen.append(foreach), clip(p, n))[1])
    trainer = training.Trainer(TINY)
    trainer.step()
    assert seen == [True]
    monkeypatch.setattr(trainer, "device", torch.device("mps"))
    monkeypatch.setattr(trainer, "autocast", lambda: torch.autocast("cpu", enabled=False))
    monkeypatch.setattr(trainer, "pieces", lambda phase, pieces=trainer.pieces: moved(trainer, pieces, phase))
    trainer.step()
    assert seen == [True, None]


def moved(trainer, pieces, phase):
    trainer.device = torch.device("cpu")  # where its data and noise really are
    found = pieces(phase)
    trainer.device = torch.device("mps")
    return found


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_of_the_optimizer_goes_by_the_names_of_parameters(optimizer):
    trainer, other = (training.Trainer(tiny(optimizer=optimizer, warmup=0)) for _ in range(2))
    trainer.step()
    saved = {key: value.clone() for key, value in trainer.tensors().items()}
    names = dict(trainer.network.named_parameters())
    moments = {key for key in saved if key.endswith(("exp_avg", "momentum"))}
    assert {key.removeprefix("optimizer.").rpartition(".")[0] for key in moments} == set(names)
    other.load(saved, trainer.clips, trainer.steps)
    assert_same(trainer, other)


def test_state_that_fits_no_parameter_is_refused():
    trainer = training.Trainer(tiny(warmup=0))
    trainer.step()
    saved = trainer.tensors()
    key = next(key for key in saved if key.endswith("exp_avg"))
    for wrong, says in [
        ({**saved, key: saved[key].flatten()[:1]}, "expected"),
        ({name: value for name, value in saved.items() if name != key}, "nothing"),
        ({**saved, "optimizer.stem.weight.momentum": saved[key]}, "another optimizer"),
        ({name: value for name, value in saved.items() if name != "tally"}, "tally"),
    ]:
        with pytest.raises(training.DamagedCheckpoint, match=says):
            training.Trainer(tiny(warmup=0)).load(wrong, 4, 1)


def test_numbered_state_of_an_earlier_version_is_read():
    for optimizer in ("adamw", "muon"):
        trainer, other = (training.Trainer(tiny(optimizer=optimizer, warmup=0)) for _ in range(2))
        trainer.step()
        old = {key: value for key, value in trainer.tensors().items() if not key.startswith("optimizer.")}
        for k, made in enumerate(trainer.optimizers):
            for i, entry in made.state_dict()["state"].items():
                old |= {f"optimizer{k}.{i}.{name}": value for name, value in entry.items()}
        other.load(old, trainer.clips, trainer.steps)
        assert_same(trainer, other)
