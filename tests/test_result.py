"""Rows become tables with error bars and the paper's number beside them; claims decide the run."""

import json
from dataclasses import dataclass

import pandas as pd
import pytest

from workbench.claim import Claim
from workbench.errors import ClaimNotSupported
from workbench.metrics.uncertainty import Effect
from workbench.result import Result


@dataclass(frozen=True)
class Config:
    profile: str = "quick"


ROWS = pd.DataFrame({"loss": ["taid", "taid", "skew", "skew"], "seed": [0, 1, 0, 1], "nats": [1.0, 3.0, 5.0, 5.0]})
GOOD = Claim("it holds", Effect.exact(1.0), above=0.0, gating=True)
BAD = Claim("it fails", Effect.exact(-1.0), above=0.0, gating=True)


def test_a_cell_is_the_mean_its_standard_error_and_n():
    table = Result("x", Config(), ROWS).table().set_index("loss")
    assert table.loc["taid", ["mean", "error", "n"]].tolist() == [2.0, 1.0, 2]
    assert table.loc["taid", "ours"] == "2 ± 1"


def test_the_published_value_stands_beside_the_cell_it_belongs_to_and_nowhere_else():
    published = pd.DataFrame(
        {"loss": ["taid"], "measure": ["nats"], "published": [1.9], "source": ["table 1"], "status": ["read"]}
    )
    table = Result("x", Config(), ROWS, published=published).table().set_index("loss")
    assert table.loc["taid", "published"] == 1.9
    assert pd.isna(table.loc["skew", "published"])


def test_a_gating_claim_that_is_not_supported_stops_the_run_and_says_why():
    assert Result("x", Config(), ROWS, claims=[GOOD]).check()["verdict"].tolist() == ["supported"]
    with pytest.raises(ClaimNotSupported, match="it fails: -1, holds if > 0: contradicted"):
        Result("x", Config(), ROWS, claims=[GOOD, BAD]).check()


def test_a_claim_that_does_not_gate_is_shown_as_it_comes_out():
    shown = Result("x", Config(), ROWS, claims=[Claim("it fails", Effect.exact(-1.0), above=0.0)]).check()
    assert shown["verdict"].tolist() == ["contradicted"]


def test_profile_smoke_gives_no_verdicts():
    result = Result("x", Config("smoke"), ROWS, claims=[BAD])
    assert result.check()["verdict"].tolist() == ["not judged"]
    assert result.as_dict()["claims"][0]["verdict"] == "not judged"


def test_saved_rows_and_claims_are_read_back_as_they_were(tmp_path):
    folder = Result("x", Config(), ROWS, curves=ROWS, claims=[GOOD]).save(tmp_path / "run")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "rows.parquet"), ROWS, check_dtype=False)
    saved = json.loads((folder / "result.json").read_text())
    assert saved["config"] == {"profile": "quick"}
    assert saved["claims"][0] | {"n": 1} == GOOD.as_dict()


def test_a_run_in_progress_tells_save_where_to_write(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path / "here"))
    assert Result("x", Config(), ROWS).save() == tmp_path / "here"
    assert (tmp_path / "here" / "rows.parquet").is_file()


def test_judgements_show_a_failing_claim_without_raising():
    judged = Result("x", Config(), ROWS, claims=[GOOD, BAD]).judgements
    assert judged["verdict"].tolist() == ["supported", "contradicted"]
