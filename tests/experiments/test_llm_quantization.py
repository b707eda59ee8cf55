"""The paper's protocol: what each step promises, and that bad settings are refused before any training."""

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.experiments import llm_quantization as experiment
from workbench.metrics.quantization import NOT_QUANTISED, one_row_a_variant
from workbench.models.small_lm import ModelSize, small_lm
from workbench.training import TextTask
from workbench.training.quantized_grid import QuantizedGrid
from workbench.training.quantized_tables import by_dimension, layer_means, speed_beside_published


@pytest.fixture(scope="module")
def config():
    return experiment.Config.of("smoke")


@pytest.fixture(scope="module")
def models(config):
    return experiment.train_models(config)


@pytest.fixture(scope="module")
def trained(config, models):
    return experiment.quantize_trained(config, models)


@pytest.fixture(scope="module")
def layers(config, models):
    return experiment.compare_outliers(config, models), experiment.find_sensitive_layers(config, models)


@pytest.fixture(scope="module")
def speed(config, models):
    return experiment.measure_speed(config, models)


@pytest.fixture(scope="module")
def result(config, models, trained, layers, speed):
    nothing = experiment.quantize_pretrained(config)
    grids = experiment.compare_grids(config, models)
    return experiment.conclude(config, trained, nothing, grids, layers[0], speed, layers[1])


def test_every_model_is_seen_in_every_variant_and_as_it_was(config, trained):
    wide = one_row_a_variant(trained.rows)
    names = {variant.name for variant in config.variants} | {NOT_QUANTISED}
    assert set(wide["variant"]) == names
    assert len(wide) == len(config.models) * len(config.seeds) * len(names)
    assert wide[["nats", "perplexity", "accuracy", "cloze", "spelling"]].notna().all(axis=None)
    assert np.allclose(np.exp(wide["nats"]), wide["perplexity"], rtol=0.01)  # a character is a byte, nearly always


def test_rows_are_tidy_and_tell_bits_group_bytes_and_dimension(trained):
    wanted = {
        "variant", "method", "bits", "group", "bits_per_weight", "bytes", "model", "seed", "dimension", "measure",
        "value",
    }  # fmt: skip
    assert wanted <= set(trained.rows.columns)
    assert not trained.rows.duplicated(["model", "seed", "variant", "measure"]).any()
    assert set(trained.rows["dimension"]) == {"knowledge", "efficiency"}
    row = trained.rows.query("variant == 'RTN, 4 bits' and model == '32x1'").iloc[0]
    assert row["group"] == "32"
    assert 4 < row["bits_per_weight"] < 6


def test_the_model_as_it_was_loses_nothing_and_eight_bits_next_to_nothing(trained):
    wide = one_row_a_variant(trained.rows).set_index("variant")
    assert (wide.loc[NOT_QUANTISED, "added"] == 0).all()
    assert wide.loc["RTN, 8 bits", "rise"].abs().max() < 1e-3
    assert wide.loc["RTN, 2 bits", "rise"].mean() > wide.loc["RTN, 4 bits", "rise"].mean()


def test_fewer_bits_take_fewer_bytes_on_one_grid(trained):
    wide = one_row_a_variant(trained.rows)
    for (_, _), some in wide[wide["method"] == "RTN"].groupby(["model", "seed"]):
        assert some.sort_values("bits")["bytes"].is_monotonic_increasing
    assert wide["bits_per_weight"].ge(wide["bits"]).all()


def test_questions_are_the_same_for_all_variants(trained):
    asked = trained.answers.groupby(["model", "seed", "variant", "benchmark"])["question"].apply(tuple)
    assert asked.groupby("benchmark").nunique().eq(1).all()
    shares = trained.answers.groupby(["model", "seed", "variant", "benchmark"])["value"].mean()
    rows = trained.rows.set_index(["model", "seed", "variant", "measure"])["value"]
    assert shares.items()
    for key, share in list(shares.items())[:12]:
        assert rows[key] == pytest.approx(share)


def test_every_layer_is_measured_under_every_grid(config, layers):
    outliers, sensitivity = layers
    assert outliers["layer"].nunique() == 7
    assert outliers.groupby("variant").size().eq(7 * len(config.seeds)).all()
    assert outliers["output_error"].gt(0).all()
    assert set(sensitivity["bits"]) == {*config.bits, 32}
    assert len(layer_means(sensitivity)) == 7 * 5


def test_every_path_is_timed_in_every_round_and_packs_less_than_float32(speed):
    assert speed.groupby(["path", "phase"])["round"].nunique().eq(3).all()
    held = speed.groupby("path")["bytes"].first()
    assert held[experiment.NAIVE] < held[experiment.INT8] < held[experiment.FLOAT32]
    both = speed_beside_published(speed, experiment.reported()["qwen_memory_speed"])
    assert both.groupby("whose")["model"].nunique().tolist() == [4, 1]
    assert both["memory"].gt(0).all()


def test_smoke_judges_nothing_and_every_claim_names_its_source(result):
    assert set(result.check()["verdict"]) == {"not judged"}
    assert all(claim.source for claim in result.claims)
    assert len({claim.statement for claim in result.claims}) == len(result.claims)
    text = " ".join(claim.source for claim in result.claims)
    assert all(f"claim {number}" in text for number in range(1, 6))


def test_what_is_gated_is_exact_or_over_all_seeds(result):
    gating = [claim for claim in result.claims if claim.gating]
    assert gating
    assert all(claim.effect.is_exact or claim.effect.n == len(result.config.seeds) for claim in gating)


def test_a_result_can_be_stored_and_its_table_names_the_variants(result, tmp_path):
    folder = result.save(tmp_path)
    assert len(pd.read_parquet(folder / "rows.parquet")) == len(result.rows)
    assert set(pd.read_parquet(folder / "curves.parquet")["part"]) == {"grids", "outliers", "speed", "layers"}
    assert {"nats", "bits_per_weight"} <= set(result.table()["measure"])


def test_adjacent_tables_say_what_the_claims_say_of_them():
    tables = experiment.reported()
    assert set(tables) == {
        "gptq_wikitext2", "llama_cpp_70b", "qwen2_average", "qwen_chat_benchmarks", "qwen_memory_speed",
    }  # fmt: skip
    chat = tables["qwen_chat_benchmarks"].query("benchmark == 'MMLU'").set_index(["model", "precision"])["score"]
    assert chat["Qwen-14B-Chat", "Int4"] == 63.3
    falls = tables["llama_cpp_70b"].sort_values("bits")["perplexity"]
    assert falls.is_monotonic_decreasing
    assert not any("2402.16775" in table["source"].iloc[0] for table in tables.values())  # none is the paper's own


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A tiny Llama of its own vocabulary in a folder stands for a pretrained model, so that it is quick."""
    folder = tmp_path_factory.mktemp("real") / "tiny"
    text = TextTask(vocabulary=300).prepare()
    small_lm(text.vocab_size, ModelSize(32, 1, 2, 64), context=512, seed=5).save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    config = experiment.Config.of(
        "smoke", pretrained=(str(folder),), pretrained_methods=("rtn:4", "rtn:2", "gptq", "gptq_16:2", "spqr:2"),
        pretrained_questions=4, pretrained_tokens=32,
    )  # fmt: skip
    return config, experiment.quantize_pretrained(config)


def test_a_pretrained_model_is_judged_over_three_dimensions(real):
    _, grid = real
    assert set(grid.rows["dimension"]) == {"knowledge", "alignment", "efficiency"}
    asked = {"text", "cloze", "next word", "truth", "stereotype", "instructions"}
    assert set(grid.answers["benchmark"]) == asked
    assert grid.answers.groupby(["variant", "benchmark"]).size().groupby("benchmark").nunique().eq(1).all()
    wide = one_row_a_variant(grid.rows)
    assert wide.loc[wide["variant"] == "RTN, 2 bits", "added"].abs().item() > 0
    table = by_dimension(grid)
    shares = table[table["measure"].isin(["truth", "cloze"])]
    assert ((shares["low"] <= shares["value"]) & (shares["value"] <= shares["high"])).all()
    assert set(table.query("dimension == 'efficiency'")["measure"]) == {"MB, all weights"}


def test_few_questions_make_no_claim_but_windows_do(real, trained, layers, speed, result, models):
    config, grid = real
    grids = experiment.compare_grids(config, models)
    both = experiment.conclude(config, trained, grid, grids, layers[0], speed, layers[1])
    new = [claim.statement for claim in both.claims if claim.statement not in {c.statement for c in result.claims}]
    assert any("at 4 bits keeps the loss" in statement for statement in new)
    assert any(statement.startswith("Pretrained: SpQR, 2 bits") for statement in new)
    assert not any("truth" in statement and "paired" in statement for statement in new)
    assert len(both.rows) > len(result.rows)


def test_without_a_pretrained_model_its_step_does_nothing(config):
    nothing = experiment.quantize_pretrained(config)
    assert isinstance(nothing, QuantizedGrid)
    assert nothing.rows.empty
    assert by_dimension(nothing).empty


def test_the_shipped_weights_lie_on_their_own_grid_and_on_no_other(models):
    grids = experiment.compare_grids(experiment.Config.of("smoke", pretrained=("smollm2-135m",)), models)
    shipped = grids[grids["model"] == "smollm2-135m"].set_index("grid")["relative_error"]
    assert shipped["4 bits, groups of 32, float zero"] < 1e-9
    assert shipped.drop("4 bits, groups of 32, float zero").min() > 1e-3
    here = grids[grids["model"] != "smollm2-135m"]
    assert here["relative_error"].min() > 1e-3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"methods": ("rtn", "gptq", "spqr")}, "lack .*gptq_16:2"),
        ({"methods": ("rtn", "gptq", "spqr", "gptq_16", "gtpq_row")}, "Did you mean 'gptq_row'"),
        ({"methods": ("rtn", "gptq", "spqr", "gptq_16", "nf4:3")}, r"defined at \(4,\) bits, got 3"),
        ({"methods": ("rtn", "gptq", "spqr", "gptq_16", "rtn:x")}, "such as 'rtn:4'"),
        ({"bits": (8, 4, 3)}, "lack .*rtn:2"),
        ({"models": ("64x2",)}, "at least two rising"),
        ({"models": ("64x2", "32x2")}, "rising"),
        ({"seeds": ()}, "seeds"),
        ({"training_steps": 0}, "training_steps"),
        ({"pretrained": ("smollm2-135m",), "pretrained_methods": ("gptq",)}, "add 'rtn'"),
        ({"pretrained_questions": -1}, "pretrained_questions"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(override, message):
    with pytest.raises(ValueError, match=message):
        experiment.Config.of("smoke", **override)


def test_paper_says_in_one_sentence_what_is_missing(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: nothing is missing")
    with pytest.raises(Exception, match="lacks here: a GPU"):
        experiment.train_models(experiment.Config.of("paper"))
