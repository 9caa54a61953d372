"""The two small networks that read generated clips: which digits a frame shows, and features of frames and of motion.

Their weights ship; `benchmarks/train_digit_reader.py` and `benchmarks/train_clip_encoder.py` made them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load
from torch import Tensor, nn

from minivdm.guards import BadFile
from minivdm.networks.eight_bits import unpack

Module = TypeVar("Module", bound=nn.Module)
READER = Path(__file__).parents[1] / "weights" / "digit-reader-32.safetensors"
ENCODER = Path(__file__).parents[1] / "weights" / "clip-encoder-32.safetensors"
SPAN = 5  # frames that one feature of motion is computed from


class DigitReader(nn.Module):
    """Which digits are in a frame? A small convolutional network, the same wherever a digit is on the canvas.

    Called with frames (n, 1, 32, 32) in [-1, 1]; returns logits (n, 11): for each class whether a digit of it
    is there, and last whether there is any legible digit at all.
    """

    def __init__(self) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

        self.body = nn.Sequential(
            *convolution(1, 16),
            nn.MaxPool2d(2),
            *convolution(16, 32),
            *convolution(32, 32),
            nn.MaxPool2d(2),
            *convolution(32, 64),
            *convolution(64, 96),
        )
        self.head = nn.Conv2d(96, 11, 1)

    def forward(self, frames: Tensor) -> Tensor:
        evidence = self.head(self.body(frames))  # n 11 8 8
        return evidence.flatten(2).logsumexp(-1)  # a smooth maximum: one place with the digit is enough


def load_shipped(weights: Path, network: Callable[[], Module], maker: str, device: str | torch.device) -> Module:
    """A network in eval mode with the weights of a file, checked against the SHA-256 in the card beside it.

    Args:
        weights: a .safetensors file; its card has the same name and ends in .json.
        network: makes it untrained.
        maker: the script that makes the weights, for the message.
        device: where it is to run.

    Raises:
        FileNotFoundError: no weights, or no card.
        BadFile: one of them is truncated or changed.
    """
    for file in (weights, weights.with_suffix(".json")):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: expected a file that ships; {maker} makes it")
    data = weights.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    try:
        expected = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{weights.with_suffix('.json')}: expected a card with a SHA-256, but: {error!r}") from error
    if found != expected:
        raise BadFile(f"{weights}: expected SHA-256 {expected}, found {found}: truncated or changed")
    with torch.device("meta"):  # no first weights, and so no draw from the global generator
        made = network()
    state = {k: v.float() if v.is_floating_point() else v for k, v in unpack(load(data)).items()}
    made.load_state_dict(state, assign=True)
    return made.to(device).eval().requires_grad_(False)


@functools.cache
def load_reader(device: str | torch.device = "cpu") -> DigitReader:
    """The shipped reader in eval mode. Raises as `load_shipped` does."""
    return load_shipped(READER, DigitReader, "benchmarks/train_digit_reader.py", device)


class ClipEncoder(nn.Module):
    """Features of frames and of motion, from which digits, positions and velocities can be read.

    Called with videos (b, 1, f, 32, 32) in [-1, 1]; returns frame features (b, f, 64), each of one frame alone,
    and motion features (b, f - 4, 32), each of `SPAN` neighbouring frames. Both are scaled to a mean variance of
    1 over real clips.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(32, 48, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(1024, 64),
        )
        self.motion = nn.Sequential(
            nn.GELU(), nn.Conv1d(64, 96, 3), nn.GELU(), nn.Conv1d(96, 96, 3), nn.GELU(), nn.Conv1d(96, 32, 1)
        )
        # What the features were trained to tell: per class presence (10), position (10 x 2); and velocity (10 x 2).
        self.read_frame = nn.Sequential(nn.GELU(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 30))
        self.read_motion = nn.Sequential(nn.GELU(), nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 50))
        self.frame_scale: Tensor
        self.motion_scale: Tensor
        self.register_buffer("frame_scale", torch.ones(()))
        self.register_buffer("motion_scale", torch.ones(()))

    def forward(self, videos: Tensor) -> tuple[Tensor, Tensor]:
        b, _, f, h, w = videos.shape
        frames = self.frame(videos.transpose(1, 2).reshape(b * f, 1, h, w)).view(b, f, -1)
        motion = self.motion(frames.transpose(1, 2)).transpose(1, 2)
        return frames / self.frame_scale, motion / self.motion_scale


@functools.cache
def load_encoder(device: str | torch.device = "cpu") -> ClipEncoder:
    """The shipped encoder in eval mode. Raises as `load_shipped` does."""
    return load_shipped(ENCODER, ClipEncoder, "benchmarks/train_clip_encoder.py", device)
