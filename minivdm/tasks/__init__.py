"""What a video denoiser is used for: generate, extend, interpolate, super-resolve.

Read orders (which frames a block sees and makes), then videos.
"""

from minivdm.tasks.orders import BadOrder, NoNewFrames, TooManyObserved, autoregressive, hierarchical, plan
from minivdm.tasks.videos import extend, generate, guided, interpolate, multi_hot, restore, super_resolve

__all__ = [
    "BadOrder",
    "NoNewFrames",
    "TooManyObserved",
    "autoregressive",
    "extend",
    "generate",
    "guided",
    "hierarchical",
    "interpolate",
    "multi_hot",
    "plan",
    "restore",
    "super_resolve",
]
