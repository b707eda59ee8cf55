from workbench.__main__ import main
from workbench.commands import bench


def test_a_benchmark_that_breaks_does_not_keep_the_others_from_being_measured(tmp_path, monkeypatch, capsys):
    import workbench.bench

    (tmp_path / "breaks.py").write_text('"""Breaks."""\ndef run(quick=False):\n    raise RuntimeError("as asked")\n')
    (tmp_path / "works.py").write_text(
        '"""Works."""\nimport pandas as pd\n\n\ndef run(quick=False):\n    return pd.DataFrame({"quick": [quick]})\n'
    )
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(workbench.bench, "__path__", [str(tmp_path)])
    assert main(["bench", "all", "--quick"]) == 1
    shown = capsys.readouterr()
    assert "works: Works." in shown.out
    assert "True" in shown.out
    assert "as asked" in shown.err
    assert main(["bench"]) == 0
    assert capsys.readouterr().out.split() == ["breaks", "works"]
