"""From a configuration to its parts: network, schedule, data."""

from __future__ import annotations

import torch

from minivdm.core.schedules import CosineSchedule
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.networks.unet3d import UNet3D
from minivdm.training.configs import TrainConfig


def network(config: TrainConfig) -> UNet3D:
    """The untrained network of a run; the same seed gives the same weights, and the global seed is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would reseed every GPU as well
        return UNet3D(**config.network)


def schedule(config: TrainConfig) -> CosineSchedule:
    """The noise schedule of a run."""
    return CosineSchedule(config.log_snr_min, config.log_snr_max, config.shift)


def data(
    config: TrainConfig, frames: int | None = None, split: str = "train", device: torch.device | str = "cpu"
) -> MovingMNIST:
    """The clips of a run, with as many frames as its last phase unless said otherwise."""
    return MovingMNIST(
        config.size,
        frames or config.phases()[-1].frames,
        config.digits,
        config.speed,
        config.motion,
        split,
        config.data_seed,
        device,
        digit_source=config.digit_source or None,
    )


def video_shape(config: TrainConfig) -> tuple[int, int, int, int]:
    """(c, f, h, w) of the clips that the trained network makes."""
    return (config.network.get("channels", 1), config.phases()[-1].frames, config.size, config.size)
