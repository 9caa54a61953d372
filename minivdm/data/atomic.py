"""Files that are whole or not there, whatever interrupts their writing; a lock that ends with its process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

#: Names of half-written files: a dot, the beginning of the final name, twelve random digits.
TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{12}\.tmp$", re.DOTALL)


def write_atomic(path: str | Path, data: bytes, *, replace: bool = True) -> None:
    """Write `data` to `path` so that a reader finds the old file or the new one, never a part.

    The bytes go to a new file beside it, under a name that nobody can have prepared, reach the disk, and take the
    final name in one step. A file that is replaced keeps its permissions.

    Args:
        path: where to; missing folders are made.
        data: the whole content.
        replace: whether a file that is there may be replaced.

    Raises:
        FileExistsError: see `replace`. OSError: naming `path`, which is then as it was.
    """
    path = Path(path)
    # 40 characters are at most 160 bytes: with what is added the name stays below the 255 of file systems.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    made = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(temporary, flags, 0o666), "wb") as handle:
            made = True
            _lock(handle.fileno())  # so that `remove_unfinished` of another process leaves it alone
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        if path.is_file():
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        if replace:
            os.replace(temporary, path)
        else:
            _rename_without_replacing(temporary, path)
    except FileExistsError as error:
        raise FileExistsError(f"{path} is there already; give another name, or allow it to be replaced") from error
    except OSError as error:
        # Of the temporary name, which some errors carry, nobody has heard; a full disk names no file at all.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        if made:
            temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # without this, the new name itself may be lost in a power cut (POSIX only)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # some network file systems have no such thing
                os.fsync(directory)
        finally:
            os.close(directory)


def _rename_without_replacing(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # fails, in one step, where the name is taken
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists() or path.is_symlink():
            raise FileExistsError(path) from None
        os.replace(temporary, path)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, indented. Raises OSError."""
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def free_name(path: str | Path) -> Path:
    """`path`, or NAME-2, NAME-3, … with the same ending, whichever is not there yet."""
    path = Path(path)
    found, number = path, 1
    while found.exists() or found.is_symlink():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def remove_unfinished(folder: str | Path) -> list[Path]:
    """Remove what killed writers left in a folder (not in its sub-folders), but nothing that is being written.

    Returns:
        The removed paths.
    """
    gone = []
    for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []:
        if not TEMPORARY.match(path.name) or path.is_symlink() or not path.is_file():
            continue
        with contextlib.suppress(OSError), open(path, "rb+") as handle:
            if not _lock(handle.fileno()):
                continue
        path.unlink(missing_ok=True)
        gone.append(path)
    return gone


def _lock(handle: int) -> bool:
    """Lock an open file for this process alone; False where another one holds it. Ends when the file is closed."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(handle, 1 << 30, os.SEEK_SET)  # Windows locks bytes: one beyond what anybody reads
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
    except BlockingIOError:
        return False
    except OSError as error:
        # Windows says "permission denied" for a taken lock; some network file systems know no locks at all.
        return fcntl is not None and error.errno not in (13, 11)
    return True


@contextlib.contextmanager
def exclusive(path: str | Path) -> Iterator[bool]:
    """Hold the lock file `path` while the context lasts; gives False where another process holds it.

    The kernel releases the lock when the process ends, however it ends; the file stays.
    """
    with open(path, "ab") as handle:
        yield _lock(handle.fileno())
