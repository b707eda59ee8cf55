"""JupyterLab on a free port, and what the tests do on its page."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.datasets.fetch import fetch
from workbench.files import data_folder

SECONDS_TO_START = 120  # a loaded machine imports slowly; only a server that never comes fails


@contextmanager
def jupyterlab(folder: Path, settings: Path, **environment: str) -> Iterator[str]:
    """A fresh JupyterLab that shows ``folder``; gives its address, ends with the block.

    ``settings`` is an empty folder for its configuration: nothing of the user's is read or changed.
    """
    page = settings / "config" / "labconfig" / "page_config.json"
    page.parent.mkdir(parents=True)
    # Else a pop-up that offers news lies over the page.
    page.write_text(json.dumps({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}))
    port = _free_port()
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.password=",
        f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    folders = {name: str(settings / name.lower()) for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    log = settings / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            env={**os.environ, **folders, "JUPYTER_CONFIG_DIR": str(settings / "config"), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(address, server, log)
        yield address
    finally:
        server.terminate()  # the server ends its kernels
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def data_with_texts(folder: Path) -> Path:
    """``folder`` as a data folder of its own that already has the texts, so that nothing is fetched twice."""
    fetch("shakespeare")  # on a clean machine nothing has asked for it yet
    (folder / "assets").symlink_to(data_folder() / "assets", target_is_directory=True)
    return folder


def open_notebook(page, address: str, name: str, *, timeout: float) -> None:
    """Open a notebook in a clean workspace and wait until its kernel is idle."""
    page.goto(f"{address}/lab/tree/{name}?reset", timeout=timeout)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=timeout)
    session = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session"
    page.wait_for_function(f"() => {session}?.kernel?.status === 'idle'", timeout=timeout)


def run_all_cells(page) -> None:
    """Start running; the braces return nothing, else the call would last until the last cell is done."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_it_answers(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {log.read_text()[-2000:]}")
