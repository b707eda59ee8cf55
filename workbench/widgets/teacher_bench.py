"""The bench for teachers: choose teachers, a student and losses, press Run, watch, stop, go on, compare, take away."""

from __future__ import annotations

import threading
import time
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go

from workbench.errors import AssetError
from workbench.files import data_folder
from workbench.plots.teacher_gap import teacher_gap
from workbench.runs.store import FAILED, FINISHED, KILLED, STOPPED
from workbench.runtime import available_cores
from workbench.training import teachers
from workbench.training.teachers import Config
from workbench.widgets.bench_choice import BenchChoice
from workbench.widgets.bench_curves import BenchCurves
from workbench.widgets.bench_export import FORMATS, bench_table, export_table, shown
from workbench.widgets.bench_job import STEM, BenchJob, bench_jobs
from workbench.widgets.bench_lines import lines_html, summary
from workbench.widgets.bench_pool import BenchPool, Line
from workbench.widgets.live import FitWidth, LiveBox, headless, live

SECONDS_BETWEEN_DRAWINGS = 0.3
COLOURS = {
    "ready": "#787c83", "running": "#0072B2", "done": "#009E73", "stopped": "#B87700", "failed": "#D55E00",
}  # fmt: skip


class TeacherBench(LiveBox):
    """Trains students from several teachers in processes of their own, so that the notebook goes on answering.

    Every student is a run of the store: what is finished is not trained again, what was stopped goes on from its
    checkpoint. ``state`` is ``ready``, ``running``, ``done``, ``stopped`` or ``failed``; ``lines`` tells of each run,
    ``rows`` holds the finished ones, :meth:`table` compares them.

    Args:
        config: what the controls show first.
        workers: processes at a time; None = as many as there are cores.
    """

    def __init__(self, config: Config | None = None, *, workers: int | None = None) -> None:
        self._start_config = config or Config()
        self._workers = workers or available_cores()
        self.state = "ready"
        self.lines: list[Line] = []
        self.rows = pd.DataFrame()
        self._pool: BenchPool | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._read: dict[str, dict[str, Any]] = {}  # rows of finished runs by identity
        self.status = widgets.HTML()
        self.choice = BenchChoice(self._start_config, lambda told: self._say("failed", told))
        self.run_button = widgets.Button(description="Run", icon="play", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", icon="stop", button_style="danger", disabled=True)
        self.progress, self.report = widgets.HTML(), widgets.HTML()
        self.curves = BenchCurves()
        self.gap = live(_empty_gap())
        self.file = widgets.Text(str(data_folder() / "exports" / f"{STEM}.csv"), description="File")
        self.format = widgets.Dropdown(
            options=[(name, ending) for ending, name in FORMATS.items()], layout=widgets.Layout(width="110px")
        )
        self.export_button = widgets.Button(description="Export", icon="download")
        self.exported = widgets.HTML()
        self.file.layout.width = "480px"
        self.run_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())
        self.export_button.on_click(lambda _: self._export())
        self.format.observe(lambda change: self._rename(change["new"]), names="value")
        wrap = widgets.Layout(flex_flow="wrap", margin="6px 0")
        buttons = widgets.HBox([self.run_button, self.stop_button, self.status], layout=wrap)
        export = widgets.HBox([self.file, self.format, self.export_button, self.exported], layout=wrap)
        self._still = [self.progress, self.curves.figure, self.gap, self.report]
        figure = [self.gap, FitWidth()] if isinstance(self.gap, widgets.Widget) else []
        self._results = widgets.VBox([*figure, self.report, export])
        super().__init__([self.choice, buttons, self.progress, self.curves, self._results])
        self._look_up()

    def config(self) -> Config:
        """What the controls ask for.

        Raises:
            ValueError, UnknownName: a value that cannot work, in one sentence.
        """
        return self.choice.config()

    def start(self) -> None:
        """Train what is chosen and not finished; values that cannot work are answered in one sentence."""
        if self.state == "running":
            return
        try:
            config = self.config()
            config.require_setting()
            jobs = bench_jobs(config.runs())
        except (ValueError, TypeError, AssetError) as error:
            self._say("failed", f"Not started: {error}")
            return
        self._take(jobs)
        self._stopping = False
        self._enable(running=True)
        self._say("running", "Starting")
        self._pool = BenchPool(self.lines, workers=self._workers)
        self._thread = threading.Thread(target=self._accompany, args=(self._pool,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every run within the step it is in; checkpoints stay, and Run goes on from them."""
        if self.state == "running" and self._pool is not None:
            self._stopping = True
            self.stop_button.disabled = True
            self._pool.stop()
            self._say("running", "Stopping after the step each run is in")

    def wait(self) -> None:
        """Block until nothing runs any more and all is drawn."""
        if self._thread is not None:
            self._thread.join()

    def table(self) -> pd.DataFrame:
        """Means over the seeds that are finished, see :func:`workbench.widgets.bench_export.bench_table`."""
        return bench_table(self.rows)

    def export(self, path: Path | str) -> Path:
        """Write the table as ``.csv``, ``.parquet``, ``.tex`` or ``.md``.

        Raises:
            ValueError, UnknownName, AssetError: as :func:`workbench.widgets.bench_export.export_table`.
        """
        return export_table(self.table(), path)

    def models(self) -> dict[str, tuple[Any, Any]]:
        """Models to compare on a sentence: the best finished student of each loss, then all teachers.

        Each is a (model, tokenizer) by name; teachers that are trained here are trained now where they are missing.

        Raises:
            AssetError: a pretrained model cannot be had.
        """
        config = self.config()
        found = teachers.load(config, teachers.train(config))
        best = {}
        for line, row in self._finished():
            if line.run.loss not in best or row["nats"] < best[line.run.loss][1]["nats"]:
                best[line.run.loss] = (line, row)
        return {_student_name(line): _load_student(line) for line, _ in best.values()} | found

    def _finished(self) -> list[tuple[Line, dict[str, Any]]]:
        for line in self.lines:
            name = line.job.identity
            # Each file is read once: with sixty runs the kernel would be busy for a while otherwise.
            if line.state == FINISHED and name not in self._read and (run := line.job.recorded()) is not None:
                self._read[name] = run.rows().iloc[0].to_dict()
        return [(line, self._read[line.job.identity]) for line in self.lines if line.job.identity in self._read]

    def _look_up(self) -> None:
        """Show what is on record of the selection, without training anything."""
        try:
            self._take(bench_jobs(self.config().runs()))
        except (ValueError, AssetError) as error:
            self._say("failed", str(error))
        else:
            self._say("ready", summary(self.lines, workers=self._workers))

    def _take(self, jobs: list[BenchJob]) -> None:
        self.lines = [_line(job) for job in jobs]
        self.curves.clear(self.lines)
        self._draw_results()
        self.progress.value = lines_html(self.lines)

    def _accompany(self, pool: BenchPool) -> None:
        """Drive the workers and draw what they tell, a few times a second, until all have ended."""
        finished = -1
        try:
            while not pool.over:
                pool.drive(SECONDS_BETWEEN_DRAWINGS)
                finished = self._draw(finished)
            pool.close()
            self._draw(-1)
            self._conclude()
        except Exception as error:  # a thread has nobody to raise it to
            pool.close()
            self._say("failed", f"{type(error).__name__}: {error}")
        finally:
            self._enable(running=False)

    def _draw(self, finished: int) -> int:
        """Draw what has changed; the results only when another run has finished."""
        changed = any(line.changed for line in self.lines)
        self.curves.show()
        if changed:
            self.progress.value = lines_html(self.lines)
        now = sum(line.state == FINISHED for line in self.lines)
        if now != finished:
            self._draw_results()
        if not self._stopping:
            self._say("running", summary(self.lines, workers=self._workers))
        return now

    def _draw_results(self) -> None:
        self.rows = pd.DataFrame([row for _, row in self._finished()])
        if self.rows.empty:
            self.report.value = ""
            self.gap.data = []
            self._results.layout.display = "none"
            return
        drawn = teacher_gap(self.rows)
        with self.gap.batch_update():
            self.gap.data = []
            self.gap.add_traces(drawn.data)
            self.gap.update_layout(xaxis=drawn.layout.xaxis, yaxis=drawn.layout.yaxis)
        table = shown(self.table()).to_html(index=False, border=0)
        self.report.value = f"<div class='workbench-bench' style='max-height:none;overflow-x:auto'>{table}</div>"
        self._results.layout.display = ""

    def _conclude(self) -> None:
        told = summary(self.lines, workers=self._workers)
        states = {line.state for line in self.lines}
        if states & {FAILED, KILLED}:
            self._say("failed", told)
        elif STOPPED in states:
            self._say("stopped", f"{told}. Run goes on from where they were stopped.")
        else:
            self._say("done", told)

    def _enable(self, *, running: bool) -> None:
        self.run_button.disabled = running
        self.stop_button.disabled = not running
        self.choice.enable(not running)

    def _say(self, state: str, sentence: str) -> None:
        self.state = state
        self.status.value = f"<span style='color:{COLOURS[state]};font-weight:600'>{escape(sentence)}</span>"

    def _rename(self, ending: str) -> None:
        self.file.value = str(Path(self.file.value or STEM).with_suffix(ending))

    def _export(self) -> None:
        try:
            path = self.export(self.file.value)
        except (ValueError, AssetError) as error:
            self.exported.value = f"<span style='color:{COLOURS['failed']}'>{escape(str(error))}</span>"
        else:
            self.exported.value = f"written at {time.strftime('%H:%M:%S')}: {escape(str(path))}"

    def _ipython_display_(self) -> None:
        if not headless():
            super()._ipython_display_()
            return
        # Nobody can press Run: what is chosen is trained, or found trained, before it is shown.
        self.start()
        self.wait()
        if self.state == "failed":
            bad = next((line for line in self.lines if line.state in (FAILED, KILLED)), None)
            raise RuntimeError(self.status.value if bad is None else f"{bad.run.label}: {bad.error}")
        self._parts = self._still
        super()._ipython_display_()


def _line(job: BenchJob) -> Line:
    """A job as the store knows it."""
    line, record = Line(job), job.recorded()
    if record is None:
        return line
    if record.status == FINISHED:
        line.state, line.step = FINISHED, job.run.steps
        line.points = list(record.curves().itertuples(index=False, name=None))
    elif record.status in (FAILED, KILLED, STOPPED):
        line.state, line.error = record.status, record.error
    return line


def _student_name(line: Line) -> str:
    return f"student, {line.run.loss}" + ("" if line.run.teacher == teachers.NONE else f" from {line.run.source}")


def _load_student(line: Line) -> tuple[Any, Any]:
    from workbench.models.pretrained import load_pretrained

    return load_pretrained(line.job.model)


def _empty_gap() -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        height=380, xaxis_title="parameters of the teacher", yaxis_title="held-out loss, nats per byte",
        legend_title_text="loss", showlegend=True,
    )  # fmt: skip
    return figure
