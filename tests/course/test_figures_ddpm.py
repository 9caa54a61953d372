"""Lesson 04, DDPM's part: variances of a step, bytes, and the drawings."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import gaussian
from minivdm.course.notebook.figures import ddpm, elbo
from minivdm.exact import bound


def test_posterior_variance_gives_the_bound_of_the_package(generator) -> None:
    x, _ = elbo.world().sample(4096, generator)
    exact = bound.discrete_bound(elbo.world().denoiser(elbo.SCHEDULES["cosine"]), x, 64, 2, generator)
    # The bound is 17 nats, most of it in the last tooth; both carry about 2 % of sampling error.
    assert abs(ddpm.bounds_by_variance(64)["posterior"] / exact.total.mean().item() - 1) < 0.05


@pytest.mark.parametrize("which", ["posterior", "transition", "best"])
def test_price_of_a_step_for_any_variance_is_a_kl(which: str, generator) -> None:
    schedule, s, t, d = elbo.SCHEDULES["cosine"], 0.45, 0.5, 2
    x, _ = elbo.world().sample(5, generator)
    z = gaussian.diffuse(x, t, schedule, generator=generator)
    x_hat = elbo.world().denoiser(schedule)(z, t)
    true, guess = gaussian.posterior(z, x, s, t, schedule), gaussian.posterior(z, x_hat, s, t, schedule)
    price = bound.gaussian_kl(true.mean, true.variance, guess.mean, true.variance)  # (4.6)
    own = {
        "posterior": true.variance,
        "transition": gaussian.transition(s, t, schedule).variance,
        "best": true.variance * (1 + 2 * price.mean() / d),
    }[which]
    ratio = true.variance / own
    formula = d / 2 * (ratio - 1 - ratio.log()) + ratio * price
    assert torch.allclose(formula, bound.gaussian_kl(true.mean, true.variance, guess.mean, own), atol=1e-12)
    if which == "best":  # no other variance is cheaper on average
        for other in (0.9 * own, 1.1 * own):
            worse = bound.gaussian_kl(true.mean, true.variance, guess.mean, other).mean()
            assert formula.mean() < worse


def test_betas_of_ddpm_are_the_variances_of_the_two_transitions() -> None:
    schedule = elbo.SCHEDULES["cosine"]
    s, t = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    bar_s, bar_t = schedule.alpha(s) ** 2, schedule.alpha(t) ** 2
    beta = 1 - bar_t / bar_s
    assert abs(gaussian.transition(s, t, schedule).variance - beta) < 1e-12  # float64
    z = torch.zeros(1, 1, dtype=torch.float64)
    assert abs(gaussian.posterior(z, z, s, t, schedule).variance - (1 - bar_s) / (1 - bar_t) * beta) < 1e-12
    weight = torch.expm1(schedule.log_snr(s) - schedule.log_snr(t)) / 2  # of the error of the noise
    assert abs(weight - beta / (2 * (1 - beta) * (1 - bar_s))) < 1e-9 * weight


def test_best_variance_is_never_dearer() -> None:
    for schedule in elbo.SCHEDULES:
        for steps in (4, 32, 512):
            found = ddpm.bounds_by_variance(steps, schedule)
            assert found["best"] <= min(found.values())


def test_bytes_cost_eight_bits_where_nothing_is_known(generator) -> None:
    # One value, uniform over the 256 bytes, and its exact denoiser: the bound of a perfect model is its entropy.
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    x = values[torch.randint(256, (1500, 1), generator=generator)]
    log_snr = torch.linspace(-12, 13, 101, dtype=torch.float64)
    h = []
    for level in log_snr.tolist():
        seen = x + math.exp(-level / 2) * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x_hat = torch.softmax(-((seen - values) ** 2) * math.exp(level) / 2, dim=1) @ values[:, None]
        h.append(((x - x_hat) ** 2).mean() * math.exp(level) / 2)
    nats = torch.trapezoid(torch.stack(h), log_snr) + ddpm.byte_reconstruction(x.float(), 13.0, generator).mean()
    # 101 levels of independent noise, each known to a few per cent of at most 0.5: about 0.05 nats in all
    assert abs(nats - math.log(256)) < 0.15


def test_drawings_take_plain_numbers() -> None:
    assert isinstance(ddpm.by_variance("cosine", steps=(4, 8)), Figure)
    made = ddpm.bits(torch.tensor([0.0, 1.0]), torch.tensor([[1.0], [1.0]]))
    assert made.axes[1].lines[0].get_ydata().tolist() == pytest.approx([1 / math.log(2)])
