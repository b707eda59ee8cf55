"""The process of one implementation: it holds the inputs and evaluates once per line that it reads."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path

import torch
from torch import Tensor

from workbench.bench.peers.implementations import Inputs, Shape, implementation, make_inputs
from workbench.runtime import peak_memory_mib

STATUS = Path("/proc/self/status")
WARM_UP = Shape(tokens=32, vocab=512, width=64)


def main() -> None:
    """``worker NAME TOKENS VOCAB WIDTH``; a line of input is a number of threads, one of output a measurement."""
    name, *sizes = sys.argv[1:]
    shape = Shape(*map(int, sizes))
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # what a peer prints must not get among the measurements
        loss = implementation(name)
        inputs = make_inputs(shape)
        torch.set_num_threads(1)
        _evaluate(loss, make_inputs(Shape(WARM_UP.tokens, WARM_UP.vocab, WARM_UP.width if shape.width else 0)))
        print("{}", file=out, flush=True)
        for line in sys.stdin:
            torch.set_num_threads(int(line))
            print(json.dumps(_measure(loss, inputs)), file=out, flush=True)


def _evaluate(loss: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
    value = loss(inputs)
    value.backward()
    return value


def _measure(loss: Callable[[Inputs], Tensor], inputs: Inputs) -> dict[str, float]:
    for one in inputs.trained:
        one.grad = None
    gc.collect()
    before = _settle()
    cpu, wall = time.process_time(), time.perf_counter()
    value = _evaluate(loss, inputs)
    cost = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    peak = _status("VmHWM") if STATUS.exists() else peak_memory_mib()
    gradient = inputs.student.grad
    return cost | {"peak_mib": peak - before, "loss": value.item(), "gradient": gradient.double().norm().item()}


def _settle() -> float:
    """Give unused memory back, forget the highest mark, and return where the process stands, in MiB.

    Without Linux's counters it is the highest mark so far, and only a process's first evaluation is exact.
    """
    if not STATUS.exists():
        return peak_memory_mib()
    with suppress(AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
