"""All of SmolLM2-135M quantised, in a process of its own: CPU time, peak memory, and the bytes that remain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    import torch

SEQUENCES, TIME = 32, 512  # of the calibration set that the figures are stated for
CPU_SECONDS = {"rtn": 20, "gptq": 480}
MEMORY = 1.3  # peak beyond the process after imports, in parts of the float32 model
BYTES = {4: 0.20, 8: 0.28}  # of all weights, with embedding and output layer in 8 bits, in parts of float32
QUIET = {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def measure(quick: bool, threads: int) -> pd.DataFrame:
    """One row for every figure: time to quantise, peak memory while it is done, and stored bytes.

    ``quick`` leaves GPTQ out, which takes minutes. Nothing is repeated: a process quantises once.

    Columns: ``section, what, peer, threads, wall_ms, cpu_ms, ratio`` (ours in parts of the peer)``, goal, reached``,
    ``mib`` (peak, or stored).
    """
    rows = []
    for method, bits in (("rtn", 4), ("rtn", 8)) if quick else (("rtn", 4), ("rtn", 8), ("gptq", 4)):
        rows += _rows(method, bits, threads, _in_process(method, bits, threads))
    return pd.DataFrame(rows)


def _rows(method: str, bits: int, threads: int, found: dict[str, float]) -> list[dict[str, Any]]:
    what = f"{method}, {bits} bits"
    common = {"section": "whole_model", "threads": threads}
    spent = {"wall_ms": 1e3 * found["wall_seconds"], "cpu_ms": 1e3 * found["cpu_seconds"]}
    calibrated = f", {SEQUENCES} x {TIME} tokens" if method == "gptq" else ""
    limit = CPU_SECONDS[method]
    rows = [
        {
            "what": f"{what}{calibrated}",
            "peer": f"{limit} CPU s",
            **spent,
            "ratio": found["cpu_seconds"] / limit,
            "goal": 1.0,
        },
        {
            "what": f"{what}: peak memory beyond imports",
            "peer": "float32 model",
            "mib": found["peak_mib"],
            "ratio": found["peak_mib"] / found["float_mib"],
            "goal": MEMORY,
        },
        {
            "what": f"{what}: stored bytes",
            "peer": "float32 model",
            "mib": found["stored_mib"],
            "ratio": found["stored_mib"] / found["float_mib"],
            "goal": BYTES[bits],
        },
    ]
    return [{**common, **row, "reached": row["ratio"] <= row["goal"]} for row in rows]


def _in_process(method: str, bits: int, threads: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", __name__, method, str(bits), str(threads), str(answer)]
        subprocess.run(command, check=True, env={**os.environ, **QUIET, "OMP_NUM_THREADS": str(threads)})
        return json.loads(answer.read_text(encoding="utf-8"))


def quantise_once(method: str, bits: int, threads: int) -> dict[str, float]:
    """What quantising SmolLM2 cost this process; everything it needs is imported before memory is read."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    from workbench import runtime
    from workbench.datasets.corpus import load_corpus
    from workbench.models.pretrained import find_pretrained
    from workbench.quantizers.model import model_bytes, quantize_model
    from workbench.quantizers.recipes import Recipe

    torch.set_num_threads(threads)
    before = runtime.peak_memory_mib()
    folder = find_pretrained("smollm2-135m")
    tokens = None
    if method == "gptq":
        text = load_corpus("shakespeare").documents[0].text[: 8 * SEQUENCES * TIME]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokens = torch.tensor(tokenizer(text).input_ids[: SEQUENCES * TIME]).view(SEQUENCES, TIME)
        del tokenizer
    model = LlamaForCausalLM.from_pretrained(
        None, config=AutoConfig.from_pretrained(folder), state_dict=read_weights(folder / "model.safetensors")
    ).eval()
    size = model_bytes(model) / 2**20
    recipe = Recipe.of(method, bits, embedding_bits=8)
    with runtime.measure() as cost:
        quantize_model(model, recipe, calibration=tokens)
    return {
        "wall_seconds": cost.wall_seconds,
        "cpu_seconds": cost.cpu_seconds,
        "peak_mib": cost.peak_mib - before,
        "float_mib": size,
        "stored_mib": model_bytes(model) / 2**20,
    }


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, each in memory of its own.

    Mapped from the file, as transformers does it, all of its pages count for this process until the last of the
    tensors is let go: nothing could be seen of what quantising in place frees.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt", backend="pread") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


if __name__ == "__main__":
    made = quantise_once(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    Path(sys.argv[4]).write_text(json.dumps(made), encoding="utf-8")
