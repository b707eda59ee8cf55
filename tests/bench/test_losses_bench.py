"""The benchmark of the losses compares like with like; how fast anything is, is not asked here."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
import torch

from workbench.bench import losses as bench
from workbench.bench.peers import environments, processes
from workbench.bench.peers.eager import EAGER, WITHOUT_ENTROPY, naive_forward_kl
from workbench.bench.peers.goals import with_goals
from workbench.bench.peers.implementations import BETA, OURS, Shape, implementation, make_inputs

SMALL = Shape(tokens=24, vocab=64, width=8)


@pytest.fixture
def no_peers(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))


def test_the_quick_form_measures_what_is_there_and_says_what_is_not(no_peers, monkeypatch, capsys):
    monkeypatch.setattr(bench, "QUICK", SMALL)
    monkeypatch.setattr(bench, "IN_QUICK", ("forward_kl",))
    table = bench.run(quick=True)
    said = capsys.readouterr().out
    assert all(f"{peer.requirement} is not measured" in said for peer in environments.PEERS.values())
    measured = table[~table.implementation.str.startswith("floor")]
    assert set(measured.section) == {"linear", "growth", "logits"}
    assert set(measured.implementation) == {"naive", "eager", "ours", "ours bf16"}
    assert measured.agree.dropna().all()
    assert (measured.cpu_seconds > 0).all()
    assert (table.goal == "").all()  # the goals are those of the full shape


@pytest.mark.parametrize("loss", EAGER)
@pytest.mark.parametrize("width", [SMALL.width, 0])
def test_eager_and_ours_are_the_same_loss_up_to_the_teachers_entropy(loss, width):
    found = []
    for who in ("ours", "eager"):
        inputs = make_inputs(Shape(SMALL.tokens, SMALL.vocab, width))
        value = implementation(f"{who}:{loss}")(inputs)
        value.backward()
        found.append((value.detach(), [one.grad for one in inputs.trained]))
    (ours, own_gradients), (eager, gradients) = found
    torch.testing.assert_close(own_gradients, gradients, atol=1e-6, rtol=1e-4)
    assert loss in WITHOUT_ENTROPY or torch.isclose(ours, eager, rtol=1e-4)


def test_the_naive_form_is_the_forward_kl():
    inputs = make_inputs(SMALL)
    student, teacher = inputs.logits()
    ours = implementation("ours:forward_kl")(inputs)
    torch.testing.assert_close(naive_forward_kl(student, teacher, inputs.mask), ours)
    assert set(BETA) < set(OURS)


def test_a_process_that_fails_is_named_and_the_others_are_measured(capsys):
    table = processes.compare(
        ["ours:forward_kl", "trl:forward_kl"], SMALL, repeats=1, threads=[1], pythons={"trl": sys.executable}
    )
    assert table.implementation.tolist() == ["ours"]
    assert "trl:forward_kl is not measured: ModuleNotFoundError" in capsys.readouterr().out


def test_a_peer_that_cannot_be_had_is_one_sentence(no_peers, monkeypatch, capsys):
    def fail(*args, **options):
        raise subprocess.CalledProcessError(1, "pip", stderr="WARNING: no network\nERROR: No matching distribution\n")

    monkeypatch.setattr(environments, "_pip", fail)
    assert environments.peer_python("liger", install=True) is None
    assert environments.peer_python("liger", install=False) is None
    assert "liger-kernel==0.8.5 is not measured: ERROR: No matching distribution." in capsys.readouterr().out


def test_a_peers_environment_borrows_what_is_installed_here(no_peers, monkeypatch):
    monkeypatch.setattr(environments, "_pip", lambda python, peer: None)
    python = environments.peer_python("liger", install=True)
    code = "import sys, torch; print(sys.prefix, torch.__version__, sep='|')"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert shown == f"{python.parent.parent}|{torch.__version__}"
    assert environments.peer_python("liger", install=False) == python


def row(implementation, *, section="linear", loss="forward_kl", tokens=512, cpu=1.0, mib=200.0, value=1.0):
    return {"section": section, "loss_name": loss, "implementation": implementation, "tokens": tokens, "threads": 1,
            "cpu_seconds": cpu, "wall_seconds": cpu, "peak_mib": mib, "loss": value, "gradient": 1.0}  # fmt: skip


def judged(*rows):
    table = with_goals(pd.DataFrame(rows), Shape(512, 49152, 576), full=True)
    return table.set_index(["section", "loss_name", "implementation"]).reached.to_dict()


def test_each_figure_is_judged_against_its_own_peer():
    jsd = "generalized_jsd"
    reached = judged(
        row("ours", cpu=0.8, mib=251.0),
        row("ours bf16", cpu=0.48, value=1.0009),
        row("naive", cpu=0.99),
        row("ours", loss=jsd, cpu=0.9, mib=250.0),
        row("trl", loss=jsd, cpu=2.0),
        row("liger 64", loss=jsd, cpu=1.4),
        row("liger 128", loss=jsd, cpu=1.6),
        row("ours", section="growth", tokens=4096, mib=262.0),
        row("ours", section="logits", cpu=1.0, mib=60.0),
        row("trl", section="logits", cpu=1.0, mib=100.0),
        row("eager", section="logits", cpu=0.9, mib=900.0),
    )
    linear, logits = ("linear", "forward_kl"), ("logits", "forward_kl")
    assert reached[*linear, "ours"] is False
    assert reached[*linear, "ours bf16"] is True
    assert reached[*linear, "naive"] is False
    assert reached["linear", jsd, "ours"] is True
    assert reached["linear", jsd, "trl"] is True
    assert reached["linear", jsd, "liger 64"] is False  # the best of them, which the goal is about
    assert reached["linear", jsd, "liger 128"] is None
    assert reached["growth", "forward_kl", "ours"] is True
    assert reached[*logits, "trl"] is True
    assert reached[*logits, "eager"] is False
