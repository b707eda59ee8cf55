"""Reading the file of a quantised model, with every way in which it may be the wrong one told in a sentence."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.quantizers.recipes import LayerRecipe, Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig

WEIGHTS = "quantized.safetensors"
VERSION = 1  # raise when files of before could be misread
FORMAT = f"workbench.quantizers/{VERSION}"
NEEDED = ("recipe", "rules", "layers", "head", "dtype", "fingerprint", "checksums")
SHAPING = (  # what of a config decides which weights there are and what is computed with them
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rope_parameters",
    "tie_word_embeddings", "rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "n_inner", "ffn_dim",
    "word_embed_proj_dim", "attention_bias", "mlp_bias", "activation_function", "sliding_window", "layer_types",
)  # fmt: skip


def read_header(folder: Path) -> dict[str, str]:
    """The metadata of the weights' file in ``folder``.

    Raises:
        ValueError: no such file, not one of ours, a newer version, or truncated.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    if not path.is_file() or not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no quantised model: expected {WEIGHTS} and config.json, by save_quantized.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or no safetensors file: copy or save it again ({error}).") from error
    name, _, version = metadata.get("format", "").partition("/")
    if name != FORMAT.partition("/")[0] or not version.isdigit():
        raise ValueError(f"{path} was not written by save_quantized.")
    if int(version) > VERSION:
        raise ValueError(
            f"{path} is of version {version}, this reads up to {VERSION}: update the package or save it again."
        )
    if missing := [name for name in NEEDED if name not in metadata]:
        raise ValueError(f"{path} lacks {missing} in its metadata: it was changed after save_quantized; save it again.")
    return metadata


def read_tensors(
    path: Path, checksums: Mapping[str, int], descriptions: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Float tensors by name, and those of quantised weights by layer and part.

    Raises:
        ValueError: a tensor is missing, too many, or has other bytes than were saved.
    """
    from safetensors import safe_open

    plain: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {name: {} for name in descriptions}
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        if odd := sorted(names ^ set(checksums)):
            raise ValueError(f"{path} does not hold the tensors that its metadata lists ({odd[0]}): save it again.")
        for name in sorted(names):
            tensor = file.get_tensor(name)
            if checksum(tensor) != checksums[name]:
                raise ValueError(f"{path}: the bytes of {name} are not those that were saved: copy the file again.")
            layer, marked, part = name.rpartition("::")
            if not marked:
                plain[name] = tensor
            elif layer in packed:
                packed[layer][part] = tensor
            else:
                raise ValueError(
                    f"{path} holds codes for {layer}, which its metadata does not describe: save it again."
                )
    return plain, packed


def check_recipe(saved: Recipe, wanted: Recipe | None) -> None:
    """Raise ``ValueError`` if a recipe is wanted and ``saved`` is another; kernels do not count."""
    if wanted is None:
        return
    one, other = saved.to_json(), wanted.to_json()
    for name in one:
        if name != "kernel" and one[name] != other[name]:
            first, second = _difference(one[name], other[name])
            raise ValueError(f"the file was quantised by another recipe: {name} is {first}, wanted {second}.")


def check_layers(rules: Mapping[str, LayerRecipe], descriptions: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where the description of a weight is not what its rule gives."""
    for name, rule in rules.items():
        if name not in descriptions:
            raise ValueError(f"{name}: the recipe quantises it, but the file has no codes for it: save it again.")
        described = descriptions[name]
        dynamic = bool(rule.options.get("act_order")) and (
            rule.method == "spqr" or rule.options.get("static_groups", True) is False
        )
        spec = described["spec"]
        expected = {
            "method": (rule.method, described["method"]),
            "bits": (rule.spec.bits, spec["bits"]),
            "group_size": (rule.spec.group_size, spec["group_size"]),
            "symmetric": (rule.spec.symmetric, spec["symmetric"]),
            "codebook": (rule.spec.codebook, spec["codebook"]),
            "scale_dtype": (rule.spec.scale_dtype, spec["scale_dtype"]),
            # A permutation may be left out where it changes nothing, but must not appear without a reason.
            "permutation": (True, dynamic or not described["permuted"]),
        }
        for what, (said, found) in expected.items():
            if said != found:
                raise ValueError(
                    f"{name}: recipe and codes in the file do not belong together ({what}: {said} and {found}): "
                    "quantise and save again."
                )


def fingerprint(config: PretrainedConfig) -> str:
    """SHA-256 of what decides which weights a model has and how they are used."""
    values = {name: getattr(config, name, None) for name in SHAPING}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def checksum(tensor: Tensor) -> int:
    """CRC-32 of a tensor's bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(flat.numpy())


def _difference(one: Any, other: Any, where: str = "") -> tuple[str, str]:
    """Where two values of JSON differ first, in words."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() | other.keys():
            if one.get(name) != other.get(name):
                return _difference(one.get(name), other.get(name), f"{where}{name}=")
    return f"{where}{one!r}", f"{where}{other!r}"
