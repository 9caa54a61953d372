"""The denoiser: what a target means, what the loss weighs, conditions, precision."""

import math

import pytest
import torch
from torch import nn

from minivdm.core import gaussian
from minivdm.core.denoiser import (
    TARGETS,
    DataRangeError,
    Denoiser,
    drop_labels,
    loss_weight,
    preconditioning,
    stratified_times,
)
from minivdm.core.samplers import sample
from minivdm.core.schedules import CosineSchedule, LinearSchedule, SubVPSchedule, VESchedule

SCHEDULES = [CosineSchedule(), LinearSchedule(), SubVPSchedule(), VESchedule(0.05, 20.0)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
every_target = pytest.mark.parametrize("target", TARGETS)


class Linear(nn.Module):
    """A small network that records what it was called with."""

    def __init__(self, d=3):
        super().__init__()
        self.layer = nn.Linear(d, d)
        self.calls = []

    def forward(self, z, log_snr, **conditions):
        self.calls.append((z, log_snr, conditions))
        return self.layer(z)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Linear().double()


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# ---- targets ------------------------------------------------------------------------------------------------------


@every_schedule
@pytest.mark.parametrize("target", ["x", "eps", "v", "score"])
def test_x_hat_is_the_conversion_of_the_networks_output(target, schedule, network, generator):
    z, t = normal(generator, 4, 3), torch.tensor([0.2, 0.4, 0.6, 0.8])
    output = network.layer(z)
    convert = getattr(gaussian, f"x_from_{target}", lambda z, x, alpha, sigma: x)
    expected = convert(z, output, schedule.alpha(t), schedule.sigma(t))
    torch.testing.assert_close(Denoiser(network, schedule, target)(z, t), expected, rtol=1e-10, atol=1e-10)


def test_edm_is_the_table_of_karras(network, generator):
    # Karras et al. 2022, table 1, for y = x + sigma eps, that is for a variance-exploding schedule.
    schedule, data, t = VESchedule(0.05, 20.0), 0.5, torch.tensor(0.6)
    sigma = schedule.sigma(t)
    skip, out = data**2 / (sigma**2 + data**2), sigma * data / (sigma**2 + data**2).sqrt()
    scale = 1 / (sigma**2 + data**2).sqrt()
    z = normal(generator, 4, 3)
    expected = skip * z + out * network.layer(scale * z)
    torch.testing.assert_close(Denoiser(network, schedule, "edm", sigma_data=data)(z, t), expected)


def test_edm_on_a_variance_preserving_schedule_is_v_up_to_sign():
    t = torch.linspace(0.1, 0.9, 9)
    alpha, sigma = CosineSchedule().alpha(t), CosineSchedule().sigma(t)
    edm, v = preconditioning("edm", alpha, sigma), preconditioning("v", alpha, sigma)
    torch.testing.assert_close(edm.skip, v.skip)
    torch.testing.assert_close(edm.out, -v.out)
    torch.testing.assert_close(edm.scale, torch.ones_like(alpha))


@every_schedule
def test_edm_input_and_target_have_unit_variance(schedule):
    data, t = 0.5, torch.linspace(0.1, 0.9, 9)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    skip, out, scale = preconditioning("edm", alpha, sigma, data)
    torch.testing.assert_close(scale**2 * (alpha**2 * data**2 + sigma**2), torch.ones_like(alpha))
    # F* = ((1 - skip alpha) x - skip sigma eps) / out
    target = ((1 - skip * alpha) ** 2 * data**2 + (skip * sigma) ** 2) / out**2
    torch.testing.assert_close(target, torch.ones_like(alpha))


# ---- loss ---------------------------------------------------------------------------------------------------------


@every_schedule
@every_target
@pytest.mark.parametrize("weighting", [*TARGETS, "truncated_snr", "min_snr", "elbo"])
def test_loss_is_the_weighted_error_of_x_hat(weighting, target, schedule, network, generator):
    # VDM eq 2, whatever the network predicts.
    x, noise, t = normal(generator, 4, 3), normal(generator, 4, 3), torch.tensor([0.2, 0.4, 0.6, 0.8])
    denoise = Denoiser(network, schedule, target)
    loss = denoise.loss(x, t=t, noise=noise, weighting=weighting)
    error = (x - denoise(gaussian.diffuse(x, t, schedule, noise), t)).square().mean(1)
    expected = loss_weight(weighting, t, schedule) * error
    torch.testing.assert_close(loss.per_sample, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(loss.mean, loss.per_sample.mean())
    torch.testing.assert_close(loss.log_snr, schedule.log_snr(t))


@every_schedule
@pytest.mark.parametrize("name", ["eps", "v", "score"])
def test_weight_of_a_target_is_the_ratio_of_squared_errors(name, schedule, generator):
    # ||eps - eps_hat||^2 = e^lambda ||x - x_hat||^2 and alike, at the same z.
    z, x, x_hat, t = normal(generator, 1, 3), normal(generator, 1, 3), normal(generator, 1, 3), torch.tensor(0.4)
    convert = getattr(gaussian, f"{name}_from_x")
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    error = (convert(z, x, alpha, sigma) - convert(z, x_hat, alpha, sigma)).square().sum()
    torch.testing.assert_close(loss_weight(name, t, schedule) * (x - x_hat).square().sum(), error)


def test_weights_in_the_log_snr():
    schedule = CosineSchedule()
    log_snr = torch.linspace(-6, 6, 13, dtype=torch.float64)
    t = schedule.time(log_snr)
    snr = log_snr.exp()

    def close(name, expected):
        torch.testing.assert_close(loss_weight(name, t, schedule), expected, rtol=1e-8, atol=0)

    close("x", torch.ones_like(snr))
    close("eps", snr)
    close("v", snr + 1)  # Salimans & Ho 2022, "SNR+1"
    close("truncated_snr", snr.clamp(min=1))
    close("min_snr", snr.clamp(max=5))
    # On the error of v, min-SNR weighs min(SNR, gamma) / (SNR + 1), not / SNR.
    on_v = loss_weight("min_snr", t, schedule) / loss_weight("v", t, schedule)
    torch.testing.assert_close(on_v, snr.clamp(max=5) / (snr + 1), rtol=1e-8, atol=0)


@every_schedule
def test_elbo_weight_is_uniform_in_lambda_on_the_error_of_eps(schedule):
    # L = -(1/2) E_t[dlambda/dt e^lambda ||x - x_hat||^2] (Kingma et al. 2021): on ||eps - eps_hat||^2, 1/2 a unit of
    # lambda.
    t, h = torch.linspace(0.1, 0.9, 9, dtype=torch.float64), 1e-5
    slope = (schedule.log_snr(t + h) - schedule.log_snr(t - h)) / (2 * h)
    expected = -slope / 2 * loss_weight("eps", t, schedule)
    torch.testing.assert_close(loss_weight("elbo", t, schedule), expected, rtol=1e-6, atol=0)  # h^2 of the slope


def test_weighting_by_a_function_of_lambda(network, generator):
    x, noise, t = normal(generator, 4, 3), normal(generator, 4, 3), torch.tensor([0.2, 0.4, 0.6, 0.8])
    denoise = Denoiser(network, CosineSchedule())
    by_name = denoise.loss(x, t=t, noise=noise, weighting="eps")
    by_function = denoise.loss(x, t=t, noise=noise, weighting=torch.exp)
    torch.testing.assert_close(by_name.mean, by_function.mean)


@every_target
def test_loss_is_finite_in_float32_at_both_ends(target, generator):
    # Targets are formed from x and eps, so that no difference is divided by sigma = e^-10.
    network = Linear()
    for weighting in ("x", target):
        loss = Denoiser(network, CosineSchedule(), target).loss(
            torch.randn(2, 3, generator=generator), t=torch.tensor([0.0, 1.0]), weighting=weighting, generator=generator
        )
        assert loss.per_sample.isfinite().all()


@pytest.mark.parametrize("target", ["eps", "v"])
def test_float32_loss_agrees_with_float64(target, generator):
    x, noise, t = normal(generator, 5, 3), normal(generator, 5, 3), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    network = Linear()
    single = Denoiser(network, CosineSchedule(), target).loss(x.float(), t=t, noise=noise.float(), weighting=target)
    double = Denoiser(network.double(), CosineSchedule(), target).loss(x, t=t, noise=noise, weighting=target)
    # 1e-5: float32 rounds at 6e-8, over a handful of operations of order one.
    torch.testing.assert_close(single.per_sample.double(), double.per_sample, rtol=1e-5, atol=1e-5)


def test_loss_trains_towards_the_posterior_mean(generator):
    # Data of one point: the best linear x_hat is that point at every time, reached by gradient descent.
    network, point = Linear(2).double(), torch.tensor([[0.5, -0.25]], dtype=torch.float64)
    denoise = Denoiser(network, CosineSchedule(), "x")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        denoise.loss(point.expand(64, 2), generator=generator, weighting="x").mean.backward()
        optimizer.step()
    z = normal(generator, 16, 2)
    assert (denoise(z, 0.5) - point).abs().max() < 0.02  # what 300 noisy steps leave


def test_same_seed_same_loss_and_global_state_untouched(network):
    before = torch.get_rng_state()
    x, labels = torch.ones(8, 3, dtype=torch.float64), torch.ones(8, 10)
    denoise = Denoiser(network, CosineSchedule())
    losses = [denoise.loss(x, labels=labels, generator=torch.Generator().manual_seed(3)).mean for _ in range(2)]
    assert torch.equal(*losses)
    assert torch.equal(before, torch.get_rng_state())


def test_times_are_stratified(generator):
    t = stratified_times(1000, CosineSchedule(), generator)
    assert ((t * 1000).floor() == torch.arange(1000)).all()
    assert stratified_times(4, LinearSchedule(), generator).min() >= LinearSchedule.t_min


# ---- conditions ---------------------------------------------------------------------------------------------------


def test_network_gets_only_the_conditions_there_are(network, generator):
    denoise, z = Denoiser(network, CosineSchedule()), normal(generator, 2, 3)
    labels, mask = torch.ones(2, 10), torch.ones(4, 4, dtype=torch.bool)
    denoise(z, 0.5)
    denoise.given(labels)(z, 0.5)
    denoise(z, 0.5, labels, frame_mask=mask)
    conditions = [set(call[2]) for call in network.calls]
    assert conditions == [set(), {"labels"}, {"labels", "frame_mask"}]


def test_network_gets_the_log_snr_per_sample(network, generator):
    denoise, z = Denoiser(network, CosineSchedule()), normal(generator, 2, 3)
    denoise(z, 0.5)
    log_snr = network.calls[-1][1]
    assert log_snr.shape == (2,) and log_snr.dtype == z.dtype
    torch.testing.assert_close(log_snr, CosineSchedule().log_snr(0.5).expand(2))


def test_given_binds_one_label_for_all_samples(network, generator):
    denoise, z = Denoiser(network, CosineSchedule()), normal(generator, 4, 3)
    bound = denoise.given(torch.ones(1, 10))
    bound(z, 0.5)
    assert network.calls[-1][2]["labels"].shape == (4, 10)
    assert bound.schedule is denoise.schedule
    torch.testing.assert_close(denoise.given(None)(z, 0.5), denoise(z, 0.5))


def test_labels_are_dropped_by_whole_samples(generator):
    labels = torch.ones(4000, 2, 10)
    kept = drop_labels(labels, 0.1, generator).flatten(1)
    share = (kept == 0).all(1).double().mean()
    assert ((kept == 0).all(1) | (kept == 1).all(1)).all()
    assert abs(share - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 4000)  # four standard errors


def test_denoiser_is_differentiable_in_z(network, generator):
    z = normal(generator, 2, 3).requires_grad_()
    Denoiser(network, CosineSchedule()).given(torch.ones(1, 10))(z, 0.5).sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0


# ---- precision, devices, bad input --------------------------------------------------------------------------------


def test_autocast_keeps_the_diffusion_arithmetic_in_float32(generator):
    denoise = Denoiser(Linear(), CosineSchedule())
    x = torch.randn(4, 3, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = denoise.loss(x, generator=generator)
        x_hat = denoise(x, 0.5)
    assert loss.mean.dtype == torch.float32 and x_hat.dtype == torch.float32
    loss.mean.backward()
    # bfloat16 has 8 bits: the network's own output is off by a few times 2^-8, the rest adds nothing to that.
    assert (x_hat - denoise(x, 0.5)).abs().max() < 0.03


def test_videos_pass_through(generator):
    class Zero(nn.Module):
        def forward(self, z, log_snr):
            return torch.zeros_like(z)

    denoise = Denoiser(Zero(), CosineSchedule())
    z = torch.randn(2, 1, 4, 8, 8, generator=generator)
    t = torch.tensor([0.2, 0.7])
    expected = z * CosineSchedule().alpha(t).float().reshape(2, 1, 1, 1, 1)  # x_hat = alpha z - sigma 0
    torch.testing.assert_close(denoise(z, t), expected)
    assert sample(denoise, z, 3).shape == z.shape


def test_bad_input_is_named(network):
    denoise, x = Denoiser(network, CosineSchedule()), torch.zeros(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="target"):
        Denoiser(network, CosineSchedule(), "noise")
    with pytest.raises(ValueError, match="sigma_data"):
        Denoiser(network, CosineSchedule(), "edm", sigma_data=0)
    with pytest.raises(ValueError, match="weighting"):
        denoise.loss(x, weighting="snr")
    with pytest.raises(ValueError, match="label_drop"):
        denoise.loss(x, label_drop=2)
    with pytest.raises(ValueError, match="shape"):
        denoise.loss(x, noise=torch.zeros(3))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        denoise(x, 1.5)
    with pytest.raises(TypeError, match="x: expected floating-point values, got torch.uint8; 8-bit pixels"):
        denoise.loss(torch.zeros(4, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="labels for 1 or 4"):
        denoise.given(torch.ones(3, 10))(x, 0.5)


@pytest.mark.parametrize("wrong", [lambda x: (x + 1) * 127.5, lambda x: x * float("nan")])
def test_data_outside_their_range_are_refused(network, generator, wrong):
    denoise = Denoiser(network, CosineSchedule(), bounds=(-1.0, 1.0))
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    assert denoise.loss(x, generator=generator).mean.isfinite()
    with pytest.raises(DataRangeError, match=r"data in \[-1.0, 1.0\], got (0 to 255|nan)"):
        denoise.loss(wrong(x))
