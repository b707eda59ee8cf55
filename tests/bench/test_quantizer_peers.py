"""The comparison with peer packages, as far as it goes without them."""

from __future__ import annotations

import torch

from workbench.bench.peers.environments import QUANTIZER_PEERS
from workbench.bench.quantizer_parts import peers
from workbench.bench.quantizer_parts.peer_worker import PARTS, agreement, distance, share


def test_peers_that_are_not_installed_are_named_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    found = peers.measure(quick=True, threads=1)
    assert found.empty
    assert {"section", "what", "peer", "threads", "wall_ms", "cpu_ms", "ratio", "goal", "reached"} <= set(found)
    said = capsys.readouterr().out.splitlines()
    assert all(peer.requirement in line for peer, line in zip(QUANTIZER_PEERS.values(), said, strict=True))


def test_every_peer_has_an_environment_and_a_part():
    assert set(QUANTIZER_PEERS) == set(PARTS)


def test_agreement_is_judged_by_what_is_asked():
    ours, theirs = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 5])
    assert share(ours, theirs) == 0.75
    assert distance(ours.double(), theirs.double()) == 1 / 5
    assert agreement("codes", share(ours, theirs), at_least=0.99)["reached"] is False
    assert agreement("values", distance(ours.float(), theirs.float()), at_most=0.2 + 1e-6)["reached"] is True
