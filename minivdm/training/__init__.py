"""How weights are made. `loop` is a whole training in one function; what is around it survives being stopped.

Read loop; then recipe and recipes (what there is to choose), trainer (its step), run and folder (what keeps a training
alive), checkpoints; optimizers, muon, monitor, distributed, parts and validate as needed. pretrained loads the weights
that ship, exports makes them, milestones shows how they came about.
"""

from minivdm.training.checkpoints import DamagedCheckpoint
from minivdm.training.folder import ConfigurationMismatch, RunFolderError
from minivdm.training.recipe import Phase, Recipe
from minivdm.training.recipes import RECIPES, get
from minivdm.training.run import Run, TrainingDiverged, fit
from minivdm.training.trainer import Trainer
from minivdm.training.validate import RecipeError

__all__ = [
    "RECIPES",
    "ConfigurationMismatch",
    "DamagedCheckpoint",
    "Phase",
    "Recipe",
    "RecipeError",
    "Run",
    "RunFolderError",
    "Trainer",
    "TrainingDiverged",
    "fit",
    "get",
]
