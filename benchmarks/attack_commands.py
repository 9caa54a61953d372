"""Bad command lines: every command with wrong values, missing and damaged files, outputs that are there, wrong sizes.

What may come of one: exit status 0 with nothing replaced that `--force` did not ask for, or exit status 2 with one line
on stderr that begins with the command, and nothing written. `attack.py` runs them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from minivdm.cli.main import CALLS, main, parser
from minivdm.data import writing
from minivdm.training import Recipe

#: Seconds of one core after which a command counts as one that does not come back.
LIMIT = 60

#: In place of an option's value, whatever it is. No large numbers that could be meant: they would be computed.
VALUES = ("", " ", "seven", "nan", "inf", "-inf", "-1", "-0.5", "0", "1.5", "1e308", "9" * 30, "9" * 5000, "0x10",
          "\u0663\u2603", "--", "/", ".", "nowhere/at/all", "../../escape", "~", "*", "%s", "{", "null")  # fmt: skip
#: In place of a recipe's field, as JSON or a word.
SETTINGS = ("", "null", "-1", "0", "1.5", "1e400", "NaN", "seven", "[]", "[0]", "[[1]]", "[[1,2,3],[1,2,3]]", "{}",
            '{"a":1}', "true", "1" + "0" * 30, "[" * 3000, '"', "\u2603")  # fmt: skip


class Call(NamedTuple):
    """A command line, and what it is to be: "" (refused or carried out), "refused" or "done"."""

    words: tuple[str, ...]
    wanted: str = ""


class Result(NamedTuple):
    """What a command line came to."""

    status: int
    out: str
    err: str


# ---- command lines ---------------------------------------------------------------------------------------------


def calls(material: dict[str, str]) -> Iterator[Call]:
    """All of them. material: paths by name, as `prepare` makes them."""
    run, base = material["run"], bases(material)
    for words in ([], ["nothing"], ["sampl"], ["--steps", "3"], ["sample", "extra"], ["", ""], ["\u2603"]):
        yield Call(tuple(words), "refused")
    for command in CALLS:
        yield Call((*base[command], "--no-such-option"), "refused")
        yield Call((*base[command], "too", "many", "words"), "refused" if command != "recipes" else "")
        for option in options(command):
            yield Call((*base[command], option), "refused")  # without its value
            for value in VALUES:
                yield Call((*base[command], f"{option}={value}"))
        yield Call(tuple(base[command]), "done")
    for field in dataclasses.fields(Recipe):
        for value in SETTINGS:
            yield Call((*base["train"], "--set", f"{field.name}={value}"))
    for key in ("width", "multipliers", "patch", "labels", "head_channels", "middle", "depth", ""):
        for value in SETTINGS:
            yield Call((*base["train"], "--set", f"network.{key}={value}"))
    for value in ("lr", "=", "=1", ".", "lr.x=1", "network=", "__class__=1"):
        yield Call((*base["train"], "--set", value), "refused")
    for name in ("nothing", "empty", "garbage", "folder", "no run", "truncated", "other run", "picture"):
        for command in ("sample", "extend", "interpolate", "upscale"):
            yield Call((command, "--weights", material[name], "--steps", "1", "--out", "new.gif"), "refused")
        yield Call((*base["train"], "--init", material[name]), "refused")
        yield Call(("export", material[name]), "refused")
        yield Call(("progress", material[name], "--steps", "1"), "refused")
        yield Call((*base["train"], "--set", "data=folder", "--set", f"path={material[name]}"), "refused")
    videos = [name for name in material if name.startswith("video")]
    for name in videos:
        for command in ("extend", "interpolate", "upscale"):
            yield Call((*base[command], "--video", material[name]), "done" if name == "video" else "")
    for name in ("nothing", "empty", "garbage", "folder"):
        yield Call((*base["extend"], "--video", material[name]), "refused")
    for command in ("sample", "extend", "interpolate", "upscale"):
        for out in ("taken.gif", "link.gif", "dangling.gif", "folder.gif", "nowhere/x.gif", "x.avi", "x", ".gif"):
            yield Call((*base[command][:-1], out), "" if out == "nowhere/x.gif" else "refused")
    for out in ("taken.gif", ".", "taken.gif/x"):
        yield Call((*base["train"][:-1], out), "refused")
    yield Call((*base["train"][:-1], run), "refused")
    yield Call((*base["train"][:-1], run, "--resume", "--set", "seed=7", "--reconfigure"), "refused")
    yield Call(("export", run, "--metrics", material["garbage"]), "refused")
    yield Call(("export", run, "--metrics", material["nothing"]), "refused")
    yield Call(("export", run, "--to", "taken.gif"), "refused")


def bases(material: dict[str, str]) -> dict[str, list[str]]:
    """Of every command a line that is right, and short. The last word is the name of the output, where there is one."""
    run = material["run"]
    sampled = ["--weights", run, "--steps", "1", "--count", "2", "--out", "new.gif"]
    return {
        "train": ["train", *material["settings"].split("\n"), "--device", "cpu", "--minutes", "0", "--out", "new run"],
        "sample": ["sample", *sampled],
        "extend": ["extend", "--frames", "5", *sampled],
        "interpolate": ["interpolate", "--between", "1", *sampled],
        "upscale": ["upscale", *sampled],
        "cascade": ["cascade", "--labels", "3", "--steps", "1", "--out", "new.gif"],
        "recipes": ["recipes"],
        "export": ["export", run, "--to", "weights"],
        "progress": ["progress", run, "--steps", "1", "--digits", "1", "--to", "weights"],
        "doctor": ["doctor"],
    }


def options(command: str) -> list[str]:
    """The options of a command that take a value."""
    top = parser()
    (choices,) = (a.choices for a in top._actions if isinstance(a, argparse._SubParsersAction))
    actions = choices[command]._actions  # type: ignore[index]
    return [a.option_strings[0] for a in actions if a.option_strings and a.nargs != 0 and a.dest != "help"]


def prepare(scratch: Path, run: Path, network: dict[str, Any]) -> dict[str, str]:
    """A folder with what the command lines name: whole and damaged weights, videos, outputs that are there."""
    home = scratch / "home"
    home.mkdir()
    settings = {"network": network, "size": 16, "speed": 1, "frames": 4, "batch": 4, "clips": 8, "milestones": []}
    words = [w for key, value in settings.items() for w in ("--set", f"{key}={json.dumps(value)}")]
    files = {"empty": b"", "garbage": bytes(range(256)) * 40, "picture": b"\x89PNG\r\n\x1a\n", "taken.gif": b"mine"}
    for name, data in files.items():
        (home / name).write_bytes(data)
    whole = next((run / "checkpoints").glob("*.safetensors")).read_bytes()
    (home / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    for name in ("folder", "folder.gif", "no run"):
        (home / name).mkdir()
    (home / "no run" / "config.json").write_text("{")
    (home / "link.gif").symlink_to("taken.gif")
    (home / "dangling.gif").symlink_to("not there")
    shutil.copytree(run, home / "run")
    shutil.copytree(run, home / "other run")
    for path in (home / "other run" / "checkpoints").glob("*.json"):
        path.write_text(path.read_text().replace('"clips"', '"clip"'))
    clip = 0.9 * torch.rand(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    writing.save(clip, home / "film.gif", zoom=1)
    film = (home / "film.gif").read_bytes()
    (home / "cut.gif").write_bytes(film[: len(film) // 2])
    arrays: dict[str, Any] = {
        "video": clip.numpy(),
        "video flat": np.zeros(7, np.float32),
        "video of 15 pixels": clip[..., :15, :15].numpy(),
        "video of 64 pixels": np.zeros((1, 1, 2, 64, 64), np.float32) - 1,
        "video empty": np.zeros((0, 1, 4, 16, 16), np.float32),
        "video without frames": np.zeros((1, 1, 0, 16, 16), np.float32),
        "video of NaN": np.full((1, 1, 4, 16, 16), np.nan, np.float32),
        "video of 0 to 1": np.random.default_rng(0).random((1, 1, 4, 16, 16)),
        "video of 0 to 255": 255 * np.random.default_rng(0).random((1, 1, 4, 16, 16)),
        "video of whole numbers": np.zeros((1, 1, 4, 16, 16), np.int64),
        "video complex": np.zeros((1, 1, 4, 16, 16), np.complex64),
        "video of text": np.array([["a"]]),
        "video coloured": np.zeros((1, 3, 4, 16, 16), np.float32) - 1,
        "video of one frame": clip[:, :, :1].numpy(),
        "video longer": np.zeros((1, 1, 40, 16, 16), np.uint8),
    }
    material = {name: f"{name}.npy" for name in arrays}
    for name, array in arrays.items():
        np.save(home / f"{name}.npy", array)
    np.save(home / "object.npy", np.array([{}], object), allow_pickle=True)
    material |= {name: name for name in ("empty", "garbage", "picture", "folder", "no run", "run", "other run")}
    material |= {"video cut": "cut.gif", "video object": "object.npy", "nothing": "nothing at all"}
    return material | {"truncated": "truncated.safetensors", "settings": "\n".join(words)}


# ---- carrying them out -----------------------------------------------------------------------------------------


def carry_out(home: Path, words: tuple[str, ...]) -> Result:
    """A command line in a process of its own, forked from this one: that saves the import of torch."""
    sys.stdout.flush()
    sys.stderr.flush()
    files = [home.parent / name for name in ("out.txt", "err.txt")]
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.chdir(home)
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            for number, path in enumerate(files, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # whatever they were before
            try:
                status = main(list(words))
            except SystemExit as error:
                status = int(error.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out, err = (path.read_text(errors="replace") for path in files)
    return Result(status, out, err)


def listing(home: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    found = {}
    for path in home.rglob("*"):
        about = path.lstat()
        found[str(path.relative_to(home))] = (about.st_size, about.st_mtime_ns) if path.is_file() else (0, 0)
    return found


def problem(call: Call, result: Result, before: dict[str, Any], after: dict[str, Any]) -> str:
    """What is wrong with what came of a command line; "" if nothing."""
    status, said = result.status, result.err.strip()
    lines = [line for line in said.split("\n") if line.strip() and "\r" not in line and "it/s]" not in line]
    longest = 1000 + 2 * max(map(len, call.words), default=0)  # what came may be said
    if "Traceback" in said or status == 70:
        return f"traceback: {said.splitlines()[-1][:160] if said else ''}"
    if status < 0:
        return f"ended by signal {-status}"
    if status not in (0, 2) and not (status == 1 and call.words[:1] == ("doctor",)):
        return f"exit status {status}"
    if status == 2 and (len(lines) != 1 or not lines[0].startswith("minivdm") or len(lines[0]) > longest):
        return f"expected one line that begins with minivdm, got {len(lines)}: {said[-160:]!r}"
    if status == 2 and before != after:
        changed = sorted(name for name in after.keys() | before.keys() if before.get(name) != after.get(name))
        return f"refused, but changed {changed[:3]}"
    replaced = [name for name in before if before[name] != after.get(name) and not name.startswith("run")]
    if replaced and not any(word.startswith("--force") for word in call.words):
        return f"changed {replaced[:3]}"
    if call.wanted and (status == 0) != (call.wanted == "done"):
        return f"expected to be {call.wanted}, got exit status {status}: {said[-160:]}"
    return ""


def restore(home: Path, before: dict[str, Any]) -> dict[str, Any]:
    """Remove what a command made; returns the listing of what is left."""
    for name in sorted(listing(home).keys() - before.keys(), reverse=True):
        path = home / name
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return listing(home)
