"""One line a run: state, progress, held-out loss, speed, remaining time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from workbench.runs.forecast import in_words
from workbench.runs.store import FAILED, FINISHED, KILLED, RUNNING, STOPPED
from workbench.widgets.bench_pool import STARTING, TEACHER, WAITING, Line

# The sign tells the state without its colour.
STATES = {
    WAITING: ("·", "waiting", "#787c83"),
    TEACHER: ("…", "its teacher is made ready", "#787c83"),
    STARTING: ("…", "starting", "#787c83"),
    RUNNING: ("▶", "training", "#0072B2"),
    FINISHED: ("✔", "finished", "#009E73"),
    STOPPED: ("■", "stopped", "#B87700"),
    KILLED: ("✘", "killed", "#D55E00"),
    FAILED: ("✘", "failed", "#D55E00"),
}
HEADS = ("teacher", "loss", "seed", "state", "progress", "nats per byte", "tokens/s", "left")
STYLE = """<style>
.workbench-bench { max-height: 390px; overflow-y: auto; }
.workbench-bench table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.workbench-bench th { position: sticky; top: 0; background: var(--jp-layout-color1, Canvas); }
.workbench-bench th, .workbench-bench td { padding: 1px 16px 1px 0; text-align: left; line-height: 1.55;
  white-space: nowrap; }
.workbench-bench td.number, .workbench-bench th.number { text-align: right; }
.workbench-bench .track { display: inline-block; width: 90px; height: 8px; vertical-align: middle;
  background: rgba(128, 132, 140, 0.28); border-radius: 4px; overflow: hidden; }
.workbench-bench .track i { display: block; height: 100%; background: #0072B2; }
.workbench-bench small { opacity: .75; white-space: normal; }
</style>"""


def lines_html(lines: Sequence[Line]) -> str:
    """The table of all runs."""
    heads = "".join(f"<th{_number(place)}>{head}</th>" for place, head in enumerate(HEADS))
    rows = "".join(_row(line) for line in lines)
    return f"{STYLE}<div class='workbench-bench'><table><tr>{heads}</tr>{rows}</table></div>"


def summary(lines: Sequence[Line], *, workers: int) -> str:
    """How many runs are where, and how long the rest will take."""
    counts = {state: sum(line.state == state for line in lines) for state in STATES}
    told = [f"{counts[FINISHED]} of {len(lines)} finished"]
    told += [f"{counts[state]} {state}" for state in (RUNNING, STOPPED, KILLED, FAILED) if counts[state]]
    left = seconds_left(lines, workers=workers)
    return ", ".join(told) + ("" if left is None else f", about {in_words(left)} left")


def seconds_left(lines: Sequence[Line], *, workers: int) -> float | None:
    """Until all runs have ended, from what the running and the finished ones took; None where nothing is known."""
    running = [left for line in lines if (left := line.seconds_left) is not None]
    whole = [
        left * line.run.steps / (line.run.steps - line.step)
        for line in lines
        if (left := line.seconds_left) is not None and line.step < line.run.steps
    ]
    waiting = sum(line.state in (WAITING, TEACHER, STARTING) for line in lines)
    if not running:
        return None
    mean = sum(whole) / len(whole) if whole else 0.0
    return max(max(running), (sum(running) + waiting * mean) / max(1, workers))


def _row(line: Line) -> str:
    sign, word, colour = STATES[line.state]
    share = line.step / line.run.steps
    left = line.seconds_left
    cells = [
        escape(line.run.source),
        escape(line.run.loss),
        str(line.run.seed),
        f"<span style='color:{colour}'>{sign} {word}</span>",
        f"<span class='track'><i style='width:{100 * share:.0f}%'></i></span> {line.step}/{line.run.steps}",
        "" if line.nats is None else f"{line.nats:.3f}",
        "" if line.speed is None else f"{line.speed:,.0f}",
        "" if left is None else in_words(left),
    ]
    row = "<tr>" + "".join(f"<td{_number(place)}>{cell}</td>" for place, cell in enumerate(cells)) + "</tr>"
    if line.error:
        row += f"<tr><td></td><td colspan='{len(HEADS) - 1}'><small>{escape(line.error)}</small></td></tr>"
    return row


def _number(place: int) -> str:
    return " class='number'" if place >= 5 else ""
