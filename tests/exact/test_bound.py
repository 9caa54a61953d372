"""The variational bound against closed forms: a Gaussian world, a mixture's exact likelihood, torch's own KL."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from minivdm.core.denoiser import Denoiser
from minivdm.core.gaussian import diffuse, noise_like, posterior
from minivdm.core.schedules import CosineSchedule, LinearSchedule, VESchedule
from minivdm.exact import GaussianMixture, bound

COSINE = CosineSchedule(-10, 10)
ENDS = {  # three roads between the same two log-SNRs
    "cosine": COSINE,
    "shifted": CosineSchedule(-14, 6, shift=4),
    "exploding": VESchedule(math.exp(-5), math.exp(5)),
}
WORLD = GaussianMixture.ring()
GAUSSIAN = GaussianMixture(torch.ones(1), torch.zeros(1, 3), 0.5)  # N(0, 0.5^2 I) in three dimensions
PLACES = {"time": bound.by_time, "log_snr": bound.by_log_snr}


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


# ---- the terms ---------------------------------------------------------------------------------------------


def test_kl_agrees_with_torch(generator) -> None:
    mean_q, mean_p = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    variance_q, variance_p = torch.rand(2, 5, generator=generator, dtype=torch.float64) + 0.1
    q, p = (
        Independent(Normal(mean, variance.sqrt()[:, None, None].expand(5, 3, 4)), 2)
        for mean, variance in ((mean_q, variance_q), (mean_p, variance_p))
    )
    ours = bound.gaussian_kl(mean_q, variance_q, mean_p, variance_p)
    assert (ours - kl_divergence(q, p)).abs().max() < 1e-11  # float64 rounding of values around 100


def test_kl_vanishes_for_equal_gaussians_only() -> None:
    mean = torch.ones(1, 2)
    assert bound.gaussian_kl(mean, 0.3, mean, 0.3).item() == 0
    assert bound.gaussian_kl(mean, 0.3, mean, 0.31).item() > 0


def test_prior_term_of_a_preserving_schedule(generator) -> None:
    x = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    alpha, sigma = COSINE.alpha(1.0), COSINE.sigma(1.0)
    q = Independent(Normal(alpha * x, sigma.expand(4, 2)), 1)
    p = Independent(Normal(torch.zeros(4, 2).double(), torch.ones(4, 2).double()), 1)
    # 1e-12: the variance part, (sigma^2 - 1 - log sigma^2), is itself the rounding of a difference
    assert (bound.prior_term(x, COSINE) - kl_divergence(q, p)).abs().max() < 1e-12


def test_prior_term_of_an_exploding_schedule(generator) -> None:
    x = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    # r = 2500 / 2501: r - 1 - log r is 8e-8, the rounding of a difference of numbers near 1
    ratio = 2500 / 2501
    expected = (x**2).sum(1) / (2 * 2501) + (ratio - 1 - math.log(ratio))
    assert (bound.prior_term(x, VESchedule(0.01, 50.0)) - expected).abs().max() < 1e-14


def test_reconstruction_term_is_the_expected_code_length(generator) -> None:
    x = torch.randn(1, 2, generator=generator, dtype=torch.float64).expand(100_000, 2)
    schedule = CosineSchedule(-3, 1)
    z = diffuse(x, 0.0, schedule, generator=generator)
    std = schedule.sigma(0.0) / schedule.alpha(0.0)
    sampled = -Independent(Normal(z / schedule.alpha(0.0), std.expand(1, 2)), 1).log_prob(x)
    mean, error = mean_and_error(sampled)
    assert abs(bound.reconstruction_term(x, schedule)[0].item() - mean) < 4 * error


@pytest.mark.parametrize("s, t", [(0.0, 0.1), (0.4, 0.41), (0.3, 1.0)])
def test_step_term_is_the_kl_of_two_posteriors(s: float, t: float) -> None:
    x, _ = WORLD.sample(64, torch.Generator().manual_seed(1))
    denoise = WORLD.denoiser(COSINE)
    ours = bound.step_term(denoise, x, s, t, torch.Generator().manual_seed(2))
    z = diffuse(x, t, COSINE, noise_like(x, torch.Generator().manual_seed(2)))
    true, guess = posterior(z, x, s, t, COSINE), posterior(z, denoise(z, t), s, t, COSINE)
    kl = bound.gaussian_kl(true.mean, true.variance, guess.mean, guess.variance)
    # relative: at small t the means differ by little of their size, and the difference loses digits
    assert ((ours - kl).abs() / kl).max() < 1e-7


def test_integrand_is_the_error_of_the_noise() -> None:
    x, _ = WORLD.sample(64, torch.Generator().manual_seed(1))
    ours = bound.nats_per_log_snr(WORLD.denoiser(COSINE), x, 0.4, torch.Generator().manual_seed(2))
    eps = noise_like(x, torch.Generator().manual_seed(2))
    z = diffuse(x, 0.4, COSINE, eps)
    eps_hat = -COSINE.sigma(0.4) * WORLD.score(z, COSINE.alpha(0.4), COSINE.sigma(0.4))
    assert (ours - ((eps - eps_hat) ** 2).sum(1) / 2).abs().max() < 1e-10


# ---- the whole, in a world of one Gaussian -----------------------------------------------------------------


def gaussian_error(log_snr: torch.Tensor) -> torch.Tensor:
    """E ||x - x_hat||^2 = d s^2 / (1 + SNR s^2)."""
    return 3 * 0.25 / (1 + 0.25 * log_snr.exp())


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("stratified", [False, True])
def test_continuous_bound_of_a_gaussian(name: str, place: str, stratified: bool, generator) -> None:
    x, _ = GAUSSIAN.sample(4000, generator)
    denoise = GAUSSIAN.denoiser(ENDS[name])
    diffusion = bound.continuous_bound(denoise, x, 8, PLACES[place], stratified, generator).diffusion
    expected = 1.5 * math.log((1 + 0.25 * math.exp(10)) / (1 + 0.25 * math.exp(-10)))
    mean, error = mean_and_error(diffusion)
    assert abs(mean - expected) < 4 * error


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_discrete_bound_of_a_gaussian(steps: int, generator) -> None:
    x, _ = GAUSSIAN.sample(4000, generator)
    schedule = CosineSchedule(-4, 4)
    log_snr = schedule.log_snr(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    expected = (log_snr.exp().diff() * gaussian_error(log_snr[:-1])).sum().item() / 2
    result = bound.discrete_bound(GAUSSIAN.denoiser(schedule), x, steps, 2, generator)
    mean, error = mean_and_error(result.diffusion)
    assert abs(mean - expected) < 4 * error
    assert torch.equal(result.total, result.prior + result.diffusion + result.reconstruction)


def test_more_steps_tighten_the_bound_towards_the_integral(generator) -> None:
    x, _ = WORLD.sample(4000, generator)
    denoise = WORLD.denoiser(CosineSchedule(-5, 5))
    totals = [bound.discrete_bound(denoise, x, steps, 2, generator).total for steps in (4, 16, 64, 256)]
    limit = bound.continuous_bound(denoise, x, 64, generator=generator).total
    values = [value.mean().item() for value in (*totals, limit)]
    assert values == sorted(values, reverse=True)
    # A Riemann sum's error is of first order in 1 / T: four times the steps, a quarter of the excess, up to noise.
    assert 3 < (values[1] - values[4]) / (values[2] - values[4]) < 6


# ---- the whole, against the mixture's likelihood -----------------------------------------------------------

BROADER = GaussianMixture.ring(std=0.2)


def single_gaussian() -> GaussianMixture:
    """The one Gaussian with the ring's moments: variance radius^2 / 2 + std^2 in each direction."""
    return GaussianMixture(torch.ones(1), torch.zeros(1, 2), math.sqrt(0.5 + 0.01))


def test_the_bound_is_tight_for_the_exact_denoiser(generator) -> None:
    x, _ = WORLD.sample(8192, generator)
    denoise = WORLD.denoiser(COSINE)
    times = bound.ByImportance(denoise, x[:1024], generator=generator)
    gap = bound.continuous_bound(denoise, x, 64, times, generator=generator).total + WORLD.log_prob(x)
    mean, error = mean_and_error(gap)
    assert error < 0.02
    # The ends at lambda = 10 and -10 leave (1/2) E[-laplacian log q] e^-10 = 0.0045 nats, below the noise.
    assert abs(mean) < 3 * error + 0.005


@pytest.mark.parametrize("schedule", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("model", [WORLD, BROADER, single_gaussian()], ids=["exact", "broader", "gaussian"])
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_never_below_the_exact_likelihood(schedule, model, kind: str, generator) -> None:
    x, _ = WORLD.sample(2048, generator)
    denoise = model.denoiser(schedule)
    if kind == "continuous":
        total = bound.continuous_bound(denoise, x, 32, generator=generator).total
    else:
        total = bound.discrete_bound(denoise, x, 48, 2, generator).total
    mean, error = mean_and_error(total + WORLD.log_prob(x))
    assert mean > -3 * error  # 18 cases; three standard errors in all of them


@pytest.mark.parametrize("model", [BROADER, single_gaussian()], ids=["broader", "gaussian"])
def test_a_denoiser_of_another_law_pays_the_kl_to_that_law(model, generator) -> None:
    x, _ = WORLD.sample(8192, generator)
    total = bound.continuous_bound(model.denoiser(COSINE), x, 64, generator=generator).total
    mean, error = mean_and_error(total + model.log_prob(x))  # pointwise: the bound on x is -log p_model(x)
    assert abs(mean) < 4 * error + 0.005
    kl = (WORLD.log_prob(x) - model.log_prob(x)).mean().item()
    assert kl > 10 * error  # and it shows


def test_at_one_point_the_bound_is_the_exact_likelihood(generator) -> None:
    # Off the ring, where -log p is large: a bound that was tight on average only would fail here.
    for point in ([1.2, 0.1], [0.5, 0.5]):
        x = torch.tensor([point], dtype=torch.float64)
        total = bound.continuous_bound(WORLD.denoiser(COSINE), x.expand(8192, 2), 32, generator=generator).total
        mean, error = mean_and_error(total)
        assert abs(mean + WORLD.log_prob(x).item()) < 4 * error


def test_what_a_latent_knows_grows_by_half_the_squared_error(generator) -> None:
    # D = KL(q(z | x) || q(z)) at one x, and dD/dSNR = (1/2) E||x - E[x | z]||^2: Guo et al. 2005, Kong et al. 2023.
    x = torch.tensor([[0.9, 0.2]], dtype=torch.float64).expand(100_000, 2)
    eps = noise_like(x, generator)
    alpha = torch.ones(())

    def knows(snr: float) -> torch.Tensor:
        sigma = torch.as_tensor(snr).double() ** -0.5
        log_q = -(eps**2).sum(1) / 2 - 2 * sigma.log() - math.log(2 * math.pi)
        return log_q - WORLD.log_prob(x + sigma * eps, alpha, sigma)

    for snr in (0.5, 4.0, 60.0):
        slope = (knows(1.01 * snr) - knows(0.99 * snr)) / (0.02 * snr)  # the same eps in both
        sigma = torch.tensor(snr).double() ** -0.5
        error = (x - WORLD.posterior_mean(x + sigma * eps, alpha, sigma)).square().sum(1) / 2
        mean, noise = mean_and_error(slope - error)
        # 1e-3 of the error: the central difference's own, of second order in the 1 % that SNR is moved
        assert abs(mean) < 4 * noise + 1e-3 * error.mean().item()


def test_the_gap_is_the_denoisers_distance_from_the_exact_one(generator) -> None:
    x, _ = WORLD.sample(8192, generator)
    wrong, exact = BROADER.denoiser(COSINE), WORLD.denoiser(COSINE)
    total = bound.continuous_bound(wrong, x, 32, generator=generator).total + WORLD.log_prob(x)
    gap, noise = mean_and_error(total)
    t, width = bound.by_log_snr((torch.arange(8192).double() + 0.5) / 8192, COSINE)
    z = diffuse(x, t, COSINE, generator=generator)
    distance = (wrong(z, t) - exact(z, t)).square().sum(1)
    excess, error = mean_and_error(width * COSINE.log_snr(t).exp() * distance / 2)
    assert abs(gap - excess) < 4 * math.hypot(noise, error) + 0.005


def test_variance_of_an_estimate_is_that_of_its_formula(generator) -> None:
    # Var[h / p] = integral of E[h^2] / p - L^2; for eps_hat = 0, h = ||eps||^2 / 2 has E h = 1 and E h^2 = 2 at d = 2.
    class Nothing:
        schedule = COSINE

        def __call__(self, z, t):
            return z / COSINE.alpha(t)[:, None]  # x_hat = z / alpha: the guess that there is no noise

    x, _ = WORLD.sample(20_000, generator)
    for times, reciprocal in ((bound.by_log_snr, 20.0), (bound.by_time, None)):
        result = bound.continuous_bound(Nothing(), x, 2, times, False, generator)
        _, inverse = times((torch.arange(100_000).double() + 0.5) / 100_000, COSINE)
        second = 2 * inverse.mean() * reciprocal if reciprocal else 2 * (inverse**2).mean()
        expected = (second - 20.0**2) / 2  # two draws
        assert abs(result.diffusion.var() / expected - 1) < 0.15  # a variance's own error: heavy tails, 20,000 values


def test_schedules_with_the_same_ends_have_the_same_bound(generator) -> None:
    x, _ = WORLD.sample(8192, generator)
    results = [
        mean_and_error(bound.continuous_bound(WORLD.denoiser(s), x, 32, generator=generator).total)
        for s in ENDS.values()
    ]
    for mean, error in results[1:]:
        assert abs(mean - results[0][0]) < 4 * math.hypot(error, results[0][1])


# ---- where the times are placed ----------------------------------------------------------------------------


@pytest.mark.parametrize("place", [*PLACES, "importance"])
@pytest.mark.parametrize("schedule", [*ENDS.values(), LinearSchedule()], ids=[*ENDS, "linear"])
def test_times_integrate_to_the_range_of_log_snr(place: str, schedule, generator) -> None:
    if place == "importance":
        x, _ = WORLD.sample(64, generator)
        times = bound.ByImportance(WORLD.denoiser(schedule), x, generator=generator)
    else:
        times = PLACES[place]
    u = (torch.arange(200_000).double() + 0.5) / 200_000
    t, inverse_density = times(u, schedule)
    assert bool((t.diff() >= 0).all()) and t[0] >= 0 and t[-1] <= 1
    width = (schedule.log_snr(schedule.t_min) - schedule.log_snr(1.0)).item()
    # Midpoints of an integrand that grows like 1 / u towards its clean end, and steps where it has bins.
    assert abs(inverse_density.mean().item() / width - 1) < 0.01


def test_importance_beats_uniform_log_snr_beats_uniform_cosine_time(generator) -> None:
    x, _ = WORLD.sample(4096, generator)
    denoise = WORLD.denoiser(COSINE)
    places = (bound.ByImportance(denoise, x[:512], generator=generator), bound.by_log_snr, bound.by_time)
    spread = [
        bound.continuous_bound(denoise, x, 8, times, False, generator).standard_error.square().mean().item()
        for times in places
    ]
    assert spread[0] < 0.6 * spread[1] < 0.6 * 0.6 * spread[2]


def test_standard_error_is_that_of_repeated_estimates(generator) -> None:
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(4000, 2)
    result = bound.continuous_bound(WORLD.denoiser(COSINE), x, 32, stratified=False, generator=generator)
    # 4000 estimates tell their spread to 1 / sqrt(8000) = 1 %, and to a little less for their heavier tails
    assert abs(result.standard_error.square().mean().sqrt() / result.total.std() - 1) < 0.05


def test_training_loss_with_elbo_weights_is_the_diffusion_part(generator) -> None:
    class Exact(nn.Module):
        def forward(self, z, log_snr):
            return WORLD.posterior_mean(z, log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt())

    x, _ = WORLD.sample(60_000, generator)
    loss = Denoiser(Exact(), COSINE, target="x").loss(x, generator=generator, weighting="elbo")
    mean, error = mean_and_error(2 * loss.per_sample)  # the loss is a mean over the two values of a point
    other, noise = mean_and_error(bound.continuous_bound(WORLD.denoiser(COSINE), x, 4, generator=generator).diffusion)
    assert abs(mean - other) < 4 * math.hypot(error, noise)


# ---- bad input ---------------------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    x, denoise = torch.zeros(2, 2, dtype=torch.float64), WORLD.denoiser(COSINE)
    with pytest.raises(ValueError, match="positive variances"):
        bound.gaussian_kl(x, 0.0, x, 1.0)
    with pytest.raises(ValueError, match="one shape"):
        bound.gaussian_kl(x, 1.0, x[:1], 1.0)
    with pytest.raises(ValueError, match="s < t"):
        bound.step_term(denoise, x, 0.5, 0.5)
    with pytest.raises(ValueError, match="steps: expected"):
        bound.discrete_bound(denoise, x, 0)
    with pytest.raises(ValueError, match="draws: expected at least 2"):
        bound.continuous_bound(denoise, x, 1)
    with pytest.raises(ValueError, match="bins: expected"):
        bound.ByImportance(denoise, x, bins=0)
