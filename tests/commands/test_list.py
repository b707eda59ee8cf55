from workbench.__main__ import main
from workbench.runs.notebooks import find_notebook
from workbench.runs.plan import plan
from workbench.runs.store import FAILED, FINISHED, Run


def record(values, status):
    job = plan(find_notebook("toy"), values)
    Run(job.stem, job.identity, job.folder, status, job.profile, job.parameters, error="It broke.").save()


def test_the_parameters_cell_is_the_help(house, capsys):
    assert main(["list", "toy"]) == 0
    told = capsys.readouterr().out
    assert "A toy" in told
    assert "seeds    list   from the profile  one run each" in told
    assert "lr       float  0.001             step size, such as 1e-3; no more" in told
    assert "no runs yet" in told


def test_what_has_been_run_is_listed_by_profile(house, capsys):
    record({"profile": "smoke"}, FINISHED)
    record({"profile": "full", "steps": 3}, FAILED)
    assert main(["list"]) == 0
    assert "toy       smoke, full (failed)  A toy" in capsys.readouterr().out
    assert main(["list", "toy"]) == 0
    assert "toy full steps=3: failed: It broke." in capsys.readouterr().out
