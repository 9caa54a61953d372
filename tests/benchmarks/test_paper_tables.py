"""The pure parts of the paper's tables in benchmarks/: intervals, what they say about the paper, and resuming."""

import importlib
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(monkeypatch):
    """Modules of benchmarks/, by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def paper(bench):
    return bench("paper_tables")


@pytest.fixture
def bootstrap(bench):
    return bench("bootstrap")


@pytest.fixture
def finished(bench):
    return bench("finished")


@pytest.fixture
def table_text(bench):
    return bench("table_text")


def normal(n, mean=0.0, seed=0):
    return mean + torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cells(bootstrap, **values):
    return {name: {"metrics": {"seam": bootstrap.averaged(value)}} for name, value in values.items()}


def test_interval_of_a_mean_is_that_of_the_normal_law(bootstrap):
    values = normal(400, mean=5)
    low, high = bootstrap.interval_of(bootstrap.averaged(values))
    half = 1.96 * float(values.std()) / 20
    # 400 draws find a 2.5 % quantile to about a tenth of the half width; 0.25 of it is beyond chance.
    assert low == pytest.approx(float(values.mean()) - half, abs=0.25 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.25 * half)


def test_metrics_of_sets_are_centred_on_their_estimate(bootstrap):
    values = normal(8)
    metric = bootstrap.pooled(lambda index: float(values[index].var()), 8)  # 7/8 of it on average in a drawn set
    draws = bootstrap.bootstrapped(metric)
    assert torch.tensor(metric["draws"]).mean() < metric["estimate"]
    assert float(draws.mean()) == pytest.approx(metric["estimate"], abs=1e-12)


def test_share_of_all_clips_still_has_an_interval(bootstrap):
    low, high = bootstrap.interval_of(bootstrap.averaged(torch.ones(16), "share"))
    assert 0.7 < low < 0.9 and high == 1.0


def test_differences_are_paired(bootstrap):
    noise = 100 * normal(16)  # shared by both cells, and far larger than their difference
    row = bootstrap.compare(cells(bootstrap, a=noise + 1, b=noise), "seam", "a", "b")
    assert row["difference"] == pytest.approx(1, abs=1e-4) and row["direction"] == "appears"  # 5 digits are stored
    assert row["interval"] == pytest.approx([1, 1], abs=1e-4)


@pytest.mark.parametrize(
    "mean, sign, found",
    [(3, 1, "appears"), (3, -1, "opposite"), (-3, -1, "appears"), (-3, 1, "opposite"), (0, 1, "open"), (0, -1, "open")],
)
def test_direction_follows_from_the_interval(bootstrap, mean, sign, found):
    values = normal(32)
    row = bootstrap.compare(
        cells(bootstrap, a=values - values.mean() + mean, b=torch.zeros(32)), "seam", "a", "b", sign
    )
    assert row["direction"] == found


def test_no_comparison_without_both_cells(bootstrap):
    assert bootstrap.compare(cells(bootstrap, a=normal(4)), "seam", "a", "b") is None


@pytest.mark.parametrize(
    "kinds, words",
    [
        ([], "not yet measured"),
        (["appears"] * 3, "in all of 3 paired comparisons."),
        (["appears", "opposite", "open"], "in 1 of 3 paired comparisons; the opposite does in 1; undecided: 1. "),
        (["open", "open"], "in 0 of 2 paired comparisons; undecided: 2. "),
    ],
)
def test_verdict_counts_what_was_found(bootstrap, kinds, words):
    rows = [{"direction": kind, "difference": 1.0, "interval": [-1.0, 3.0]} for kind in kinds]
    assert words in bootstrap.verdict("a beats b", rows)


def test_undecided_differences_say_how_many_clips_they_would_take(bootstrap):
    rows = [
        {"direction": "open", "difference": 1.0, "interval": [-2.0, 4.0]},  # half width 3: 9 times the clips
        {"direction": "open", "difference": -1.0, "interval": [-3.0, 1.0]},  # half width 2: 4 times
        {"direction": "appears", "difference": 9.0, "interval": [8.0, 10.0]},
    ]
    assert "about 4.0 times as many clips" in bootstrap.why(rows)


def test_only_missing_cells_are_measured(finished):
    asked = []

    def cell(name):
        asked.append(name)
        return {"metrics": {}}

    seen = [list(found) for found in finished.fill(["a", "b", "c"], {"b": {"metrics": {}}}, cell)]
    assert asked == ["a", "c"]
    assert seen == [["b"], ["a", "b"], ["a", "b", "c"]]  # after each cell, in the table's order


def test_cells_of_other_settings_are_refused(finished, tmp_path):
    path = tmp_path / "paper_6.json"
    path.write_text(finished.as_json({"settings": {"clips": 16}, "comparisons": [], "cells": {"a": {"metrics": {}}}}))
    assert finished.resumed(path, {"clips": 16}) == {"a": {"metrics": {}}}
    with pytest.raises(finished.OtherSettings, match="--again"):
        finished.resumed(path, {"clips": 8})
    assert finished.resumed(path, {"clips": 8}, again=True) == {}


def test_unmeasured_cells_are_named(bootstrap, table_text):
    found = {
        "cells": cells(bootstrap, a=normal(4), b=normal(4, 1)),
        "names": ["a", "b", "c"],
        "verdict": "A verdict.",
        "settings": {"clips": 4, "seed": 0},
        "about": "about, ",
        "hardware": "CPU",
        "command": "a command",
        "comparisons": [bootstrap.compare(cells(bootstrap, a=normal(4), b=normal(4, 1)), "seam", "a", "b")],
    }
    text = table_text.markdown(found)
    assert "Not yet measured: c." in text and "A verdict." in text and "| a − b |" in text


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("paper_*.json")), ids=lambda p: p.stem)
def test_the_shown_tables_are_made_of_their_figures(paper, bootstrap, table_text, joint, path):
    found = json.loads(path.read_text())
    if found["table"] == 4:
        rows, claim = joint.comparisons(found["cells"], found["settings"]["seeds"]), joint.CLAIM
    else:
        rows, claim = paper.comparisons(found["table"], found["cells"]), paper.CLAIM[found["table"]]
    assert found["comparisons"] == rows
    assert found["verdict"] == bootstrap.verdict(claim, rows)
    assert path.with_suffix(".md").read_text() == table_text.markdown(found)


# ---- table 4, and few calls ----------------------------------------------------------------------------------


@pytest.fixture
def joint(bench):
    return bench("joint_training")


@pytest.fixture
def few(bench):
    return bench("few_calls")


def test_runs_of_table_4_differ_in_nothing_but_the_images_and_the_seed(joint):
    runs = [joint.config(images, 8_000, seed) for images in joint.IMAGES for seed in (0, 1)]
    assert all(set(runs[0].difference(run)) <= {"images", "seed", "data_seed"} for run in runs)
    assert len({run.clips // run.batch for run in runs}) == 1


def test_a_run_of_table_4_is_trained_and_measured(joint, monkeypatch, tmp_path):
    monkeypatch.setattr(joint, "ROOT", tmp_path)
    monkeypatch.setattr(joint, "MADE", 10)
    monkeypatch.setattr(joint, "STEPS", 1)
    made = joint.cell("4 images, seed 0", 8)
    assert made["steps"] == 1
    assert set(made["metrics"]) == {"frames", "clips", "score", "legible", "identity"}
    again = joint.cell("4 images, seed 0", 8)  # the run has ended already, and is not trained twice
    assert made == again | {name: made[name] for name in ("cpu_seconds", "training_seconds")}


def distances(bootstrap, frames, clips):
    return {
        "metrics": {
            name: {"estimate": value, "draws": [value] * bootstrap.DRAWS}
            for name, value in (("frames", frames), ("clips", clips))
        }
    }


def test_ratios_are_to_256_ancestral_steps(bootstrap, few):
    cells = {"DDIM, 10 calls": distances(bootstrap, 2.1, 3.0)}
    assert few.ratios(cells, few.REFERENCE_ROW) == []
    found = few.ratios({few.REFERENCE_ROW: distances(bootstrap, 2.0, 4.0), **cells}, few.REFERENCE_ROW)
    assert [(row["metric"], row["ratio"], row["interval"]) for row in found] == [
        ("frames", 1.05, [1.05, 1.05]),
        ("clips", 0.75, [0.75, 0.75]),
    ]


@pytest.mark.parametrize(
    "ratios, words",
    [
        ([("a", 1.04), ("a", 0.9), ("b", 1.2)], "a is at most 5 % above 256 ancestral steps in both distances"),
        ([("a", 1.3), ("a", 0.9), ("b", 1.2)], "b is nearest to, but not within 5 % of, 256 ancestral steps"),
        ([], "Not yet measured"),
    ],
)
def test_the_verdict_is_about_the_larger_ratio(few, ratios, words):
    assert words in few.verdict([{"row": row, "ratio": ratio} for row, ratio in ratios])


def test_every_row_but_the_first_takes_ten_calls_at_most(few):
    from minivdm.core.samplers import sample
    from minivdm.core.schedules import CosineSchedule
    from minivdm.exact import GaussianMixture

    exact = GaussianMixture.ring().denoiser(CosineSchedule())
    for name, options in few.SAMPLERS.items():
        calls = []

        class Counted:
            schedule = exact.schedule

            def __call__(self, z, t, calls=calls):
                calls.append(t)
                return exact(z, t)

        sample(Counted(), torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), **options())
        assert f"{len(calls)} calls" in name
