"""Whoever watches a ladder or a grid sees each finished model, and can end it between two of them."""

import pytest

from workbench.files import data_folder
from workbench.models.small_lm import ModelSize
from workbench.telemetry import Stopped, Watcher, watched
from workbench.training.distil_grid import distil_grid
from workbench.training.ladder import train_ladder
from workbench.training.objective import Objective

SIZES = [ModelSize(16, 1, 1), ModelSize(32, 1, 2)]
RECIPE = {"steps": 12, "batch_size": 2, "evaluation_windows": 20}


def test_a_grid_publishes_every_row_and_curve_that_it_returns(task):
    teachers = train_ladder(SIZES[1:], task, **RECIPE, cores=1)
    objectives = [Objective("forward", "forward_kl"), Objective("reverse", "reverse_kl")]
    with watched(Watcher()) as watcher:
        grid = distil_grid(teachers, SIZES[:1], objectives, [0, 1], task, **RECIPE, transfer_windows=32, cores=1)
    rows, points = watcher.take_rows(), watcher.take_points()
    found = sorted((row["objective"], row["seed"], row["nats"]) for row in rows)
    assert found == sorted(grid.rows[["objective", "seed", "nats"]].itertuples(index=False, name=None))
    assert len(points) == (grid.curves["quantity"] == "loss").sum()
    assert {point.series for point in points} == {
        f"32x1 to 16x1, {objective}, seed {seed}" for objective in ("forward", "reverse") for seed in (0, 1)
    }


def test_a_stopped_ladder_keeps_the_models_that_were_trained(task):
    trained = []
    watcher = Watcher()

    def stop_after_the_first():
        trained.append(watcher.doing)
        watcher.stop()
        return False

    with watched(watcher), pytest.raises(Stopped):
        train_ladder(SIZES, task, **RECIPE, cores=1, stop=stop_after_the_first)
    assert len(trained) == 1
    assert {point.series for point in watcher.take_points()} == {"32x1 alone"}  # the largest comes first
    folders = [folder for folder in (data_folder() / "cache" / "models").iterdir() if folder.name[0] != "."]
    assert len(folders) == 1
