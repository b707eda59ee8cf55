"""Rows in the form that the data sets have on the hub become questions; without the hub one sentence says so."""

import os
import re
import subprocess
import sys

import pytest

from tests.datasets.local_index import free_port
from workbench.datasets import hub_benchmarks
from workbench.datasets.hub_benchmarks import (
    BENCHMARKS,
    bbq_question,
    ceval_question,
    load_benchmark,
    mmlu_question,
    questions_of,
    truthfulqa_question,
)
from workbench.errors import AssetError, UnknownName

MMLU = {
    "question": "What is the order of the cyclic group Z_6? ", "subject": "abstract_algebra",
    "choices": ["2", "3", "6", "12"], "answer": 2,
}  # fmt: skip
CEVAL = {
    "id": 0, "question": "下列属于水果的是____", "A": "苹果", "B": "土豆", "C": "白菜", "D": "大米", "answer": "A",
    "explanation": "", "subject": "middle_school_biology",
}  # fmt: skip
TRUTHFULQA = {
    "question": "Can pigs fly?",
    "mc1_targets": {"choices": ["No", "Yes", "Only at night", "Yes"], "labels": [1, 0, 0, 0]},
    "mc2_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
}
BBQ = {
    "example_id": 1, "question_polarity": "neg", "context_condition": "ambig", "subject": "age",
    "context": "I saw two people at the bus stop.", "question": "Who was late?", "ans0": "The first",
    "ans1": "Not enough info", "ans2": "The second", "answer_label": 1,
}  # fmt: skip


def test_mmlu_is_asked_by_letter():
    question = mmlu_question(MMLU)
    assert question.choices == (" A", " B", " C", " D")
    assert question.answer == 2
    assert question.group == "abstract_algebra"
    assert question.context.splitlines() == [
        "Question about abstract algebra: What is the order of the cyclic group Z_6?",
        "A. 2", "B. 3", "C. 6", "D. 12", "Answer:",
    ]  # fmt: skip


def test_ceval_is_asked_in_chinese_and_rows_without_an_answer_are_left_out():
    question = ceval_question(CEVAL)
    assert question.choices == ("A", "B", "C", "D")
    assert question.answer == 0
    assert question.context.endswith("D. 大米\n答案：")
    assert list(questions_of(iter([{**CEVAL, "answer": ""}, CEVAL]), "ceval")) == [question]


def test_truthfulqa_asks_for_the_one_true_answer_and_counts_equal_ones_once():
    question = truthfulqa_question(TRUTHFULQA)
    assert question.choices == (" No", " Yes", " Only at night")
    assert question.answer == 0
    assert question.context == "Q: Can pigs fly?\nA:"
    assert question.chance == 1 / 3


def test_bbq_tells_category_and_condition():
    question = bbq_question(BBQ)
    assert question.choices[question.answer] == " Not enough info"
    assert question.group == "age, ambig"
    assert question.context == "I saw two people at the bus stop.\nQ: Who was late?\nA:"


def test_rows_that_cannot_be_asked_are_left_out_and_a_changed_form_is_named():
    assert list(questions_of(iter([{**BBQ, "ans0": "Not enough info"}, BBQ]), "bbq")) == [bbq_question(BBQ)]
    with pytest.raises(AssetError, match="'mmlu' has no column 'choices', only question, subject"):
        list(questions_of(iter([{"question": "", "subject": "a"}]), "mmlu"))


def test_a_limit_draws_by_seed(monkeypatch):
    rows = [{**MMLU, "question": f"Number {number}?"} for number in range(30)]
    monkeypatch.setattr(hub_benchmarks.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(hub_benchmarks, "_ask_hub", lambda name: None)
    monkeypatch.setattr(hub_benchmarks, "_rows", lambda name: iter(rows))
    assert load_benchmark("mmlu", limit=5) == load_benchmark("mmlu", limit=5)
    assert load_benchmark("mmlu", limit=5) != load_benchmark("mmlu", limit=5, seed=1)
    assert len(load_benchmark("mmlu")) == 30
    with pytest.raises(UnknownName, match="Did you mean 'truthfulqa'"):
        load_benchmark("truthful_qa")


def ask(tmp_path, *, with_datasets, **variables):
    """What a fresh process says to a benchmark; ``datasets`` is there only as a package that loads nothing."""
    if with_datasets:
        (tmp_path / "datasets").mkdir()
        (tmp_path / "datasets" / "__init__.py").write_text(
            "def load_dataset(*a): raise ConnectionError('no copy in the cache.')\n"
            "get_dataset_config_names = load_dataset\n"
        )
    code = (
        "import importlib.util as util\n"
        "real = util.find_spec\n"
        f"util.find_spec = lambda name, *a: real(name, *a) if {with_datasets} or name != 'datasets' else None\n"
        "from workbench.datasets.hub_benchmarks import load_benchmark\n"
        "try: load_benchmark('bbq')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path), **variables}
    environment = {name: value for name, value in environment.items() if value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def test_without_the_library_the_sentence_says_how_to_get_it(tmp_path):
    said = ask(tmp_path, with_datasets=False)
    assert re.fullmatch(r"AssetError benchmark='bbq' needs the package datasets: pip install .*\[paper\].*\.", said)


def test_an_unreachable_hub_is_one_sentence_within_seconds(tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    said = ask(tmp_path, with_datasets=True, HF_ENDPOINT=address, HF_HUB_OFFLINE="", TRANSFORMERS_OFFLINE="")
    assert re.fullmatch(r"AssetError benchmark='bbq' \(Elfsong/BBQ\) cannot be had from .* need no benchmark\.", said)


def test_when_the_hub_is_switched_off_the_librarys_cache_is_asked(tmp_path):
    said = ask(tmp_path, with_datasets=True, HF_HUB_OFFLINE="1")
    assert "(no copy in the cache): check the network" in said


def test_every_benchmark_has_a_place_on_the_hub():
    assert BENCHMARKS == ("mmlu", "ceval", "truthfulqa", "bbq")
