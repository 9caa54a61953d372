"""The drawings of lesson 07, and its equations."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import away_from, gaussian, guidance, samplers
from minivdm.core.denoiser import Denoiser
from minivdm.course.notebook.figures import guidance as fig
from minivdm.exact import GaussianVideo
from minivdm.exact.propagate import Propagation

SCHEDULE = fig.lesson_schedule()
PLANE = fig.plane_classes()
DENOISE = PLANE.denoiser(SCHEDULE)
ASKED = DENOISE.given(fig.WANTED)
Z = fig.plane_noise(40)
T = torch.tensor(0.6, dtype=torch.float64)
ALPHA, SIGMA = SCHEDULE.alpha(T), SCHEDULE.sigma(T)


def log_class(z, t):
    """log p(c | z_t) up to a constant."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    return PLANE.log_prob(z, alpha, sigma, fig.WANTED) - PLANE.log_prob(z, alpha, sigma)


def class_gradient():
    z = Z.clone().requires_grad_()
    return torch.autograd.grad(log_class(z, T).sum(), z)[0]


# --- equations


def test_bayes_for_scores():
    sum_of_scores = PLANE.score(Z, ALPHA, SIGMA) + class_gradient()
    assert (PLANE.score(Z, ALPHA, SIGMA, fig.WANTED) - sum_of_scores).abs().max() < 1e-10  # an identity


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_classifier_guidance_adds_to_the_score(weight):
    guided = guidance.classifier(DENOISE, log_class, weight)
    score = gaussian.score_from_x(Z, guided(Z, T), ALPHA, SIGMA)
    assert (score - PLANE.score(Z, ALPHA, SIGMA) - weight * class_gradient()).abs().max() < 1e-10


def test_the_implicit_classifier():
    implicit = ALPHA / SIGMA**2 * (ASKED(Z, T) - DENOISE(Z, T))
    assert (implicit - class_gradient()).abs().max() < 1e-10


@pytest.mark.parametrize("weight", [0.0, 1.0, 4.0])
def test_classifier_free_in_noise(weight):
    eps = gaussian.eps_from_x(Z, guidance.classifier_free(ASKED, DENOISE, weight)(Z, T), ALPHA, SIGMA)
    parts = [gaussian.eps_from_x(Z, denoise(Z, T), ALPHA, SIGMA) for denoise in (ASKED, DENOISE)]
    assert (eps - (1 + weight) * parts[0] + weight * parts[1]).abs().max() < 1e-10


def test_dropped_labels_teach_the_unconditional_mean():
    """Least squares of one weight per label row: the null row's answer is the mean over all data."""

    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.answers = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def forward(self, z, log_snr, labels=None):
            row = torch.where(labels.sum(1) == 0, 2, labels.argmax(1))
            return self.answers[row][:, None] + 0 * z

    table = Table()
    n = 20_000
    generator = torch.Generator().manual_seed(0)
    labels = torch.eye(2).repeat(n // 2, 1)
    x = (labels[:, :1].double() * 2 - 1) * 0.5  # 0.5 for class 0, -0.5 for class 1
    for _ in range(2):  # a quadratic whose Hessian is diagonal: Newton's step, twice
        loss = Denoiser(table, SCHEDULE, "x").loss(x, labels=labels, generator=generator, weighting="x").mean
        (gradient,) = torch.autograd.grad(loss, table.answers)
        share = torch.tensor([0.45, 0.45, 0.1], dtype=torch.float64)
        with torch.no_grad():
            table.answers -= gradient / (2 * share)
    # Shares of rows fluctuate by 1 / sqrt(0.1 n), 2 % for the null row.
    assert (table.answers - torch.tensor([0.5, -0.5, 0.0])).abs().max() < 0.05


def test_tilt_is_the_conditional_times_a_power_of_the_classifier():
    tilt = fig.tilted_log_density(PLANE, fig.WANTED, 3.0, Z)
    share = PLANE.responsibilities(Z)[:, :2].sum(1).log()
    difference = tilt - PLANE.log_prob(Z, labels=fig.WANTED) - 3 * share
    assert difference.std() < 1e-10  # the constant -3 log p(c)


def test_tilting_and_noising_do_not_commute():
    """(7.8) at w = 1, a = 1/4, b = 1, by the package's own scores."""
    narrow, wide = (GaussianVideo(1, covariance=torch.tensor([[v]])) for v in (0.25, 1.0))
    z = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    guided = guidance.classifier_free(narrow.denoiser(SCHEDULE), wide.denoiser(SCHEDULE), 1.0)
    noise_then_tilt = -1 / gaussian.score_from_x(z, guided(z, T), ALPHA, SIGMA).item()
    noisy = [(ALPHA**2 * v + SIGMA**2).item() for v in (0.25, 1.0)]
    assert abs(noise_then_tilt - 1 / (2 / noisy[0] - 1 / noisy[1])) < 1e-9
    tilt_then_noise = (ALPHA**2 / 7 + SIGMA**2).item()  # 1 / (2 / a - 1 / b) = 1/7
    assert noise_then_tilt < tilt_then_noise - 0.01  # narrower, since noising is concave in the precision


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_the_guided_flow_has_a_closed_form(weight):
    narrow, wide = (GaussianVideo(1, covariance=torch.tensor([[v]])) for v in (0.25, 1.0))
    guided = guidance.classifier_free(narrow.denoiser(SCHEDULE), wide.denoiser(SCHEDULE), weight)
    times = torch.linspace(0.9, 0.1, 101, dtype=torch.float64)
    z = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    found = samplers.sample(guided, z, grid=times, step=samplers.heun_step).item()
    ratios = []
    for v in (0.25, 1.0):
        noisy = SCHEDULE.alpha(times[[0, -1]]) ** 2 * v + SCHEDULE.sigma(times[[0, -1]]) ** 2
        ratios.append((noisy[1] / noisy[0]).item())
    exact = ratios[0] ** ((1 + weight) / 2) * ratios[1] ** (-weight / 2)
    assert abs(found / exact - 1) < 1e-3  # Heun, second order, 100 steps


def reverse_sde_variance(w, a, b):
    """V_SDE of (7.10)."""
    return (a * b - (a ** (1 + w) * b**-w) ** 2) / ((1 + 2 * w) * (b - a))


@pytest.mark.parametrize("weight", [0.5, 2.0, 6.0])
def test_the_flow_is_narrower_than_the_sde_than_the_tilt_than_the_conditional(weight):
    for a, b in ((0.25, 1.0), (0.9, 1.0), (0.01, 2.0)):
        flow, tilt = a ** (1 + weight) * b**-weight, 1 / ((1 + weight) / a - weight / b)
        assert flow < reverse_sde_variance(weight, a, b) < tilt < a


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_the_guided_reverse_sde_has_a_closed_form(weight):
    narrow, wide = (GaussianVideo(1, covariance=torch.tensor([[v]])) for v in (0.25, 1.0))
    guided = guidance.classifier_free(narrow.denoiser(SCHEDULE), wide.denoiser(SCHEDULE), weight)
    walk = Propagation(wide, SCHEDULE, lambda _: guided)
    errors = []
    for n in (200, 400):
        times = torch.linspace(1, 0.002, n + 1, dtype=torch.float64)
        found = walk.run(step_law=samplers.ancestral_law, grid=times).covariance.item()
        errors.append(abs(found / reverse_sde_variance(weight, 0.25, 1.0) - 1))
    assert errors[1] < 0.05 and 1.6 < errors[0] / errors[1] < 2.4  # first order in the step


def test_a_negative_label_has_no_ceiling():
    """(7.13) climbs p(x|c) / p(x|n), which grows without bound; (7.5) climbs p(x|c) / p(x), at most 1 / p(c)."""
    far = torch.tensor([[-1.0, 0.3], [-4.0, 0.3], [-16.0, 0.3]], dtype=torch.float64)  # away from the third cloud
    negative = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    wanted = PLANE.log_prob(far, labels=fig.WANTED)
    assert (wanted - PLANE.log_prob(far)).max() <= math.log(2) + 1e-12  # p(c) = 1/2
    assert (wanted - PLANE.log_prob(far, labels=negative)).diff().min() > 10


def test_autoguidance_finds_the_true_width():
    true, good, bad = 0.25, 0.4, 0.9
    weight = math.log(good / true) / math.log(bad / good)
    one, zero = (GaussianVideo(1, covariance=torch.tensor([[v]])) for v in (good, bad))
    guided = guidance.classifier_free(one.denoiser(SCHEDULE), zero.denoiser(SCHEDULE), weight)
    z = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    found = samplers.sample(guided, z, grid=torch.linspace(1, 0.01, 201, dtype=torch.float64), step=samplers.heun_step)
    assert abs(found.item() ** 2 / true - 1) < 0.02  # a little noise is left at t = 0.01; Heun at 200 steps


def test_corrections_approach_the_tilt():
    narrow, wide = (GaussianVideo(1, covariance=torch.tensor([[v]])) for v in (0.25, 1.0))
    guided = guidance.classifier_free(narrow.denoiser(SCHEDULE), wide.denoiser(SCHEDULE), 1.0)
    walk = Propagation(wide, SCHEDULE, lambda _: guided)
    law, t = walk.start(0.1), 0.1
    for _ in range(150):
        law = walk.step(law, lambda d, z: samplers.langevin_law(d, z, t, delta=0.5))
    a, b = (SCHEDULE.alpha(t) ** 2 * v + SCHEDULE.sigma(t) ** 2 for v in (0.25, 1.0))
    assert abs(law.covariance.item() * (2 / a - 1 / b) - 1) < 0.04  # Langevin's own bias, delta sigma^2 / 4V


def test_guidance_extrapolates():
    found = guidance.classifier_free(ASKED, DENOISE, 8.0)(Z, T)
    assert (found - ASKED(Z, T) - 8 * (ASKED(Z, T) - DENOISE(Z, T))).abs().max() < 1e-12
    assert found.norm(dim=1).max() > PLANE.means.norm(dim=1).max() + 1  # beyond any mean of data


def test_dynamic_thresholding():
    loud = guidance.Guided(lambda z, t: 3 * z, SCHEDULE)
    z = torch.linspace(-1, 1, 1001)[None]
    found = guidance.dynamically_thresholded(loud, 0.9)(z, 0.5)
    bound = (3 * z).abs().flatten().sort().values[math.ceil(0.9 * 1001) - 1]
    assert torch.equal(found, (3 * z).clamp(-bound, bound) / bound) and found.abs().max() == 1
    quiet = guidance.Guided(lambda z, t: z / 2, SCHEDULE)
    assert torch.equal(guidance.dynamically_thresholded(quiet)(z, 0.5), z / 2)  # m is at least 1


# --- what is drawn


def test_the_tilted_density_on_the_line_is_a_density():
    x = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    density = fig.tilted_on_line(3.0, x)
    assert abs(torch.trapezoid(density, x) - 1) < 1e-12
    mean, std = fig.moments(x, fig.tilted_on_line(0.0, x))
    assert abs(mean + 0.6) < 1e-6 and abs(std - 0.5) < 1e-6  # w = 0 is the left bump itself


def test_unguided_samples_follow_the_class():
    x, law = fig.plane_samples(0.0, n=1000), fig.wanted_law()
    assert fig.fidelity(x) > 0.95
    assert (x.mean(0) - law.mean).norm() < 4 * fig.spread(x) / math.sqrt(1000) + 0.03  # standard error, 30 steps


def test_the_class_has_the_moments_of_its_two_clouds():
    x, labels = PLANE.sample(40_000, torch.Generator().manual_seed(0))
    x = x[labels < 2]
    law = fig.wanted_law()
    assert (x.mean(0) - law.mean).abs().max() < 0.03 and (torch.cov(x.T) - law.covariance).abs().max() < 0.03


def test_an_interval_above_every_level_does_not_guide():
    assert torch.equal(fig.plane_samples(4.0, 50, 10, (50.0, 60.0)), fig.plane_samples(0.0, 50, 10))


def test_spread_within_clouds_does_not_see_their_distance():
    x, labels = PLANE.sample(20_000, torch.Generator().manual_seed(0))
    assert abs(fig.std_within(x[labels < 2]) - 0.25) < 0.01  # a few of 10,000 lie nearer to the other cloud


def test_a_widened_world_keeps_its_places():
    wide = fig.plane_widened(0.4)
    assert torch.equal(wide.means, PLANE.means) and abs(wide.covariances[0, 0, 0].item() - 0.16) < 1e-12


def test_the_drawings_are_figures():
    assert isinstance(fig.draw_guidance(2.0), Figure)
    assert isinstance(fig.draw_guidance(weight=2.0, guide_from=1.0), Figure)
    assert isinstance(fig.draw_lines_of([0.0, 1.0]), Figure)
    assert isinstance(fig.draw_planes_of({"a": (0.0, Z), "b": (1.0, Z)}), Figure)
    clip = 3 * torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) - 1.5
    assert isinstance(fig.draw_excess({"a": clip, "b": clip}), Figure)
    assert isinstance(fig.draw_values({"a": clip}), Figure)
    rows = {"one": [{"fidelity": 1.0, "spread": 2.0}, {"fidelity": 0.5, "spread": 1.0}]}
    assert isinstance(fig.draw_tradeoff([0.0, 1.0], rows), Figure)


def test_the_slider_draws_the_package_s_samples():
    points = fig.draw_guidance(2.0).axes[1].lines[-1].get_xydata()
    expected = samplers.sample(guidance.classifier_free(ASKED, DENOISE, 2.0), fig.plane_noise(len(points)), 20)
    assert abs(points - expected.numpy()).max() < 1e-12


def test_guidance_away_from_frames_alone_magnifies_what_they_share() -> None:
    w, schedule = 0.5, SCHEDULE
    together, alone = (GaussianVideo(4, correlation).denoiser(schedule) for correlation in (0.9, 0.0))
    guided = away_from(together, (alone, w))
    law = Propagation(together.world, schedule, lambda x_a: guided).run(1000, samplers.ddim_law)
    kappa = torch.linalg.eigvalsh(together.world.covariance)
    # DDIM's error is of first order: 1,000 steps leave about a hundredth.
    torch.testing.assert_close(torch.linalg.eigvalsh(law.covariance), kappa ** (1 + w), rtol=0.03, atol=1e-3)
