"""Wall and CPU time of ways to do one thing, taken in turn, and the rows of a table about them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

COLUMNS = ["section", "what", "peer", "threads", "wall_ms", "cpu_ms", "ratio", "goal", "reached"]


def interleaved(
    ways: Mapping[str, Callable[[], object]], *, repeats: int, calls: int = 1, warm_up: int = 1
) -> dict[str, tuple[float, float]]:
    """Median ``(wall, cpu)`` milliseconds of one call of each way, over ``repeats`` rounds.

    A round measures every way, ``calls`` calls in a row each. The first of a round and the direction change from
    round to round, so that a slow spell of the machine, and what a neighbour leaves in the caches, hit all alike.
    CPU time is that of all threads of this process: on a shared machine it is the steadier of the two, but threads
    that wait for each other count too.

    Args:
        warm_up: calls of each way before its clock starts, in every round: it then finds its own data in the caches.
    """
    names = list(ways)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for repeat in range(repeats):
        first = repeat % max(1, len(names))
        order = names[first:] + names[:first]
        for name in order if repeat % 2 else reversed(order):
            way = ways[name]
            for _ in range(warm_up):
                way()
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(calls):
                way()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            taken[name].append((1000 * wall / calls, 1000 * cpu / calls))
    return {name: (median(one[0] for one in times), median(one[1] for one in times)) for name, times in taken.items()}


def median(values: Iterable[float]) -> float:
    """The median of some numbers."""
    return statistics.median(values)


def row(
    section: str,
    what: str,
    peer: str,
    threads: int,
    own: tuple[float, float],
    other: tuple[float, float] | None = None,
    *,
    goal: float | None = None,
    by: str = "cpu",
) -> dict[str, object]:
    """One row of a part's table: our ``(wall, cpu)`` milliseconds, and the ratio to the peer's.

    Args:
        goal: largest ratio that counts as reached; None where nothing was promised.
        by: ``cpu`` or ``wall``, which of the two times the ratio is of.
    """
    place = ("wall", "cpu").index(by)
    ratio = None if other is None else own[place] / other[place]
    judged = goal is not None and ratio is not None
    return {
        "section": section, "what": what, "peer": peer, "threads": threads, "wall_ms": own[0], "cpu_ms": own[1],
        "ratio": ratio, "goal": f"<= {goal:g}" if goal is not None else "",
        "reached": ratio <= goal if judged else None,
    }  # fmt: skip
