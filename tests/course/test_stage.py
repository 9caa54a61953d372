"""What exercises are put to work with: readiness, and one module collected from a learner's notebooks."""

import json

import mutation
import pytest
import torch

from minivdm.course import stage


def written(x):
    return x + 1


def stub(x):
    raise NotImplementedError()


class Half:
    def __init__(self):
        pass

    def forward(self):
        raise NotImplementedError()


def test_unfinished_answers_are_named_and_finished_ones_are_quiet(capsys):
    assert stage.ready(written) and capsys.readouterr().out == ""
    assert not stage.ready(written, stub, Half)
    assert capsys.readouterr().out.startswith("Write stub and Half first")


def notebook(folder, name, **cells):
    made = [{"cell_type": "code", "metadata": {}, "source": "import math\n\nfrom minivdm import core\n\nSEED = 0"}]
    made += [
        {"cell_type": "code", "metadata": {"nbgrader": {"grade_id": key}}, "source": text}
        for key, text in cells.items()
    ]
    (folder / name).mkdir()
    (folder / name / f"{name}.ipynb").write_text(json.dumps({"cells": made}))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "capstone").mkdir()
    monkeypatch.chdir(tmp_path / "capstone")
    return tmp_path


def test_answers_of_two_notebooks_become_one_module(elsewhere):
    notebook(elsewhere, "01_a", root="def root(x):\n    return math.sqrt(x)")
    notebook(elsewhere, "02_b", twice="def twice(x):\n    return 2 * root(x)")
    own = stage.collect({"01_a": ["root"], "02_b": ["twice"]})
    assert own.twice(9.0) == 6
    text = (elsewhere / "capstone" / "my_answers.py").read_text()
    assert text.count("import math") == 1 and "minivdm" not in text


def test_all_that_is_missing_is_listed(elsewhere, capsys):
    notebook(elsewhere, "01_a", root="def root(x):\n    raise NotImplementedError()", bad="def bad(x) return 1")
    assert stage.collect({"01_a": ["root", "bad", "other"], "02_b": ["twice"]}) is None
    said = capsys.readouterr().out
    for word in ("01_a: root is not", "01_a: bad is not", "01_a: other is not", "no 02_b.ipynb"):
        assert word in said


def test_the_official_answers_make_the_packages_clip():
    """The capstone's chain with nothing but official answers, on a small untrained network: shapes, and no graph."""
    space = {}
    for assignment, names in {
        "06_samplers": ["ddim_step", "sample"],
        "07_guidance": ["guided_denoiser"],
        "10_extending_videos": ["extend"],
    }.items():
        setup, cells = mutation.solutions(assignment)
        for name in names:
            space[name] = mutation.defined(cells[name], name, mutation.namespace(setup))
    schedule = stage.model().schedule

    def network(z, log_snr, labels):
        return 0.1 * z + labels.sum() - 1

    denoise = space["guided_denoiser"](network, stage.label(3), 1.0, schedule)

    def step(z, x_hat, t, s):
        return space["ddim_step"](z, x_hat, *(f(u).to(z) for u in (t, s) for f in (schedule.alpha, schedule.sigma)))

    z = stage.noise(1, 1, 4, 8, 8)
    clip, film = space["sample"](denoise, step, z, [1.0, 2 / 3, 1 / 3, 0.0])
    assert torch.allclose(film[-1], stage.sampled(denoise, z, schedule, 3), atol=1e-4) and len(film) == 3
    more = space["extend"](denoise, clip[:, :, -2:].clamp(-1, 1), z, [1.0, 0.5, 0.0], schedule, 1.0)
    assert torch.equal(more[:, :, :2], clip[:, :, -2:].clamp(-1, 1)) and not more.requires_grad


def test_the_packages_own_way_to_a_clip_is_ddim():
    """For a denoiser whose answer never changes the last estimate is that answer, and two even steps are DDIM's."""
    x = torch.full((1, 1, 2, 2, 2), 0.5)
    assert torch.equal(stage.sampled(lambda z, t: x, torch.zeros_like(x), stage.model().schedule, 2), x)
