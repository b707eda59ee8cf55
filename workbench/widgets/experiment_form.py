"""A form for any experiment: its parameters, a Run button, live curves, and Stop."""

from __future__ import annotations

import threading
import time
from html import escape
from types import ModuleType
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import pandas as pd

from workbench.claim import claims_table
from workbench.plots.tables import beside_published
from workbench.profiles import PROFILES
from workbench.result import Result
from workbench.telemetry import Stopped, Watcher, watched
from workbench.widgets.config_fields import ConfigFields
from workbench.widgets.live import LiveBox, headless
from workbench.widgets.live_curves import LiveCurves

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_BETWEEN_DRAWINGS = 0.3
ROWS_SHOWN = 12
STOPPING = "Stopping after the step it is in"
STYLE = """<style>
.workbench-report table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.workbench-report th, .workbench-report td { padding: 2px 14px 2px 0; text-align: left; line-height: 1.6; }
.workbench-report tbody tr { border-top: 1px solid rgba(128, 132, 140, 0.3); }
</style>"""
COLOURS = {"running": "#0072B2", "done": "#009E73", "stopped": "#E69F00", "failed": "#D55E00"}


class ExperimentForm(LiveBox):
    """Change an experiment's parameters, run it beside the notebook, watch it, stop it.

    The run has its own thread, so that the kernel goes on answering. ``state`` is ``ready``, ``running``,
    ``done``, ``stopped`` or ``failed``; ``result`` is the last :class:`~workbench.result.Result`, ``rows``
    every finished observation, also of a run that was stopped.

    Args:
        experiment: a module with ``Config`` and ``run(config) -> Result``.
        profile: whose values the fields show first.

    Raises:
        ValueError: an unknown profile ("did you mean").
        TypeError: the module is no experiment.
    """

    def __init__(self, experiment: ModuleType, profile: str = "quick"):
        if not (hasattr(experiment, "Config") and callable(getattr(experiment, "run", None))):
            raise TypeError(f"experiment={experiment!r} must be a module with Config and run(config).")
        self._config_class: Any = experiment.Config
        self._run: Callable[[Any], Result] = experiment.run
        config = self._config_class.of(profile)
        self.state = "ready"
        self.result: Result | None = None
        self.rows = pd.DataFrame()
        self._found: list[dict[str, Any]] = []
        self._watcher = Watcher()
        self._thread: threading.Thread | None = None
        self._started = 0.0
        self.profile = widgets.Dropdown(options=PROFILES, value=profile, description="Profile")
        self.fields = ConfigFields(self._config_class, config)
        self.run_button = widgets.Button(description="Run", icon="play", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", icon="stop", button_style="danger", disabled=True)
        self.status, self.report = widgets.HTML(), widgets.HTML()
        self.curves = LiveCurves()
        self.profile.observe(self._refill, names="value")
        self.run_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())
        buttons = widgets.HBox([self.profile, self.run_button, self.stop_button, self.status])
        self.fields.layout.margin = "8px 0 12px"
        super().__init__([buttons, self.fields, self.curves, self.report])

    def config(self) -> Any:
        """The config that the fields say.

        Raises:
            ValueError: values that cannot work, in the config's own words.
        """
        return self._config_class.of(self.profile.value, **self.fields.read())

    def start(self) -> None:
        """Run what the fields say; values that cannot work are answered in one sentence and start nothing."""
        if self.state == "running":
            return
        try:
            config = self.config()
        except (ValueError, TypeError) as error:
            self._say("failed", f"Not started: {error}")
            return
        self.result, self.rows, self._found = None, pd.DataFrame(), []
        self._watcher, self._started = Watcher(), time.monotonic()
        self.report.value = ""
        self.curves.clear()
        self._enable(running=True)
        self._say("running", "Running")
        outcome: dict[str, Any] = {}
        worker = threading.Thread(target=self._work, args=(config, self._watcher, outcome), daemon=True)
        self._thread = threading.Thread(target=self._accompany, args=(worker, outcome), daemon=True)
        worker.start()
        self._thread.start()

    def stop(self) -> None:
        """Ask the run to end at its next step; what is finished is kept."""
        if self.state == "running":
            self._watcher.stop()
            self.stop_button.disabled = True
            self._say("running", STOPPING)

    def wait(self) -> None:
        """Block until the run has ended and is drawn."""
        if self._thread is not None:
            self._thread.join()

    def _refill(self, _change: object = None) -> None:
        try:
            self.fields.fill(self._config_class.of(self.profile.value))
        except (ValueError, TypeError) as error:  # such as a profile that this machine cannot serve
            self._say("failed", str(error))

    def _work(self, config: Any, watcher: Watcher, outcome: dict[str, Any]) -> None:
        try:
            with watched(watcher):
                outcome["result"] = self._run(config)
        except Exception as error:  # whatever an experiment raises is shown in the form, not lost in a thread
            outcome["error"] = error

    def _accompany(self, worker: threading.Thread, outcome: dict[str, Any]) -> None:
        """Draw what the worker publishes until it ends, then what it found."""
        try:
            while worker.is_alive():
                worker.join(SECONDS_BETWEEN_DRAWINGS)
                self._draw()
            self._draw()
            self._conclude(outcome)
        finally:
            self._enable(running=False)

    def _draw(self) -> None:
        self.curves.add(self._watcher.take_points())
        self._found.extend(self._watcher.take_rows())
        doing = STOPPING if self._watcher.stopping else self._watcher.doing or "Running"
        self._say("running", f"{doing}: {self._so_far()}")

    def _so_far(self) -> str:
        seconds = time.monotonic() - self._started
        found = f", {len(self._found)} observations finished" if self._found else ""
        return f"{seconds:.0f} s{found}"

    def _conclude(self, outcome: dict[str, Any]) -> None:
        error = outcome.get("error")
        if error is None:
            self.result = outcome["result"]
            self.rows = self.result.rows
            self.report.value = _result_html(self.result)
            self._say("done", f"Done: {self._so_far()}")
            return
        self.rows = pd.DataFrame(self._found)
        self.report.value = _rows_html(self.rows)
        if isinstance(error, Stopped):
            kept = "Finished observations are in form.rows; models that were trained stay in the cache."
            self._say("stopped", f"Stopped: {self._so_far()}. {kept}")
        else:
            self._say("failed", f"{type(error).__name__}: {error}")

    def _enable(self, *, running: bool) -> None:
        self.run_button.disabled = self.profile.disabled = running
        self.stop_button.disabled = not running
        self.fields.enable(not running)

    def _say(self, state: str, sentence: str) -> None:
        self.state = state
        self.status.value = f"<span style='color:{COLOURS[state]};font-weight:600'>{escape(sentence)}</span>"

    def _ipython_display_(self) -> None:
        if headless():
            print(f"A form with {len(self.fields.controls)} parameters; open the notebook in JupyterLab to use it.")
        else:
            super()._ipython_display_()


def _result_html(result: Result) -> str:
    claims = claims_table(result.claims, judged=result.judged).to_html(index=False, border=0)
    table = beside_published(result.table()).to_html() if len(result.rows) else ""
    return _report(f"<h4>Claims</h4>{claims}<h4>Means over seeds</h4>{table}")


def _rows_html(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    table = rows.tail(ROWS_SHOWN).to_html(index=False, border=0, float_format="%.4g")
    return _report(f"<h4>Finished observations</h4>{table}")


def _report(content: str) -> str:
    return f"{STYLE}<div class='workbench-report'>{content}</div>"
