"""The page on one's own videos shows what a step costs as it is counted."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_shows_what_is_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import own_videos

    page = (ROOT / "lessons" / "your_own_videos.md").read_text()
    shown = re.search(r"<!-- begin own_videos -->\n(.*?)<!-- end own_videos -->", page, re.S)
    counted = own_videos.table()
    assert shown and shown[1] == counted


def test_colour_costs_a_little_and_size_its_pixels(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import own_videos

    base, colour, large = own_videos.cost(32, 1), own_videos.cost(32, 3), own_videos.cost(64, 1)
    assert 1 < colour[0] / base[0] < 1.05  # the first and the last convolution alone
    assert 3.5 < large[0] / base[0] < 4.8 and 3.5 < large[1] / base[1] < 4.8
