"""Closed-form worlds against independent ways to the same numbers: scipy, quadrature, autograd, sampling."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from minivdm.core.gaussian import diffuse, score_from_x, x_from_score
from minivdm.core.schedules import CosineSchedule, LinearSchedule, SubVPSchedule, VESchedule
from minivdm.exact import GaussianMixture, GaussianVideo, Law, wasserstein

SCHEDULES = [CosineSchedule(), LinearSchedule(), SubVPSchedule(), VESchedule()]
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
T = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)


@pytest.fixture
def mixture():
    covariances = torch.tensor([[[0.2, 0.1], [0.1, 0.3]], [[0.05, 0.0], [0.0, 0.1]], [[0.3, -0.2], [-0.2, 0.2]]])
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
    return GaussianMixture(torch.tensor([1.0, 2.0, 3.0]), means, covariances)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_scipy(mixture, z, alpha, sigma):
    parts = [
        w * multivariate_normal(alpha * m.numpy(), alpha**2 * c.numpy() + sigma**2 * np.eye(2)).pdf(z.numpy())
        for w, m, c in zip(mixture.weights.tolist(), mixture.means, mixture.covariances, strict=True)
    ]
    return np.stack(parts, axis=1)  # (b, k)


# ---- mixture ------------------------------------------------------------------------------------------------------


@every
def test_mixture_density_after_noising(schedule, mixture, generator):
    for t in T:
        alpha, sigma = schedule.alpha(t).item(), schedule.sigma(t).item()
        z = normal(generator, 6, 2) * math.hypot(alpha, sigma)
        expected = np.log(by_scipy(mixture, z, alpha, sigma).sum(1))
        np.testing.assert_allclose(mixture.log_prob(z, alpha, sigma), expected, rtol=1e-9, atol=1e-9)


def test_mixture_density_integrates_to_one(mixture):
    axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    # 1e-6: the trapezoid rule is spectrally accurate on a smooth density that vanishes at the border.
    assert mixture.log_prob(grid).exp().sum().item() * 0.05**2 == pytest.approx(1, abs=1e-6)


def test_responsibilities_are_bayes_rule(mixture, generator):
    z = normal(generator, 6, 2)
    joint = by_scipy(mixture, z, 0.8, 0.6)
    expected = joint / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(mixture.responsibilities(z, 0.8, 0.6), expected, rtol=1e-9, atol=1e-12)


@every
def test_mixture_denoiser_is_tweedie_of_the_density(schedule, mixture, generator):
    # x_hat = (z + sigma^2 grad log q_t) / alpha, the gradient by autograd; one time per sample.
    z = normal(generator, 4, 2).requires_grad_()
    alpha, sigma = schedule.alpha(T), schedule.sigma(T)
    (score,) = torch.autograd.grad(mixture.log_prob(z, alpha, sigma).sum(), z)
    z = z.detach()
    expected = x_from_score(z, score, alpha, sigma)
    # 1e-8: sigma^2 / alpha reaches 2e4 at the end of the cosine schedule and multiplies the rounding of the score.
    torch.testing.assert_close(mixture.denoiser(schedule)(z, T), expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(mixture.score(z, alpha, sigma), score)


def test_mixture_denoiser_minimises_the_squared_error(mixture, generator):
    # E[(x - x_hat) h(z)] = 0 for every h: tested for h = x_hat - z, within five standard errors.
    x, _ = mixture.sample(20000, generator)
    schedule = CosineSchedule()
    z = diffuse(x, 0.4, schedule, generator=generator)
    x_hat = mixture.denoiser(schedule)(z, 0.4)
    product = ((x - x_hat) * (x_hat - z)).sum(1)
    assert product.mean().abs() < 5 * product.std() / math.sqrt(20000)


def test_mixture_samples_have_its_moments(mixture, generator):
    n = 40000
    x, labels = mixture.sample(n, generator)
    share = torch.bincount(labels, minlength=3) / n
    assert (share - mixture.weights).abs().max() < 5 * 0.5 / math.sqrt(n)  # five standard errors
    for k in range(3):
        part = x[labels == k]
        assert (part.mean(0) - mixture.means[k]).abs().max() < 5 * math.sqrt(0.3 / len(part))
        # a variance v is known to v sqrt(2 / n)
        assert (torch.cov(part.T) - mixture.covariances[k]).abs().max() < 5 * 0.3 * math.sqrt(2 / len(part))


def test_labels_restrict_the_mixture(mixture, generator):
    schedule, z = CosineSchedule(), normal(generator, 3, 2)
    second = GaussianMixture(mixture.weights[1:2], mixture.means[1:2], mixture.covariances[1:2])
    some = GaussianMixture(mixture.weights[1:], mixture.means[1:], mixture.covariances[1:])
    denoise = mixture.denoiser(schedule)
    one_hot = torch.tensor([[0.0, 1.0, 0.0]])
    torch.testing.assert_close(denoise.given(one_hot)(z, 0.5), second.denoiser(schedule)(z, 0.5))
    multi_hot = torch.tensor([[0.0, 1.0, 1.0]])
    torch.testing.assert_close(denoise.given(multi_hot)(z, 0.5), some.denoiser(schedule)(z, 0.5))
    torch.testing.assert_close(mixture.log_prob(z, labels=multi_hot), some.log_prob(z))


def test_no_label_is_no_condition(mixture, generator):
    denoise, z = mixture.denoiser(CosineSchedule()), normal(generator, 2, 2)
    torch.testing.assert_close(denoise.given(torch.zeros(1, 3))(z, 0.5), denoise(z, 0.5))
    torch.testing.assert_close(denoise.given(None)(z, 0.5), denoise(z, 0.5))


def test_classifier_is_the_log_responsibility(mixture, generator):
    schedule, z = CosineSchedule(), normal(generator, 4, 2)
    expected = mixture.responsibilities(z, schedule.alpha(0.5), schedule.sigma(0.5))[:, 2].log()
    torch.testing.assert_close(mixture.log_class(2, schedule)(z, 0.5), expected)


def test_worlds_answer_in_the_dtype_asked(mixture):
    assert mixture.denoiser(CosineSchedule())(torch.zeros(2, 2), 0.5).dtype == torch.float32
    video = GaussianVideo(4)
    assert video.denoiser(CosineSchedule())(torch.zeros(2, 1, 4, 1, 1), 0.5).dtype == torch.float32


# ---- Gaussian video -----------------------------------------------------------------------------------------------


def test_video_covariance_decays_with_distance():
    video = GaussianVideo(3, 0.9, size=(2, 2), pixel_correlation=0.5)
    c = video.covariance.reshape(3, 2, 2, 3, 2, 2)
    assert c[0, 0, 0, 2, 0, 0].item() == pytest.approx(0.81)
    assert c[1, 0, 1, 1, 1, 0].item() == pytest.approx(0.25)
    assert c[0, 0, 0, 1, 0, 1].item() == pytest.approx(0.45)


@every
def test_video_denoiser_is_the_regression_formula(schedule, generator):
    # mu + alpha S (alpha^2 S + sigma^2)^-1 (z - alpha mu), solved without the eigenvectors the class uses.
    root = normal(generator, 12, 12)
    covariance, mean = root @ root.T, normal(generator, 12)
    video = GaussianVideo(3, size=(2, 2), covariance=covariance, mean=mean)
    z = normal(generator, 4, 1, 3, 2, 2)
    for i, t in enumerate(T):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        noisy = alpha**2 * covariance + sigma**2 * torch.eye(12, dtype=torch.float64)
        expected = mean + alpha * covariance @ torch.linalg.solve(noisy, z[i].flatten() - alpha * mean)
        result = video.denoiser(schedule)(z, T)[i].flatten()
        torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8)  # the covariance's condition number


def test_video_score_and_density(generator):
    video, z = GaussianVideo(5), normal(generator, 3, 1, 5, 1, 1).requires_grad_()
    alpha, sigma = 0.8, 0.6
    law = multivariate_normal(np.zeros(5), alpha**2 * video.covariance.numpy() + sigma**2 * np.eye(5))
    log_q = video.log_prob(z, alpha, sigma)
    np.testing.assert_allclose(log_q.detach(), law.logpdf(z.detach().flatten(1).numpy()), rtol=1e-10)
    (gradient,) = torch.autograd.grad(log_q.sum(), z)
    torch.testing.assert_close(video.score(z.detach(), alpha, sigma), gradient)
    x_hat = video.posterior_mean(z.detach(), alpha, sigma)
    torch.testing.assert_close(score_from_x(z.detach(), x_hat, alpha, sigma), gradient)


def test_video_samples_have_its_law(generator):
    video = GaussianVideo(6, 0.9)
    # W2 of 20,000 samples' moments from the truth is about sqrt(d / n) = 0.02.
    assert video.wasserstein(video.sample(20000, generator)) < 0.05


def test_given_frames_is_the_conditional_gaussian(generator):
    # A Markov chain: given frame 1, frame 2 is 0.9 x_1 with variance 1 - 0.81, whatever came before.
    video = GaussianVideo(4, 0.9)
    observed = normal(generator, 2, 1, 2, 1, 1)
    law = video.given(observed)
    last = observed[:, 0, 1, 0, 0]
    expected = torch.stack([observed[:, 0, 0, 0, 0], last, 0.9 * last, 0.81 * last], dim=1)
    torch.testing.assert_close(law.mean, expected)
    torch.testing.assert_close(law.covariance.diagonal(), torch.tensor([0, 0, 0.19, 1 - 0.81**2]).double())


def test_conditional_denoiser_by_regression_on_everything_known(generator):
    # E[x | z, x^a] from the joint Gaussian of (x, z, x^a), in one solve.
    video, frames, alpha, sigma = GaussianVideo(5, 0.8), [1, 3], 0.8, 0.6
    schedule = CosineSchedule()
    t = schedule.time(2 * math.log(alpha / sigma))
    c = video.covariance
    known = torch.cat(
        [
            torch.cat([alpha**2 * c + sigma**2 * torch.eye(5, dtype=torch.float64), alpha * c[:, frames]], dim=1),
            torch.cat([alpha * c[frames], c[frames][:, frames]], dim=1),
        ]
    )
    cross = torch.cat([alpha * c, c[:, frames]], dim=1)
    z, observed = normal(generator, 3, 1, 5, 1, 1), normal(generator, 3, 1, 2, 1, 1)
    data = torch.cat([z.flatten(1), observed.flatten(1)], dim=1)
    expected = (cross @ torch.linalg.solve(known, data.T)).T
    result = video.conditional_denoiser(schedule, observed, frames)(z, t)
    torch.testing.assert_close(result.flatten(1), expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(result[:, :, frames], observed)


def test_given_an_operator_keeps_what_was_observed(generator):
    video = GaussianVideo(2, size=(2, 2), pixel_correlation=0.5)
    pooling = torch.kron(torch.eye(2), torch.full((1, 4), 0.25))  # the mean of each frame
    observed = normal(generator, 3, 2)
    law = video.given(observed, operator=pooling)
    torch.testing.assert_close(law.mean @ pooling.T.double(), observed)
    assert (pooling.double() @ law.covariance).abs().max() < 1e-12


def test_wasserstein_of_commuting_covariances():
    # W2^2 = |m1 - m2|^2 + sum (sqrt(l1) - sqrt(l2))^2 where both are diagonal.
    a = Law(torch.zeros(2).double(), torch.diag(torch.tensor([4.0, 1.0])).double())
    b = Law(torch.tensor([3.0, 0.0]).double(), torch.diag(torch.tensor([1.0, 9.0])).double())
    assert wasserstein(a, b) == pytest.approx(math.sqrt(9 + 1 + 4))
    assert wasserstein(a, a) == pytest.approx(0, abs=1e-7)  # the root of a rounding error of 1e-15


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianMixture(torch.ones(2), torch.zeros(3, 2), 1.0),
        lambda: GaussianMixture(torch.tensor([1.0, -1.0]), torch.zeros(2, 2), 1.0),
        lambda: GaussianMixture(torch.ones(2), torch.zeros(2, 2), -torch.eye(2).expand(2, 2, 2)),
        lambda: GaussianMixture(torch.ones(2), torch.zeros(2, 2), torch.eye(2, dtype=torch.float64)),
        lambda: GaussianMixture.ring().log_prob(torch.zeros(2, 3)),
        lambda: GaussianMixture.ring().log_prob(torch.zeros(2, 2), alpha=torch.ones(3)),
        lambda: GaussianVideo(0),
        lambda: GaussianVideo(2, 1.5),
        lambda: GaussianVideo(2, covariance=torch.eye(3, dtype=torch.float64)),
        lambda: GaussianVideo(2, covariance=-torch.eye(2, dtype=torch.float64)),
        lambda: GaussianVideo(2, mean=torch.zeros(3)),
        lambda: GaussianVideo(2).posterior_mean(torch.zeros(2, 1, 3, 1, 1)),
        lambda: GaussianVideo(2).given(torch.zeros(1, 1, 1, 1, 1), frames=[0, 1]),
    ],
)
def test_bad_input_is_named(make):
    with pytest.raises(ValueError, match="expected"):
        make()
