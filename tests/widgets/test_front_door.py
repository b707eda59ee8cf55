"""The index shows what lies in the folders: papers, tools and the verdicts of the last judged run."""

import json

import pytest

from workbench.runs.store import Run
from workbench.widgets.front_door import papers_table, tools_table


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A house with one paper, one tool and the index; its own empty data folder."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    notebooks, experiments = tmp_path / "notebooks", tmp_path / "experiments"
    for folder in (notebooks, experiments):
        folder.mkdir()
    for stem, title in (("coins", "Coins < dice"), ("compare", "Compare things"), ("index", "The door")):
        cells = [{"cell_type": "markdown", "metadata": {}, "source": f"# {title}"}]
        (notebooks / f"{stem}.ipynb").write_text(json.dumps({"cells": cells}))
    (experiments / "coins.py").write_text('"""Coins are fairer than dice.\n\nPaper: Somebody 1900.\n"""\n')
    return notebooks, experiments


def record(data, profile, verdict, started):
    claim = {"statement": "Coins are fair", "verdict": verdict, "gates": False}
    run = Run("coins", f"{profile}-{started}", data / "runs" / "coins" / f"{profile}-{started}")
    run.status, run.profile, run.started, run.claims = "finished", profile, started, [claim]
    run.save()


def test_a_paper_is_linked_with_its_claim_and_says_that_it_was_never_run(folders):
    shown = papers_table(folders[0], experiments=folders[1]).data
    assert "<a href='coins.ipynb'>Coins &lt; dice</a>" in shown
    assert "Coins are fairer than dice." in shown
    assert "not run yet" in shown
    assert "compare.ipynb" not in shown


def test_the_newest_judged_run_counts_and_a_smoke_run_never_does(folders, tmp_path):
    record(tmp_path / "data", "quick", "contradicted", "2026-01-01T00:00:00+00:00")
    record(tmp_path / "data", "full", "supported", "2026-01-02T00:00:00+00:00")
    record(tmp_path / "data", "smoke", "not judged", "2026-01-03T00:00:00+00:00")
    shown = papers_table(folders[0], experiments=folders[1]).data
    assert "1 supported" in shown
    assert "full, 2026-01-02" in shown
    assert "contradicted" not in shown


def test_tools_are_the_notebooks_of_no_paper_without_the_door_itself(folders):
    shown = tools_table(folders[0], experiments=folders[1]).data
    assert shown == "<ul><li><a href='compare.ipynb'>Compare things</a></li></ul>"


def test_an_empty_house_says_so(tmp_path):
    assert "no paper yet" in papers_table(tmp_path, experiments=tmp_path).data
    assert "no other notebooks" in tools_table(tmp_path, experiments=tmp_path).data
