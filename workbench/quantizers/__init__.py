r"""Fewer bits, same shapes: every usual way to quantise a language model, packed and run as packed.

A :class:`QuantSpec` says which grid (bits, groups, zero points, codebook), a method which code every weight takes,
a :class:`QuantizedTensor` stores the outcome (codes packed, scales, zeros, outliers: ``nbytes`` counts all of it),
a :class:`QuantizedLinear` multiplies with it. Weights W are ``[out, in]``, X are the layer's inputs
``[tokens, in]``, s scales, z zeros, H = 2/n X'X.

======================  ==========================================  =====================  ===========================
name                    which code or which grid                    paper                  when to use it
======================  ==========================================  =====================  ===========================
quantize_rtn            the nearest level of each weight            --                     8 bits; the baseline; no
                                                                                           data; NF4 and FP4
quantize_gptq           column by column, what is lost is made up   Frantar et al. 2023    3 and 4 bits with text to
                        by the columns to come through H            (GPTQ)                 calibrate on
quantize_awq            RTN of W diag(t), X / t: t = mean |X|^a     Lin et al. 2024        as GPTQ, less bound to the
                        searched for the least output error         (AWQ)                  calibration text
quantize_hqq            zeros that make sum |W - W^|^0.7 least      Badri and Shaji 2023   2 to 4 bits without data
                                                                    (HQQ)
quantize_spqr           GPTQ in small groups, scales of 3 bits,     Dettmers et al. 2023   2 and 3 bits
                        weights that matter kept as outliers        (SpQR)
quantize_smoothquant    W diag(t), X / t: t_j = max|X_j|^a /        Xiao et al. 2023       W8A8 where activations have
                        max|W_j|^(1 - a)                            (SmoothQuant)          outliers
llm_int8_linear         int8 times int8; inputs beyond a threshold  Dettmers et al. 2022   W8A8 without calibration
                        stay float                                  (LLM.int8())
Hadamard                inputs rotated before any of them, so that  Ashkboos et al. 2024   4 bits and fewer with large
                        no weight stands out                        (QuaRot)               groups
QuantizedKVCache        keys per channel, values per token          Liu et al. 2024        long contexts
                                                                    (KIVI)
======================  ==========================================  =====================  ===========================

Whole models: :func:`quantize_model` with a :class:`Recipe`, :func:`save_quantized`, :func:`load_quantized`,
:func:`export_gguf`; what each layer costs: :func:`layer_sensitivity`, :func:`cheapest_recipe`.
"""

from typing import TYPE_CHECKING, Any

from workbench.quantizers.awq import quantize_awq
from workbench.quantizers.embedding import QuantizedEmbedding
from workbench.quantizers.gguf_export import export_gguf
from workbench.quantizers.gptq import quantize_gptq, quantize_gptq_together
from workbench.quantizers.hadamard import Hadamard, hadamard_rotate
from workbench.quantizers.hessian import HessianAccumulator
from workbench.quantizers.hqq import quantize_hqq
from workbench.quantizers.layer_choice import as_recipe, cheapest_recipe, predict_added_nats
from workbench.quantizers.linear import QuantizedLinear
from workbench.quantizers.llm_int8 import LLMInt8Linear, llm_int8_linear
from workbench.quantizers.model import model_bytes, quantize_model, quantized_layers, weight_report
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.rtn import quantize_rtn
from workbench.quantizers.saving import load_quantized, save_quantized
from workbench.quantizers.sensitivity import layer_sensitivity
from workbench.quantizers.smoothquant import quantize_smoothquant, smoothquant_scales
from workbench.quantizers.spec import QuantSpec, default_group_size
from workbench.quantizers.spqr import quantize_spqr
from workbench.quantizers.tensor import QuantizedTensor

if TYPE_CHECKING:
    from workbench.quantizers.kv_cache import QuantizedKVCache

__all__ = [
    "Hadamard",
    "HessianAccumulator",
    "LLMInt8Linear",
    "LayerRecipe",
    "QuantSpec",
    "QuantizedEmbedding",
    "QuantizedKVCache",
    "QuantizedLinear",
    "QuantizedTensor",
    "Recipe",
    "as_recipe",
    "cheapest_recipe",
    "default_group_size",
    "export_gguf",
    "hadamard_rotate",
    "layer_sensitivity",
    "llm_int8_linear",
    "load_quantized",
    "model_bytes",
    "predict_added_nats",
    "quantize_awq",
    "quantize_gptq",
    "quantize_gptq_together",
    "quantize_hqq",
    "quantize_model",
    "quantize_rtn",
    "quantize_smoothquant",
    "quantize_spqr",
    "quantized_layers",
    "save_quantized",
    "smoothquant_scales",
    "weight_report",
]


def __getattr__(name: str) -> Any:
    if name == "QuantizedKVCache":  # a cache of transformers, whose import takes seconds
        from workbench.quantizers.kv_cache import QuantizedKVCache

        return QuantizedKVCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
