"""Where what is fetched or decoded is kept: the user's own cache folder, or the one that MINIVDM_CACHE names."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder for things of one kind, whether or not it exists yet."""
    named = os.environ.get("MINIVDM_CACHE")
    if named:
        return Path(named) / name
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "minivdm" / name
