"""Fetching, from a server on this machine that breaks off, lies about lengths, and is asked by two at once."""

import hashlib
import http.server
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minivdm.data import fetch
from minivdm.data.moving_mnist import MovingMNIST


class BreakingHandler(http.server.BaseHTTPRequestHandler):
    """Serves `content`, but the first answer stops half way; understands Range."""

    content = np.random.default_rng(1).bytes(300_000)
    asked: list[str | None] = []
    slow: threading.Event | None = None

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = self.content[start:]
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        if self.slow is not None:
            self.wfile.flush()
            self.slow.set()
            time.sleep(1)
        if len(self.asked) > 1:
            self.wfile.write(body[half:])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIVDM_CACHE", str(tmp_path))
    BreakingHandler.asked, BreakingHandler.slow = [], None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), BreakingHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        checksum = "md5:" + hashlib.md5(BreakingHandler.content).hexdigest()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(fetch.SOURCES, "some", ([address], {"some.bin": checksum}))
        yield
        server.shutdown()
        thread.join()


def test_fetch_resumes_checks_and_caches(server) -> None:
    with pytest.raises(fetch.FetchError, match=r"some\.bin"):
        fetch.fetch("some")
    arrived = (fetch.cache_folder("some") / "some.bin.part").stat().st_size
    assert 0 < arrived <= 150_000
    folder = fetch.fetch("some")
    assert BreakingHandler.asked == [None, f"bytes={arrived}-"]
    assert (folder / "some.bin").read_bytes() == BreakingHandler.content
    fetch.fetch("some")
    assert len(BreakingHandler.asked) == 2  # from the cache


def test_fetch_rejects_a_wrong_checksum(server) -> None:
    BreakingHandler.asked.append("no break")
    fetch.SOURCES["some"][1]["some.bin"] = "md5:" + "0" * 32
    with pytest.raises(fetch.FetchError, match="hash"):
        fetch.fetch("some")
    assert not list(fetch.cache_folder("some").glob("*"))


def test_offline_says_what_to_do(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MINIVDM_CACHE", str(tmp_path))
    monkeypatch.setitem(fetch.SOURCES, "mnist", (["http://127.0.0.1:9/"], fetch.MNIST_FILES))  # nobody listens
    with pytest.raises(fetch.FetchError, match="the digits that ship need no network"):
        MovingMNIST(digit_source="mnist")
    with pytest.raises(ValueError, match="data set: expected one of 'mnist', 'fashion-mnist'"):
        fetch.fetch("cifar")


def test_a_whole_part_is_used_as_it_is(server) -> None:
    """A process was killed between the last byte and the move."""
    folder = fetch.cache_folder("some")
    folder.mkdir(parents=True)
    (folder / "some.bin.part").write_bytes(BreakingHandler.content)
    fetch.fetch("some")
    assert BreakingHandler.asked == [] and (folder / "some.bin").read_bytes() == BreakingHandler.content


def test_a_part_that_is_longer_than_the_file_is_dropped(server) -> None:
    BreakingHandler.asked.append("no break")
    folder = fetch.cache_folder("some")
    folder.mkdir(parents=True)
    (folder / "some.bin.part").write_bytes(BreakingHandler.content + b"more")
    fetch.fetch("some")
    assert (folder / "some.bin").read_bytes() == BreakingHandler.content


def test_two_processes_at_once_fetch_once(server, tmp_path) -> None:
    BreakingHandler.asked.append("no break")
    BreakingHandler.slow = threading.Event()
    (address,), files = fetch.SOURCES["some"]
    code = (
        "import sys\nfrom minivdm.data import fetch\n"
        f"fetch.SOURCES['some'] = ([{address!r}], {files!r})\nprint(fetch.fetch('some'))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    BreakingHandler.slow.wait(30)  # the first one has half of it, the second one stands and waits
    assert all(one.wait(60) == 0 for one in both)
    assert BreakingHandler.asked[1:] == [None]
    assert (fetch.cache_folder("some") / "some.bin").read_bytes() == BreakingHandler.content
