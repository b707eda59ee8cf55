import json

import pandas as pd

from workbench.runs.forecast import expected_seconds, expected_together, in_words
from workbench.runs.plan import plan
from workbench.runs.store import FINISHED, Run
from workbench.runs.sweep import grid_points, plan_sweep, sweep_runs, sweep_table, write_index


def finished(job, **told):
    run = Run(job.stem, job.identity, job.folder, FINISHED, job.profile, job.parameters, **told)
    run.save()
    return run


def test_a_grid_has_the_product_of_its_axes():
    points = grid_points({"steps": [1, 2], "lr": [0.1, 0.2, 0.3]})
    assert len(points) == 6
    assert points[1] == {"steps": 1, "lr": 0.2}


def test_the_index_finds_the_runs_of_a_sweep_and_no_others(notebook):
    grid = {"steps": [1, 2], "profile": ["smoke"]}
    jobs = plan_sweep(notebook, grid)
    index = write_index(notebook, grid, jobs)
    assert sweep_runs(index) == []
    finished(jobs[0])
    finished(plan(notebook, {"steps": 3}))
    assert [run.parameters["steps"] for run in sweep_runs(index)] == [1]
    assert json.loads(index.read_text())["grid"] == grid


def test_the_table_of_a_sweep_names_what_varies(notebook):
    jobs = plan_sweep(notebook, {"steps": [1, 2], "profile": ["smoke"]})
    runs = [finished(job) for job in jobs]
    for run in runs:
        pd.DataFrame({"loss": [0.5]}).to_parquet(run.folder / "rows.parquet")
    table = sweep_table(runs)
    assert list(table.columns) == ["loss", "param_steps", "run"]
    assert table["param_steps"].tolist() == ["1", "2"]


def test_a_job_is_expected_to_take_what_it_took_at_that_profile(notebook):
    assert expected_seconds(plan(notebook)) is None
    finished(plan(notebook, {"steps": 5}), duration=40.0)
    assert expected_seconds(plan(notebook)) == 40.0
    assert expected_seconds(plan(notebook, {"profile": "full"})) is None


def test_jobs_side_by_side_take_at_least_as_long_as_the_longest():
    assert expected_together([10.0, 20.0, 30.0], 2) == 30.0
    assert expected_together([10.0, 10.0, 10.0, None], 2) == 15.0
    assert expected_together([None], 2) is None


def test_times_are_told_in_words():
    assert [in_words(seconds) for seconds in (40, 180, 9000)] == ["40 s", "3 min", "2.5 h"]
