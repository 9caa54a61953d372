"""The frame player on a page of its own, driven as a reader drives it."""

import pytest
import torch

from minivdm.course import notebook as nb

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FIRST = "document.querySelector('.mv-player canvas').getContext('2d').getImageData(3, 3, 1, 1).data[0]"


@pytest.fixture(scope="module")
def chromium(browser_path):
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=browser_path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, tmp_path):
    """Two copies of one player and a shorter one on a page that may not reach any network."""
    video = torch.linspace(-1, 1, 6).view(1, 1, 6, 1, 1).expand(2, 1, 6, 16, 16)
    twin = nb.player(video, titles=["truth", "sample"], observed=[[], [0, 1]], fps=20)
    html = twin.html + twin.html + nb.player(video[:1, :, :4]).html
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset='utf-8'>{html}", encoding="utf-8")
    page = chromium.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file") else route.abort())
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function(FIRST + " === 0")
    yield page
    assert page.errors == []
    page.close()


def frames(page):
    return page.eval_on_selector_all(".mv-player", "all => all.map(one => Number(one.dataset.frame))")


def test_starts_paused_on_the_first_frame(page):
    assert frames(page) == [0, 0, 0]
    assert page.locator(".mv-player").first.get_attribute("data-playing") == "false"
    assert page.locator(".mv-still").count() == 0


def test_arrow_keys_step_the_focused_player_alone(page):
    page.locator(".mv-player").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert frames(page) == [2, 0, 0]
    assert page.evaluate(FIRST) == 102  # frame 2 of 6: -1 + 2 * 2 / 5, in 8 bits
    page.keyboard.press("ArrowLeft")
    assert frames(page) == [1, 0, 0]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")  # round the corner
    assert frames(page) == [5, 0, 0]
    assert page.evaluate(FIRST) == 255


def test_space_plays_and_pauses(page):
    page.locator(".mv-player").first.focus()
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('.mv-player').dataset.frame === '3'")
    page.keyboard.press("Space")
    stopped = frames(page)
    page.wait_for_timeout(200)
    assert frames(page) == stopped
    assert page.evaluate("scrollY") == 0  # the page did not scroll


def test_scrubbing_moves_all_clips_in_step_and_marks_observed_frames(page):
    player = page.locator(".mv-player").first
    player.get_by_label("Frame", exact=True).fill("1")
    assert frames(page)[0] == 1
    values = "all => all.map(one => one.getContext('2d').getImageData(0, 0, 1, 1).data[0])"
    assert player.locator("canvas").evaluate_all(values) == [51, 51]
    assert player.locator("canvas").evaluate_all("all => all.map(one => one.className)") == [
        "",
        "mv-observed",
    ]
    assert player.locator("output").inner_text() == "frame 1 / 5, observed"
    player.get_by_label("Frame", exact=True).fill("2")
    assert player.locator("canvas.mv-observed").count() == 0


def test_buttons_and_speed(page):
    player = page.locator(".mv-player").first
    player.get_by_label("Next frame").click()
    assert frames(page)[0] == 1
    player.get_by_label("Previous frame").click()
    assert frames(page)[0] == 0
    player.get_by_label("Speed").select_option("4")
    player.get_by_label("Play", exact=True).click()
    page.wait_for_function("document.querySelector('.mv-player').dataset.frame === '4'")
    player.get_by_label("Pause").click()
    assert player.get_attribute("data-playing") == "false"


def test_without_scripts_every_clip_is_a_row_of_frames(chromium, tmp_path):
    html = nb.player(torch.zeros(2, 1, 6, 16, 16), titles=["truth", "sample"]).html
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.get_by_alt_text("truth").bounding_box()["width"] > 600
    assert page.get_by_text("Scripts are off here").is_visible()
    context.close()
