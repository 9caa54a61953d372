"""Fetching the public data files: cached and checked by pooch, continued where a broken download stopped.

Nothing here runs unless it is asked for; all of the course works from the digits that ship. The cache is the
user's own cache folder, or the one that the environment variable MINIVDM_CACHE names.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

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


def cache_folder(name: str) -> Path:
    """Where the files of a data set are kept, whether or not it exists yet."""
    return Path(os.environ.get("MINIVDM_CACHE") or pooch.os_cache("minivdm")) / name


def fetch(name: str) -> Path:
    """The folder with the files of "mnist", "fashion-mnist" or "moving-mnist-test", fetched where they are
    missing.

    A file counts as present only if its checksum is right.

    Raises:
        ValueError: an unknown name.
        FetchError: no network, or no server has the right file.
    """
    if name not in SOURCES:
        raise ValueError(f"expected one of {', '.join(SOURCES)}, got {name!r}")
    addresses, files = SOURCES[name]
    folder = cache_folder(name)
    pooch.get_logger().setLevel(logging.WARNING)  # it would announce every file; the progress bar does
    for file, checksum in files.items():
        reasons = []
        for address in addresses:
            try:
                pooch.retrieve(address + file, checksum, file, folder, downloader=resuming_download)
                break
            except (requests.RequestException, ValueError, OSError) as error:
                reasons.append(f"{address}{file}: {error}")
        else:
            raise FetchError(
                "\n  ".join([f"could not fetch {file} of {name}:", *reasons])
                + f"\nWithout a network, put the file into {folder} by hand,"
                " or leave digit_source out: the digits that ship need no network."
            )
    return folder


def resuming_download(url: str, output_file: str, pooch: object = None) -> None:
    """A downloader for pooch that continues: what has arrived stays in NAME.part, and the server is asked for
    the rest.

    pooch itself begins again after every break; the canonical Moving-MNIST file has 819 MB.
    """
    part = Path(output_file).with_name(url.rpartition("/")[2] + ".part")
    have = part.stat().st_size if part.exists() else 0
    # "identity": otherwise a server may send a .gz file as compressed *transport* and it would arrive
    # unpacked.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # longer than the file on the server: not a beginning of it
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0  # the server sends the whole file whatever it was asked
        length = int(response.headers.get("Content-Length", 0)) + have or None
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(desc=part.stem, initial=have, total=length, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for chunk in response.iter_content(1 << 16):
                bar.update(file.write(chunk))
    shutil.move(part, output_file)  # pooch now compares the checksum, and drops the file if it is wrong
