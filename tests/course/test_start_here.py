"""Lesson 00: what blind guesses cost, how fast frames change, where ink is, and how near a known digit is."""

import pytest
import torch
from einops import rearrange
from matplotlib.figure import Figure

from minivdm.course.notebook.figures import start_here as figures
from minivdm.data import MovingMNIST


@pytest.fixture(scope="module")
def data():
    return MovingMNIST(size=32, frames=16, digits=1)


def test_a_blind_guess_costs_the_variance_and_its_distance_to_the_mean(data):
    video = data.clips(range(200)).video.double()
    mean = video.mean(0)
    guess = torch.linspace(-1, 1, mean.numel(), dtype=torch.float64).reshape(mean.shape)
    cost = (video - guess).square().sum((1, 2, 3, 4)).mean()
    expected = (video - mean).square().sum((1, 2, 3, 4)).mean() + (guess - mean).square().sum()
    assert abs(cost / expected - 1) < 1e-10  # an identity of sums; float64 over 3 million numbers


def test_independent_frames_differ_by_twice_the_variance(data):
    frames, _ = data.images(range(2000))
    first, second = frames[:1000].double(), frames[1000:].double()
    change = (first - second).square().mean((1, 2, 3, 4))
    twice = 2 * (frames.double() - frames.double().mean(0)).square().mean()
    assert abs(change.mean() - twice) < 5 * change.std() / 1000**0.5  # five standard errors


def test_frames_of_a_clip_differ_by_less_and_the_less_the_slower():
    def change(speed):
        video = MovingMNIST(size=32, frames=16, digits=1, speed=speed).clips(range(100)).video
        return rearrange(video[:, :, 1:] - video[:, :, :-1], "b c f h w -> (b c f h w)").square().mean().item()

    still, slow, canonical = change(0.0), change(0.9), change(1.8)
    assert still == 0 < slow < canonical


def test_centre_is_the_mean_place_of_the_ink():
    video = torch.full((1, 1, 2, 8, 10), -1.0)
    video[0, 0, 0, 3, 7] = 1.0
    video[0, 0, 1, 1, 2] = video[0, 0, 1, 5, 4] = 0.5
    assert torch.allclose(figures.centres(video), torch.tensor([[[3.0, 7.0], [3.0, 3.0]]]))


def test_half_time_is_where_the_line_crosses():
    times = torch.tensor([0.0, 0.4, 0.8])
    assert abs(figures.half_time(times, torch.tensor([1.0, 0.75, 0.25])) - 0.6) < 1e-6  # float32
    with pytest.raises(ValueError, match="one half"):
        figures.half_time(times, torch.tensor([1.0, 0.9, 0.8]))


def test_a_training_digit_is_at_distance_zero_wherever_it_is_drawn(data):
    frames = data.clips(range(20)).video[:, 0, 3]
    assert figures.distance_to_known(frames, figures.known_digits()).max() < 1e-3  # cdist in float32


def test_distance_is_the_root_mean_square_of_the_change():
    known = figures.known_digits()[:50]
    frame = torch.full((1, 32, 32), -1.0)
    frame[0, 9:23, 4:18] = known[7].reshape(14, 14)
    frame[0, 9:23, 4:18] += 0.1 * torch.randn(14, 14, generator=torch.Generator().manual_seed(0))
    assert abs(figures.distance_to_known(frame, known) - 0.1) < 0.02  # 196 draws know a standard deviation to 5 %


def test_drawings_are_figures(data):
    shares = {"digit": (torch.tensor([1.0, 0.1]), 0.1)}
    drawn = figures.draw_knowledge(torch.tensor([0.1, 0.9]), {"error": torch.tensor([0.1, 0.2])}, shares)
    assert isinstance(drawn, Figure) and isinstance(figures.draw_shadows(data.clips([3])), Figure)
