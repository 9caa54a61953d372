"""How weights are made: a trainer whose step fits on a screen, and a run around it that survives being stopped.

Read configs, trainer; then checkpoints, distributed, monitor, muon, pretrained.
"""

from minivdm.training.configs import ConfigError, Phase, TrainConfig, get
from minivdm.training.trainer import ConfigurationMismatch, Run, RunFolderError, Trainer, TrainingDiverged, fit

__all__ = [
    "ConfigError",
    "ConfigurationMismatch",
    "Phase",
    "Run",
    "RunFolderError",
    "TrainConfig",
    "Trainer",
    "TrainingDiverged",
    "fit",
    "get",
]
