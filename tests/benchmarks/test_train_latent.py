"""benchmarks/train_latent.py: what a step learns from, its gradients, and what is judged."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from minivdm.core.gaussian import diffuse
from minivdm.data import MovingMNIST
from minivdm.systems import walt

SHAPE = (8, 5, 4, 4)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import train_latent

    return train_latent


@pytest.fixture
def step(script):
    args = Namespace(model="transformer", width=32, depth=1, patch=2, no_estimate=False, bf16=False, eager=False)
    torch.manual_seed(0)
    model = script.denoiser(script.network(args), "transformer")
    for p in model.parameters():  # a network that says something
        p.data += 0.05 * torch.randn_like(p)
    made = script.Pass(model, args, torch.device("cpu"))
    made.draw(torch.randn(64, *SHAPE), torch.eye(10)[torch.arange(64) % 10])
    return made


def test_a_step_draws_labels_frames_and_times(step):
    counts = step.known[:, -1, :, 0, 0].sum(1).long()  # b
    assert set(counts.tolist()) == {0, 1, 2} and 6 <= int((counts > 0).sum()) <= 26  # a quarter of 64
    assert torch.equal(step.known, walt.known_frames(step.x, counts))
    assert 1 <= int((step.labels.sum(1) == 0).sum()) <= 22  # 15 % of 64
    part = (step.t - step.model.schedule.t_min) * 64
    assert torch.equal(part.floor().long(), torch.arange(64))  # one time in each part, so halves are alike


def test_the_pass_is_the_loss_with_an_estimate_in_every_second_sample(step):
    step()
    found = [p.grad.clone() for p in step.model.parameters()]
    model, odd = step.model, torch.arange(64) % 2
    with torch.no_grad():
        z = diffuse(step.x, step.t, model.schedule, step.noise)
        seen = model(z, step.t, labels=step.labels, known=step.known)
    estimate = torch.where(odd[:, None, None, None, None] == 0, seen, 0.0)
    model.zero_grad()
    loss = model.loss(step.x, labels=step.labels, label_drop=0.0, t=step.t, noise=step.noise, known=step.known,
                      estimate=estimate).mean  # fmt: skip
    loss.backward()
    assert torch.allclose(step.loss, loss, rtol=1e-5)
    for one, p in zip(found, model.parameters(), strict=True):
        assert torch.allclose(one, p.grad, atol=1e-5, rtol=1e-3)  # float32, other batch sizes


def test_true_clips_are_judged_right(script):
    clips = MovingMNIST(64, 17, speed=1.8, split="test").clips(torch.arange(8))
    row = script.judged(clips.video, clips.labels, None, 1)
    assert row["legible"][0] >= 7 / 8 and row["legible"][3] == 8 and row["rigidity, median"] < 1e-3
    assert row["from straight, pixels, median of legible"] < 1
    other = script.judged(clips.video, clips.labels.roll(1, 1), None, 1)
    assert other["legible"][0] == 0 and other["right in every frame"][0] == 0
