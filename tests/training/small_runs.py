"""What the tests of training share: a recipe of 24 clips that takes a fraction of a second, and ways to stop it."""

import os
import signal
import socket
import traceback

import torch

from minivdm import training
from minivdm.training import Recipe, distributed

NETWORK = {
    "width": 8,
    "multipliers": [1, 2],
    "spatial": [False, True],
    "temporal": [True, True],
    "patch": 4,
    "head_channels": 8,
    "embedding": 16,
    "middle": 1,
    "labels": 10,
}
# Two phases and three kinds of interval that do not divide each other.
TINY = Recipe(
    size=16,
    speed=1.0,
    network=NETWORK,
    clips=24,
    frames=((8, 2, 4), (16, 4, 2), (24, 3, 4)),
    images=1,
    warmup=8,
    log_every=4,
    save_every=6,
    preview_every=1000,
    milestones=(10,),
)


def tiny(**changes) -> Recipe:
    return Recipe.from_dict({**TINY.to_dict(), **changes})


def fit(recipe, out, **options):
    return training.fit(recipe, out, device="cpu", progress=False, **options)[0].trainer


def stop_at(monkeypatch, clips, number):
    """Send this process a signal in the step that passes `clips` clips."""
    step = training.Trainer.step

    def step_and_signal(self):
        step(self)
        if self.clips >= clips:
            signal.raise_signal(number)

    monkeypatch.setattr(training.Trainer, "step", step_and_signal)


def fail_at(monkeypatch, clips, message="power"):
    """Let the step after `clips` clips fail."""
    step = training.Trainer.step

    def step_or_fail(self):
        if self.clips >= clips:
            raise RuntimeError(message)
        step(self)

    monkeypatch.setattr(training.Trainer, "step", step_or_fail)


def assert_same(a, b):
    first, second = a.tensors(), b.tensors()
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert (a.clips, a.steps) == (b.clips, b.steps)


def fit_together(recipe, out, processes=2, **options):
    """Train in several processes that share the work, as torchrun starts them; returns their exit statuses.

    They are forked: that saves each of them the import of torch.
    """
    torch.set_num_threads(1)  # threads do not survive a fork
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in where.items()}, MASTER_ADDR="127.0.0.1")
                fit(recipe, out, **options)
                distributed.leave()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
