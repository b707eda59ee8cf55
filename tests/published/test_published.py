"""Every published number says where it was read and how sure we are."""

import numpy as np
import pytest

from workbench import published

STEMS = sorted(path.name for path in published.FOLDER.iterdir() if path.is_dir() and not path.name.startswith("_"))
TABLES = [(stem, table) for stem in STEMS for table in published.tables(stem)]


@pytest.mark.parametrize(("stem", "table"), TABLES)
def test_each_row_carries_its_source_and_a_known_status(stem, table):
    rows = published.load(stem, table)
    assert rows["source"].str.len().gt(10).all()
    assert set(rows["status"]) <= set(published.STATUSES)


@pytest.mark.parametrize("stem", STEMS)
def test_each_paper_says_where_its_numbers_come_from(stem):
    assert (published.FOLDER / stem / "SOURCES.md").read_text().startswith("# Where these numbers come from")


def test_an_unknown_table_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'law_fit'"):
        published.load("capacity_gap", "law_fits")


def test_the_average_column_of_taids_table_2_is_the_mean_of_its_six_benchmarks():
    table = published.load("taid", "table2_continued_pretraining_openllm").set_index("method")
    benchmarks = table.drop(columns=["Average", "source", "status"])
    for method in ("SFT", "KL", "TAID"):
        assert np.isclose(benchmarks.loc[method].mean(), table.loc[method, "Average"], atol=0.011)
