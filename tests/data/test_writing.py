"""Pictures: where a pixel goes and what a grey becomes."""

import numpy as np
import pytest
import torch
from PIL import Image

from minivdm.data import writing


def ramp(b, f, h, w, c=1):
    """Videos with another grey in every frame and video."""
    value = torch.arange(b * f).view(b, 1, f, 1, 1) / (b * f - 1) * 2 - 1
    return value.expand(b, c, f, h, w).clone()


def test_filmstrip_has_a_row_per_video_and_a_column_per_frame():
    sheet = np.asarray(writing.filmstrip(ramp(2, 3, 4, 5), zoom=2))
    assert sheet.shape == (2 * 9 + 1, 3 * 11 + 1)
    assert [[int(sheet[9 * i + 4, 11 * j + 5]) for j in range(3)] for i in range(2)] == [[0, 51, 102], [153, 204, 255]]
    assert (sheet[0] == writing.BORDER).all() and (sheet[:, 11] == writing.BORDER).all()


def test_values_outside_the_range_are_clipped():
    sheet = np.asarray(writing.filmstrip(torch.tensor([-3.0, 3.0]).view(1, 1, 2, 1, 1)))
    assert (sheet[1, 1], sheet[1, 3]) == (0, 255)


def test_animation_has_every_frame_and_its_pace(tmp_path):
    with Image.open(writing.save(ramp(3, 4, 8, 8), tmp_path / "a.gif", fps=10, zoom=1, columns=2)) as image:
        assert (image.n_frames, image.info["duration"], image.size) == (4, 100, (2 * 9 + 1, 2 * 9 + 1))


def test_colour_is_kept(tmp_path):
    video = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, 2, 4, 4)
    with Image.open(writing.save(video, tmp_path / "a.png", zoom=1)) as image:
        assert image.getpixel((2, 2)) == (255, 0, 128)


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 2, 3, 4, 4)])
def test_what_is_no_video_is_refused(shape, tmp_path):
    with pytest.raises(writing.PictureError, match=r"\(b, c, f, h, w\)"):
        writing.save(torch.zeros(shape), tmp_path / "a.png")
