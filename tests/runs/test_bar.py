import pytest

from workbench.runs import bar
from workbench.runs.bar import RunsBar, line_of
from workbench.runs.plan import plan
from workbench.runs.store import FAILED, FINISHED, Run

pytestmark = pytest.mark.usefixtures("own_folders")
CLAIMS = [{"verdict": "supported"}, {"verdict": "supported"}, {"verdict": "inconclusive"}]


def test_a_log_gets_a_line_a_notebook_and_one_now_and_then(notebook, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: clock[0])
    job = plan(notebook, {"steps": 3})
    with RunsBar([job]) as shown:
        shown.on_event(job, "start", None)
        for second in range(70):
            clock[0] = float(second)
            shown.on_event(job, "cell" if second == 5 else "wait", 1)
        shown.on_event(job, "end", Run("toy", "a", job.folder, FINISHED, "quick", job.parameters, duration=69.0))
    assert capsys.readouterr().err.splitlines() == [
        "after 30 s: toy quick steps=3 (cell 1/3)",
        "after 60 s: toy quick steps=3 (cell 1/3)",
        "[1/1] toy quick steps=3: finished in 69 s",
    ]


def test_a_run_is_told_in_one_line_with_its_verdicts_or_its_error(tmp_path):
    done = Run("toy", "a", tmp_path, FINISHED, "full", {"profile": "full", "lr": 0.1}, duration=200.0, claims=CLAIMS)
    assert line_of(done) == "toy full lr=0.1: finished in 3 min, 2 supported, 1 inconclusive"
    assert line_of(Run("toy", "a", tmp_path, FAILED, error="It broke.")) == "toy: failed: It broke."
