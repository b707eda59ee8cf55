"""A small task of real text, one play for training and one held out, in a data folder of its own."""

import pytest
import torch

from workbench.datasets.corpus import load_corpus
from workbench.training import TextTask


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plays(tmp_path_factory):
    """A folder of three plays, cut short."""
    folder = tmp_path_factory.mktemp("plays")
    for number, document in enumerate(load_corpus("shakespeare").documents[:3]):
        (folder / f"play{number}.txt").write_text(document.text[:40_000], encoding="utf-8")
    return folder


@pytest.fixture
def task(plays, tmp_path, monkeypatch):
    """Characters of those plays; whatever is cached lies in this test's own folder."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    return TextTask(corpus=str(plays), context=16, held_out=1)
