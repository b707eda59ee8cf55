"""Pretrained students and teachers: the same rows as the grid of small models, from models on disk."""

import shutil

import pandas as pd
import pytest

from workbench.errors import UnknownName
from workbench.models.pretrained import find_pretrained
from workbench.models.small_lm import named_size
from workbench.training import (
    CROSS_ENTROPY,
    Objective,
    TextTask,
    are_pretrained,
    distil_grid,
    distil_pretrained,
    measure_pretrained,
    pretrained_cell,
    train_ladder,
)

CONTEXT = 16
KL = Objective("forward_kl", "forward_kl")
TAID = Objective("taid", "taid", (("t_start", 0.4), ("alpha", 0.1)))
SMALL = {"steps": 4, "batch_size": 4, "context": CONTEXT, "held_out": 1, "evaluation_windows": 32}


@pytest.fixture(scope="module")
def trained(plays, tmp_path_factory):
    """Three small models of the plays, and folders of them with their tokenizer, as people keep their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        task = TextTask(corpus=str(plays), context=CONTEXT, held_out=1)
        models = train_ladder([named_size(name) for name in ("16x1", "32x1", "48x2")], task, steps=30, cores=1)
        home = tmp_path_factory.mktemp("models")
        for model in models:
            save(home / model.name, model.load(), task.prepare().tokenizer)
    return {model.name: (str(home / model.name), model) for model in models}


@pytest.fixture
def small(trained, plays, tmp_path, monkeypatch):
    """The folders by name, with an empty data folder."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    return {name: folder for name, (folder, _) in trained.items()}


def save(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def loaded(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def without_time(grid):
    return grid.rows.drop(columns="seconds")


def test_the_rows_have_the_columns_of_the_grid_of_small_models(small, trained, plays):
    objectives = [CROSS_ENTROPY, KL, TAID]
    found = distil_pretrained([small["32x1"]], [small["16x1"]], objectives, [0, 1], str(plays), lr=1e-3, **SMALL)
    task = TextTask(corpus=str(plays), context=CONTEXT, held_out=1)
    other = distil_grid([trained["32x1"][1]], [named_size("16x1")], objectives, [0], task, steps=2, cores=1)
    assert list(found.rows) == list(other.rows)
    assert list(found.curves) == list(other.curves)
    assert len(found.rows) == 6
    row = found.rows[found.rows["objective"] == "taid"].iloc[0]
    assert (row["teacher"], row["student"], row["init"]) == ("32x1", "16x1", "given")
    assert row["teacher_parameters"] == trained["32x1"][1].parameters
    assert row["student_parameters_without_embeddings"] == trained["16x1"][1].parameters_without_embeddings
    assert row["ratio"] == row["teacher_parameters"] / row["student_parameters"]
    assert found.rows.loc[found.rows["teacher"] == "none", "objective"].tolist() == ["cross_entropy"] * 2
    assert found.rows.drop(columns=["teacher"])[found.rows["teacher"] != "none"].notna().all(axis=None)
    assert set(found.curves.loc[found.curves["objective"] == "taid", "quantity"]) == {"loss", "t"}


def test_a_pretrained_model_measures_as_it_did_when_it_was_trained(small, trained, plays):
    names = list(small.values())
    found = measure_pretrained(names, str(plays), context=CONTEXT, held_out=1, evaluation_windows=512)
    for model, (_, known) in zip(found, trained.values(), strict=True):
        assert model.name == known.name
        assert model.parameters == known.parameters
        # An end of text is added to the play: one token in forty thousand.
        assert model.held_out_nats == pytest.approx(known.held_out_nats, abs=0.02)


def test_equal_seeds_give_equal_students_and_other_seeds_other_ones(small, plays):
    def students(seeds):
        return distil_pretrained([small["32x1"]], [small["16x1"]], [KL], seeds, str(plays), lr=1e-3, **SMALL)

    both = without_time(students([0, 1]))
    pd.testing.assert_frame_equal(both, without_time(students([0, 1])))
    assert both["nats"].nunique() == 2


def test_a_batch_computed_in_parts_trains_the_same_student(small, plays, monkeypatch):
    def student():
        objectives = [KL, TAID]
        return distil_pretrained([small["32x1"]], [small["16x1"]], objectives, [0], str(plays), lr=1e-3, **SMALL)

    whole = student()
    monkeypatch.setattr(pretrained_cell, "LARGEST_LOGITS", 1)
    parts = student()
    pd.testing.assert_frame_equal(without_time(whole), without_time(parts), rtol=1e-4)


def test_who_learns_from_itself_stays_as_it_is(small, plays):
    found = distil_pretrained([small["32x1"]], [small["32x1"]], [KL], [0], str(plays), lr=1e-3, **SMALL)
    assert found.rows["kl_to_teacher"].item() == pytest.approx(0, abs=1e-5)
    assert found.rows["nats"].item() == pytest.approx(found.rows["teacher_nats"].item(), abs=1e-5)


def test_a_given_student_starts_better_than_a_random_one_of_its_shape(small, plays):
    nats = {}
    for init in ("given", "random"):
        grid = distil_pretrained([small["32x1"]], [small["16x1"]], [KL], [0], str(plays), lr=1e-4, init=init, **SMALL)
        nats[init] = grid.rows["nats"].item()
    assert nats["given"] < nats["random"] - 0.2


def test_pruned_students_come_from_larger_teachers_only(small, plays):
    names = list(small.values())
    found = distil_pretrained(
        names, names[:2], [CROSS_ENTROPY, KL], [0], str(plays), lr=1e-4, init="pruned", **SMALL
    ).rows
    pulled = found[found["objective"] == "forward_kl"]
    assert set(zip(pulled["teacher"], pulled["student"], strict=True)) == {
        ("32x1", "16x1"), ("48x2", "16x1"), ("48x2", "32x1"),
    }  # fmt: skip
    assert set(pulled["init"]) == {"pruned"}
    assert set(found.loc[found["teacher"] == "none", "init"]) == {"random"}
    with pytest.raises(ValueError, match=r"no pair .*48x2 from 16x1.*larger"):
        distil_pretrained(names[:1], names[2:], [KL], [0], str(plays), lr=1e-4, init="pruned", **SMALL)


def test_bfloat16_comes_near_to_float32(small, plays):
    nats = {}
    for precision in ("float32", "bfloat16"):
        grid = distil_pretrained(
            [small["48x2"]], [small["16x1"]], [KL], [0], str(plays), lr=1e-3, init="pruned", precision=precision,
            **SMALL,
        )  # fmt: skip
        nats[precision] = grid.rows["nats"].item()
    assert nats["bfloat16"] == pytest.approx(nats["float32"], abs=0.02)


def test_padding_of_a_vocabulary_changes_nothing(small, plays, tmp_path):
    model, tokenizer = loaded(small["32x1"])
    model.resize_token_embeddings(len(tokenizer) + 7)
    padded = save(tmp_path / "padded", model, tokenizer)
    plain, cut = measure_pretrained([small["32x1"], padded], str(plays), context=CONTEXT, held_out=1)
    assert cut.held_out_nats == plain.held_out_nats
    assert cut.parameters == plain.parameters + 7 * 32  # as it was published


def test_models_of_other_builds_than_llama_teach_each_other(small, plays, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    _, tokenizer = loaded(small["16x1"])
    neox = GPTNeoXConfig(
        vocab_size=len(tokenizer) + 5, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=CONTEXT, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    gpt2 = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=CONTEXT, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    large = save(tmp_path / "neox", GPTNeoXForCausalLM(neox), tokenizer)  # like Pythia: untied, padded
    slim = save(tmp_path / "gpt2", GPT2LMHeadModel(gpt2), tokenizer)
    for init in ("given", "random"):
        grid = distil_pretrained([large], [slim], [KL], [0], str(plays), lr=1e-3, init=init, **SMALL)
        assert grid.rows[["nats", "kl_to_teacher", "teacher_nats"]].notna().all(axis=None)
    with pytest.raises(ValueError, match="no pair .*another build than the Llama"):
        distil_pretrained([large], [slim], [KL], [0], str(plays), lr=1e-3, init="pruned", **SMALL)


def test_a_student_whose_loss_is_lost_has_no_nats_and_the_grid_goes_on(small, plays):
    broken = {**SMALL, "steps": 8}
    grid = distil_pretrained([small["32x1"]], [small["16x1"]], [KL, CROSS_ENTROPY], [0], str(plays), lr=1e35, **broken)
    assert len(grid.rows) == 2
    assert grid.rows["nats"].isna().all()


def test_students_learn_only_from_the_windows_they_are_given(small, plays, monkeypatch):
    seen = []
    real = pretrained_cell.fit
    monkeypatch.setattr(
        pretrained_cell, "fit", lambda model, batches, *a, **k: real(model, map(note(seen), batches), *a, **k)
    )
    distil_pretrained([], [small["16x1"]], [CROSS_ENTROPY], [0], str(plays), lr=1e-3, transfer_windows=2, **SMALL)
    assert 1 <= len({tuple(window.tolist()) for batch in seen for window in batch}) <= 2


def note(seen):
    def noted(batch):
        seen.append(batch)
        return batch

    return noted


def test_different_vocabularies_are_refused_before_anything_is_trained(small, plays, tmp_path):
    task = TextTask(corpus=str(plays), vocabulary=300, context=CONTEXT, held_out=1)
    (other,) = train_ladder([named_size("16x1")], task, steps=1, cores=1)
    folder = save(tmp_path / "other", other.load(), task.prepare().tokenizer)
    with pytest.raises(ValueError, match="different vocabularies .*300 tokens.*share one tokenizer"):
        distil_pretrained([small["32x1"]], [folder], [KL], [0], str(plays), lr=1e-3, **SMALL)


def test_what_cannot_work_is_refused_at_the_door(small, plays):
    pair = ([small["32x1"]], [small["16x1"]], [KL], [0], str(plays))
    with pytest.raises(ValueError, match="context=17 is more than the 16 tokens"):
        distil_pretrained(*pair, lr=1e-3, **{**SMALL, "context": 17})
    with pytest.raises(UnknownName, match="init"):
        distil_pretrained(*pair, lr=1e-3, init="fresh", **SMALL)
    with pytest.raises(ValueError, match="seeds holds 0 twice"):
        distil_pretrained(*pair[:3], [0, 0], str(plays), lr=1e-3, **SMALL)
    with pytest.raises(ValueError, match="students is empty"):
        distil_pretrained(pair[0], [], [KL], [0], str(plays), lr=1e-3, **SMALL)
    with pytest.raises(UnknownName, match="smollm2-135m"):
        distil_pretrained(["smolm2-135m"], pair[1], [KL], [0], str(plays), lr=1e-3, **SMALL)


def test_models_to_train_and_pretrained_ones_are_told_apart_by_their_names(small):
    assert not are_pretrained(["16x1", "64x2"])
    assert are_pretrained([small["16x1"], "smollm2-135m", "someone/something"])
    with pytest.raises(ValueError, match="'16x1' is a size .*'someone/something' a pretrained model"):
        are_pretrained(["16x1", "someone/something"])
    with pytest.raises(UnknownName, match="neither a size .*nor a folder"):
        are_pretrained(["64y2"])
    with pytest.raises(ValueError, match="multiple of"):
        are_pretrained(["50x1"])


def test_smollm2_teaches_a_student_that_was_pruned_from_it(plays, tmp_path, monkeypatch):
    source = find_pretrained("smollm2-135m")
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source)
    config.hidden_size, config.num_hidden_layers, config.intermediate_size = 144, 2, 128
    shape = tmp_path / "slim"
    config.save_pretrained(shape)  # of a student that is cut out of its teacher only the shape is read
    for file in source.glob("*token*"):
        shutil.copy(file, shape)
    found = distil_pretrained(
        [str(source)], [str(shape)], [KL], [0], str(plays), steps=1, batch_size=2, context=16, lr=1e-4,
        init="pruned", evaluation_windows=2, calibration_batches=1, held_out=1,
    ).rows.iloc[0]  # fmt: skip
    assert found["teacher_parameters"] == 134_515_008
    assert found["student_parameters"] < 134_515_008 / 10
    assert (
        0.5 < found["teacher_nats"] < 2.5 < found["nats"]
    )  # it knows Shakespeare; the cut-down student knows nothing yet
    assert 0 < found["kl_to_teacher"] < float("inf")
