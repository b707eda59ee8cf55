"""Training: one loop, distillation, and grids of small models that use every core once."""

# Imported here, not on demand: distil and distil_grid are functions and modules of one name, and the
# package must show the functions whatever was imported first.
from workbench.models.next_token import next_token_loss
from workbench.training.batches import fixed_windows, random_windows
from workbench.training.distil import distil
from workbench.training.distil_grid import DistilGrid, distil_grid
from workbench.training.ladder import TrainedModel, train_ladder
from workbench.training.loop import History, TrainingDiverged, fit
from workbench.training.objective import CROSS_ENTROPY, DistillationLoss, Objective
from workbench.training.parallel import run_tasks
from workbench.training.pretrained_cell import PretrainedModel, Teacher
from workbench.training.pretrained_grid import distil_pretrained, measure_pretrained
from workbench.training.pretrained_text import are_pretrained
from workbench.training.text_task import PreparedText, TextTask

__all__ = [
    "CROSS_ENTROPY",
    "DistilGrid",
    "DistillationLoss",
    "History",
    "Objective",
    "PreparedText",
    "PretrainedModel",
    "Teacher",
    "TextTask",
    "TrainedModel",
    "TrainingDiverged",
    "are_pretrained",
    "distil",
    "distil_grid",
    "distil_pretrained",
    "fit",
    "fixed_windows",
    "measure_pretrained",
    "next_token_loss",
    "random_windows",
    "run_tasks",
    "train_ladder",
]
