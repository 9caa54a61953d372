"""MiniVDM: video diffusion from scratch, a course and a library.

One idea carries the package: a denoiser is a function ``(z, t) -> x_hat``. Guidance turns a denoiser into a
denoiser; a sampler step turns ``(denoiser, z, t, s)`` into ``z_s``; a closed-form world provides exact denoisers
to hold both against the truth.

    import minivdm

    model = minivdm.load("moving-mnist-32")
    video = minivdm.generate(model, digits=[3], weight=1.0)
    minivdm.save_gif(video, "three.gif")

The rooms, in reading order: core, networks, exact, data, measure, tasks, training, systems, course, cli.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minivdm.api import available, extend, generate, interpolate, load, save, save_gif, super_resolve
    from minivdm.core import CosineSchedule, Denoiser
    from minivdm.data import MovingMNIST, VideoFolder
    from minivdm.networks import UNet3D

__version__ = "0.1.0"

#: name -> where it lives. Nothing is imported before it is used, so that `import minivdm` costs nothing.
_HOMES = {
    "load": "minivdm.api",
    "available": "minivdm.api",
    "generate": "minivdm.api",
    "extend": "minivdm.api",
    "interpolate": "minivdm.api",
    "super_resolve": "minivdm.api",
    "save": "minivdm.api",
    "save_gif": "minivdm.api",
    "MovingMNIST": "minivdm.data",
    "VideoFolder": "minivdm.data",
    "Denoiser": "minivdm.core",
    "CosineSchedule": "minivdm.core",
    "UNet3D": "minivdm.networks",
}
_ROOMS = ("core", "networks", "exact", "data", "measure", "tasks", "training", "course", "cli")

__all__ = [
    "CosineSchedule",
    "Denoiser",
    "MovingMNIST",
    "UNet3D",
    "VideoFolder",
    "available",
    "extend",
    "generate",
    "interpolate",
    "load",
    "save",
    "save_gif",
    "super_resolve",
]


def __getattr__(name: str) -> Any:
    """Imports a public name, or a room, when it is first used (PEP 562)."""
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"minivdm.{name}")
    else:
        raise AttributeError(f"module 'minivdm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
