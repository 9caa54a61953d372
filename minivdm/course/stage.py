"""Where exercises show what a learner's function does: clips, a trained denoiser, a sampler, a module of one's own.

A cell that shows something begins with ``if stage.ready(my_function):``, which says what is still to be written, and is
false until then.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import Tensor

from minivdm.core import Schedule
from minivdm.data import MovingMNIST
from minivdm.training import pretrained


def ready(*answers: Callable[..., Any]) -> bool:
    """Are all of these functions or classes written? Says which ones are not."""
    missing = [answer.__name__ for answer in answers if unfinished(answer)]
    if missing:
        print(f"Write {' and '.join(missing)} first; then this cell shows what comes of it.")
    return not missing


def unfinished(answer: Any) -> bool:
    """Does a function, or a method of a class, still raise NotImplementedError?"""
    parts = vars(answer).values() if isinstance(answer, type) else [answer]
    codes = [part.__code__ for part in parts if isinstance(getattr(part, "__code__", None), CodeType)]
    return any("NotImplementedError" in code.co_names for code in codes)


def clips(count: int = 1, frames: int = 16, size: int = 32, seed: int = 3) -> Tensor:
    """Moving digits that no network was trained on, (count, 1, frames, size, size) in [-1, 1]."""
    data = MovingMNIST(size=size, frames=frames, split="test", seed=seed)
    return data.clips(range(count)).video


@functools.cache
def model() -> Any:
    """The denoiser that ships, (z, t) -> x_hat; `.given(labels)` binds digits, `.network` is the U-Net alone."""
    return pretrained.load("moving-mnist-32")


def label(digit: int) -> Tensor:
    """(1, 10), what the network is told for a digit."""
    return torch.eye(10)[[digit]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal, by default (1, 1, 16, 32, 32): one clip."""
    return torch.randn(shape or (1, 1, 16, 32, 32), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sampled(denoise: Callable[[Tensor, Any], Tensor], z: Tensor, schedule: Schedule, steps: int = 24) -> Tensor:
    """The package's way from noise z to a clip, plain: DDIM on even times, estimates clipped to [-1, 1]."""
    for k in range(steps, 0, -1):
        t, s = (torch.tensor(i / steps, dtype=torch.float64) for i in (k, k - 1))
        alpha_t, sigma_t, alpha_s, sigma_s = (f(u).to(z) for u in (t, s) for f in (schedule.alpha, schedule.sigma))
        x_hat = denoise(z, t).clamp(-1, 1)
        z = alpha_s * x_hat + sigma_s * (z - alpha_t * x_hat) / sigma_t
    return x_hat


# ---- the learner's own module ----------------------------------------------------------------------------------


class Unwritten(RuntimeError):
    """Answers that are asked for and not written, or notebooks that are not there."""


def collect(
    wanted: Mapping[str, Sequence[str]], folder: str | Path = "..", name: str = "my_answers"
) -> ModuleType | None:
    """One module of answers from several notebooks, written to NAME.py beside this notebook and imported.

    Args:
        wanted: assignment -> names of functions and classes, such as {"06_samplers": ["sample"]}.
        folder: where the folders of the assignments lie, as saved on disk.
        name: of the module.

    Returns:
        The module; or None, with a line for everything that is missing, if something is.
    """
    try:
        text = gathered(wanted, Path(folder))
    except Unwritten as missing:
        print(missing)
        return None
    path = Path(f"{name}.py").resolve()
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def gathered(wanted: Mapping[str, Sequence[str]], folder: Path) -> str:
    """The source of that module. Raises Unwritten with a line for each answer that is missing."""
    imports: dict[str, None] = {}
    sources, missing = [], []
    for assignment, names in wanted.items():
        path = folder / assignment / f"{assignment}.ipynb"
        if not path.exists():
            missing.append(f"{assignment}: there is no {assignment}.ipynb beside this folder")
            continue
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        found = {cell["metadata"].get("nbgrader", {}).get("grade_id"): "".join(cell["source"]) for cell in cells}
        for line in "".join(cells[0]["source"]).splitlines():
            if line.startswith(("import ", "from ")) and "minivdm" not in line:
                imports[line] = None
        for one in names:
            if one not in found or _unwritten(found[one]):
                missing.append(f"{assignment}: {one} is not written yet (or not saved: save the notebook)")
            else:
                sources.append(f"# {assignment}\n{found[one].rstrip()}\n")
    if missing:
        raise Unwritten("Still missing:\n" + "\n".join(f"  {line}" for line in missing))
    return "\n".join(['"""My own answers, collected from my notebooks."""', "", *imports, "", "", "\n\n".join(sources)])


def _unwritten(source: str) -> bool:
    try:
        return any(
            isinstance(node, ast.Name) and node.id == "NotImplementedError" for node in ast.walk(ast.parse(source))
        )
    except SyntaxError:
        return True
