"""Files that are written whole or not at all: names, modes, links, leftovers."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from minivdm.data import atomic
from minivdm.data.atomic import free_name, remove_unfinished, write_atomic

posix = pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")


def test_what_is_written_is_there_and_nothing_else(tmp_path):
    write_atomic(tmp_path / "new" / "a.bin", b"one")
    write_atomic(tmp_path / "new" / "a.bin", b"two")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.bin"]
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"two"


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, call):
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        monkeypatch.setattr(atomic, "_lock", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"No space left on device.*a\.bin"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@posix
def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_atomic(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_bytes() == b"new"


@posix
def test_a_new_file_has_the_usual_mode(tmp_path):
    write_atomic(tmp_path / "a.bin", b"")
    (tmp_path / "b.bin").write_bytes(b"")
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "b.bin").stat().st_mode


@posix
def test_a_link_laid_at_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda n: "0" * 12)
    (tmp_path / f".a.gif.{'0' * 12}.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "a.gif", b"new")
    assert victim.read_bytes() == b"mine"


def test_nothing_is_replaced_where_that_is_forbidden(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, b"first", replace=False)
    with pytest.raises(FileExistsError, match=r"a\.bin"):
        write_atomic(path, b"second", replace=False)
    assert path.read_bytes() == b"first" and [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_long_names_can_be_written(tmp_path):
    name = "ä" * 120 + ".bin"  # 244 bytes; the temporary name may not be longer than 255
    write_atomic(tmp_path / name, b"1")
    assert (tmp_path / name).read_bytes() == b"1"


def test_leftovers_of_killed_writers_are_removed_and_others_stay(tmp_path):
    code = (
        "import os, sys\nfrom minivdm.data import atomic\nos.fsync = lambda handle: os.kill(os.getpid(), 9)\n"
        "atomic.write_atomic(sys.argv[1], b'x' * 10)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.bin")], check=False)
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "notes.tmp").touch()
    left = [p for p in tmp_path.iterdir() if p.name.startswith(".a.bin.")]
    assert len(left) == 1 and remove_unfinished(tmp_path) == left
    assert {p.name for p in tmp_path.iterdir()} == {".DS_Store", "notes.tmp"}
    assert remove_unfinished(tmp_path / "nowhere") == []


@posix
def test_what_another_process_is_writing_stays(tmp_path):
    path = tmp_path / f".a.bin.{'1' * 12}.tmp"
    with open(path, "wb") as handle:
        assert atomic._lock(handle.fileno())
        assert remove_unfinished(tmp_path) == [] and path.exists()
    assert remove_unfinished(tmp_path) == [path]


def test_a_second_output_gets_another_name(tmp_path):
    path = tmp_path / "samples.gif"
    names = []
    for _ in range(3):
        names.append(free_name(path).name)
        free_name(path).touch()
    assert names == ["samples.gif", "samples-2.gif", "samples-3.gif"]
