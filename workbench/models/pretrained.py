"""Pretrained models with their tokenizers, by short name, folder or Hugging Face hub name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from workbench import runtime
from workbench.datasets.assets import ASSETS
from workbench.datasets.fetch import fetch
from workbench.errors import AssetError, UnknownName, check_choice
from workbench.files import atomic_path, data_folder, locked, remove_leavings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORT_NAMES = ("smollm2-135m", "minilm")
_CONVERSION = 1  # raise when the same archive should convert differently
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def load_pretrained(
    name: str | Path, *, device: str = "auto", dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model called ``name``, in evaluation mode, and its tokenizer.

    ``smollm2-135m`` is SmolLM2-135M-Instruct in Q4_1, dequantized: its weights lie on a 4-bit grid (blocks of 32
    with a minimum), so it is not the published bfloat16 model, and rounding it to that grid again loses nothing.
    ``minilm`` is the sentence encoder all-MiniLM-L6-v2 (see :func:`workbench.models.encoders.encode_sentences`).
    Anything else is a folder that ``save_pretrained`` wrote, or ``owner/name`` on the Hugging Face hub, which is
    looked for in the hub's local cache first. A causal language model comes with its head, any other without.

    Args:
        name: short name, folder or hub name.
        device: ``auto | cpu | cuda | mps``.
        dtype: ``auto`` (float32) ``| float32 | bfloat16 | float16 | float64``.

    Raises:
        UnknownName: neither a short name, nor a folder, nor of the form of a hub name.
        ValueError: the folder holds no model.
        AssetError: the model is not here and cannot be fetched.
    """
    where, kind = runtime.device(device), runtime.dtype(dtype)
    source = find_pretrained(name)
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    with _without_bars():
        config = AutoConfig.from_pretrained(source)
        causal = any(found.endswith(("ForCausalLM", "LMHeadModel")) for found in config.architectures or ())
        loader = AutoModelForCausalLM if causal else AutoModel
        model = loader.from_pretrained(source, dtype=kind)
        tokenizer = AutoTokenizer.from_pretrained(source)
    return model.to(where).eval(), tokenizer


def is_pretrained_name(name: str) -> bool:
    """Whether ``name`` has the form of what :func:`load_pretrained` takes; nothing is fetched."""
    return name in SHORT_NAMES or Path(name).expanduser().is_dir() or bool(_HUB_NAME.fullmatch(name))


def find_pretrained(name: str | Path) -> Path:
    """The folder that holds the model called ``name``, fetched and converted on first need.

    Raises:
        UnknownName, ValueError, AssetError: as :func:`load_pretrained`.
    """
    text = str(name)
    if text == "smollm2-135m":
        return _smollm2()
    if text == "minilm":
        return fetch(text)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"The folder {folder} holds no model: expected a config.json as save_pretrained writes.")
        return folder
    if _HUB_NAME.fullmatch(text) and not text.startswith("."):
        return _from_hub(text)
    if folder.is_absolute() or len(folder.parts) > 1:
        raise UnknownName(f"model={text!r} is neither an existing folder nor a hub name (owner/name).")
    try:
        check_choice("model", text, SHORT_NAMES)
    except UnknownName as error:
        raise UnknownName(f"{error} Any other model is a folder, or owner/name on the Hugging Face hub.") from None
    raise UnknownName(f"model={text!r} has no loader.")  # a short name that was only put into the list


def _smollm2() -> Path:
    """SmolLM2 as safetensors: reading the GGUF file takes half a minute, reading this less than a second."""
    from transformers import __version__

    asset = ASSETS["smollm2-135m"]
    folder = data_folder() / "cache" / "models" / f"{asset.name}-{asset.sha256[:8]}-{__version__}-{_CONVERSION}"
    if folder.is_dir():
        return folder
    source = fetch(asset.name) / asset.members[0]
    with locked(folder):
        if not folder.is_dir():
            from workbench.models.gguf_checkpoint import convert_gguf

            remove_leavings(folder)
            with atomic_path(folder) as temporary, _without_bars():
                convert_gguf(source, temporary)
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # no pickles, no other frameworks
    try:
        cached = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
        if any(cached.glob("*.safetensors")):  # a download that was broken off leaves a folder too
            return cached
    except LocalEntryNotFoundError:
        pass
    if runtime.hub_is_switched_off():
        raise AssetError(f"model={name!r} is not in the hub's cache and HF_HUB_OFFLINE forbids to fetch it: unset it.")
    try:
        # Asked first and once: the download itself would try for minutes before it says that nobody answers.
        HfApi().model_info(name, timeout=runtime.HUB_SECONDS)
        folder = Path(snapshot_download(name, allow_patterns=wanted, etag_timeout=runtime.HUB_SECONDS))
    except Exception as error:
        # Whatever it is: the hub's client changes its network library, and with it these errors, between versions.
        _explain(name, error)
    if not any(folder.glob("*.safetensors")):
        raise AssetError(f"model={name!r} publishes no safetensors weights, and nothing else is loaded from the hub.")
    return folder


def _explain(name: str, error: Exception) -> NoReturn:
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    known = f"or use one of {', '.join(SHORT_NAMES)}, which need no hub"
    if isinstance(error, GatedRepoError):
        raise AssetError(
            f"model={name!r} is gated: ask for access on its page and log in to the hub, {known}."
        ) from error
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        raise UnknownName(f"model={name!r} is neither a folder here nor a model that the hub shows you.") from error
    reason = runtime.first_line(error)
    raise AssetError(
        f"model={name!r} is not in the hub's cache and cannot be had from the Hugging Face hub ({reason}): "
        f"check the network, give a folder, {known}."
    ) from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """transformers draws a bar for every load; a notebook would keep them all."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
