"""Guidance away from weaker answers, and frames by themselves."""

import pytest
import torch

from minivdm.core import CosineSchedule, Denoiser, FramesApart, away_from, classifier_free, score_from_x
from minivdm.exact import GaussianVideo
from minivdm.guards import BadArgument, BadType
from minivdm.networks import UNet3D
from minivdm.tasks import guided


@pytest.fixture(scope="module")
def network():
    """A small denoiser whose layers all do something."""
    torch.manual_seed(0)
    net = UNet3D(width=32, multipliers=(1,), spatial=(True,), temporal=(True,), middle=1, labels=3, embedding=32)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Denoiser(net.eval().requires_grad_(False), CosineSchedule())


def clips(b=2, f=3):
    return torch.randn(b, 1, f, 8, 8, generator=torch.Generator().manual_seed(1))


def test_away_from_one_is_classifier_free(network):
    labels = torch.eye(3)[:2]
    asked, unasked = network.given(labels), network.given(None)
    found = away_from(asked, (unasked, 1.5))(clips(), 0.6)
    torch.testing.assert_close(found, classifier_free(asked, unasked, 1.5)(clips(), 0.6))


def test_guidance_away_from_independent_frames_weighs_the_precisions():
    """In Gaussians the guided score is -((1 + w) S_t^-1 - w I / (alpha^2 + sigma^2)) z, for frames of variance 1.

    What frames share (eigenvalue above 1) is drawn back less, what tells them apart more.
    """
    f, w, t = 4, 0.7, torch.tensor(0.4, dtype=torch.float64)
    schedule = CosineSchedule()
    together, apart = GaussianVideo(f, 0.9), GaussianVideo(f, 0.0)
    z = torch.randn(3, 1, f, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    precision = torch.linalg.inv(alpha**2 * together.covariance + sigma**2 * torch.eye(f, dtype=torch.float64))
    expected = -(z.flatten(1) @ ((1 + w) * precision - w * torch.eye(f) / (alpha**2 + sigma**2)))
    x_hat = away_from(together.denoiser(schedule), (apart.denoiser(schedule), w))(z, t)
    torch.testing.assert_close(score_from_x(z, x_hat, alpha, sigma).flatten(1), expected)


def test_each_weaker_answer_has_its_own_weight():
    schedule = CosineSchedule()
    best, *worse = (GaussianVideo(3, correlation).denoiser(schedule) for correlation in (0.9, 0.5, 0.0))
    z = torch.randn(2, 1, 3, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = best(z, 0.5)
    expected = x + 2 * (x - worse[0](z, 0.5)) + 0.5 * (x - worse[1](z, 0.5))
    torch.testing.assert_close(away_from(best, (worse[0], 2), (worse[1], 0.5))(z, 0.5), expected)


def test_outside_its_interval_a_weaker_answer_is_not_asked():
    schedule, calls = CosineSchedule(), []
    best, worse = (GaussianVideo(3, correlation).denoiser(schedule) for correlation in (0.9, 0.5))

    class Counted:
        schedule = worse.schedule

        def __call__(self, z, t):
            calls.append(float(torch.as_tensor(t).max()))
            return worse(z, t)

    guided_so = away_from(best, (Counted(), 2.0, (-3.0, 3.0)))
    z = torch.randn(2, 1, 3, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (0.05, 0.95):  # log-SNR 5.1 and -5.1
        assert torch.equal(guided_so(z, t), best(z, t))
    assert calls == []
    torch.testing.assert_close(guided_so(z, 0.5), away_from(best, (worse, 2.0))(z, 0.5))
    mixed = guided_so(z, torch.tensor([0.05, 0.5]))  # a time for each sample
    torch.testing.assert_close(mixed[0], best(z, 0.05)[0])
    torch.testing.assert_close(mixed[1], guided_so(z, 0.5)[1])


def test_autoguidance_tells_the_weaker_network_the_same(network):
    torch.manual_seed(1)
    other = Denoiser(UNet3D(width=32, multipliers=(1,), spatial=(True,), temporal=(True,), middle=1, labels=3,
                            embedding=32).eval(), CosineSchedule())  # fmt: skip
    labels, z = torch.eye(3)[:2], clips()
    asked, worse = network.given(labels)(z, 0.6), other.given(labels)(z, 0.6)
    found = guided(network, labels, 0.0, weaker=(other, 0.5))(z, 0.6)
    torch.testing.assert_close(found, asked + 0.5 * (asked - worse), rtol=1e-4, atol=1e-5)  # float32
    torch.testing.assert_close(guided(network, labels, 0.0, weaker=(other, 0.0))(z, 0.6), asked)
    with pytest.raises(BadType, match="weaker: expected a denoiser that takes conditions"):
        guided(network, labels, 0.0, weaker=(other.given(labels), 0.5))
    with pytest.raises(BadArgument, match="weaker: expected an interval"):
        guided(network, labels, 0.0, weaker=(other, 0.5, (1.0, -1.0)))


def test_frames_apart_are_clips_of_one_frame(network):
    # Nothing but temporal attention joins frames, and positions in it are relative.
    z = clips()
    alone = torch.cat([network(frame, 0.5) for frame in z.split(1, dim=2)], dim=2)
    apart = FramesApart(network, {})(z, 0.5)
    torch.testing.assert_close(apart, alone, rtol=1e-4, atol=1e-5)  # float32, other orders of sums
    assert not torch.allclose(apart, network(z, 0.5), atol=1e-3)


def test_guided_joins_both_guidances(network):
    labels = torch.eye(3)[:2]
    z, t = clips(), 0.6
    asked, unasked, apart = (
        d(z, t) for d in (network.given(labels), network.given(None), FramesApart(network, {"labels": labels}))
    )
    expected = asked + 1.0 * (asked - unasked) + 0.5 * (asked - apart)
    torch.testing.assert_close(guided(network, labels, 1.0, temporal_weight=0.5)(z, t), expected, rtol=1e-4, atol=1e-5)


def test_one_frame_alone_is_not_guided(network):
    z = clips(f=1)
    found = guided(network, None, 0.0, temporal_weight=3.0)(z, 0.6)
    torch.testing.assert_close(found, network(z, 0.6), rtol=1e-4, atol=1e-5)


def test_bad_input_is_named(network):
    exact = GaussianVideo(3).denoiser(CosineSchedule())
    with pytest.raises(BadArgument, match="weaker: expected at least one pair"):
        away_from(exact)
    with pytest.raises(BadArgument, match="weaker"):
        away_from(exact, (exact, -1.0))
    with pytest.raises(BadArgument, match="temporal_weight"):
        guided(network, None, 0.0, temporal_weight=-1)
    with pytest.raises(BadType, match="temporal_weight: expected a denoiser that takes a frame_mask"):
        guided(away_from(exact, (exact, 1.0)), None, 0.0, temporal_weight=1)
    with pytest.raises(BadType, match="frame_mask"):
        guided(exact, None, 0.0, temporal_weight=1)

    class Still(torch.nn.Module):
        def forward(self, z, log_snr):
            return z

    with pytest.raises(BadType, match="frame_mask"):
        guided(Denoiser(Still(), CosineSchedule()), None, 0.0, temporal_weight=1)
