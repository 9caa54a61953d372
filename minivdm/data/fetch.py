"""Fetching the public data files: checked, kept, and continued where a broken download stopped.

Nothing here runs unless it is asked for; all of the course works from the digits that ship. The files lie in the
user's own cache folder, or the one that the environment variable MINIVDM_CACHE names.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from minivdm.data.atomic import exclusive
from minivdm.data.cache import cache_folder
from minivdm.guards import one_of

__all__ = ["FASHION_FILES", "MNIST_FILES", "MOVING_FILES", "SOURCES", "FetchError", "cache_folder", "fetch"]

MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}
MOVING_FILES = {"mnist_test_seq.npy": "md5:be083ec986bfe91a449d63653c411eb2"}

# name: (addresses to try in this order, {file: checksum})
SOURCES: dict[str, tuple[list[str], dict[str, str]]] = {
    "mnist": (
        [
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ],
        MNIST_FILES,
    ),
    "fashion-mnist": (
        [
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ],
        FASHION_FILES,
    ),
    "moving-mnist-test": (["https://www.cs.toronto.edu/~nitish/unsupervised_video/"], MOVING_FILES),
}


class FetchError(ConnectionError):
    """A file is neither in the cache nor could it be fetched."""


def fetch(name: str) -> Path:
    """The folder with the files of a data set, fetched where they are missing.

    A file counts as present only if its checksum is right. Two processes that ask at once wait for each other: one
    fetches, the other finds the file.

    Args:
        name: "mnist", "fashion-mnist" or "moving-mnist-test".

    Raises:
        BadArgument: an unknown name.
        FetchError: no network, or no server has the right file.
    """
    addresses, files = SOURCES[one_of("data set", name, tuple(SOURCES))]
    folder = cache_folder(name)
    for file, checksum in files.items():
        path = folder / file
        if path.exists() and digest(path) == checksum:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with _in_turn(folder.with_name(f".{name}.lock")):
            if not (path.exists() and digest(path) == checksum):
                _fetch_one(path, addresses, checksum, name)
    return folder


@contextlib.contextmanager
def _in_turn(lock: Path) -> Iterator[None]:
    """Waits until no other process holds the lock."""
    while True:
        with exclusive(lock) as mine:
            if mine:
                yield
                return
        time.sleep(0.2)


def _fetch_one(path: Path, addresses: list[str], checksum: str, name: str) -> None:
    reasons = []
    for address in addresses:
        try:
            part = download(address + path.name, path, checksum)
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            reasons.append(f"{address}{path.name}: {error}")
            continue
        found = digest(part)
        if found == checksum:
            os.replace(part, path)
            return
        part.unlink()
        reasons.append(f"{address}{path.name}: expected the hash {checksum}, got {found}")
    raise FetchError(
        "\n  ".join([f"could not fetch {path.name} of {name}:", *reasons])
        + f"\nWithout a network, put the file into {path.parent} by hand,"
        " or leave digit_source out: the digits that ship need no network."
    )


def download(url: str, path: Path, checksum: str) -> Path:
    """Fetch a file into NAME.part beside `path`, and return that; what has arrived of it before is not asked for again.

    Raises:
        OSError, http.client.HTTPException: no connection, an answer that is none, or one that broke off; what has
            arrived stays.
    """
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    if have and digest(part) == checksum:  # a process was killed before it moved the file
        return part
    # "identity": otherwise a server may send a .gz file as compressed *transport* and it would arrive unpacked.
    headers = {"Accept-Encoding": "identity", "User-Agent": "minivdm"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        part.unlink()  # not a beginning of the file on the server, which is shorter: once more, from the start
        return download(url, path, checksum)
    with response:
        if response.status != 206:
            have = 0  # the server sends the whole file whatever it was asked
        length = response.headers.get("Content-Length")
        total = int(length) + have if length and length.isdigit() else None
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(desc=path.name, initial=have, total=total, unit="B", unit_scale=True, disable=None) as bar,
        ):
            while chunk := response.read(1 << 16):
                bar.update(file.write(chunk))
        arrived = part.stat().st_size
        if total is not None and arrived < total:
            raise ConnectionError(f"the connection broke off after {arrived:,} of {total:,} bytes")
    return part


def digest(path: Path) -> str:
    """The checksum of a file, "md5:..." as the data sets' pages give it."""
    sum_ = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sum_.update(chunk)
    return f"md5:{sum_.hexdigest()}"
