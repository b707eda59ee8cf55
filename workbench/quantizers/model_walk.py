"""Where the weights of a causal language model are: blocks, linear layers, embedding and output layer."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from workbench.quantizers.embedding import QuantizedEmbedding
from workbench.quantizers.grid import check_weight
from workbench.quantizers.linear import QuantizedLinear
from workbench.quantizers.llm_int8 import LLMInt8Linear
from workbench.quantizers.recipes import LayerRecipe, Recipe
from workbench.quantizers.spec import QuantSpec

QUANTIZED = (QuantizedLinear, QuantizedEmbedding, LLMInt8Linear)
ROWS_AT_ONCE = 1024  # of an embedding, which is too large to copy


@dataclass
class Plan:
    """What is to be quantised how in one model; made by :func:`plan_model`, which refuses before anything changes."""

    blocks: list[str]  # names, in the order of the forward pass
    layers: dict[str, LayerRecipe]  # linear layers, with groups settled
    embedding: tuple[str, QuantSpec] | None = None
    head: tuple[str, QuantSpec] | None = None
    tied: bool = False
    outside: list[str] = field(default_factory=list)  # layers in ``layers`` that belong to no block

    def of_block(self, block: str) -> dict[str, LayerRecipe]:
        """The layers of one block."""
        return {name: rule for name, rule in self.layers.items() if name.startswith(f"{block}.")}


def plan_model(model: nn.Module, recipe: Recipe) -> Plan:
    """Settle for each layer of ``model`` what ``recipe`` says, and check that all of it can be done.

    Raises:
        TypeError, ValueError: not a causal language model, one that is quantised, a pattern that names no layer,
            a group that does not divide a layer's inputs, NaN or infinite weights, stacked experts.
    """
    embedding, head = _ends(model)
    blocks = find_blocks(model)
    names = linear_names(model, blocks)
    check_patterns(recipe, list(names))
    widths = [weight_of(module).shape[1] for module in names.values()]
    layers = {}
    for name, module in names.items():
        rule = recipe.rule_for(name)
        if rule is None or (not _within(name, blocks) and rule is recipe.default):
            continue
        weight = weight_of(module)
        layers[name] = rule.for_width(weight.shape[1], widths)
        layers[name].spec.group_length(weight.shape[1], name)
    outside = [name for name in layers if not _within(name, blocks)]
    for name in outside:
        if layers[name].calibrated:
            raise ValueError(
                f"{name} stands outside the blocks, which calibration runs through: quantise it with rtn or hqq."
            )
    plan = Plan(blocks, layers, outside=outside, tied=head is not None and is_tied(model))
    _add_ends(plan, model, recipe, embedding, head)
    if not (plan.layers or plan.embedding or plan.head):
        raise ValueError("the recipe leaves every layer as it is: give it a default, an override or an embedding.")
    for name in plan.layers:
        check_weight(weight_of(names[name]), name)
    for name, _ in filter(None, (plan.embedding, plan.head)):
        for rows in model.get_submodule(name).weight.split(ROWS_AT_ONCE):
            check_weight(rows, name)
    return plan


def find_blocks(model: nn.Module) -> list[str]:
    """Names of the blocks: the list of equal modules that holds the most parameters.

    Raises:
        ValueError: there is none, or blocks whose experts are stacked in tensors of three axes.
    """
    found, most = [], 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{block}.") for block in found):
            continue
        size = sum(parameter.numel() for parameter in module.parameters())
        if size > most:
            found, most = [f"{name}.{index}" for index in range(len(module))], size
    if not found:
        raise ValueError(f"{type(model).__name__} has no list of blocks: quantise its layers one by one instead.")
    for block in found:
        for name, parameter in model.get_submodule(block).named_parameters():
            if parameter.dim() > 2:
                raise ValueError(
                    f"{block}.{name} stacks matrices in a tensor {tuple(parameter.shape)} (mixture of experts), "
                    "which no recipe covers: such a model would stay large without a word."
                )
    return found


def linear_names(model: nn.Module, blocks: list[str]) -> dict[str, nn.Module]:
    """All linear layers but the output layer; those of blocks first, in their order."""
    head = model.get_output_embeddings()
    found = {name: module for name, module in model.named_modules() if is_linear(module) and module is not head}
    return dict(sorted(found.items(), key=lambda item: not _within(item[0], blocks)))


def is_linear(module: nn.Module) -> bool:
    """Whether this is a ``Linear`` or GPT-2's transposed ``Conv1D`` with a floating weight."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D) and module.weight.dim() == 2


def weight_of(module: nn.Module) -> Tensor:
    """The weight ``[out, in]`` of a linear layer or an embedding; a view."""
    weight = module.weight.detach()
    return weight if isinstance(module, nn.Linear | nn.Embedding) else weight.t()


def is_tied(model: nn.Module) -> bool:
    """Whether the output layer is the embedding's matrix."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def name_of(model: nn.Module, module: nn.Module) -> str:
    """The first name of ``module`` in ``model``."""
    return next(name for name, one in model.named_modules() if one is module)


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put ``new`` in the place of the module called ``name``."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)


def check_patterns(recipe: Recipe, names: list[str]) -> None:
    """Raise ``ValueError`` for a pattern of ``recipe`` that matches none of ``names``, with the nearest that would."""
    for pattern in recipe.overrides:
        if fnmatch.filter(names, pattern):
            continue
        tried = dict.fromkeys(_wildcards(names))
        near = difflib.get_close_matches(pattern, tried, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"the pattern {pattern!r} of the recipe matches no linear layer.{hint} Layers are called like {names[0]!r}."
        )


def _wildcards(names: list[str]) -> Iterator[str]:
    """Names, and patterns that people write for them: ``*.mlp.*``, ``*.q_proj``, ``model.layers.0.*``."""
    for name in names:
        parts = name.split(".")
        yield name
        yield f"*.{parts[-1]}"
        yield f"*{parts[-1]}"
        for cut in range(1, len(parts)):
            yield f"{'.'.join(parts[:cut])}.*"
            yield f"*.{parts[cut]}.*"


def _within(name: str, blocks: list[str]) -> bool:
    return any(name.startswith(f"{block}.") for block in blocks)


def _ends(model: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    if not hasattr(model, "get_output_embeddings") or not hasattr(model, "config"):
        raise TypeError(f"expected a causal language model of transformers, got {type(model).__name__}.")
    for name, module in model.named_modules():
        if isinstance(module, QUANTIZED):
            raise ValueError(
                f"the model is quantised already ({name} is a {type(module).__name__}): "
                "load the float model again, or keep it with in_place=False."
            )
    if getattr(model.config, "quantization_config", None) is not None:
        raise ValueError("the model was loaded quantised by another library: load its float weights.")
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        raise TypeError(f"the token embedding is a {type(embedding).__name__}, expected an nn.Embedding.")
    return embedding, model.get_output_embeddings()


def _add_ends(plan: Plan, model: nn.Module, recipe: Recipe, embedding: nn.Module, head: nn.Module | None) -> None:
    specs = {"embedding": recipe.embedding, "head": recipe.head}
    if head is None and recipe.head is not None:
        raise ValueError(f"{type(model).__name__} has no output layer: drop head={recipe.head} from the recipe.")
    if plan.tied:
        given = [spec for spec in specs.values() if spec is not None]
        if len(set(given)) > 1:
            raise ValueError(
                f"embedding and output layer of this model are one matrix, but the recipe wants {given[0].label} "
                f"for one and {given[1].label} for the other: give one of them, or the same twice."
            )
        specs = dict.fromkeys(specs, given[0] if given else None)
    if specs["embedding"] is not None:
        plan.embedding = (name_of(model, embedding), specs["embedding"])
    if specs["head"] is not None:
        plan.head = (name_of(model, head), specs["head"])
    for module, part in ((embedding, plan.embedding), (head, plan.head)):
        if part is not None:
            part[1].group_length(module.weight.shape[1], part[0])
