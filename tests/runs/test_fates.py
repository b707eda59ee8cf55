"""Real kernels, really killed: one sweep in which everything goes wrong that can, and the sweep after it."""

import json
from pathlib import Path

import psutil
import pytest

from tests.runs.toy_notebooks import write_fates
from workbench.__main__ import main
from workbench.runs.store import FAILED, FINISHED, KILLED, load_run, redo_folder, runs

pytestmark = pytest.mark.notebooks
# The one that is too slow comes last, so that its time-out is the end of the sweep.
SWEEP = [
    "sweep",
    "fates",
    "-p",
    "fate=well,kernel killed,worker killed,raises,gate fails,too slow",
    "--profile",
    "quick",
    "--cell-timeout",
    "3",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fates")
    write_fates(folder / "notebooks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(folder / "data"))
        patch.setenv("WORKBENCH_NOTEBOOKS", str(folder / "notebooks"))
        yield folder


@pytest.fixture(scope="module")
def first(folder):
    """Exit code and runs by fate of the first sweep."""
    return main(SWEEP), {run.parameters["fate"]: run for run in runs("fates")}


@pytest.fixture(scope="module")
def second(first):
    """The same after the same command was given again."""
    return main(SWEEP), {run.parameters["fate"]: run for run in runs("fates")}


def test_a_killed_kernel_or_worker_stops_nobody_else(first):
    _, by_fate = first
    assert {fate: run.status for fate, run in by_fate.items()} == {
        "well": FINISHED,
        "kernel killed": KILLED,
        "worker killed": KILLED,
        "raises": FAILED,
        "gate fails": FAILED,
        "too slow": FAILED,
    }


def test_every_death_is_told_in_one_sentence(first):
    _, by_fate = first
    assert "killed by SIGKILL, which the system does when memory runs out" in by_fate["kernel killed"].error
    assert by_fate["worker killed"].error == "Its worker process died (exit code -9)."
    assert by_fate["raises"].error == "RuntimeError in cell 4: as it was asked to"
    assert by_fate["gate fails"].error.startswith("ClaimNotSupported in cell 5: fates: The gate holds")
    assert by_fate["too slow"].error == "A cell took longer than the 3 s it may take (--cell-timeout)."


def test_something_that_failed_makes_the_exit_code_1(first):
    assert first[0] == 1


def test_no_kernel_is_left_behind(first, folder):
    pids = [int(marker.read_text()) for marker in (folder / "data").glob("tried-*")]
    assert len(pids) == 6
    for pid in pids:
        assert not psutil.pid_exists(pid) or "ipykernel_launcher" not in psutil.Process(pid).cmdline()


def test_claims_are_recorded_of_a_run_that_its_gate_failed(first):
    _, by_fate = first
    assert by_fate["gate fails"].verdicts == {"contradicted": 1}
    assert by_fate["gate fails"].failed_gates == ["The gate holds"]
    assert by_fate["well"].verdicts == {"supported": 1}


def test_a_finished_run_holds_its_notebook_its_rows_and_where_they_come_from(first, folder):
    run = first[1]["well"]
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "result.json",
        "rows.parquet",
        "run.ipynb",
        "run.json",
    ]
    assert run.rows()["loss"].tolist() == [0.5]
    assert run.duration > 0
    assert run.cpu_seconds > 0
    assert run.peak_memory_mib > 30
    assert run.config == {"profile": "quick"}
    assert run.provenance["versions"]["papermill"]
    assert run.provenance["cpu_cores"] == psutil.cpu_count()
    text = run.notebook.read_text()
    assert str(folder) not in json.dumps(json.loads(text)["metadata"])  # no path of this machine
    assert 'fate = "well"' in "".join(json.loads(text)["cells"][2]["source"])


def test_a_failed_run_keeps_its_notebook_up_to_the_failing_cell(first):
    _, by_fate = first
    for fate in ("raises", "kernel killed", "worker killed", "too slow"):
        assert by_fate[fate].notebook.is_file()
        assert not list(by_fate[fate].folder.glob(".*"))


def test_the_same_command_redoes_only_what_is_not_finished(first, second):
    before, after = first[1], second[1]
    assert after["kernel killed"].status == after["worker killed"].status == FINISHED
    assert after["well"] == before["well"]
    assert after["raises"].process != before["raises"].process
    assert second[0] == 1  # what raises still raises


def test_what_was_skipped_and_taken_up_again_is_told(second, capsys):
    assert main(["sweep", "fates", "-p", "fate=well", "--profile", "quick"]) == 0
    assert "fates quick fate=well: up to date" in capsys.readouterr().err


def test_force_runs_a_finished_one_again(second):
    before = second[1]["well"]
    assert main(["run", "fates", "-p", "fate=well", "--force"]) == 0
    after = next(run for run in runs("fates") if run.parameters["fate"] == "well")
    assert after.folder == before.folder
    assert after.process != before.process


def test_a_redo_that_dies_leaves_what_was_finished(folder, second):
    """The marker that spares the second try is taken away, so that the redo is killed as the first was."""
    for fate in ("kernel killed", "worker killed"):
        before = next(run for run in runs("fates") if run.parameters["fate"] == fate)
        assert before.status == FINISHED
        (folder / "data" / f"tried-{fate}").unlink()
        assert main(["run", "fates", "-p", f"fate={fate}", "--profile", "quick", "--force"]) == 1
        after = next(run for run in runs("fates") if run.parameters["fate"] == fate)
        assert after == before
        assert after.rows()["loss"].tolist() == [0.5]
        died = load_run(redo_folder(before.folder))
        assert died.status == KILLED
        assert died.notebook.is_file()
        assert main(["run", "fates", "-p", f"fate={fate}", "--profile", "quick", "--force"]) == 0
        assert not redo_folder(before.folder).exists()
        again = next(run for run in runs("fates") if run.parameters["fate"] == fate)
        assert again.process != before.process


def test_a_gate_does_not_judge_the_profile_smoke(second):
    assert main(["run", "fates", "--profile", "smoke", "-p", "fate=well"]) == 0


def test_the_index_of_the_sweep_names_its_runs(first, folder):
    (index,) = [path for path in Path(folder, "data/runs/fates/sweeps").iterdir() if "killed" in path.read_text()]
    assert len(json.loads(index.read_text())["runs"]) == 6
