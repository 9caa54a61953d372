"""What notebooks show, without a browser: pictures, players, sources, sliders, execution."""

import base64
import re
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from minivdm.course import notebook as nb
from minivdm.course.notebook import execute as runner
from minivdm.course.notebook import sliders, sources
from minivdm.course.notebook.clips import as_frames, observed_frames
from minivdm.course.notebook.picture import render


def ramp(clips: int = 2, frames: int = 5, size: int = 8, channels: int = 1) -> torch.Tensor:
    """Videos (b, c, f, h, w) whose frame k has the constant value -1 + 2 k / (f - 1)."""
    values = torch.linspace(-1, 1, frames).view(1, 1, frames, 1, 1)
    return values.expand(clips, channels, frames, size, size).clone()


# --- clips -----------------------------------------------------------------------------------------------


def test_frames_map_minus_one_to_black_and_one_to_white():
    frames = as_frames(ramp())[0]
    assert frames.shape == (5, 8, 8, 1) and frames.dtype == np.uint8
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 64, 128, 191, 255]


def test_a_list_may_mix_lengths_sizes_and_leading_axes():
    frames = as_frames([ramp(1)[0], ramp(1, 3, 4)])
    assert [one.shape for one in frames] == [(5, 8, 8, 1), (3, 4, 4, 1)]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 5, 1, 8, 8), "swapped"),
        ((2, 5, 8, 8, 1), "channels look last"),
        ((1, 5, 8, 8), "as video\\[None\\]"),
        ((8, 8), "5 axes"),
        ((0, 1, 5, 8, 8), "at least one clip"),
        ((2, 1, 0, 8, 8), "at least one frame"),
        ((2, 2, 5, 8, 8), "c = 1 or 3"),
    ],
)
def test_wrong_axes_are_named(shape, says):
    with pytest.raises(nb.VideoShapeError, match=says):
        nb.filmstrip(torch.zeros(shape))


@pytest.mark.parametrize(
    ("video", "says"),
    [
        (ramp() * 255, "x / 127.5 - 1"),
        (ramp() * 1.5, "clip=True"),
        (ramp() * torch.nan, "NaN"),
        (ramp().to(torch.uint8), "uint8"),
    ],
)
def test_wrong_values_are_named(video, says):
    with pytest.raises(nb.VideoRangeError, match=says):
        nb.player(video)


def test_noisy_latents_are_cut_off_on_request():
    assert as_frames(ramp() * 3, clip=True)[0].max() == 255


def test_something_else_than_a_video_is_a_type_error():
    with pytest.raises(TypeError, match="str"):
        nb.filmstrip("clip.gif")


@pytest.mark.parametrize(
    "observed",
    [
        [0, -1],
        torch.tensor([0, 4]),
        torch.tensor([True, False, False, False, True]),
        torch.tensor([[True, False, False, False, True]] * 2),
        [[0, 4], (4, 0)],
    ],
)
def test_observed_frames_in_all_their_forms(observed):
    assert observed_frames(observed, as_frames(ramp())) == [{0, 4}, {0, 4}]


def test_observed_frames_that_do_not_exist():
    with pytest.raises(ValueError, match="frame 5 is outside a clip of 5 frames"):
        nb.filmstrip(ramp(), observed=[5])
    with pytest.raises(nb.VideoShapeError, match="mask over 5 frames, got 4"):
        nb.filmstrip(ramp(), observed=torch.ones(4, dtype=torch.bool))


def test_titles_must_be_one_per_clip():
    with pytest.raises(ValueError, match="expected 2 titles"):
        nb.player(ramp(), titles=["one"])


# --- filmstrip -------------------------------------------------------------------------------------------


def test_filmstrip_lays_frames_out_from_left_to_right():
    strip = nb.filmstrip(ramp(1), numbers=False).to_pil().convert("L")
    row = np.asarray(strip)[strip.height // 2]
    seen = [int(value) for value, _ in zip(*np.unique(row, return_counts=True), strict=True)]
    assert seen == [0, 64, 128, 191, 255]
    assert row[8] == 0  # the first frame starts after the margin


def test_filmstrip_marks_observed_frames_only():
    def coloured(observed):
        pixels = np.asarray(nb.filmstrip(ramp(), observed=observed).to_pil().convert("RGB"))
        return int((pixels == np.array([0x56, 0xB4, 0xE9])).all(-1).sum())

    assert coloured(None) == 0
    assert 0 < coloured([[1], []]) < coloured([1])


def test_every_leaves_frames_out():
    assert nb.filmstrip(ramp(), every=2).to_pil().width == nb.filmstrip(ramp()[:, :, ::2]).to_pil().width
    with pytest.raises(ValueError, match="every >= 1"):
        nb.filmstrip(ramp(), every=0)


def test_pictures_describe_themselves_and_are_reproducible(tmp_path):
    strip = nb.filmstrip(ramp(), titles=["truth", "x̂"], observed=[0, 1])
    data, metadata = strip._repr_mimebundle_()
    assert data["text/plain"] == "2 clips of 5 frames: truth; x̂ (2 frames observed)"
    assert base64.b64decode(data["image/png"]) == strip.png
    assert metadata["image/png"]["width"] <= 830  # the width of a notebook's text
    assert nb.filmstrip(ramp(), titles=["truth", "x̂"], observed=[0, 1]).png == strip.png
    strip.save(tmp_path / "strip.png")
    assert Image.open(tmp_path / "strip.png").format == "PNG"


def test_colour_clips_keep_their_colours():
    video = -torch.ones(1, 3, 2, 8, 8)
    video[:, 0] = 1
    strip = nb.filmstrip(video, numbers=False).to_pil().convert("RGB")
    assert strip.getpixel((20, strip.height // 2)) == (255, 0, 0)


# --- player ----------------------------------------------------------------------------------------------


def sprites(player):
    return [base64.b64decode(one) for one in re.findall(r"base64,([A-Za-z0-9+/=]+)", player.html)]


def test_player_holds_every_frame_side_by_side(tmp_path):
    (tmp_path / "s.png").write_bytes(sprites(nb.player(ramp()))[1])
    pixels = np.asarray(Image.open(tmp_path / "s.png"))
    assert pixels.shape == (8, 5 * 8)
    assert pixels[0, ::8].tolist() == [0, 64, 128, 191, 255]


def test_player_is_small_even_for_noise():
    noise = torch.randn(8, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    assert len(nb.player(noise, clip=True).html) < 100_000


def test_player_is_reproducible_and_keyed_by_its_content():
    def key(player):
        return re.findall(r'data-minivdm="(\w+)"', player.html)[0]

    assert nb.player(ramp()).html == nb.player(ramp()).html
    assert key(nb.player(ramp())) != key(nb.player(ramp(), fps=4))


def test_player_needs_nothing_from_outside_and_has_no_ids():
    html = nb.player(ramp(), titles=["a", "b"]).html
    assert not re.search(r"https?:|\bid=|url\(", html)


def test_player_escapes_titles():
    html = nb.player(ramp(1), titles="<script>alert(1)</script>").html
    assert html.count("<script>") == 1


def test_player_refuses_an_impossible_rate():
    with pytest.raises(ValueError, match="fps"):
        nb.player(ramp(), fps=0)


# --- style and figures -----------------------------------------------------------------------------------


def test_colours_of_one_picture_differ():
    lines = [nb.colors.x, nb.colors.eps, nb.colors.v, nb.colors.z, nb.colors.exact, nb.colors.learned]
    assert len(set(lines)) == len(lines)


def test_figures_render_without_pyplot_at_the_same_bytes():
    def draw():
        figure, axes = nb.figure(1, 2)
        axes[0].plot([0, 1], [1, 0], color=nb.colors.data)
        nb.image(axes[1], ramp()[0, 0, 2], "frame 2")
        return figure

    picture = render(draw())
    assert picture.png == render(draw()).png
    assert picture.alt == "figure: frame 2"
    assert 600 < picture.width < 830


def test_show_leaves_no_figure_open():
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = plt.figure()
    nb.show(figure)
    assert not plt.fignum_exists(figure.number)


def test_image_wants_one_frame():
    _, axes = nb.figure()
    with pytest.raises(ValueError, match="one frame"):
        nb.image(axes, ramp())


# --- sources ---------------------------------------------------------------------------------------------


def test_source_names_file_and_lines_without_absolute_paths():
    shown = sources.source_of(nb.filmstrip)
    lines = Path(sources.__file__).with_name("strips.py").read_text(encoding="utf-8").splitlines()
    assert shown.where == "minivdm/course/notebook/strips.py"
    assert shown.code == "\n".join(lines[shown.first - 1 : shown.last])
    assert shown._repr_mimebundle_()["text/markdown"].startswith(f"`{shown.where}, lines {shown.first}–")


def test_source_without_docstring_still_runs():
    shown = sources.source_of(sources.source_of, docstring=False)
    assert "The source of one object" not in shown.code
    compile(shown.code, "shown", "exec")


def test_source_of_methods_is_dedented_and_comments_stay():
    assert sources.source_of(nb.Picture.save).code.startswith("def save")
    assert "# Not made by pyplot" in sources.source_of(nb.figure, docstring=False).code


@pytest.mark.parametrize("thing", [len, 3, torch.zeros(2)])
def test_things_without_source_are_refused(thing):
    with pytest.raises(TypeError, match="Python source"):
        sources.source_of(thing)


# --- sliders ---------------------------------------------------------------------------------------------


def line(slope: float, dashed: bool = False) -> Figure:
    figure, axes = nb.figure(width=3)
    axes.plot([0, 1], [0, slope], "--" if dashed else "-")
    return figure


def test_stills_stand_side_by_side_with_their_values():
    picture = sliders.still(line, [{"slope": 0.5}, {"slope": 1.0}])
    assert picture.alt == "slope = 0.5: figure; slope = 1: figure"
    assert picture.to_pil().width > 1.8 * render(line(1.0), dpi=120).to_pil().width


def test_the_slider_changes_the_picture_and_comes_back_to_the_same_bytes():
    box = sliders.live(line, {"slope": 1.0, "dashed": False}, {"slope": (0.0, 2.0, 0.5), "dashed": False})
    slope, dashed, _, screen = box.children
    before = screen.value
    slope.value = 2.0
    assert screen.value != before == render(line(1.0), dpi=120).png
    slope.value = 1.0
    assert screen.value == before
    dashed.value = True
    assert screen.value != before


def test_the_picture_is_never_drawn_twice_for_the_same_values():
    drawn = []

    def counted(k):
        drawn.append(k)
        return line(k)

    slider, _, _ = sliders.live(counted, {"k": 1}, {"k": (0, 3)}).children
    for value in (2, 1, 2, 1):
        slider.value = value
    assert drawn == [1, 2]


def test_an_error_in_draw_is_shown_where_the_reader_looks():
    def draw(k):
        if k > 1:
            raise ValueError("too much")
        return line(k)

    slider, trouble, _ = sliders.live(draw, {"k": 1}, {"k": (0, 3)}).children
    slider.value = 2
    assert trouble.value == "<b>ValueError</b>: too much"
    slider.value = 0
    assert trouble.value == ""


def test_slow_pictures_wait_for_the_release():
    def slow(k):
        time.sleep(1.5 * sliders.SLOW)
        return line(k)

    assert not sliders.live(slow, {"k": 1}, {"k": (0, 3)}).children[0].continuous_update


def test_explore_stores_stills_only_when_asked(monkeypatch):
    shown = []
    monkeypatch.setattr(sliders, "display", shown.append)
    monkeypatch.setenv("MINIVDM_STATIC", "1")
    nb.explore(line, slope=(0.0, 1.0, 0.1))
    assert [type(one).__name__ for one in shown] == ["Picture", "_Note"]
    assert shown[0].alt.startswith("slope = 0: ") and "slope = 0.5: " in shown[0].alt
    nb.explore(line, slope=(0.0, 1.0, 0.1), alt="a line that grows steeper")
    assert shown[2].alt == "a line that grows steeper (slope = 0; slope = 0.5; slope = 1)"
    monkeypatch.delenv("MINIVDM_STATIC")
    nb.explore(line, slope=(0.0, 1.0, 0.1), static=[{"slope": 0.3}])
    assert type(shown[5]).__name__ == "VBox"


@pytest.mark.parametrize(
    ("controls", "error"),
    [
        ({"slope": (1.0, 0.0)}, ValueError),
        ({"slope": (0.0, 1.0, -0.1)}, ValueError),
        ({"slope": "wide"}, TypeError),
        ({"slope": []}, TypeError),
        ({"slope": (0, 1), "start": {"slop": 1}}, ValueError),
        ({"slope": (0, 1), "static": [{"slop": 1}]}, ValueError),
    ],
)
def test_explore_refuses_controls_that_make_no_sense(controls, error):
    with pytest.raises(error, match="slop"):
        nb.explore(line, **controls)


def test_draw_must_return_a_picture():
    with pytest.raises(TypeError, match="Figure or a Picture, got int"):
        sliders.still(lambda k: k, [{"k": 1}])


# --- executing -------------------------------------------------------------------------------------------


def write(path: Path, *cells: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, path)
    return path


def test_execution_is_reproducible_and_leaves_nothing_volatile(tmp_path):
    path = write(tmp_path / "07_try.ipynb", "import os\nprint(os.getcwd().rpartition(os.sep)[2])", "1 + 1")
    assert runner.main([str(path)]) == 0
    first = path.read_text()
    stored = nbformat.reads(first, as_version=4)
    nbformat.validate(stored)
    assert [cell.id for cell in stored.cells] == ["07-try-000", "07-try-001"]
    assert [cell.execution_count for cell in stored.cells] == [1, 2]
    assert stored.cells[0].outputs[0].text == tmp_path.name + "\n"  # the notebook's own folder
    assert stored.metadata.language_info == {"name": "python"} and not stored.cells[0].metadata
    assert runner.main([str(path)]) == 0
    assert path.read_text() == first


def test_one_bad_notebook_means_that_nothing_is_written(tmp_path, capsys):
    good, bad = write(tmp_path / "a.ipynb", "print(1)"), write(tmp_path / "b.ipynb", "1 / 0")
    before = [good.read_bytes(), bad.read_bytes()]
    assert runner.main([str(good), str(bad)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert [good.read_bytes(), bad.read_bytes()] == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.ipynb", "b.ipynb"]


@pytest.mark.parametrize(
    ("kind", "content", "says"),
    [
        ("error", {"ename": "ValueError", "evalue": "no", "traceback": []}, "ValueError: no"),
        ("stream", {"name": "stderr", "text": "DeprecationWarning: old"}, "stderr: DeprecationWarning"),
        ("execute_result", {"data": {"text/plain": "<object object at 0x7f00>"}}, "leftover repr"),
        ("execute_result", {"data": {"text/plain": "<Figure size 640x480 with 1 Axes>"}}, "leftover repr"),
        ("stream", {"name": "stdout", "text": str(Path.home() / "clips")}, "absolute path"),
        ("stream", {"name": "stdout", "text": "fine"}, None),
    ],
)
def test_unclean_outputs_are_named(kind, content, says):
    output = nbformat.v4.new_output(kind, **content)
    cell = nbformat.v4.new_code_cell("x", outputs=[output], execution_count=1)
    complaints = runner.complain(nbformat.v4.new_notebook(cells=[cell]))
    assert len(complaints) == (says is not None)
    assert says is None or "cell 0 (x): " in complaints[0] and says in complaints[0]


def test_cells_out_of_order_are_named():
    cells = [nbformat.v4.new_code_cell("x", execution_count=count) for count in (1, 3)]
    assert runner.complain(nbformat.v4.new_notebook(cells=cells)) == ["cell 1 (x): execution count 3, expected 2"]


def test_a_stalled_notebook_is_tried_again_and_then_reported(tmp_path, capsys):
    path = write(tmp_path / "a.ipynb", "import time\ntime.sleep(60)")
    with pytest.raises(runner.LessonError, match="stalled 2 times"):
        runner.execute(path, timeout=1, attempts=2)
    assert "once more" in capsys.readouterr().err


def test_a_large_notebook_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LIMIT", 1000)
    with pytest.raises(runner.LessonError, match="MB"):
        runner.execute(write(tmp_path / "a.ipynb", "print('x' * 2000)"))
