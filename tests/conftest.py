"""What all tests share: one thread per process, seeded generators, and a browser where there is one."""

import os
import shutil
from pathlib import Path

# Before torch is imported: spinning threads of two test processes would steal each other's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str | None:
    """Path of an installed Chromium; none is ever downloaded."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # In CI a missing browser has to show as a failure of those tests, not as a skip nobody reads.
    if find_browser() or os.environ.get("CI"):
        return
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))


def pytest_make_parametrize_id(val: object) -> str | None:
    # An id with an address in it differs between the processes that share the tests.
    return type(val).__name__ if " at 0x" in repr(val) and not hasattr(val, "__name__") else None


@pytest.fixture(scope="session")
def browser_path() -> str:
    """The Chromium that tests marked `browser` drive."""
    path = find_browser()
    assert path, f"none of {', '.join(BROWSERS)} is installed"
    return path


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def generator():
    """A seeded torch.Generator, the same for every test."""
    import torch

    return torch.Generator().manual_seed(0)
