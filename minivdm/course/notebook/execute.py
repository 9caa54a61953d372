"""Execute notebooks in place, so that the same sources give the same files.

    python -m minivdm.course.notebook.execute lessons/*.ipynb

Every notebook runs from top to bottom in a fresh kernel whose working directory is the notebook's folder. An
error, a warning, anything on stderr, a leftover repr or a file above 2 MB fails the run; nothing is written
unless every notebook succeeds.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

LIMIT = 2_000_000
"""Bytes of a stored notebook."""

REPR = re.compile(r"<[\w.]*(?:Figure|Axes|Widget|object)\b[^>\n]*(?: at 0x[0-9a-f]+|with \d+ Axes)")
"""A leftover repr: noise for the reader, and an address that changes from run to run."""


class LessonError(RuntimeError):
    """A notebook did not run cleanly; the message names the cell."""


def execute(path: Path, timeout: int = 300, attempts: int = 3) -> str:
    """Run one notebook and return the text of the file to store; the file itself stays untouched.

    Args:
        path: the notebook.
        timeout: seconds that one cell may take.
        attempts: runs altogether when the kernel stalls or dies. An exception in a cell is never retried.

    Raises:
        LessonError: an exception, stderr, a leftover repr, an absolute path, or too large a file.
    """
    for attempt in range(1, attempts + 1):
        notebook = clean(nbformat.read(path, as_version=4), path)
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(path.parent)}},
        )
        try:
            client.execute(env=environment())
            break
        except CellExecutionError as error:
            raise LessonError(f"{path.name}: a cell raised\n{error}") from error
        except (CellTimeoutError, DeadKernelError) as error:
            if attempt == attempts:
                message = f"{path.name}: stalled {attempts} times ({timeout} s a cell)\n{error}"
                raise LessonError(message) from error
            print(f"{path.name}: stalled, once more", file=sys.stderr)
    finished = clean(notebook, path, keep_outputs=True)
    complaints = complain(finished)
    text = nbformat.writes(finished).rstrip("\n") + "\n"
    if len(text.encode()) > LIMIT:
        complaints.append(f"{len(text.encode()) / 1e6:.1f} MB; a stored notebook may have {LIMIT / 1e6:g} MB")
    if complaints:
        raise LessonError(f"{path.name}: " + "; ".join(complaints))
    return text


def environment() -> dict[str, str]:
    """What the kernel inherits: stills instead of live sliders, and threads that sleep while they wait."""
    return {**os.environ, "MINIVDM_STATIC": "1", "OMP_WAIT_POLICY": "passive", "PYTHONHASHSEED": "0"}


def clean(notebook: NotebookNode, path: Path, keep_outputs: bool = False) -> NotebookNode:
    """Cell ids from name and place, no metadata that changes from run to run, by default no outputs."""
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", path.stem)[:56].strip("-")
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(display_name="Python 3", language="python", name="python3"),
        language_info=NotebookNode(name="python"),
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for place, cell in enumerate(notebook.cells):
        cell.id = f"{prefix}-{place:03d}"
        kept = ("tags", "nbgrader", "jupyter")  # "jupyter" holds outputs_hidden: an answer folded until it is run
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in kept if key in cell.metadata})
        if cell.cell_type == "code" and not keep_outputs:
            cell.outputs, cell.execution_count = [], None
    return notebook


def complain(notebook: NotebookNode) -> list[str]:
    """What is wrong with an executed notebook, a sentence each."""
    found: list[str] = []
    expected = 1
    project = str(Path(__file__).resolve().parents[3])
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        where = f"cell {place} ({cell.source.strip().splitlines()[0][:50]})"
        if cell.execution_count != expected:
            found.append(f"{where}: execution count {cell.execution_count}, expected {expected}")
        expected += 1
        for output in cell.outputs:
            text = _text(output)
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []):
                found.append(f"{where}: {output.ename}: {output.evalue}")
            elif output.output_type == "stream" and output.name == "stderr":
                found.append(f"{where}: stderr: {text.strip()[:300]}")
            if REPR.search(text):
                found.append(f"{where}: a leftover repr: {text.strip()[:80]}")
            if project in text or str(Path.home()) + os.sep in text:
                found.append(f"{where}: an absolute path of this machine: {text.strip()[:80]}")
    return found


def write_all(texts: dict[Path, str]) -> None:
    """Replace every file at once: all texts reach the disk before the first rename."""
    staged: list[tuple[str, Path]] = []
    try:
        for path, text in texts.items():
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".ipynb.part")
            staged.append((name, path))
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, 0o644)
        while staged:
            name, path = staged[0]
            os.replace(name, path)
            staged.pop(0)
    finally:
        for name, _ in staged:
            Path(name).unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m minivdm.course.notebook.execute", description=summary)
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=300, help="seconds a cell may take (default 300)")
    parser.add_argument("--dry-run", action="store_true", help="run and check, write nothing")
    options = parser.parse_args(arguments)
    texts: dict[Path, str] = {}
    failed = 0
    for path in options.notebooks:
        began = time.monotonic()
        try:
            texts[path] = execute(path, options.timeout)
        except (LessonError, OSError, ValueError) as error:
            failed += 1
            print(f"{path}: FAILED\n{error}", file=sys.stderr)
        else:
            size = len(texts[path].encode()) / 1e6
            print(f"{path}: {time.monotonic() - began:.1f} s, {size:.2f} MB", flush=True)
    if failed:
        print(f"{failed} of {len(options.notebooks)} failed; nothing was written", file=sys.stderr)
        return 1
    if not options.dry_run:
        write_all(texts)
    return 0


def _text(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return "\n".join(output.traceback)
    data = output.get("data", {})
    return "\n".join(str(data[kind]) for kind in ("text/plain", "text/markdown") if kind in data)


if __name__ == "__main__":
    raise SystemExit(main())
