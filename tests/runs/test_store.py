import os

import pandas as pd
import pytest

from workbench.runs.store import (
    FINISHED,
    KILLED,
    RUNNING,
    Run,
    keep_unfinished_notebook,
    latest,
    load_run,
    redo_folder,
    runs,
    runs_folder,
    this_process,
)

pytestmark = pytest.mark.usefixtures("own_folders")

CLAIM = {"statement": "It holds", "verdict": "supported", "gates": True}


def recorded(name, **told):
    run = Run("toy", name, runs_folder() / "toy" / name, **{"status": FINISHED, "profile": "quick"} | told)
    run.save()
    return run


def test_a_run_is_read_back_as_it_was_saved():
    run = recorded("a", parameters={"seeds": [0, 1]}, claims=[CLAIM], duration=1.5)
    assert load_run(run.folder) == run


def test_runs_come_newest_first_and_can_be_chosen_from():
    recorded("a", started="2026-01-01T00:00:00+00:00")
    recorded("b", started="2026-01-02T00:00:00+00:00", status=KILLED)
    recorded("c", started="2026-01-03T00:00:00+00:00", profile="full")
    assert [run.identity for run in runs("toy")] == ["c", "b", "a"]
    assert [run.identity for run in runs(profile="quick", status=KILLED)] == ["b"]
    assert latest("toy").identity == "c"
    assert latest("toy", "quick").identity == "a"
    assert latest("nobody") is None


def test_a_running_run_whose_process_is_gone_reads_as_killed():
    alive = recorded("a", status=RUNNING, process=this_process())
    assert load_run(alive.folder).status == RUNNING
    # Another process that got the pid of a dead one has another birth.
    dead = recorded("b", status=RUNNING, process={"pid": os.getpid(), "born": 0.0})
    assert load_run(dead.folder).status == KILLED


def test_an_unreadable_record_is_no_run():
    run = recorded("a")
    (run.folder / "run.json").write_text('{"stem": "toy"')
    assert runs() == []


def test_a_gating_claim_that_is_not_supported_spoils_a_finished_run():
    assert recorded("a", claims=[CLAIM]).well
    spoilt = recorded("b", claims=[CLAIM, CLAIM | {"verdict": "inconclusive"}])
    assert not spoilt.well
    assert spoilt.verdicts == {"supported": 1, "inconclusive": 1}
    assert recorded("c", claims=[CLAIM | {"verdict": "not judged"}]).well
    assert recorded("d", claims=[CLAIM | {"verdict": "contradicted", "gates": False}]).well


def test_rows_are_a_table_or_none():
    run = recorded("a")
    assert run.rows() is None
    pd.DataFrame({"x": [1, 2]}).to_parquet(run.folder / "rows.parquet")
    assert run.rows()["x"].tolist() == [1, 2]


def test_half_a_notebook_is_kept_only_if_it_can_be_read():
    run = recorded("a")
    part = run.folder / ".run.part.ipynb"
    part.write_text('{"cells": [')
    keep_unfinished_notebook(run.folder)
    assert not part.exists()
    assert not run.notebook.exists()
    part.write_text('{"cells": []}')
    keep_unfinished_notebook(run.folder)
    assert run.notebook.exists()


def test_a_redo_is_seen_while_it_runs_and_forgotten_when_it_was_killed():
    done = recorded("a")
    redo = Run("toy", "a", redo_folder(done.folder), RUNNING, process=this_process())
    redo.save()
    assert [run.folder for run in runs(status=RUNNING)] == [redo.folder]
    redo.status = KILLED
    redo.save()
    assert runs() == [done]
    assert latest("toy") == done
