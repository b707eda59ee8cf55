"""Threads, seeds and devices do what they say and nothing else."""

import pytest
import torch

from workbench import runtime


def test_seeded_blocks_repeat_and_leave_the_global_stream_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    draws = []
    for _ in range(2):
        with runtime.seeded(1):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.equal(torch.rand(3), expected)


def test_the_share_of_a_run_wins_over_what_the_system_grants(monkeypatch):
    monkeypatch.setenv("WORKBENCH_CORES", "3")
    assert runtime.available_cores() == 3
    monkeypatch.delenv("WORKBENCH_CORES")
    assert runtime.available_cores() >= 1


def test_threads_are_given_back_even_after_a_failure():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), runtime.threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_unknown_and_absent_devices_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'cuda'"):
        runtime.device("cude")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="sees none on this machine"):
            runtime.device("cuda")
    assert runtime.device("auto").type in {"cpu", "cuda", "mps"}


def test_measure_sees_the_work_of_the_block():
    with runtime.measure() as cost:
        sum(range(100_000))
    assert cost.wall_seconds > 0
    assert cost.cpu_seconds > 0
    assert cost.peak_mib > 10


def test_deterministic_is_switched_back():
    with runtime.deterministic():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
