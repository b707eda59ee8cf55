import json
import os
import signal
import sys
import time

import psutil
import pytest

from workbench.__main__ import main
from workbench.runs.store import FINISHED, KILLED, runs, runs_folder

WRONG = {
    "run tyo": "Did you mean 'toy'",
    "run toy nobody": "notebook='nobody'",
    "run toy -p step=3": "Did you mean 'steps'",
    "run toy -p steps=many": "parameter steps: expected a whole number",
    "run toy -p seeds=0": "such as [0,1,2]",
    "run toy --profile quik": "Did you mean 'quick'",
    "run toy --jobs 0": "--jobs",
    "run toy --cell-timeout -1": "--cell-timeout",
    "run fates toy -p fate=well": "parameter='fate'",
    "sweep toy": "at least one axis",
    "sweep toy -p steps=1,2,x": "parameter steps: expected a whole number",
    "sweep toy -p profile=smoke,quik": "Did you mean 'quick'",
    "run toy -p steps=1 -p steps=2": "given twice",
    "run toy --profile quick -p profile=full": "given twice",
    "list tyo": "Did you mean 'toy'",
    "bench nothing": "bench='nothing'",
    "cache --clear chache": "Did you mean 'cache'",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_use_is_told_in_one_sentence_and_starts_nothing(words, house, capsys):
    assert main(words.split()) == 2
    assert WRONG[words] in capsys.readouterr().err
    assert not runs_folder().exists()


def test_without_notebooks_there_is_nothing_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_NOTEBOOKS", str(tmp_path))
    assert main(["run", "all"]) == 0
    assert main(["list"]) == 0
    assert "There are no notebooks" in capsys.readouterr().out


def test_an_up_to_date_run_needs_neither_papermill_nor_torch(house, within):
    code = (
        "import sys; from workbench.__main__ import main;"
        "from workbench.runs.notebooks import find_notebook; from workbench.runs.plan import plan;"
        "from workbench.runs.store import Run, FINISHED; job = plan(find_notebook('toy'));"
        "Run(job.stem, job.identity, job.folder, FINISHED, job.profile, job.parameters).save();"
        "code = main(['run', 'toy']); main(['list']);"
        "assert not {'papermill', 'torch', 'nbformat', 'pandas'} & set(sys.modules); sys.exit(code)"
    )
    process = within("-c", code, WORKBENCH_NOTEBOOKS=str(house / "notebooks"), WORKBENCH_DATA=str(house / "data"))
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert "up to date" in told


@pytest.mark.notebooks
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT that a test could send to one process")
def test_ctrl_c_leaves_no_kernel_and_the_same_command_takes_it_up_again(house, within):
    command = ["-m", "workbench", "run", "fates", "-p", "fate=interrupted"]
    folders = {"WORKBENCH_NOTEBOOKS": str(house / "notebooks"), "WORKBENCH_DATA": str(house / "data")}
    marker = house / "data" / "tried-interrupted"
    process = within(*command, **folders)
    deadline = time.monotonic() + 120
    while not (marker.is_file() and marker.read_text()) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    kernel = psutil.Process(int(marker.read_text()))
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command takes it up again" in told
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE
    (run,) = runs("fates")
    assert run.status == json.loads((run.folder / "run.json").read_text())["status"] == KILLED
    assert "Interrupted" in run.error
    again = within(*command, **folders)
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert "killed before, run again" in told
    assert [run.status for run in runs("fates")] == [FINISHED]


def test_a_data_folder_that_cannot_be_written_is_told_in_one_sentence(house, monkeypatch, capsys):
    (house / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_DATA", str(house / "file"))
    assert main(["run", "toy"]) == 1
    told = capsys.readouterr().err
    assert "cannot be written: make it writable or set WORKBENCH_DATA" in told
    assert "Traceback" not in told
