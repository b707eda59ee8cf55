"""Quantising one layer at a time by what controls say: weights, calibration inputs, and what was made before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from workbench.quantizers.layer_inputs import LayerInputs
from workbench.quantizers.layer_methods import quantize_layers
from workbench.quantizers.layer_report import LayerReport, inputs_of, layer_report
from workbench.quantizers.llm_int8 import llm_int8_linear
from workbench.quantizers.model_walk import find_blocks, linear_names, weight_of
from workbench.quantizers.recipes import LayerRecipe
from workbench.quantizers.sensitivity import window_nats
from workbench.quantizers.spec import QuantSpec, default_group_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Made = TypeVar("Made")

SCHEMES: dict[str, dict[str, Any]] = {
    "symmetric": {"symmetric": True},
    "asymmetric, integer zero": {"zero": "integer"},
    "asymmetric, float zero": {"zero": "float"},
    "NF4 codebook": {"codebook": "nf4"},
    "FP4 codebook": {"codebook": "fp4"},
}
METHODS = {
    "round to nearest": "rtn", "GPTQ": "gptq", "AWQ": "awq", "HQQ": "hqq", "SpQR": "spqr", "LLM.int8()": "llm_int8",
}  # fmt: skip
SLOW = ("gptq", "awq", "hqq", "spqr")  # these, and the search for a clip, are made once a drag has ended, and kept
ROW, TENSOR = "a row", "the tensor"
GROUPS = (16, 32, 64, 128, 256, 512)
KEPT_INPUTS, KEPT_LAYERS = 6, 64
WINDOWS, CONTEXT = 4, 128  # of calibration text, where a tokenizer is given
SMALL_MODEL, SMALL_STEPS = "96x2", 300  # trained here where no model is given; a few seconds, once


@dataclass(frozen=True)
class Settings:
    """What the controls say of a layer."""

    layer: str
    bits: int = 4
    group: int | str = ROW
    scheme: str = "asymmetric, integer zero"
    mse: bool = False
    method: str = "round to nearest"
    rotate: bool = False
    threshold: float = 0.2  # of SpQR, in parts of the mean; of LLM.int8(), in units of the inputs

    def rule(self) -> LayerRecipe:
        """The rule that a recipe would hold.

        Raises:
            ValueError: settings that do not go together, in a sentence.
        """
        method = METHODS[self.method]
        if method == "llm_int8":
            spec = QuantSpec(8, symmetric=True)
            return LayerRecipe(spec, method, {"threshold": self.threshold})
        scheme = dict(SCHEMES[self.scheme])
        if method == "hqq":
            scheme = {"zero": "float"}
        codebook = "codebook" in scheme
        group = {ROW: None, TENSOR: "tensor"}.get(self.group, self.group)
        clip = "mse" if self.mse and not codebook and method not in ("hqq", "spqr") else "minmax"
        spec = QuantSpec(4 if codebook else self.bits, group, clip=clip, **scheme)
        options = {"outlier_threshold": self.threshold} if method == "spqr" else {}
        return LayerRecipe(spec, method, options, rotate=self.rotate and method != "awq")


class QuantizationBench:
    """A model, a text, and the layers of it that were quantised; keeps what is slow to make.

    Args:
        model: a causal language model; None trains a small one here, or finds it trained.
        calibration: its tokenizer, or ids ``[windows, time + 1]``.

    Raises:
        TypeError: a model without anything to read, or calibration of another kind.
    """

    def __init__(
        self, model: nn.Module | None = None, calibration: PreTrainedTokenizerBase | Tensor | None = None
    ) -> None:
        if model is None:
            model, calibration = small_model(calibration)
        if isinstance(calibration, Tensor):
            tokens = calibration
        elif hasattr(calibration, "encode"):
            tokens = _windows_of(calibration)
        else:
            raise TypeError(
                "calibration must be the model's tokenizer or token ids [windows, time + 1], "
                f"got {type(calibration).__name__}: write QuantizationExplorer(model, tokenizer)."
            )
        self.model, self.tokens = model, tokens.to(torch.int64)
        blocks = find_blocks(model)
        self._layers = {
            name: module
            for name, module in linear_names(model, blocks).items()
            if any(name.startswith(f"{block}.") for block in blocks)
        }
        self._inputs: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._quantised: OrderedDict[Hashable, Any] = OrderedDict()

    @property
    def layers(self) -> list[str]:
        """Names of the linear layers of all blocks, in the order of the forward pass."""
        return list(self._layers)

    @property
    def weights(self) -> int:
        """How many weights these layers have."""
        return sum(module.weight.numel() for module in self._layers.values())

    def weight(self, layer: str) -> Tensor:
        """``[out, in]``, float32."""
        return weight_of(self._layers[layer]).float()

    def inputs(self, layer: str) -> Tensor:
        """What the layer reads on the calibration text, ``[tokens, in]``."""
        return _kept(self._inputs, layer, KEPT_INPUTS, lambda: inputs_of(self.model, layer, self.tokens))

    def groups(self, layer: str) -> list[int | str]:
        """Group sizes that divide the layer's inputs, a row and the whole tensor."""
        width = weight_of(self._layers[layer]).shape[1]
        return [size for size in GROUPS if width % size == 0 and size < width] + [ROW, TENSOR]

    def usual_group(self, layer: str) -> int | str:
        """The default group where it is smaller than a row."""
        size = default_group_size(weight_of(self._layers[layer]).shape[1])
        return size if size in self.groups(layer) else ROW

    def report(self, settings: Settings, *, axis: str = "steps") -> LayerReport:
        """Quantise the layer as ``settings`` say, or find it quantised, and compare it with its float weight.

        Raises:
            ValueError: settings that do not go together.
        """
        rule, weight, inputs = settings.rule(), self.weight(settings.layer), self.inputs(settings.layer)

        def make() -> Any:
            gathered = None
            if rule.calibrated:
                gathered = LayerInputs(weight.shape[1], [rule], tokens=len(inputs))
                gathered.add(inputs)
            return quantize_layers({settings.layer: weight}, {settings.layer: rule}, {settings.layer: gathered})

        made = _kept(self._quantised, _key(settings), KEPT_LAYERS, make) if is_slow(rule) else make()
        outputs = None
        if rule.method == "llm_int8":
            outputs = llm_int8_linear(inputs, weight, threshold=settings.threshold)
        return layer_report(weight, made[settings.layer], inputs, axis=axis, outputs=outputs)

    def is_made(self, settings: Settings) -> bool:
        """Whether a report of ``settings`` needs no slow method."""
        return not is_slow(settings.rule()) or _key(settings) in self._quantised

    def nats(self) -> float:
        """Loss of the float model on the calibration text, nats per token."""
        return float(window_nats(self.model, self.tokens, batch=1).mean())


def is_slow(rule: LayerRecipe) -> bool:
    """Whether a layer takes longer than a hand that drags would wait."""
    return rule.method in SLOW or rule.spec.clip == "mse"


def _key(settings: Settings) -> Hashable:
    rule = settings.rule()
    return settings.layer, rule.spec, rule.label


def small_model(calibration: Any = None) -> tuple[nn.Module, Tensor]:
    """A Llama of about 0.2 million weights trained here on Shakespeare's characters, and held-out windows."""
    from workbench.models.small_lm import named_size
    from workbench.training.batches import fixed_windows
    from workbench.training.ladder import train_ladder
    from workbench.training.text_task import TextTask

    if calibration is not None:
        raise TypeError("calibration belongs to a model: give both, QuantizationExplorer(model, tokenizer).")
    task = TextTask()
    trained = train_ladder([named_size(SMALL_MODEL)], task, steps=SMALL_STEPS, label="a small model")[0]
    windows = fixed_windows(task.prepare().held_out, context=task.context, count=16)
    return trained.load(), windows


def _windows_of(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Held-out Shakespeare in the tokens of a pretrained model."""
    from workbench.datasets.corpus import load_corpus, split_corpus

    _, held_out = split_corpus(load_corpus("shakespeare"))
    text = "\n\n".join(document.text[5000:9000] for document in held_out.documents)
    ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False)[: WINDOWS * (CONTEXT + 1)])
    return ids[: len(ids) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)


def _kept(store: OrderedDict[Hashable, Made], key: Hashable, most: int, make: Callable[[], Made]) -> Made:
    """What ``store`` has under ``key``, made if need be; the one not asked for longest goes."""
    if key not in store:
        store[key] = make()
        while len(store) > most:
            store.popitem(last=False)
    store.move_to_end(key)
    return store[key]
