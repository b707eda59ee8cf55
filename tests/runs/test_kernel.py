"""What a notebook finds when a run executes it, seen from inside of one real run."""

import json
import os
import sys

import pytest

from tests.runs.toy_notebooks import write_notebook
from workbench.__main__ import main
from workbench.runs.kernel import KernelWatch, death_in_words, kernel_manager_class
from workbench.runs.store import FINISHED, runs

LOOK_AROUND = """\
import json, os
from pathlib import Path
import ipywidgets
names = "WORKBENCH_RUN WORKBENCH_CORES OMP_NUM_THREADS WORKBENCH_DATA".split()
seen = {name: os.environ[name] for name in names} | {"cwd": os.getcwd(), "thing": thing}
Path(os.environ["WORKBENCH_RUN"], "seen.json").write_text(json.dumps(seen))
ipywidgets.IntSlider()"""
# A launcher that comes up only at the second try, as kernels sometimes do on a loaded machine.
LAUNCHER = """\
import pathlib, sys
tried = pathlib.Path(__file__).with_name("tried")
if not tried.exists():
    tried.touch()
    sys.exit(1)
from ipykernel import kernelapp
kernelapp.launch_new_instance()"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernel")
    parameters = 'profile: str = "quick"  # size\nthing: str = None  # text'
    write_notebook(folder / "elsewhere" / "mine.ipynb", "# Mine", parameters, LOOK_AROUND)
    (folder / "launcher").mkdir()
    (folder / "launcher" / "ipykernel_launcher.py").write_text(LAUNCHER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WORKBENCH_DATA", "data")  # relative, as people write it
        patch.setenv("WORKBENCH_CORES", "3")
        patch.setenv("PYTHONPATH", str(folder / "launcher"))
        assert main(["run", "elsewhere/mine.ipynb", "-p", "thing=1e-3"]) == 0
        (one,) = runs("mine")
    assert (folder / "launcher" / "tried").exists()
    return one


@pytest.mark.notebooks
def test_a_kernel_that_does_not_come_up_is_tried_once_more(run):
    assert run.status == FINISHED


@pytest.mark.notebooks
def test_the_notebook_knows_its_folder_its_share_of_cores_and_its_own_place(run):
    seen = json.loads((run.folder / "seen.json").read_text())
    assert seen["WORKBENCH_RUN"] == str(run.folder)
    assert seen["WORKBENCH_CORES"] == seen["OMP_NUM_THREADS"] == "3"
    assert os.path.isabs(seen["WORKBENCH_DATA"])
    assert os.path.basename(seen["cwd"]) == "elsewhere"


@pytest.mark.notebooks
def test_text_that_looks_like_a_number_stays_text_where_text_is_asked_for(run):
    assert json.loads((run.folder / "seen.json").read_text())["thing"] == "1e-3"


@pytest.mark.notebooks
def test_the_state_of_widgets_is_not_kept(run):
    content = json.loads(run.notebook.read_text())
    assert "widgets" not in content["metadata"]
    assert not any("widget-view" in kind for out in content["cells"][-1]["outputs"] for kind in out["data"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sockets in the file system")
def test_kernels_are_reached_over_sockets_of_this_interpreter():
    manager = kernel_manager_class(KernelWatch())()
    assert manager.transport == "ipc"
    assert manager.kernel_spec.argv[0] == sys.executable
    assert len(manager.ip) < 100
    manager.folder.rmdir()


def test_a_death_is_told_in_words():
    assert "SIGKILL, which the system does when memory runs out" in death_in_words(-9)
    assert death_in_words(-11) == "The kernel was killed by SIGSEGV."
    assert death_in_words(1) == "The kernel died (exit code 1)."
    assert death_in_words(None) == "The kernel died (exit code None)."
