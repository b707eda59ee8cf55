"""Codes and values beside those of bitsandbytes, hqq and torchao, each in an environment of its own, and times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

import workbench
from workbench.bench.peers.environments import QUANTIZER_PEERS, peer_python
from workbench.runtime import generator

LAYER = "model.layers.2.mlp.gate_proj"  # of SmolLM2-135M, 1536 x 576, for the matrices and for their real inputs
TEXT = (
    "The first railways drawn by steam were laid between mines and rivers. Their wagons carried coal, and later "
    "passengers who paid by the mile. Within thirty years every large town in England could be reached by rail, and "
    "fish from the coast was sold inland on the day it was caught."
)
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
SECONDS = 900.0  # for one peer's measurements; they take well below two minutes


def measure(quick: bool, threads: int) -> pd.DataFrame:
    """One row per comparison: how far codes and values agree, or both times, taken in turn in the peer's process.

    Matrices: one of SmolLM2, whose values lie on a grid of their own (many ties), a normal and a heavy-tailed one.
    A peer that is not installed and cannot be is left out after a printed sentence; ``quick`` installs none.

    Columns: ``section, what, peer, threads, wall_ms, cpu_ms`` (ours)``, ratio`` (our CPU time, or drift, in
    parts of the peer's)``, value`` (share of equal codes, or the largest difference)``, goal, reached``.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        matrices = Path(folder) / "matrices.safetensors"
        for name in QUANTIZER_PEERS:
            python = peer_python(name, install=not quick)
            if python is None:
                continue
            if not matrices.exists():
                save_file(make_matrices(), matrices)
            rows += _from_worker(python, name, matrices, quick, threads)
    columns = ["section", "what", "peer", "threads", "wall_ms", "cpu_ms", "ratio", "value", "goal", "reached"]
    return pd.DataFrame(rows, columns=columns)


def make_matrices() -> dict[str, Tensor]:
    """Weights by name, and ``inputs``: what the layer of SmolLM2 gets from a short text."""
    from workbench.models.pretrained import load_pretrained

    model, tokenizer = load_pretrained("smollm2-135m")
    linear, seen = model.get_submodule(LAYER), []
    handle = linear.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0][0]))
    with torch.no_grad():
        model(tokenizer(TEXT, return_tensors="pt").input_ids)
    handle.remove()
    stream = generator(0)
    normal = torch.randn(256, 512, generator=stream)
    heavy = torch.randn(256, 512, generator=stream) / torch.rand(256, 512, generator=stream).clamp(min=0.05).sqrt()
    return {
        "SmolLM2": linear.weight.detach().contiguous(),
        "normal": 0.02 * normal,
        "heavy tails": 0.03 * heavy,
        "inputs": seen[0].contiguous(),
    }


def _from_worker(python: Path, name: str, matrices: Path, quick: bool, threads: int) -> list[dict[str, object]]:
    home = str(Path(workbench.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    command = [str(python), "-m", "workbench.bench.quantizer_parts.peer_worker", name, str(matrices), str(threads)]
    environment = os.environ | QUIET | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    label = QUANTIZER_PEERS[name].requirement.split()[0].replace("==", " ")
    try:
        done = subprocess.run(
            command + ["quick"] * quick, env=environment, text=True, capture_output=True, timeout=SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        print(f"{label} is not measured: {(error.stderr.strip().splitlines() or ['it ended without a word'])[-1]}")
        return []
    except subprocess.TimeoutExpired:
        print(f"{label} is not measured: it was not done after {SECONDS:.0f} s.")
        return []
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [{"section": "peers", "peer": label, "threads": threads, **row} for row in found]


if __name__ == "__main__":
    print(measure("--quick" in sys.argv, 1).to_string(index=False))
