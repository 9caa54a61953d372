"""What a folder of videos says by itself: channels, labels and a name, which `train` then need not be told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def settings(assignments: list[str]) -> list[str]:
    """Further `key=value` assignments where these have data=folder; what is given there is left alone.

    Raises:
        FileNotFoundError, VideoFileError: no folder, no video in it, or grey and coloured ones.
    """
    texts = [text for text in assignments if isinstance(text, str)]  # of `--set=--`, argparse makes a list
    given = {key: _value(raw) for key, _, raw in (text.partition("=") for text in texts)}
    if given.get("data") != "folder" or not given.get("path"):
        return []
    from minivdm.data.video_folder import find_channels, find_videos

    network = given.get("network")
    inside = network if isinstance(network, dict) else {}
    sources = find_videos(str(given["path"]))
    found: dict[str, Any] = {}
    if "name" not in given:
        found["name"] = name(str(given["path"]))
    if "network.channels" not in given and "channels" not in inside:
        found["network.channels"] = find_channels(sources)
    if "network.labels" not in given and "labels" not in inside and "conditions" not in given:
        labels = len({source.label for source in sources} - {""})
        found["network.labels"] = labels
        if not labels:
            found["conditions"] = {}
    return [f"{key}={json.dumps(value)}" for key, value in found.items()]


def name(path: str) -> str:
    """A name for the run: the folder's, without what a file name may not hold."""
    return re.sub(r"[^\w-]+", "-", Path(path).resolve().name).strip("-") or "videos"


def labels(path: str, count: int) -> list[str]:
    """Names of the labels of a folder of videos; their numbers where the folder is gone, or has changed."""
    from minivdm.data.video_folder import find_videos

    try:
        found = sorted({source.label for source in find_videos(path)} - {""})
    except (OSError, ValueError):
        found = []
    return found if len(found) == count else list(map(str, range(count)))


def _value(raw: str) -> Any:
    try:
        return json.loads(raw)
    except (json.JSONDecodeError, RecursionError):
        return raw
