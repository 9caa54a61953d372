"""JupyterLab as a reader uses it: open a notebook, run everything, play a clip, move a slider."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOKEN = "a-token-for-this-test"
# Every cell stays in the page instead of those in view only, and nothing is asked of the network.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false"},
}
SMALL = [
    "import torch\nfrom minivdm import notebook as nb\n"
    "clip = torch.linspace(-1, 1, 6).view(1, 1, 6, 1, 1).expand(1, 1, 6, 16, 16)\n"
    "nb.player(clip, observed=[0])",
    "def draw(k):\n    figure, axes = nb.figure(width=3)\n    axes.plot([0, k])\n    return figure\n\n\n"
    "nb.explore(draw, k=(0, 4))",
]


def small_notebook() -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in SMALL],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address and the folder of a JupyterLab server that reads and writes nothing of the user's."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("notebooks")
    for name, content in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    kinds = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    env = {**os.environ, **{name: str(home / place) for name, place in kinds.items()}}
    env.pop("MINIVDM_STATIC", None)  # live sliders are what is tested
    # The kernel starts in the notebooks' folder: the package must be found from there, installed or not.
    root = str(Path(__file__).resolve().parent.parent)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
    ]
    options += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.25)
        yield address, folder
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def chromium(browser_path):
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=browser_path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_notebook(lab, chromium):
    """open_notebook(notebook) shows it in JupyterLab and returns the page, its kernel idle."""
    address, folder = lab
    pages = []

    def open_(notebook: nbformat.NotebookNode):
        name = f"page{len(list(folder.iterdir()))}.ipynb"
        nbformat.write(notebook, folder / name)
        page = chromium.new_page(viewport={"width": 1300, "height": 1000})
        pages.append(page)
        page.goto(f"{address}/lab/tree/{name}?token={TOKEN}&reset", timeout=60_000)
        idle(page)
        return page

    yield open_
    for page in pages:
        page.close()


def idle(page, timeout: int = 60_000):
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=timeout)


def run_all(page, cells: int, timeout: int):
    """Restart the kernel, run all cells, and wait until the last of them has its number."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells…").click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.locator(".jp-CodeCell .jp-InputPrompt", has_text=f"[{cells}]:").wait_for(timeout=timeout)
    idle(page)


def step_the_player(page):
    """One press of an arrow key moves the clip one frame, and JupyterLab does nothing with it."""
    player = page.locator(".mv-player[data-ready]").first
    player.scroll_into_view_if_needed()
    player.focus()
    before = int(player.get_attribute("data-frame"))
    page.keyboard.press("ArrowRight")
    assert int(player.get_attribute("data-frame")) == before + 1
    assert player.evaluate("one => document.activeElement === one")


def move_the_slider(page):
    """An arrow key on a slider's handle brings another picture."""
    handle = page.locator(".widget-slider .noUi-handle").first
    handle.scroll_into_view_if_needed()
    picture = page.locator("img.widget-image").first
    before = picture.get_attribute("src")
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        f"document.querySelector('img.widget-image').src !== {json.dumps(before)}", timeout=20_000
    )


def test_a_player_and_a_slider_answer(open_notebook):
    page = open_notebook(small_notebook())
    run_all(page, cells=2, timeout=60_000)
    step_the_player(page)
    move_the_slider(page)
    assert page.locator(".jp-RenderedImage img").count() == 1  # the stills, for readers without a kernel


def test_a_notebook_that_is_not_trusted_shows_the_frames_of_its_players(open_notebook):
    notebook = small_notebook()
    namespace: dict = {}
    exec(SMALL[0].rpartition("\n")[0], namespace)
    made = namespace["nb"].player(namespace["clip"])
    data = {"text/html": made.html, "text/plain": made.alt}
    notebook.cells[0].outputs = [nbformat.v4.new_output("execute_result", data=data, execution_count=1)]
    page = open_notebook(notebook)
    still = page.get_by_text("Scripts are off here")
    still.scroll_into_view_if_needed()
    assert still.is_visible()
    assert (
        page.get_by_alt_text("clip of 6 frames").evaluate("img => img.complete && img.naturalWidth") == 6 * 16
    )


def test_lesson_00_runs_and_answers(open_notebook, root):
    path = root / "lessons" / "00_start_here.ipynb"
    lesson = nbformat.read(path, as_version=4)
    codes = [cell for cell in lesson.cells if cell.cell_type == "code"]
    for cell in codes:
        cell.outputs, cell.execution_count = [], None
    page = open_notebook(lesson)
    run_all(page, cells=len(codes), timeout=240_000)
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
    step_the_player(page)
    move_the_slider(page)
