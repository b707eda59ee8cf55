"""A real teacher: the students' numbers are what transformers would say of the same models, and its errors."""

import math

import pytest
import torch

from workbench.metrics.language import held_out_scores, log_probabilities
from workbench.models.small_lm import ModelSize, llama, small_lm
from workbench.training import TextTask
from workbench.training.batches import fixed_windows
from workbench.training.objective import Objective, named_objectives
from workbench.training.real_teacher import TOP_K_OBJECTIVE, distil_real_teacher
from workbench.training.samples import write_samples

STUDENT = ModelSize(16, 1, 1)
RECIPE = {"steps": 6, "student": STUDENT, "context": 16, "batch_size": 2, "evaluation_windows": 8, "held_out": 1,
          "record_every": 2, "sample_tokens": 4, "cores": 1}  # fmt: skip


def objectives(*names):
    return [*named_objectives(names, steps=6), TOP_K_OBJECTIVE]


@pytest.fixture
def teacher(task, tmp_path):
    """An untied Llama in bytes and pairs of them, as somebody's own folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    text = TextTask(corpus=task.corpus, vocabulary=300, context=16, held_out=1).prepare()
    torch.manual_seed(4)
    config = LlamaConfig(vocab_size=text.vocab_size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=48, max_position_embeddings=64, tie_word_embeddings=False)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "own")
    text.tokenizer.save_pretrained(tmp_path / "own")
    return str(tmp_path / "own")


@pytest.fixture
def found(teacher, task):
    names = objectives("cross_entropy", "forward_kl", "taid", "generalized_jsd")
    return distil_real_teacher(teacher, task.corpus, names, [0, 1], precision="float32", **RECIPE)


def test_there_is_a_row_for_every_student_and_a_seed_moves_all_of_its_numbers(found):
    rows = found.rows
    assert {tuple(seeds) for seeds in rows.groupby("objective")["seed"].apply(list)} == {(0, 1)}
    assert set(rows["objective"]) == {"cross_entropy", "forward_kl", "taid", "generalized_jsd", "topk_kl"}
    assert rows.groupby("objective")["nats"].nunique().eq(2).all()
    assert (rows["perplexity"] - rows["nats_per_token"].map(math.exp)).abs().max() < 1e-9
    assert set(found.curves.query("quantity == 't'")["objective"]) == {"taid"}
    assert found.table()["model"].iloc[0] == "own"


def test_the_same_call_gives_the_same_numbers_from_the_answers_on_disk(teacher, task, found, monkeypatch):
    from workbench.training import teacher_cache

    def never(*_args):
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr(teacher_cache, "ask", never)
    again = distil_real_teacher(
        teacher, task.corpus, objectives("cross_entropy", "forward_kl", "taid", "generalized_jsd"), [0, 1],
        precision="float32", **RECIPE,
    )  # fmt: skip
    assert again.rows.drop(columns="seconds").equals(found.rows.drop(columns="seconds"))
    assert again.samples.equals(found.samples)


def test_the_numbers_are_those_of_the_plain_way(teacher, task, monkeypatch):
    """The student as transformers has it, the teacher's logits in full, and the metric of the grids."""
    from transformers import LlamaForCausalLM

    from workbench.training import real_teacher
    from workbench.training.pretrained_text import find_family, prepare_pretrained

    kept = {}

    def keep(weights, size, context):
        kept["student"] = llama(weights, size, context=context)
        return kept["student"]

    monkeypatch.setattr(real_teacher, "llama", keep)
    rows = distil_real_teacher(
        teacher, task.corpus, named_objectives(["forward_kl"], steps=6), [0], precision="float32", **RECIPE
    ).rows
    text = prepare_pretrained(find_family([teacher], context=16), task.corpus, context=16, held_out=1)
    windows = fixed_windows(text.held_out, context=16, count=8)
    large = LlamaForCausalLM.from_pretrained(teacher).eval()
    wanted = held_out_scores(
        kept["student"], windows, bytes_per_token=text.bytes_per_token,
        teacher_log_probs=log_probabilities(large, windows),
    )  # fmt: skip
    for name in ("nats", "nats_per_token", "kl_to_teacher", "reverse_kl_to_teacher"):
        assert rows[name].item() == pytest.approx(wanted[name], rel=5e-3)  # answers are kept in bfloat16
    own = held_out_scores(large, windows, bytes_per_token=text.bytes_per_token)
    assert rows["teacher_nats"].item() == pytest.approx(own["nats"], rel=5e-3)


def test_longer_training_brings_students_nearer_to_the_teacher(teacher, task):
    def distance(steps):
        names = [Objective("forward_kl", "forward_kl"), TOP_K_OBJECTIVE]
        return distil_real_teacher(
            teacher, task.corpus, names, [0], **{**RECIPE, "steps": steps, "transfer_windows": 64}
        ).rows.set_index("objective")["kl_to_teacher"]

    few, many = distance(2), distance(60)
    assert (many < 0.9 * few).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": [Objective("tv", "total_variation")]}, "objective='total_variation' is not one of"),
        ({"objectives": []}, "at least one entry"),
        ({"context": 100}, "context=100 is more than the 64 tokens"),
        ({"teacher": "minilmm"}, "Did you mean 'minilm'"),
    ],
)
def test_what_cannot_work_is_refused_before_the_teacher_is_asked(teacher, task, changes, message):
    arguments = {"teacher": teacher, "corpus": task.corpus, "objectives": objectives("taid"), "seeds": [0], **RECIPE}
    with pytest.raises(ValueError, match=message):
        distil_real_teacher(**{**arguments, **changes})


def test_samples_are_repeatable_and_greedy_ones_are_the_models_likeliest(task):
    text = task.prepare()
    model = small_lm(text.vocab_size, STUDENT, context=32, seed=0).eval()
    one, two = (write_samples({"m": model}, text.tokenizer, ["To be"], tokens=5) for _ in range(2))
    assert one.equals(two)
    greedy = one.query("way == 'greedy'")["text"].item()
    tokens = text.tokenizer("To be", return_tensors="pt", add_special_tokens=False).input_ids
    for _ in range(5):
        tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], dim=1)
    assert text.tokenizer.decode(tokens[0, -5:]) == greedy
    with pytest.raises(ValueError, match="has no token"):
        write_samples({"m": model}, text.tokenizer, [""])
