"""Tasks: what is asked of the denoiser, and which requests cannot be meant."""

import pytest
import torch
from torch import nn

from minivdm import samplers, tasks
from minivdm.denoiser import Denoiser
from minivdm.schedules import CosineSchedule


class Echo(nn.Module):
    """A network whose prediction of x is the mean of its labels, and -1 without labels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, z, log_snr, labels=None, frame_mask=None):
        value = torch.full((len(z),), -1.0) if labels is None else labels.mean(1)
        return value.view(-1, 1, 1, 1, 1).expand_as(z) + self.weight


@pytest.fixture
def denoise():
    return Denoiser(Echo(), CosineSchedule(), target="x")


SHAPE = (1, 2, 4, 4)


def test_generate_follows_each_label(denoise, generator):
    labels = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    videos = tasks.generate(denoise, labels, shape=SHAPE, steps=3, generator=generator)
    assert videos.shape == (2, *SHAPE)
    torch.testing.assert_close(videos[:, 0, 0, 0, 0], torch.tensor([0.0, 0.5]))  # the last step returns x_hat


def test_one_label_serves_all_clips(denoise, generator):
    videos = tasks.generate(denoise, tasks.multi_hot([1], 2), count=3, shape=SHAPE, steps=2, generator=generator)
    torch.testing.assert_close(videos, torch.full((3, *SHAPE), 0.5))


def test_guidance_extrapolates_away_from_the_unconditional(denoise, generator):
    videos = tasks.generate(denoise, tasks.multi_hot([1], 2), shape=SHAPE, weight=2.0, steps=2, generator=generator)
    torch.testing.assert_close(videos, torch.full((1, *SHAPE), 3 * 0.5 + 2 * 1.0))  # (1 + w) x_c - w x_u, x_u = -1


def test_without_labels_the_unconditional_model_is_asked(denoise, generator):
    videos = tasks.generate(denoise, count=2, shape=SHAPE, steps=2, step=samplers.ancestral_step, generator=generator)
    torch.testing.assert_close(videos, torch.full((2, *SHAPE), -1.0))


def test_requests_that_cannot_be_meant(denoise):
    with pytest.raises(ValueError, match="1 or 3 rows"):
        tasks.generate(denoise, torch.zeros(2, 2), count=3, shape=SHAPE)
    with pytest.raises(ValueError, match="shape"):
        tasks.generate(denoise, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="needs labels"):
        tasks.generate(denoise, count=1, shape=SHAPE, weight=1.0)
    with pytest.raises(ValueError, match="classes 0 to 9"):
        tasks.multi_hot([10])
