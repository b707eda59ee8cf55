"""The picker over real (untrained) models; what a hand would do, without a browser."""

import re

import numpy as np
import pytest

from workbench.datasets.corpus import Corpus, Document
from workbench.datasets.vocabulary import train_vocabulary
from workbench.metrics.distributions import kl_divergence, softmax, sorted_distance
from workbench.models.small_lm import ModelSize, small_lm
from workbench.widgets.teacher_picker import TeacherPicker

TEXT = "To be, or not to be, that is the question: whether it is nobler in the mind to suffer.\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A student and a teacher in one vocabulary of characters, a stranger in one of byte pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        corpus = Corpus("hamlet", (Document("hamlet", TEXT * 10, "tragedy"),))
        characters, pairs = train_vocabulary(corpus, "characters"), train_vocabulary(corpus, 270)
    sizes = {"student": (16, characters, 0), "teacher": (32, characters, 1), "stranger": (16, pairs, 2)}
    return {
        name: (small_lm(len(vocabulary), ModelSize(width, 1, 1), context=64, seed=seed).eval(), vocabulary)
        for name, (width, vocabulary, seed) in sizes.items()
    }


@pytest.fixture
def picker(models):
    return TeacherPicker(models)


def bars(picker, place):
    return np.array(picker.figure.data[2 * place].x, dtype=float)


def diamonds(picker, place):
    return [value for value in picker.figure.data[2 * place + 1].x if value is not None]


def table_row(picker, name):
    rows = re.findall("<tr>(.*?)</tr>", picker.table.value)
    return next(re.sub("<[^>]+>", " ", row) for row in rows if f">{name}<" in row)


def test_bars_are_the_softened_probabilities_likeliest_first(picker):
    picker.temperature.value = 2.0
    p = softmax(picker.readings["teacher"].logits[-1], temperature=2.0)
    np.testing.assert_allclose(bars(picker, 1), np.sort(p)[::-1][:8])


def test_a_hotter_distribution_is_flatter(picker):
    cold = bars(picker, 1)[0]
    picker.temperature.value = 8.0
    assert bars(picker, 1)[0] < cold


def test_the_number_of_tokens_follows_its_slider(picker):
    picker.count.value = 12
    assert len(bars(picker, 0)) == 12
    assert len(picker.figure.layout.yaxis.ticktext) == 12


def test_diamonds_are_the_students_share_of_the_same_tokens(picker):
    teacher, student = picker.readings["teacher"], picker.readings["student"]
    likely = teacher.top(len(teacher.token_ids) - 1, 8)
    np.testing.assert_allclose(diamonds(picker, 1), softmax(student.logits[-1])[likely])


def test_diamonds_stand_neither_on_the_student_nor_where_the_vocabulary_differs(picker):
    assert diamonds(picker, 0) == []
    assert diamonds(picker, 2) == []


def test_kl_where_the_vocabulary_is_one_and_uld_with_a_sentence_where_not(picker):
    student, teacher, stranger = (softmax(picker.readings[n].logits[-1]) for n in ("student", "teacher", "stranger"))
    assert f"KL {kl_divergence(teacher, student):.3f}" in table_row(picker, "teacher")
    assert f"ULD {sorted_distance(stranger, student):.3f}" in table_row(picker, "stranger")
    assert "stranger and student do not share a vocabulary" in picker.table.value


def test_another_student_turns_the_comparison_round(picker):
    picker.student.value = "teacher"
    assert "(the student)" in table_row(picker, "teacher")
    assert diamonds(picker, 0)
    assert not diamonds(picker, 1)


def test_reading_up_to_a_word_asks_at_its_end(picker):
    picker.upto.value = picker.upto.options[0][1]
    p = softmax(picker.readings["teacher"].logits[1])  # after "To"
    np.testing.assert_allclose(bars(picker, 1), np.sort(p)[::-1][:8])


def test_a_new_sentence_is_read_by_every_model_and_moves_to_its_end(picker):
    picker.sentence.value = "it is nobler"
    assert {reading.text for reading in picker.readings.values()} == {"it is nobler"}
    assert picker.upto.label == "3: …nobler"
    assert f"{picker.readings['teacher'].nats_per_byte:.3f}" in table_row(picker, "teacher")


def test_an_empty_sentence_is_answered_in_the_table_and_the_next_one_read(picker):
    picker.sentence.value = ""
    assert "text is empty" in picker.table.value
    picker.sentence.value = "the mind"
    assert "text is empty" not in picker.table.value
    assert len(bars(picker, 0)) == 8


def test_what_the_reader_types_cannot_become_markup(picker):
    picker.sentence.value = "<b>it</b> is"
    assert "<b>" not in picker.table.value


def test_an_unknown_student_gets_the_nearest_name(models):
    with pytest.raises(ValueError, match="Did you mean 'student'"):
        TeacherPicker(models, student="studnet")


def test_a_headless_run_shows_a_still_figure_and_stores_no_plotly_library(models, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_RUN", "somewhere")
    picker = TeacherPicker(models)
    assert type(picker.figure).__name__ == "Figure"
    assert picker.figure not in picker.children
    picker.temperature.value = 4.0  # still computed
    assert bars(picker, 1)[0] == pytest.approx(softmax(picker.readings["teacher"].logits[-1], temperature=4.0).max())
