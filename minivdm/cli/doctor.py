"""`python -m minivdm doctor`: what is here, what is missing, and what to do about it. Runs even without torch."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import platform
import re
import sys

#: Packages by what they are for, should the package's own list of requirements not be readable.
NEEDED = ("torch", "numpy", "einops", "safetensors", "tqdm", "pillow")


def doctor(args: argparse.Namespace) -> int:
    """Say what is there and what is missing."""
    lines, healthy = report()
    print("\n".join(lines))
    return 0 if healthy else 1


def report() -> tuple[list[str], bool]:
    """Lines to print, and whether everything that the package needs is there."""
    lines = [
        f"machine   {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        f"python    {platform.python_version()} ({sys.prefix})",
    ]
    healthy = True
    found, missing = _packages()
    lines.append("packages  " + ", ".join(found))
    if missing:
        healthy = False
        lines.append(f"          MISSING: {', '.join(missing)}. Run `make setup`, or: pip install --editable .")
    lines += _extras()
    if any(item.split()[0] == "torch" for item in missing):
        return lines, False
    for section in (_device, _data, _weights):
        try:
            said, good = section()
        except Exception as error:  # a diagnosis goes on to the next organ
            said, good = [f"{section.__name__[1:]:9} FAILED: {type(error).__name__}: {error}"], False
        lines += said
        healthy = healthy and good
    lines.append("all is well" if healthy else "something is missing: see the lines in capitals")
    return lines, healthy


def _packages() -> tuple[list[str], list[str]]:
    try:
        listed = importlib.metadata.requires("minivdm") or []
        names = [re.split(r"[ ;<>=!~\[(]", item)[0] for item in listed if "extra ==" not in item]
    except importlib.metadata.PackageNotFoundError:
        names = []
    found, missing = [], []
    for name in names or NEEDED:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return found, missing


def _extras() -> list[str]:
    """Which packages of the lessons, of films and of the tests are missing; nothing of the rest needs them."""
    try:
        listed = importlib.metadata.requires("minivdm") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    lines = []
    for extra, what in (("course", "lessons"), ("data", "MP4 files"), ("dev", "tests")):
        names = [re.split(r"[ ;<>=!~\[(]", line)[0] for line in listed if re.search(rf"extra == .{extra}\b", line)]
        lacking = [name for name in names if not _installed(name)]
        state = f"without {', '.join(lacking)}: pip install 'minivdm[{extra}]'" if lacking else "all there"
        lines.append(f"          [{extra}], for {what}: {state}")
    return lines


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _device() -> tuple[list[str], bool]:
    import torch

    lines = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: train with --set precision=float32"
        lines.append(f"device    cuda:{index} {about.name}, {about.total_memory / 2**30:.0f} GiB, {bf16}")
    if torch.backends.mps.is_available():
        lines.append("device    mps (Apple GPU)")
    if not lines:
        hint = "" if platform.system() == "Darwin" else "; if there is a GPU, see the README on installing torch for it"
        lines.append(f"device    cpu, {torch.get_num_threads()} threads{hint}")
    if os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive" and not torch.cuda.is_available():
        lines.append("          OMP_WAIT_POLICY=passive is not set: slow wherever something else runs beside")
    return lines, True


def _data() -> tuple[list[str], bool]:
    from minivdm.data import fetch, files

    train, test = (len(files.load_digits(None, split).labels) for split in ("train", "test"))
    if hashlib.sha256(files.SHIPPED.read_bytes()).hexdigest() != files.SHIPPED_SHA256:
        return [f"data      {files.SHIPPED.name} DAMAGED: check it out again, or install the package again"], False
    lines = [f"data      {train:,} + {test:,} MNIST digits that ship with the package, checksum right"]
    for name, (_, wanted) in fetch.SOURCES.items():
        folder = fetch.cache_folder(name)
        here = all((folder / file).exists() for file in wanted)
        state = "cached" if here else "not fetched (optional; fetched when first asked for)"
        lines.append(f"          {name}: {state}")
    return lines, True


def _weights() -> tuple[list[str], bool]:
    from minivdm.training import pretrained

    wrong, names = pretrained.verify(), pretrained.available()
    lines = [
        f"weights   {name}: {pretrained.card(name).get('clips', 0):,} clips seen, checksum right"
        for name in names
        if name not in wrong
    ]
    others = sorted({file.stem for file in pretrained.FOLDER.glob("*.safetensors")} - {*names, *wrong})
    if others:
        lines.append(f"          {', '.join(others)}: checksums right")
    for name, what in wrong.items():
        lines.append(f"weights   {name}: DAMAGED: check out minivdm/weights again, or install the package again")
        lines.append(f"          ({what})")
    if not names:
        lines.append("weights   NONE ship here: python -m minivdm train, then python -m minivdm export DIR")
    return lines, bool(names) and not wrong
