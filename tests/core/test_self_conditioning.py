"""Self-conditioning: which estimate a network is handed, and when it is handed none."""

import torch

from minivdm import tasks
from minivdm.core.denoiser import Denoiser
from minivdm.core.observe import Frames
from minivdm.core.samplers import ddim_step, sample
from minivdm.core.schedules import CosineSchedule
from minivdm.core.self_conditioning import SelfConditioned, takes_estimate
from minivdm.networks.unet3d import UNet3D

SMALL = dict(width=8, multipliers=(1, 2), spatial=(False, True), temporal=(True, True), head_channels=8, embedding=16)


class Recorder:
    """A denoiser whose x_hat is half of z, and which remembers the estimates that it was made with."""

    def __init__(self) -> None:
        self.schedule, self.seen = CosineSchedule(), []

    def build(self, estimate):
        def denoise(z, t):
            self.seen.append(estimate)
            return z / 2

        denoise.schedule = self.schedule
        return denoise

    def wrapped(self) -> SelfConditioned:
        return SelfConditioned(self.build, self.schedule, reach=100.0)  # steps of any length


def video(seed: int = 0, b: int = 2) -> torch.Tensor:
    return torch.randn(b, 1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_each_call_gets_the_answer_before_it_within_the_range_of_the_data():
    recorder = Recorder()
    denoise, z = recorder.wrapped(), 4 * video()
    denoise(z, 0.9)
    denoise(video(1), 0.5)
    denoise(video(2), 0.5)  # a second call at one time, as of a corrector
    assert recorder.seen[0] is None
    assert torch.equal(recorder.seen[1], (z / 2).clamp(-1, 1))
    assert torch.equal(recorder.seen[2], (video(1) / 2).clamp(-1, 1))


def test_a_later_time_or_another_shape_begins_anew():
    recorder = Recorder()
    denoise = recorder.wrapped()
    for z, t in ((video(), 0.4), (video(), 0.8), (video(b=1), 0.7), (video(b=1), torch.full((1,), 0.6))):
        denoise(z, t)
    assert recorder.seen == [None] * 4


def test_too_long_a_step_gets_no_estimate():
    recorder = Recorder()
    denoise = SelfConditioned(recorder.build, recorder.schedule, reach=1.0)
    times = recorder.schedule.time(torch.tensor([-3.0, -2.1, -0.9, 0.0, 1.1], dtype=torch.float64))
    for t in times:
        denoise(video(), t)
    assert [seen is None for seen in recorder.seen] == [True, False, True, False, True]


def test_two_runs_of_a_sampler_are_alike():
    recorder = Recorder()
    denoise, z = recorder.wrapped(), video()
    first, second = (sample(denoise, z, 4, step=ddim_step) for _ in range(2))
    assert torch.equal(first, second)
    assert [seen is None for seen in recorder.seen] == 2 * [True, False, False, False]


def test_the_estimate_carries_no_gradient_of_the_call_before():
    denoise = Recorder().wrapped()
    z = video().requires_grad_()
    denoise(z, 0.9)
    assert not denoise._estimate.requires_grad


def trained_like(**changes) -> Denoiser:
    torch.manual_seed(0)
    network = UNet3D(**SMALL, self_conditioning=True, **changes).eval()
    with torch.no_grad():
        for p in network.parameters():  # wake the zero-initialised outputs
            p.add_(0.05 * torch.randn_like(p))
    return Denoiser(network, CosineSchedule())


def test_guided_hands_one_estimate_to_both_branches():
    denoise, z, labels = trained_like(), video(), torch.eye(10)[:2]
    assert takes_estimate(denoise) and not takes_estimate(Recorder())
    wanted = tasks.guided(denoise, labels, 1.5)
    first = wanted(z, 0.7)
    found = wanted(video(1), 0.65)
    estimate = first.clamp(-1, 1)
    c = denoise(video(1), 0.65, labels, estimate=estimate)
    u = denoise(video(1), 0.65, estimate=estimate)
    # float32 rounding of one batch of four against two of two
    assert torch.allclose(found, c + 1.5 * (c - u), atol=1e-5)


def test_a_network_without_it_is_asked_as_before():
    torch.manual_seed(0)
    denoise = Denoiser(UNet3D(**SMALL).eval(), CosineSchedule())
    assert not isinstance(tasks.guided(denoise, None, 0.0), SelfConditioned)


def test_what_is_guided_by_a_gradient_gets_no_estimate():
    """Reconstruction guidance differentiates x_hat by z, which an estimate would stand in for."""
    denoise, seen = trained_like(), []
    denoise.network.register_forward_pre_hook(
        lambda module, args, given: seen.append("estimate" in given), with_kwargs=True
    )
    known = video().clamp(-1, 1)[:, :, :1]
    tasks.restore(denoise, [(Frames([0]), known)], (1, 3, 8, 8), steps=3, generator=torch.Generator().manual_seed(0))
    assert seen and not any(seen)
    tasks.generate(denoise, count=1, shape=(1, 3, 8, 8), steps=12)
    assert any(seen)
