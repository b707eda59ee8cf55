"""Memory is counted in a process of its own: what is held, what was needed in between, and no more."""

import os
import signal

import numpy as np
import pytest

from workbench.metrics.peak_memory import peak_memory

MIB = 1024**2


def fill(mib):
    return np.ones(mib * MIB, dtype=np.uint8)


def fill_and_drop(mib):
    return len(fill(mib))


def fill_before():
    fill(150)


def fail(word):
    raise ValueError(f"no {word}")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_array_of_80_mib_takes_80_mib_and_what_this_process_holds_does_not_count():
    own = fill(200)
    memory = peak_memory(fill, 80)
    assert memory.peak == pytest.approx(80, abs=8)
    assert memory.held == pytest.approx(80, abs=8)
    assert memory.before < 150 + own.nbytes / MIB
    del own


def test_what_is_dropped_counts_for_the_peak_only():
    memory = peak_memory(fill_and_drop, 80)
    assert memory.peak == pytest.approx(80, abs=8)
    assert memory.held == pytest.approx(0, abs=8)


def test_what_comes_before_does_not_count():
    memory = peak_memory(fill_and_drop, 40, before=fill_before)
    assert memory.peak == pytest.approx(40, abs=8)


def test_an_error_comes_back_and_a_process_that_dies_is_told():
    with pytest.raises(ValueError, match="no memory"):
        peak_memory(fail, "memory")
    with pytest.raises(RuntimeError, match="measured die ended with exit code -9 and no result"):
        peak_memory(die)
