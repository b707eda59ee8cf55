"""Time of the matrix nuclear norm, of the authors' code and of both ways to the entropy, on one matrix."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import pandas as pd
from torch import Tensor

from workbench.metrics.matrix_entropy import matrix_entropy
from workbench.metrics.mnn_reference import reference_matrix_entropy, reference_nuclear_norm
from workbench.metrics.nuclear_norm import matrix_nuclear_norm, normalize_hidden, nuclear_norm

OURS, OFFICIAL, ENTROPY, GRAM, TRUE, READ = (
    "ours", "official nuclear norm", "official entropy", "Gram entropy", "true nuclear norm", "one read",
)  # fmt: skip
IN_A_ROW = 5  # repeats of one call before the next one has its turn


def metric_times(hidden: Tensor, *, fast: int, slow: int, decompose: bool = True) -> pd.DataFrame:
    """Medians of interleaved repeats on ``hidden [tokens, width]``: ``what, repeats, wall_ms, cpu_ms, value``.

    Args:
        fast: repeats of the norms and of reading the matrix.
        slow: repeats of what takes eigenvalues or singular values.
        decompose: whether to time the singular values, too (of the matrix, and the authors' of its covariance).
    """
    normal, tokens = normalize_hidden(hidden), len(hidden)
    quick = {
        OURS: lambda: matrix_nuclear_norm(hidden),
        OFFICIAL: lambda: reference_nuclear_norm(hidden),
        READ: lambda: hidden.sum(),
    }
    long = {GRAM: lambda: matrix_entropy(hidden)}
    if decompose:
        long |= {TRUE: lambda: nuclear_norm(normal, method="svd") / tokens,
                 ENTROPY: lambda: reference_matrix_entropy(hidden)}  # fmt: skip
    return pd.DataFrame(interleaved(quick, repeats=fast) + interleaved(long, repeats=slow))


def interleaved(calls: Mapping[str, Callable[[], Tensor | float]], *, repeats: int) -> list[dict[str, object]]:
    """``what, repeats, wall_ms, cpu_ms`` (medians) and ``value`` of each call; they take turns, so that a slow spell
    of the machine hits all alike."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    values = {name: float(call()) for name, call in calls.items()} if repeats > 1 else {}  # the first pays for memory
    for _ in range(-(-repeats // IN_A_ROW)):
        for name, call in calls.items():
            # Some in a row: the first after another's turn pays for the memory that the other gave back.
            for _ in range(min(IN_A_ROW, repeats)):
                cpu, wall = time.process_time(), time.perf_counter()
                values[name] = float(call())
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return [
        {"what": name, "repeats": len(found), "wall_ms": 1e3 * statistics.median(wall for wall, _ in found),
         "cpu_ms": 1e3 * statistics.median(cpu for _, cpu in found), "value": values[name]}
        for name, found in times.items()
    ]  # fmt: skip
