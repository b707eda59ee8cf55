"""The grid: rows, pairing, the same bits whatever the cores, and a student alone as beside others."""

import math

import pandas as pd
import pytest

from workbench.models.small_lm import ModelSize
from workbench.training import CROSS_ENTROPY, Objective, distil_grid, train_ladder

TEACHERS = [ModelSize(16, 1, 1, 16), ModelSize(32, 1, 2)]
STUDENT = ModelSize(16, 1, 1)
FORWARD = Objective("forward_kl", "forward_kl")
TAID = Objective("taid", "taid", (("t_start", 0.2),))
MIXED = Objective("0.5 CE + 0.5 KD", "forward_kl", ce_weight=0.5, kd_weight=0.5)
RECIPE = {"steps": 12, "batch_size": 4, "transfer_windows": 64, "evaluation_windows": 32, "record_every": 4}
NUMBERS = ["nats", "accuracy", "kl_to_teacher", "reverse_kl_to_teacher", "head_mass", "tail_mass"]


@pytest.fixture
def teachers(task):
    return train_ladder(TEACHERS, task, steps=25, batch_size=4, evaluation_windows=40, cores=1)


def grid(teachers, task, objectives=(FORWARD, TAID, CROSS_ENTROPY), seeds=(0, 1), **options):
    return distil_grid(teachers, [STUDENT], list(objectives), list(seeds), task, **{"cores": 1, **RECIPE, **options})


def same(one, other):
    assert one.drop(columns="seconds").equals(other.drop(columns="seconds"))


def test_there_is_a_row_for_every_cell_and_the_baseline_has_no_teacher(task, teachers):
    found = grid(teachers, task)
    rows = found.rows
    assert len(rows) == 2 * 2 * 2 + 2
    assert rows.groupby(["teacher", "objective"]).seed.nunique().eq(2).all()
    baseline = rows.query("teacher == 'none'")
    assert baseline.objective.eq("cross_entropy").all()
    assert baseline[["ratio", "kl_to_teacher", "tail_mass"]].isna().all(axis=None)
    assert rows[["nats", "accuracy", "seconds"]].notna().all(axis=None)
    last = rows.iloc[-1]
    assert last.ratio == teachers[1].parameters / STUDENT.parameters(task.prepare().vocab_size)
    assert last.teacher_nats == teachers[1].held_out_nats
    t = found.curves.query("quantity == 't'")
    assert set(t.objective) == {"taid"}
    assert sorted(t.step.unique()) == [1, 4, 8, 12]
    assert t.value.between(0.2, 1.0).all()


def test_one_and_two_cores_give_the_same_bits(task, teachers, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CORES", "2")
    one, two = grid(teachers, task), grid(teachers, task, cores=2)
    same(one.rows, two.rows)
    order = ["teacher", "objective", "seed", "quantity", "step"]
    pd.testing.assert_frame_equal(
        one.curves.sort_values(order, ignore_index=True), two.curves.sort_values(order, ignore_index=True)
    )


def test_a_student_beside_others_is_the_student_alone(task, teachers):
    beside = grid(teachers[1:], task, objectives=(FORWARD, MIXED, TAID), seeds=(0,)).rows
    for objective in (FORWARD, MIXED, TAID):
        alone = grid(teachers[1:], task, objectives=(objective,), seeds=(0,)).rows
        together = beside.query(f"objective == {objective.name!r}")
        assert alone[NUMBERS].iloc[0].tolist() == pytest.approx(together[NUMBERS].iloc[0].tolist(), rel=1e-4)


def test_distilling_brings_students_nearer_to_their_teacher(task, teachers):
    few, many = (
        grid(teachers[1:], task, objectives=(FORWARD,), seeds=(0,), steps=steps).rows.kl_to_teacher.item()
        for steps in (2, 60)
    )
    assert many < 0.6 * few


def test_fresh_windows_are_another_way_to_draw_the_same_text(task, teachers):
    rows = grid(teachers[1:], task, objectives=(FORWARD,), seeds=(0,), transfer_windows=None, steps=40).rows
    stored = grid(teachers[1:], task, objectives=(FORWARD,), seeds=(0,), transfer_windows=2000, steps=40).rows
    assert rows.nats.item() == pytest.approx(stored.nats.item(), rel=0.05)


def test_pruned_students_start_from_their_teacher(task, teachers):
    start = {
        init: grid(teachers[1:], task, (FORWARD,), (0,), init=init, steps=1, lr=1e-9).rows
        for init in ("random", "pruned")
    }
    assert start["pruned"].init.item() == "pruned"
    assert start["pruned"].kl_to_teacher.item() != start["random"].kl_to_teacher.item()
    whole = distil_grid(teachers[1:], [TEACHERS[1]], [FORWARD], [0], task, **{**RECIPE, "steps": 1}, lr=1e-9,
                        init="pruned", cores=1)  # fmt: skip
    assert whole.rows.kl_to_teacher.item() == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="does not fit into the teacher"):
        distil_grid(teachers[:1], [TEACHERS[1]], [FORWARD], [0], task, steps=1, init="pruned")


def test_a_student_whose_loss_is_lost_does_not_disturb_its_neighbours(task, teachers):
    lost = Objective("lost", "forward_kl", kd_weight=1e39)  # more than a float32 holds
    rows = grid(teachers[1:], task, objectives=(FORWARD, lost), seeds=(0,)).rows.set_index("objective")
    alone = grid(teachers[1:], task, objectives=(FORWARD,), seeds=(0,)).rows
    assert math.isnan(rows.nats["lost"])
    assert rows.nats["forward_kl"] == pytest.approx(alone.nats.item(), rel=1e-4)


def test_stopping_keeps_the_rows_that_are_done(task, teachers):
    seen = []
    found = grid(teachers, task, stop=lambda: bool(seen), on_rows=seen.append)
    assert len(seen) == 1
    assert len(found.rows) == len(seen[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"seeds": (1, 1)}, "seeds holds 1 twice"),
        ({"objectives": (FORWARD, FORWARD)}, "objectives holds 'forward_kl' twice"),
        ({"objectives": (Objective("x", "revers_kl"),)}, "Did you mean 'reverse_kl'"),
        ({"init": "prune"}, "Did you mean 'pruned'"),
        ({"teachers": ()}, "teachers is empty"),
    ],
)
def test_grids_that_cannot_be_are_refused_before_anything_is_trained(task, changes, message):
    with pytest.raises(ValueError, match=message):
        grid(changes.pop("teachers", [None])[:0], task, **changes) if "teachers" in message else grid(
            train_ladder(TEACHERS[:1], task, steps=1, evaluation_windows=1, cores=1), task, **changes
        )


def test_a_teacher_of_another_vocabulary_is_refused(task, plays, teachers):
    from dataclasses import replace

    with pytest.raises(ValueError, match="has a vocabulary of"):
        grid(teachers, replace(task, vocabulary=300))
