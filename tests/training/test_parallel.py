"""Tasks over processes: order, equality with one process, errors and stopping."""

import os

import pytest
import torch

from workbench.training import run_tasks


def gaussian_sum(seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 300, 300, generator=generator)
    return (a @ b).sum().item(), torch.get_num_threads()


def fail_at_two(number):
    if number == 2:
        raise ValueError(f"number {number} cannot be done: choose another.")
    return number


def where(_task):
    return os.getpid()


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setenv("WORKBENCH_CORES", "2")
    monkeypatch.setenv("TQDM_DISABLE", "1")


def test_one_and_two_processes_give_the_same_bits_in_the_order_of_the_tasks_with_one_thread():
    torch.set_num_threads(2)
    one, two = (run_tasks(gaussian_sum, list(range(5)), cores=cores) for cores in (1, 2))
    assert one == two
    assert [count for _, count in one] == [1] * 5
    assert torch.get_num_threads() == 2


def test_one_core_works_in_this_process_and_never_more_processes_than_cores(monkeypatch):
    assert run_tasks(where, [0, 1], cores=1) == [os.getpid()] * 2
    pids = run_tasks(where, list(range(6)), cores=64)
    assert os.getpid() not in pids
    assert len(set(pids)) <= 2
    monkeypatch.setenv("WORKBENCH_CORES", "1")
    assert run_tasks(where, [0, 1], cores=64) == [os.getpid()] * 2


@pytest.mark.parametrize("cores", [1, 2])
def test_the_error_of_a_task_reaches_the_caller(cores):
    with pytest.raises(ValueError, match="number 2 cannot be done: choose another"):
        run_tasks(fail_at_two, [0, 1, 2, 3], cores=cores)


@pytest.mark.parametrize("cores", [1, 2])
def test_stopping_keeps_what_is_done_and_begins_nothing_new(cores):
    seen = []
    found = run_tasks(
        fail_at_two, list(range(5, 305)), cores=cores, stop=lambda: len(seen) >= 2,
        on_done=lambda index, outcome: seen.append((index, outcome)),
    )  # fmt: skip
    assert all(found[index] == outcome for index, outcome in seen)
    assert found.count(None) == 300 - len(seen) > 0


def test_no_task_is_no_work_and_no_core_is_refused():
    assert run_tasks(fail_at_two, []) == []
    with pytest.raises(ValueError, match="cores"):
        run_tasks(fail_at_two, [1], cores=0)
