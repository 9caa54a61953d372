"""What benchmarks/staged.py trains and how it judges, at the smallest size."""

from pathlib import Path

import pytest
import torch

from minivdm.core import CosineSchedule, Denoiser
from minivdm.data import MovingMNIST
from minivdm.networks import UNet3D

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def staged(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import staged

    return staged


def network():
    torch.manual_seed(0)
    return UNet3D(width=32, multipliers=(1,), patch=2, spatial=(False,), temporal=(False,), middle=0, low=1)


def test_only_what_is_named_is_trained_and_the_path_of_the_small_clip_by_adam(staged):
    made = network()
    adam, muon = staged.optimizers(made, lambda name: name.startswith(("low.", "down.")), 1e-3)
    sizes = [{id(p) for group in one.param_groups for p in group["params"]} for one in (adam, muon)]
    trained = {id(p) for name, p in made.named_parameters() if name.startswith(("low.", "down."))}
    assert sizes[0] | sizes[1] == trained and not sizes[0] & sizes[1]
    assert id(made.low.stem.weight) in sizes[0] and not made.stem.weight.requires_grad


def test_an_opened_path_hears_of_the_small_clip(staged):
    made = network().eval()
    torch.nn.init.normal_(made.head.weight)
    z, low = torch.randn(1, 1, 2, 8, 8), torch.ones(1, 1, 2, 8, 8)
    with torch.no_grad():
        assert torch.equal(made(z, torch.zeros(1)), made(z, torch.zeros(1), low=low))
        staged.open_low(made)
        assert not torch.allclose(made(z, torch.zeros(1)), made(z, torch.zeros(1), low=low))


def test_training_moves_the_average_of_what_is_trained(staged):
    model = Denoiser(network(), CosineSchedule(), "v")
    torch.nn.init.normal_(model.network.head.weight, std=0.1)
    before = {name: p.clone() for name, p in model.network.named_parameters()}
    x = torch.rand(2, 1, 2, 8, 8)
    draw = lambda step: {**staged.noised(model, x), "low": x}  # noqa: E731
    average, report = staged.train("test", model, draw, 0.5, CPU, learns=lambda name: name.startswith("stem"))
    after = dict(average.network.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"stem.weight", "stem.bias"} and report["steps"] >= 1
    assert report["clips"] == 2 * report["steps"] and not any(p.requires_grad for p in average.parameters())


def test_a_share_of_conditions_is_dropped_whole(staged):
    torch.manual_seed(0)
    kept = staged.dropped(torch.ones(2000, 3), 0.15).amax(1)
    assert torch.equal(kept, staged.dropped(torch.ones(2000, 3), 0.0).amax(1) * kept)
    assert abs(float(kept.mean()) - 0.85) < 0.032  # four standard errors


def test_true_clips_are_judged_to_be_true(staged):
    clips = MovingMNIST(split="test", speed=0.9).clips(torch.arange(12))
    row = staged.judged(clips.video, clips.labels, clips.video)
    assert row["legible"][0] >= 0.9 and row["rigidity"][0] == pytest.approx(0, abs=1e-5)
    assert row["distance of clips"][0] == pytest.approx(0, abs=1e-3) and row["clips"] == 12
    assert row["speed, px a frame: median"] == pytest.approx(0.9, abs=0.1)
