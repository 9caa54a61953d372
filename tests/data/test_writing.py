"""Pictures: where a pixel goes and what a grey becomes, and what is refused before a file is touched."""

import numpy as np
import pytest
import torch
from PIL import Image

from minivdm.data import sheets, writing


def ramp(b, f, h, w, c=1):
    """Videos with another grey in every frame and video."""
    value = torch.arange(b * f).view(b, 1, f, 1, 1) / max(b * f - 1, 1) * 2 - 1
    return value.expand(b, c, f, h, w).clone()


def test_filmstrip_has_a_row_per_video_and_a_column_per_frame():
    sheet = np.asarray(writing.filmstrip(ramp(2, 3, 4, 5), zoom=2))
    assert sheet.shape == (2 * 9 + 1, 3 * 11 + 1)
    assert [[int(sheet[9 * i + 4, 11 * j + 5]) for j in range(3)] for i in range(2)] == [[0, 51, 102], [153, 204, 255]]
    assert (sheet[0] == sheets.BORDER).all() and (sheet[:, 11] == sheets.BORDER).all()


def test_a_long_filmstrip_goes_on_in_the_next_row(tmp_path):
    with Image.open(writing.save(ramp(2, 40, 4, 4), tmp_path / "a.png", zoom=1)) as image:
        assert image.size == (16 * 5 + 1, 2 * 3 * 5 + 1)
        assert image.getpixel((3, 8)) == round(16 / 79 * 255)  # the second row begins with frame 16


def test_given_frames_have_a_border_and_keep_their_pixels():
    sheet = np.asarray(writing.filmstrip(ramp(1, 4, 4, 4), known=[0, -1]))
    tops = [tuple(sheet[2, 3 + 7 * j + 1]) for j in range(4)]
    assert [top == sheets.MARK for top in tops] == [True, False, False, True]
    assert [sheet[4, 3 + 7 * j + 1].tolist() for j in range(4)] == [[v] * 3 for v in (0, 85, 170, 255)]


def test_values_a_little_outside_the_range_are_clipped():
    sheet = np.asarray(writing.filmstrip(torch.tensor([-1.5, 1.5]).view(1, 1, 2, 1, 1)))
    assert (sheet[1, 1], sheet[1, 3]) == (0, 255)


def test_animation_has_every_frame_and_its_pace(tmp_path):
    with Image.open(writing.save(ramp(3, 4, 8, 8), tmp_path / "a.gif", fps=10, zoom=1, columns=2)) as image:
        assert (image.n_frames, image.info["duration"], image.size) == (4, 100, (2 * 9 + 1, 2 * 9 + 1))


def frames(path):
    with Image.open(path) as image:
        for k in range(image.n_frames):
            image.seek(k)
            pixels = np.asarray(image.convert("RGB"))  # WebP tells the pause after decoding
            yield image.info["duration"], pixels


@pytest.mark.parametrize("fps", [8, 12, 24, 30, 40, 45])
def test_a_gif_lasts_as_long_as_it_should(tmp_path, fps):
    path = writing.save(ramp(1, 36, 4, 4), tmp_path / "a.gif", fps=fps, zoom=1)
    assert abs(sum(pause for pause, _ in frames(path)) - 36_000 / fps) <= 5  # half a hundredth of a second


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_frames_that_are_equal_are_all_there(tmp_path, ending):
    path = writing.save(torch.zeros(1, 1, 8, 6, 6), tmp_path / f"a.{ending}", fps=10, zoom=1)
    assert [pause for pause, _ in frames(path)] == [100] * 8


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_greys_are_exact_in_an_animation_also_beside_a_border(tmp_path, ending):
    video = (torch.arange(256).view(1, 1, 1, 16, 16) / 127.5 - 1).expand(1, 1, 2, 16, 16)
    plain = [x for _, x in frames(writing.save(video, tmp_path / f"a.{ending}", zoom=1))]
    marked = [x for _, x in frames(writing.save(video, tmp_path / f"b.{ending}", zoom=1, known=[0]))]
    assert np.array_equal(plain[0][1:17, 1:17, 0].ravel(), np.arange(256))
    wanted = np.arange(256)
    wanted[1] = 0 if ending == "gif" else 1  # the palette's place for the border's colour
    assert np.array_equal(marked[0][3:19, 3:19, 0].ravel(), wanted)
    assert tuple(marked[0][2, 2]) == sheets.MARK and tuple(marked[1][2, 2]) == (sheets.BORDER,) * 3


def test_colour_is_kept(tmp_path):
    video = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, 2, 4, 4)
    with Image.open(writing.save(video, tmp_path / "a.png", zoom=1)) as image:
        assert image.getpixel((2, 2)) == (255, 0, 128)
    assert tuple(next(frames(writing.save(video, tmp_path / "a.gif", zoom=1)))[1][2, 2]) == (255, 0, 128)


@pytest.mark.parametrize("c", [1, 3])
def test_mp4_has_every_frame_at_about_its_grey(tmp_path, c):
    av = pytest.importorskip("av")
    path = writing.save(ramp(1, 5, 15, 16, c), tmp_path / "a.mp4", fps=5, zoom=2)
    with av.open(path) as container:
        assert float(container.streams.video[0].average_rate) == 5
        got = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    greys = [float(frame[8:24, 8:24].mean()) for frame in got]
    assert np.allclose(greys, np.linspace(0, 255, 5), atol=6)  # limited range and chroma at half size


def test_mp4_without_pyav_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(writing.PictureError, match=r"minivdm\[data\]"):
        writing.check(tmp_path / "a.mp4")


def test_a_comparison_has_a_named_column_per_panel_and_a_row_per_clip(tmp_path):
    panels = {"truth": ramp(2, 3, 20, 20), "made": ramp(2, 3, 20, 20).flip(2)}
    path = writing.save_comparison(panels, tmp_path / "a.gif", zoom=1, known={"made": [0]})
    pictures = [x for _, x in frames(path)]
    assert len(pictures) == 3 and pictures[0].shape[:2] == (2 * 23 + 3 + sheets.CAPTION, 2 * 23 + 3)
    truth, made = (3, 26)
    y = 3 + sheets.CAPTION
    assert [int(x[y, truth, 0]) for x in pictures] == [0, 51, 102] and [int(x[y, made, 0]) for x in pictures] == [
        102, 51, 0]  # fmt: skip
    assert tuple(pictures[0][y - 1, made]) == sheets.MARK and tuple(pictures[1][y - 1, made]) != sheets.MARK
    assert pictures[0][: sheets.CAPTION].max() > 200  # the words


def test_a_comparison_of_filmstrips_has_a_line_per_panel(tmp_path):
    panels = {"truth": ramp(1, 20, 6, 6), "made": ramp(1, 20, 6, 6)}
    with Image.open(writing.save_comparison(panels, tmp_path / "a.png", zoom=1)) as image:
        assert image.size == (16 * 9 + 3, 4 * (9 + sheets.CAPTION) + 3)


def test_panels_of_two_shapes_are_refused(tmp_path):
    with pytest.raises(writing.PictureError, match="of one shape"):
        writing.save_comparison({"a": ramp(1, 2, 4, 4), "b": ramp(1, 3, 4, 4)}, tmp_path / "a.gif")


@pytest.mark.parametrize(("videos", "says"), [
    (torch.zeros(2, 4, 4), r"\(b, c, f, h, w\)"), (torch.zeros(1, 2, 3, 4, 4), "1 or 3 channels"),
    (torch.zeros(0, 1, 3, 4, 4), "nothing empty"), (torch.zeros(1, 1, 0, 4, 4), "nothing empty"),
    (torch.full((1, 1, 2, 4, 4), torch.nan), "NaN"), (torch.full((1, 1, 2, 4, 4), torch.inf), "infinity"),
    (torch.zeros(1, 1, 2, 4, 4, dtype=torch.uint8), r"x / 127.5 - 1"), (torch.full((1, 1, 2, 4, 4), 255.0), "0 to 255"),
    (torch.zeros(1, 1, 2, 4, 4, dtype=torch.int64), "int64"), (np.zeros((1, 1, 2, 4, 4)), "a tensor"),
])  # fmt: skip
def test_what_is_no_video_is_refused_and_nothing_is_written(videos, says, tmp_path):
    with pytest.raises(writing.PictureError, match=says):
        writing.save(videos, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "options", "says"), [
    ("a.avi", {}, "ending in .gif"), ("a", {}, "ending in .gif"), ("a.gif", {"fps": 0}, "fps"),
    ("a.gif", {"fps": 51}, "fps"),
    ("a.gif", {"fps": float("nan")}, "fps"), ("a.gif", {"zoom": 0}, "zoom"), ("a.gif", {"zoom": 1.5}, "zoom"),
    ("a.gif", {"zoom": 10**20}, "zoom"), ("a.gif", {"columns": -1}, "columns"), ("a.gif", {"columns": 0}, "columns"),
    ("a.png", {"zoom": 65}, "1 to 64"),
])  # fmt: skip
def test_wrong_options_are_refused_by_name(tmp_path, name, options, says):
    with pytest.raises(writing.PictureError, match=says):
        writing.save(ramp(1, 2, 4, 4), tmp_path / name, **options)


def test_a_picture_of_absurd_size_is_refused_before_it_is_made(tmp_path):
    with pytest.raises(writing.PictureError, match="67 million pixels"):
        writing.check(tmp_path / "a.gif", zoom=64, shape=(10, 8, 64, 64))
    with pytest.raises(writing.PictureError, match="67 million pixels"):
        writing.save(torch.zeros(1, 1, 1, 1, 1).expand(64, 1, 16, 64, 64), tmp_path / "a.png", zoom=64)


def test_a_file_that_is_there_can_be_kept(tmp_path):
    path = writing.save(ramp(1, 2, 4, 4), tmp_path / "a.gif")
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="--force"):
        writing.save(ramp(1, 3, 4, 4), path, replace=False)
    assert path.read_bytes() == before


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.gif").mkdir()
    with pytest.raises(writing.PictureError, match="folder"):
        writing.check(tmp_path / "a.gif")
