"""Lesson 00's equations that belong to no module alone: what blind guesses cost, and how fast frames change."""

import pytest
import torch
from einops import rearrange

from minivdm.data.moving_mnist import MovingMNIST


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
