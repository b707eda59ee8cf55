"""What the machine itself would need: multiplications at its best speed, and arrays that must exist."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import pandas as pd
import torch

from workbench.bench.peers.implementations import IGNORED, Shape
from workbench.runtime import threads as with_threads

ROWS, WORDS = 256, 4096  # of the product that the speed is taken from
NUMBERS = 2**24  # of the arrays that the memory's speed is taken from


def floor(shape: Shape, threads: Sequence[int]) -> pd.DataFrame:
    """Rows ``floor`` (and ``floor bf16``) of the sections ``linear`` and ``logits``, for each number of threads.

    Linear: the student's three products and the teacher's one over the positions that count, at the best speed
    of a matrix product here; memory is the gradients, of the weight and of the hidden states. Logits: reading both
    and writing the gradient at the speed of a copy; memory is the gradient.
    """
    counted = shape.tokens - math.ceil(shape.tokens / IGNORED)
    flops = 2 * counted * shape.vocab * shape.width * 4
    weight, hidden, logits = (
        4 * n / 2**20 for n in (shape.vocab * shape.width, shape.tokens * shape.width, shape.tokens * shape.vocab)
    )
    rows = []
    for count in threads:
        with with_threads(count):
            speed, narrow = (_multiply_per_second(shape.width, dtype) for dtype in (torch.float32, torch.bfloat16))
            copied = _mib_per_second()
        print(
            f"floor, {count} thread{'s' * (count > 1)}: {flops / 1e9:.1f} GFLOP at {speed / 1e9:.0f} GFLOP/s "
            f"(bf16 {narrow / 1e9:.0f}), {weight + hidden:.0f} MiB of gradients; "
            f"logits {3 * logits:.0f} MiB at {copied / 1024:.1f} GiB/s."
        )
        common = {"implementation": "floor", "loss_name": "any", "tokens": shape.tokens, "threads": count}
        rows += [
            common | {"section": "linear", "wall_seconds": flops / speed, "peak_mib": weight + hidden},
            common
            | {"section": "linear", "wall_seconds": flops / narrow, "peak_mib": weight + hidden}
            | {"implementation": "floor bf16"},
            common | {"section": "logits", "wall_seconds": 3 * logits / copied, "peak_mib": logits},
        ]
    table = pd.DataFrame(rows)
    return table.assign(cpu_seconds=table.wall_seconds * table.threads)


def _multiply_per_second(width: int, dtype: torch.dtype) -> float:
    """Floating-point operations a second, the best of ten products, by the CPU time of a thread."""
    left, right = torch.ones(ROWS, width, dtype=dtype), torch.ones(width, WORDS, dtype=dtype)
    out = torch.empty(ROWS, WORDS, dtype=dtype)
    seconds = _best(lambda: torch.mm(left, right, out=out), repeats=10)
    return 2 * ROWS * WORDS * width / seconds


def _mib_per_second() -> float:
    source, target = torch.ones(NUMBERS), torch.empty(NUMBERS)
    return 2 * 4 * NUMBERS / 2**20 / _best(lambda: target.copy_(source), repeats=5)


def _best(call: Callable[[], object], *, repeats: int) -> float:
    call()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append((time.process_time() - start) / torch.get_num_threads())
    return max(min(found), 1e-9)
