"""What a video denoiser is used for: generate, extend, interpolate, super-resolve, edit.

Read conditions, generation, orders (which frames a block sees and makes), restoration (one block), extension,
upscaling; editing starts from data.
"""

from minivdm.tasks.conditions import guided, multi_hot
from minivdm.tasks.editing import invert, sdedit
from minivdm.tasks.extension import extend, interpolate
from minivdm.tasks.generation import generate
from minivdm.tasks.orders import BadOrder, NoNewFrames, TooManyObserved, autoregressive, hierarchical, plan
from minivdm.tasks.restoration import RestorationSampling, restore
from minivdm.tasks.upscaling import super_resolve

__all__ = [
    "BadOrder",
    "NoNewFrames",
    "RestorationSampling",
    "TooManyObserved",
    "autoregressive",
    "extend",
    "generate",
    "guided",
    "hierarchical",
    "interpolate",
    "invert",
    "multi_hot",
    "plan",
    "restore",
    "sdedit",
    "super_resolve",
]
