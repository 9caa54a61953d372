"""Is an answer the right one, to single precision? If not, what differs, and where most."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Largest error allowed, as a share of the largest expected value: what float32 numbers among float64 ones may cost,
#: and what another order of float32 operations may.
RELATIVE = {torch.float64: 1e-5, torch.float32: 2e-4}
#: The same for values that should be 0.
ABSOLUTE = {torch.float64: 1e-9, torch.float32: 1e-6}
#: So many numbers of a tensor are shown all; of a longer one those at the index where it differs most.
SHOWN = 6

Complaint = tuple[str, str]


def differs(wanted: Any, got: Any, relative: float | None, part: str = "") -> Complaint | None:
    """(kind, text) of what makes `got` another answer than `wanted`, or None; part: of a tuple, for the message."""
    of = f"{part}: " if part else ""
    if got is None and wanted is not None:
        return "nothing", f"{of}it returned None; is there a `return`?"
    if isinstance(got, np.ndarray) or (isinstance(got, np.generic) and isinstance(wanted, Tensor)):
        return "numpy", f"{of}it returned a NumPy {type(got).__name__}; expected {described(wanted)}: stay in torch"
    if isinstance(wanted, Tensor) and wanted.ndim == 0 and is_number(got):
        got = torch.as_tensor(float(got), dtype=wanted.dtype)  # a Python number is as good as a scalar tensor
    if is_number(wanted) and not isinstance(wanted, bool) and isinstance(got, Tensor) and got.ndim == 0:
        got = got.item()
    if isinstance(wanted, Tensor):
        if not isinstance(got, Tensor):
            return "type", f"{of}it returned a {type(got).__name__}; expected {described(wanted)}"
        return _tensors_differ(wanted, got, relative, of)
    if isinstance(wanted, float) and is_number(got):
        a, b = (torch.tensor(float(x), dtype=torch.float64) for x in (wanted, got))
        return _tensors_differ(a, b, relative, of)
    if isinstance(wanted, dict):  # what a probe found, by name; "" is what the answer returned
        pairs = ((name, wanted[name], got[name]) for name in wanted)
        return next((found for name, a, b in pairs if (found := differs(a, b, relative, name))), None)
    if isinstance(wanted, (tuple, list)):
        if not isinstance(got, (tuple, list)):
            return "type", f"{of}it returned a {type(got).__name__}; expected {described(wanted)}"
        if len(wanted) != len(got):
            return "shape", f"{of}it returned {len(got)} values, expected {len(wanted)}{_lists(wanted, got)}"
        for i, (a, b) in enumerate(zip(wanted, got, strict=True)):
            if found := differs(a, b, relative, f"{part}, item {i + 1}" if part else f"result {i + 1}"):
                return found
        return None
    if type(wanted) is not type(got) and not (is_number(wanted) and is_number(got)):
        return "type", f"{of}it returned a {type(got).__name__}; expected {described(wanted)}"
    return None if wanted == got else ("value", f"{of}expected {wanted!r}, got {got!r}")


def _tensors_differ(wanted: Tensor, got: Tensor, relative: float | None, of: str) -> Complaint | None:
    if wanted.shape != got.shape:
        return "shape", f"{of}expected shape {tuple(wanted.shape)}, got {tuple(got.shape)}"
    if wanted.dtype != got.dtype:
        return "dtype", f"{of}expected {wanted.dtype}, got {got.dtype}{_why(wanted.dtype, got.dtype)}"
    if not wanted.is_floating_point():
        wrong = wanted != got
        return ("value", f"{of}{_shown(wanted, got, wrong.long(), int(wrong.sum()))}") if bool(wrong.any()) else None
    got, wanted = got.detach(), wanted.detach()
    if bool((~got.isfinite() & wanted.isfinite()).any()):
        n = int((~got.isfinite()).sum())
        return "not finite", (
            f"{of}{n} of {got.numel()} values are NaN or infinite: is something divided by 0, or is it a root or "
            "logarithm of a negative number?"
        )
    if wanted.numel() == 0:
        return None
    error = (got - wanted).nan_to_num(0.0, 0.0, 0.0).abs()
    scale = float(wanted[wanted.isfinite()].abs().max()) if bool(wanted.isfinite().any()) else 1.0
    allowed = (relative if relative is not None else RELATIVE.get(wanted.dtype, 1e-2)) * scale
    allowed += min(1.0, relative / 1e-5 if relative is not None else 1.0) * ABSOLUTE.get(wanted.dtype, 1e-3)
    alike = bool((got.isnan() == wanted.isnan()).all() and (got.isinf() == wanted.isinf()).all())
    if alike and float(error.max()) <= allowed:
        return None
    text = (
        f"{of}{_shown(wanted, got, error, int((error > allowed).sum()))}; largest difference {float(error.max()):.4g}"
    )
    return "value", text + _digits(float(error.max()), scale, wanted.dtype)


def _why(wanted: torch.dtype, got: torch.dtype) -> str:
    if (wanted, got) == (torch.float32, torch.float64):
        return (
            ": something in float64 met the input, such as a schedule's numbers; cast it to the input's dtype, "
            "`.to(x.dtype)`, before they meet"
        )
    if (wanted, got) == (torch.float64, torch.float32):
        return ": a tensor that you made is in float32, torch's default; make it with `dtype=x.dtype`"
    return ""


def _digits(error: float, scale: float, dtype: torch.dtype) -> str:
    """A remark on an answer that is nearly right."""
    if dtype != torch.float64 or not 0 < error < 1e-4 * scale:
        return ""
    return (
        f". About {int(-math.log10(error / scale))} digits agree, and more are asked for here: is one of your numbers "
        "float32 (torch.tensor(0.1) is; 0.1, math.sqrt and dtype=x.dtype are not), or do you subtract numbers that "
        "are nearly equal?"
    )


def _shown(wanted: Tensor, got: Tensor, error: Tensor, many: int) -> str:
    """Both tensors if they are short, else both values where they differ most."""
    place = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    if wanted.ndim == 0:
        return f"expected {_number(wanted.item())}, got {_number(got.item())}"
    at = f"index {place[0] if len(place) == 1 else place}"
    if wanted.numel() <= SHOWN:
        return f"expected {_numbers(wanted)}, got {_numbers(got)}, most at {at}"
    share = f"{many} of {wanted.numel()} values differ, most at {at}"
    return f"{share}: expected {_number(wanted[place].item())}, got {_number(got[place].item())} there"


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _numbers(value: Tensor) -> str:
    return f"[{', '.join(_number(v) for v in value.flatten().tolist())}]"


def is_number(value: Any) -> bool:
    """Python's and NumPy's numbers, fractions too."""
    return isinstance(value, numbers.Real)


def described(value: Any) -> str:
    """What kind of thing it is, for a message."""
    if isinstance(value, Tensor):
        return f"a torch tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _lists(wanted: Any, got: Any) -> str:
    """Both lists, where they are short enough to be read."""
    short = all(len(repr(values)) < 200 for values in (wanted, got))
    return f": expected {wanted!r}, got {got!r}" if short and not any(isinstance(v, Tensor) for v in wanted) else ""


# ---- what a call leaves behind ----------------------------------------------------------------------------------


def copied(value: Any) -> Any:
    """A copy of the tensors and lists in an argument; other objects are what they are."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, (tuple, list)):
        return [copied(item) for item in value]
    return value


def changed(before: Any, after: Any) -> str | None:
    """What a call did to an argument that it was given, in words, or None."""
    if isinstance(after, Tensor):
        if before.requires_grad != after.requires_grad:
            return (
                "your function switches gradients on in a tensor that it was given, which stays so for everybody who "
                "uses it; make a leaf of your own: z.detach().clone().requires_grad_()"
            )
        same = before.shape == after.shape and torch.equal(before.nan_to_num(), after.detach().nan_to_num())
    elif isinstance(after, (tuple, list)):
        if len(before) == len(after):
            return next((said for a, b in zip(before, after, strict=True) if (said := changed(a, b))), None)
        same = False
    else:
        same = before is after
    if same:
        return None
    return (
        "your function changes a tensor that it was given; make a new one instead (x = x + 1, not x += 1; or x.clone())"
    )


def tensors(value: Any) -> list[Tensor]:
    """All tensors in a value made of tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors(part)]
