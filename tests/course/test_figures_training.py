"""The drawings of lesson 09, and the closed forms that its training loop is held against."""

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import samplers
from minivdm.core.denoiser import Denoiser
from minivdm.core.schedules import CosineSchedule
from minivdm.course.notebook.figures import optimization as steps
from minivdm.course.notebook.figures import training as fig
from minivdm.training import Trainer, monitor, muon
from minivdm.training.recipe import Recipe

SCHEDULE = CosineSchedule()


def tiny(**changes):
    """A recipe whose network has a few thousand weights."""
    network = {"width": 8, "multipliers": [1], "patch": 2, "middle": 1, "spatial": [True], "temporal": [True],
               "head_channels": 8, "embedding": 16, "labels": 10}  # fmt: skip
    return Recipe.from_dict(
        {"size": 16, "frames": 2, "batch": 4, "clips": 24, "speed": 1.0, "network": network, **changes}
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def curves():
    """A training whose loss falls, with the shape over log-SNR that the real one has; one bin is once empty."""
    where, clips = fig.levels(), np.arange(400.0, 8_001, 400)
    loss = (0.03 + 0.002 * where**2) * (1 + 800 / clips[:, None])
    loss[3, 0] = np.nan
    counts = np.round(1000 * fig.share_of_bins(SCHEDULE)) * np.ones((len(clips), 1))
    counts[3, 0] = 0
    return {
        "train": {
            "clips": clips,
            "loss": np.nanmean(loss, 1),
            "loss_by_log_snr": loss,
            "count_by_log_snr": counts,
            "lr": np.linspace(1, 0, len(clips)),
        },
        "held_out": {},
    }


@pytest.fixture
def results():
    """What the benchmark writes, with numbers made up."""

    def runs(error, looks=1):
        row = {"ema": [0.05, 0.05, 0.04, error, 0.01, 0.003], "raw": [0.05, 0.05, 0.04, 1.2 * error, 0.01, 0.003]}
        return {
            "changes": {},
            "runs": [{"seed": s, "curve": [{"clips": 100 * (k + 1), **row} for k in range(looks)]} for s in range(3)],
        }

    names = {"base": 0.02, "muon 0.004": 0.03, "adamw 0.004": 0.05, "adamw 0.008": 0.04, "no decay": 0.025}
    return {
        "held_out": {"log_snr": list(monitor.HELD_OUT_LOG_SNR)},
        "base": {"optimizer": "muon", "lr": 0.016},
        "variants": {name: runs(error, 2 if name in ("base", "no decay") else 1) for name, error in names.items()},
    }


# ---- the loss ----------------------------------------------------------------------------------------------


def test_error_of_v_is_that_of_x_plus_that_of_eps():
    where = np.linspace(-12, 12, 25)
    assert np.allclose(fig.share_of_v(where, "x") + fig.share_of_v(where, "eps"), 1, atol=1e-15)
    alpha2 = SCHEDULE.alpha(SCHEDULE.time(torch.tensor(where))).numpy() ** 2
    assert np.allclose(fig.share_of_v(where, "eps"), alpha2, atol=1e-12)  # float64, through time and back
    with pytest.raises(ValueError, match="expected an error out of"):
        fig.share_of_v(where, "score")


def test_untrained_loss_is_half_of_one_plus_the_mean_square():
    config = tiny(images=0)
    network = config.make_network()
    x = torch.rand((4_000, 1, 2, 16, 16), generator=generator()) * 2 - 1
    loss = Denoiser(network, SCHEDULE).loss(x, generator=generator()).mean
    # Stratified times leave the noise of 2 million v^2, whose standard deviation is about 1.4: 0.001.
    assert abs(loss - (1 + x.square().mean()) / 2) < 4e-3


def test_share_of_bins_is_the_arctangent_formula():
    edges = np.array(monitor.EDGES)
    below = 2 / math.pi * np.arctan(np.exp(-edges / 2))
    shares = fig.share_of_bins(SCHEDULE)
    assert np.allclose(shares[1:-1], below[:-1] - below[1:], atol=1e-4)  # the truncation at 20 moves t by 3e-5
    assert abs(shares.sum() - 1) < 1e-12


def test_density_of_log_snr_is_a_hyperbolic_secant():
    h, where = 1e-4, torch.linspace(-8, 8, 33, dtype=torch.float64)
    density = (SCHEDULE.time(where - h) - SCHEDULE.time(where + h)) / (2 * h)
    # The truncation at 20 stretches t by 1 part in 17,000; the density is at most 0.16.
    assert (density - 1 / (2 * math.pi * torch.cosh(where / 2))).abs().max() < 2e-5


def test_error_of_v_at_pure_noise_is_at_least_the_variance_of_the_data():
    x = torch.rand((2_000, 1, 1, 4, 4), generator=generator()).square() * 2 - 1
    best = x.mean(0, keepdim=True)

    class Mean(torch.nn.Module):  # v_hat of the denoiser that always answers the mean, at sigma = 1
        def forward(self, z, log_snr):
            return -best.expand_as(z)

    loss = Denoiser(Mean(), SCHEDULE).loss(x, t=torch.ones(len(x)), generator=generator()).mean
    # alpha = e^-10 and 32,000 values of variance 0.36 whose mean is their own.
    assert abs(loss - (x - best).square().mean()) < 1e-4


def test_loss_at_weighs_rows_by_their_counts(curves):
    train = curves["train"]
    early = fig.loss_at(train, 1_600, 1.3)  # rows of 1,600 and 2,000 clips; the former has an empty first bin
    assert np.isclose(early[0], train["loss_by_log_snr"][4, 0])
    assert np.isclose(early[5], train["loss_by_log_snr"][3:5, 5].mean())
    assert np.isfinite(fig.loss_at(train, 10.0)).all()  # before the first row: that row


# ---- times -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 8])
def test_spread_of_a_mean_over_times_for_a_line(n):
    independent, stratified = fig.spread_of_mean(lambda t: t, n)
    assert abs(independent - math.sqrt(1 / 12 / n)) < 1e-6  # the midpoint rule at 40,000 points
    assert abs(stratified - math.sqrt(1 / 12 / n**3)) < 1e-6


def test_stratifying_removes_the_variance_between_strata(curves):
    loss, n = fig.loss_of_time(curves["train"], SCHEDULE), 8
    independent, stratified = fig.spread_of_mean(loss, n)
    t = (np.arange(40_000) + 0.5) / 40_000
    between = loss(t).reshape(n, -1).mean(1).var()
    assert abs(stratified**2 - (independent**2 - between / n)) < 1e-12  # total variance, the same sums


# ---- rate and averaging ------------------------------------------------------------------------------------


def test_descent_is_its_recursion():
    path, mean = steps.descent(0.1, 0.9, 3, curvature=2.0, noise=0.5, start=1.0, generator=generator())
    xi = torch.randn(3, 1, generator=generator(), dtype=torch.float64)[:, 0]
    theta = average = 1.0
    for k in range(3):
        theta = theta - 0.1 * (2.0 * theta + 0.5 * xi[k])
        average = 0.9 * average + 0.1 * theta
        assert abs(path[0, k] - theta) < 1e-12 and abs(mean[0, k] - average) < 1e-12


@pytest.mark.parametrize(("lr", "decay", "curvature"), [(0.3, 0.98, 1.0), (0.05, 0.9, 2.0), (1.6, 0.95, 1.0)])
def test_spreads_at_rest(lr, decay, curvature):
    path, mean = steps.descent(lr, decay, 800, walks=8_000, curvature=curvature, noise=0.7, generator=generator())
    expected = (steps.spread_of_weights(lr, curvature, 0.7), steps.spread_of_average(lr, decay, curvature, 0.7))
    for found, std in zip((path, mean), expected, strict=True):
        assert abs(found[:, -1].std() / std - 1) < 0.03  # 8,000 walks: 1 / sqrt(16,000) = 0.8 %, four times over


def test_long_averages_forget_the_rate():
    decay = 0.9999
    limit = math.sqrt((1 - decay) / 2)  # times noise / curvature
    for lr in (0.1, 0.3):
        assert abs(steps.spread_of_average(lr, decay) / limit - 1) < 0.01  # corrections of order (1 - decay) / lr


def test_weight_of_the_start_telescopes():
    n = 40
    exact = Fraction(math.factorial(10) * math.factorial(n + 1), math.factorial(n + 10))
    assert math.isclose(steps.weight_of_start(n, 0.999), float(exact), rel_tol=1e-12)


def test_weight_of_the_start_is_what_the_loop_keeps():
    trainer = Trainer(tiny(ema_decay=0.5))
    for p in trainer.network.parameters():
        p.data.zero_()
    start = [p.clone() for p in trainer.ema.parameters()]
    for step in range(1, 5):
        trainer.steps = step
        trainer.update_ema()
    share = steps.weight_of_start(4, 0.5)
    for p, q in zip(trainer.ema.parameters(), start, strict=True):
        torch.testing.assert_close(p, share * q, rtol=1e-5, atol=1e-7)  # four float32 interpolations


def test_half_life():
    assert abs(0.97 ** steps.half_life(0.97) - 0.5) < 1e-12


def test_small_updates_are_lost_in_bfloat16():
    weight = torch.tensor(1.0, dtype=torch.bfloat16)
    assert weight + 2**-8 * 0.99 == weight  # less than half of the spacing 2^-7 above 1
    assert weight + 2**-8 * 1.1 > weight


# ---- Muon, clipping, sampling, several processes -----------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (12, 12)])
def test_muon_sends_singular_values_through_the_polynomial(shape):
    gradient = torch.randn(shape, generator=generator())
    before = torch.linalg.svdvals(gradient.double())
    expected = steps.quintic(before / before.norm()).sort(descending=True).values
    after = torch.linalg.svdvals(muon.newton_schulz(gradient[None])[0].double())
    assert (after - expected).abs().max() < 1e-4  # float32 through five iterations


def test_muons_direction_is_the_steepest_within_the_spectral_norm():
    gradient = torch.randn(6, 9, generator=generator(), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(gradient, full_matrices=False)
    best = -(u @ vh)
    assert abs((gradient * best).sum() + s.sum()) < 1e-12  # float64 rounding
    for seed in range(20):
        other = torch.randn(6, 9, generator=generator(seed), dtype=torch.float64)
        other /= torch.linalg.matrix_norm(other, 2)
        assert (gradient * other).sum() > (gradient * best).sum()


def test_adamw_without_averages_steps_along_the_sign_and_decays_by_itself():
    weight = torch.tensor([2.0, -2.0, 0.5], requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=0.1, betas=(0.0, 0.0), weight_decay=0.5)
    weight.grad = torch.tensor([3.0, -0.01, 0.2])
    expected = weight.detach() * (1 - 0.1 * 0.5) - 0.1 * weight.grad.sign()
    optimizer.step()
    assert (weight - expected).abs().max() < 1e-6  # epsilon is 1e-8 against 0.01


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_shortens_and_keeps_the_direction(limit):
    p = torch.nn.Parameter(torch.zeros(100))
    p.grad = torch.randn(100, generator=generator())
    before = p.grad.clone()
    torch.nn.utils.clip_grad_norm_([p], limit)
    expected = before * min(1.0, limit / before.norm())
    assert (p.grad - expected).abs().max() < 1e-6  # torch divides by the norm plus 1e-6


@pytest.mark.parametrize("steps", [4, 32])
def test_untrained_network_returns_its_noise(steps):
    config = tiny(images=0)
    denoise = Denoiser(config.make_network().eval(), SCHEDULE)
    noise = torch.randn((1, 1, 2, 16, 16), generator=generator())
    clip = samplers.sample(denoise.given(None), noise, steps)
    first, last = float(SCHEDULE.angle(0.0)), float(SCHEDULE.angle(1.0))
    turn = (last - first) / steps
    factor = math.cos(turn) ** (steps - 1) * math.cos(first + turn)
    assert (clip - factor * noise).abs().max() < 1e-5 * steps  # float32 rounding of each step


def test_mean_of_the_shares_gradients_is_the_gradient_of_the_whole():
    trainer = Trainer(tiny(images=0, frames=2, batch=8))
    for _ in range(2):  # past the zero-initialised head, which lets no gradient through
        trainer.step()
    video, conditions, _ = trainer.batch(trainer.config.phases()[0])
    labels = conditions["labels"]
    t, noise, _ = trainer.draw(trainer.config.phases()[0], video.shape)

    def gradient(rows):
        loss = trainer.denoiser.loss(video[rows], labels=labels[rows], label_drop=0.0, t=t[rows], noise=noise[rows])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean, trainer.params)])

    parts = [gradient(slice(k, k + 2)) for k in range(0, 8, 2)]
    whole = gradient(slice(0, 8))
    assert (sum(parts) / 4 - whole).abs().max() < 1e-5 * whole.abs().max() + 1e-7  # sums in another order


# ---- drawings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        lambda curves: fig.loss_by_log_snr(800, "v", curves),
        lambda curves: fig.loss_by_log_snr(8_000, "x", curves),
        lambda curves: fig.loss_over_clips(curves, Recipe(clips=8_000, frames=[[2_000, 4, 16], [8_000, 16, 8]])),
        lambda curves: fig.stratified(8, curves),
        lambda curves: steps.lr_schedule(2_000, 0.1),
        lambda curves: steps.averaging(0.3, 50),
        lambda curves: steps.singular_values(torch.randn(8, 20, generator=generator())),
        lambda curves: fig.error_by_stage(np.array([0, 10, 100]), np.array([-2.0, 0.0]), np.full((3, 2), 0.1)),
    ],
)
def test_draws_a_figure(draw, curves):
    before = copy.deepcopy(curves)
    assert isinstance(draw(curves), Figure)
    np.testing.assert_equal(curves, before)


def test_loss_drawn_is_the_loss_read(curves):
    lines = fig.loss_by_log_snr(1_600, "eps", curves).axes[0].lines
    expected = fig.share_of_v(fig.levels(), "eps") * fig.loss_at(curves["train"], 1_600)
    np.testing.assert_allclose(lines[1].get_ydata(), expected)


def test_schedule_drawn_is_the_loops():
    line = steps.lr_schedule(2_000, 0.1, 10_000).axes[0].lines[0]
    config = Recipe(lr=1.0, warmup=2_000, lr_end=0.1, clips=10_000)
    for clips, rate in zip(line.get_xdata()[::100], line.get_ydata()[::100], strict=True):
        assert rate == config.lr_at(int(clips))


def test_tricks_are_drawn_relative_to_the_base(results):
    axes = steps.tricks(results).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["raw weights instead of the average", "no decay"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), 1.2)
    np.testing.assert_allclose(axes.lines[1].get_xdata(), 1.25)


def test_optimizers_are_drawn_over_their_rates(results):
    left, right = steps.optimizers(results).axes
    assert list(left.lines[0].get_xdata()) == [0.004, 0.016]  # Muon, the base's own rate among them
    np.testing.assert_allclose(left.lines[0].get_ydata(), [0.03, 0.02])
    assert len(right.lines) == 4
