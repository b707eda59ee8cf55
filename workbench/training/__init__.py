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
from workbench.training.on_policy import OnPolicyBatches, generate_with_transformers
from workbench.training.parallel import run_tasks
from workbench.training.pretrained_cell import PretrainedModel, Teacher
from workbench.training.pretrained_grid import distil_pretrained, measure_pretrained
from workbench.training.pretrained_text import are_pretrained
from workbench.training.replicas import Replicas, fit_many
from workbench.training.teacher_cache import TeacherCache
from workbench.training.text_task import PreparedText, TextTask
from workbench.training.trainer import distillation_loss_for_trainer

__all__ = [
    "CROSS_ENTROPY",
    "DistilGrid",
    "DistillationLoss",
    "History",
    "Objective",
    "OnPolicyBatches",
    "PreparedText",
    "PretrainedModel",
    "Replicas",
    "Teacher",
    "TeacherCache",
    "TextTask",
    "TrainedModel",
    "TrainingDiverged",
    "are_pretrained",
    "distil",
    "distil_grid",
    "distil_pretrained",
    "distillation_loss_for_trainer",
    "fit",
    "fit_many",
    "fixed_windows",
    "generate_with_transformers",
    "measure_pretrained",
    "next_token_loss",
    "random_windows",
    "run_tasks",
    "train_ladder",
]
