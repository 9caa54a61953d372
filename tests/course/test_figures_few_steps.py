"""The drawings of lesson 15, and its equation of a Gaussian student's coefficients."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from minivdm.core import samplers
from minivdm.course.notebook.figures import few_steps as fig
from minivdm.course.notebook.figures.samplers import lesson_schedule
from minivdm.exact import GaussianVideo
from minivdm.systems.progressive_distillation import AffineStudent


@pytest.mark.parametrize("kappa", [0.05, 1.0, 3.0])
def test_coefficient_of_a_gaussian_student(kappa):
    """(15.5): one value of variance kappa, a teacher of 16 steps, a student of 8, asked at t = 5/8."""
    schedule = lesson_schedule()
    world = GaussianVideo(1, covariance=torch.tensor([[kappa]], dtype=torch.float64))
    times = torch.tensor([5 / 8, 9 / 16, 1 / 2], dtype=torch.float64)
    phi, middle, last = schedule.angle(times).tolist()
    c = lambda a: math.sin(a) * math.cos(a) * (1 - kappa) / (kappa * math.cos(a) ** 2 + math.sin(a) ** 2)  # noqa: E731
    g = lambda a, b: math.cos(b - a) + math.sin(b - a) * c(a)  # noqa: E731
    expected = (g(phi, middle) * g(middle, last) - math.cos(last - phi)) / math.sin(last - phi)
    student = AffineStudent(world.denoiser(schedule), world.shape, 8)
    z = torch.ones(1, *world.shape, dtype=torch.float64)
    v_hat = (math.cos(phi) * z - student(z, times[0])) / math.sin(phi)
    assert float(v_hat.flatten()[0]) == pytest.approx(expected, abs=1e-12)


def test_halvings_end_at_one_step():
    assert list(fig.halvings(16)) == [8, 4, 2, 1]


def test_linear_law_is_that_of_the_samples():
    world, denoise = fig.video(), fig.video().denoiser(lesson_schedule())
    noise = torch.randn(20_000, *world.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = samplers.sample(denoise, noise, 4).flatten(1)
    # 20,000 samples know a covariance to about 1 / sqrt(20,000) = 0.7 %, of variances up to about 1
    torch.testing.assert_close(torch.cov(made.T), fig.linear_law(denoise, 4).covariance, rtol=0, atol=0.05)


def test_errors_are_distances_from_teacher_and_flow():
    assert fig.errors(fig.teacher_ends(40))[0] == 0 and fig.errors(fig.flow_ends(40))[1] == 0
    assert fig.errors(fig.teacher_ends(40) + 0.5)[0] == pytest.approx(0.5)


def test_the_target_is_drawn_where_it_is():
    drawn = fig.draw_target(0.75, 0.25, 0.35)
    paths = {line.get_label(): line for line in drawn.axes[0].lines}
    two, student = paths["two steps of the teacher"], paths["the student's step, with $\\tilde x$"]
    assert two.get_ydata()[-1] == student.get_ydata()[-1] and two.get_ydata()[0] == student.get_ydata()[0]


@pytest.mark.parametrize("draw", [
    fig.draw_ends, lambda: fig.draw_maps({"teacher": fig.teacher_ends(40)}),
    lambda: fig.draw_distances([1, 2], {"a": [3.0, 2.0]}, {"b": 0.1}),
])  # fmt: skip
def test_drawings_are_made(draw):
    assert isinstance(draw(), Figure)
