"""Records of finished runs, and README's table made of them."""

import dataclasses
import json

import pytest

from workbench.runs.records import (
    BEGIN,
    END,
    NO_RECORDS,
    load_records,
    machine_words,
    readme_table,
    record_of,
    update_readme,
    write_records,
)


@pytest.fixture
def record(sample):
    return record_of(sample.papers[0], sample.run("few_digits"))


def test_a_record_holds_each_claim_as_it_came_out_and_no_name_of_this_machine(sample, record):
    run = sample.run("few_digits")
    assert [claim["verdict"] for claim in record["claims"]] == [claim["verdict"] for claim in run.claims]
    assert record["claim"] == "Neighbours need fewer digits than lines do."
    text = json.dumps(record)
    assert "core" in record["machine"]
    assert str(run.folder) not in text
    assert run.provenance["cpu"] not in text


def test_a_failed_run_is_no_record(sample):
    with pytest.raises(ValueError, match="only finished runs"):
        record_of(sample.papers[0], sample.run("breaks_down"))


def test_an_interval_that_does_not_exist_is_null_not_nan(sample):
    run = sample.run("few_digits")
    without = dataclasses.replace(run, claims=[{**run.claims[0], "low": float("nan"), "high": float("nan")}])
    assert json.loads(json.dumps(record_of(sample.papers[0], without), allow_nan=False))["claims"][0]["low"] is None


def test_records_are_written_for_papers_alone_and_read_back(sample, tmp_path):
    written = write_records(tmp_path, of_runs=sample.runs, of_papers=sample.papers)
    assert [path.name for path in written] == ["few_digits.json"]
    assert load_records(tmp_path) == [record_of(sample.papers[0], sample.run("few_digits"))]


def test_a_smaller_run_does_not_replace_the_record_of_a_larger_one(sample, tmp_path):
    quick = sample.run("few_digits")
    full = dataclasses.replace(quick, profile="full", parameters={"profile": "full"})
    write_records(tmp_path, of_runs=[full], of_papers=sample.papers)
    assert write_records(tmp_path, of_runs=[quick], of_papers=sample.papers) == []
    assert load_records(tmp_path)[0]["profile"] == "full"


@pytest.mark.parametrize("change", [{"profile": "smoke"}, {"status": "failed"}, {"parameters": {"seeds": [0, 1]}}])
def test_tests_sizes_failures_and_runs_with_own_parameters_are_not_recorded(sample, tmp_path, change):
    run = dataclasses.replace(sample.run("few_digits"), **change)
    assert write_records(tmp_path, of_runs=[run], of_papers=sample.papers) == []


def test_a_paper_is_a_row_with_its_verdicts_counted_and_its_claims_stand_folded_below(record):
    overview, folded = readme_table([record]).split("<details>")
    lines = overview.strip().splitlines()
    assert len(lines) == 3
    assert "(notebooks/few_digits.ipynb)" in lines[2]
    supported = sum(claim["verdict"] == "supported" for claim in record["claims"])
    assert f"{supported} ✓ supported" in lines[2]
    claims = [line for line in folded.splitlines() if line.startswith("|")]
    assert len(claims) == 2 + len(record["claims"])
    assert "✓ supported" in claims[2]
    for rows in (lines, claims):
        assert len({line.count("|") for line in rows}) == 1


def test_a_bar_or_a_smaller_than_sign_cannot_break_the_table(record):
    record["claims"][0]["statement"] = "KL(p | q) < 1"
    assert "KL(p \\| q) &lt; 1" in readme_table([record])


def test_without_records_the_table_says_so():
    assert readme_table([]) == NO_RECORDS


def test_the_table_is_put_between_the_markers_and_nothing_else_moves(record, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    assert update_readme(readme, records=[record])
    assert readme.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{readme_table([record])}\n{END}\nafter\n"
    assert not update_readme(readme, records=[record])


@pytest.mark.parametrize("text", ["no markers", f"{END} {BEGIN}"])
def test_a_readme_without_markers_is_told_what_it_needs(tmp_path, text):
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="papers:begin"):
        update_readme(tmp_path / "README.md", records=[])


def test_a_machine_is_described_in_words_that_hold_for_many(sample):
    run = sample.run("few_digits")
    told = {"platform": "macOS-15.1-arm64-arm-64bit", "cpu_cores": 8, "gpu": []}
    assert machine_words(dataclasses.replace(run, cores=4, provenance=told)) == "4 CPU cores, no GPU, macOS arm64"
