"""The bench for teachers with real processes: run, stop, go on, kill, compare, take away."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest

from workbench.__main__ import main
from workbench.files import PROJECT
from workbench.runs.store import BENCH, FINISHED, KILLED, STOPPED, load_run, runs
from workbench.training.teachers import Config
from workbench.widgets.bench_curves import smoothed
from workbench.widgets.bench_export import COLUMNS, bench_table, export_table
from workbench.widgets.bench_lines import lines_html
from workbench.widgets.teacher_bench import TeacherBench

LONG = 100_000  # steps that nobody waits for


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A text of one's own."""
    lines = [f"{line} and {line * line} make {line * (line + 1)}.\n\n" for line in range(3000)]
    file = tmp_path_factory.mktemp("corpus") / "sums.txt"
    file.write_text("".join(lines))
    return str(file)


@pytest.fixture
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def asked(corpus, own_store):
    """A config on that text; every test has a store of its own."""

    def make(**options):
        return Config.of("smoke", corpus=corpus, context=16, pretrained="none", **options)

    return make


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """A bench that ran to its end: two teachers, two losses, two seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("store")))
        config = Config.of(
            "smoke", corpus=corpus, context=16, pretrained="none", teachers=("16x1", "32x1"), seeds=(0, 1)
        )
        bench = TeacherBench(config, workers=2)
        bench.start()
        bench.wait()
        yield bench


def run_until(bench, reached):
    """Start and look on until ``reached(bench)``; the bench's own thread does the rest."""
    bench.start()
    while not reached(bench):
        assert bench.state == "running", bench.status.value
        bench._thread.join(0.05)


def test_all_runs_finish_and_lie_in_the_store_with_what_other_runs_have(finished):
    assert finished.state == "done"
    assert [line.state for line in finished.lines] == [FINISHED] * 6
    found = runs("compare_teachers", profile=BENCH)
    assert len(found) == 6
    for run in found:
        assert (run.status, run.error) == (FINISHED, None)
        assert run.provenance["versions"]["torch"]
        assert "commit" in (run.provenance["git"] or {"commit": ""})
        assert run.started
        assert run.duration > 0
        assert run.cpu_seconds > 0
        assert run.peak_memory_mib > 50
        assert len(run.rows()) == 1
        assert list(run.curves()["step"]) == list(range(1, 21))
        assert (run.folder / "model" / "tokenizer.json").is_file()
        assert run.folder.name == run.identity
        assert not (run.folder / "checkpoint.pt").exists()


def test_pressing_run_again_trains_nothing(finished):
    before = {run.identity: (run.folder / "run.json").stat().st_mtime_ns for run in runs("compare_teachers")}
    finished.start()
    finished.wait()
    assert finished.state == "done"
    after = {run.identity: (run.folder / "run.json").stat().st_mtime_ns for run in runs("compare_teachers")}
    assert after == before


def test_another_bench_of_the_same_selection_shows_what_is_stored_before_anybody_presses_run(finished):
    again = TeacherBench(finished.config())
    assert again.state == "ready"
    assert "6 of 6 finished" in again.status.value
    pd.testing.assert_frame_equal(again.table(), finished.table())
    assert len(again.curves.figure.data) == 6
    assert len(again.gap.data) > 0


def test_curves_are_told_apart_by_teacher_and_loss_without_colour(finished):
    looks = {}
    for line, trace in zip(finished.lines, finished.curves.figure.data, strict=True):
        looks.setdefault((trace.marker.symbol, trace.line.dash), set()).add((line.run.source, line.run.loss))
    assert len(looks) == 3
    assert all(len(cells) == 1 for cells in looks.values())
    shown = [trace.name for trace in finished.curves.figure.data if trace.showlegend]
    assert shown == ["none, cross_entropy", "16x1, forward_kl", "32x1, forward_kl"]


def test_the_slider_smooths_the_curves_at_once_and_back(finished):
    raw = list(finished.curves.figure.data[0].y)
    finished.curves.smoothing.value = 0.9
    assert list(finished.curves.figure.data[0].y) == pytest.approx(smoothed(raw, 0.9))
    assert finished.curves.figure.layout.xaxis.title.text == "step, 90% smoothed"
    finished.curves.against.value = "seconds of training"
    assert list(finished.curves.figure.data[0].x) == [point[2] for point in finished.lines[0].points]
    finished.curves.smoothing.value, finished.curves.against.value = 0.0, "step"
    assert list(finished.curves.figure.data[0].y) == raw


def test_smoothing_keeps_a_constant_and_the_first_value():
    assert smoothed([3.0, 3.0, 3.0], 0.9) == pytest.approx([3.0, 3.0, 3.0])
    assert smoothed([5.0, 1.0], 0.5) == pytest.approx([5.0, (0.5 * 5 + 1) / 1.5])


def test_the_table_has_means_over_seeds_and_differences_paired_by_seed(finished):
    table = finished.table()
    rows = finished.rows
    assert list(table.columns) == COLUMNS
    assert len(table) == 3
    assert set(table["n"]) == {2}
    for _, cell in table.iterrows():
        some = rows[(rows["teacher"] == cell["teacher"]) & (rows["loss"] == cell["loss"])].set_index("seed")["nats"]
        assert cell["nats"] == pytest.approx(some.mean())
        assert cell["error"] == pytest.approx(some.sem())
        if cell["loss"] != "cross_entropy":
            alone = rows[rows["loss"] == "cross_entropy"].set_index("seed")["nats"]
            assert cell["below_no_teacher"] == pytest.approx((alone - some).mean())
            assert cell["low"] < cell["below_no_teacher"] < cell["high"]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".tex", ".md"])
def test_the_table_is_written_in_the_format_of_the_files_ending(finished, tmp_path, ending):
    path = finished.export(tmp_path / f"out{ending}")
    if ending in (".csv", ".parquet"):
        read = pd.read_csv if ending == ".csv" else pd.read_parquet
        pd.testing.assert_frame_equal(read(path), finished.table(), check_dtype=False)
    else:
        text = path.read_text()
        assert text.count("forward") == 2
        assert ("forward\\_kl" in text) == (ending == ".tex")
        assert f"{finished.table()['nats'].min():.4f}" in text


def test_the_export_button_answers_a_wrong_ending_in_one_sentence(finished, tmp_path):
    finished.file.value = str(tmp_path / "table.cvs")
    finished.export_button.click()
    assert "Did you mean &#x27;.csv&#x27;?" in finished.exported.value
    finished.format.value = ".md"
    assert finished.file.value == str(tmp_path / "table.md")
    finished.export_button.click()
    assert (tmp_path / "table.md").is_file()


def test_nothing_finished_means_an_empty_table_and_nothing_to_export(tmp_path):
    assert bench_table(pd.DataFrame()).empty
    with pytest.raises(ValueError, match="nothing to export yet"):
        export_table(bench_table(pd.DataFrame()), tmp_path / "x.csv")


def test_the_models_to_read_with_are_the_best_student_of_each_loss_and_the_teachers(finished):
    models = finished.models()
    students = [name for name in models if name.startswith("student")]
    assert len(students) == 2
    assert students[0] == "student, cross_entropy"
    assert {"teacher 16x1", "teacher 32x1"} <= set(models)
    for model, tokenizer in models.values():
        assert model.config.vocab_size == len(tokenizer)


def test_list_and_report_show_a_store_with_runs_of_the_bench(finished, capsys):
    assert main(["list"]) == 0
    assert "bench" in capsys.readouterr().out
    assert main(["list", "compare_teachers"]) == 0
    assert main(["report"]) == 0
    index = Path(capsys.readouterr().out.split()[-1])
    page = (index.parent / "compare_teachers-bench.html").read_text()
    assert "jupyter lab notebooks/compare_teachers.ipynb" in page
    assert page.count('<div class="drawing"') == 1
    assert page.count("<td>forward_kl</td>") == 4
    assert "This run left no notebook" not in page
    assert "compare_teachers-bench.html" in index.read_text()


def test_a_stop_ends_within_a_step_and_the_next_press_goes_on_from_there(asked):
    bench = TeacherBench(asked(steps=LONG, losses=("cross_entropy",), seeds=(0, 1)), workers=1)
    run_until(bench, lambda bench: bench.lines[0].step >= 5)
    bench.stop()
    bench.wait()
    assert bench.state == "stopped"
    line, waiting = bench.lines
    assert (waiting.state, waiting.job.recorded()) == (STOPPED, None)  # it had not begun
    record = line.job.recorded()
    step = int(record.error.split()[3])
    assert (record.status, record.error) == (STOPPED, f"Stopped after step {step} of {LONG}; Run goes on from there.")
    assert line.job.checkpoint.is_file()

    run_until(bench, lambda bench: bench.lines[0].step > step)
    line = bench.lines[0]
    assert line.began_at >= step
    assert [point[0] for point in line.points if point[0] <= step] == list(range(LONG // 20, step + 1, LONG // 20))
    bench.stop()
    bench.wait()
    again = line.job.recorded()
    assert again.started == record.started
    assert again.duration > record.duration  # what was spent before is not forgotten


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"student": "16"}, "width x layers"),
        ({"seeds": "0, one"}, "seeds"),
        ({"steps": -1}, "steps=-1 must be"),
        ({"corpus": "shakespere"}, "Did you mean"),
    ],
)
def test_bad_values_are_answered_in_one_sentence_and_nothing_starts(asked, options, told):
    bench = TeacherBench(asked())
    for name, value in options.items():
        bench.choice.fields.controls[name].value = value
    bench.start()
    assert bench.state == "failed"
    assert "Not started" in bench.status.value
    assert told in bench.status.value
    assert bench._thread is None


def test_tags_add_what_can_be_a_teacher_and_answer_what_cannot(asked):
    bench = TeacherBench(asked())
    bench.choice.teachers.more.value = "48x1"
    assert bench.choice.teachers.tags.value == ["32x1", "48x1"]
    bench.choice.teachers.more.value = "smollm2-136m"
    assert "Did you mean &#x27;smollm2-135m&#x27;" in bench.status.value
    bench.choice.losses.more.value = "taid"
    assert bench.config().losses == ("cross_entropy", "forward_kl", "taid")
    assert bench.config().teachers == ("32x1", "48x1")


def test_a_teacher_that_cannot_be_loaded_fails_its_own_students_only(asked, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    bench = TeacherBench(asked(teachers=("32x1", str(broken)), teacher_steps=3), workers=2)
    bench.start()
    bench.wait()
    states = {(line.run.source, line.run.loss): line.state for line in bench.lines}
    assert states["32x1", "forward_kl"] == states["none", "cross_entropy"] == FINISHED
    assert states["broken", "forward_kl"] == "failed"
    error = next(line.error for line in bench.lines if line.run.source == "broken")
    assert error.startswith("Its teacher: ")
    assert bench.state == "failed"
    assert "Its teacher" in lines_html(bench.lines)


def test_a_worker_that_dies_leaves_its_run_killed_and_the_next_press_redoes_it(asked):
    bench = TeacherBench(asked(steps=LONG, losses=("cross_entropy",)), workers=1)
    run_until(bench, lambda bench: bench.lines[0].step > 0)
    bench._pool._workers[0].process.kill()
    bench.wait()
    assert bench.state == "failed"
    assert bench.lines[0].state == KILLED
    assert bench.lines[0].job.recorded().status == KILLED
    run_until(bench, lambda bench: bench.lines[0].step > 0)
    bench.stop()
    bench.wait()
    assert bench.lines[0].job.recorded().status == STOPPED


KERNEL = """
import sys
from workbench.training.teachers import Config
from workbench.widgets.teacher_bench import TeacherBench
config = Config.of("smoke", corpus=sys.argv[1], context=16, pretrained="none", steps=100_000, losses=["cross_entropy"])
bench = TeacherBench(config, workers=1)
bench.start()
while bench.lines[0].step < 3:
    assert bench.state == "running", bench.status.value
    bench._thread.join(0.05)
print(bench._pool._workers[0].process.pid, bench.lines[0].job.folder, flush=True)
bench.wait()
"""


def test_a_kernel_that_is_killed_leaves_no_process_and_a_record_that_says_killed_with_a_checkpoint(corpus, own_store):
    environment = {**os.environ, "WORKBENCH_DATA": str(own_store), "PYTHONPATH": str(PROJECT)}
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, corpus], stdout=subprocess.PIPE, text=True, env=environment, cwd=PROJECT
    )
    pid, folder = kernel.stdout.readline().split()
    worker = psutil.Process(int(pid))
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    kernel.stdout.close()
    worker.wait(60)
    assert json.loads((Path(folder) / "run.json").read_text())["status"] == KILLED
    record = load_run(Path(folder))
    assert record.status == KILLED
    assert "is gone; Run goes on" in record.error
    assert (Path(folder) / "checkpoint.pt").is_file()


def test_a_headless_run_trains_what_is_missing_and_shows_it_still(asked, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path / "run"))
    shown = []
    monkeypatch.setattr("workbench.widgets.live.display", lambda part, **_: shown.append(type(part).__name__))
    bench = TeacherBench(asked(losses=("cross_entropy",)))
    bench._ipython_display_()
    assert bench.state == "done"
    assert shown == ["HTML", "Figure", "Figure", "HTML"]
