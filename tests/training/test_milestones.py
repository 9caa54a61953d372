"""What a run's snapshots generate: every stage is there, from the same noise, and the file is read back."""

import numpy as np
import pytest
import torch
from small_runs import NETWORK, fit, tiny

from minivdm import tasks
from minivdm.training import checkpoints, milestones


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    # Milestones are reached by whole batches: 12 clips for 10, and 24 is the end, which has a snapshot of its own.
    trainer = fit(tiny(frames=((12, 2, 4), (24, 3, 4)), milestones=(10,), images=0, network=NETWORK), folder)
    return folder, trainer


def test_stages_are_untrained_snapshots_and_the_end(run):
    found = list(milestones.stages(run[0]))
    assert [clips for clips, _, _ in found] == [0, 12, 24]
    for p, q in zip(found[-1][1].parameters(), run[1].ema.parameters(), strict=True):
        assert torch.equal(p, q)


def test_recorded_progress_is_read_back(run, tmp_path):
    path = milestones.record(run[0], tmp_path, "small", digits=(1, 4), steps=3, held_out_clips=2)
    story = milestones.read("small", tmp_path)
    assert path == tmp_path / "small.progress.npz"
    assert list(story.clips) == [0, 12, 24] and list(story.labels) == [1, 4]
    assert story.videos.shape == (3, 2, 1, 3, 16, 16) and story.v_error.shape == (3, len(story.log_snr))
    assert story.videos.min() >= -1 and story.videos.max() <= 1
    assert str(tmp_path) not in story.command and "--digits 1 4" in story.command

    labels = torch.cat([tasks.multi_hot([digit]) for digit in (1, 4)])
    videos = tasks.generate(
        run[1].ema_denoiser,
        labels,
        shape=(1, 3, 16, 16),
        steps=3,
        weight=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    # Half a grey step of 8 / 127.5, and nothing else.
    assert (story.videos[-1] - videos.clamp(-1, 1)).abs().max() < 4.01 / 127.5


def test_the_same_run_gives_the_same_file(run, tmp_path):
    files = [milestones.record(run[0], tmp_path, name, digits=(3,), steps=2, held_out_clips=1) for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_nothing_recorded_and_no_run_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m minivdm progress"):
        milestones.read("small", tmp_path)
    with pytest.raises((FileNotFoundError, checkpoints.DamagedCheckpoint), match="no checkpoint"):
        next(milestones.stages(tmp_path))


def test_untrained_stage_is_noise(run, tmp_path):
    milestones.record(run[0], tmp_path, "small", digits=(1,), steps=2, held_out_clips=2)
    story = milestones.read("small", tmp_path)
    assert np.allclose(story.v_error[0], 1, atol=0.2)  # v_hat = 0: E v^2 = alpha^2 + sigma^2 m2, and m2 is near 0.9
