"""Single layers under several grids: the trap of weights that lie on a grid already, outliers, and who is sensitive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from pandas.api.types import is_scalar

from workbench.training.parallel import run_tasks
from workbench.training.quantized_grid import CALIBRATION_WINDOWS, SeededModel
from workbench.training.quantized_variants import Variant
from workbench.training.text_task import PreparedText

if TYPE_CHECKING:
    from torch import Tensor

SHIPPED = "smollm2-135m"
SHIPPED_LAYER = "model.layers.3.mlp.gate_proj.weight"  # any would do
SENSITIVITY_WINDOWS = 16
# At two bits SpQR's outliers and scales cost more than two bits: finer groups of four bits are its rival.
OUTLIER_RIVALS = (("spqr", 2), ("gptq", 2), ("gptq_16", 2), ("gptq_16", 4))


def shipped_grid(model: SeededModel, pretrained: Sequence[str]) -> pd.DataFrame:
    """Squared error of one layer's weights on five 4-bit grids, in parts of their mean square.

    Of the packaged SmolLM2, where it is among ``pretrained``, whose weights are Q4_1 (blocks of 32 inputs, a scale and
    a minimum each), and of a model trained here in float32.

    Returns:
        The columns ``model``, ``layer``, ``grid``, ``bits_per_weight`` and ``relative_error``.
    """
    from workbench.quantizers.rtn import quantize_rtn
    from workbench.quantizers.spec import QuantSpec

    layers = {}
    if SHIPPED in pretrained:
        layers[SHIPPED] = (SHIPPED_LAYER, _shipped_weight())
    name = "model.layers.0.mlp.gate_proj.weight"
    layers[f"{model.trained.name}, trained here"] = (name, model.trained.weights()[name])
    grids = [QuantSpec(4, 32, zero="float"), QuantSpec(4, 32), QuantSpec(4, 32, symmetric=True)]
    rows = []
    for who, (layer, weight) in layers.items():
        for spec in [*grids, QuantSpec(4, 64, zero="float"), QuantSpec(4, None, zero="float")]:
            if isinstance(spec.group_size, int) and weight.shape[1] % spec.group_size:
                continue
            quantised = quantize_rtn(weight, spec, layer=layer)
            error = (quantised.dequantize() - weight).square().mean() / weight.square().mean()
            rows.append({"model": who, "layer": layer, "grid": spec.label,
                         "bits_per_weight": quantised.bits_per_weight, "relative_error": float(error)})  # fmt: skip
    return pd.DataFrame(rows)


def _shipped_weight() -> Tensor:
    from safetensors import safe_open

    from workbench.models.pretrained import find_pretrained

    with safe_open(find_pretrained(SHIPPED) / "model.safetensors", framework="pt") as file:
        return file.get_tensor(SHIPPED_LAYER).float()


def isolate_outliers(models: Sequence[SeededModel], *, cores: int | None = None) -> pd.DataFrame:
    """Relative squared error of every layer's output at 2 bits: SpQR, and GPTQ on grids of as many and more bits.

    Returns:
        ``model, seed, layer, variant, bits_per_weight, output_error``.
    """
    wanted = [Variant(*rival) for rival in OUTLIER_RIVALS]
    tables = run_tasks(_outliers, [(model, _text_folder(model), wanted) for model in models], cores=cores,
                       label="outliers of layers")  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def sensitive_layers(
    models: Sequence[SeededModel], *, bits: Sequence[int] = (8, 4, 3, 2), cores: int | None = None
) -> pd.DataFrame:
    """Nats per token that each layer alone adds when it is rounded to nearest, measured on held-out text.

    Returns:
        Rows of :func:`workbench.quantizers.sensitivity.layer_sensitivity` with ``model`` and ``seed``.
    """
    tasks = [(model, _text_folder(model), tuple(bits)) for model in models]
    return pd.concat(run_tasks(_sensitivity, tasks, cores=cores, label="sensitivity of layers"), ignore_index=True)


def _text_folder(model: SeededModel) -> Path:
    return model.trained.task.prepare().folder


def _outliers(task: tuple[SeededModel, Path, list[Variant]]) -> pd.DataFrame:
    from workbench.quantizers.sensitivity import layer_sensitivity
    from workbench.training.batches import random_windows

    model, folder, wanted = task
    text = PreparedText(folder, model.trained.task.context)
    draw = random_windows(text.training, context=text.context, batch_size=CALIBRATION_WINDOWS, seed=0)
    loaded, calibration = model.trained.load(), next(draw)[:, :-1]
    tables = [
        layer_sensitivity(loaded, _held_out(text), [variant.recipe().default], measure="output",
                          calibration=calibration, label="")
        .query("method != 'float'").assign(variant=variant.name)
        for variant in wanted
    ]  # fmt: skip
    table = pd.concat(tables, ignore_index=True).assign(model=model.trained.name, seed=model.seed)
    return table[["model", "seed", "layer", "variant", "bits_per_weight", "output_error"]]


def _sensitivity(task: tuple[SeededModel, Path, tuple[int, ...]]) -> pd.DataFrame:
    from workbench.quantizers.sensitivity import layer_sensitivity

    model, folder, bits = task
    text = PreparedText(folder, model.trained.task.context)
    table = layer_sensitivity(model.trained.load(), _held_out(text), sorted(bits), measure="loss",
                              batch_tokens=SENSITIVITY_WINDOWS * text.context, label="")  # fmt: skip
    plain = [name for name in table if table[name].map(is_scalar).all()]  # without the single windows
    return table[plain].assign(model=model.trained.name, seed=model.seed)


def _held_out(text: PreparedText) -> torch.Tensor:
    from workbench.training.batches import fixed_windows

    return fixed_windows(text.held_out, context=text.context, count=SENSITIVITY_WINDOWS)
