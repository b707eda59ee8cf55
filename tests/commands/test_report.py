"""The command ``report``."""

from workbench.__main__ import main
from workbench.runs import records


def test_report_writes_a_gallery_where_it_is_told_and_prints_its_path(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    assert main(["report", "--to", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    assert (tmp_path / "out" / "shared" / "plotly.min.js").is_file()


def test_report_without_a_folder_writes_into_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    assert main(["report"]) == 0
    assert (tmp_path / "data" / "gallery" / "index.html").is_file()


def test_the_readme_table_is_that_of_the_records_on_file(capsys):
    assert main(["report", "--readme-table"]) == 0
    assert capsys.readouterr().out.strip() == records.readme_table(records.load_records())
